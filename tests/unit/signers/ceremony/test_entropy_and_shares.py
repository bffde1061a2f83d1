"""Entropy of several sources, and shares of what is made of it."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chains.errors import InvalidValue
from signers.ceremony.entropy import SOURCE_BYTES, Entropy, gather
from signers.ceremony.shares import SECRET_BYTES, Share, join, read_share, split
from signers.errors import CeremonyStopped, SelfCheckFailed

_SOURCE = st.binary(min_size=SOURCE_BYTES, max_size=SOURCE_BYTES)


class FakeToken:
    """Only gives random bytes."""

    label = "fake"

    def __init__(self, draw: Callable[[int], bytes]) -> None:
        self._draw = draw

    def call(self, operation: Callable[[FakeToken], bytes]) -> bytes:
        return operation(self)

    def generateRandom(self, count: int) -> bytes:  # noqa: N802 - PKCS#11's name
        return self._draw(count)


@given(_SOURCE, _SOURCE, _SOURCE)
def test_either_source_alone_changes_everything(known: bytes, first: bytes, second: bytes) -> None:
    assert (first == second) == (
        Entropy(known, first, b"").derive("a", 32) == Entropy(known, second, b"").derive("a", 32)
    )
    assert (first == second) == (
        Entropy(first, known, b"").derive("a", 32) == Entropy(second, known, b"").derive("a", 32)
    )


def test_typed_entropy_and_the_purpose_count_too() -> None:
    host, token = os.urandom(64), os.urandom(64)
    made = {
        Entropy(host, token, typed).derive(purpose, 32)
        for typed in (b"", b"1", b"2")
        for purpose in ("a", "b")
    }
    assert len(made) == 6


@given(st.binary(max_size=8), st.binary(max_size=8), st.binary(max_size=8), st.data())
def test_no_byte_can_move_from_one_source_to_another(
    host: bytes, token: bytes, typed: bytes, data: st.DataObject
) -> None:
    whole = host + token + typed
    cuts = sorted(data.draw(st.tuples(*[st.integers(0, len(whole))] * 2)))
    other = (whole[: cuts[0]], whole[cuts[0] : cuts[1]], whole[cuts[1] :])
    if not (host or token) or not (other[0] or other[1]) or other == (host, token, typed):
        return
    assert Entropy(*other).derive("a", 32) != Entropy(host, token, typed).derive("a", 32)


def test_what_comes_out_is_the_hkdf_of_openssl() -> None:
    host, token = bytes(range(64)), bytes(range(64, 128))
    framed = b"".join(
        len(part).to_bytes(8, "big") + part for part in (b"host", host, b"token", token, b"typed", b"6")
    )
    options = {
        "digest": "SHA256",
        "hexkey": framed.hex(),
        "salt": "strongroom:ceremony-entropy:v1",
        "info": "purpose",
    }
    flags = [part for name, value in options.items() for part in ("-kdfopt", f"{name}:{value}")]
    done = subprocess.run(
        ["openssl", "kdf", "-keylen", "32", "-binary", *flags, "HKDF"], capture_output=True, check=True
    )
    assert Entropy(host, token, b"6").derive("purpose", 32) == done.stdout


def test_entropy_never_shows() -> None:
    assert repr(Entropy(b"secret-host", b"secret-token", b"secret")) == "[secret]"


def test_without_host_and_token_nothing_is_derived() -> None:
    with pytest.raises(InvalidValue):
        Entropy(b"", b"", b"123456").derive("a", 32)


def test_a_source_that_is_not_random_makes_no_keys() -> None:
    fine = FakeToken(os.urandom)
    fixed = os.urandom(SOURCE_BYTES)
    for broken in (
        lambda count: bytes(count),
        lambda count: fixed[:count],
        lambda count: b"",
        lambda count: b"ab" * 32,
    ):
        with pytest.raises(SelfCheckFailed, match="fake"):
            gather(FakeToken(broken), "")  # type: ignore[arg-type]
        with pytest.raises(SelfCheckFailed, match="host"):
            gather(fine, "", host=broken)  # type: ignore[arg-type]
    assert len(gather(fine, "").host) == SOURCE_BYTES  # type: ignore[arg-type]


@pytest.mark.parametrize(("threshold", "count"), [(2, 2), (2, 3), (3, 5)])
def test_any_threshold_of_the_shares_join_and_no_other_number(threshold: int, count: int) -> None:
    secret = os.urandom(SECRET_BYTES)
    shares = split(secret, threshold, count, os.urandom)
    assert [share.index for share in shares] == list(range(1, count + 1))
    assert len({share.fingerprint for share in shares}) == count
    for size in range(count + 1):
        for chosen in itertools.combinations(shares, size):
            if size == threshold:
                assert join(chosen) == secret
            else:
                with pytest.raises(CeremonyStopped):
                    join(chosen)


def test_mixed_repeated_and_damaged_shares_are_refused() -> None:
    one, other = (split(os.urandom(32), 2, 3, os.urandom) for _ in range(2))
    with pytest.raises(CeremonyStopped, match=r"different secrets|do not belong together"):
        join([one[0], other[1]])
    with pytest.raises(CeremonyStopped, match="twice"):
        join([one[0], one[0]])
    forged = Share(other[1].index, one[0].identifier, other[1].threshold, other[1].words)
    with pytest.raises(CeremonyStopped, match="do not belong together"):
        join([one[0], forged])


def test_a_share_with_any_one_word_changed_or_missing_is_no_share() -> None:
    share = split(os.urandom(32), 2, 3, os.urandom)[0]
    words = share.words.split()
    for place in range(len(words)):
        changed = list(words)
        changed[place] = "academic" if words[place] != "academic" else "zero"
        for wrong in (changed, words[:place] + words[place + 1 :]):
            with pytest.raises(CeremonyStopped, match="no SLIP-39 share") as refused:
                read_share(" ".join(wrong))
            assert words[1] not in str(refused.value)
    assert read_share("  " + share.words.upper() + "\n") == share


def test_a_share_of_something_else_is_refused() -> None:
    from shamir_mnemonic import generate_mnemonics

    short = generate_mnemonics(1, [(2, 3)], os.urandom(16))[0][0]
    grouped = generate_mnemonics(2, [(2, 3), (2, 3)], os.urandom(32))[0][0]
    for words in (short, grouped):
        with pytest.raises(CeremonyStopped, match="something else"):
            read_share(words)


def test_shares_take_their_randomness_from_where_they_are_told_and_leave_the_library_as_it_was() -> None:
    from shamir_mnemonic import shamir

    before = shamir.RANDOM_BYTES
    drawn: list[int] = []

    def random(count: int) -> bytes:
        drawn.append(count)
        return os.urandom(count)

    split(os.urandom(32), 3, 5, random)
    assert sum(drawn) >= 32 + 28
    assert shamir.RANDOM_BYTES is before
    with pytest.raises(RuntimeError):
        split(os.urandom(32), 2, 3, _broken)
    assert shamir.RANDOM_BYTES is before


def _broken(_count: int) -> bytes:
    raise RuntimeError("no randomness")


@pytest.mark.parametrize(("threshold", "count"), [(1, 3), (4, 3), (2, 17), (0, 0)])
def test_numbers_that_slip_39_does_not_know_are_refused(threshold: int, count: int) -> None:
    with pytest.raises(CeremonyStopped, match="expected 2 to 16"):
        split(os.urandom(32), threshold, count, os.urandom)


def test_shares_never_show() -> None:
    share = split(os.urandom(32), 2, 2, os.urandom)[0]
    assert share.words not in repr(share)
