"""The ceremony's second half: the backup is restored to another token, compared, destroyed there, and signed for.

The other token is opened in a process of its own, since its library may need settings of its own. That process gets
the shares on its standard input, and gives back what it sees of the restored keys and two signatures; everything is
compared here, with the record and with the key-set's own token.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from policies.canonical import BadSignature, domain_hash, encode_signature, verify_ed25519
from signers.ceremony.facts import facts_of
from signers.ceremony.files import write_replacing
from signers.ceremony.people import People
from signers.ceremony.plan import CeremonyPlan, ProofTokenPlan
from signers.ceremony.record import (
    CeremonyRecord,
    Proof,
    ProvenCeremony,
    SignedCeremony,
    TokenDescription,
    ceremony_path,
    check_proven,
    proven_path,
)
from signers.ceremony.restoring import collect, key_file_path, read_backup
from signers.ceremony.room import Operators, now_seconds
from signers.ceremony.shares import Share
from signers.ceremony.text import facts_of_record, proof_text, record_text, text_path
from signers.config import TokenSection, pin_reader
from signers.errors import CeremonyStopped, WrongSignature
from signers.hsm.pkcs11 import Token
from signers.keys.ecdsa import normalised
from signers.keys.evm_keys import KeyFile, TokenKeys, key_path, read_key_file, signing_key_name
from signers.keys.keyset import BitcoinCosignerRecord, EvmRecord
from signers.keys.sealed import (
    SealedCosigner,
    SealedKeys,
    SealedSeed,
    attestation_key_name,
    read_sealed,
    seed_path,
)
from signers.process.files import read_kept

PROOF_SECONDS: Final = 300
"""Longest that the other process may take."""


class Task(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the other process is to do, on its standard input."""

    do: Literal["prove", "clear"]
    """Restore, sign and destroy; or only destroy what an interrupted proof has left."""
    module: str
    label: str
    pin: str
    not_serial: str
    """Of the key-set's own token, which must never be taken for the other one."""
    ceremony: SignedCeremony
    wrapped: str | None = None
    """Hex."""
    shares: dict[str, str] = {}
    """Words by holder."""
    challenge: str = ""
    """32 bytes as hex."""

    def __repr__(self) -> str:
        return "[secret]"


