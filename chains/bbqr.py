"""BBQr: a file as a series of QR codes, and back. Pure.

Each code's text is a header of 8 characters (`B$`, encoding, file type, number of parts, number of this part; both
numbers in two digits of base 36) and a piece of the encoded file; all of it is of QR's alphanumeric set. Parts come in
any order, more than once. The format has no checksum over the whole: two files of the same type, encoding and number
of parts can be told apart by their contents only, so what is read must be checked by whoever reads it.

Source: BBQr.md of coinkite/BBQr (public domain).
"""

from __future__ import annotations

import base64
import re
import zlib
from enum import StrEnum
from typing import Final, NamedTuple

from chains.errors import InvalidValue

HEADER_CHARACTERS: Final = 8
MAX_PARTS: Final = 1295
"""`ZZ` in base 36."""
MAX_PART_CHARACTERS: Final = 4296
"""What a QR code of version 40 holds."""
MAX_FILE_BYTES: Final = 4 * 1024 * 1024
"""No longer file is made or read, and nothing is unpacked beyond it."""

_CAPACITY: Final = (
    *(25, 47, 77, 114, 154, 195, 224, 279, 335, 395, 468, 535, 619, 667, 758, 854, 938, 1046, 1153, 1249),
    *(1352, 1460, 1588, 1704, 1853, 1990, 2132, 2223, 2369, 2520, 2677, 2840, 3009, 3183, 3351, 3537, 3729),
    *(3927, 4087, 4296),
)
_WINDOW_BITS: Final = -10
"""Raw deflate with a window of 1 KiB, as the format fixes it."""
_PART: Final = re.compile(r"B\$([0-9A-Z])([0-9A-Z])([0-9A-Z]{2})([0-9A-Z]{2})([0-9A-Z]*)")
_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_BASE32_OCTET: Final = 8
"""Characters of base 32 that are whole bytes (5 of them)."""
_BASE32_LEFT_OVER: Final = frozenset({0, 2, 4, 5, 7})
"""Characters after the last whole group that are whole bytes too (RFC 4648, section 6)."""


class FileType(StrEnum):
    """What is in a file, by its letter."""

    PSBT = "P"
    TRANSACTION = "T"
    JSON = "J"
    CBOR = "C"
    TEXT = "U"
    BINARY = "B"
    EXECUTABLE = "X"


class Encoding(StrEnum):
    """How bytes become characters, by its letter."""

    HEX = "H"
    BASE32 = "2"
    ZLIB = "Z"
    """Packed, then base 32."""


class BbqrError(InvalidValue):
    """What was scanned cannot become a file. The message says what to do."""


class NotBbqr(BbqrError):
    """A text that is no part of a series."""


class MixedSeries(BbqrError):
    """Parts of different series, or two parts of one number that differ."""


class PartsMissing(BbqrError):
    """The series is not complete yet."""


class BadContents(BbqrError):
    """All parts are there, but together they are no file; or it is longer than what is read."""


class Received(NamedTuple):
    """A whole file."""

    file_type: FileType
    data: bytes


class Progress(NamedTuple):
    """How many different parts are there, of how many (0: none seen yet)."""

    received: int
    total: int

    def __str__(self) -> str:
        return f"{self.received} of {self.total} parts" if self.total else "no part yet"


def capacity(version: int) -> int:
    """Characters that a QR code of a version (1 to 40) holds: alphanumeric, with the least error correction (L).

    Source: ISO/IEC 18004, table 7.

    Raises:
        InvalidValue: no such version.
    """
    if not 1 <= version <= len(_CAPACITY):
        raise InvalidValue(f"QR version {version}: expected 1 to {len(_CAPACITY)}")
    return _CAPACITY[version - 1]


