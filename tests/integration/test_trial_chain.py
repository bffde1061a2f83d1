"""The ceremony on an EVM chain, on a real anvil: what is read back decides. And `eth` plays the outside world."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from chains.eth.address import checksummed
from ops.devnet.anvil import Anvil
from ops.devnet.errors import DevnetError
from ops.stack import ethereum, outside
from ops.stack.contracts import ask, calldata, deploy
from ops.stack.keys import person
from ops.stack.listing import Listing
from ops.stack.networks import ETHEREUM
from ops.stack.quorum import CallerGrant, make_bundle, make_quorum
from policies.bundle import EvmKeyset, EvmNetwork
from signers.keys.keyset import EvmKeysetRecord

KEY = checksummed(bytes.fromhex("c0de" * 10))


def prepared(node: Anvil, admin: str) -> tuple[Listing, EvmKeyset, EvmNetwork]:
    record = EvmKeysetRecord(id="eth-hot", attestation_key="00" * 32, chain_id=node.chain_id, address=KEY)
    listing = ethereum.prepare(node, ETHEREUM, record, admin=admin)
    assert isinstance(listing.keyset, EvmKeyset)
    assert isinstance(listing.network, EvmNetwork)
    return listing, listing.keyset, listing.network


def test_a_factory_that_is_not_what_the_bundle_says_stops_the_start(anvil: Anvil, tmp_path: Path) -> None:
    admin = ethereum.admin_address(tmp_path)
    _, keyset, network = prepared(anvil, admin)
    ethereum.check_still_there(anvil, keyset, network, admin=admin)
    thief = checksummed(b"\x66" * 20)
    deployer = anvil.accounts()[0]
    replace = msgspec.structs.replace
    for what, changed in (
        ("treasury", replace(keyset, factory=deploy(anvil, deployer, "ForwarderFactory", (thief, admin)))),
        ("admin", replace(keyset, factory=deploy(anvil, deployer, "ForwarderFactory", (KEY, thief)))),
        ("initcodeHash", replace(keyset, forwarder="11" * 32)),
        ("not that of ForwarderFactory", replace(keyset, factory=keyset.payout)),
        ("not that of BatchPayout", replace(keyset, payout=thief)),
    ):
        with pytest.raises(DevnetError, match=what):
            ethereum.check(anvil, changed, admin=admin)


def test_a_proposed_treasury_stops_the_start_long_before_it_can_take_effect(
    anvil: Anvil, tmp_path: Path
) -> None:
    admin = anvil.accounts()[5]
    _, keyset, _ = prepared(anvil, admin)
    anvil.transact(admin, keyset.factory, calldata("proposeTreasury(address)", admin), gas=200_000)
    anvil.mine()
    with pytest.raises(DevnetError, match="proposedTreasury"):
        ethereum.check(anvil, keyset, admin=admin)


def test_a_chain_that_was_lost_is_told_from_one_that_was_changed(
    fresh_anvil: Callable[..., Anvil], tmp_path: Path
) -> None:
    admin = ethereum.admin_address(tmp_path)
    node = fresh_anvil(slots_in_an_epoch=1)
    _, keyset, network = prepared(node, admin)
    with pytest.raises(DevnetError, match="begin anew in another directory"):
        ethereum.check_still_there(fresh_anvil(slots_in_an_epoch=1), keyset, network, admin=admin)
    node.kill()
    node.start()
    with pytest.raises(DevnetError):
        ethereum.check_still_there(node, keyset, network, admin=admin)


def test_somebody_outside_pays_mines_and_asks_from_a_shell(
    anvil: Anvil, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listing, _, _ = prepared(anvil, ethereum.admin_address(tmp_path))
    quorum = make_quorum(tmp_path / "officers")
    caller = CallerGrant(person(tmp_path / "callers", "exchange", organisation="trading"), ("operator",))
    bundle = make_bundle(version=1, listings=[listing], callers=[caller], quorum=quorum)
    (tmp_path / "bundle.json").write_bytes(quorum.sign(bundle).encode())

    def eth(*words: str) -> tuple[int, str, str]:
        named = ["--bundle", str(tmp_path / "bundle.json"), "--node", f"{ETHEREUM.chain}={anvil.rpc_url}"]
        code = outside.main([*named, *words])
        said = capsys.readouterr()
        return code, said.out.strip(), said.err.strip()

    _, payee, _ = eth("address")
    code, txid, _ = eth("send", payee, "1.5")
    assert (code, anvil.balance_wei(payee)) == (0, 15 * 10**17)
    receipt = anvil.receipt(txid)
    assert receipt is not None
    assert eth("send", payee, "12.5", "USDX")[0] == 0
    assert eth("balance", payee, "USDX")[1] == "12.500000 USDX"
    contract = bundle.asset("USDX").contract
    assert contract is not None
    assert ask(anvil, contract, "balanceOf(address)", "uint256", payee) == 12_500_000
    before = anvil.height()
    assert eth("mine", "2")[1] == f"{ETHEREUM.chain} {before + 2}"
    answer = eth("rpc", ETHEREUM.chain, "eth_getBlockByNumber", "latest", "false")[1]
    assert int(json.loads(answer)["number"], 16) == before + 2

    for words, said in (
        (("send", payee, "1.5", "BTC"), "no asset 'BTC'"),
        (("send", payee.swapcase(), "1"), "expected 0x"),
        (("send", payee, "0.1234567", "USDX"), "7 decimal places"),
        (("rpc", "moon", "eth_chainId"), "no network 'moon'"),
        (("rpc", ETHEREUM.chain, "no_such"), "no_such"),
    ):
        code, _, error = eth(*words)
        assert code == 1
        assert said in error
