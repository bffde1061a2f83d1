"""What other operators must approve before it is done: who counts, and what is still missing.

Somebody asks, others approve that very row, and whoever asked repeats it. An approval counts only under the bundle
under which it was asked for, for a day, and by a signature that is checked whenever it is counted. It is used once.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import msgspec

from chains.errors import InvalidValue
from custody.audit import repository
from custody.audit.errors import ActionRefused, NotAnOperator
from custody.audit.model import Attempt, Outcome, Record
from custody.audit.permission import Permission, action_of, authentic, misrepresented
from custody.storage.db import Tx
from policies import approvals as counting
from policies.administration import APPROVE
from policies.approvals import Given, belongs
from policies.bundle import Bundle
from policies.engine import nobody_asked

VALID_SECONDS: Final = 24 * 3600
"""So long may what was asked for be approved and done."""


def needed(permission: Permission) -> bool:
    """Whether it has to be asked for first."""
    return (
        not nobody_asked(permission.approvals) or permission.delay_seconds > 0 or permission.action.others > 0
    )


def lacking_of(tx: Tx, asked: Record | None, permission: Permission, bundle: Bundle, *, now: int) -> str:
    """What is missing, in words; empty if nothing is.

    Args:
        asked: the row in which it was asked for; None: it was not yet.
        now: UNIX seconds.
    """
    believed = asked is not None and _believed(asked)
    given = [] if asked is None or not believed else given_for(tx, asked, bundle, now=now)
    missing = [counting.lacking(permission.approvals, given)]
    persons = {person.id for person, _ in given}
    if len(persons) < permission.action.others:
        missing.append(f"{permission.action.others - len(persons)} of {permission.action.others} others")
    since = now if asked is None or not believed else int(asked.at.timestamp())
    left = since + permission.delay_seconds - now
    if left > 0:
        missing.append(f"{left} s to pass")
    return " and ".join(each for each in missing if each)


def given_for(tx: Tx, asked: Record, bundle: Bundle, *, now: int) -> list[Given]:
    """Approvals of a row that count now, each person's once."""
    found: list[Given] = []
    for row in repository.approvals(tx, asked.number):
        with suppress(NotAnOperator, ActionRefused):
            found.append(_given(row, asked, bundle, now=now))
    return found


def approved(tx: Tx, attempt: Attempt, bundle: Bundle, *, now: int) -> Record:
    """The row that an attempt to approve is about, after all that must hold was checked.

    Raises:
        ActionRefused: there is no such row, or this operator's approval of it does not count.
    """
    number = attempt.parameters.get("number", "")
    asked = repository.find(tx, int(number)) if number.isdecimal() and len(number) < 18 else None
    if asked is None or asked.outcome != Outcome.ASKED or not _believed(asked):
        raise _refused(attempt, f"nothing is asked for in row {number}")
    if asked not in repository.waiting(tx, valid_seconds=VALID_SECONDS):
        raise _refused(attempt, f"what row {number} asks for is done, or was asked for too long ago")
    if asked.bundle_version != bundle.version:
        raise _refused(attempt, f"row {number} was asked for under another bundle: have it asked for again")
    person, _ = _given(attempt, asked, bundle, now=now)
    if any(person == each for each, _ in given_for(tx, asked, bundle, now=now)):
        raise _refused(attempt, f"{person.id} has approved row {number} already")
    return asked


def group_of(person: str, chosen: str | None, bundle: Bundle | None) -> str:
    """For which group of the policy somebody approves.

    Raises:
        InvalidValue: he is in none, or in several and did not say.
    """
    if chosen is not None:
        return chosen
    found = []
    if bundle is not None:
        mine = [each for each in bundle.approvers if each.id == person]
        found = [g.id for g in bundle.policy.groups for each in mine if belongs(each, g.id, bundle.policy)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise InvalidValue(f"{person} is in no group of the policy: only its approvers approve")
    raise InvalidValue(f"{person} is in several groups: give one of {', '.join(found)}")


def _given(row: Attempt | Record, asked: Record, bundle: Bundle, *, now: int) -> Given:
    """Whose approval this is, and for which group. Raises NotAnOperator, ActionRefused."""
    operator = authentic(row, bundle, now=now)
    if not action_of(APPROVE).open_to(operator):
        raise _refused(row, f"{operator.id} has no role that approves anything")
    said: dict[str, str] = msgspec.json.decode(row.parameters_json)
    if (said.get("number"), said.get("hash")) != (str(asked.number), asked.hash):
        raise _refused(row, f"what was approved is not row {asked.number} as it is")
    if operator.id == asked.operator or operator.key == asked.key:
        raise _refused(row, f"{operator.id} has asked for it: nobody approves what is his own")
    group = said.get("group", "")
    approver = next((each for each in bundle.approvers if each.id == operator.id), None)
    if approver is None or now >= approver.not_after or not belongs(approver, group, bundle.policy):
        raise _refused(row, f"{operator.id} is not of the group {group!r} among the bundle's approvers")
    return approver, group


def _believed(asked: Record) -> bool:
    """Whether a row is as it was written, and its operator has signed it."""
    return asked.computed_hash() == asked.hash and misrepresented(asked) is None


def _refused(row: Attempt | Record, why: str) -> ActionRefused:
    return ActionRefused(why, operator=row.operator, action=row.action)
