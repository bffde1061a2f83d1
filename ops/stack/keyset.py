"""The keys of a trial's signers, made by the signers' own set-up in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from ops.devnet.errors import StartFailed
from ops.devnet.softhsm import SoftHsmToken
from ops.stack.keys import private_directory
from ops.stack.listing import CHAIN
from ops.stack.names import BTC_KEYSET
from ops.stack.networks import TrialNetwork
from policies.bundle import BitcoinKeyset, TrustRoot
from signers.keys.keyset import BitcoinKeysetRecord, KeysetRecord
from signers.setup import (
    NewBitcoinCosigner,
    NewBitcoinKeyset,
    NewEvmGasPayer,
    NewEvmKeyset,
    NewKeyset,
    NewSafeOwner,
    initialise,
    make_keys,
)

_KINDS: Final[Mapping[str, type[NewKeyset]]] = {
    kind.__name__: kind
    for kind in (NewBitcoinKeyset, NewBitcoinCosigner, NewEvmKeyset, NewSafeOwner, NewEvmGasPayer)
}


def signer_directory(directory: Path) -> Path:
    """Where the signer keeps journal, pinned quorum and sealed seed."""
    return private_directory(directory / "signer")


def mark_directory(directory: Path) -> Path:
    """Where the signer keeps its high-water mark: apart from the journal, really under another user."""
    return private_directory(directory / "signer-mark")


def make_signer(
    directory: Path,
    token: SoftHsmToken,
    root: TrustRoot,
    networks: Sequence[TrialNetwork] = (),
    gas_payers: Sequence[TrialNetwork] = (),
) -> list[KeysetRecord]:
    """Makes the signer's key-sets and journal, or finds them; returns their public halves.

    Args:
        directory: of the installation.
        token: holds the keys.
        root: the quorum that it pins.
        networks: which have a hot key.
        gas_payers: which have a gas payer, too.

    Returns:
        That of BTC first, then the hot keys of `networks`, then the gas payers.

    Raises:
        StartFailed: the signers' set-up refused.
    """
    keysets: list[NewKeyset] = [NewBitcoinKeyset(BTC_KEYSET, "regtest")]
    keysets += [NewEvmKeyset(network.keyset, network.chain_id) for network in networks]
    keysets += [
        NewEvmGasPayer(network.tiers.gas_payer, network.chain_id)
        for network in gas_payers
        if network.tiers is not None
    ]
    return make_in_token(token, signer_directory(directory), mark_directory(directory), root, keysets)


def make_in_token(
    token: SoftHsmToken, directory: Path, mark_directory: Path, root: TrustRoot, keysets: Sequence[NewKeyset]
) -> list[KeysetRecord]:
    """Makes a signer's keys and journal, or finds them; returns their public halves in the same order.

    Args:
        token: initialised.
        directory: of the signer.
        mark_directory: where its mark is.
        root: the quorum that it pins.
        keysets: what it is to hold.

    Raises:
        StartFailed: the signers' set-up refused.
    """
    order = {
        "module": str(token.module_path),
        "label": token.label,
        "pin_file": str(token.pin_path),
        "directory": str(directory),
        "mark_directory": str(mark_directory),
        "root": msgspec.to_builtins(root),
        "keysets": [[type(keyset).__name__, msgspec.to_builtins(keyset)] for keyset in keysets],
    }
    # A process can load one configuration of SoftHSM only, and this one is to hold no PKCS#11 session.
    done = subprocess.run(
        [sys.executable, "-m", "ops.stack.keyset"],
        input=json.dumps(order),
        env={**os.environ, **token.env},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise StartFailed("the signer's set-up", f"it ended with {done.returncode}", done.stderr)
    return msgspec.json.decode(done.stdout.encode(), type=list[KeysetRecord])


def bitcoin_keyset(record: KeysetRecord) -> BitcoinKeyset:
    """What the bundle says of the HD wallet with this public half."""
    assert isinstance(record, BitcoinKeysetRecord)
    return BitcoinKeyset(
        id=record.id,
        chain=CHAIN,
        tier="hot",
        script=record.script,
        account=record.account,
        origin=record.origin,
        attestation_key=record.attestation_key,
    )


def _make(order: dict[str, Any]) -> list[KeysetRecord]:
    directory, pin_file = Path(order["directory"]), Path(order["pin_file"])
    keysets = [msgspec.convert(fields, _KINDS[kind]) for kind, fields in order["keysets"]]
    records = make_keys(
        Path(order["module"]), order["label"], lambda: pin_file.read_text().strip(), directory, keysets
    )
    initialise(directory, Path(order["mark_directory"]), msgspec.convert(order["root"], TrustRoot))
    return records


if __name__ == "__main__":
    print(msgspec.json.encode(_make(json.load(sys.stdin))).decode())
