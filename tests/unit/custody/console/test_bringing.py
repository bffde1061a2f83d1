"""What people bring to `strongroom cold import`: files and pictures, several files' pictures one after the other."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from chains.bbqr import FileType, PartsMissing, split
from chains.errors import InvalidValue
from chains.pictures import BadPicture
from custody.console.bringing import brought
from custody.console.codes import write_pictures
from signers.airgap.qr import write_pictures as write_film

ANN, BOB = (random.Random(name).randbytes(1_500) for name in ("ann", "bob"))


def nobody(_: str) -> None:
    """Who listens."""


def pictures(folder: Path, name: str, data: bytes, kind: FileType = FileType.PSBT) -> tuple[Path, ...]:
    folder.mkdir(exist_ok=True)
    return write_pictures(kind, data, folder, name)


def test_a_folder_of_two_holders_pictures_brings_both_files(tmp_path: Path) -> None:
    first = [pictures(tmp_path / "usb", name, data)[0] for name, data in (("ann", ANN), ("bob", BOB))]
    assert len(list((tmp_path / "usb").iterdir())) > 4
    assert brought([tmp_path / "usb"], nobody) == [(first[0], ANN), (first[1], BOB)]


def test_files_and_pictures_come_together(tmp_path: Path) -> None:
    file = tmp_path / "ann.psbt"
    file.write_bytes(ANN)
    found = brought([file, *pictures(tmp_path / "usb", "bob", BOB)], nobody)
    assert [data for _, data in found] == [ANN, BOB]


def test_a_film_beside_its_pictures_and_what_was_photographed_twice_are_brought_once(tmp_path: Path) -> None:
    ann = write_film(split(FileType.PSBT, ANN, 15), 15, tmp_path, "ann")
    bob = pictures(tmp_path / "usb", "bob", BOB)
    assert [data for _, data in brought([tmp_path], nobody)] == [ANN]
    assert [data for _, data in brought([*ann, *bob, bob[-1]], nobody)] == [ANN, BOB]
    twice = [*ann[:-1], ann[1], *bob[:2], bob[0], *bob[2:]]
    assert [data for _, data in brought(twice, nobody)] == [ANN, BOB]


def test_what_is_not_whole_or_of_two_files_is_refused_before_anything_is_brought(tmp_path: Path) -> None:
    ann, bob = pictures(tmp_path / "a", "ann", ANN), pictures(tmp_path / "b", "bob", BOB)
    with pytest.raises(PartsMissing, match="missing: 2"):
        brought([ann[0], *ann[2:]], nobody)
    with pytest.raises(BadPicture, match="two files"):
        brought([ann[0], bob[0], *ann[1:]], nobody)
    strange = pictures(tmp_path / "c", "text", b"a letter", FileType.TEXT)
    with pytest.raises(InvalidValue, match="neither a payment"):
        brought(strange, nobody)
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(ann[0].read_bytes()[:100])
    with pytest.raises(BadPicture):
        brought([damaged], nobody)
