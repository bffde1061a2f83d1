"""A ceremony without people: the next hot key-set of a trial, made, backed up and proven in the signer's own token."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec

from ops.ceremonies.commands import key_command
from ops.devnet.files import write_private
from ops.devnet.softhsm import SoftHsmToken
from ops.stack import config
from ops.stack.keys import private_directory
from ops.stack.keyset import signer_directory
from ops.stack.listing import CHAIN
from policies.bundle import KeysetEntry
from signers.ceremony.operators import create_operator_key

_OPERATORS: Final = ("olga", "otto")
_HOLDERS: Final = ("anna", "ben", "carl")
_STEPS: Final = ("plan", "entropy", "keys", "shares", "record", "proof", "activation")


def make_bitcoin_keyset(directory: Path, token: SoftHsmToken, keyset: str) -> KeysetEntry:
    """Hold the ceremony of a new wallet and return its entry for the bundle.

    Args:
        directory: of the installation; the ceremony's files go below it.
        token: the signer's.
        keyset: the new key-set's name.

    Raises:
        StepFailed: the ceremony, or its proof by a restore, did not hold.
    """
    room = private_directory(directory / "ceremony")
    proof = SoftHsmToken(room / "proof-token", "proof")
    proof.create()
    passphrases = {name: f"rehearsal of {name}" for name in _OPERATORS}
    for name in _OPERATORS:
        if not (room / f"{name}.pem").exists():
            create_operator_key(room / f"{name}.pem", passphrases[name])
    shares = {name: str(private_directory(room / name) / f"{keyset}.share") for name in _HOLDERS}
    plan: dict[str, Any] = {
        "environment": "trial",
        "directory": str(signer_directory(directory)),
        "backup_directory": str(private_directory(room / "backup")),
        "threshold": 2,
        "keyset": {"kind": "btc-hd", "id": keyset, "network": "regtest"},
        "token": config.token_section(token),
        "proof_token": {**config.token_section(proof), "settings": proof.env},
        "operators": [{"name": name, "key_file": str(room / f"{name}.pem")} for name in _OPERATORS],
        "holders": [{"name": name, "file": shares[name]} for name in _HOLDERS],
    }
    answers = {
        "confirm": {name: list(_STEPS) for name in _OPERATORS},
        "passphrases": passphrases,
        "typed": "1 6 2 3 4 5 5 1 3",
        "shares": shares,
    }
    for name, content in (("plan", plan), ("answers", answers)):
        write_private(room / f"{name}.toml", config.to_toml(content))
    key_command(
        ["ceremony", "run", str(room / "plan.toml"), "--answers", str(room / "answers.toml")], token.env
    )
    entry = key_command(["ceremony", "entry", plan["directory"], keyset, "--chain", CHAIN], token.env)
    made: KeysetEntry = msgspec.json.decode(entry.encode(), type=KeysetEntry)
    return made
