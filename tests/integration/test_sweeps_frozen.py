"""What officers have frozen is not swept: a customer's forwarders, a token, everything; all else is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from custody.storage.db import Database
from ops.devnet.anvil import Anvil
from tests.fakes.desk import as_role
from tests.fakes.evm_signing import ETHER, EVM_CHAIN
from tests.fakes.sweep_till import USDX, SweepOutside, SweepTill, open_sweep_till


@pytest.fixture(scope="module")
def outside(anvil: Anvil) -> SweepOutside:
    return SweepOutside(anvil)


class Frozen:
    """What the worker has verified as frozen, for the test to change."""

    def __init__(self, till: SweepTill) -> None:
        self.scopes: tuple[str, ...] = ()
        till.db.close()
        till.db = Database(
            as_role(till.dsn, "strongroom_worker"),
            application="worker",
            pool_size=4,
            frozen=lambda: self.scopes,
        )


@pytest.fixture
def till(database: str, outside: SweepOutside, tmp_path: Path) -> Iterator[SweepTill]:
    with open_sweep_till(database, outside, tmp_path) as opened:
        for customer in ("alice", "bob"):
            opened.enrol(customer)
        opened.fund_gas()
        yield opened


@pytest.mark.parametrize("scope", ["all", f"chain:{EVM_CHAIN}", "tier:hot", "wallet:eth-hot", "asset:ETH"])
def test_nothing_is_swept_where_all_of_it_is_frozen(till: SweepTill, scope: str) -> None:
    frozen = Frozen(till)
    till.forwarders("alice", 2, ("USDX", 60 * USDX))
    frozen.scopes = (scope,)
    assert till.sweep() == 0
    frozen.scopes = ()
    assert till.sweep() == 1
    frozen.scopes = (scope,)
    assert till.sign() == []
    frozen.scopes = ()
    assert len(till.sign()) == 1
    till.broadcast()
    till.settle()


def test_a_frozen_customers_forwarders_are_left_alone(till: SweepTill) -> None:
    frozen = Frozen(till)
    till.forwarders("alice", 2, ("USDX", 60 * USDX))
    till.forwarders("bob", 1, ("USDX", 60 * USDX))
    frozen.scopes = ("customer:alice",)
    till.sweep_through()
    assert till.last().units["USDX"] == 60 * USDX
    assert till.sweep() == 0
    frozen.scopes = ()
    till.sweep_through()
    assert till.last().units["USDX"] == 120 * USDX


def test_a_frozen_token_stays_while_others_are_swept(till: SweepTill) -> None:
    frozen = Frozen(till)
    till.forwarders("alice", 1, ("USDX", 60 * USDX), ("ETH", ETHER))
    frozen.scopes = ("asset:USDX",)
    till.sweep_through()
    assert till.last().units == {"ETH": ETHER}
    frozen.scopes = ()
    till.sweep_through()
    assert till.last().units["USDX"] == 60 * USDX
