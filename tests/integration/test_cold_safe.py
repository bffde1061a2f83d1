"""Requests of a Safe whose owners sign offline: JSON leaves, JSON comes back, and what is given up loses its nonce."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from chains.errors import InvalidValue
from chains.eth.address import raw_address
from chains.eth.network import NativeMode
from chains.eth.safe_files import SafeSignature, decode_request, encode_signature
from custody.signing import cancelling
from custody.signing.cold import bringing, handing
from custody.signing.cold.bringing import Taken
from custody.signing.errors import BumpRefused, NotAMember, NotOurs
from custody.signing.evm import safe_cancel
from custody.signing.sessions import repository as sessions
from custody.signing.sessions.model import Session
from ops.devnet.anvil import Anvil
from signers.keys.ecdsa import normalised
from tests.fakes.approving import Desk
from tests.fakes.evm_desk import ETHER
from tests.fakes.safe_till import LARGE, OWNERS, VAULT, SafeOutside, SafeTill
from tests.fakes.teller import opened


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SafeOutside]:
    with Anvil(tmp_path_factory.mktemp("cold-safe")) as node:
        yield SafeOutside(node, NativeMode.TRACE)


@pytest.fixture
def till(database: str, outside: SafeOutside, tmp_path: Path) -> Iterator[SafeTill]:
    with opened(SafeTill(database, outside, tmp_path)) as till:
        till.customer("alice", ETH=30 * ETHER)
        till.fund_safe(ETH=40 * ETHER)
        yield till


def asked(till: SafeTill) -> tuple[Any, Session]:
    desk = Desk(till)  # type: ignore[arg-type]
    withdrawal = desk.request(LARGE["ETH"])
    desk.approve(withdrawal, "ada")
    till.route()
    transaction = till.build_safe()
    assert transaction is not None, till.withdrawal(withdrawal.id).reason
    return withdrawal, session_of(till, transaction)


def session_of(till: SafeTill, transaction: UUID) -> Session:
    with till.admin.snapshot() as tx:
        found = sessions.find(tx, transaction, 1)
    assert found is not None
    return found


def export(till: SafeTill, session: Session, *owners: str, daemons: tuple[str, ...] = ()) -> bytes:
    ready = handing.prepare(till.db, till.safe_site, session.id, owners, [till.verifier], daemons=daemons)
    with till.db.transaction() as tx:
        handing.hand_out(tx, till.safe_site, ready, now=int(time.time()))
    assert ready.kind == "json"
    return ready.file


def signed(till: SafeTill, file: bytes, owner: str, *, says: str | None = None) -> bytes:
    """What an owner's machine writes for a request."""
    keys = till.owners[OWNERS.index(owner)]
    digest = decode_request(file).message.signing_hash
    plain = normalised(keys.signature(digest), keys.pubkey, digest)
    named = till.owners[OWNERS.index(says or owner)].record.address
    parts = (digest, raw_address(named), plain[:64] + bytes([27 + plain[64]]))
    if says is None:
        return encode_signature(SafeSignature(*parts))
    honest = encode_signature(SafeSignature(digest, raw_address(keys.record.address), parts[2]))
    return honest.replace(keys.record.address.encode(), named.encode())


def bring(till: SafeTill, file: bytes) -> Taken:
    return bringing.take(till.db, {VAULT: till.safe_site}, file)


def test_owners_sign_offline_and_the_gas_payer_carries_it_out(till: SafeTill) -> None:
    paid, session = asked(till)
    for owner, state in (("warm-c", "collecting"), ("warm-a", "complete")):
        file = export(till, session, owner)
        assert decode_request(file).expires_at == int(session.expires_at.timestamp())
        taken = bring(till, signed(till, file, owner) + b"\n")
        assert (taken.kept, taken.refused, taken.session.state, taken.objection) == (
            (owner,),
            (),
            state,
            None,
        )
        assert bring(till, signed(till, file, owner)).known == (owner,)
    till.send_execution()
    till.settle()
    assert till.withdrawal(paid.id).state == "settled"
    assert till.has(paid.destination) == LARGE["ETH"]


def test_signatures_of_others_and_for_others_are_refused(till: SafeTill) -> None:
    _, session = asked(till)
    file = export(till, session, "warm-a")
    with pytest.raises(InvalidValue):
        bring(till, signed(till, file, "warm-a", says="warm-b"))
    with pytest.raises(NotAMember, match="asked by itself"):
        export(till, session, "warm-b", daemons=("warm-b",))
    other = decode_request(file).message
    keys = till.owners[0]
    digest = bytes(31) + b"\x01"
    plain = normalised(keys.signature(digest), keys.pubkey, digest)
    stray = SafeSignature(digest, raw_address(keys.record.address), plain[:64] + bytes([27 + plain[64]]))
    with pytest.raises(NotOurs):
        bring(till, encode_signature(stray))
    stranger = till.keys  # the hot key is no owner of the Safe
    plain = normalised(stranger.signature(other.signing_hash), stranger.pubkey, other.signing_hash)
    strange = SafeSignature(
        other.signing_hash, raw_address(stranger.record.address), plain[:64] + bytes([27 + plain[64]])
    )
    taken = bring(till, encode_signature(strange))
    assert taken.kept == ()
    assert "no owner" in taken.refused[0]
    assert till.query("SELECT 1 FROM session_members WHERE response IS NOT NULL") == []


