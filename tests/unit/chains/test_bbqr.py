"""Files as series of QR codes: read in any order, what BBQr's authors made too; what is of two files is refused."""

from __future__ import annotations

import base64
import contextlib
import json
import random
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from segno.consts import ERROR_LEVEL_L, SYMBOL_CAPACITY

from chains.bbqr import (
    HEADER_CHARACTERS,
    MAX_FILE_BYTES,
    MAX_PARTS,
    BadContents,
    Encoding,
    FileType,
    Joiner,
    MixedSeries,
    NotBbqr,
    PartsMissing,
    capacity,
    join,
    split,
)
from chains.errors import InvalidValue

VECTORS = Path(__file__).parents[2] / "vectors/bbqr"
REFERENCE = json.loads((VECTORS / "reference-parts.json").read_text())
ALPHANUMERIC = frozenset("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:")

versions = st.integers(1, 40)
encodings = st.sampled_from([None, *Encoding])
files = st.one_of(
    st.binary(max_size=3000),
    st.builds(lambda unit, times: unit * times, st.binary(max_size=9), st.integers(0, 900)),
)


@given(files, versions, encodings, st.sampled_from(FileType), st.randoms(use_true_random=False))
def test_any_file_is_read_again_from_its_parts_in_any_order_and_more_than_once(
    data: bytes, version: int, encoding: Encoding | None, file_type: FileType, chance: random.Random
) -> None:
    parts = split(file_type, data, version, encoding)
    assert all(len(part) <= capacity(version) and {*part} <= ALPHANUMERIC for part in parts)
    assert len({len(part) for part in parts[:-1]} | {len(parts[0])}) == 1
    seen = [*parts, *parts[: chance.randrange(len(parts) + 1)]]
    chance.shuffle(seen)
    joiner = Joiner()
    for number, part in enumerate(seen):
        joiner.add(part)
        before = joiner.progress
        assert joiner.add(part) == before, "again changes nothing"
        assert joiner.complete == ({*parts} <= {*seen[: number + 1]})
    assert joiner.result() == (file_type, data)


@given(st.binary(min_size=1, max_size=3000), versions, st.sampled_from(Encoding))
def test_no_fewer_codes_would_do(data: bytes, version: int, encoding: Encoding) -> None:
    parts = split(FileType.BINARY, data, version, encoding)
    characters = sum(len(part) - HEADER_CHARACTERS for part in parts)
    step = 2 if encoding is Encoding.HEX else 8
    whole = (capacity(version) - HEADER_CHARACTERS) // step * step
    assert len(parts) == 1 or characters > (len(parts) - 1) * whole


@pytest.mark.parametrize("name", sorted(REFERENCE))
def test_what_the_authors_program_splits_is_joined_and_ours_are_as_many(name: str) -> None:
    file, encoding, version = name.split()
    data = (VECTORS / file).read_bytes()
    parts = REFERENCE[name]
    assert join(parts[::-1]) == (FileType(parts[0][3]), data)
    assert len(split(FileType.PSBT, data, int(version), Encoding(encoding))) == len(parts)


def test_what_a_camera_has_really_scanned_is_joined() -> None:
    file_type, data = join((VECTORS / "real-scan.txt").read_text().split())
    assert file_type is FileType.TEXT
    assert b"Zlib compressed" in data
    assert b"PSBT" in data


