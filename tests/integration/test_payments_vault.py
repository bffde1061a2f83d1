"""Warm payments on Bitcoin: two of three members sign, each by its own judgement; what crashes, refuses or lies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest

from chains.btc.psbt import InvalidSignature
from custody.signing.sessions import service as sessions
from ops.devnet.bitcoind import Bitcoind
from signers.ports import Reason, Refused, SignerUnavailable, SignRequest, SignResponse
from tests.fakes.approving import Desk
from tests.fakes.teller import opened
from tests.fakes.vault_till import LARGE_SATS, VAULT, VaultTill


@pytest.fixture
def till(database: str, bitcoind: Bitcoind, tmp_path: Path) -> Iterator[VaultTill]:
    with opened(VaultTill(database, bitcoind, tmp_path)) as till:
        till.customer("alice", 60_000_000)
        till.fund_vault(80_000_000)
        yield till


class Member:
    """A member's signer, as the test wants it to answer."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.away = False
        self.loses_answers = False
        self.refuses = ""
        self.asked = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def sign(self, request: SignRequest) -> SignResponse:
        self.asked += 1
        if self.away:
            raise SignerUnavailable("away")
        if self.refuses:
            raise Refused((Reason(code=self.refuses, detail="as the test wants it"),))
        response: SignResponse = self.inner.sign(request)
        if self.loses_answers:
            raise SignerUnavailable("it has signed, and the line broke")
        return response


def watched(till: VaultTill) -> dict[str, Member]:
    found = {name: Member(signer) for name, signer in till.members.items()}
    till.members = dict(found)
    return found


def approved(till: VaultTill, units: int = LARGE_SATS, **changes: Any) -> Any:
    """A large withdrawal that two people have approved, and the transaction that is to pay it."""
    desk = Desk(till)
    withdrawal = desk.request(units, **changes)
    desk.approve(withdrawal, "ada", "ben")
    till.route()
    return withdrawal


def built(till: VaultTill, units: int = LARGE_SATS, **changes: Any) -> tuple[Any, UUID]:
    withdrawal = approved(till, units, **changes)
    transaction = till.build_vault()
    assert transaction is not None, till.withdrawal(withdrawal.id).reason
    return withdrawal, transaction


def signed_by(till: VaultTill) -> list[str]:
    rows = till.query("SELECT member FROM session_members WHERE response IS NOT NULL ORDER BY member")
    return [row["member"] for row in rows]


def session_states(till: VaultTill) -> list[str]:
    return [row["state"] for row in till.query("SELECT state FROM signing_sessions ORDER BY created_at, id")]


def settle(till: VaultTill) -> None:
    till.broadcast_vault()
    till.mine(6)
    till.track()


def test_a_large_payment_is_paid_from_the_vault_by_two_of_its_three_members(till: VaultTill) -> None:
    members = watched(till)
    paid = approved(till)
    assert till.withdrawal(paid.id).tier == "warm"
    assert till.build() is None  # the hot wallet has the money too, and does not pay it
    transaction = till.build_vault()
    assert transaction is not None
    assert till.collect() == [transaction]
    assert [each.asked for each in members.values()] == [1, 1, 0]  # no more signatures than it takes
    settle(till)
    assert till.withdrawal(paid.id).state == "settled"
    assert till.paid_to(paid.destination) == LARGE_SATS
    assert session_states(till) == ["complete"]
    version = till.transaction(transaction).versions[0]
    assert -till.balance_of(VAULT) == 80_000_000 - LARGE_SATS - version.fee_units


def test_collecting_again_changes_nothing(till: VaultTill) -> None:
    members = watched(till)
    _, transaction = built(till)
    assert till.collect(["c0"]) == []
    before = till.contents()
    assert till.collect(["c0"]) == []
    assert till.contents() == before
    assert members["c0"].asked == 1
    assert till.collect() == [transaction]
    assert till.collect() == []
    settle(till)


def test_a_member_whose_answer_was_lost_gives_the_same_signatures_again(till: VaultTill) -> None:
    members = watched(till)
    _, transaction = built(till)
    members["c0"].loses_answers = True
    with pytest.raises(SignerUnavailable):
        till.collect(["c0"])
    assert (signed_by(till), session_states(till)) == ([], ["open"])
    members["c0"].loses_answers = False
    assert till.collect(["c0", "c1"]) == [transaction]
    assert signed_by(till) == ["c0", "c1"]
    settle(till)


def test_with_one_member_away_the_other_two_sign(till: VaultTill) -> None:
    members = watched(till)
    members["c0"].away = True
    _, transaction = built(till)
    assert till.collect() == [transaction]
    assert signed_by(till) == ["c1", "c2"]
    settle(till)


def test_one_refusal_does_not_stop_the_others_and_two_free_the_withdrawal(till: VaultTill) -> None:
    members = watched(till)
    members["c0"].refuses = members["c1"].refuses = "window-cap"
    first, _ = built(till)
    members["c2"].away = True
    with pytest.raises(SignerUnavailable):
        till.collect()  # the third was asked, and may have signed: nothing is free yet
    assert till.withdrawal(first.id).state == "signing"
    members["c2"].away, members["c2"].refuses = False, "window-cap"
    till.pace_members()
    assert till.collect() == []
    assert till.withdrawal(first.id).state == "queued"
    assert session_states(till) == ["refused"]
    for member in members.values():
        member.refuses = ""
    again = till.build_vault()
    assert again is not None
    assert till.collect() == [again]
    settle(till)
    assert till.withdrawal(first.id).state == "settled"


