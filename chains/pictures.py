"""Reads files out of pictures of QR codes: photographs and screenshots, PNG or JPEG, with one or more codes each.

A picture comes from outside, so it is bounded before it is unpacked: bytes of the file, pixels, frames of a film.
Pillow unpacks (zxing-cpp reads pixels only), zxing-cpp finds the codes.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chains.bbqr import Joiner, NotBbqr, PartsMissing, Received, is_part
from chains.errors import InvalidValue

if TYPE_CHECKING:
    from PIL import Image

MAX_FILE_BYTES: Final = 32 * 1024 * 1024
MAX_PIXELS: Final = 64_000_000
"""Of one picture or frame; unpacked it takes four bytes a pixel."""
MAX_FILM_PIXELS: Final = 512_000_000
"""Of all frames of a film together."""
MAX_PICTURES: Final = 4_000
"""In one folder."""
_SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg"})
_FORMATS: Final = ("PNG", "JPEG")
_DAMAGED: Final = (OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, ArithmeticError)
"""What Pillow says of damaged pictures."""


class BadPicture(InvalidValue):
    """A file that cannot be read as a picture, or in which no code was found. The message says what to do."""


def read_codes(path: Path) -> Iterator[str]:
    """The texts of all QR codes in a picture, frame by frame where it is a film.

    Raises:
        BadPicture: no PNG or JPEG, damaged, or too large.
    """
    from PIL import Image
    from zxingcpp import BarcodeFormat, BarcodeFormats, TextMode, read_barcodes

    raw, qr = _read(path), BarcodeFormats(BarcodeFormat.QRCode)
    try:
        with Image.open(io.BytesIO(raw), formats=_FORMATS) as picture:
            for frame in _frames(picture, path):
                for found in read_barcodes(frame, qr, text_mode=TextMode.Plain):
                    yield found.text
    except BadPicture:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadPicture(f"{path.name}: more than {MAX_PIXELS} pixels. Make it smaller") from None
    except (*_DAMAGED, struct.error, zlib.error) as error:
        raise BadPicture(
            f"{path.name}: damaged, or no picture ({error}). Take or copy it again as PNG or JPEG"
        ) from None


def read_series(paths: Sequence[Path], tell: Callable[[str], None]) -> Received:
    """The file whose codes are in pictures; reads no further once it is complete.

    Args:
        paths: pictures, and folders of them (read in the order of their names).
        tell: takes words for the holder, such as `3 of 7 parts`.

    Raises:
        BadPicture: the only picture cannot be read.
        MixedSeries: codes of two files.
        PartsMissing: not all parts are there; says which, and which pictures were of no use.
        BadContents: the parts are no file together.
    """
    joiner = Joiner()
    useless: list[str] = []
    pictures = [picture for path in paths for picture in pictures_in(path)]
    for picture in pictures:
        before, trouble = joiner.progress, f"{picture.name}: no QR code of a file was found in it"
        try:
            found = _add_all(joiner, picture)
        except BadPicture as error:
            if len(pictures) == 1:
                raise
            found, trouble = False, str(error)
        if not found:
            useless.append(picture.name)
            tell(trouble)
        elif joiner.progress != before:
            tell(str(joiner.progress))
        if joiner.complete:
            return joiner.result()
    try:
        return joiner.result()
    except PartsMissing as missing:
        words = f" (nothing was read in {', '.join(useless[:12])})" if useless else ""
        raise PartsMissing(f"{missing}{words}") from None


def _add_all(joiner: Joiner, picture: Path) -> bool:
    """Take in what a picture shows; whether there was a part in it. Raises BadPicture, MixedSeries."""
    found = False
    for text in read_codes(picture):
        if not is_part(text):
            continue
        try:
            joiner.add(text)
        except NotBbqr as error:
            raise BadPicture(f"{picture.name}: {error}") from None
        found = True
        if joiner.complete:
            break
    return found


def pictures_in(path: Path) -> list[Path]:
    """A picture, or all in a folder in the order of their names. Raises BadPicture."""
    if not path.is_dir():
        return [path]
    found = sorted(each for each in path.iterdir() if each.suffix.lower() in _SUFFIXES and each.is_file())
    if not found or len(found) > MAX_PICTURES:
        raise BadPicture(f"{path}: {len(found)} pictures (PNG or JPEG), expected 1 to {MAX_PICTURES}")
    return found


def _read(path: Path) -> bytes:
    """All bytes of a file. Raises BadPicture."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise BadPicture(f"{path}: cannot be read ({error.strerror}): copy it again") from None
    if len(raw) > MAX_FILE_BYTES:
        raise BadPicture(f"{path.name}: more than {MAX_FILE_BYTES} bytes. Make the picture smaller")
    return raw


def _frames(picture: Image.Image, path: Path) -> Iterator[Image.Image]:
    """The frames of a picture in shades of grey. Raises BadPicture."""
    pixels = picture.width * picture.height
    count = getattr(picture, "n_frames", 1)
    if pixels > MAX_PIXELS or pixels * count > MAX_FILM_PIXELS:
        raise BadPicture(f"{path.name}: {count} times {pixels} pixels. Make the picture smaller")
    for number in range(count):
        picture.seek(number)
        yield picture.convert("L")