def test_packing_is_as_tight_as_the_authors_and_is_dropped_where_it_does_not_help() -> None:
    """458 and 897 bytes are what the specification states for these files."""
    for file, packed in (("1in2out.psbt", 458), ("1in20out.psbt", 897)):
        (part,) = split(FileType.PSBT, (VECTORS / file).read_bytes(), 40)
        assert part[2] == "Z"
        assert abs((len(part) - HEADER_CHARACTERS) * 5 // 8 - packed) <= 3
    noise = random.Random(1).randbytes(500)
    assert split(FileType.BINARY, noise, 40)[0][2] == "2"
    assert split(FileType.BINARY, noise, 40, Encoding.ZLIB)[0][2] == "Z"


def test_what_a_code_holds_is_what_the_standard_says() -> None:
    bits: Any = SYMBOL_CAPACITY
    for version in range(1, 41):
        all_bits = bits[version][ERROR_LEVEL_L]
        room = all_bits - 4 - (9 if version < 10 else 11 if version < 27 else 13)
        assert capacity(version) == room // 11 * 2 + (room % 11 >= 6)
    for version in (0, 41, -1):
        with pytest.raises(InvalidValue):
            capacity(version)


def test_missing_parts_are_named_as_a_person_counts() -> None:
    parts = split(FileType.PSBT, bytes(range(256)) * 8, 3, Encoding.HEX)
    joiner = Joiner()
    with pytest.raises(PartsMissing, match="no part"):
        joiner.result()
    assert str(joiner.progress) == "no part yet"
    for number, part in enumerate(parts):
        if number not in (0, 4):
            joiner.add(part)
    assert joiner.missing == (1, 5)
    assert str(joiner.progress) == f"{len(parts) - 2} of {len(parts)} parts"
    with pytest.raises(PartsMissing, match=r"missing: 1, 5\."):
        joiner.result()
    with pytest.raises(PartsMissing, match="and 48 more"):
        join(parts[:1])


def test_parts_of_two_files_are_refused_and_the_first_file_can_still_be_completed() -> None:
    first, second = (split(FileType.PSBT, bytes([n]) * 300, 5, Encoding.HEX) for n in (1, 2))
    longer = split(FileType.PSBT, bytes(310), 5, Encoding.HEX)
    joiner = Joiner()
    joiner.add(first[0])
    for other in (
        split(FileType.JSON, bytes(300), 5, Encoding.HEX)[1],
        split(FileType.PSBT, bytes(300), 5, Encoding.BASE32)[1],
        split(FileType.PSBT, bytes(600), 5, Encoding.HEX)[1],
        second[0],
        longer[1],
        longer[-1] + "00" * 20,
    ):
        with pytest.raises(MixedSeries, match="two"):
            joiner.add(other)
    assert joiner.progress == (1, len(first))
    for part in first[1:]:
        joiner.add(part)
    assert joiner.result().data == bytes([1]) * 300


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "B$",
        "b$HP0100ab",
        "B$HP0100ab",
        "B$HP0100A",
        "B$HP0100 AB",
        "B$HP0000AB",
        "B$HP0101AB",
        "B$HP01-1AB",
        "B$QP0100AB",
        "B$HQ0100AB",
        "B$2P0100A",
        "B$2P0100AAA",
        "B$2P0100AB",
        "B$2P010011",
        "B$2P0100AA======",
        "B$HP0100" + "AB" * 2200,
        "bitcoin:BC1Q",
        "B$HP0100\N{FULLWIDTH DIGIT ONE}1",
    ],
)
def test_what_is_no_part_of_a_series_is_refused(text: str) -> None:
    with pytest.raises(NotBbqr):
        Joiner().add(text)


@given(st.text(max_size=40), st.text("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ$", max_size=40))
def test_any_text_is_a_part_or_is_refused(text: str, tail: str) -> None:
    for each in (text, "B$" + text, "B$" + tail):
        with contextlib.suppress(NotBbqr):
            assert Joiner().add(each).received == 1


def test_a_file_that_would_unpack_to_gigabytes_is_refused_early() -> None:
    packer = zlib.compressobj(level=9, wbits=-10)
    packed = b"".join(packer.compress(bytes(1 << 20)) for _ in range(64)) + packer.flush()
    with pytest.raises(BadContents, match="unpack"):
        join(zipped(packed))


def test_packed_contents_that_are_cut_damaged_or_too_long_are_refused() -> None:
    data = random.Random(2).randbytes(3000)
    packer = zlib.compressobj(level=9, wbits=-10)
    good = packer.compress(data[:40] * 9) + packer.flush()
    assert join(zipped(good)).data == data[:40] * 9
    for packed in (good[:-1], good + b"\x00", b"\xff" + good, b"", zlib.compress(data)):
        with pytest.raises(BadContents):
            join(zipped(packed))


def zipped(packed: bytes) -> list[str]:
    """Parts of a file that is packed already."""
    parts = split(FileType.BINARY, packed, 40, Encoding.BASE32)
    return [part[:2] + "Z" + part[3:] for part in parts]


def test_the_longest_series_is_written_and_read_and_one_byte_more_is_refused() -> None:
    each = (capacity(5) - HEADER_CHARACTERS) // 8 * 5
    longest = random.Random(3).randbytes(each * MAX_PARTS)
    parts = split(FileType.BINARY, longest, 5, Encoding.BASE32)
    assert len(parts) == MAX_PARTS
    assert parts[-1].startswith("B$2BZZZY")
    assert join(parts).data == longest
    with pytest.raises(BadContents, match="larger version"):
        split(FileType.BINARY, longest + b"\x00", 5, Encoding.BASE32)
    with pytest.raises(BadContents):
        split(FileType.BINARY, bytes(MAX_FILE_BYTES + 1), 40)


def test_the_example_of_the_specification() -> None:
    """2,150 bytes as hex in three codes of version 27: two full ones of a size, the same head, numbers of 2 digits."""
    parts = split(FileType.PSBT, bytes(2150), 27, Encoding.HEX)
    assert [part[:8] for part in parts] == ["B$HP0300", "B$HP0301", "B$HP0302"]
    assert join(["B$2U0100" + base64.b32encode(b"hi").decode().rstrip("=")]) == (FileType.TEXT, b"hi")
