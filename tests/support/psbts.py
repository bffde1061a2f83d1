"""What tests look at in a PSBT."""

from __future__ import annotations

from collections.abc import Iterable

from chains.btc.psbt import KeyOrigin


def paths_of(keys: Iterable[tuple[KeyOrigin, ...]]) -> tuple[tuple[int, ...] | None, ...]:
    """The path of the one key of each input or output, None where there is not exactly one."""
    return tuple(found[0].path if len(found) == 1 else None for found in keys)
