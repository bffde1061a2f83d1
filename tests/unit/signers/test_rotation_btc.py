"""Rotation on Bitcoin: keys that were followed by others move everything to them, and nowhere else."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from chains.btc.address import parse_address
from chains.btc.hd import Origin
from chains.btc.multisig import Multisig
from chains.btc.psbt import PsbtInput, ScriptKeys, build_psbt, parse_psbt
from chains.btc.script import KeyScript
from chains.btc.tx import RBF_SEQUENCE, Transaction, TxIn, TxOut
from policies.bundle import BitcoinKeyset, BitcoinNetwork
from policies.intent import Evidence, Kind
from signers.keys.keyset import BitcoinKeysetRecord
from signers.ports import SignRequest
from signers.wallets import BitcoinWallet, Wallet
from tests.fakes.signer import Bench
from tests.fakes.signing import CHAIN, REGTEST, SoftKeys, World, own_intent
from tests.fakes.vault_signing import VAULT, SoftCosigner, VaultBench

NEW = "btc-hot-2"
FEE_SATS = 3_000
CAUSES = ["deactivated", "compromised"]


class RotationBench(Bench[World]):
    """A signer of an old key-set; the bundle's active one is another signer's."""

    def __init__(self, directory: Path, script: KeyScript = "p2tr", old: KeyScript = "p2wpkh") -> None:
        self.keys = SoftKeys.make(script=old)
        self.new = SoftKeys.make(b"\x07" * 32, NEW, script)
        super().__init__(directory, World(self.keys.record))

    def wallets(self) -> Mapping[str, Wallet[Any]]:
        return {self.keys.record.id: BitcoinWallet(self.keys)}

    def entry(self, record: BitcoinKeysetRecord, **changes: Any) -> BitcoinKeyset:
        fields: dict[str, Any] = {
            "id": record.id,
            "chain": CHAIN,
            "tier": "hot",
            "script": record.script,
            "account": record.account,
            "origin": record.origin,
            "attestation_key": record.attestation_key,
        }
        return BitcoinKeyset(**(fields | changes))

    def followed(self, old_state: str = "compromised", version: int = 2, **changes: Any) -> None:
        """Adopt a bundle in which the old keys have a state and the new ones are active."""
        old = self.entry(self.keys.record, state=old_state)
        self.adopt(version, keysets=(old, self.entry(self.new.record, **changes)))

    def rotation(self, **changes: Any) -> SignRequest:
        """Two coins of the old keys to one address of the new ones; `changes` are of `Move`."""
        coins = [self.world.coin(60_000, branch=n, index=n + 3) for n in range(2)]
        account, origin = self.new.account, Origin.parse(self.new.record.origin)
        move = Move(**({"place": (1, 0)} | changes))
        place = move.place
        script = account.script(*place)
        destination = move.destination or account.address(*place)
        units = 120_000 - FEE_SATS - sum(out.units for out in move.extra)
        outputs = (TxOut(units, move.script or script), *move.extra)
        tx = Transaction(2, tuple(TxIn(coin.outpoint, RBF_SEQUENCE) for coin in coins), outputs)
        inputs = [
            PsbtInput(
                coin.outpoint,
                RBF_SEQUENCE,
                coin.previous.serialize(),
                self.world.path(coin.branch, coin.index),
                self.world.account.pubkey(coin.branch, coin.index),
            )
            for coin in coins
        ]
        named = {} if move.unnamed else {0: (account.pubkey(*place), (*origin.path, *place))}
        raw = build_psbt(tx, inputs, named, origin.fingerprint)
        fields = {"chain": CHAIN, "asset": "BTC", "destination": destination, "policy_version": 2}
        return SignRequest(
            chain=CHAIN,
            keyset=self.keys.record.id,
            intents=(own_intent(self.keys.record.id, move.kind, **fields),),
            evidence=Evidence(),
            transaction=base64.b64encode(raw).decode(),
        )


@dataclass(frozen=True, kw_only=True)
class Move:
    """Where a rotation goes; the defaults are honest."""

    place: tuple[int, int] = (1, 0)
    destination: str = ""
    script: bytes = b""
    extra: tuple[TxOut, ...] = ()
    unnamed: bool = False
    kind: Kind = Kind.ROTATION


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[RotationBench]:
    made = RotationBench(tmp_path)
    yield made
    made.journal.close()


@pytest.mark.parametrize("state", CAUSES)
@pytest.mark.parametrize(("old", "new"), [("p2wpkh", "p2tr"), ("p2tr", "p2wpkh"), ("p2tr", "p2tr")])
def test_everything_moves_to_the_active_key_set_whatever_its_scripts(
    tmp_path: Path, state: str, old: KeyScript, new: KeyScript
) -> None:
    bench = RotationBench(tmp_path, new, old)
    bench.followed(state)
    request = bench.rotation()
    first = bench.signatures(request)
    assert len(first) == 2
    assert bench.signatures(request) == first
    bench.journal.close()


def test_any_of_the_first_thousand_change_addresses_will_do(bench: RotationBench) -> None:
    bench.followed()
    assert bench.signatures(bench.rotation(place=(1, 999)))
    assert bench.codes(bench.rotation(place=(1, 1_000))) == {"rotation-target"}


def test_a_rotation_leaves_the_old_keys_own_reach_where_it_was(bench: RotationBench) -> None:
    bench.followed()
    bench.signatures(bench.rotation(place=(1, 999)))
    assert bench.journal.write(lambda book: book.high_water(bench.keys.record.id)) == -1


def test_deposit_addresses_of_the_new_keys_are_no_target(bench: RotationBench) -> None:
    """They belong to customers: whoever chose one would have the house's money credited to himself."""
    bench.followed()
    assert bench.codes(bench.rotation(place=(0, 0))) == {"rotation-target"}


