"""`strongroom cold prove`: before real money goes to a cold vault its addresses are compared, its keys are read back
from a block, and a little goes in and out again, signed by its holders."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from custody.signing.cold import proofs
from custody.treasury import holdings, service
from custody.treasury.errors import RefillRefused
from custody.treasury.model import Refill
from custody.treasury.planner import Proposal, Why
from ops.devnet.bitcoind import Bitcoind
from policies.bundle import BitcoinVault
from tests.fakes.cold_desk import Desk
from tests.fakes.cold_till import COLD, LARGE_SATS, THRESHOLD, ColdTill, together
from tests.fakes.teller import opened

SMALL = LARGE_SATS // 100


@pytest.fixture
def desk(database: str, bitcoind: Bitcoind, tmp_path: Path) -> Iterator[Desk]:
    with opened(ColdTill(database, bitcoind, tmp_path)) as till:
        desk = Desk(till)
        till.customer("alice", 60_000_000)
        yield desk


def wanted(desk: Desk, units: int) -> Refill:
    """An operator wants so much moved from hot to cold."""
    move = Proposal(desk.till.world.record.id, COLD, "BTC", units, Why.NEED, "as we like")
    with desk.till.db.transaction() as tx:
        return service.ask(tx, desk.till.bundle, move, by="otto", now=int(time.time()))


def told_of_cold(desk: Desk) -> list[bool | None]:
    with desk.till.db.snapshot() as tx:
        found = holdings.holdings(tx, desk.till.bundle)
    return [each.proven for each in found if each.tier == "cold"]


def test_a_cold_vault_is_tried_out_before_more_than_a_little_goes_to_it(desk: Desk) -> None:
    till = desk.till
    first = till.world.wallet.address(0, 0)
    asked = desk.json("prove", COLD, code=1)
    assert [(each["step"], each["done"]) for each in asked["steps"]] == [
        ("addresses in three programs", True),
        ("address read by holders", False),
        ("payment in", False),
        ("payment out, signed offline", False),
        ("keys and threshold on the chain", False),
    ]
    assert told_of_cold(desk) == [False]
    with pytest.raises(RefillRefused, match=r"not proven.*at most 0.00100000 BTC"):
        wanted(desk, SMALL + 1)

    till.fund_vault(50_000_000)
    paid, session = till.asked()
    files = till.signed_by(session, "ann", "cem", "eve")
    for file in files[:2]:
        till.bring(file)
    till.send_past_us(together(*files))
    till.mine(6)
    till.track()
    assert till.withdrawal(paid.id).state == "settled"
    read = [word for who in ("ann", "cem", "eve") for word in ("--read", f"{who}={first[-12:]}")]
    [out] = [each for each in desk.json("prove", COLD, *read, code=1)["steps"] if not each["done"]]
    assert "those of ann, cem; import" in out["told"]
    till.bring(files[2])

    for wrong in (["--read", f"ann={first[:12]}"], read[:4]):
        steps = desk.json("prove", COLD, *wrong, code=1)["steps"]
        assert [each["step"] for each in steps if not each["done"]] == ["address read by holders"]
    assert desk.run("prove", COLD, "--read", f"otto={first[-12:]}").exit_code == 2, "no holder"
    assert desk.run("prove", "btc-hot").exit_code == 2

    done = desk.json("prove", COLD, *read)
    assert done["proven"]
    assert f"shows {THRESHOLD} signatures" in done["steps"][-1]["told"]
    assert told_of_cold(desk) == [True]
    before = till.query("SELECT * FROM vault_proofs")
    assert desk.json("prove", COLD) == done, "again changes nothing"
    assert till.query("SELECT * FROM vault_proofs") == before
    assert till.query("SELECT outcome FROM operator_actions WHERE action = 'cold-prove'") == [
        {"outcome": "done"}
    ]
    # From now on only the policy is asked, which has no rule about refills in this world.
    with pytest.raises(RefillRefused, match="no-rule-allows"):
        wanted(desk, SMALL + 1)


def test_another_form_of_the_vault_is_not_proven(desk: Desk) -> None:
    vault = desk.till.bundle.wallet(COLD)
    assert isinstance(vault, BitcoinVault)
    frozen = msgspec.structs.replace(vault, state="suspended", active_from=7)
    other = msgspec.structs.replace(vault, threshold=4)
    assert proofs.digest_of(frozen) == proofs.digest_of(vault) != proofs.digest_of(other)


def test_only_an_operator_records_a_proof(desk: Desk) -> None:
    till = desk.till
    till.fund_vault(50_000_000)
    _, session = till.asked()
    vault = till.bundle.wallet(COLD)
    assert isinstance(vault, BitcoinVault)
    with pytest.raises(Exception, match="cold-prove without a record"), till.db.transaction() as tx:
        proofs.keep(tx, vault, session.transaction_id, [])
    assert till.query("SELECT * FROM vault_proofs") == []
