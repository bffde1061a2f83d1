"""The ceremony's first half: entropy, keys, shares, record. Its end is the key-set's own file, written last.

In order: both operators confirm the plan; entropy of host, token and people is combined; the keys' public facts are
shown and confirmed; the token gets the keys; the holders get their shares; both operators and the attestation key
sign the record; record and key file are put in place. Whoever declines, and whatever fails, has everything undone.
"""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from chains.errors import InvalidValue
from policies.bundle import TrustRoot
from policies.bundle.root import read_root, root_fingerprint
from policies.canonical import encode_signature
from signers.ceremony.entropy import Entropy, gather
from signers.ceremony.facts import Facts, bitcoin_record, evm_record, facts_of
from signers.ceremony.files import write_exclusive, write_last
from signers.ceremony.handout import share_text
from signers.ceremony.hsm import check_wrapping, described, make_wrapped_key, seed_token
from signers.ceremony.people import People
from signers.ceremony.plan import CeremonyPlan, HolderPlan, NewBitcoinKeys, NewCosigner, NewOwner
from signers.ceremony.record import (
    Backup,
    CeremonyRecord,
    EntropyUsed,
    HolderShare,
    SignedCeremony,
    ceremony_path,
    check_ceremony,
    proven_path,
)
from signers.ceremony.restoring import (
    WrappedKey,
    attestation_public_key,
    install,
    key_file,
    key_file_path,
    must_be_free,
    wrapped_path,
)
from signers.ceremony.room import Operators, now_seconds, private_directory
from signers.ceremony.shares import SECRET_BYTES, Share, split
from signers.ceremony.text import facts_text, plan_text, record_text, text_path
from signers.ceremony.tool import tool_text
from signers.ceremony.unfinished import Unfinished, begin, finish, must_be_finished, undo
from signers.errors import BadConfiguration, CeremonyStopped
from signers.hsm.pkcs11 import Token
from signers.keys.evm_keys import key_path
from signers.keys.keyset import KeysetRecord
from signers.keys.sealed import attestation_key_name, seed_path

_SEED_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class _Made:
    """The keys before any token has them."""

    secret: bytes
    keyset: KeysetRecord
    wrapped: bytes | None
    facts: Facts

    def __repr__(self) -> str:
        return f"_Made({self.keyset.id!r}, [secret])"


def make(plan: CeremonyPlan, people: People, operators: Operators, token: Token) -> SignedCeremony:
    """Make the key-set of a plan, and hand out its backup.

    Args:
        plan: checked.
        people: in the room.
        operators: the plan's, with their keys open.
        token: the plan's, logged in.

    Returns:
        The signed record. The key-set is not proven yet.

    Raises:
        CeremonyStopped: somebody declined, something of this name is there, or an earlier ceremony was interrupted.
        SelfCheckFailed: a source of entropy is none, the token wraps in a form of its own, shares don't join.
        DerivationDisagreement: two implementations see different addresses.
        TokenRefused: the token refused.
        TokenLost: the token does not answer.
    """
    began = now_seconds()
    must_be_finished(Path(plan.directory), plan.keyset.id)
    ceremony = str(uuid.uuid4())
    quorum = _quorum(plan)
    operators.confirm(
        "plan", f"{plan_text(plan, ceremony, described(token), quorum)}\ntool           {tool_text()}"
    )
    must_be_free(token, plan.key_names)
    entropy = gather(token, people.typed())
    used = _entropy_used(entropy, token)
    operators.confirm(
        "entropy",
        f"{used.host_bytes} bytes of the host, {used.token_bytes} of the token and {used.typed_characters} typed "
        "characters are combined (HKDF-SHA256)",
    )
    unfinished = _unfinished(plan, ceremony, token)
    begin(private_directory(Path(plan.directory)), unfinished)
    try:
        return _make(plan, people, operators, token, _Start(ceremony, began, quorum, entropy, used))
    except BaseException:
        for left in undo(Path(plan.directory), unfinished, token):
            people.say(f"To do: {left}.")
        raise


@dataclass(frozen=True, slots=True)
class _Start:
    """What is known when the making begins."""

    ceremony: str
    began: int
    quorum: TrustRoot | None
    entropy: Entropy
    used: EntropyUsed


def _make(
    plan: CeremonyPlan, people: People, operators: Operators, token: Token, start: _Start
) -> SignedCeremony:
    made = _keys(plan, token, start)
    operators.confirm("keys", facts_text(made.keyset, made.facts))
    install(token, made.keyset, made.secret, made.wrapped, made.facts.public_key)
    count = len(plan.holders)
    shares = split(made.secret, plan.threshold, count, lambda size: _share_randomness(token, size))
    listed = "\n".join(f"share {s.index} to {h.name}" for s, h in zip(shares, plan.holders, strict=True))
    operators.confirm("shares", f"{listed}\nAny {plan.threshold} of these {count} restore the keys.")
    for share, holder in zip(shares, plan.holders, strict=True):
        _hand_out(plan, people, start.ceremony, share, holder)
    record = _record(plan, operators, token, start, made, shares)
    text = record_text(record, None)
    operators.confirm("record", f"{text}\nHash of the record: {record.digest_hex()}")
    signed = SignedCeremony(
        record=record,
        signatures=operators.sign(record),
        attestation=encode_signature(token.sign(attestation_key_name(record.keyset.id), record.digest())),
    )
    check_ceremony(signed, made.keyset)
    content = msgspec.json.encode(key_file(token, signed, made.secret))
    directory, away = Path(plan.directory), private_directory(Path(plan.backup_directory))
    if made.wrapped is not None:
        wrapped = WrappedKey(keyset=made.keyset.id, ceremony=start.ceremony, wrapped=made.wrapped.hex())
        write_exclusive(wrapped_path(away, made.keyset.id), msgspec.json.encode(wrapped))
    for place in (away, directory):
        write_exclusive(ceremony_path(place, made.keyset.id), msgspec.json.encode(signed))
    write_exclusive(text_path(away, made.keyset.id), record_text(record, signed).encode())
    write_last(key_file_path(directory, made.keyset), content)
    finish(directory, made.keyset.id)
    return signed