def test_the_intent_names_the_address(bench: RotationBench) -> None:
    bench.followed()
    assert bench.codes(bench.rotation(destination=bench.new.account.address(1, 1))) == {"rotation-target"}


def test_another_script_under_the_new_keys_name_is_refused(bench: RotationBench) -> None:
    """The PSBT claims the new key-set's path, and the output pays its bare key, its key hash or somebody else."""
    bench.followed()
    thief = SoftKeys.make(b"\x66" * 32, script="p2tr").account
    for script in (thief.script(1, 0), b"\x51\x20" + bench.new.account.pubkey(1, 0)[1:]):
        request = bench.rotation(script=script)
        assert bench.codes(request) == {"rotation-target"}
    for address in (thief.address(1, 0), bench.keys.account.address(1, 0)):
        script = parse_address(address, REGTEST, CHAIN).script
        unnamed = bench.rotation(script=script, destination=address, unnamed=True)
        assert bench.codes(unnamed) == {"rotation-target"}


def test_a_second_output_is_refused_even_back_to_the_old_keys(bench: RotationBench) -> None:
    bench.followed()
    for script in (bench.world.account.script(1, 0), bench.new.account.script(1, 1)):
        assert bench.codes(bench.rotation(extra=(TxOut(10_000, script),))) == {"rotation-target"}


@pytest.mark.parametrize("change", [{"tier": "warm"}, {"state": "pre-active"}, {"state": "suspended"}])
def test_without_an_active_key_set_of_the_tier_there_is_no_target(
    bench: RotationBench, change: dict[str, Any]
) -> None:
    bench.followed(**change)
    assert bench.codes(bench.rotation()) == {"rotation-target"}


def test_a_key_set_of_another_chain_is_no_target(bench: RotationBench) -> None:
    other = BitcoinNetwork(
        chain="bitcoin-signet",
        network="signet",
        genesis="00" * 32,
        native_asset="SBTC",
        settle_blocks=6,
        feerate_floor=1_000,
        feerate_cap=100_000,
        fee_cap="100000",
        fee_window_cap="1000000",
        fee_window_seconds=3600,
    )
    present = bench.world.bundle()
    asset = type(present.assets[0])(
        **{f: getattr(present.assets[0], f) for f in present.assets[0].__struct_fields__}
        | {"id": "SBTC", "chain": "bitcoin-signet"}
    )
    bench.adopt(
        2,
        networks=(*present.networks, other),
        assets=(*present.assets, asset),
        keysets=(
            bench.entry(bench.keys.record, state="compromised"),
            bench.entry(bench.new.record, chain="bitcoin-signet"),
        ),
    )
    assert bench.codes(bench.rotation()) == {"rotation-target"}


