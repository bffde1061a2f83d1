"""A 3-of-5 payment that bitcoind itself builds: signed at the air gap, with bitcoind, or with embit."""

from __future__ import annotations

import base64
from typing import Any

import bdkpython as bdk
import pytest
from embit import bip32, bip39
from embit.psbt import PSBT

from chains.btc.multisig import Multisig, with_checksum
from ops.devnet.bitcoind import Bitcoind
from signers.airgap.btc_file import read_payment, with_signatures
from signers.airgap.btc_review import BtcReview, review_payment, sign_payment
from signers.airgap.btc_wallets import read_descriptor
from signers.airgap.keys import HolderKey, words_of
from signers.airgap.registered import Registered
from signers.airgap.secret import Secret
from tests.support.airgap import REGTEST, holder_key, multisig, vault_of, version_2

HOLDERS = tuple(holder_key(number) for number in range(5))
REGISTERED = Registered(vaults=(vault_of(HOLDERS, 3),))


def root_of(number: int) -> Any:
    """A holder's master key, as another wallet has it."""
    seed = bip39.mnemonic_to_seed(" ".join(words_of(Secret(bytes([number + 1]) * 32))))
    return bip32.HDKey.from_seed(seed, version=REGTEST.xprv_version)


class Vault:
    """The vault as bitcoind watches it, with coins."""

    def __init__(self, bitcoind: Bitcoind) -> None:
        self.node, self.wallet = bitcoind, multisig(HOLDERS, 3)
        bitcoind.rpc("createwallet", "vault", True, True, "", False, True)
        self.import_descriptor(self.wallet, "vault")
        funds = bitcoind.wallet("funds")
        funds.fund()
        for index in range(3):
            funds.send(self.wallet.address(0, index), 100_000_000)
        funds.mine(1)

    def import_descriptor(self, wallet: Multisig, name: str) -> None:
        wanted = {"desc": wallet.descriptor, "active": True, "timestamp": "now", "range": [0, 999]}
        (answer,) = self.call(name, "importdescriptors", [wanted])
        assert answer["success"], answer

    def call(self, wallet: str, method: str, *params: object) -> Any:
        return self.node.call(f"/wallet/{wallet}", method, *params)

    def payment(self, to: str, amount: str) -> bytes:
        made = self.call(
            "vault",
            "walletcreatefundedpsbt",
            [],
            [{to: amount}],
            0,
            {"fee_rate": 5, "includeWatching": True},
            True,
        )
        return base64.b64decode(made["psbt"])

    def finish(self, *psbts: bytes) -> str:
        """Combine, finalise, test and broadcast, all by bitcoind."""
        texts = [base64.b64encode(raw).decode() for raw in psbts]
        combined = self.node.rpc("combinepsbt", texts)
        final = self.node.rpc("finalizepsbt", combined)
        assert final["complete"], final
        (test,) = self.node.rpc("testmempoolaccept", [final["hex"]])
        assert test["allowed"], test
        return str(self.node.rpc("sendrawtransaction", final["hex"]))


@pytest.fixture(scope="module")
def vault(bitcoind: Bitcoind) -> Vault:
    return Vault(bitcoind)


def look(raw: bytes, key: HolderKey) -> BtcReview:
    return review_payment(read_payment(raw), REGISTERED, key)


def signed(raw: bytes, key: HolderKey) -> bytes:
    file = read_payment(raw)
    return with_signatures(file, sign_payment(file, review_payment(file, REGISTERED, key), key))


def test_bitcoind_and_the_air_gap_derive_the_same_thousand_addresses(vault: Vault) -> None:
    for branch in (0, 1):
        branch_descriptor = vault.wallet.descriptor.partition("#")[0].replace("<0;1>", str(branch))
        found = vault.node.rpc("deriveaddresses", with_checksum(branch_descriptor), [0, 999])
        assert found == [vault.wallet.address(branch, index) for index in range(1000)]
    assert read_descriptor(vault.wallet.descriptor, REGTEST) == vault.wallet


def test_a_payment_built_by_bitcoind_is_understood_and_three_holders_finish_it(vault: Vault) -> None:
    to = vault.node.wallet("funds").address()
    raw = vault.payment(to, "1.2345")
    review = look(raw, HOLDERS[0])
    assert review.objections == ()
    assert review.leaves_sats == 123_450_000
    assert any(
        line.startswith("      yours: derived again here as change address 1/") for line in review.lines
    )
    assert f"  to  {to}" in review.lines
    # In any order, each from the same request.
    parts = [signed(raw, HOLDERS[number]) for number in (4, 1, 2)]
    txid = vault.finish(*parts)
    assert txid == read_payment(raw).psbt.tx.txid.hex
    vault.node.wallet("funds").mine(1)