def split(
    file_type: FileType, data: bytes, version: int, encoding: Encoding | None = None
) -> tuple[str, ...]:
    """The texts of as few QR codes of a version as hold a file, all about equally long.

    Args:
        file_type: what the file is.
        data: its bytes.
        version: of the codes, 1 to 40.
        encoding: None: packed, unless that makes it longer.

    Raises:
        InvalidValue: no such version.
        BadContents: too long for 1,295 codes of that version, or for `MAX_FILE_BYTES`.
    """
    room = capacity(version) - HEADER_CHARACTERS
    if len(data) > MAX_FILE_BYTES:
        raise BadContents(f"a file of {len(data)} bytes: at most {MAX_FILE_BYTES} go into QR codes")
    encoding, text = _encode(data, encoding)
    step = 2 if encoding is Encoding.HEX else _BASE32_OCTET
    groups = -(-len(text) // step)
    count = 1 if len(text) <= room else -(-groups // (room // step))
    if count > MAX_PARTS:
        raise BadContents(
            f"{len(data)} bytes need {count} codes of version {version}, at most {MAX_PARTS} are possible: "
            "use a larger version, or a file"
        )
    each = max(-(-groups // count), 1) * step
    pieces = [text[at : at + each] for at in range(0, max(len(text), 1), each)]
    head = f"B${encoding}{file_type}{_base36(len(pieces))}"
    return tuple(head + _base36(number) + piece for number, piece in enumerate(pieces))


class Joiner:
    """Collects the parts of one series, in any order; the same one again changes nothing."""

    def __init__(self) -> None:
        self._head: str | None = None
        self._total = 0
        self._pieces: dict[int, str] = {}

    @property
    def progress(self) -> Progress:
        """How far it is."""
        return Progress(len(self._pieces), self._total)

    @property
    def complete(self) -> bool:
        """Whether every part is there."""
        return 0 < self._total == len(self._pieces)

    @property
    def missing(self) -> tuple[int, ...]:
        """Numbers of the parts that are not there yet, from 1 as a person counts."""
        return tuple(number + 1 for number in range(self._total) if number not in self._pieces)

    def add(self, text: str) -> Progress:
        """Take in the text of one code.

        Raises:
            NotBbqr: it is no part of a series.
            MixedSeries: it is of another series than those before.
        """
        head, total, number, piece = _read_part(text)
        if self._head not in (None, head):
            raise MixedSeries(
                f"codes of two series: one begins with {self._head}, another with {head}. "
                "Scan or copy the codes of one file only"
            )
        known = self._pieces.get(number)
        if known not in (None, piece):
            raise MixedSeries(
                f"part {number + 1} came twice with different contents: these are codes of two files. "
                "Scan or copy the codes of one file only"
            )
        self._check_length(number, total, piece)
        self._head, self._total = head, total
        self._pieces[number] = piece
        return self.progress

    def result(self) -> Received:
        """The file.

        Raises:
            PartsMissing: says which parts are missing.
            BadContents: the parts are no file together, or one that is too long.
        """
        if self._head is None or not self.complete:
            raise PartsMissing(_missing_words(self.progress, self.missing))
        encoding, file_type = Encoding(self._head[2]), FileType(self._head[3])
        data = b"".join(_decode(encoding, self._pieces[number]) for number in range(self._total))
        return Received(file_type, _unpack(data) if encoding is Encoding.ZLIB else data)

    def _check_length(self, number: int, total: int, piece: str) -> None:
        """All parts are equally long, and the last is not longer. Raises MixedSeries."""
        lengths = {n: len(p) for n, p in self._pieces.items()} | {number: len(piece)}
        last = lengths.pop(total - 1, None)
        if len({*lengths.values()}) > 1 or (last is not None and lengths and last > min(lengths.values())):
            raise MixedSeries(
                f"part {number + 1} has another length than the parts before it: these are codes of two files. "
                "Scan or copy the codes of one file only"
            )


def join(texts: tuple[str, ...] | list[str]) -> Received:
    """The file of a whole series at once. Raises BbqrError like `Joiner`."""
    joiner = Joiner()
    for text in texts:
        joiner.add(text)
    return joiner.result()


def is_part(text: str) -> bool:
    """Whether a text begins as a part of a series does."""
    return text.startswith("B$")


def _read_part(text: str) -> tuple[str, int, int, str]:
    """Head (6 characters), number of parts, number of the part from 0, and its piece. Raises NotBbqr."""
    found = _PART.fullmatch(text.strip()) if len(text) <= MAX_PART_CHARACTERS + 2 else None
    if found is None:
        raise NotBbqr("a code that is no part of a BBQr series: show the codes of the file once more")
    encoding, file_type, total, number, piece = found.groups()
    if encoding not in [*Encoding] or file_type not in [*FileType]:
        raise NotBbqr(
            f"a BBQr code with encoding {encoding} and file type {file_type}: not one that is read here"
        )
    total_parts, part = int(total, 36), int(number, 36)
    if part >= total_parts:
        raise NotBbqr(f"a BBQr code that says it is part {part + 1} of {total_parts}")
    _decode(Encoding(encoding), piece)
    return found[0][:6], total_parts, part, piece


def _missing_words(progress: Progress, missing: tuple[int, ...]) -> str:
    if not progress.total:
        return "no part of a BBQr series was found: show the codes of the file once more"
    few, more = missing[:12], len(missing) - 12
    named = ", ".join(map(str, few)) + (f" and {more} more" if more > 0 else "")
    return f"{progress}; missing: {named}. Scan or copy these too"


def _encode(data: bytes, encoding: Encoding | None) -> tuple[Encoding, str]:
    """The encoding that is used, and all characters."""
    if encoding is Encoding.HEX:
        return encoding, data.hex().upper()
    if encoding is not Encoding.BASE32:
        packer = zlib.compressobj(level=9, wbits=_WINDOW_BITS)
        packed = packer.compress(data) + packer.flush()
        if encoding is Encoding.ZLIB or len(packed) < len(data):
            return Encoding.ZLIB, base64.b32encode(packed).decode("ascii").rstrip("=")
    return Encoding.BASE32, base64.b32encode(data).decode("ascii").rstrip("=")


def _decode(encoding: Encoding, piece: str) -> bytes:
    """The bytes of one piece, which is in its only form. Raises NotBbqr."""
    try:
        if encoding is Encoding.HEX:
            return bytes.fromhex(piece)
        left_over = len(piece) % _BASE32_OCTET
        if left_over not in _BASE32_LEFT_OVER:
            raise ValueError("not whole bytes")
        data = base64.b32decode(piece + "=" * (-left_over % _BASE32_OCTET))
        if base64.b32encode(data).decode("ascii").rstrip("=") != piece:
            raise ValueError("bits left over")
    except ValueError as error:
        raise NotBbqr(f"a BBQr code whose contents cannot be read ({error}): scan it once more") from None
    return data


def _unpack(packed: bytes) -> bytes:
    """What was packed, without ever making more than `MAX_FILE_BYTES` of it. Raises BadContents."""
    unpacker = zlib.decompressobj(wbits=_WINDOW_BITS)
    try:
        data = unpacker.decompress(packed, MAX_FILE_BYTES + 1)
    except zlib.error as error:
        raise BadContents(
            f"the parts do not fit together ({error}): scan the codes of one file again"
        ) from None
    if len(data) > MAX_FILE_BYTES:
        raise BadContents(
            f"the file would unpack to more than {MAX_FILE_BYTES} bytes: nobody sends such a file"
        )
    if not unpacker.eof or unpacker.unused_data:
        raise BadContents(
            "the parts do not fit together (cut off, or too long): scan the codes of one file again"
        )
    return data


def _base36(number: int) -> str:
    high, low = divmod(number, 36)
    return _DIGITS[high] + _DIGITS[low]
