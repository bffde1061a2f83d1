"""A new key holder at a terminal of 24 lines: make a key, hand out its record, register, look, sign."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from chains.btc.multisig import Multisig
from chains.eth.address import raw_address
from chains.eth.safe import SafeMessage, SafeTx
from chains.eth.safe_files import SafeRequest, decode_signature, encode_request
from policies.bundle.root import root_fingerprint
from signers.airgap.btc_file import read_payment
from signers.airgap.keys import HolderKey, entropy_of_words
from signers.airgap.records import read_record
from tests.support.airgap import (
    PASSPHRASE,
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
from tests.support.terminal import TerminalSession

TYPES_HALF: Answers = ((r"first digits will do\):", lambda *_: "0.5"),)


@pytest.fixture(scope="module")
def alice(tmp_path_factory: pytest.TempPathFactory) -> Holder:
    """Has made a key."""
    holder = Holder("alice", tmp_path_factory.mktemp("alice"))
    assert "Your paper is right." in holder.create()
    return holder


@pytest.fixture(scope="module")
def key(alice: Holder) -> HolderKey:
    """Her key, by her paper."""
    return HolderKey(entropy_of_words(" ".join(alice.words)), REGTEST)


@pytest.fixture(scope="module")
def quorum(alice: Holder, key: HolderKey) -> Quorum:
    """Has signed a bundle in which she is one of five holders, and she has registered it."""
    made, keys = Quorum(), (key, *(holder_key(number) for number in range(4)))
    (alice.folder / "root.json").write_bytes(msgspec.json.encode(made.root))
    (alice.folder / "bundle.json").write_bytes(made.signed(cold_bundle(keys)))
    return made


def comparing(quorum: Quorum, wallet: Multisig) -> Answers:
    """What she reads on her paper."""
    return (
        (r"ceremony's paper says it:", lambda *_: root_fingerprint(quorum.root)),
        (r"of address 0/0, as another holder reads them:", lambda *_: wallet.address(0, 0)[-12:]),
        (r"of its address, as another holder reads them:", lambda *_: SAFE_ADDRESS[-12:]),
    )


def test_the_record_is_of_the_key_on_the_paper(alice: Holder, key: HolderKey) -> None:
    file = alice.folder / "alice.json"
    code, shown = alice.run("key", "record", "--to", str(file))
    record = read_record(file.read_bytes())
    assert code == 0
    assert (record.origin, record.xpub, record.evm_address) == (key.origin_text, key.xpub, key.evm_address)
    assert key.fingerprint.hex() in shown


def test_nothing_is_signed_before_a_wallet_is_registered(alice: Holder, key: HolderKey) -> None:
    payment = alice.folder / "early.psbt"
    payment.write_bytes(Payment(vault(key)).build())
    code, shown = alice.run("show", str(payment))
    assert code == 1
    assert "No wallet is registered on this machine yet" in shown


def vault(key: HolderKey) -> Multisig:
    """Hers and four others'."""
    return multisig([key, *(holder_key(number) for number in range(4))], 3)


def test_a_bundle_is_registered_once_the_holder_has_compared_it(
    alice: Holder, key: HolderKey, quorum: Quorum
) -> None:
    root, bundle, wallet = alice.folder / "root.json", alice.folder / "bundle.json", vault(key)
    code, shown = alice.run("register", str(bundle))
    assert (code, "no quorum is pinned yet" in shown) == (2, True)

    wrong = ((r"ceremony's paper says it:", lambda *_: "0000 0000 0000 0000 0000"),)
    code, shown = alice.run("register", str(bundle), "--root", str(root), answers=wrong)
    assert (code, "Nothing was registered" in shown) == (1, True)

    wrong_paper = (
        *comparing(quorum, wallet)[:1],
        (r"of address 0/0, as another holder reads them:", lambda *_: "qqqqqqqq"),
    )
    code, shown = alice.run("register", str(bundle), "--root", str(root), answers=wrong_paper)
    assert (code, "btc-cold: that is not what is written here" in shown) == (1, True)

    quorums, (question, _), *others = comparing(quorum, wallet)
    typed = iter(("qqqqqqqq", wallet.address(0, 0)[-12:]))
    answers = (quorums, (question, lambda *_: next(typed)), *others)
    code, shown = alice.run("register", str(bundle), "--root", str(root), answers=answers)
    assert code == 0, shown
    assert "That is not what is written above." in shown, "who mistypes is asked again"
    assert wallet.address(0, 0) in shown
    assert "SAFE eth-cold, ethereum (chain id 1): any 3 of 5 owners" in shown

    # Again: nothing is asked, and nothing older or of others is taken.
    code, shown = alice.run("register", str(bundle))
    assert code == 0, shown
    keys = (key, *(holder_key(number) for number in range(4)))
    for raw in (quorum.signed(cold_bundle(keys, version=6)), Quorum().signed(cold_bundle(keys, version=9))):
        other = alice.folder / "other.json"
        other.write_bytes(raw)
        assert alice.run("register", str(other))[0] == 1