def test_keys_in_use_do_not_rotate_and_compromised_ones_do_nothing_else(bench: RotationBench) -> None:
    bench.adopt(2)
    assert "key-state" in bench.codes(bench.rotation())
    bench.followed(version=3)
    assert "key-state" in bench.codes(bench.rotation(kind=Kind.CONSOLIDATION))


def test_a_rotations_fee_is_within_the_caps(bench: RotationBench) -> None:
    bench.followed()
    thief = bench.new.account.script(1, 0)
    request = bench.rotation()
    tx = parse_psbt(base64.b64decode(request.transaction)).tx
    assert tx.outputs == (TxOut(120_000 - FEE_SATS, thief),)
    bench.adopt(
        3,
        network_fee_cap=str(FEE_SATS - 1),
        keysets=(bench.entry(bench.keys.record, state="compromised"), bench.entry(bench.new.record)),
    )
    assert "fee-cap" in bench.codes(bench.rotation())


# Vaults.


@pytest.fixture
def vaults(tmp_path: Path) -> Iterator[VaultBench]:
    made = VaultBench(tmp_path)
    yield made
    made.journal.close()


def following(bench: VaultBench) -> Multisig:
    """Adopt a bundle in which another vault has followed; returns that."""
    others = [SoftCosigner.make(number).record for number in (11, 12, 13)]
    old = bench.world.vault_entry(state="deactivated")
    bench.adopt(2, vaults=(old, bench.world.vault_entry(others, id="btc-warm-2")))
    return bench.world.wallet_of(others)


def vault_rotation(bench: VaultBench, target: Multisig, behind: ScriptKeys, destination: str) -> SignRequest:
    world = bench.world
    coin = world.vault_coin(120_000)
    tx = Transaction(
        2, (TxIn(coin.outpoint, RBF_SEQUENCE),), (TxOut(120_000 - FEE_SATS, target.script(1, 4)),)
    )
    spent = PsbtInput(
        coin.outpoint, RBF_SEQUENCE, coin.previous.serialize(), behind=world.wallet.behind(0, 0)
    )
    raw = build_psbt(tx, [spent], {}, bytes(4), {0: behind})
    intent = world.vault_house_intent(Kind.ROTATION, destination=destination, policy_version=2)
    return SignRequest(
        chain=CHAIN,
        keyset=VAULT,
        intents=(intent,),
        evidence=Evidence(),
        transaction=base64.b64encode(raw).decode(),
    )


def test_a_vault_moves_to_the_vault_that_follows_it(vaults: VaultBench) -> None:
    target = following(vaults)
    request = vault_rotation(vaults, target, target.behind(1, 4), target.address(1, 4))
    assert len(vaults.signatures(request)) == 1


def test_a_vault_does_not_move_to_strangers_or_into_itself(vaults: VaultBench) -> None:
    following(vaults)
    stranger = vaults.world.wallet_of([SoftCosigner.make(number).record for number in (66, 67, 68)])
    for target in (stranger, vaults.world.wallet):
        request = vault_rotation(vaults, target, target.behind(1, 4), target.address(1, 4))
        assert vaults.codes(request) == {"rotation-target"}


def test_a_vault_does_not_move_to_one_whose_descriptor_does_not_fit(vaults: VaultBench) -> None:
    others = [SoftCosigner.make(number).record for number in (11, 12, 13)]
    target = vaults.world.wallet_of(others)
    entry = vaults.world.vault_entry(others, id="btc-warm-2", descriptor=vaults.world.wallet.descriptor)
    vaults.adopt(2, vaults=(vaults.world.vault_entry(state="compromised"), entry))
    request = vault_rotation(vaults, target, target.behind(1, 4), target.address(1, 4))
    assert vaults.codes(request) == {"rotation-target"}
