"""What a holder has signed before, so that the same payment asked for once more, beside the first, is said. Pure.

A holder's machine sees no orders and no chain. Whoever has all that is online, or put an old copy of its database back,
can ask for what was signed already, out of other coins or with another nonce: then both can happen. A request anew that
uses a coin or the nonce of the first one can only take its place, and is nothing to be said.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from policies.canonical import Hex32, Part, Seconds

MOST: Final = 1_000
"""So many are remembered, the latest."""


class Signed(Part, frozen=True):
    """A request that was signed here."""

    at: Seconds
    """By this machine's clock."""
    content: Hex32
    """Hash of what was signed."""
    uses: tuple[str, ...]
    """Outpoints, or a Safe's nonce: of all requests that use one of them, one can happen."""
    pays: tuple[str, ...]
    """Amount and payee of each payment that leaves, as the screen says them."""
    proposes: str = ""
    """Of a proposal of a treasury: network, factory and whom it names."""


def remembered(past: Sequence[Signed], request: Signed) -> tuple[Signed, ...]:
    """With one more; again changes nothing."""
    if any(each.content == request.content for each in past):
        return tuple(past)
    return (*past, request)[-MOST:]


def signed_before(past: Sequence[Signed], request: Signed) -> list[str]:
    """A warning for each payment of a request that another one, which can happen beside it, makes, too."""
    found = []
    for each in past:
        if each.content == request.content or set(each.uses) & set(request.uses):
            continue
        when = datetime.fromtimestamp(each.at, UTC)
        found += [
            f"PAID BEFORE? On {when:%Y-%m-%d} you signed another request that pays {payment}. This one does not take "
            "its place: BOTH CAN HAPPEN. Ask whoever wants the payment whether it is wanted twice."
            for payment in sorted(set(each.pays) & set(request.pays))
        ]
    return found