def test_a_payment_is_shown_and_signed(alice: Holder, key: HolderKey, quorum: Quorum) -> None:
    registered(alice, key, quorum)
    payment = alice.folder / "pay.psbt"
    payment.write_bytes(Payment(vault(key)).build())
    code, shown = alice.run("show", str(payment))
    assert code == 0, shown
    assert "PAYS, 1 of 1:  0.50000000 BTC = 50 000 000 sats" in shown
    assert "yours: derived again here as change address 1/0 of btc-cold" in shown
    assert "FEE  10 000 sats = 0.02 %" in shown

    for typed in ("0.6", "0.", "", "yes", "1"):
        code, shown = alice.run(
            "sign", str(payment), answers=((r"first digits will do\):", lambda *_, text=typed: text),)
        )
        assert (code, "not signed" in shown) == (1, True), typed
    assert not (alice.folder / "pay-signed-alice.psbt").exists()

    for _ in range(2):  # again: the same file
        code, shown = alice.run("sign", str(payment), answers=TYPES_HALF)
        assert code == 0, shown
    signed = read_payment((alice.folder / "pay-signed-alice.psbt").read_bytes())
    assert signed.psbt == read_payment(payment.read_bytes()).psbt
    assert signed.signed_by == (frozenset({key.keys.pubkey(0, 0)}),)
    code, shown = alice.run("show", str(alice.folder / "pay-signed-alice.psbt"))
    assert (code, "! You have signed this already." in shown) == (0, True)


def test_base64_comes_back_as_base64(alice: Holder, key: HolderKey, quorum: Quorum) -> None:
    registered(alice, key, quorum)
    payment, to = alice.folder / "text.psbt", alice.folder / "out.psbt"
    payment.write_bytes(base64.b64encode(Payment(vault(key)).build()) + b"\n")
    code, shown = alice.run("sign", str(payment), "--to", str(to), answers=TYPES_HALF)
    assert code == 0, shown
    assert read_payment(base64.b64decode(to.read_bytes(), validate=False)).signed_by[0]
    assert to.stat().st_mode & 0o777 == 0o600


def test_a_request_in_pictures_is_signed_into_pictures(alice: Holder, key: HolderKey, quorum: Quorum) -> None:
    from chains.bbqr import FileType, split
    from chains.pictures import read_series
    from signers.airgap.qr import PICTURE_VERSION, write_pictures

    registered(alice, key, quorum)
    there, back = alice.folder / "there", alice.folder / "back"
    there.mkdir()
    back.mkdir()
    raw = Payment(vault(key)).build()
    write_pictures(split(FileType.PSBT, raw, PICTURE_VERSION), PICTURE_VERSION, there, "request")
    to = alice.folder / "answer.psbt"
    code, shown = alice.run("sign", str(there), "--to", str(to), "--png", str(back), answers=TYPES_HALF)
    assert code == 0, shown
    assert read_series([back], lambda _: None).data == to.read_bytes()
    assert read_payment(to.read_bytes()).signed_by[0]


def test_a_safe_request_is_shown_and_signed(alice: Holder, key: HolderKey, quorum: Quorum) -> None:
    registered(alice, key, quorum)
    request = alice.folder / "safe.json"
    tx = SafeTx(to=raw_address("0x" + "77" * 20), value_wei=5 * 10**18, data=b"", nonce=3)
    message = SafeMessage(1, raw_address(SAFE_ADDRESS), tx)
    request.write_bytes(encode_request(SafeRequest(message, int(time.time()) + 3600, "to the exchange")))
    answers = ((r"first digits will do\):", lambda *_: "5.0"),)
    code, shown = alice.run("sign", str(request), answers=answers)
    assert code == 0, shown
    assert "SAFE REQUEST of eth-cold" in shown
    found = decode_signature((alice.folder / "safe-signed-alice.json").read_bytes())
    assert (found.safe_tx_hash, found.owner) == (message.signing_hash, raw_address(key.evm_address))


def test_fault_45_a_delegatecall_is_refused_whatever_is_typed(
    alice: Holder, key: HolderKey, quorum: Quorum
) -> None:
    registered(alice, key, quorum)
    request = alice.folder / "evil.json"
    tx = SafeTx(to=raw_address("0x" + "77" * 20), value_wei=0, data=b"\x12\x34\x56\x78", nonce=3, operation=1)
    message = SafeMessage(1, raw_address(SAFE_ADDRESS), tx)
    request.write_bytes(encode_request(SafeRequest(message, int(time.time()) + 3600)))
    code, shown = alice.run("sign", str(request))
    assert (code, "DELEGATECALL" in shown) == (1, True)
    assert not (alice.folder / "evil-signed-alice.json").exists()


