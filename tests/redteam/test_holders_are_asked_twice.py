"""Holders of cold keys keep no journal of orders: whoever has all that is online, or has put an old copy of its
database back, asks them for the same payment again, out of other coins. The offline machine remembers, and says so."""

from __future__ import annotations

import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chains.eth.address import raw_address
from chains.eth.safe import SafeMessage, SafeTx
from chains.eth.safe_files import SafeRequest, encode_request
from policies.bundle.root import root_fingerprint
from signers.airgap.keys import HolderKey, entropy_of_words
from signers.airgap.past import MOST, Signed, remembered, signed_before
from tests.support.airgap import (
    REGTEST,
    SAFE_ADDRESS,
    Answers,
    Holder,
    Payment,
    Quorum,
    cold_bundle,
    holder_key,
    multisig,
)

SAID = "PAID BEFORE?"
PAYEE = raw_address("0x" + "77" * 20)


@pytest.fixture(scope="module")
def alice(tmp_path_factory: pytest.TempPathFactory) -> Holder:
    """Has made a key."""
    holder = Holder("alice", tmp_path_factory.mktemp("alice"))
    holder.create()
    return holder


@pytest.fixture(scope="module")
def keys(alice: Holder) -> list[HolderKey]:
    """Hers, and four others'."""
    own = HolderKey(entropy_of_words(" ".join(alice.words)), REGTEST)
    return [own, *(holder_key(number) for number in range(4))]


@pytest.fixture(scope="module", autouse=True)
def quorum(alice: Holder, keys: list[HolderKey]) -> Quorum:
    """Has signed a bundle, and she has registered it."""
    made = Quorum()
    (alice.folder / "root.json").write_bytes(msgspec.json.encode(made.root))
    _register(alice, keys, made, version=7)
    return made


def _register(alice: Holder, keys: list[HolderKey], quorum: Quorum, *, version: int) -> None:
    bundle, wallet = alice.folder / "bundle.json", multisig(keys, 3)
    bundle.write_bytes(quorum.signed(cold_bundle(keys, version=version)))
    answers: Answers = (
        (r"ceremony's paper says it:", lambda *_: root_fingerprint(quorum.root)),
        (r"of address 0/0, as another holder reads them:", lambda *_: wallet.address(0, 0)[-12:]),
        (r"of its address, as another holder reads them:", lambda *_: SAFE_ADDRESS[-12:]),
    )
    code, shown = alice.run(
        "register", str(bundle), "--root", str(alice.folder / "root.json"), answers=answers
    )
    assert code == 0, shown


def _shown(alice: Holder, name: str, content: bytes, *, verb: str = "show", typed: str = "") -> str:
    request = alice.folder / name
    request.write_bytes(content)
    code, shown = alice.run(verb, str(request), answers=((r"first digits will do\):", lambda *_: typed),))
    assert code == 0, shown
    return shown


def test_the_same_payment_out_of_other_coins_is_said_and_one_that_takes_its_place_is_not(
    alice: Holder, keys: list[HolderKey], quorum: Quorum
) -> None:
    wallet = multisig(keys, 3)
    first = Payment(wallet).build()
    assert SAID not in _shown(alice, "first.psbt", first, verb="sign", typed="0.5")
    assert SAID not in _shown(alice, "first.psbt", first)
    assert SAID not in _shown(alice, "anew.psbt", Payment(wallet, change=(149_900_000, 1, 0)).build())
    beside = Payment(wallet, coins=[(200_000_000, 0, 1)]).build()
    assert SAID in _shown(alice, "beside.psbt", beside)
    _register(alice, keys, quorum, version=8)
    assert SAID in _shown(alice, "beside.psbt", beside), "a new bundle makes her forget nothing"


def test_the_same_payment_of_a_safe_with_another_nonce_is_said(alice: Holder) -> None:
    def request(nonce: int, value_wei: int = 5 * 10**18) -> bytes:
        tx = SafeTx(to=PAYEE, value_wei=value_wei, data=b"", nonce=nonce)
        message = SafeMessage(1, raw_address(SAFE_ADDRESS), tx)
        return encode_request(SafeRequest(message, int(time.time()) + 3600, ""))

    assert SAID not in _shown(alice, "3.json", request(3), verb="sign", typed="5.0")
    assert SAID in _shown(alice, "4.json", request(4))
    assert SAID not in _shown(alice, "3-again.json", request(3))
    assert SAID not in _shown(alice, "5.json", request(5, 6 * 10**18)), "another amount"


_requests = st.builds(
    Signed,
    at=st.just(1_700_000_000),
    content=st.integers(0, 9).map(lambda n: f"{n:064x}"),
    uses=st.lists(st.sampled_from("abc"), min_size=1, max_size=2).map(tuple),
    pays=st.lists(st.sampled_from(("1 BTC to x", "2 BTC to x", "1 BTC to y")), max_size=2).map(tuple),
)


@given(st.lists(_requests, max_size=6), _requests)
def test_what_is_remembered_once_is_remembered_and_again_changes_nothing(
    asked: list[Signed], new: Signed
) -> None:
    past: tuple[Signed, ...] = ()
    for each in asked:
        past = remembered(past, each)
    assert len({each.content for each in past}) == len(past)
    after = remembered(past, new)
    assert remembered(after, new) == after
    both = [
        each
        for each in past
        if each.content != new.content
        and not set(each.uses) & set(new.uses)
        and set(each.pays) & set(new.pays)
    ]
    assert bool(signed_before(past, new)) == bool(both)


def test_the_latest_are_remembered() -> None:
    past: tuple[Signed, ...] = ()
    for number in range(MOST + 1):
        past = remembered(past, Signed(at=0, content=f"{number:064x}", uses=(str(number),), pays=()))
    assert (len(past), past[-1].content) == (MOST, f"{MOST:064x}")
