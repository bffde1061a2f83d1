"""What a production signer asks for before it uses keys: a ceremony whose backup was proven by a restore."""

from __future__ import annotations

from pathlib import Path

from signers.ceremony.record import ProvenCeremony, check_proven, proven_path
from signers.errors import NotProven, SealBroken
from signers.keys.keyset import KeysetRecord
from signers.process.files import read_kept


def require_proven(directory: Path, keyset: KeysetRecord) -> None:
    """Check that a key-set was made in a production ceremony and that its backup was proven.

    Args:
        directory: the signer's directory, with `KEYSET.proven.json`.
        keyset: the public record of the keys that were opened, so with the attestation key that the token has.

    Raises:
        NotProven: there is no such file, it is malformed or not genuine, of other keys, or of a rehearsal.
    """
    path = proven_path(directory, keyset.id)
    if not path.exists():
        raise NotProven(
            f"key-set {keyset.id!r} has no proven ceremony ({path} is missing): production uses keys only after "
            "`strongroom key ceremony` has proven their backup by a restore"
        )
    try:
        proven = read_kept(path, ProvenCeremony)
    except SealBroken as error:
        raise NotProven(str(error)) from None
    check_proven(proven, keyset)
    if proven.ceremony.record.environment != "production":
        raise NotProven(
            f"key-set {keyset.id!r} was made in a rehearsal; production uses keys of a real ceremony"
        )
