"""Sealed values: nothing of them opens elsewhere, changed, or without its key; and the key ring as a file."""

from __future__ import annotations

import os
import stat
from base64 import b64encode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chains.errors import InvalidValue
from custody.storage.sealing import (
    CannotOpen,
    KeyRing,
    Keys,
    Place,
    UnusableKeyRing,
    add_key,
    key_of,
    read_ring,
)

OLD, NEW = Keys({"2026-01": b"\1" * 32}), Keys({"2026-01": b"\1" * 32, "2026-07": b"\2" * 32})
HERE = Place("travel_rule", "data", "row-1")
VALUE = "Jürgen Müller".encode()


@given(st.binary(max_size=300))
def test_what_is_sealed_opens_at_its_place_and_shows_nothing_of_itself(value: bytes) -> None:
    sealed = NEW.seal(HERE, value)
    assert NEW.open(HERE, sealed) == value
    assert len(value) < 8 or value not in sealed
    assert NEW.seal(HERE, value) != sealed


def test_every_byte_counts() -> None:
    sealed = NEW.seal(HERE, VALUE)
    for index in range(len(sealed)):
        for flip in (0x01, 0x80):
            changed = bytearray(sealed)
            changed[index] ^= flip
            with pytest.raises(CannotOpen):
                NEW.open(HERE, bytes(changed))
    for cut in range(len(sealed)):
        with pytest.raises(CannotOpen):
            NEW.open(HERE, sealed[:cut])
    with pytest.raises(CannotOpen):
        NEW.open(HERE, sealed + b"\0")


@pytest.mark.parametrize(
    "place",
    [
        Place("travel_rule", "data", "row-2"),
        Place("travel_rule", "other", "row-1"),
        Place("whitelist", "data", "row-1"),
        Place("travel_rule", 'data","row-1', ""),
    ],
)
def test_a_value_opens_in_no_other_row_column_or_table(place: Place) -> None:
    with pytest.raises(CannotOpen):
        NEW.open(place, NEW.seal(HERE, VALUE))
    assert NEW.fingerprint(place, VALUE) != NEW.fingerprint(HERE, VALUE)


def test_the_newest_key_seals_and_older_ones_open() -> None:
    before = OLD.seal(HERE, VALUE)
    assert NEW.open(HERE, before) == VALUE
    after = NEW.seal(HERE, VALUE)
    assert (key_of(before), key_of(after), NEW.newest) == ("2026-01", "2026-07", "2026-07")
    with pytest.raises(CannotOpen, match="2026-07, which is not in the ring"):
        OLD.open(HERE, after)


def test_another_key_under_the_same_id_opens_nothing() -> None:
    with pytest.raises(CannotOpen):
        Keys({"2026-01": b"\3" * 32}).open(HERE, OLD.seal(HERE, VALUE))


def test_a_fingerprint_is_the_same_for_the_same_value_and_another_under_another_key() -> None:
    assert NEW.fingerprint(HERE, VALUE, "2026-01") == OLD.fingerprint(HERE, VALUE)
    assert NEW.fingerprint(HERE, VALUE)[1] != OLD.fingerprint(HERE, VALUE)[1]
    assert NEW.fingerprint(HERE, VALUE)[1] != NEW.fingerprint(HERE, VALUE + b"x")[1]
    with pytest.raises(CannotOpen):
        OLD.fingerprint(HERE, VALUE, "2026-07")


@pytest.mark.parametrize("keys", [{}, {"a": b""}, {"a": b"\1" * 31}])
def test_a_ring_needs_a_whole_key(keys: dict[str, bytes]) -> None:
    with pytest.raises(InvalidValue):
        Keys(keys)


def test_keys_show_nothing_of_themselves(tmp_path: Path) -> None:
    path = tmp_path / "ring"
    add_key(path, "first")
    text = path.read_text().split()[1]
    for shown in (repr(NEW), str(NEW), repr(KeyRing(path)), f"{read_ring(path)[0]}"):
        assert "[secret]" in shown
        assert text not in shown
        assert "\\x02" not in shown


def test_a_ring_is_made_private_grows_at_its_end_and_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "ring"
    add_key(path, "first")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    ring = KeyRing(path)
    sealed = ring().seal(HERE, VALUE)
    add_key(path, "second")
    assert ring().newest == "second"
    assert ring().open(HERE, sealed) == VALUE
    with pytest.raises(InvalidValue, match="already"):
        add_key(path, "first")
    with pytest.raises(InvalidValue, match="write 1 to 32"):
        add_key(path, "a b")
    assert os.listdir(tmp_path) == ["ring"]


def test_a_ring_that_becomes_unusable_leaves_the_keys_that_were_read(tmp_path: Path) -> None:
    path = tmp_path / "ring"
    add_key(path, "first")
    ring = KeyRing(path)
    sealed = ring().seal(HERE, VALUE)
    path.write_text("half")
    assert ring().open(HERE, sealed) == VALUE
    path.unlink()
    assert ring().open(HERE, sealed) == VALUE


KEY = b64encode(b"\1" * 32).decode()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "holds no key"),
        ("# nothing\n", "holds no key"),
        (f"a {KEY}\na {KEY}\n", ":2: a is there twice"),
        (f"a {KEY[:-4]}\n", ":1: write ID KEY"),
        (f"{KEY}\n", ":1: write ID KEY"),
        (f"a {KEY} more\n", ":1: write ID KEY"),
        (f"a! {KEY}\n", ":1: write ID KEY"),
        ("a not-base64\n", ":1: write ID KEY"),
    ],
)
def test_a_file_that_is_no_ring_is_refused_without_quoting_it(
    tmp_path: Path, text: str, sentence: str
) -> None:
    path = tmp_path / "ring"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(UnusableKeyRing, match=sentence) as caught:
        read_ring(path)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o611])
def test_a_ring_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "ring"
    add_key(path, "first")
    path.chmod(mode)
    with pytest.raises(UnusableKeyRing, match="chmod 600"):
        read_ring(path)


def test_a_ring_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ring"
    add_key(path, "first")
    somebody_else = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: somebody_else)
    with pytest.raises(UnusableKeyRing, match="another user"):
        read_ring(path)


def test_a_ring_that_is_not_there_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UnusableKeyRing, match="sealing-key` makes one"):
        read_ring(tmp_path / "none")