def test_signatures_of_bitcoind_embit_and_the_air_gap_finish_one_payment(vault: Vault) -> None:
    raw = vault.payment(vault.node.wallet("funds").address(), "0.5")
    ours = signed(raw, HOLDERS[0])

    # A holder who keeps the key in a bitcoind of his own.
    own = root_of(1).derive("m/48h/1h/0h/2h")
    private = vault.wallet.descriptor.partition("#")[0].replace(HOLDERS[1].xpub, own.to_base58())
    vault.node.rpc("createwallet", "holder-1", False, True)
    wanted = {"desc": with_checksum(private), "active": True, "timestamp": "now", "range": [0, 99]}
    (answer,) = vault.call("holder-1", "importdescriptors", [wanted])
    assert answer["success"], answer
    by_node = vault.call(
        "holder-1", "walletprocesspsbt", base64.b64encode(raw).decode(), True, "ALL", True, False
    )
    theirs = base64.b64decode(by_node["psbt"])

    other = PSBT.parse(raw)
    other.sign_with(root_of(2))
    by_embit = bytes(other.serialize())

    # What others have signed is read, told, and signed on top of.
    for partly in (theirs, by_embit):
        assert "Signatures so far: 1 of 3" in "\n".join(look(partly, HOLDERS[0]).lines)
    on_top = signed(theirs, HOLDERS[3])
    assert "Signatures so far: 2 of 3 (holder-1, holder-3)" in look(on_top, HOLDERS[0]).lines
    vault.finish(ours, theirs, by_embit)
    vault.node.wallet("funds").mine(1)


def development_kit(wallet: Multisig, number: int) -> Any:
    """The vault in the Bitcoin Development Kit, with one holder's private key."""
    own = root_of(number).derive("m/48h/1h/0h/2h").to_base58()
    private = wallet.descriptor.partition("#")[0].replace(HOLDERS[number].xpub, own)
    branches = [
        bdk.Descriptor(private.replace("<0;1>", str(branch)), bdk.NetworkKind.TEST) for branch in (0, 1)
    ]
    return bdk.Wallet(*branches, bdk.Network.REGTEST, bdk.Persister.new_in_memory())


def test_bdk_derives_the_same_addresses_and_its_signature_finishes_a_payment(vault: Vault) -> None:
    kit = development_kit(vault.wallet, 3)
    for branch, keychain in ((0, bdk.KeychainKind.EXTERNAL), (1, bdk.KeychainKind.INTERNAL)):
        for index in (0, 1, 2, 999):
            assert str(kit.peek_address(keychain, index).address) == vault.wallet.address(branch, index)
    raw = vault.payment(vault.node.wallet("funds").address(), "0.125")
    psbt = bdk.Psbt(base64.b64encode(raw).decode())
    kit.sign(psbt, None)
    theirs = base64.b64decode(psbt.serialize())
    assert "Signatures so far: 1 of 3 (holder-3)" in look(theirs, HOLDERS[0]).lines
    vault.finish(signed(theirs, HOLDERS[0]), signed(raw, HOLDERS[4]))
    vault.node.wallet("funds").mine(1)


def test_a_version_2_file_of_the_same_payment_is_signed_alike(vault: Vault) -> None:
    raw = vault.payment(vault.node.wallet("funds").address(), "0.25")
    plain = read_payment(signed(raw, HOLDERS[2]))
    newer = read_payment(signed(version_2(raw), HOLDERS[2]))
    assert (newer.version, newer.psbt, newer.digests) == (2, plain.psbt, plain.digests)
    assert newer.signed_by == plain.signed_by


def test_a_payment_of_a_wallet_that_only_looks_like_ours_is_refused(vault: Vault) -> None:
    """Four holders' keys and a thief's: bitcoind builds it, and would have it signed."""
    thief = multisig((*HOLDERS[:4], holder_key(66)), 3)
    vault.node.rpc("createwallet", "thief", True, True, "", False, True)
    vault.import_descriptor(thief, "thief")
    funds = vault.node.wallet("funds")
    funds.send(thief.address(0, 0), 50_000_000)
    funds.mine(1)
    made = vault.call(
        "thief", "walletcreatefundedpsbt", [], [{funds.address(): "0.1"}], 0, {"fee_rate": 5}, True
    )
    review = look(base64.b64decode(made["psbt"]), HOLDERS[0])
    assert review.objections == ("Its coins are of no wallet that you have registered on this machine.",)
