"""The holder's folder, and the ways in which a request comes."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import msgspec
import pytest

from chains.bbqr import FileType, split
from chains.errors import InvalidValue
from signers.airgap.errors import Unsafe
from signers.airgap.registered import Registered, RegisteredNetwork
from signers.airgap.requests import read_request
from signers.airgap.secret import Secret
from signers.airgap.store import Home, Kept, write_whole
from tests.support.airgap import Quorum

ENTROPY = Secret(bytes(range(32)))
KEPT = Kept(
    registered=Registered(networks=(RegisteredNetwork(chain="eth", chain_id=1, symbol="ETH", decimals=18),))
)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "keys")


# Keys.


def test_a_folder_and_its_files_are_for_their_owner_only(home: Home) -> None:
    path = home.add("alice", b"content")
    assert home.folder.stat().st_mode & 0o777 == 0o700
    assert path.stat().st_mode & 0o777 == 0o600
    assert home.names() == ("alice",)
    with pytest.raises(InvalidValue, match="already"):
        home.add("alice", b"other")
    assert path.read_bytes() == b"content"
    home.folder.chmod(0o750)
    with pytest.raises(Unsafe, match="chmod 700"):
        Home(home.folder)


def test_a_key_file_open_to_others_is_not_read(home: Home) -> None:
    home.add("alice", b"{}").chmod(0o640)
    with pytest.raises(Unsafe, match="chmod 600"):
        home.keyfile("alice")
    with pytest.raises(Unsafe):
        home.keyfile("bob")


def test_the_only_key_needs_no_name_and_one_of_several_does(home: Home) -> None:
    with pytest.raises(InvalidValue, match="begin with: key create"):
        home.only_name(None)
    home.add("alice", b"")
    assert home.only_name(None) == "alice"
    home.add("bob", b"")
    with pytest.raises(InvalidValue, match="alice, bob"):
        home.only_name(None)
    assert home.only_name("bob") == "bob"
    with pytest.raises(InvalidValue, match="no key 'carol'"):
        home.only_name("carol")


def test_a_file_is_whole_or_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_whole(path, b"first")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(Unsafe, match="No space left"):
            write_whole(path, b"second")
    assert path.read_bytes() == b"first"
    write_whole(path, b"second")
    assert (path.read_bytes(), [each.name for each in tmp_path.iterdir()]) == (b"second", ["file"])


# What is registered.


def test_what_is_kept_comes_back_and_is_nothing_before(home: Home) -> None:
    assert home.kept("alice", ENTROPY) == Kept()
    kept = msgspec.structs.replace(KEPT, root=Quorum().root)
    home.keep("alice", kept, ENTROPY)
    assert home.kept("alice", ENTROPY) == kept


def test_fault_44_what_was_edited_or_is_of_another_key_is_not_believed(home: Home) -> None:
    home.keep("alice", KEPT, ENTROPY)
    with pytest.raises(Unsafe, match="somebody changed it"):
        home.kept("alice", Secret(bytes(32)))
    path = home.folder / "alice.registered"
    honest = path.read_bytes()
    for changed in (
        honest.replace(b'"decimals": 18', b'"decimals": 17'),
        honest.replace(b'"symbol": "ETH"', b'"symbol": "BTC"'),
        b"{}",
        b"",
        b"\xff",
    ):
        assert changed != honest
        path.write_bytes(changed)
        with pytest.raises(Unsafe, match="somebody changed it"):
            home.kept("alice", ENTROPY)


# Requests.

PSBT = b"psbt\xff" + bytes(range(200))


@pytest.mark.parametrize(
    ("content", "kind", "form"),
    [
        (PSBT, "payment", "binary"),
        (base64.b64encode(PSBT), "payment", "base64"),
        (base64.encodebytes(PSBT), "payment", "base64"),
        (PSBT.hex().encode() + b"\n", "payment", "binary"),
        ("\n".join(split(FileType.PSBT, PSBT, 4)).encode(), "payment", "binary"),
        ("\n".join(reversed(split(FileType.JSON, b'{"v":1}' * 30, 4))).encode(), "safe", "binary"),
        (b'{"type":"strongroom-safe-request"}', "safe", "binary"),
    ],
)
def test_a_request_is_recognised_by_its_content(content: bytes, kind: str, form: str, tmp_path: Path) -> None:
    path = tmp_path / "request.any"
    path.write_bytes(content)
    found = read_request([path], lambda _: None)
    assert (found.kind, found.base64, found.name, found.folder) == (kind, form, "request", tmp_path)
    if kind == "payment":
        assert found.data == PSBT


@pytest.mark.parametrize("content", [b"", b"hello", b"cHNidP8*", b"70736274ffzz", b"B$PP", b"\x00" * 9])
def test_anything_else_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "request"
    path.write_bytes(content)
    with pytest.raises(InvalidValue):
        read_request([path], lambda _: None)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="No such file"):
        read_request([tmp_path / "none.psbt"], lambda _: None)
