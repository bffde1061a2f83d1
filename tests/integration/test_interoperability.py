"""What we hand out and take back is what others' software reads and writes: bitcoind, the Bitcoin Development Kit and
embit sign one request of a 3-of-5 vault each, and together finish the payment."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bdkpython as bdk
import pytest

from chains.btc.multisig import with_checksum
from chains.btc.psbt import parse_psbt
from chains.errors import InvalidValue
from custody.signing.requests import read_request
from ops.devnet.bitcoind import Bitcoind
from signers.airgap.btc_file import read_payment
from tests.fakes.cold_till import COLD, ColdTill
from tests.fakes.teller import opened
from tests.support.airgap import version_2

_ADDRESSES = 1_000


@pytest.fixture
def till(database: str, bitcoind: Bitcoind, tmp_path: Path) -> Iterator[ColdTill]:
    with opened(ColdTill(database, bitcoind, tmp_path)) as till:
        till.customer("alice", 60_000_000)
        till.fund_vault(50_000_000, 50_000_000)
        yield till


def descriptor_with_key(till: ColdTill, holder: str) -> str:
    """The vault's descriptor as one holder's own wallet has it: with his private key, without checksum."""
    own = till.holders[holder]
    return till.world.wallet.descriptor.partition("#")[0].replace(own.account, own.account_secret)


def by_bitcoind(till: ColdTill, holder: str, file: bytes) -> bytes:
    """Signed by a descriptor wallet of bitcoind with one cosigner's private key."""
    name = f"{holder}-{till.directory.name}"
    till.bitcoind.rpc("createwallet", name, False, True)
    wanted = {"desc": with_checksum(descriptor_with_key(till, holder)), "active": True, "timestamp": "now"}
    (answer,) = till.bitcoind.call(f"/wallet/{name}", "importdescriptors", [wanted | {"range": [0, 99]}])
    assert answer["success"], answer
    signed = till.bitcoind.call(
        f"/wallet/{name}", "walletprocesspsbt", till.as_text(file), True, "ALL", True, False
    )
    return base64.b64decode(signed["psbt"])


def by_development_kit(till: ColdTill, holder: str, file: bytes) -> bytes:
    """Signed by bdk with one cosigner's private key."""
    private = descriptor_with_key(till, holder)
    branches = [bdk.Descriptor(private.replace("<0;1>", str(n)), bdk.NetworkKind.TEST) for n in (0, 1)]
    wallet = bdk.Wallet(*branches, bdk.Network.REGTEST, bdk.Persister.new_in_memory())
    # Which coins are its own it learns from addresses that it has given.
    for keychain in (bdk.KeychainKind.EXTERNAL, bdk.KeychainKind.INTERNAL):
        wallet.reveal_addresses_to(keychain, 20)
    psbt = bdk.Psbt(till.as_text(file))
    wallet.sign(psbt, None)
    return base64.b64decode(psbt.serialize())


def test_bitcoind_bdk_and_embit_each_sign_one_request_and_finish_the_same_payment(till: ColdTill) -> None:
    paid, session = till.asked(55_000_000)
    file = till.export(session, "ann", "bob", "cem")
    for holder, signed in (
        ("ann", by_bitcoind(till, "ann", file)),
        ("bob", by_development_kit(till, "bob", file)),
        ("cem", till.holders["cem"].sign(file)),
    ):
        taken = till.bring(signed)
        assert (taken.kept, taken.refused) == ((holder,), ())
    assert till.session_states() == ["complete"]
    till.settle_cold()
    assert till.withdrawal(paid.id).state == "settled"
    assert till.paid_to(paid.destination) == 55_000_000


def test_a_request_has_what_signers_of_other_makes_ask_for_and_says_no_more_to_ours(till: ColdTill) -> None:
    _, session = till.asked(55_000_000)
    file = till.export(session, "ann")
    asked = read_request(till.version(session).request).transaction
    decoded = till.bitcoind.rpc("decodepsbt", till.as_text(file))
    assert all(
        {"witness_utxo", "non_witness_utxo", "witness_script"} <= each.keys() for each in decoded["inputs"]
    )
    keys = {(each["xpub"], each["master_fingerprint"], each["path"]) for each in decoded["global_xpubs"]}
    path = "m/48h/1h/0h/2h"
    assert keys == {(each.account, each.origin[:8], path) for each in till.holders.values()}
    needed = till.bitcoind.rpc("analyzepsbt", till.as_text(file))
    assert {each["next"] for each in needed["inputs"]} == {"signer"}
    strict = parse_psbt(base64.b64decode(asked))
    assert read_payment(file).psbt == strict
    # Signers of ours are asked with the strict form only, and take no other.
    with pytest.raises(InvalidValue, match="at most 34 allowed"):
        parse_psbt(file)


def test_what_bitcoind_has_combined_and_finished_is_taken_apart_again(till: ColdTill) -> None:
    _, session = till.asked(55_000_000)
    signed = [till.as_text(each) for each in till.signed_by(session, "ann", "dag", "eve")]
    combined = till.bitcoind.rpc("combinepsbt", signed)
    finished = till.bitcoind.rpc("finalizepsbt", combined, False)
    assert finished["complete"]
    taken = till.bring(finished["psbt"].encode())
    assert (taken.kept, taken.refused, taken.session.state) == (("ann", "dag", "eve"), (), "complete")
    # The transaction itself says the same, and nothing new.
    again = till.bring(till.bitcoind.rpc("finalizepsbt", combined)["hex"].encode())
    assert (again.kept, again.known, again.refused) == ((), ("ann", "dag", "eve"), ())
    till.settle_cold()


def test_a_request_that_came_back_as_version_2_is_the_same(till: ColdTill) -> None:
    _, session = till.asked()
    [signed] = till.signed_by(session, "bob")
    newer = version_2(signed)
    assert newer != signed
    assert till.bring(newer).kept == ("bob",)
    till.sign_all(session, "ann", "eve")
    till.settle_cold()


def test_bitcoind_derives_the_same_first_thousand_addresses_of_a_vault(till: ColdTill) -> None:
    wallet = till.world.wallet
    assert wallet.descriptor == till.bundle.wallet(COLD).descriptor  # type: ignore[union-attr]
    name = f"watch-{till.directory.name}"
    till.bitcoind.rpc("createwallet", name, True, True)
    wanted: dict[str, Any] = {"desc": wallet.descriptor, "active": True, "timestamp": "now"}
    (answer,) = till.bitcoind.call(
        f"/wallet/{name}", "importdescriptors", [wanted | {"range": [0, _ADDRESSES - 1]}]
    )
    assert answer["success"], answer
    for branch in (0, 1):
        one_branch = with_checksum(wallet.descriptor.partition("#")[0].replace("<0;1>", str(branch)))
        derived = till.bitcoind.rpc("deriveaddresses", one_branch, [0, _ADDRESSES - 1])
        assert derived == [wallet.address(branch, index) for index in range(_ADDRESSES)]
    for address in (wallet.address(0, 0), wallet.address(1, _ADDRESSES - 1)):
        assert till.bitcoind.call(f"/wallet/{name}", "getaddressinfo", address)["ismine"]
