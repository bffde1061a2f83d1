"""The process that restores a backup to another token for its proof: a task on standard input, one answer on output."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from chains.errors import StrongroomError
from policies.canonical import encode_signature
from signers.ceremony.hsm import described, key_names, remove_keys
from signers.ceremony.proving import Failed, Seen, Task, first_signature
from signers.ceremony.restoring import key_labels, restore_keys
from signers.ceremony.shares import read_share
from signers.errors import CeremonyStopped
from signers.hsm.pkcs11 import Token
from signers.keys.sealed import attestation_key_name
from signers.process.hardening import harden_process


def run(task: Task) -> Seen:
    """Do a task. Raises CeremonyStopped and the errors of tokens and restores."""
    token = Token(Path(task.module), task.label, lambda: task.pin)
    try:
        return _run(task, token)
    finally:
        token.close()


def _run(task: Task, token: Token) -> Seen:
    keyset = task.ceremony.record.keyset
    token_description = described(token)
    if token_description.serial == task.not_serial:
        raise CeremonyStopped("the proof's token is the key-set's own: name another one")
    if task.do == "clear":
        remove_keys(token, key_labels(keyset))
        return Seen(token=token_description, public_key="", attestation_key="", signature="", attestation="")
    there = key_names(token)
    if there:
        raise CeremonyStopped(
            f"the proof's token is not fresh, it has keys named {', '.join(there)}. If an earlier proof was "
            "interrupted, `strongroom key ceremony remove PLAN` destroys what it left; else initialise the token anew"
        )
    try:
        shares = {holder: read_share(words) for holder, words in task.shares.items()}
        wrapped = None if task.wrapped is None else bytes.fromhex(task.wrapped)
        file = restore_keys(token, task.ceremony, wrapped, shares)
        challenge = bytes.fromhex(task.challenge)
        public_key, signature = first_signature(token, file, challenge)
        name = attestation_key_name(keyset.id)
        return Seen(
            token=token_description,
            public_key=public_key,
            attestation_key=token.attestation_public_key(name).hex(),
            signature=signature.hex(),
            attestation=encode_signature(token.sign(name, challenge)),
        )
    finally:
        remove_keys(token, key_labels(keyset))


def main() -> int:
    """Entry point; returns the exit code."""
    harden_process()
    answer: Seen | Failed
    try:
        answer = run(msgspec.json.decode(sys.stdin.buffer.read(), type=Task))
    except StrongroomError as error:
        answer = Failed(error=str(error))
    sys.stdout.buffer.write(msgspec.json.encode(answer))
    return 0 if isinstance(answer, Seen) else 1


if __name__ == "__main__":
    sys.exit(main())
