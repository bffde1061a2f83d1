"""Files handed over as QR codes: on the screen, or as pictures in a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from chains.bbqr import FileType, split
from chains.errors import InvalidValue
from signers.airgap.terminal import Screen


@dataclass(frozen=True, slots=True)
class Handing:
    """How a file is handed over beside being written."""

    on_screen: bool = False
    """As a film of QR codes in the terminal."""
    pictures: Path | None = None
    """Folder for PNG pictures of the codes."""


def hand_over(screen: Screen, data: bytes, kind: FileType, name: str, handing: Handing) -> None:
    """Show a file as QR codes, or write them as pictures, as was asked for.

    Raises:
        InvalidValue: too long for QR codes; the pictures are there already, or can't be written.
        NoTerminal: the terminal is too small.
    """
    from signers.airgap.qr import PICTURE_VERSION, film, fitting_version, terminal_screen, write_pictures

    if handing.pictures is not None:
        try:
            written = write_pictures(
                split(kind, data, PICTURE_VERSION), PICTURE_VERSION, handing.pictures, name
            )
        except OSError as error:
            raise InvalidValue(f"{handing.pictures}: {error.strerror}") from None
        screen.show([f"As pictures: {written[0]}" + (f" and {len(written) - 1} more" if written[1:] else "")])
    if handing.on_screen:
        with terminal_screen() as shown:
            version = fitting_version(*shown.size())
            film(split(kind, data, version), version, shown)
