"""Attacks on approvals: by the people who give them, by whoever holds the database, and by the whole online side.

What the online side does not see through, the signer does: it is asked over its own socket, with evidence that nobody
has looked at before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from psycopg.errors import InsufficientPrivilege

from custody.errors import DatabaseUnavailable
from custody.signing.requests import read_request
from custody.withdrawals.model import Withdrawal
from policies.approvals import MAX_APPROVAL_SECONDS
from policies.bundle import Approver
from policies.intent import Approval, Assertion, SignedApproval
from policies.keys import SigningKey, sign_approval
from policies.passkeys import decode, encode
from policies.rules import Rule
from signers.ports import Refused, Signer, SignRequest
from tests.fakes.approving import TWO, Desk
from tests.fakes.passkey import PRESENT, SoftPasskey, approve_by_passkey
from tests.fakes.signer_server import reached
from tests.fakes.signing import ROLE
from tests.fakes.till import Till
from tests.support.ruling import asked_for


@pytest.fixture
def desk(till: Till) -> Desk:
    found = Desk(till)
    found.adopt(2)
    return found


def test_fault_48_a_self_approved_payment_is_refused_and_so_is_the_initiators_key_under_another_name(
    desk: Desk,
) -> None:
    house = desk.till.house
    twin: Approver = house.approver_entry("ada", id="twin", key=house.caller.public_hex)
    same_name: Approver = house.approver_entry("ben", id="exchange")
    desk.adopt(3, approvers=(twin, same_name, house.approver_entry("cem")))
    withdrawal = desk.request()
    for name, key in (("twin", house.caller), ("exchange", desk.keys["ben"])):
        signed = sign_approval(desk.approval(withdrawal, name), key)
        assert desk.refused(withdrawal, signed) == ["approval-own"]


def test_fault_48_an_approval_replayed_for_another_payment_is_refused(desk: Desk) -> None:
    one, other = desk.request(), desk.request()
    [signed] = desk.approve(one, "ada")
    assert desk.refused(other, signed) == ["approval-stray"]
    forged = msgspec.structs.replace(signed, approval=desk.approval(other))
    assert desk.refused(other, forged) == ["approval-signature"]


def test_fault_48_an_expired_approval_is_refused_and_so_is_one_for_too_long(desk: Desk) -> None:
    withdrawal, now = desk.request(), int(time.time())
    for expires_at, code in (
        (now - 1, "approval-expired"),
        (now + MAX_APPROVAL_SECONDS + 60, "approval-too-long"),
    ):
        signed = sign_approval(desk.approval(withdrawal, expires_at=expires_at), desk.keys["ada"])
        assert desk.refused(withdrawal, signed) == [code]


def test_fault_48_the_signatures_of_a_removed_approver_die_with_him(desk: Desk) -> None:
    withdrawal, house = desk.request(), desk.till.house
    [old] = desk.approve(withdrawal, "ada")
    desk.adopt(3, approvers=(house.approver_entry("ben"), house.approver_entry("cem")))
    desk.till.route()
    assert desk.state(withdrawal) == "awaiting_approval"
    assert desk.question(withdrawal).heard.approved == ()
    approval = desk.approval(withdrawal)
    assert desk.refused(withdrawal, sign_approval(approval, desk.keys["ada"])) == ["approval-unknown"]
    stays = msgspec.structs.replace(old, approval=msgspec.structs.replace(old.approval, policy_version=3))
    assert desk.refused(withdrawal, stays) == ["approval-stray"]


def test_fault_47_a_policy_that_changes_while_approvals_are_collected_asks_for_them_again(desk: Desk) -> None:
    till, withdrawal = desk.till, desk.request()
    desk.approve(withdrawal, "ada")
    till.route()
    desk.adopt(3)
    # An approver who has not heard of it signs under the old version, before and after it is decided again.
    stale = sign_approval(
        msgspec.structs.replace(desk.first_answer(withdrawal), approver="ben"), desk.keys["ben"]
    )
    assert desk.refused(withdrawal, stale) == ["approval-version"]
    till.route()
    assert desk.refused(withdrawal, stale) == ["approval-stray"]
    assert till.withdrawal(withdrawal.id).reason == f"approval: 2 of {ROLE}"
    desk.approve(withdrawal, "ben")
    till.route()
    assert desk.state(withdrawal) == "awaiting_approval"
    desk.approve(withdrawal, "ada")
    till.route()
    desk.pay()
    till.settle()
    assert desk.state(withdrawal) == "settled"


def test_fault_47_what_was_approved_and_waits_in_the_queue_is_decided_and_approved_again(desk: Desk) -> None:
    till, withdrawal = desk.till, desk.request()
    desk.approve(withdrawal, "ada", "ben")
    till.route()
    assert desk.state(withdrawal) == "queued"
    desk.adopt(3, asked_for(tier="hot", group=ROLE, verdict=None, approvals=3))
    assert till.build() is None, "nothing that another policy has let through is built"
    till.route()
    assert (desk.state(withdrawal), till.withdrawal(withdrawal.id).reason) == (
        "awaiting_approval",
        f"approval: 3 of {ROLE}",
    )
    desk.approve(withdrawal, "ada", "ben", "cem")
    till.route()
    desk.pay()


def test_fault_47_a_rejection_still_ends_it_when_the_policy_changes_before_anybody_has_counted(
    desk: Desk,
) -> None:
    withdrawal = desk.request()
    desk.approve(withdrawal, "ada", decision="reject")
    desk.adopt(3)
    desk.till.route()
    assert desk.state(withdrawal) == "rejected"
    assert desk.till.balance("alice") == 5_000_000


def test_fault_47_what_a_new_policy_denies_is_rejected_though_it_was_approved(desk: Desk) -> None:
    till, withdrawal = desk.till, desk.request()
    desk.approve(withdrawal, "ada", "ben")
    till.route()
    desk.adopt(3, TWO, Rule(id="no-more", deny="nothing is paid any more"))
    till.route()
    assert desk.state(withdrawal) == "rejected"
    assert till.balance("alice") == 5_000_000


@pytest.mark.parametrize(
    "sql",
    [
        'UPDATE approvals SET document = replace(document, \'"decision":"reject"\', \'"decision":"approve"\')',
        'UPDATE approvals SET document = replace(document, \'"approver":"ben"\', \'"approver":"cem"\')',
        "UPDATE approvals SET signature = (SELECT signature FROM approvals ORDER BY id LIMIT 1)",
    ],
)
def test_fault_44_an_approval_that_is_edited_in_the_database_counts_for_nothing(desk: Desk, sql: str) -> None:
    till, withdrawal = desk.till, desk.request()
    desk.approve(withdrawal, "ada")
    till.route()
    desk.approve(withdrawal, "ben", decision="reject" if "decision" in sql else "approve")
    till.execute("ALTER TABLE approvals DISABLE TRIGGER approvals_append_only")
    till.execute(sql)
    till.route()
    assert desk.state(withdrawal) == "awaiting_approval"
    assert "approval.tampered" in till.alerts()
    assert len(desk.question(withdrawal).heard.approved) == 1


def test_fault_44_a_payment_that_sql_has_made_approved_is_refused_by_the_signer(desk: Desk) -> None:
    till, withdrawal = desk.till, desk.request()
    desk.approve(withdrawal, "ada")
    till.route()
    for state in ("cooling", "queued"):
        till.execute("UPDATE withdrawals SET state = %s WHERE id = %s", state, withdrawal.id)
    assert till.build() is not None
    assert till.sign() == []
    assert "approvals-missing" in till.withdrawal(withdrawal.id).reason
    # The same with the answer of another person copied, and signed by nobody.
    till.execute(
        "INSERT INTO approvals (digest, withdrawal_id, intent_hash, document, signature)"
        " SELECT repeat('ab', 32), withdrawal_id, intent_hash, replace(document, 'ada', 'ben'), signature"
        " FROM approvals"
    )
    assert till.build() is not None
    assert till.sign() == []


def test_the_api_can_only_add_answers_and_the_worker_none(desk: Desk) -> None:
    withdrawal = desk.request()
    desk.approve(withdrawal, "ada")
    attempts = [
        (desk.till.api, "UPDATE approvals SET document = ''"),
        (desk.till.api, "DELETE FROM approvals"),
        (desk.till.api, "UPDATE withdrawals SET unheard = true"),
        (desk.till.api, "UPDATE withdrawals SET policy_version = 9"),
        (desk.till.db, "INSERT INTO approvals (digest, withdrawal_id) VALUES ('', NULL)"),
        (desk.till.db, "DELETE FROM approvals"),
    ]
    for database, sql in attempts:
        with pytest.raises((InsufficientPrivilege, DatabaseUnavailable)), database.transaction() as tx:
            tx.execute(sql.encode())


# ----------------------------------------------------------------------- the whole online side is somebody else's

SOFT = SoftPasskey()


@pytest.fixture
def signer(desk: Desk, tmp_path: Path) -> Iterator[Signer]:
    """The signer as strangers reach it."""
    with reached(desk.till.service, "unix", tmp_path) as client:
        yield client


@pytest.fixture
def asked(desk: Desk) -> tuple[Withdrawal, SignRequest]:
    """A payment that two treasurers have to approve, one of them by passkey, and what the signer is asked for it."""
    house = desk.till.house
    ada, twin = house.approver_entry("ada", key=SOFT.entry()), house.approver_entry("ben", id="twin")
    twin = msgspec.structs.replace(twin, key=house.caller.public_hex)
    clerk = house.approver_entry("cem", roles=("clerk",))
    desk.adopt(3, TWO, approvers=(ada, house.approver_entry("ben"), clerk, twin))
    withdrawal = desk.request()
    for state in ("cooling", "queued"):
        desk.till.execute("UPDATE withdrawals SET state = %s WHERE id = %s", state, withdrawal.id)
    built = desk.till.build()
    assert built is not None
    return withdrawal, read_request(desk.till.transaction(built).versions[0].request)


def answer(request: SignRequest, name: str = "ada", **changes: Any) -> Approval:
    [intent] = request.intents
    fields: dict[str, Any] = {
        "v": 1,
        "intent": intent.digest_hex(),
        "decision": "approve",
        "approver": name,
        "group": ROLE,
        "policy_version": intent.policy_version,
        "expires_at": int(time.time()) + 3_600,
    }
    return Approval(**(fields | changes))


def shown(request: SignRequest, *approvals: SignedApproval) -> SignRequest:
    evidence = msgspec.structs.replace(request.evidence, approvals=approvals)
    return msgspec.structs.replace(request, evidence=evidence)


def refused(signer: Signer, request: SignRequest) -> set[str]:
    with pytest.raises(Refused) as refusal:
        signer.sign(request)
    return {reason.code for reason in refusal.value.reasons}


def test_fault_48_the_signer_takes_no_approval_that_is_wrong_in_one_thing(
    desk: Desk, signer: Signer, asked: tuple[Withdrawal, SignRequest]
) -> None:
    _, request = asked
    now, keys, house = int(time.time()), desk.keys, desk.till.house
    good = approve_by_passkey(answer(request), SOFT)

    def by_ben(**changes: Any) -> SignedApproval:
        return sign_approval(answer(request, "ben", **changes), keys["ben"])

    cases: list[tuple[str, SignedApproval]] = [
        ("approvals-missing", good),
        ("approval-own", sign_approval(answer(request, "twin"), house.caller)),
        ("approval-group", sign_approval(answer(request, "cem"), keys["cem"])),
        ("approval-unknown", sign_approval(answer(request, "dan"), SigningKey.generate())),
        ("approval-expired", by_ben(expires_at=now - 1)),
        ("approval-too-long", by_ben(expires_at=now + MAX_APPROVAL_SECONDS + 3_600)),
        ("approval-version", by_ben(policy_version=2)),
        ("approval-rejected", by_ben(decision="reject")),
        ("stray-approval", by_ben(intent="ab" * 32)),
        ("approval-signature", sign_approval(answer(request, "ben"), keys["ada"])),
        ("approval-signature", msgspec.structs.replace(good, approval=answer(request, "ben"))),
    ]
    for code, second in cases:
        approvals = (good,) if second is good else (good, second)
        assert code in refused(signer, shown(request, *approvals)), code
    assert "approvals-missing" in refused(signer, shown(request))
    signer.sign(shown(request, good, by_ben()))


def test_no_byte_of_a_passkeys_assertion_can_change_on_its_way_to_the_signer(
    desk: Desk, signer: Signer, asked: tuple[Withdrawal, SignRequest]
) -> None:
    _, request = asked
    good, other = (
        approve_by_passkey(answer(request), SOFT),
        sign_approval(answer(request, "ben"), desk.keys["ben"]),
    )
    assert isinstance(good.signature, Assertion)
    for part in good.signature.__struct_fields__:
        raw = decode(getattr(good.signature, part))
        for position in range(len(raw)):
            changed = bytearray(raw)
            changed[position] ^= 1 << (position % 8)
            forged = msgspec.structs.replace(good.signature, **{part: encode(bytes(changed))})
            signed = msgspec.structs.replace(good, signature=forged)
            assert refused(signer, shown(request, signed, other)) == {"approval-signature"}, (part, position)
    signer.sign(shown(request, good, other))


WRONG: list[Callable[[bytes], Assertion]] = [
    lambda challenge: SOFT.get(challenge, type="webauthn.create"),
    lambda challenge: SOFT.get(bytes(32)),
    lambda challenge: SOFT.get(challenge, origin="https://strongroom.example"),
    lambda challenge: SOFT.get(challenge, crossOrigin=True),
    lambda challenge: SOFT.get(challenge, rp_id="strongroom.example"),
    lambda challenge: SOFT.get(challenge, flags=PRESENT),
    lambda challenge: SOFT.get(challenge, flags=0),
    lambda challenge: SoftPasskey().get(challenge),
]


def test_the_signer_takes_no_assertion_for_another_page_purpose_or_without_a_person(
    desk: Desk, signer: Signer, asked: tuple[Withdrawal, SignRequest]
) -> None:
    _, request = asked
    other = sign_approval(answer(request, "ben"), desk.keys["ben"])
    for make in WRONG:
        approval = answer(request)
        signed = SignedApproval(approval=approval, signature=make(approval.digest()))
        assert refused(signer, shown(request, signed, other)) == {"approval-signature"}


def test_what_was_approved_pays_nobody_else_and_no_other_amount(
    desk: Desk, signer: Signer, asked: tuple[Withdrawal, SignRequest]
) -> None:
    _, request = asked
    approvals = (
        approve_by_passkey(answer(request), SOFT),
        sign_approval(answer(request, "ben"), desk.keys["ben"]),
    )
    desk.till.customer("bob", 5_000_000)
    other = desk.till.request("bob", 2_000_000)
    desk.till.route()
    for state in ("cooling", "queued"):
        desk.till.execute("UPDATE withdrawals SET state = %s WHERE id = %s", state, other.id)
    built = desk.till.build()
    assert built is not None
    another = read_request(desk.till.transaction(built).versions[0].request)
    assert {"stray-approval", "approvals-missing"} <= refused(signer, shown(another, *approvals))
