"""The bundle as a person has it: a file, believed only if the quorum of a pinned trust root has signed it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from chains.errors import InvalidValue
from policies.bundle import Bundle, SignedBundle, TrustRoot, read_bundle
from policies.canonical import decoder_for

BUNDLE_VARIABLE: Final = "STRONGROOM_BUNDLE_PATH"
ROOT_VARIABLE: Final = "STRONGROOM_TRUST_ROOT_PATH"

PinnedBundle = Annotated[
    Path,
    typer.Option(
        "--bundle", envvar=BUNDLE_VARIABLE, help="The signed bundle, from where you trust it.", dir_okay=False
    ),
]
PinnedRoot = Annotated[
    Path,
    typer.Option("--trust-root", envvar=ROOT_VARIABLE, help="The pinned quorum of officers.", dir_okay=False),
]


def pinned_bundle(path: Path, root_path: Path, *, now: int) -> Bundle:
    """The bundle of a file.

    Args:
        path: JSON of a `SignedBundle`.
        root_path: JSON of the pinned `TrustRoot`.
        now: UNIX seconds.

    Raises:
        InvalidValue: a file cannot be read.
        UntrustedBundle: it lacks its quorum, is too old, or has expired.
    """
    return read_bundle(_content(path), _root(root_path), now=now)


def pinned_even_if_expired(path: Path, root_path: Path, *, now: int) -> tuple[Bundle, bytes, bool]:
    """The bundle of a file, its bytes, and whether it has expired: to leave, the last one that there was is enough.

    Arguments and errors otherwise as of `pinned_bundle`.
    """
    raw, root = _content(path), _root(root_path)
    try:
        expires_at = decoder_for(SignedBundle).decode(raw).bundle.expires_at
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidValue(f"{path} is no signed bundle: {error}") from None
    return read_bundle(raw, root, now=min(now, expires_at - 1)), raw, now >= expires_at


def _root(path: Path) -> TrustRoot:
    try:
        return decoder_for(TrustRoot).decode(_content(path))
    except msgspec.MsgspecError as error:
        raise InvalidValue(f"{path} is no trust root: {error}") from None


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidValue(f"{path}: {error.strerror}") from None
