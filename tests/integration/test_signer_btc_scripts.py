"""Taproot key-sets and vaults on a real node: daemons with keys in SoftHSM sign, bitcoind judges and mines."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chains.btc.hd import AccountKey, BranchKeys, Origin
from chains.btc.multisig import multisig_input_wu
from chains.btc.multisig_script import MultisigScript
from chains.btc.network import NETWORKS
from chains.btc.psbt import InputSignature, PsbtInput, build_psbt, finalize, parse_psbt
from chains.btc.script import KEY_LOCKS
from chains.btc.tx import RBF_SEQUENCE, Transaction, TxIn, TxOut
from ops.devnet.bitcoind import Bitcoind, OutsideWallet
from ops.devnet.process import wait_until
from ops.devnet.softhsm import SoftHsmToken
from policies.bundle import BitcoinKeyset, SignedBundle
from policies.intent import Evidence, Kind
from signers.keys.keyset import BitcoinCosignerRecord, BitcoinKeysetRecord
from signers.ports import AttestRequest, Refused, SignRequest, SignResponse
from signers.setup import NewBitcoinCosigner, NewBitcoinKeyset, make_keys
from tests.fakes.own_token import own_store
from tests.fakes.signer_daemon import SignerDaemon
from tests.fakes.signing import CHAIN, REGTEST, Coin, Draft, SoftKeys, World, own_intent
from tests.fakes.vault_signing import VAULT, SoftCosigner, VaultWorld

TAPROOT = "taproot-test"
OLD = "rotated-test"


@pytest.fixture(scope="module")
def bitcoind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bitcoind]:
    """A node of its own: on a shared one the subsidy may have been halved too often for what is paid here."""
    with Bitcoind(tmp_path_factory.mktemp("bitcoind")) as node:
        yield node


@pytest.fixture(scope="module")
def outside(bitcoind: Bitcoind) -> OutsideWallet:
    wallet = bitcoind.wallet("scripts")
    wallet.fund()
    return wallet


def received(
    bitcoind: Bitcoind, outside: OutsideWallet, address: str, units: int, place: tuple[int, int]
) -> Coin:
    """A coin that the outside world has paid to an address of ours, mined."""
    raw = bytes.fromhex(bitcoind.rpc("getrawtransaction", outside.send(address, units)))
    outside.mine(1)
    previous = Transaction.parse(raw)
    vout = next(n for n, out in enumerate(previous.outputs) if out.units == units)
    return Coin(previous, vout, *place)


def signatures(answer: SignResponse) -> list[InputSignature]:
    return [
        InputSignature(s.index, bytes.fromhex(s.pubkey), bytes.fromhex(s.signature))
        for s in answer.signatures
    ]


def read(request: SignRequest) -> Any:
    return parse_psbt(base64.b64decode(request.transaction))


def sent(bitcoind: Bitcoind, outside: OutsideWallet, raw: bytes) -> Any:
    """What the node says of a transaction that it has taken and mined."""
    (verdict,) = bitcoind.rpc("testmempoolaccept", [raw.hex()])
    assert verdict["allowed"], verdict
    txid = bitcoind.rpc("sendrawtransaction", raw.hex())
    (block,) = outside.mine(1)
    return bitcoind.rpc("getrawtransaction", txid, True, block)


# Taproot.


@pytest.fixture(scope="module")
def taproot(softhsm: SoftHsmToken, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SignerDaemon]:
    """A daemon of a taproot key-set, and of a P2WPKH one that it has followed."""
    directory = tmp_path_factory.mktemp("taproot")
    new, old = make_keys(
        softhsm.module_path,
        softhsm.label,
        softhsm.user_pin,
        directory / "files",
        [NewBitcoinKeyset(TAPROOT, "regtest", "p2tr"), NewBitcoinKeyset(OLD, "regtest")],
    )
    assert isinstance(new, BitcoinKeysetRecord)
    assert isinstance(old, BitcoinKeysetRecord)
    world = World(new, now=int(time.time()))
    retired = BitcoinKeyset(
        id=old.id,
        chain=CHAIN,
        tier="hot",
        script=old.script,
        account=old.account,
        origin=old.origin,
        attestation_key=old.attestation_key,
        state="compromised",
    )

    def bundle(version: int) -> SignedBundle:
        return world.signed(world.bundle(version, keysets=(world.keyset_entry(), retired)))

    daemon = SignerDaemon(softhsm, [TAPROOT, OLD], directory / "files", world.root, bundle, directory)
    daemon.start()
    daemon.world, daemon.old = world, old  # type: ignore[attr-defined]
    yield daemon
    daemon.close()


def test_a_taproot_address_is_attested_paid_and_spent(
    taproot: Any, bitcoind: Bitcoind, outside: OutsideWallet
) -> None:
    world = taproot.world
    signed = taproot.client.attest(
        AttestRequest(chain=CHAIN, keyset=TAPROOT, customer="alice", asset="BTC", branch=0, index=3)
    )
    address = signed.attestation.address
    assert address.startswith("bcrt1p")
    assert signed.attestation.path == "m/86'/1'/0'/0/3"
    [descriptor] = [f"tr([{world.record.origin.replace(chr(39), 'h')}]{world.record.account}/0/*)"]
    checked = bitcoind.rpc("getdescriptorinfo", descriptor)["descriptor"]
    assert bitcoind.rpc("deriveaddresses", checked, [3, 3]) == [address]
    coins = [
        received(bitcoind, outside, address, 2_000_000, (0, 3)),
        received(bitcoind, outside, world.account.address(1, 2), 1_000_000, (1, 2)),
    ]
    request = world.request(Draft(coins, [world.order(700_000)]))
    answer = taproot.client.sign(request)
    assert taproot.client.sign(request) == answer
    raw = finalize(read(request), signatures(answer))
    tx = Transaction.parse(raw)
    assert tx.weight == 4 * len(tx.serialize_without_witness()) + 2 + 2 * (
        KEY_LOCKS["p2tr"].input_wu - 4 * 41
    )
    assert sent(bitcoind, outside, raw)["weight"] == tx.weight


def test_a_key_set_that_was_followed_moves_everything_into_taproot(
    taproot: Any, bitcoind: Bitcoind, outside: OutsideWallet
) -> None:
    old = taproot.old
    account, origin = AccountKey.parse(old.account, REGTEST), Origin.parse(old.origin)
    new = taproot.world.account
    coin = received(bitcoind, outside, account.address(0, 1), 3_000_000, (0, 1))
    tx = Transaction(2, (TxIn(coin.outpoint, RBF_SEQUENCE),), (TxOut(2_998_000, new.script(1, 7)),))
    spent = PsbtInput(
        coin.outpoint, RBF_SEQUENCE, coin.previous.serialize(), (*origin.path, 0, 1), account.pubkey(0, 1)
    )
    psbt = build_psbt(tx, [spent], {0: (new.pubkey(1, 7), taproot.world.path(1, 7))}, origin.fingerprint)
    place = {"chain": CHAIN, "asset": "BTC", "destination": new.address(1, 7)}
    request = SignRequest(
        chain=CHAIN,
        keyset=OLD,
        intents=(own_intent(OLD, Kind.ROTATION, **place),),
        evidence=Evidence(),
        transaction=base64.b64encode(psbt).decode(),
    )
    other = msgspec.structs.replace(request, intents=(own_intent(OLD, Kind.CONSOLIDATION, **place),))
    with pytest.raises(Refused, match="key-state"):
        taproot.client.sign(other)
    found = sent(bitcoind, outside, finalize(read(request), signatures(taproot.client.sign(request))))
    assert found["vout"][0]["scriptPubKey"]["address"] == new.address(1, 7)


# Vaults.


class Vault:
    """Three signers of one vault: a token, a process and a journal each."""

    def __init__(self, directory: Path) -> None:
        made = []
        for number in range(3):
            with own_store(directory / f"token-{number}") as token:
                (record,) = make_keys(
                    token.soft.module_path,
                    token.soft.label,
                    token.soft.user_pin,
                    directory / f"files-{number}",
                    [NewBitcoinCosigner(VAULT, "regtest")],
                )
            assert isinstance(record, BitcoinCosignerRecord)
            made.append((token.soft, record))
        records = [record for _, record in made]
        self.world = VaultWorld(SoftKeys.make().record, now=int(time.time()), cosigners=records)
        self.changes: dict[str, Any] = {}
        self.daemons = []
        for number, (soft, _) in enumerate(made):
            home = directory / f"daemon-{number}"
            home.mkdir()
            files = directory / f"files-{number}"
            self.daemons.append(SignerDaemon(soft, [VAULT], files, self.world.root, self.bundle, home))

    def bundle(self, version: int) -> SignedBundle:
        return self.world.signed(self.world.bundle(version, **self.changes))


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vault]:
    made = Vault(tmp_path_factory.mktemp("vault"))
    for daemon in made.daemons:
        daemon.start()
    yield made
    for daemon in made.daemons:
        daemon.close()


def test_bitcoind_reads_the_descriptor_and_derives_the_same_addresses(
    vault: Vault, bitcoind: Bitcoind
) -> None:
    wallet = vault.world.wallet
    descriptor, _, checksum = wallet.descriptor.partition("#")
    assert bitcoind.rpc("getdescriptorinfo", descriptor)["checksum"] == checksum
    for branch in (0, 1):
        one = descriptor.replace("<0;1>", str(branch))
        checked = f"{one}#{bitcoind.rpc('getdescriptorinfo', one)['checksum']}"
        theirs = bitcoind.rpc("deriveaddresses", checked, [0, 4])
        assert theirs == [wallet.address(branch, index) for index in range(5)]


def test_three_signers_sign_separately_and_any_two_of_them_spend(
    vault: Vault, bitcoind: Bitcoind, outside: OutsideWallet
) -> None:
    world = vault.world
    coins = [
        received(bitcoind, outside, world.wallet.address(*place), 30_000_000, place)
        for place in ((0, 0), (1, 3))
    ]
    request = world.vault_request(Draft(coins, [world.order(40_000_000)]))
    answers = [signatures(daemon.client.sign(request)) for daemon in vault.daemons]
    own = [pubkeys_of(record) for record in world.cosigners]
    assert [[item.pubkey for item in answer] for answer in answers] == own
    psbt = read(request)
    assert psbt.input_scripts[0] is not None
    expected = multisig_input_wu(MultisigScript.parse(psbt.input_scripts[0])) - 4 * 41
    for first, second in combinations(answers, 2):
        raw = finalize(psbt, [*first, *second])
        tx = Transaction.parse(raw)
        (verdict,) = bitcoind.rpc("testmempoolaccept", [raw.hex()])
        assert verdict["allowed"], verdict
        largest = 4 * len(tx.serialize_without_witness()) + 2 + 2 * expected
        assert largest - 8 <= tx.weight <= largest
    found = sent(bitcoind, outside, finalize(psbt, [*answers[2], *answers[0]]))
    assert found["vout"][1]["scriptPubKey"]["address"] == world.wallet.address(1, 0)


def pubkeys_of(record: BitcoinCosignerRecord) -> list[bytes]:
    """A cosigner's keys of the two coins."""
    keys = BranchKeys.of_depth(record.account, NETWORKS["regtest"], 4)
    return [keys.pubkey(0, 0), keys.pubkey(1, 3)]


