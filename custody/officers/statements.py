"""One officer's signed word: a freeze, a lower number, a veto. Pure: who may say it, and whether it was said so."""

from __future__ import annotations

from typing import Final

import msgspec

from chains.errors import InvalidValue
from custody.officers.repository import StatementKind
from policies.bundle import Bundle, TrustRoot
from policies.canonical import decoder_for, verify_ed25519
from policies.statements import (
    Freeze,
    Lowering,
    SignedFreeze,
    SignedLowering,
    SignedVeto,
    Veto,
)

Signed = SignedFreeze | SignedLowering | SignedVeto
Statement = Freeze | Lowering | Veto
MAX_FREEZE_AHEAD: Final = 1_000
"""As at the signers: how many versions above the present bundle a freeze may name."""


def kind_of(signed: Signed) -> StatementKind:
    """The kind of a statement."""
    match signed:
        case SignedFreeze():
            return "freeze"
        case SignedLowering():
            return "lowering"
        case SignedVeto():
            return "veto"


def statement_of(signed: Signed) -> Statement:
    """What was signed."""
    match signed:
        case SignedFreeze():
            return signed.freeze
        case SignedLowering():
            return signed.lowering
        case SignedVeto():
            return signed.veto


def version_of(statement: Statement) -> int | None:
    """The bundle until whose successor it counts; None for a veto, which is for good."""
    return None if isinstance(statement, Veto) else statement.bundle_version


def read(kind: StatementKind, document: bytes) -> Signed:
    """A statement as it is stored or sent.

    Raises:
        InvalidValue: it is none of this kind.
    """
    try:
        match kind:
            case "freeze":
                return decoder_for(SignedFreeze).decode(document)
            case "lowering":
                return decoder_for(SignedLowering).decode(document)
            case "veto":
                return decoder_for(SignedVeto).decode(document)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidValue(f"{kind}: {error}") from None


def check(signed: Signed, bundle: Bundle, root: TrustRoot) -> None:
    """Check that an officer has signed it who was one when he did.

    By his own word of when: an officer whose grant has ended can still stop things here, but at no signer.

    Args:
        signed: the statement.
        bundle: the one in force.
        root: the pinned quorum.

    Raises:
        InvalidValue: no officer of bundle and root, or one whose time was over.
        BadSignature: another's signature.
    """
    statement = statement_of(signed)
    officer = bundle.officer(statement.officer)
    if root.keys.get(officer.id) != officer.key:
        raise InvalidValue(f"the key of officer {officer.id} is not in the pinned root")
    if statement.issued_at >= officer.not_after:
        raise InvalidValue(f"officer {officer.id} ended at {officer.not_after}")
    verify_ed25519(officer.key, statement.digest(), signed.signature)
