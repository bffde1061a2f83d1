"""A lost token or machine is rebuilt: the same keys on another token, from shares, record and wrapped key.

Keys are not a signer: it also needs the journal of what it has signed, and its mark.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from policies.canonical import Name, encode_signature
from signers.ceremony.files import write_exclusive, write_last
from signers.ceremony.hsm import described
from signers.ceremony.people import People
from signers.ceremony.plan import OperatorPlan, TokenPlan
from signers.ceremony.record import (
    ProvenCeremony,
    Restoration,
    SignedCeremony,
    SignedRestoration,
    ceremony_path,
    check_proven,
    proven_path,
    restored_path,
)
from signers.ceremony.restoring import (
    collect,
    key_file_path,
    key_labels,
    must_be_free,
    read_backup,
    restore_keys,
)
from signers.ceremony.room import Operators, now_seconds, private_directory
from signers.ceremony.text import facts_of_record, facts_text
from signers.ceremony.unfinished import Unfinished, begin, finish, must_be_finished, read_unfinished, undo
from signers.config import JOURNAL_FILE, MARK_FILE, Environment
from signers.errors import BadConfiguration
from signers.hsm.pkcs11 import Token
from signers.keys.sealed import attestation_key_name
from signers.process.files import read_kept, read_toml


class RestorePlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is to be restored, and where to: one TOML file, nothing in it secret."""

    environment: Environment
    keyset: Name
    directory: str
    """The new signer's."""
    backup_directory: str
    """With `KEYSET.ceremony.json`, and `KEYSET.wrapped.json` of an EVM key."""
    token: TokenPlan
    operators: tuple[OperatorPlan, OperatorPlan]
    """Any two; those of the ceremony may be gone."""


def read_restore_plan(path: Path) -> RestorePlan:
    """Read a plan. Raises BadConfiguration: says what to write."""
    plan = read_toml(path, RestorePlan, "plan", readers="anybody")
    first, second = plan.operators
    if first.name == second.name or first.key_file == second.key_file:
        raise BadConfiguration("the plan names one operator twice")
    return plan


def rebuild(plan: RestorePlan, people: People, operators: Operators, token: Token) -> None:
    """Bring a key-set's keys into a new token, and its files into a new signer's directory.

    Again changes nothing.

    Raises:
        CeremonyStopped: somebody declined, shares are missing or wrong, something of this name is there, or an
            earlier restore was interrupted.
        SealBroken, NotProven: the backup's files are missing, damaged or not genuine.
        TokenRefused, TokenLost: the token.
    """
    directory, away = Path(plan.directory), Path(plan.backup_directory)
    signed, wrapped = read_backup(away, plan.keyset)
    proven = _proof(away, signed)
    record, keyset = signed.record, signed.record.keyset
    if key_file_path(directory, keyset).exists():
        finish(directory, plan.keyset)
        people.say(f"The keys of {plan.keyset!r} are in {directory} already.")
        return
    must_be_finished(directory, plan.keyset)
    where = described(token)
    operators.confirm(
        "restore",
        f"{facts_text(keyset, facts_of_record(record))}\nto token {where.label!r}, serial {where.serial}",
    )
    must_be_free(token, key_labels(keyset))
    shares = collect(record, people, ask="enough")
    unfinished = _unfinished(plan, signed, where.serial)
    begin(private_directory(directory), unfinished)
    try:
        file = restore_keys(token, signed, wrapped, shares)
        restoration = Restoration(
            v=1,
            ceremony=record.ceremony,
            keyset=plan.keyset,
            record=record.digest_hex(),
            restored_at=now_seconds(),
            operators=operators.described,
            holders=tuple(shares),
            token=where,
        )
        said = SignedRestoration(
            restoration=restoration,
            signatures=operators.sign(restoration),
            attestation=encode_signature(token.sign(attestation_key_name(plan.keyset), restoration.digest())),
        )
        write_exclusive(ceremony_path(directory, plan.keyset), msgspec.json.encode(signed))
        if proven is not None:
            write_exclusive(proven_path(directory, plan.keyset), msgspec.json.encode(proven))
        write_exclusive(restored_path(directory, plan.keyset), msgspec.json.encode(said))
        write_last(key_file_path(directory, keyset), msgspec.json.encode(file))
    except BaseException:
        undo(directory, unfinished, token)
        raise
    finish(directory, plan.keyset)
    people.say(_what_now(plan, proven))


def take_restore_away(plan: RestorePlan, people: People, operators: Operators, token: Token) -> None:
    """Take away what an interrupted restore has left. Again changes nothing. Raises as `rebuild`."""
    directory = Path(plan.directory)
    signed, _ = read_backup(Path(plan.backup_directory), plan.keyset)
    unfinished = read_unfinished(directory, plan.keyset)
    if key_file_path(directory, signed.record.keyset).exists():
        finish(directory, plan.keyset)
        people.say("The keys were restored; they stay.")
    elif unfinished is None:
        people.say("No restore was interrupted; there is nothing to take away.")
    else:
        listed = "\n  ".join((*unfinished.key_names, *unfinished.files))
        operators.confirm("remove", f"take away what an interrupted restore has left of:\n  {listed}")
        undo(directory, unfinished, token)
        people.say("Taken away; begin again.")


def _proof(directory: Path, signed: SignedCeremony) -> ProvenCeremony | None:
    """The proof beside the record, if there is one. Raises SealBroken, NotProven."""
    path = proven_path(directory, signed.record.keyset.id)
    if not path.exists():
        return None
    proven = read_kept(path, ProvenCeremony)
    check_proven(proven, signed.record.keyset)
    return proven


def _unfinished(plan: RestorePlan, signed: SignedCeremony, serial: str) -> Unfinished:
    directory, keyset = Path(plan.directory), signed.record.keyset
    places = (ceremony_path, proven_path, restored_path)
    files = [*(place(directory, keyset.id) for place in places), key_file_path(directory, keyset)]
    return Unfinished(
        verb="restore",
        ceremony=signed.record.ceremony,
        keyset=keyset.id,
        token_serial=serial,
        key_names=key_labels(keyset),
        share_files={},
        shown_to=(),
        files=tuple(str(path) for path in files),
    )


def _what_now(plan: RestorePlan, proven: ProvenCeremony | None) -> str:
    proof = "proven" if proven else "never proven, so that a production signer does not open it"
    return f"""The keys of {plan.keyset!r} are restored: the same keys, the same addresses, the same attestation key.
Their backup was {proof}.
They are not yet a signer. It refuses to start without its journal of what it has signed ({JOURNAL_FILE}) and the
journal's mark ({MARK_FILE}), and with older copies of one of them. So either
  - both are there in their last state: put them back and start the signer; or
  - one of them is lost: what this key-set has signed is not known any more, and it must not pay. Make a new key-set
    by a ceremony, have the quorum list that one as active and this one as deactivated, and only then give this one
    an empty journal: a deactivated key-set signs nothing but the move of its money to the active one.
A production signer also asks for `strongroom key test` on this token. If the old token is not destroyed for certain,
list this key-set as compromised instead. Put the shares back apart."""
