"""The hot key-sets of a trial installation, made by the signers' own set-up in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from ops.devnet.errors import StartFailed
from ops.devnet.softhsm import SoftHsmToken
from ops.stack.keys import private_directory
from ops.stack.listing import CHAIN
from ops.stack.networks import TrialNetwork
from policies.bundle import BitcoinKeyset, TrustRoot
from signers.keys.keyset import BitcoinKeysetRecord, KeysetRecord
from signers.setup import NewBitcoinKeyset, NewEvmKeyset, NewKeyset, initialise, make_keys

BTC_KEYSET: Final = "btc-hot"


def signer_directory(directory: Path) -> Path:
    """Where the signer keeps journal, pinned quorum and sealed seed."""
    return private_directory(directory / "signer")


def mark_directory(directory: Path) -> Path:
    """Where the signer keeps its high-water mark: apart from the journal, really under another user."""
    return private_directory(directory / "signer-mark")


def make_signer(
    directory: Path, token: SoftHsmToken, root: TrustRoot, networks: Sequence[TrialNetwork] = ()
) -> list[KeysetRecord]:
    """Makes the signer's key-sets and journal, or finds them; returns their public halves, that of BTC first.

    Raises:
        StartFailed: the signers' set-up refused.
    """
    order = {
        "module": str(token.module_path),
        "label": token.label,
        "pin_file": str(token.pin_path),
        "directory": str(signer_directory(directory)),
        "mark_directory": str(mark_directory(directory)),
        "root": msgspec.to_builtins(root),
        "evm": {network.keyset: network.chain_id for network in networks},
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
    keysets: list[NewKeyset] = [NewBitcoinKeyset(BTC_KEYSET, "regtest")]
    keysets += [NewEvmKeyset(keyset, chain_id) for keyset, chain_id in order["evm"].items()]
    records = make_keys(
        Path(order["module"]), order["label"], lambda: pin_file.read_text().strip(), directory, keysets
    )
    initialise(directory, Path(order["mark_directory"]), msgspec.convert(order["root"], TrustRoot))
    return records


if __name__ == "__main__":
    print(msgspec.json.encode(_make(json.load(sys.stdin))).decode())
