"""Files out of pictures: screenshots, photographs, films, several codes in one; damage is called damage."""

from __future__ import annotations

import contextlib
import io
import random
import tempfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from chains.bbqr import BbqrError, FileType, MixedSeries, PartsMissing, Received, split
from chains.pictures import MAX_FILE_BYTES, BadPicture, read_codes, read_series
from signers.airgap.qr import write_pictures

VECTORS = Path(__file__).parents[2] / "vectors/bbqr"
DATA = random.Random(5).randbytes(900)


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """One picture for each part of `DATA`."""
    return [*write_pictures(split(FileType.PSBT, DATA, 8), 8, tmp_path, "file")[:-1]]


def nobody(words: str) -> None:
    """Takes words that nobody reads."""


@settings(max_examples=25)
@given(
    st.binary(max_size=1500), st.integers(3, 30), st.sampled_from(FileType), st.randoms(use_true_random=False)
)
def test_any_file_crosses_by_pictures_in_any_order(
    data: bytes, version: int, file_type: FileType, chance: random.Random
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        parts = split(file_type, data, version)
        some = parts if len(parts) <= 4 else split(file_type, data, 30)
        written = [*write_pictures(some, version if some is parts else 30, Path(folder), "file")]
        chance.shuffle(written)
        assert read_series(written, nobody) == (file_type, data)
        assert read_series([Path(folder)], nobody) == (file_type, data)


def test_films_that_a_hardware_wallet_shows_are_read() -> None:
    """Animated PNGs of BBqr's authors; what they hold begins and ends as a PSBT does (BIP174)."""
    for file in ("change_psbt_15of15.png", "small.png"):
        words: list[str] = []
        file_type, data = read_series([VECTORS / file], words.append)
        assert file_type is FileType.PSBT
        assert data.startswith(b"psbt\xff")
        assert data.endswith(b"\x00")
        assert words[-1].endswith("parts")


def test_progress_is_told_and_nothing_is_read_once_the_file_is_complete(pictures: list[Path]) -> None:
    words: list[str] = []
    damaged = pictures[0].with_name("zz.png")
    damaged.write_bytes(b"never read")
    assert read_series([*pictures, damaged], words.append).data == DATA
    assert words == [f"{number} of {len(pictures)} parts" for number in range(1, len(pictures) + 1)]
    words.clear()
    assert read_series([pictures[0], *pictures], words.append).data == DATA
    assert len(words) == len(pictures), "the same one again is no progress"


def test_several_codes_in_one_photograph_turned_shrunk_and_noisy_are_read(
    pictures: list[Path], tmp_path: Path
) -> None:
    codes = [Image.open(path).convert("L") for path in pictures]
    side = codes[0].width
    wall = Image.new("L", (side * 2 + 60, side * ((len(codes) + 1) // 2) + 60), 230)
    for number, code in enumerate(codes):
        wall.paste(code, (20 + number % 2 * side, 20 + number // 2 * side))
    photo = wall.rotate(7, expand=True, fillcolor=200).resize((wall.width * 2 // 3, wall.height * 2 // 3))
    path = tmp_path / "photo.jpeg"
    photo.convert("RGB").save(path, quality=60)
    assert read_series([path], nobody) == Received(FileType.PSBT, DATA)


def test_what_is_missing_and_what_could_not_be_read_is_said(pictures: list[Path], tmp_path: Path) -> None:
    Image.new("L", (50, 50), 128).save(tmp_path / "blank.png")
    (tmp_path / "torn.png").write_bytes(pictures[0].read_bytes()[:200])
    words: list[str] = []
    pictures[1].unlink()
    with pytest.raises(PartsMissing, match=r"missing: 2.*blank\.png, torn\.png"):
        read_series(
            [tmp_path / "blank.png", tmp_path / "torn.png", *pictures[:1], *pictures[2:]], words.append
        )
    assert words[0] == "blank.png: no QR code of a file was found in it"
    assert words[1].startswith("torn.png: damaged")


def test_codes_of_two_files_are_refused(pictures: list[Path], tmp_path: Path) -> None:
    other = write_pictures(split(FileType.JSON, bytes(500), 8), 8, tmp_path, "other")
    with pytest.raises(MixedSeries):
        read_series([pictures[0], other[0], *pictures[1:]], nobody)


def test_other_codes_beside_are_passed_over(pictures: list[Path], tmp_path: Path) -> None:
    (sticker,) = write_pictures(("HTTPS://EXAMPLE.ORG",), 8, tmp_path, "sticker")
    assert [*read_codes(sticker)] == ["HTTPS://EXAMPLE.ORG"]
    words: list[str] = []
    assert read_series([sticker, *pictures], words.append).data == DATA
    assert "no QR code of a file" in words[0]
    with pytest.raises(PartsMissing, match="no part"):
        read_series([sticker], nobody)


def test_files_that_are_no_pictures_are_refused(tmp_path: Path) -> None:
    gif = io.BytesIO()
    Image.new("L", (9, 9)).save(gif, format="GIF")
    for number, raw in enumerate((b"", b"hello", gif.getvalue(), b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")):
        path = tmp_path / f"{number}.png"
        path.write_bytes(raw)
        with pytest.raises(BadPicture, match="again"):
            read_series([path], nobody)
    with pytest.raises(BadPicture):
        read_series([tmp_path / "nowhere.png"], nobody)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadPicture, match="0 pictures"):
        read_series([tmp_path / "empty"], nobody)


def test_pictures_that_would_fill_the_memory_are_refused_before_they_are_unpacked(tmp_path: Path) -> None:
    for number, side in enumerate((9_000, 12_000, 40_000)):
        bomb = bytearray(png(1, 1))
        bomb[16:24] = side.to_bytes(4, "big") * 2
        path = tmp_path / f"bomb{number}.png"
        path.write_bytes(with_checksum(bomb))
        with pytest.raises(BadPicture, match="smaller"):
            read_series([path], nobody)
    long = tmp_path / "long.png"
    with long.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(BadPicture, match="smaller"):
        read_series([long], nobody)


def test_a_film_is_bounded_by_all_its_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = split(FileType.PSBT, DATA, 8)
    film = write_pictures(parts, 8, tmp_path, "file")[-1]
    with Image.open(film) as opened:
        pixels = opened.width * opened.height
    monkeypatch.setattr("chains.pictures.MAX_FILM_PIXELS", pixels * len(parts))
    assert read_series([film], nobody).data == DATA
    monkeypatch.setattr("chains.pictures.MAX_FILM_PIXELS", pixels * len(parts) - 1)
    with pytest.raises(BadPicture, match="smaller"):
        read_series([film], nobody)


@settings(max_examples=150)
@given(st.sampled_from(["PNG", "JPEG"]), st.data())
def test_a_damaged_picture_is_read_right_or_refused(kind: str, chance: st.DataObject) -> None:
    raw = bytearray(picture_of("A" * 40, kind))
    for _ in range(chance.draw(st.integers(1, 4))):
        raw[chance.draw(st.integers(0, len(raw) - 1))] = chance.draw(st.integers(0, 255))
    raw = raw[: chance.draw(st.one_of(st.just(len(raw)), st.integers(0, len(raw))))]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "damaged.png"
        path.write_bytes(raw)
        with contextlib.suppress(BbqrError, BadPicture):
            assert read_series([path], nobody) == (FileType.TEXT, b"A" * 40)


def picture_of(text: str, kind: str) -> bytes:
    """A picture of a small file."""
    with tempfile.TemporaryDirectory() as folder:
        (path,) = write_pictures(split(FileType.TEXT, text.encode(), 5), 5, Path(folder), "x")
        out = io.BytesIO()
        Image.open(path).convert("L").save(out, format=kind)
        return out.getvalue()


def png(width: int, height: int) -> bytes:
    """A black picture."""
    out = io.BytesIO()
    Image.new("L", (width, height)).save(out, format="PNG")
    return out.getvalue()


def with_checksum(raw: bytearray) -> bytes:
    """A PNG whose first chunk was edited, with the right checksum again."""
    raw[29:33] = zlib.crc32(raw[12:29]).to_bytes(4, "big")
    return bytes(raw)
