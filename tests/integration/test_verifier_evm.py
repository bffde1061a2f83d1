"""The verifier on an EVM chain: reverted and replaced payments, and what arrived under which name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from chains.eth.address import raw_address
from chains.eth.erc20 import transfer_calldata
from chains.eth.network import NativeMode
from custody.ledger import bookings
from ops.devnet.anvil import Anvil
from signers.ports import OpenRequest
from tests.fakes.evm_desk import ETHER
from tests.fakes.evm_till import EvmTill, TillOutside, open_evm_till
from tests.fakes.forger import Forger
from tests.fakes.verifying import Verifying, verifying


@pytest.fixture(scope="module")
def outside(anvil: Anvil) -> TillOutside:
    return TillOutside(anvil)


@pytest.fixture
def till(database: str, outside: TillOutside, tmp_path: Path) -> Iterator[EvmTill]:
    """Not checked in the end: some of its books are cooked by then."""
    opened = EvmTill(database, outside, tmp_path)
    opened.fund()
    yield opened
    opened.close()


@pytest.fixture
def verifier(till: EvmTill) -> Iterator[Verifying]:
    with verifying(till) as opened:
        yield opened


def outcomes(verifier: Verifying) -> dict[str, str]:
    return dict(verifier.state.rows("SELECT content, outcome FROM resolutions"))


def contents(till: EvmTill) -> list[str]:
    return [row["content"] for row in till.query("SELECT content FROM transaction_versions ORDER BY version")]


# ---------------------------------------------------------------------------------------------------- resolutions


def test_a_payment_is_confirmed_once_its_block_is_finalised(till: EvmTill, verifier: Verifying) -> None:
    till.request(till.customer("alice", ETH=3 * ETHER), ETHER)
    till.send()
    till.mine()
    assert verifier.look() == 0
    till.finalize()
    assert verifier.look() == 1
    assert outcomes(verifier) == dict.fromkeys(contents(till), "confirmed")
    till.track()
    assert till.states() == ["settled"]
    found = verifier.audit()
    assert (found.findings, found.unknowns) == ((), ())
    assert verifier.look() == 0
    assert verifier.witness.open(OpenRequest()).transactions == ()


def test_a_payment_that_reverts_is_dead_once_that_is_final_and_its_hold_may_be_given_back(
    till: EvmTill, verifier: Verifying
) -> None:
    till.outside.paux.do(till.outside.payer, "setPaused", False)
    till.fund("PAUX", 1000)
    till.request(till.customer("alice", PAUX=500), 100, asset="PAUX")
    till.route()
    till.build()
    till.sign()
    till.outside.paux.do(till.outside.payer, "setPaused", True)  # between the estimate and the block
    till.catch_up()
    till.broadcast()
    till.mine()
    assert verifier.look() == 0
    till.settle()
    assert till.states() == ["failed"]
    assert verifier.look() == 1
    assert outcomes(verifier) == dict.fromkeys(contents(till), "dead")
    assert verifier.kinds() == set()


def test_of_two_versions_the_mined_one_is_confirmed_and_the_other_dead(
    till: EvmTill, verifier: Verifying
) -> None:
    till.price(1)
    till.request(till.customer("alice", ETH=3 * ETHER), ETHER)
    transaction = till.send()
    till.price(10)
    till.bump(transaction)
    till.sign()
    till.mine()
    till.settle()
    assert verifier.look() == 2
    first, second = contents(till)
    assert outcomes(verifier) == {first: "confirmed", second: "dead"}
    assert verifier.kinds() == set()


def test_a_reorg_before_finality_changes_nothing_that_was_told(till: EvmTill, verifier: Verifying) -> None:
    till.request(till.customer("alice", ETH=3 * ETHER), ETHER)
    till.send()
    till.mine()
    assert verifier.look() == 0
    till.reorg(1)
    assert verifier.look() == 0
    till.finalize()
    assert verifier.look() == 0
    assert outcomes(verifier) == {}


def test_what_was_mined_before_the_verifier_first_ran_is_found_in_older_blocks(till: EvmTill) -> None:
    till.request(till.customer("alice", ETH=3 * ETHER), ETHER)
    till.send()
    till.mine()
    till.settle()
    till.mine(60)
    with verifying(till) as late:
        assert late.look() == 1
        assert outcomes(late) == dict.fromkeys(contents(till), "confirmed")
        assert late.kinds() == set()


# ------------------------------------------------------------------------------------------------------- deposits


@pytest.mark.parametrize("mode", NativeMode)
def test_whatever_has_arrived_at_one_address_is_found_by_the_name_it_was_credited_under(
    database: str, anvil: Anvil, tmp_path: Path, mode: NativeMode
) -> None:
    with open_evm_till(database, TillOutside(anvil, mode), tmp_path) as till, verifying(till) as verifier:
        till.fund()
        till.enrol("alice")
        address = till.address("alice")
        for asset, units in (("ETH", ETHER), ("USDX", 5_000_000), ("NORX", 7), ("FEEX", 10_000)):
            till.outside.send(asset, address, units)
        till.finalize()
        till.outside.send("ETH", address, ETHER // 2)
        till.finalize()
        assert till.balance("alice") == ETHER + ETHER // 2
        found = verifier.audit()
        assert (found.findings, found.unknowns) == ((), ())
        assert verifier.verdict(till.order("alice", ETHER)).verdict.outcome == "covered"
        assert verifier.refusal(till.order("alice", 2 * ETHER)) == {"not-covered"}


def test_one_arrival_credited_under_its_second_name_is_found(till: EvmTill, verifier: Verifying) -> None:
    """By traces and by balances the same wei have different names: whoever could use both would have them twice."""
    till.customer("alice", ETH=ETHER)
    assert verifier.kinds() == set()
    forger = Forger(till.admin)
    [own] = forger.rows("SELECT * FROM deposits WHERE customer_id = 'alice'")
    [address] = forger.rows("SELECT address FROM addresses WHERE customer_id = 'alice'")
    assert own["resource"].startswith(own["txid"] + ":trace:")
    again = forger.deposit(own, resource=f"{own['block_hash']}:{address['address']}", txid=own["block_hash"])
    booked = credit(till, forger, again, ETHER)
    assert verifier.kinds() == {"deposit-repeated"}
    assert verifier.refusal(till.order("alice", ETHER + 1)) == {"deposit-repeated"}
    # Once that is taken back, nothing of it stays.
    forger.forget([booked])
    assert verifier.kinds() == set()


def test_a_deposit_of_a_token_that_is_not_listed_or_only_says_so_is_found(
    till: EvmTill, verifier: Verifying
) -> None:
    till.customer("alice", ETH=ETHER)
    fake = till.outside.unlisted
    forger = Forger(till.admin)
    [address] = forger.rows("SELECT address FROM addresses WHERE customer_id = 'alice'")
    data = transfer_calldata(raw_address(address["address"]), 10**9)
    txid = till.anvil.transact(till.outside.payer, fake.address, data, gas=200_000)[2:]
    till.finalize()
    receipt = till.anvil.rpc("eth_getTransactionReceipt", "0x" + txid)
    [own] = forger.rows("SELECT * FROM deposits WHERE customer_id = 'alice'")
    claim = {
        "resource": f"{txid}:log:0",
        "txid": txid,
        "units": 10**9,
        "height": int(receipt["blockNumber"], 16),
        "block_hash": receipt["blockHash"][2:],
    }
    made = forger.deposit(own, asset="USDX", **claim)
    credit(till, forger, made, 10**9, "USDX")
    assert verifier.kinds() == {"deposit-not-on-chain"}
    forger.run("UPDATE deposits SET asset = 'FAKE' WHERE id = %s", made)
    forger.run("UPDATE ledger_accounts SET asset = 'FAKE' WHERE asset = 'USDX'")
    assert verifier.kinds() == {"unlisted-asset"}


def credit(till: EvmTill, forger: Forger, deposit: UUID, units: int, asset: str = "ETH") -> UUID:
    return forger.credit(
        "alice",
        units,
        wallet=till.bundle.keysets[0].id,
        reference=bookings.deposit_reference(deposit),
        asset=asset,
    )