def test_an_address_is_verified(alice: Holder, key: HolderKey, quorum: Quorum) -> None:
    registered(alice, key, quorum)
    code, shown = alice.run("verify-address", vault(key).address(0, 12))
    assert (code, "receiving address 0/12 of btc-cold" in shown) == (0, True)
    code, shown = alice.run("verify-address", SAFE_ADDRESS)
    assert (code, "Safe eth-cold" in shown) == (0, True)
    code, shown = alice.run("verify-address", multisig([holder_key(1), holder_key(2)], 2).address(0, 0))
    assert (code, "NOT YOURS" in shown) == (1, True)


def registered(alice: Holder, key: HolderKey, quorum: Quorum) -> None:
    """Again changes nothing."""
    root, bundle = alice.folder / "root.json", alice.folder / "bundle.json"
    answers = comparing(quorum, vault(key))
    code, shown = alice.run("register", str(bundle), "--root", str(root), answers=answers)
    assert code == 0, shown


def test_backup_words_and_shares_restore_the_same_key(alice: Holder, key: HolderKey, tmp_path: Path) -> None:
    showing = ((r"to go on:", lambda *_: "show"), (r"Written down\?", lambda *_: ""))
    code, shown = alice.run("key", "backup", answers=showing)
    assert (code, numbered(shown.rpartition("THE WORDS")[2], 24)) == (0, alice.words)

    code, shown = alice.run("key", "backup", "--shares", "2/3", answers=showing)
    assert code == 0
    shares = [numbered(page, 33) for page in shown.split("SHARE ")[1:]]

    bob = Holder("bob", tmp_path)
    code, shown = bob.run(
        "key", "restore", "bob", "--organisation", "acme", "--network", "regtest", "--shares",
        answers=(
            (r"Share 1:", lambda *_: " ".join(shares[2])),
            (r"Share 2 of 2:", lambda *_: " ".join(shares[0])),
            (r"(Passphrase|The same again):", lambda *_: PASSPHRASE),
        ),
    )  # fmt: skip
    assert (code, key.fingerprint.hex() in shown) == (0, True)
    code, shown = bob.run(
        "key", "restore", "bob-2", "--organisation", "acme", "--network", "regtest",
        answers=(
            (r"Words:", lambda *_: " ".join(alice.words)),
            (r"(Passphrase|The same again):", lambda *_: PASSPHRASE),
        ),
    )  # fmt: skip
    assert (code, key.fingerprint.hex() in shown) == (0, True)
    # With two keys, it must be said which one.
    code, shown = bob.run("key", "record")
    assert (code, "say which key with --key: bob, bob-2" in shown) == (2, True)


def numbered(page: str, count: int) -> list[str]:
    """Words that a screen has numbered."""
    found = {
        int(number): word for number, word in re.findall(r"(\d+) ([a-z]+)", page.partition("Written")[0])
    }
    return [found[number] for number in range(1, count + 1)]


def test_a_wrong_passphrase_opens_nothing(alice: Holder) -> None:
    wrong = ((r"Passphrase of key", lambda *_: "another passphrase"),)
    session = TerminalSession(
        [sys.executable, "-m", "signers.airgap", "--home", str(alice.home), "key", "record"],
        {"HOME": str(alice.folder)},
        (*wrong, (r"to go on:", lambda *_: "rehearsal")),
    )
    assert session.run() == 1
    assert "wrong passphrase, or the key's file is damaged" in session.shown
    assert "another passphrase" not in session.shown


def test_what_was_registered_and_then_edited_is_not_believed(
    alice: Holder, key: HolderKey, quorum: Quorum
) -> None:
    registered(alice, key, quorum)
    file = alice.home / "alice.registered"
    honest = file.read_text()
    payment = alice.folder / "late.psbt"
    payment.write_bytes(Payment(vault(key)).build())
    try:
        file.write_text(honest.replace('"fee_cap_sats": 100000', '"fee_cap_sats": 100001'))
        code, shown = alice.run("show", str(payment))
        assert (code, "somebody changed it" in shown) == (1, True)
    finally:
        file.write_text(honest)


def test_files_are_for_their_owner_only_and_no_secret_is_in_them(alice: Holder, key: HolderKey) -> None:
    assert alice.home.stat().st_mode & 0o777 == 0o700
    with entropy_of_words(" ".join(alice.words)) as entropy:
        secret = entropy.reveal()
    for path in alice.home.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
        raw = path.read_bytes()
        assert secret not in raw
        assert secret.hex().encode() not in raw
    alice.home.chmod(0o755)
    try:
        code, shown = alice.run("key", "record")
        assert (code, "chmod 700" in shown) == (1, True)
    finally:
        alice.home.chmod(0o700)


def test_without_a_terminal_nothing_is_asked_or_shown(alice: Holder) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "signers.airgap", "--home", str(alice.home), "key", "backup"],
        input="rehearsal\n", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert "needs a terminal" in done.stderr
