"""Sign once: which transactions for one intent could confirm beside each other. Pure; signers and verifier share it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set


def beside(versions: Iterable[tuple[str, Set[str]]], resources: Set[str]) -> Iterator[str]:
    """Contents of those versions that have no resource in common with a transaction, so that both could confirm.

    Args:
        versions: content and resources of every earlier transaction for the intent.
        resources: of the transaction.
    """
    return (content for content, used in versions if not used & resources)
