"""Derivation: the vectors of BIP84, agreement of three implementations, refusal of private keys."""

from __future__ import annotations

import pytest
from embit import base58, bip32
from embit import script as embit_script
from embit.networks import NETWORKS as EMBIT_NETWORKS
from hypothesis import given
from hypothesis import strategies as st

from chains.btc import hd
from chains.btc.hd import HARDENED, AccountKey, Origin, agreed_address, second_opinion
from chains.btc.network import NETWORKS
from chains.btc.script import p2wpkh_script
from chains.errors import DerivationDisagreement, InvalidValue

MAIN, REGTEST = NETWORKS["main"], NETWORKS["regtest"]

# The account of BIP84's test vectors; the BIP writes it with its own version bytes.
ZPUB = (
    "zpub6rFR7y4Q2AijBEqTUquhVz398htDFrtymD9xYYfG1m4wAcvPhXNfE3Ef"
    "H1r1ADqtfSdVCToUG868RvUUkgDKf31mGDtKsAYz2oz2AGutZYs"
)
XPUB = base58.encode_check(MAIN.xpub_version + base58.decode_check(ZPUB)[4:])

MASTER = bip32.HDKey.from_seed(bytes(range(64)), version=EMBIT_NETWORKS["regtest"]["xprv"])
ACCOUNT = MASTER.derive("m/84h/1h/0h")
KEY = AccountKey.parse(ACCOUNT.to_public().to_base58(), REGTEST)


def test_bip84_vectors() -> None:
    key = AccountKey.parse(XPUB, MAIN)
    assert key.address(0, 0) == "bc1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyu"
    assert key.address(0, 1) == "bc1qnjg0jd8228aq7egyzacy8cys3knf9xvrerkf9g"
    assert key.address(1, 0) == "bc1q8c6fshw2dlwun7ekn9qwf37cu2rn755upcp6el"
    assert key.pubkey(0, 0).hex() == "0330d54fd0dd420a6e5f8d3624f5f3482cae350f79d5f0753bf5beef9c2d91af3c"


@given(st.integers(0, 1), st.one_of(st.integers(0, 50), st.integers(0, 2**31 - 1)))
def test_three_implementations_agree(branch: int, index: int) -> None:
    child = ACCOUNT.to_public().derive([branch, index])
    assert KEY.pubkey(branch, index) == child.key.serialize()
    assert KEY.address(branch, index) == embit_script.p2wpkh(child).address(EMBIT_NETWORKS["regtest"])
    assert KEY.script(branch, index) == p2wpkh_script(child.key.serialize())
    assert agreed_address(KEY, branch, index) == KEY.address(branch, index)


def test_a_batch_is_the_same_as_one_by_one() -> None:
    assert KEY.addresses(1, 7, 5) == [KEY.address(1, index) for index in range(7, 12)]
    assert KEY.addresses(0, 0, 0) == []


def test_the_fingerprint_is_that_of_the_account_key() -> None:
    assert KEY.fingerprint == ACCOUNT.my_fingerprint


def test_disagreement_gives_out_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    other = second_opinion(KEY.xpub, 0, 1, REGTEST)
    monkeypatch.setattr(hd, "second_opinion", lambda *args: other)
    with pytest.raises(DerivationDisagreement):
        agreed_address(KEY, 0, 0)


@pytest.mark.parametrize(
    "private", [ACCOUNT.to_base58(), MASTER.to_base58(), bip32.HDKey.from_seed(bytes(32)).to_base58()]
)
def test_private_keys_are_refused_and_not_repeated_in_the_error(private: str) -> None:
    with pytest.raises(InvalidValue, match="PRIVATE") as caught:
        AccountKey.parse(private, REGTEST)
    assert private not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (XPUB, "version"),
        (ACCOUNT.to_public().to_base58()[:-1] + "1", "checksum"),
        (MASTER.to_public().to_base58(), "depth 0"),
        (MASTER.derive("m/84h/1h/0h/0").to_public().to_base58(), "depth 4"),
        (MASTER.derive("m/84h/1h/0").to_public().to_base58(), "depth 3"),
        ("", "checksum|0 bytes"),
        ("x" * 200, "bytes"),
    ],
)
def test_other_keys_are_refused(text: str, reason: str) -> None:
    with pytest.raises(InvalidValue, match=reason):
        AccountKey.parse(text, REGTEST)


@pytest.mark.parametrize(("branch", "index"), [(2, 0), (-1, 0), (0, -1), (0, 2**31)])
def test_paths_outside_the_account_are_refused(branch: int, index: int) -> None:
    with pytest.raises(InvalidValue):
        KEY.address(branch, index)


def test_a_point_that_is_not_on_the_curve_is_refused() -> None:
    payload = base58.decode_check(KEY.xpub)
    with pytest.raises(InvalidValue, match="curve"):
        AccountKey.parse(base58.encode_check(payload[:46] + b"\xff" * 32), REGTEST)


def test_an_origin_finds_the_place_of_a_path_below_it() -> None:
    origin = Origin.parse("d34db33f/84'/1'/0'")
    account = (84 + HARDENED, 1 + HARDENED, HARDENED)
    assert (origin.fingerprint.hex(), origin.path) == ("d34db33f", account)
    assert origin.place((*account, 0, 7)) == (0, 7)
    assert origin.place((*account, 1, HARDENED - 1)) == (1, HARDENED - 1)
    for path in (
        None,
        (),
        account,
        (*account, 0),
        (*account, 0, 7, 0),
        (*account, 2, 7),
        (*account, 0, HARDENED),
        (*account, HARDENED, 7),
        (86 + HARDENED, *account[1:], 0, 7),
    ):
        assert origin.place(path) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "d34db33f",
        "d34db33f/",
        "D34DB33F/84'",
        "d34db33/84'",
        "d34db33f/84",
        "d34db33f/84h",
        "d34db33f/084'",
        "d34db33f/-1'",
        "d34db33f/2147483648'",
        "d34db33f/84'/",
        "d34db33f/1'/1'/1'/1'/1'/1'/1'",
        " d34db33f/84'",
        "d34db33f/84'\n",
    ],
)
def test_an_origin_has_one_form(text: str) -> None:
    with pytest.raises(InvalidValue):
        Origin.parse(text)
