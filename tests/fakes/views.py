"""What a guard asks a journal, answered by one that has signed nothing."""

from __future__ import annotations

from signers.guard.examined import Exposure
from signers.journal.counter import Counter


class NothingSigned:
    """Implements `signers.guard.examined.JournalView`. The contract is the journal's own; see the tests of `Book`."""

    def transaction(self, chain: str, content: str) -> dict[str, str] | None:
        return None

    def intent_digest(self, intent_id: str) -> str | None:
        return None

    def versions(self, intent_id: str) -> list[tuple[str, frozenset[str]]]:
        return []

    def window(self, kind: Exposure, scope: str, seconds: int) -> Counter:
        return Counter(seconds, lambda key: 0)

    def high_water(self, keyset: str) -> int:
        return -1

    def attested(self, keyset: str, branch: int, index: int) -> tuple[str | None, str] | None:
        return None

    def history(self) -> tuple[()]:
        return ()

    def order_since(self, order_digest: str) -> int | None:
        return None

    def destination_since(self, chain: str, destination: str) -> int | None:
        return None

    def freezes(self) -> tuple[()]:
        return ()