class Seen(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the other process says of the keys that it restored."""

    token: TokenDescription
    public_key: str
    attestation_key: str
    signature: str
    """Of the challenge, by the first key (hex)."""
    attestation: str
    """Of the challenge, by the attestation key (base64)."""


class Failed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the other process says if it could not."""

    error: str


def prove(plan: CeremonyPlan, people: People, operators: Operators, token: Token) -> ProvenCeremony:
    """Restore the backup to the plan's other token, compare, and write `KEYSET.proven.json`.

    Args:
        plan: of the ceremony that was held.
        people: the holders are asked for their shares.
        operators: the ones who signed the record.
        token: the key-set's own, logged in.

    Raises:
        CeremonyStopped: somebody declined, shares are missing or wrong, the other token is not fresh, or what was
            restored differs. Nothing is proven then.
        SealBroken, NotProven: the ceremony's files are missing, damaged or not genuine.
        TokenRefused, TokenLost: the key-set's own token.
    """
    directory, keyset = Path(plan.directory), plan.keyset.id
    signed, wrapped = read_backup(Path(plan.backup_directory), keyset)
    record = signed.record
    if operators.described != record.operators:
        raise CeremonyStopped("the record was signed by other operators, or with other keys of theirs")
    if read_kept(ceremony_path(directory, keyset), SignedCeremony) != signed:
        raise CeremonyStopped(f"{directory} has the record of another ceremony than {plan.backup_directory}")
    operators.confirm("proof", _proof_summary(plan, record))
    checked = collect(record, people, ask="all")
    shares = dict(list(checked.items())[-record.backup.threshold :])
    challenge = domain_hash("ceremony-challenge", 1, os.urandom(32))
    serial = token.identity().serial
    seen = _asked(plan.proof_token, people, _task("prove", plan, signed, serial, wrapped, shares, challenge))
    _compare(record, seen, challenge, _own_signature(directory, record, token, challenge))
    proof = Proof(
        v=1,
        ceremony=record.ceremony,
        keyset=keyset,
        record=record.digest_hex(),
        proven=True,
        proven_at=now_seconds(),
        holders=tuple(shares),
        checked=tuple(checked),
        token=seen.token,
        compared=("public-key", "addresses", "signature", "attestation"),
    )
    operators.confirm(
        "activation",
        f"The backup of {keyset!r}, restored from the shares of {', '.join(shares)} to token {seen.token.serial},\n"
        f"is the same key-set. From now on production signers may use it.\nHash of the proof: {proof.digest_hex()}",
    )
    proven = ProvenCeremony(
        ceremony=signed,
        proof=proof,
        signatures=operators.sign(proof),
        attestation=encode_signature(token.sign(attestation_key_name(keyset), proof.digest())),
    )
    check_proven(proven, record.keyset)
    away = Path(plan.backup_directory)
    text = record_text(record, signed) + "\n" + proof_text(proven)
    write_replacing(text_path(away, keyset), text.encode())
    for place in (away, directory):
        write_replacing(proven_path(place, keyset), msgspec.json.encode(proven))
    return proven


def clear_proof_token(plan: CeremonyPlan, people: People, token: Token) -> None:
    """Destroy what an interrupted proof has left in the other token. Raises CeremonyStopped, as `prove`."""
    signed, _ = read_backup(Path(plan.backup_directory), plan.keyset.id)
    _asked(plan.proof_token, people, _task("clear", plan, signed, token.identity().serial))


def first_signature(token: Token, file: SealedSeed | KeyFile, digest: bytes) -> tuple[str, bytes]:
    """Open keys as a signer does; their public key as the record has it, and the first key's signature."""
    if isinstance(file, KeyFile):
        keys = TokenKeys(token, file, signing_key_name(file.record.id))
        return keys.pubkey.hex(), normalised(keys.sign(1, 0, digest)[1], keys.pubkey, digest)[:64]
    if isinstance(file.record, BitcoinCosignerRecord):
        cosigner = SealedCosigner(token, file)
        return cosigner.account.xpub, cosigner.sign(0, 0, digest)[1]
    sealed = SealedKeys(token, file)
    return sealed.account.xpub, sealed.sign(0, 0, digest)[1]


def _own_signature(directory: Path, record: CeremonyRecord, token: Token, challenge: bytes) -> bytes:
    """What the key-set's own token makes of the challenge, after its file was opened as a signer does it."""
    keyset = record.keyset
    path = key_file_path(directory, keyset)
    file: SealedSeed | KeyFile = (
        read_key_file(path)
        if path == key_path(directory, keyset.id)
        else read_sealed(seed_path(directory, keyset.id))
    )
    if file.record != keyset:
        raise CeremonyStopped(f"{path} is of other keys than the ceremony's record")
    public_key, signature = first_signature(token, file, challenge)
    if public_key != record.public_key:
        raise CeremonyStopped("the key-set's own token has another key than the ceremony's record")
    return signature


def _compare(record: CeremonyRecord, seen: Seen, challenge: bytes, own: bytes) -> None:
    """Check that the restored keys are the recorded ones and do the same. Raises CeremonyStopped."""
    if (seen.public_key, seen.attestation_key) != (record.public_key, record.keyset.attestation_key):
        raise CeremonyStopped("the restored keys are not the recorded ones")
    if facts_of(record.keyset, seen.public_key) != facts_of_record(record):
        raise CeremonyStopped("the restored keys have other fingerprints or addresses than the recorded ones")
    signature = bytes.fromhex(seen.signature)
    try:
        if isinstance(record.keyset, EvmRecord):
            normalised(signature, bytes.fromhex(record.public_key), challenge)
        elif signature != own:
            raise WrongSignature("signatures of seeds are deterministic, and these differ")
        verify_ed25519(record.keyset.attestation_key, challenge, seen.attestation)
    except (WrongSignature, BadSignature) as error:
        raise CeremonyStopped(f"the restored keys sign otherwise: {error}") from None


def _task(
    do: Literal["prove", "clear"],
    plan: CeremonyPlan,
    signed: SignedCeremony,
    serial: str,
    wrapped: bytes | None = None,
    shares: Mapping[str, Share] | None = None,
    challenge: bytes = b"",
) -> dict[str, Any]:
    return {
        "do": do,
        "module": plan.proof_token.module,
        "label": plan.proof_token.label,
        "not_serial": serial,
        "ceremony": msgspec.to_builtins(signed),
        "wrapped": None if wrapped is None else wrapped.hex(),
        "shares": {holder: share.words for holder, share in (shares or {}).items()},
        "challenge": challenge.hex(),
    }


def _asked(plan: ProofTokenPlan, people: People, task: dict[str, Any]) -> Seen:
    """Let the other process do it. Raises CeremonyStopped: it could not."""
    pin = people.pin(plan.label) if plan.pin_file is None else _pin(plan)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "signers.ceremony.prover"],
            input=json.dumps({**task, "pin": pin}).encode(),
            env={**os.environ, **plan.settings},
            stdout=subprocess.PIPE,
            timeout=PROOF_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CeremonyStopped(f"the proof took longer than {PROOF_SECONDS} seconds") from None
    try:
        answer = msgspec.json.decode(done.stdout, type=dict[str, Any])
    except msgspec.MsgspecError:
        raise CeremonyStopped(f"the proof's process ended with {done.returncode} and said nothing") from None
    if "error" in answer:
        raise CeremonyStopped(msgspec.convert(answer, Failed).error)
    return msgspec.convert(answer, Seen)


def _pin(plan: ProofTokenPlan) -> str:
    return pin_reader(TokenSection(module=plan.module, label=plan.label, pin_file=plan.pin_file))()


def _proof_summary(plan: CeremonyPlan, record: CeremonyRecord) -> str:
    return (
        f"All holders who are here give their shares, {record.backup.threshold} at least. The keys are restored to "
        f"token {plan.proof_token.label!r},\ncompared with the record {record.digest_hex()}, and destroyed there again."
    )
