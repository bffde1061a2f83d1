"""What people bring to `strongroom cold import`: files, and pictures of the QR codes of files, several at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from chains.bbqr import FileType, Joiner, MixedSeries, NotBbqr, Received, is_part
from chains.errors import InvalidValue
from chains.pictures import BadPicture, pictures_in, read_codes

_MAX_FILE_BYTES: Final = 128_000_000
_PICTURES: Final = frozenset({".png", ".jpg", ".jpeg"})
_SIGNED: Final = (FileType.PSBT, FileType.TRANSACTION, FileType.JSON)


def brought(paths: Sequence[Path], tell: Callable[[str], None]) -> list[tuple[Path, bytes]]:
    """The files that are meant, each with where it came from (of pictures: the first of them).

    Pictures belong together as they follow each other: when a file is whole, the next picture begins another one. What
    is there twice, such as the film of the pictures before it, is brought once.

    Args:
        paths: files, pictures, and folders of pictures (read in the order of their names).
        tell: takes words for people, such as `3 of 7 parts`.

    Raises:
        InvalidValue: one is too large, damaged or shows no code; parts of a file are missing; or they are of two files.
    """
    found: list[tuple[Path, bytes]] = []
    series = _Series(tell)
    for path in paths:
        if path.is_dir() or path.suffix.lower() in _PICTURES:
            for picture in pictures_in(path):
                found += series.add(picture)
        else:
            found.append((path, _read(path)))
    series.finish()
    return found


class _Series:
    """Pictures of the codes of files that follow each other."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._joiner, self._first, self._parts = Joiner(), Path(), set[str]()
        self._before = set[str]()
        """Parts of the file before."""
        self._found: list[bytes] = []

    def add(self, picture: Path) -> list[tuple[Path, bytes]]:
        """The files that are whole with this picture, and are new."""
        parts = [*dict.fromkeys(text for text in read_codes(picture) if is_part(text))]
        if not parts:
            raise BadPicture(f"{picture}: no QR code of a file was found in it")
        try:
            if len(parts) > 1 and not self._joiner.progress.received:
                film = Joiner()
                for text in parts:
                    film.add(text)
                if film.complete:
                    return self._new(picture, film.result())
            return [file for text in parts for file in self._add(picture, text)]
        except (NotBbqr, MixedSeries) as error:
            raise BadPicture(f"{picture}: {error}") from None

    def finish(self) -> None:
        """Raises PartsMissing: a file was begun, and is not whole."""
        if self._parts - self._before:
            self._joiner.result()

    def _add(self, picture: Path, text: str) -> list[tuple[Path, bytes]]:
        try:
            progress = self._joiner.add(text)
        except MixedSeries:
            # Codes of the file before, photographed twice, say nothing of this one.
            self._joiner, self._parts = Joiner(), self._parts - self._before
            for part in self._parts:
                self._joiner.add(part)
            progress = self._joiner.add(text)
        self._first = self._first if self._parts else picture
        self._parts.add(text)
        self._tell(f"{picture.name}: {progress}")
        if not self._joiner.complete:
            return []
        found = self._new(self._first, self._joiner.result())
        self._joiner, self._before, self._parts = Joiner(), self._parts, set()
        return found

    def _new(self, picture: Path, received: Received) -> list[tuple[Path, bytes]]:
        if received.file_type not in _SIGNED:
            raise InvalidValue(
                f"{picture}: codes of something that is neither a payment nor a Safe's signature"
            )
        if received.data in self._found:
            return []
        self._found.append(received.data)
        return [(picture, received.data)]


def _read(path: Path) -> bytes:
    if path.stat().st_size > _MAX_FILE_BYTES:
        raise InvalidValue(f"{path}: larger than any request; nothing was read")
    return path.read_bytes()
