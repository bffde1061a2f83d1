"""The bundle as a person has it: a file, believed only if the quorum of a pinned trust root has signed it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from chains.errors import InvalidValue
from policies.bundle import Bundle, TrustRoot, read_bundle
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
    try:
        root = decoder_for(TrustRoot).decode(_content(root_path))
    except msgspec.MsgspecError as error:
        raise InvalidValue(f"{root_path} is no trust root: {error}") from None
    return read_bundle(_content(path), root, now=now)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidValue(f"{path}: {error.strerror}") from None