def test_an_abandoned_request_loses_its_nonce_to_the_next_payment(till: SafeTill) -> None:
    first, session = asked(till)
    file = export(till, session, "warm-a", "warm-b")
    late = [signed(till, file, owner) for owner in ("warm-a", "warm-b")]
    outcome = cancelling.abandon(till.db, till.safe_site, session.transaction_id, "the holders are away")
    assert outcome is cancelling.Outcome.HELD
    assert till.withdrawal(first.id).state == "signing"
    second, next_session = asked(till)
    nonces = [
        decode_request(each).message.tx.nonce
        for each in (file, export(till, next_session, "warm-b", "warm-c"))
    ]
    assert nonces[0] == nonces[1]
    for each in late:
        assert not bring(till, each).refused
    assert till.build_execution() is None, "what was given up is carried out by nobody of ours"
    next_file = export(till, next_session, "warm-b", "warm-c")
    for owner in ("warm-b", "warm-c"):
        bring(till, signed(till, next_file, owner))
    till.send_execution()
    till.settle()
    assert (till.withdrawal(first.id).state, till.withdrawal(second.id).state) == ("failed", "settled")
    assert till.has(first.destination) == 0


def test_what_was_never_handed_out_is_free_with_its_nonce(till: SafeTill) -> None:
    first, session = asked(till)
    outcome = cancelling.abandon(till.db, till.safe_site, session.transaction_id, "not wanted")
    assert outcome is cancelling.Outcome.FREE
    assert till.withdrawal(first.id).state == "queued"
    transaction = till.build_safe()
    assert transaction is not None
    again = session_of(till, transaction)
    file = export(till, again, "warm-a", "warm-b")
    for owner in ("warm-a", "warm-b"):
        bring(till, signed(till, file, owner))
    till.send_execution()
    till.settle()
    assert till.withdrawal(first.id).state == "settled"


def test_a_cancellation_is_signed_offline_too_and_frees_the_money_when_it_is_final(till: SafeTill) -> None:
    paid, session = asked(till)
    export(till, session, "warm-a", "warm-b", "warm-c")
    instead = cancelling.cancel(till.db, till.safe_site, session.transaction_id, "not wanted")
    assert till.withdrawal(paid.id).state == "signing"
    file = export(till, session_of(till, instead), "warm-a", "warm-c")
    for owner in ("warm-a", "warm-c"):
        bring(till, signed(till, file, owner))
    till.send_execution()
    till.settle()
    assert till.withdrawal(paid.id).state == "failed"
    assert till.has(till.safe) == 40 * ETHER


def over(till: SafeTill, transaction: UUID) -> None:
    """The time of a request is over."""
    till.execute(
        "UPDATE signing_sessions SET expires_at = now() - interval '1 second' WHERE transaction_id = %s",
        transaction,
    )
    till.collect([])


def again(till: SafeTill, transaction: UUID, *, later: int = 0) -> UUID:
    return safe_cancel.ask_again(till.db, till.safe_site, transaction, now=int(time.time()) + later)


def test_a_request_that_is_over_is_asked_anew_with_its_nonce_and_what_was_signed_counts(
    till: SafeTill,
) -> None:
    paid, session = asked(till)
    export(till, session, "warm-a", "warm-b", "warm-c")
    instead = cancelling.cancel(till.db, till.safe_site, session.transaction_id, "not wanted")
    first = export(till, session_of(till, instead), "warm-a")
    bring(till, signed(till, first, "warm-a"))
    with pytest.raises(BumpRefused, match="open"):
        again(till, instead)
    over(till, instead)
    assert session_of(till, instead).state == "expired"
    with pytest.raises(BumpRefused, match="ask for it anew"):
        cancelling.cancel(till.db, till.safe_site, instead, "another one of it would be the same")
    request = again(till, instead)
    reopened = session_of(till, instead)
    assert (reopened.id, reopened.state) == (request, "collecting")
    assert reopened.expires_at.timestamp() > time.time()
    with pytest.raises(BumpRefused, match="open"):
        again(till, instead)
    second = export(till, reopened, "warm-c")
    assert decode_request(second).message == decode_request(first).message, "it can be carried out once"
    bring(till, signed(till, second, "warm-c"))
    till.send_execution()
    till.settle()
    assert till.withdrawal(paid.id).state == "failed"
    with pytest.raises(BumpRefused):
        again(till, instead)


def test_what_nobody_has_signed_is_open_again_and_an_order_that_is_over_is_not_asked_for(
    till: SafeTill,
) -> None:
    paid, session = asked(till)
    export(till, session, "warm-a")
    over(till, session.transaction_id)
    with pytest.raises(BumpRefused, match="expired"):
        again(till, session.transaction_id, later=paid.signed_order.order.expires_at)
    again(till, session.transaction_id)
    assert session_of(till, session.transaction_id).state == "open"
    file = export(till, session_of(till, session.transaction_id), "warm-a", "warm-b")
    for owner in ("warm-a", "warm-b"):
        bring(till, signed(till, file, owner))
    till.send_execution()
    till.settle()
    assert till.withdrawal(paid.id).state == "settled"
