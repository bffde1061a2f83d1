"""A new key holder at a terminal of 24 lines: make a key, hand out its record, register, look, sign."""

from __future__ import annotations

import pytest

from signers.airgap.btc_file import read_payment
from signers.airgap.keys import HolderKey, entropy_of_words
from signers.airgap.records import read_record
from tests.support.airgap import REGTEST, Holder, Payment, holder_key, multisig


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


def checksum(wallet: str) -> str:
    return wallet.rpartition("#")[2]


def test_the_record_is_of_the_key_on_the_paper(alice: Holder, key: HolderKey) -> None:
    file = alice.folder / "alice.json"
    code, shown = alice.run("key", "record", "--to", str(file))
    record = read_record(file.read_bytes())
    assert code == 0
    assert (record.origin, record.xpub, record.evm_address) == (key.origin_text, key.xpub, key.evm_address)
    assert key.fingerprint.hex() in shown


def test_register_show_and_sign(alice: Holder, key: HolderKey) -> None:
    wallet = multisig([key, *(holder_key(number) for number in range(4))], 3)
    descriptor, payment = alice.folder / "cold.txt", alice.folder / "pay.psbt"
    descriptor.write_text(wallet.descriptor + "\n")
    payment.write_bytes(Payment(wallet).build())

    code, shown = alice.run("show", str(payment))
    assert (code, "No wallet is registered" in shown) == (1, True)

    answers = ((r"another holder says it:", lambda *_: checksum(wallet.descriptor)),)
    code, shown = alice.run("register", str(descriptor), "--name", "cold-btc", answers=answers)
    assert code == 0, shown
    assert wallet.address(0, 0) in shown

    code, shown = alice.run("show", str(payment))
    assert code == 0, shown
    assert "PAYS, 1 of 1:  0.50000000 BTC = 50 000 000 sats" in shown
    assert "yours: derived again here as change address 1/0 of cold-btc" in shown
    assert "FEE  10 000 sats = 0.02 %" in shown

    code, shown = alice.run("sign", str(payment), answers=((r"first digits will do\):", lambda *_: "0.5"),))
    assert code == 0, shown
    signed = read_payment((alice.folder / "pay-signed-alice.psbt").read_bytes())
    assert signed.psbt == read_payment(payment.read_bytes()).psbt
    assert signed.signed_by == (frozenset({key.keys.pubkey(0, 0)}),)
