"""The kit's files, and their writing to a directory."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Final

from chains.errors import InvalidValue
from custody.recovery import readme
from custody.recovery.describe import Json, described, watching
from policies import words
from policies.bundle import Bundle

TOOLS: Final = ("words_to_key.py", "wrapped_to_key.py", "safe_recover.py")
"""Scripts that need nothing of ours."""
SUMS: Final = "SHA256SUMS"


def files(bundle: Bundle, signed: bytes, *, addresses: int, now: int) -> dict[str, bytes]:
    """Name and content of every file of the kit.

    Args:
        bundle: that the quorum has signed.
        signed: the bytes it was read from.
        addresses: how many of each branch are to be watched, and of deposit addresses flushed.
        now: UNIX seconds.

    Raises:
        InvalidValue, DerivationDisagreement: as of `describe.described`.
    """
    from embit.wordlists.bip39 import WORDLIST

    kit = described(bundle, addresses=addresses, made_at=now)
    found = {
        "kit.json": _json(kit),
        "README.txt": readme.text(kit, expired=now >= bundle.expires_at).encode(),
        "policy.txt": "".join(f"{line}\n" for line in _policy(bundle)).encode(),
        "bundle.json": signed,
        "bip39-english.txt": "".join(f"{word}\n" for word in WORDLIST).encode(),
    }
    for wallet in kit["bitcoin"]:
        # One line, as `bitcoin-cli -stdin` takes each line for an argument.
        line = json.dumps([watching(wallet, addresses)])
        found[f"{wallet['wallet']}.watch.json"] = f"{line}\n".encode()
    for name in TOOLS:
        found[name] = (resources.files("custody.recovery") / "tools" / name).read_bytes()
    return found | {SUMS: _sums(found)}


def write(directory: Path, content: Mapping[str, bytes]) -> None:
    """Write the kit into a directory that is new or empty.

    Raises:
        InvalidValue: something is there already, or it cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        if any(directory.iterdir()):
            raise InvalidValue(f"{directory} is not empty: an old kit must not lie among a new one's files")
        for name, data in content.items():
            with open(os.open(directory / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(data)
    except OSError as error:
        raise InvalidValue(f"{directory}: {error.strerror}") from None


def fingerprint(content: Mapping[str, bytes]) -> str:
    """What people write on paper: the SHA-256 of SHA256SUMS, 64 hex digits."""
    return hashlib.sha256(content[SUMS]).hexdigest()


def _sums(content: Mapping[str, bytes]) -> bytes:
    return "".join(
        f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(content.items())
    ).encode()


def _policy(bundle: Bundle) -> Iterator[str]:
    yield f"The rules by which the house paid, version {bundle.version}. They bind nobody who has the keys."
    yield ""
    yield from words.policy(bundle.policy, bundle.told, bundle.unit)


def _json(kit: Json) -> bytes:
    return (json.dumps(kit, indent=2) + "\n").encode()
