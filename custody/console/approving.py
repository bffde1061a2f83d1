"""What waits for people, what it does, and their signature.

Nothing that the API says is believed: orders are checked with the callers' keys of the pinned bundle, and shown as they
are read here. What waits for approval has no transaction yet: signers compare its bytes with the very order that is
approved here, and refuse anything else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Final, Literal, Self

import msgspec
import typer

from chains.errors import InvalidValue, PermanentError
from custody.console import passphrase
from custody.console.client import ApiClient
from custody.console.clock import present
from custody.console.passkey_page import sign_with_passkey
from custody.console.pinned import pinned_bundle
from custody.console.reviewing import NotGenuine, Review, group_for, review
from custody.console.reviewing_refills import RefillReview, review_refill
from custody.console.root import uuid_text
from policies.approvals import verify
from policies.bundle import Approver, Bundle, Passkey
from policies.intent import Approval, SignedApproval
from policies.keys import SigningKey, sign_approval

COLUMNS: Final = ("id", "does", "to", "customer", "rules", "lacking", "genuine")


class Unsigned(PermanentError):
    """The person has left it."""


class Asking(Enum):
    """What a person must do before it is signed."""

    THE_WORD = 1
    """Type what is signed."""
    NOTHING = 2


@dataclass(frozen=True, slots=True)
class Answer:
    """What somebody wants to say."""

    decision: Literal["approve", "reject"]
    reason: str
    group: str | None
    """None: the only one that is possible."""
    valid_seconds: int


@dataclass(frozen=True, slots=True)
class ByKey:
    """Signed with a key in a file."""

    path: Path
    passphrase_fd: int | None


@dataclass(frozen=True, slots=True)
class ByPasskey:
    """Signed on a page in the browser."""


Way = ByKey | ByPasskey


def way_of(key: Path | None, passphrase_fd: int | None, how: Literal["key", "passkey"]) -> Way | None:
    """How it is signed; None if nothing was chosen. Raises InvalidValue: both were."""
    if how == "passkey":
        if key is not None:
            raise InvalidValue("give --key FILE or --passkey, not both")
        return ByPasskey()
    return None if key is None else ByKey(key, passphrase_fd)


@dataclass(frozen=True, slots=True)
class Desk:
    """Where one person answers.

    Args:
        client: of the API, which hands questions out and answers in.
        bundle: pinned and verified here.
    """

    client: ApiClient
    bundle: Bundle

    @classmethod
    def open(cls, client: ApiClient, bundle: Path, trust_root: Path) -> Self:
        """With the bundle of a file. Raises InvalidValue, UntrustedBundle."""
        return cls(client, pinned_bundle(bundle, trust_root, now=int(present())))

    def waiting(self) -> list[dict[str, Any]]:
        """All that waits, as it really is; what is not genuine says so."""
        return [self._row(each) for each in self.client.items("/v1/approvals", {"state": "pending"})]

    def _row(self, question: Mapping[str, Any]) -> dict[str, Any]:
        refill = question.get("refill") is not None
        id = question.get("refill" if refill else "withdrawal")
        row: dict[str, Any] = {"id": plain(str(id))[:64], "does": "refill" if refill else "withdrawal"}
        try:
            found = self._review(question)
        except NotGenuine as error:
            return {**row, "genuine": f"NO, sign nothing: {plain(str(error))}"}
        intent, lines = found.intent, dict(found.lines(self.bundle))
        return {
            **row,
            "does": f"{'move' if refill else 'pay'} {self.bundle.told(intent.asset, intent.units)}",
            "to": found.target.id if isinstance(found, RefillReview) else intent.destination,
            "customer": found.order.customer if isinstance(found, Review) else "none: it stays ours",
            "rules": lines["rules"],
            "lacking": plain(str(question.get("lacking"))),
            "genuine": "yes",
        }

    def _review(self, question: Mapping[str, Any]) -> Review | RefillReview:
        """What it really does. Raises NotGenuine."""
        now = int(present())
        if question.get("refill") is not None:
            return review_refill(question, self.bundle, now=now)
        return review(question, self.bundle, now=now)

    def answer(
        self, subject: str, approver: str | None, answer: Answer, way: Way | None, asking: Asking
    ) -> dict[str, Any]:
        """Show what a withdrawal or a refill does, sign, and hand it in; returns what the API says to it.

        Raises:
            NotGenuine: it is not what it seems.
            Unsigned: the person has left it.
            InvalidValue: it does not wait, or this person's answer cannot count.
        """
        if approver is None or way is None:
            raise InvalidValue("to answer, name yourself with --approver, and give --key FILE or --passkey")
        now = int(present())
        question = self._question(uuid_text(subject))
        found = self._review(question)
        person = self.bundle.approver(approver)
        document = self._document(found, person, answer, now)
        self._read_out(found, question)
        if asking is Asking.THE_WORD and isinstance(way, ByKey):
            _ask(answer.decision)
        signed = self._signed(document, person, way, found)
        verify(signed, person)
        kind = "refills" if isinstance(found, RefillReview) else "withdrawals"
        return self._hand_in(f"/v1/{kind}/{found.intent.id}/approvals", signed)

    def _question(self, subject: str) -> dict[str, Any]:
        for question in self.client.items("/v1/approvals", {"state": "pending"}):
            if subject in (question.get("withdrawal"), question.get("refill")):
                return question
        raise InvalidValue(f"{subject} does not wait for approval now")

    def _document(self, found: Review | RefillReview, person: Approver, answer: Answer, now: int) -> Approval:
        order = found.order if isinstance(found, Review) else None
        return Approval.from_object(
            {
                "v": 1,
                "intent": found.intent.digest_hex(),
                "decision": answer.decision,
                "approver": person.id,
                "group": group_for(order, found.groups, person, self.bundle, answer.group),
                "policy_version": self.bundle.version,
                "expires_at": now + answer.valid_seconds,
                "reason": answer.reason,
            }
        )

    def _read_out(self, found: Review | RefillReview, question: Mapping[str, Any]) -> None:
        """On stderr: what becomes of the answer is on stdout."""
        lines = [*found.lines(self.bundle), ("it says", f"{question.get('lacking')} (the service's word)")]
        width = max(len(name) for name, _ in lines)
        for name, text in lines:
            typer.echo(f"{name:<{width}}  {plain(text)}", err=True)

    def _signed(
        self, document: Approval, person: Approver, way: Way, found: Review | RefillReview
    ) -> SignedApproval:
        if isinstance(way, ByKey):
            key = SigningKey.load(way.path, passphrase.present(way.passphrase_fd))
            return sign_approval(document, key)
        if not isinstance(person.key, Passkey):
            raise InvalidValue(f"the bundle has a key of {person.id}, no passkey: give --key FILE")
        lines = list(found.lines(self.bundle))
        if document.reason:
            lines.append(("reason", document.reason))
        assertion = sign_with_passkey(
            person.key,
            document.digest(),
            title=f"{document.decision.capitalize()} as {person.id}, for {document.group}",
            lines=lines,
            tell=lambda url: typer.echo(f"Open this page in your browser:\n  {url}", err=True),
        )
        return SignedApproval(approval=document, signature=assertion)

    def _hand_in(self, path: str, signed: SignedApproval) -> dict[str, Any]:
        # The same answer again has the same key: a retry after no answer changes nothing.
        return self.client.post(
            path,
            msgspec.to_builtins(signed),
            idempotency_key=f"approval-{signed.approval.digest_hex()}",
        )


def plain(text: str) -> str:
    """Text without what could write elsewhere on a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _ask(decision: str) -> None:
    said = typer.prompt(f"Type {decision} to sign, anything else to leave it", err=True, default="")
    if said.strip() != decision:
        raise Unsigned("nothing was signed")
