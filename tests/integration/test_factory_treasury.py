"""The cold Safe changes whom forwarders pay, from an operator's request to money at the new key: a real Safe and
factory on anvil, holders who sign files offline, the gas payer's real guard."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
import pytest
from typer.testing import CliRunner, Result

from chains.eth.address import raw_address
from chains.eth.network import NativeMode
from chains.eth.safe_files import decode_request
from custody.console.app import app
from custody.console.factory import factory_app
from custody.reconcile.factories import CHANGED, PROPOSED, STALE, UNDER_WAY
from custody.signing.broadcast import broadcast
from custody.signing.evm.administer import NotChanged
from custody.signing.sign import sign
from ops.devnet.anvil import Anvil
from policies.bundle import Operator
from policies.bundle.people import OperatorRole
from policies.keys import SigningKey
from tests.fakes.api import as_role
from tests.fakes.evm_desk import ETHER
from tests.fakes.evm_signing import EVM_CHAIN
from tests.fakes.factory_till import COLD, NEW, FactoryTill
from tests.fakes.operators import client_file
from tests.fakes.safe_till import SafeOutside
from tests.fakes.signing import DAY
from tests.fakes.teller import opened

_PEOPLE: Final[dict[str, OperatorRole]] = {"otto": "treasury", "sue": "support"}
VERBS = factory_app
"""The app has its verbs because this is imported."""


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SafeOutside]:
    with Anvil(tmp_path_factory.mktemp("factory")) as node:
        yield SafeOutside(node, NativeMode.TRACE)


@pytest.fixture
def till(database: str, outside: SafeOutside, tmp_path: Path) -> Iterator[FactoryTill]:
    with opened(FactoryTill(database, outside, tmp_path)) as till:
        till.fund_safe()
        yield till


def test_after_a_compromise_holders_turn_the_deposits_to_the_new_key(till: FactoryTill) -> None:
    till.customer("alice", ETH=3 * ETHER)
    with pytest.raises(NotChanged, match="already"):
        till.ask("propose")
    till.retire(3, "compromised")
    till.enforce()
    assert STALE in till.alerts()
    with pytest.raises(NotChanged, match="nobody is proposed"):
        till.ask("accept")

    till.through("propose")
    assert till.factory_state.proposed_treasury is not None
    assert till.factory_state.proposed_treasury.candidate == raw_address(till.new_keys.record.address)
    till.enforce()
    assert UNDER_WAY in till.alerts()
    assert not {PROPOSED, STALE, CHANGED} & till.alerts()
    for step in ("propose", "accept"):
        with pytest.raises(NotChanged, match=r"(it|can be accepted) from"):
            till.ask(step)

    till.wait_two_days()
    till.through("accept")
    assert till.treasury == till.new_keys.record.address
    till.enforce()
    assert not {PROPOSED, STALE, CHANGED, UNDER_WAY} & till.alerts()

    before = till.has(till.new_keys.record.address)
    till.factory.do(till.outside.payer, "flush", [bytes(32)], [])
    assert till.has(till.new_keys.record.address) == before + 3 * ETHER, "anybody may flush"


def test_a_proposal_is_taken_back_and_one_change_is_under_way_at_a_time(till: FactoryTill) -> None:
    till.retire(3, "deactivated")
    first = till.ask("propose")
    with pytest.raises(NotChanged, match="under way"):
        till.ask("propose")
    file = till.export(first, "ann", "bob", "cem")
    assert decode_request(file).message.tx.to == raw_address(till.world.factory)
    for holder in ("ann", "bob", "cem"):
        till.bring_file(till.signed_by_hand(file, holder))
    till.carry_out(first)
    till.through("cancel")
    assert till.factory_state.proposed_treasury is None
    with pytest.raises(NotChanged, match="nothing to cancel"):
        till.ask("cancel")


def test_what_strangers_flush_into_the_next_key_is_booked_from_one_wallet_into_the_other(
    till: FactoryTill,
) -> None:
    till.customer("alice", ETH=3 * ETHER, USDX=500 * 10**6)
    till.retire(3, "compromised")
    till.through("propose")
    till.wait_two_days()
    till.through("accept")
    old = till.world.record.id
    assert (till.in_wallet(old), till.in_wallet(old, "USDX")) == (3 * ETHER, 500 * 10**6)
    usdx = till.outside.listed()["USDX"].address
    indexes = [row["index"] for row in till.query("SELECT index FROM addresses WHERE branch = 0")]
    till.factory.do(till.outside.payer, "flush", [n.to_bytes(32, "big") for n in indexes], [usdx])
    till.check()
    till.finalize()
    till.enforce()
    till.check()
    assert (till.in_wallet(old), till.in_wallet(old, "USDX")) == (0, 0)
    assert (till.in_wallet(NEW), till.in_wallet(NEW, "USDX")) == (3 * ETHER, 500 * 10**6)
    assert till.suspense("USDX") == 0
    before = till.contents()
    till.enforce()
    assert till.contents() == before, "again changes nothing"
    withdrawal = till.request("alice", 100 * 10**6, asset="USDX")
    till.send()
    till.settle()
    assert till.withdrawal(withdrawal.id).state == "settled"


def test_the_new_key_flushes_forwarders_of_the_old_one_and_pays_out_of_what_comes(till: FactoryTill) -> None:
    till.customer("alice", ETH=3 * ETHER)
    till.retire(3, "compromised")
    till.outside.send("ETH", till.new_keys.record.address, ETHER)
    till.finalize()
    till.enforce()
    assert till.sweep_of(NEW) == 0, "they pay the old key still"
    till.through("propose")
    till.wait_two_days()
    till.through("accept")
    assert till.sweep_of(till.world.record.id) == 0
    assert till.sweep_of(NEW) == 1
    site = till.site_of(NEW)
    assert sign(till.db, site, till.signer), till.query("SELECT last_error FROM transactions")
    assert broadcast(till.db, site) == 1
    till.settle()
    till.enforce()
    till.check()
    assert till.sweep_of(NEW) == 1, "it looks at what was left"
    assert {row["state"] for row in till.query("SELECT state FROM deposits WHERE asset = 'ETH'")} >= {"swept"}
    assert till.in_wallet(till.world.record.id) == 0
    assert 3 * ETHER < till.in_wallet(NEW) < 4 * ETHER, "the deposit, and what is left of the ether for gas"
    assert till.sweep_of(NEW) == 0, "again changes nothing"


def test_an_operator_reads_the_factory_and_asks_for_a_change(till: FactoryTill) -> None:
    key, folder = SigningKey.generate(), till.directory
    people = {
        name: Operator(
            id=name, key=key.public_hex, organisation="house", roles=(role,), not_after=till.world.now + DAY
        )
        for name, role in _PEOPLE.items()
    }
    (folder / "root.json").write_bytes(msgspec.json.encode(till.world.root))

    def run(who: str, *arguments: str) -> Result:
        till.retire(till.bundle.version + 1, "compromised", operators=(people[who],))
        client_file(folder, who, key)
        settings = {
            "STRONGROOM_OPERATOR": str(folder / f"{who}.toml"),
            "STRONGROOM_DATABASE_URL": as_role(till.dsn, "strongroom_worker"),
            "STRONGROOM_REDIS_URL": "redis://:unused@127.0.0.1:1/0",
            "STRONGROOM_BUNDLE_PATH": str(till.bundle_path),
            "STRONGROOM_TRUST_ROOT_PATH": str(folder / "root.json"),
            "STRONGROOM_NODES": json.dumps({EVM_CHAIN: {"rpc_url": till.anvil.rpc_url}}),
            "STRONGROOM_SCREENING": json.dumps({"elsewhere": "tests"}),
            "STRONGROOM_SIGNERS": json.dumps({"eth-hot": {"socket": str(folder / "signer.sock")}}),
        }
        return CliRunner().invoke(app, ["factory", *arguments, "--json"], env=settings)

    old = till.world.record.id
    seen = run("otto", "show", old)
    assert seen.exit_code == 1, seen.output
    [row] = json.loads(seen.stdout)
    assert (row["treasury"], row["active"], row["admin"]) == (till.world.record.address, NEW, till.cold_safe)
    refused = run("sue", "propose", old, "--reason", "a new key")
    assert refused.exit_code != 0
    assert till.query("SELECT 1 FROM transactions WHERE kind = 'administration'") == []
    asked = run("otto", "propose", old, "--reason", "a new key")
    assert asked.exit_code == 0, asked.output
    told = json.loads(asked.stdout)
    assert (told["step"], told["treasury"], told["vault"]) == ("propose", till.new_keys.record.address, COLD)
    [action] = till.query(
        "SELECT action, outcome FROM operator_actions WHERE action = 'propose-treasury' AND outcome = 'done'"
    )
    assert action["action"] == "propose-treasury"
    again = run("otto", "propose", old, "--reason", "a new key")
    assert (again.exit_code, "under way" in again.output) == (1, True)
