"""What the trading core has signed: the only word on which trades rest. Written down independently of the online side.

A batch of fills is the body of a request, and the request's token, signed by the core's key, names the body's hash.
Both are kept verbatim. So whoever can write the database, and has not that key, invents no trade, changes none, and
leaves none out unseen.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from chains.errors import InvalidValue, PermanentError
from policies.canonical import verify_ed25519
from policies.token import Token
from signers.verifier.ids import trade_id
from signers.verifier.model import Plain, Settlement, Trade

SCOPE: Final = "trading"
METHOD: Final = "POST"
PATH: Final = "/v1/trading/settlements"

Keys = Callable[[str, str], frozenset[str]]
"""The keys that a caller with a scope has, or once had."""


class NotAsked(PermanentError):
    """No trading core has signed this batch as it is."""


class _Fill(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sequence: int
    index: int
    base: str
    quote: str
    buyer: str
    seller: str
    base_units: str
    quote_units: str
    buyer_fee: str
    seller_fee: str

    def legs(self) -> Counter[Plain]:
        """What a ledger transfer of it does."""
        base, quote = int(self.base_units), int(self.quote_units)
        fees = int(self.buyer_fee), int(self.seller_fee)
        found = Counter(
            [
                Plain("trading", self.buyer, self.quote, -quote, "trade_sell"),
                Plain("trading", self.seller, self.quote, quote, "trade_buy"),
                Plain("trading", self.seller, self.base, -base, "trade_sell"),
                Plain("trading", self.buyer, self.base, base, "trade_buy"),
            ]
        )
        paid = (("trading", self.buyer, -fees[0]), ("trading", self.seller, -fees[1]))
        for kind, customer, units in (*paid, ("fees_earned", None, sum(fees))):
            if units:
                found[Plain(kind, customer, self.quote, units, "fee")] += 1
        return found


class _Batch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    core: str
    first: int
    last: int
    fills: tuple[_Fill, ...]
    complete: bool = True


_batches: Final = msgspec.json.Decoder(_Batch)

Fills = Mapping[tuple[int, int], Counter[Plain]]
"""By sequence and index, the legs of each fill of a batch."""


def signed_fills(row: Settlement, keys: Keys) -> Fills:
    """The fills of a batch, if a trading core has signed it and its row says the same.

    Raises:
        NotAsked: says what is wrong.
    """
    try:
        token = Token.from_canonical(row.token.encode())
        batch = _batches.decode(row.document)
        fills = {(fill.sequence, fill.index): fill.legs() for fill in batch.fills}
    except (InvalidValue, msgspec.MsgspecError, ValueError) as error:
        raise NotAsked(f"what was asked for cannot be read: {error}"[:300]) from None
    if (token.method, token.path) != (METHOD, PATH):
        raise NotAsked(f"its token is for {token.method} {token.path}")
    if token.body_sha256 != hashlib.sha256(row.document.encode()).hexdigest():
        raise NotAsked("its token is for another body")
    if not any(_verifies(key, token, row.signature) for key in keys(token.caller, SCOPE)):
        raise NotAsked(f"no key of a trading core {token.caller} has signed it")
    said = (batch.core, batch.first, batch.last, batch.complete, len(batch.fills), token.caller)
    if said != (str(row.core), row.first, row.last, row.complete, row.fills, row.caller):
        raise NotAsked("its row says something else than what was signed")
    return fills


def _verifies(key: str, token: Token, signature: str) -> bool:
    try:
        verify_ed25519(key, token.digest(), signature)
    except PermanentError:
        return False
    return True


def unasked(
    trades: Iterable[Trade], settlements: Iterable[Settlement], customer: str, keys: Keys
) -> list[tuple[str, str]]:
    """Trades of a customer that no core has signed so, and signed ones that his ledger lacks.

    Args:
        trades: all of the customer's, by the replay.
        settlements: the batches that cover them.
        customer: whose ledger it is.
        keys: of callers.

    Returns:
        Subject and detail of each.
    """
    found: list[tuple[str, str]] = []
    asked: dict[tuple[str, int, int], Counter[Plain]] = {}
    for row in settlements:
        try:
            fills = signed_fills(row, keys)
        except NotAsked as error:
            found.append((str(row), str(error)))
            continue
        for place, legs in fills.items():
            key = (str(row.core), *place)
            if key in asked:
                found.append((str(row), f"fill {place[0]}:{place[1]} was settled before"))
            asked[key] = legs
    booked = set()
    for trade in trades:
        key = (str(trade.core), trade.sequence, trade.index)
        booked.add(key)
        if trade.id != trade_id(trade.core, trade.sequence, trade.index):
            found.append((str(trade.id), "it has not the id of the fill that it is said to be"))
        elif key not in asked:
            found.append((str(trade.id), "no trading core has signed it"))
        elif Counter(trade.legs) != asked[key]:
            found.append((str(trade.id), "a trading core has signed something else"))
    for key, legs in asked.items():
        if key not in booked and any(leg.customer == customer for leg in legs):
            found.append((":".join(map(str, key)), "it was settled, and the ledger has it no more"))
    return found
