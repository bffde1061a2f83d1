"""What officers have frozen or lowered, at each step of paying: nothing of it goes on, and all else does."""

from __future__ import annotations

import pytest

from custody.storage.db import Database
from policies.overlays import lowered
from policies.statements import Lowering
from tests.fakes.api import as_role
from tests.fakes.signing import CHAIN
from tests.fakes.till import Till

BTC = 100_000_000


class Frozen:
    """What the worker has verified as frozen, for the test to change."""

    def __init__(self, till: Till) -> None:
        self.till, self.scopes = till, tuple[str, ...]()
        self.database = Database(
            as_role(till.dsn, "strongroom_worker"),
            application="worker",
            pool_size=4,
            frozen=lambda: self.scopes,
        )
        till.db.close()
        till.db = self.database

    def reasons(self) -> set[str]:
        return {row["reason"] for row in self.till.query("SELECT reason FROM withdrawals")}


@pytest.fixture
def frozen(till: Till) -> Frozen:
    return Frozen(till)


EVERYTHING = ("all", f"chain:{CHAIN}", "asset:BTC", "customer:alice")


@pytest.mark.parametrize("scope", EVERYTHING)
def test_nothing_frozen_is_decided_and_people_see_why(till: Till, frozen: Frozen, scope: str) -> None:
    till.customer("alice", BTC)
    till.request("alice", 1_000_000)
    frozen.scopes = (scope,)
    till.route()
    till.route()
    assert till.states() == ["requested"]
    assert frozen.reasons() == {f"halted: an officer has frozen {scope}"}
    frozen.scopes = ()
    till.send()
    till.settle()
    assert till.states() == ["settled"]


@pytest.mark.parametrize("scope", [*EVERYTHING, "tier:hot", "wallet:btc-hot"])
def test_nothing_frozen_is_built(till: Till, frozen: Frozen, scope: str) -> None:
    till.customer("alice", BTC)
    till.request("alice", 1_000_000)
    till.route()
    frozen.scopes = (scope,)
    assert till.build() is None
    assert till.states() == ["queued"]
    frozen.scopes = ("tier:warm", "wallet:another", "customer:bob", "asset:USDX", "chain:another")
    assert till.build() is not None
    till.sign()
    till.broadcast()
    till.settle()
    assert till.states() == ["settled"]


@pytest.mark.parametrize("scope", ["all", f"chain:{CHAIN}", "asset:BTC", "tier:hot", "wallet:btc-hot"])
def test_nothing_frozen_is_signed_or_sent(till: Till, frozen: Frozen, scope: str) -> None:
    till.customer("alice", BTC)
    till.request("alice", 1_000_000)
    till.route()
    assert till.build() is not None
    frozen.scopes = (scope,)
    assert till.sign() == []
    frozen.scopes = ()
    assert len(till.sign()) == 1
    frozen.scopes = (scope,)
    assert till.broadcast() == 0
    assert till.mempool() == set()
    frozen.scopes = ()
    assert till.broadcast() == 1
    till.settle()


def test_a_frozen_customers_payments_wait_and_their_coins_stay_while_all_others_are_paid(
    till: Till, frozen: Frozen
) -> None:
    till.customer("alice", BTC)
    till.customer("bob", 3_000_000)
    alices, bobs = till.request("alice", 1_000_000), till.request("bob", 1_000_000)
    frozen.scopes = ("customer:alice",)
    till.send()
    till.settle()
    assert till.withdrawal(alices.id).state == "requested"
    assert till.withdrawal(bobs.id).state == "settled"
    spent = till.query(
        "SELECT a.customer_id FROM consumptions c JOIN receipts r ON r.resource = c.resource"
        " JOIN addresses a ON a.id = r.address_id WHERE a.purpose = 'deposit'"
    )
    assert [row["customer_id"] for row in spent] == ["bob"]
    frozen.scopes = ()
    till.send()
    till.settle()
    assert till.withdrawal(alices.id).state == "settled"


def test_what_is_above_a_lowered_cap_waits_and_keeps_nobody_else_from_being_paid(till: Till) -> None:
    till.customer("alice", BTC)
    large, small = till.request("alice", 5_000_000), till.request("alice", 1_000_000)
    till.route()
    signed = till.bundle
    lowering = Lowering(
        v=1,
        officer="olga",
        target="cap:hot:BTC:payment_below",
        value="4000000",
        bundle_version=signed.version,
        reason="odd",
        issued_at=till.world.now,
    )
    till.bundle = lowered(signed, [lowering])
    transaction_id = till.build()
    assert transaction_id is not None
    till.sign()
    till.broadcast()
    till.settle()
    assert till.withdrawal(small.id).state == "settled"
    waiting = till.withdrawal(large.id)
    assert (waiting.state, waiting.tier) == ("queued", "hot")
    assert waiting.reason == "payment-cap: a payment must stay below 0.04000000 BTC now"
    till.bundle = signed
    till.execute("UPDATE withdrawals SET not_before = now()")
    till.build()
    till.sign()
    till.broadcast()
    till.settle()
    assert till.withdrawal(large.id).state == "settled"
