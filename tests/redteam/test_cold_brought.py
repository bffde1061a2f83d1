"""Attacks on what holders bring back: everything between a holder's machine and ours may be the attacker's."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from embit.psbt import PSBT
from embit.transaction import Transaction as EmbitTransaction

from chains.errors import InvalidValue
from custody.signing.cold import handing
from custody.signing.errors import NotAMember, NotHandedOut, NotOurs
from custody.signing.sessions import service as sessions
from ops.devnet.bitcoind import Bitcoind
from signers.ports import Refused, SignerUnavailable, SignResponse
from tests.fakes.cold_till import LARGE_SATS, ColdTill, Holder, together
from tests.fakes.teller import opened

_ORDER = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141


@pytest.fixture
def till(database: str, bitcoind: Bitcoind, tmp_path: Path) -> Iterator[ColdTill]:
    with opened(ColdTill(database, bitcoind, tmp_path)) as till:
        till.customer("alice", 60_000_000)
        till.fund_vault(50_000_000, 50_000_000)
        yield till


def altered(file: bytes, holder: Holder, script: str) -> bytes:
    """The request with the payment's output turned elsewhere, and a holder's good signature for that."""
    psbt = PSBT.parse(file)
    for scope in psbt.outputs:
        if not scope.bip32_derivations:
            scope.script_pubkey.data = bytes.fromhex(script)
    return holder.sign(bytes(psbt.serialize()))


def thiefs_script(till: ColdTill) -> str:
    return str(till.bitcoind.rpc("validateaddress", till.outside.address())["scriptPubKey"])


def with_signature(file: bytes, pubkey: bytes, signature: bytes) -> bytes:
    """The file with one signature said to be of a key, at its first input."""
    psbt = PSBT.parse(file)
    key = next((each for each in psbt.inputs[0].bip32_derivations if each.sec() == pubkey), None)
    if key is None:
        from embit import ec

        key = ec.PublicKey.parse(pubkey)
    psbt.inputs[0].partial_sigs[key] = signature
    return bytes(psbt.serialize())


def signature_in(file: bytes) -> tuple[bytes, bytes]:
    [(key, signature)] = PSBT.parse(file).inputs[0].partial_sigs.items()
    return bytes(key.sec()), bytes(signature)


def nothing_kept(till: ColdTill, before: Any) -> None:
    assert till.kept() == []
    assert till.contents() == before


def test_fault_45_a_request_whose_output_was_changed_is_about_nothing_we_asked_for(till: ColdTill) -> None:
    _, session = till.asked()
    file = till.export(session, "ann")
    before = till.contents()
    stolen = altered(file, till.holders["ann"], thiefs_script(till))
    with pytest.raises(NotOurs, match="altered"):
        till.bring(stolen)
    nothing_kept(till, before)


def test_signatures_of_an_altered_request_put_into_the_honest_one_do_not_verify(till: ColdTill) -> None:
    _, session = till.asked()
    file = till.export(session, "ann")
    pubkey, signature = signature_in(altered(file, till.holders["ann"], thiefs_script(till)))
    before = till.contents()
    taken = till.bring(with_signature(file, pubkey, signature))
    assert taken.kept == ()
    assert "input 0" in taken.refused[0]
    nothing_kept(till, before)


def test_a_signature_for_another_transaction_of_ours_is_kept_for_that_one_alone(till: ColdTill) -> None:
    _, first = till.asked(20_000_000)
    _, second = till.asked(21_000_000)
    [file] = till.signed_by(first, "ann")
    pubkey, signature = signature_in(file)
    wrong = with_signature(till.export(second, "ann"), pubkey, signature)
    assert till.bring(wrong).refused
    assert till.kept() == []
    assert till.bring(file).session.id == first.id
    for session in (first, second):
        till.sign_all(session, "bob", "cem", "dag")
    till.settle_cold()


def test_a_stranger_signs_in_vain_and_holds_up_nobody(till: ColdTill) -> None:
    _, session = till.asked()
    [file] = till.signed_by(session, "ann")
    stranger = Holder.make("mallory")
    key = stranger.root.derive("m/48h/1h/0h/2h/1/0")
    mixed = with_signature(file, key.to_public().key.sec(), signature_in(file)[1])
    taken = till.bring(mixed)
    assert taken.kept == ("ann",)
    assert "has no key" in taken.refused[0]
    till.sign_all(session, "bob", "cem")
    till.settle_cold()


def test_one_holders_signature_under_two_names_counts_once(till: ColdTill) -> None:
    _, session = till.asked()
    [file] = till.signed_by(session, "ann")
    pubkey, signature = signature_in(file)
    others = [bytes(key.sec()) for key in PSBT.parse(file).inputs[0].bip32_derivations]
    for other in others:
        if other != pubkey:
            file = with_signature(file, other, signature)
    taken = till.bring(file)
    assert taken.kept == ("ann",)
    assert len(taken.refused) == 4
    [row] = till.query("SELECT response FROM session_members WHERE member = 'ann'")
    response = msgspec.json.decode(row["response"], type=SignResponse)
    with pytest.raises(Exception, match="by its own key"):
        sessions.bring(till.db, till.cold_site, till.version(session), "bob", response)
    assert till.kept() == ["ann"]
    till.sign_all(session, "bob", "cem")
    till.settle_cold()


def test_a_malleated_signature_is_refused(till: ColdTill) -> None:
    """The other root of the same equation: valid to old rules, and another transaction id to nobody, but not low-s."""
    _, session = till.asked()
    [file] = till.signed_by(session, "ann")
    pubkey, signature = signature_in(file)
    high = _high_s(signature[:-1])
    assert high != signature[:-1]
    for twisted in (high + b"\x01", signature[:-1] + b"\x02", signature[:-1] + b"\x81", signature[:-1], b""):
        taken = till.bring(with_signature(file, pubkey, twisted))
        assert (taken.kept, len(taken.refused)) == ((), 1)
    assert till.kept() == []
    till.sign_all(session)
    till.settle_cold()


def _high_s(der: bytes) -> bytes:
    """The same signature with the other s."""
    length = der[3]
    r, s = der[4 : 4 + length], int.from_bytes(der[6 + length :], "big")
    other = (_ORDER - s).to_bytes(33, "big").lstrip(b"\x00")
    other = b"\x00" + other if other[0] & 0x80 else other
    body = b"\x02" + bytes([len(r)]) + r + b"\x02" + bytes([len(other)]) + other
    return b"\x30" + bytes([len(body)]) + body


def test_fault_46_a_request_of_another_network_or_a_file_of_nothing_is_not_ours(till: ColdTill) -> None:
    _, session = till.asked()
    before = till.contents()
    other = EmbitTransaction(vin=PSBT.parse(till.export(session, "ann")).tx.vin, vout=[])
    for raw in (b"", b"psbt\xff", b"\x00" * 64, b"{}", b"not a file", base64.b64encode(b"psbt\xff\x00")):
        with pytest.raises(InvalidValue):
            till.bring(raw)
    with pytest.raises((InvalidValue, NotOurs)):
        till.bring(bytes(PSBT(other).serialize()))
    nothing_kept(till, before)


def test_a_request_with_payments_leaves_with_a_verifiers_word_only(till: ColdTill) -> None:
    _, session = till.asked()
    till.verifier.refuses = "the ledger says otherwise"
    with pytest.raises(Refused):
        till.export(session, "ann")
    till.verifier.refuses, till.verifier.away = None, True
    with pytest.raises(SignerUnavailable):
        till.export(session, "ann")
    assert till.query("SELECT 1 FROM session_members") == []
    till.verifier.away = False
    till.execute("INSERT INTO halts (scope, reason) VALUES ('all', 'test')")
    with pytest.raises(NotHandedOut, match="halted"):
        till.export(session, "ann")
    till.lift_halt()
    till.execute("UPDATE customers SET state = 'frozen', reason = 'test' WHERE id = 'alice'")
    with pytest.raises(NotHandedOut, match="is frozen"):
        till.export(session, "ann")
    till.execute("UPDATE customers SET state = 'active', reason = '' WHERE id = 'alice'")
    with pytest.raises(NotAMember):
        till.export(session, "mallory")
    assert till.query("SELECT 1 FROM session_members") == []
    till.sign_all(session)
    till.settle_cold()


def test_killed_between_the_record_and_the_file_the_holder_counts_and_gets_it_again(till: ColdTill) -> None:
    paid, session = till.asked()
    ready = handing.prepare(till.db, till.cold_site, session.id, ["ann"], [till.verifier])
    with till.db.transaction() as tx:
        handing.hand_out(tx, till.cold_site, ready, now=till.world.now)
    # Here the process dies: nobody knows whether the file was written.
    till.expire_sessions()
    assert till.withdrawal(paid.id).state == "signing"
    second = till.rebuild(session)
    assert till.export(second, "ann") == till.export(second, "ann")
    till.sign_all(second)
    till.settle_cold()
    assert till.paid_to(paid.destination) == LARGE_SATS


def test_killed_between_the_last_signature_and_completion_workers_complete_it(
    till: ColdTill, monkeypatch: pytest.MonkeyPatch
) -> None:
    paid, session = till.asked()
    files = till.signed_by(session, "ann", "bob", "cem")
    with monkeypatch.context() as patched:

        def dies(*_: object) -> bool:
            raise KeyboardInterrupt

        patched.setattr(sessions, "_complete", dies)
        for file in files:
            with pytest.raises(KeyboardInterrupt):
                till.bring(file)
    assert (till.kept(), till.session_states()) == (["ann", "bob", "cem"], ["collecting"])
    # Its time is over, too: what is signed by enough is complete all the same.
    till.execute("UPDATE signing_sessions SET expires_at = now() - interval '1 second'")
    assert till.collect_cold() == [session.transaction_id]
    assert till.collect_cold() == []
    till.settle_cold()
    assert till.withdrawal(paid.id).state == "settled"


def test_two_workers_import_the_same_and_different_files_at_once(till: ColdTill) -> None:
    paid, session = till.asked()
    files = till.signed_by(session, "ann", "bob", "cem", "dag")
    both = [*files, together(*files[:2]), *files]
    with ThreadPoolExecutor(4) as workers:
        taken = list(workers.map(till.bring, both))
    assert not any(each.refused for each in taken)
    assert till.kept() == ["ann", "bob", "cem", "dag"]
    assert till.session_states() == ["complete"]
    till.settle_cold()
    assert till.paid_to(paid.destination) == LARGE_SATS


def test_what_the_node_refuses_is_told_and_nothing_is_lost(till: ColdTill) -> None:
    """`testmempoolaccept` before anything is out."""
    paid, session = till.asked()
    files = till.signed_by(session, "ann", "bob", "cem")
    till.bitcoind.rpc("prioritisetransaction", till.version(session).content, 0, -1_000_000)
    assert [till.bring(file).objection is None for file in files] == [True, True, False]
    assert till.session_states() == ["complete"]
    till.broadcast_cold()
    assert "transaction.not_relayed" in till.alerts()
    assert till.version(session).content not in till.mempool()
    till.bitcoind.rpc("prioritisetransaction", till.version(session).content, 0, 1_000_000)
    assert till.bring(files[0]).objection is None
    till.settle_cold()
    assert till.withdrawal(paid.id).state == "settled"
    assert "transaction.not_relayed" not in till.alerts()
