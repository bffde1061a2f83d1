"""URIs of keys: one form each, and what is written otherwise is refused with a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chains.errors import InvalidValue
from signers.keys.keyref import KeyRef, Pkcs11Ref, SealedRef, SoftwareRef, parse_keyref

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
PRINTABLE = st.text(min_size=1, max_size=16).filter(lambda text: text.isprintable())


@pytest.mark.parametrize(
    ("uri", "ref"),
    [
        ("pkcs11:token=main", Pkcs11Ref("main")),
        ("pkcs11:token=main;object=eth-hot-sign", Pkcs11Ref("main", "eth-hot-sign")),
        ("pkcs11:object=a%20key%3B%3d;token=HSM.2", Pkcs11Ref("HSM.2", "a key;=")),
        ("sealed:token=main", SealedRef("main")),
        ("software:file=/srv/keys/btc%20hot.json", SoftwareRef(Path("/srv/keys/btc hot.json"))),
    ],
)
def test_a_uri_is_read(uri: str, ref: KeyRef) -> None:
    assert parse_keyref(uri) == ref
    assert parse_keyref(str(ref)) == ref


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("", "begins with one of pkcs11:, sealed:, software:"),
        ("main", "begins with one of"),
        ("PKCS11:token=main", "begins with one of"),
        ("hsm:token=main", "begins with one of"),
        ("pkcs11:" + "token=" + "a" * 1100, "begins with one of"),
        ("pkcs11:", "NAME=VALUE"),
        ("pkcs11:token", "NAME=VALUE"),
        ("pkcs11:token=main;", "NAME=VALUE"),
        ("pkcs11:token=main;token=main", "the attribute token once"),
        ("pkcs11:object=key", "needs the attribute token"),
        ("pkcs11:token=main;pin-value=1234", "of the names object, token"),
        ("pkcs11:token=main?pin-value=1234", "as %XX"),
        ("pkcs11:token=main&object=a", "as %XX"),
        ("pkcs11:token=", "as %XX"),
        ("pkcs11:token=main;object=", "as %XX"),
        ("pkcs11:token=main;object=a b", "as %XX"),
        ("pkcs11:token=main;object=%2", "as %XX"),
        ("pkcs11:token=main;object=%ff", "not UTF-8"),
        ("pkcs11:token=main;object=%00", "can't be printed"),
        ("pkcs11:token=main;object=%0a", "can't be printed"),
        ("pkcs11:token=main;object=" + "a" * 65, "at most 64 bytes"),
        ("pkcs11:token=../x", r"\[tokens.NAME\]"),
        ("pkcs11:token=a%2fb", r"\[tokens.NAME\]"),
        ("sealed:token=main;object=x", "of the names token"),
        ("software:file=keys.json", "absolute path"),
        ("software:file=", "as %XX"),
        ("software:token=main", "of the names file"),
    ],
)
def test_a_mistake_is_named(uri: str, said: str) -> None:
    with pytest.raises(InvalidValue, match=said):
        parse_keyref(uri)


def test_a_pin_that_somebody_wrote_into_a_uri_is_not_repeated() -> None:
    for uri in ("pkcs11:token=main;pin-value=918273", "pkcs11:918273", "918273:token=main"):
        with pytest.raises(InvalidValue) as error:
            parse_keyref(uri)
        assert "918273" not in str(error.value)


@given(st.builds(Pkcs11Ref, NAMES, PRINTABLE) | st.builds(SealedRef, NAMES))
def test_what_is_written_is_read_again(ref: KeyRef) -> None:
    assert parse_keyref(str(ref)) == ref
    assert str(parse_keyref(str(ref))) == str(ref)


@given(st.text(max_size=80) | st.text("pkcs11:sealed=;tokenbjf%2/", max_size=60).map(lambda t: "pkcs11:" + t))
def test_any_text_is_a_reference_or_refused(text: str) -> None:
    try:
        ref = parse_keyref(text)
    except InvalidValue:
        return
    assert parse_keyref(str(ref)) == ref
