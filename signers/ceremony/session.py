"""A ceremony from beginning to end, in one sitting or several."""

from __future__ import annotations

from pathlib import Path

from signers.ceremony.facts import check_facts
from signers.ceremony.making import make
from signers.ceremony.people import People
from signers.ceremony.plan import CeremonyPlan
from signers.ceremony.proving import clear_proof_token, prove
from signers.ceremony.record import (
    ProvenCeremony,
    SignedCeremony,
    ceremony_path,
    check_ceremony,
    check_proven,
    proven_path,
)
from signers.ceremony.room import Operators
from signers.ceremony.unfinished import finish, read_unfinished, undo
from signers.errors import CeremonyStopped
from signers.hsm.pkcs11 import Token
from signers.keys.evm_keys import key_path
from signers.keys.sealed import seed_path
from signers.process.files import read_kept


def hold(plan: CeremonyPlan, people: People, operators: Operators, token: Token) -> ProvenCeremony:
    """Make the key-set and prove its backup; what is done already is not done again.

    Raises:
        CeremonyStopped: see `make` and `prove`.
        SealBroken, NotProven: files of the ceremony are damaged or not genuine.
        SelfCheckFailed, DerivationDisagreement, TokenRefused, TokenLost: see `make`.
    """
    directory, keyset = Path(plan.directory), plan.keyset.id
    if _is_made(plan):
        finish(directory, keyset)
    else:
        signed = make(plan, people, operators, token)
        people.say(f"The keys of {keyset!r} are made; ceremony {signed.record.ceremony}.")
    if proven_path(directory, keyset).exists():
        _, proven = read_ceremony(directory, keyset)
        assert proven is not None
    else:
        proven = prove(plan, people, operators, token)
    people.say(
        f"Key-set {keyset!r} is proven. Keep {plan.backup_directory} apart from the signer, print the record in it,\n"
        "and list the key-set in the bundle: `strongroom key ceremony entry` prints its entry."
    )
    return proven


def take_away(plan: CeremonyPlan, people: People, operators: Operators, token: Token) -> None:
    """Take away what an interrupted ceremony left: keys in the tokens, files, shares. Again changes nothing.

    A key-set that was made stays; of an interrupted proof only the keys in the proof's token are destroyed.

    Raises:
        CeremonyStopped: an operator declined, or this is another token.
        TokenRefused, TokenLost: the tokens.
    """
    directory, keyset = Path(plan.directory), plan.keyset.id
    if _is_made(plan):
        finish(directory, keyset)
        operators.confirm(
            "remove", f"destroy keys of {keyset!r} in the proof's token {plan.proof_token.label!r}"
        )
        clear_proof_token(plan, people, token)
        people.say("The proof's token holds no keys of this key-set; the key-set itself was made and stays.")
        return
    unfinished = read_unfinished(directory, keyset)
    if unfinished is None:
        people.say("No ceremony was interrupted; there is nothing to take away.")
        return
    listed = [*unfinished.key_names, *unfinished.files, *unfinished.share_files.values()]
    operators.confirm(
        "remove",
        f"take away what ceremony {unfinished.ceremony} has left of:\n  " + "\n  ".join(listed),
    )
    for left in undo(directory, unfinished, token):
        people.say(f"To do: {left}.")
    people.say("Taken away; no key-set was made. Begin again.")


def read_ceremony(directory: Path, keyset: str) -> tuple[SignedCeremony, ProvenCeremony | None]:
    """A genuine record, and its genuine proof if there is one.

    Raises:
        SealBroken: the record is missing, or a file is malformed.
        NotProven: a file is not genuine.
    """
    signed = read_kept(ceremony_path(directory, keyset), SignedCeremony)
    check_ceremony(signed, signed.record.keyset)
    check_facts(signed.record)
    path = proven_path(directory, keyset)
    if not path.exists():
        return signed, None
    proven = read_kept(path, ProvenCeremony)
    check_proven(proven, signed.record.keyset)
    if proven.ceremony != signed:
        raise CeremonyStopped(f"{path} proves another ceremony")
    return signed, proven


def _is_made(plan: CeremonyPlan) -> bool:
    """The key-set's own file is written last."""
    directory, keyset = Path(plan.directory), plan.keyset.id
    return any(place(directory, keyset).exists() for place in (seed_path, key_path))
