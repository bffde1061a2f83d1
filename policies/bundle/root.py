"""The quorum that signs bundles, as people pin it: its file, and the fingerprint that they compare by voice. Pure."""

from __future__ import annotations

import hashlib

import msgspec

from chains.errors import InvalidValue
from policies.bundle.document import TrustRoot
from policies.canonical import decoder_for


def read_root(raw: bytes) -> TrustRoot:
    """The quorum to pin. Raises InvalidValue: malformed, or more signatures asked for than there are keys."""
    try:
        root = decoder_for(TrustRoot).decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidValue(f"root of trust: {error}") from None
    if root.threshold > len({root.organisations.get(name, name) for name in root.keys}):
        raise InvalidValue("root of trust: it asks for more organisations than it has")
    return root


def root_fingerprint(root: TrustRoot) -> str:
    """20 hex digits in groups of four, of who may sign bundles and how many must. The lowest version is not in it."""
    said = msgspec.structs.replace(root, minimum_version=1)
    digest = hashlib.sha256(b"strongroom:root:v1\n" + msgspec.json.encode(said, order="sorted")).hexdigest()
    return " ".join(digest[at : at + 4] for at in range(0, 20, 4))


def root_lines(root: TrustRoot) -> list[str]:
    """The quorum, for people."""
    return [
        f"THE QUORUM: {root.threshold} of these organisations must sign every bundle",
        *(
            f"  {name}, {root.organisations.get(name, name)}: {key[:16]}..."
            for name, key in sorted(root.keys.items())
        ),
        f"  fingerprint of all this:  {root_fingerprint(root)}",
    ]