def test_who_has_signed_keeps_a_refused_payment_from_being_built_anew(till: VaultTill) -> None:
    members = watched(till)
    first, transaction = built(till)
    assert till.collect(["c0"]) == []
    members["c1"].refuses = members["c2"].refuses = "frozen"
    assert till.collect() == []
    assert (till.withdrawal(first.id).state, session_states(till)) == ("signing", ["collecting"])
    assert till.build_vault() is None
    members["c2"].refuses = ""
    till.pace_members()
    assert till.collect() == [transaction]
    settle(till)


def test_without_a_verdict_nobody_is_asked(till: VaultTill) -> None:
    members = watched(till)
    _, transaction = built(till)
    till.verifier.away = True
    with pytest.raises(SignerUnavailable):
        till.collect()
    till.verifier.away, till.verifier.refuses = False, "the ledger says otherwise"
    assert till.collect() == []
    assert "session.not_covered" in till.alerts()
    assert sum(each.asked for each in members.values()) == 0
    till.verifier.refuses = None
    assert till.collect() == [transaction]
    assert "session.not_covered" not in till.alerts()
    settle(till)


def test_members_judge_approvals_and_verdicts_themselves(till: VaultTill) -> None:
    """What the online side believes is nothing to them."""
    _, transaction = built(till)
    request = till.shown(transaction)
    without = {"approvals": (), "verdicts": ()}
    for field, code in (("approvals", "approvals-missing"), ("verdicts", "no-verdict")):
        evidence = msgspec.structs.replace(request.evidence, **{field: without[field]})
        for member in till.members.values():
            with pytest.raises(Refused) as refused:
                member.sign(msgspec.structs.replace(request, evidence=evidence))
            assert code in {reason.code for reason in refused.value.reasons}
    assert till.collect() == [transaction]
    settle(till)


def test_a_wrong_signature_is_kept_nowhere(till: VaultTill) -> None:
    members = watched(till)
    _, transaction = built(till)
    honest = members["c0"].inner.sign

    def twisted(request: SignRequest) -> SignResponse:
        response = honest(request)
        [one] = response.signatures
        raw = bytearray.fromhex(one.signature)
        raw[40] ^= 1
        return SignResponse(signatures=(msgspec.structs.replace(one, signature=raw.hex()),))

    members["c0"].sign = twisted  # type: ignore[method-assign]
    assert till.collect() == [transaction]
    assert signed_by(till) == ["c1", "c2"]
    assert "signer.wrong_signature" in till.alerts()
    settle(till)


def test_another_members_signature_is_not_ones_own(till: VaultTill) -> None:
    _, transaction = built(till)
    version = till.transaction(transaction).versions[0]
    till.collect(["c0"])
    [row] = till.query("SELECT response FROM session_members WHERE member = 'c0'")
    stolen = msgspec.json.decode(row["response"], type=SignResponse)
    with pytest.raises(InvalidSignature):
        sessions.bring(till.db, till.vault_site, version, "c1", stolen)
    assert signed_by(till) == ["c0"]
    till.collect()
    settle(till)


def test_a_session_ends_with_its_order_and_frees_what_nobody_could_have_signed_together(
    till: VaultTill,
) -> None:
    first, _ = built(till)
    assert till.collect(["c0"]) == []
    till.execute("UPDATE signing_sessions SET expires_at = now() - interval '1 second'")
    assert till.collect() == []
    assert session_states(till) == ["expired"]
    assert (
        till.withdrawal(first.id).state == "queued"
    )  # its order is looked at next, and rejected if it is over


def test_what_two_members_may_have_signed_stays_until_a_conflict_is_final(till: VaultTill) -> None:
    members = watched(till)
    first, transaction = built(till)
    members["c0"].loses_answers = members["c1"].loses_answers = members["c2"].away = True
    with pytest.raises(SignerUnavailable):
        till.collect()
    till.execute("UPDATE signing_sessions SET expires_at = now() - interval '1 second'")
    assert till.collect() == []
    assert (till.withdrawal(first.id).state, session_states(till)) == ("signing", ["expired"])
    assert "session.expired" in till.alerts()
    # Whoever listened has both signatures, and puts them together.
    members["c0"].loses_answers = members["c1"].loses_answers = False
    for name in ("c0", "c1"):
        request = till.shown(transaction)
        sessions.bring(
            till.db,
            till.vault_site,
            till.transaction(transaction).versions[0],
            name,
            members[name].sign(request),
        )
    settle(till)
    assert till.withdrawal(first.id).state == "settled"


def test_killed_after_a_signature_and_before_its_record_the_next_worker_asks_again(till: VaultTill) -> None:
    """FAULTS 1, for a vault: what was signed and not recorded is signed again, the same."""
    members = watched(till)
    _, transaction = built(till)
    request = till.shown(transaction)
    before = members["c0"].inner.sign(request)
    assert till.collect() == [transaction]
    [row] = till.query("SELECT response FROM session_members WHERE member = 'c0'")
    assert msgspec.json.decode(row["response"], type=SignResponse) == before
    settle(till)


def test_fault_6_an_old_version_that_is_mined_after_its_replacement_was_signed_pays_once(
    till: VaultTill,
) -> None:
    first, transaction = built(till)
    assert till.collect() == [transaction]
    till.broadcast_vault()
    till.bump_vault(transaction, 5_000)
    assert till.collect() == [transaction]
    versions = till.transaction(transaction).versions
    assert versions[0].resources <= versions[1].resources
    assert versions[0].signed is not None
    till.mine_with(versions[0].signed.hex())
    till.mine(6)
    till.track()
    assert till.withdrawal(first.id).state == "settled"
    assert till.paid_to(first.destination) == LARGE_SATS
