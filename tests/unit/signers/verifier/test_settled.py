"""A trade rests on what a trading core has signed, verbatim: who changes a word of it, or has not its key, is found."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from custody.trades.model import Fill, trade_id
from policies.keys import SigningKey
from policies.token import Token
from signers.verifier.model import Plain, Settlement, Trade
from signers.verifier.settled import PATH, unasked

CORE = UUID("0192f0c1-5b7e-7c3a-9d2e-3f4a5b6c7d8f")
KEY = SigningKey.generate()
FILL = {
    "sequence": 7,
    "index": 1,
    "base": "BTC",
    "quote": "USDX",
    "buyer": "alice",
    "seller": "bob",
    "base_units": "80000000",
    "quote_units": "48240000000",
    "buyer_fee": "48240000",
    "seller_fee": "-9648000",
}


def keys(caller: str, scope: str) -> frozenset[str]:
    return frozenset({KEY.public_hex}) if (caller, scope) == ("trading", "trading") else frozenset()


def settlement(
    *fills: dict[str, Any], key: SigningKey = KEY, caller: str = "trading", path: str = PATH
) -> Settlement:
    document = json.dumps({"core": str(CORE), "first": 1, "last": 9, "fills": list(fills)})
    token = Token(
        v=1,
        caller=caller,
        audience="strongroom",
        issued_at=1,
        expires_at=31,
        nonce="0123456789abcdef",
        method="POST",
        path=path,
        query="",
        body_sha256=hashlib.sha256(document.encode()).hexdigest(),
    )
    signed = token.canonical().decode(), key.sign(token)
    return Settlement(CORE, 1, 1, 9, True, len(fills), caller, document, *signed)


def trade(fill: dict[str, Any] = FILL, **changes: Any) -> Trade:
    numbers = ("base_units", "quote_units", "buyer_fee", "seller_fee")
    transfer = Fill(**{**fill, **{name: int(fill[name]) for name in numbers}}).transfer(CORE)
    legs = tuple(
        Plain(leg.account.kind.value, leg.account.customer, leg.account.asset, leg.amount, leg.type.value)
        for leg in transfer.legs
    )
    return replace(Trade(transfer.id, CORE, fill["sequence"], fill["index"], legs), **changes)


def said(trades: list[Trade], *rows: Settlement, customer: str = "alice") -> list[str]:
    return [detail for _, detail in unasked(trades, rows, customer, keys)]


def test_a_signed_fill_explains_its_transfer_whoever_of_the_two_asks() -> None:
    for customer in ("alice", "bob"):
        assert said([trade()], settlement(FILL), customer=customer) == []
    others = {**FILL, "index": 2, "buyer": "carol", "seller": "dave"}
    assert said([trade()], settlement(FILL, others)) == []


def test_a_trade_that_nobody_signed_or_not_so_is_found() -> None:
    assert said([trade()]) == ["no trading core has signed it"]
    cheaper = {**FILL, "quote_units": "1", "buyer_fee": "0", "seller_fee": "0"}
    assert said([trade(cheaper)], settlement(FILL)) == ["a trading core has signed something else"]
    other_id = trade(id=trade_id(CORE, 7, 2))
    assert said([other_id], settlement(FILL)) == ["it has not the id of the fill that it is said to be"]


def test_a_signed_trade_that_the_ledger_lacks_is_found_with_both_of_its_customers() -> None:
    for customer in ("alice", "bob"):
        missing = "it was settled, and the ledger has it no more"
        assert said([], settlement(FILL), customer=customer) == [missing]
    assert said([], settlement(FILL), customer="carol") == []


def test_one_fill_in_two_batches_is_found() -> None:
    found = said([trade()], settlement(FILL), replace(settlement(FILL), number=2))
    assert found == ["fill 7:1 was settled before"]


@pytest.mark.parametrize(
    "forge",
    [
        lambda: settlement(FILL, key=SigningKey.generate()),
        lambda: settlement(FILL, caller="exchange"),
        lambda: settlement(FILL, path="/v1/trading/transfers"),
        lambda: replace(settlement(FILL), document=settlement(FILL, FILL).document),
        lambda: replace(settlement(FILL), caller="other"),
        lambda: replace(settlement(FILL), core=UUID(int=1)),
        lambda: replace(settlement(FILL), first=2),
        lambda: replace(settlement(FILL), last=8),
        lambda: replace(settlement(FILL), complete=False),
        lambda: replace(settlement(FILL), fills=2),
        lambda: replace(settlement(FILL), token="{}"),
        lambda: replace(settlement(FILL), document="no JSON"),
        lambda: replace(settlement(FILL), signature="A" * 86 + "=="),
        lambda: settlement({**FILL, "base_units": "many"}),
    ],
)
def test_a_batch_that_was_edited_or_invented_explains_nothing(forge: Callable[[], Settlement]) -> None:
    assert "no trading core has signed it" in said([trade()], forge())
    assert len(said([trade()], forge())) == 2


def test_the_legs_are_those_of_the_online_side() -> None:
    assert Counter(trade().legs) == Counter(
        [
            Plain("trading", "alice", "USDX", -48_240_000_000, "trade_sell"),
            Plain("trading", "bob", "USDX", 48_240_000_000, "trade_buy"),
            Plain("trading", "bob", "BTC", -80_000_000, "trade_sell"),
            Plain("trading", "alice", "BTC", 80_000_000, "trade_buy"),
            Plain("trading", "alice", "USDX", -48_240_000, "fee"),
            Plain("trading", "bob", "USDX", 9_648_000, "fee"),
            Plain("fees_earned", None, "USDX", 38_592_000, "fee"),
        ]
    )