def _keys(plan: CeremonyPlan, token: Token, start: _Start) -> _Made:
    """The recovery secret, and the keys that it is of (BTC) or that are wrapped under it (EVM)."""
    keyset = plan.keyset
    secret = start.entropy.derive(f"recovery secret of {keyset.id} in {start.ceremony}", SECRET_BYTES)
    attestation = attestation_public_key(secret, keyset.id)
    if isinstance(keyset, NewBitcoinKeys):
        bitcoin = bitcoin_record(keyset, secret, attestation)
        return _Made(secret, bitcoin, None, facts_of(bitcoin, bitcoin.account))
    check_wrapping(token, lambda size: start.entropy.derive("key of a check that is thrown away", size))
    public_key, wrapped = make_wrapped_key(token, secret)
    evm = evm_record(keyset, public_key, attestation)
    return _Made(secret, evm, wrapped, facts_of(evm, public_key.hex()))


def _hand_out(plan: CeremonyPlan, people: People, ceremony: str, share: Share, holder: HolderPlan) -> None:
    """Give a holder the share: into the file, or before the holder's own eyes."""
    if holder.file is None:
        people.show_share(holder.name, share.words)
        return
    text = share_text(plan.keyset.id, ceremony, holder.name, share, len(plan.holders))
    write_exclusive(Path(holder.file), text.encode())
    if Path(holder.file).read_text() != text:
        raise CeremonyStopped(
            f"the share in {holder.file} does not read as it was written: another medium is needed"
        )
    people.say(f"{holder.name}: your share is in {holder.file}. Take it with you.")


def _record(
    plan: CeremonyPlan,
    operators: Operators,
    token: Token,
    start: _Start,
    made: _Made,
    shares: tuple[Share, ...],
) -> CeremonyRecord:
    member = plan.keyset if isinstance(plan.keyset, NewCosigner | NewOwner) else None
    held = tuple(
        HolderShare(holder=holder.name, index=share.index, fingerprint=share.fingerprint)
        for share, holder in zip(shares, plan.holders, strict=True)
    )
    return CeremonyRecord(
        v=1,
        ceremony=start.ceremony,
        environment=plan.environment,
        tool=tool_text(),
        began_at=start.began,
        made_at=now_seconds(),
        operators=operators.described,
        token=described(token),
        entropy=start.used,
        purpose=plan.keyset.purpose,
        organisation=None if member is None else member.organisation,
        member=None if member is None else member.member,
        keyset=made.keyset,
        public_key=made.facts.public_key,
        fingerprints=made.facts.fingerprints,
        descriptor=made.facts.descriptor,
        addresses=made.facts.addresses,
        quorum=None if start.quorum is None else root_fingerprint(start.quorum),
        backup=Backup(
            scheme="slip39",
            identifier=shares[0].identifier,
            threshold=plan.threshold,
            shares=held,
            wrapped=None if made.wrapped is None else hashlib.sha256(made.wrapped).hexdigest(),
        ),
    )


def _quorum(plan: CeremonyPlan) -> TrustRoot | None:
    """Who signs bundles, if the plan names them. Raises BadConfiguration."""
    if plan.root is None:
        return None
    try:
        return read_root(Path(plan.root).read_bytes())
    except OSError as error:
        raise BadConfiguration(f"{plan.root}: {error.strerror}") from None
    except InvalidValue as error:
        raise BadConfiguration(f"{plan.root}: {error}") from None


def _entropy_used(entropy: Entropy, token: Token) -> EntropyUsed:
    return EntropyUsed(
        host_bytes=len(entropy.host),
        token_bytes=len(entropy.token),
        typed_characters=len(entropy.typed.decode()),
        # An EVM key is made by the token's own generator, so host and people have their part in that too.
        token_seeded=seed_token(token, entropy.derive("seed of the token's generator", _SEED_BYTES)),
    )


def _unfinished(plan: CeremonyPlan, ceremony: str, token: Token) -> Unfinished:
    """Everything lasting that the ceremony makes."""
    directory, away, keyset = Path(plan.directory), Path(plan.backup_directory), plan.keyset.id
    files = [
        ceremony_path(directory, keyset),
        ceremony_path(away, keyset),
        text_path(away, keyset),
        wrapped_path(away, keyset),
        seed_path(directory, keyset),
        key_path(directory, keyset),
        proven_path(directory, keyset),
        proven_path(away, keyset),
    ]
    return Unfinished(
        verb="ceremony",
        ceremony=ceremony,
        keyset=keyset,
        token_serial=described(token).serial,
        key_names=plan.key_names,
        share_files={holder.name: holder.file for holder in plan.holders if holder.file is not None},
        shown_to=tuple(holder.name for holder in plan.holders if holder.file is None),
        files=tuple(str(path) for path in files),
    )


def _share_randomness(token: Token, size: int) -> bytes:
    """Of host and token too: with predictable coefficients, fewer shares than the threshold would do."""
    return gather(token, "").derive("randomness of the shares", size)