def test_a_psbt_of_bitcoinds_own_wallet_of_the_descriptor_is_signed_too(
    vault: Vault, bitcoind: Bitcoind, outside: OutsideWallet
) -> None:
    """Another implementation builds the transaction; the signers read it as their strict form."""
    world = vault.world
    bitcoind.rpc("createwallet", "watching", True, True, "", False, True)
    watching = OutsideWallet(bitcoind, "watching")
    result = watching.rpc(
        "importdescriptors", [{"desc": world.wallet.descriptor, "active": True, "timestamp": "now"}]
    )
    assert all(entry["success"] for entry in result)
    address = watching.rpc("getnewaddress", "", "bech32")
    # The node gives out the first that was not paid to yet.
    index = [world.wallet.address(0, n) for n in range(5)].index(address)
    received(bitcoind, outside, address, 25_000_000, (0, index))
    order = world.order(10_000_000)
    made = watching.rpc(
        "walletcreatefundedpsbt",
        [],
        [{order.destination: "0.1"}],
        0,
        {"changeAddress": world.wallet.address(1, 5), "fee_rate": 10, "replaceable": True},
        True,
    )
    request = world.vault_request(Draft([world.vault_coin()], [order]))
    request = world.evidence(msgspec.structs.replace(request, transaction=made["psbt"]))
    answers = [signatures(daemon.client.sign(request)) for daemon in vault.daemons[:2]]
    sent(bitcoind, outside, finalize(read(request), [*answers[0], *answers[1]]))


def test_a_swapped_cosigner_in_a_bundle_stops_every_signer(vault: Vault) -> None:
    world = vault.world
    honest = world.vault_entry()
    thief = world.vault_entry([*world.cosigners[:2], SoftCosigner.make(66).record])
    for version, entry in enumerate(
        (
            msgspec.structs.replace(thief, descriptor=honest.descriptor),
            msgspec.structs.replace(honest, cosigners=honest.cosigners[::-1]),
            msgspec.structs.replace(honest, threshold=3),
        ),
        start=2,
    ):
        vault.changes = {"vaults": (entry,)}
        draft = Draft([world.vault_coin()], [world.order(1_000_000)])
        draft.intents = [world.vault_intent(o, policy_version=version) for o in draft.orders]
        request = world.vault_request(draft)
        for daemon in vault.daemons:
            daemon.publish(version)
            wait_until(
                lambda daemon=daemon, version=version: (  # type: ignore[misc]
                    daemon.client.status().bundle_version == version
                ),
                timeout=20,
                what="the bundle to be adopted",
            )
            # The one whose key was swapped out has no part in it any more.
            with pytest.raises(Refused, match=r"wrong-descriptor|wrong-keyset"):
                daemon.client.sign(request)
