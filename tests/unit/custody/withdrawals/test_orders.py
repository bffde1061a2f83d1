"""What is checked of an order without a database: when it arrives, and against the stored row before it is paid."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from chains.errors import InvalidAddress, InvalidValue
from custody.errors import ExpiredOrder, OrderMismatch
from custody.withdrawals.destinations import destination_of, smallest_payment
from custody.withdrawals.lifecycle import WithdrawalState
from custody.withdrawals.model import Withdrawal
from custody.withdrawals.orders import check_order, check_row
from policies.canonical import BadSignature
from policies.keys import sign_order
from tests.fakes.signing import CHAIN, DESTINATION, NOW, SoftKeys, World

WORLD = World(SoftKeys.make().record)
BUNDLE = WORLD.bundle()
CALLER = BUNDLE.caller("exchange")


def stored(**changes: Any) -> Withdrawal:
    signed = sign_order(WORLD.order(1_000_000), WORLD.caller)
    order, now = signed.order, datetime.fromtimestamp(NOW, UTC)
    row = Withdrawal(
        id=UUID(order.id),
        caller=order.caller,
        customer=order.customer,
        chain=order.chain,
        asset=order.asset,
        destination=order.destination,
        units=order.units,
        fee_units=50_000,
        order_json=order.canonical().decode(),
        order_signature=signed.signature,
        order_hash=order.digest_hex(),
        state=WithdrawalState.QUEUED,
        reason="",
        tier="hot",
        policy_version=1,
        settlement="chain",
        transaction_id=None,
        settlements=0,
        not_before=now,
        expires_at=datetime.fromtimestamp(order.expires_at, UTC),
        created_at=now,
        updated_at=now,
    )
    return replace(row, **changes)


def test_an_honest_order_passes_and_is_read_back_from_its_row() -> None:
    check_order(sign_order(WORLD.order(1_000_000), WORLD.caller), CALLER, BUNDLE, now=NOW)
    row = stored()
    assert check_row(row) == row.signed_order.order


@pytest.mark.parametrize(
    "change",
    [
        {"id": uuid4()},
        {"caller": "reader"},
        {"customer": "bob"},
        {"chain": "bitcoin"},
        {"asset": "ETH"},
        {"destination": DESTINATION[:-1] + "q"},
        {"units": 1_000_001},
        {"order_hash": "00" * 32},
        {"expires_at": datetime.fromtimestamp(NOW, UTC) + timedelta(days=9)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_fault_44_every_column_that_the_order_speaks_of_is_compared_with_it(change: dict[str, Any]) -> None:
    with pytest.raises(OrderMismatch):
        check_row(stored(**change))


def test_an_edited_order_is_not_the_order_that_was_hashed() -> None:
    row = stored()
    with pytest.raises(OrderMismatch):
        check_row(replace(row, order_json=row.order_json.replace('"1000000"', '"2000000"')))
    with pytest.raises(InvalidValue):
        check_row(replace(row, order_json=row.order_json.replace(":", ": ", 1)))


def test_the_end_of_an_order_is_exact_to_the_second() -> None:
    signed = sign_order(WORLD.order(1_000_000), WORLD.caller)
    check_order(signed, CALLER, BUNDLE, now=signed.order.expires_at - 1)
    with pytest.raises(ExpiredOrder):
        check_order(signed, CALLER, BUNDLE, now=signed.order.expires_at)


def test_an_order_may_live_no_longer_than_the_bundle_says() -> None:
    longest = BUNDLE.longest_order_seconds - 60
    check_order(
        sign_order(WORLD.order(1_000_000, expires_at=NOW + longest), WORLD.caller), CALLER, BUNDLE, now=NOW
    )
    late = sign_order(WORLD.order(1_000_000, expires_at=NOW + longest + 1), WORLD.caller)
    with pytest.raises(OrderMismatch, match="at most"):
        check_order(late, CALLER, BUNDLE, now=NOW)


def test_a_caller_whose_time_is_over_or_whose_key_is_another_does_not_order() -> None:
    order = WORLD.order(1_000_000, expires_at=CALLER.not_after + 10)
    with pytest.raises(OrderMismatch, match="still valid"):
        check_order(sign_order(order, WORLD.caller), CALLER, BUNDLE, now=CALLER.not_after)
    with pytest.raises(BadSignature):
        check_order(sign_order(order, WORLD.stranger), CALLER, BUNDLE, now=NOW)


@pytest.mark.parametrize(
    ("address", "smallest"),
    [
        (DESTINATION, 294),
        ("bcrt1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqc8gma6", 330),
        ("2N2JD6wb56AfK4tfmM6PwdVmoYk2dCKf4Br", 540),
        ("mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn", 546),
    ],
)
def test_the_smallest_payment_is_what_nodes_relay(address: str, smallest: int) -> None:
    assert smallest_payment(destination_of(BUNDLE, CHAIN, address)) == smallest


def test_an_address_of_another_network_is_none() -> None:
    with pytest.raises(InvalidAddress):
        destination_of(BUNDLE, CHAIN, "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4")
