"""One authenticated request, and the two things it can do: read, or write once.

A token's nonce is spent in the database, by its first use, whatever the answer. For a write that is the very
transaction of its effect: one commit a request, and after a crash either both are there or neither. For a
read it is a commit of its own that does not wait for the disk: a crash can at worst let a read be read again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any, Final, TypeVar

import rfc8785
from pydantic import BaseModel
from starlette.background import BackgroundTask
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from chains.errors import StrongroomError
from custody.api import repository
from custody.api.errors import OperatorsOnly
from custody.api.problems import describe
from custody.api.services import ApiServices
from custody.ports import Step
from custody.storage.db import Tx
from custody.web.errors import (
    FieldError,
    IdempotencyKeyMissing,
    IdempotencyKeyReused,
    InvalidRequest,
    MissingScope,
)
from custody.web.problems import MEDIA_TYPE as PROBLEM_TYPE
from policies import administration
from policies.bundle import Bundle, Caller, Operator
from policies.token import Request, Token, TokenReplayed

P = TypeVar("P")

REPLAYED: Final = "Idempotency-Replayed"
"""Header of every answer to a POST: `true` if it was given before."""

_KEY: Final = re.compile(r"[\x21-\x7e]{1,128}")


class Scope(StrEnum):
    """What a caller of the bundle may do."""

    CUSTOMERS_WRITE = "customers:write"
    CUSTOMERS_READ = "customers:read"
    ADDRESSES_WRITE = "addresses:write"
    DEPOSITS_READ = "deposits:read"
    WITHDRAWALS_WRITE = "withdrawals:write"
    WITHDRAWALS_READ = "withdrawals:read"
    WITHDRAWALS_SIGN = "withdrawals:sign"
    """Its key may sign orders; checked by the signer too."""
    APPROVALS_READ = "approvals:read"
    APPROVALS_GIVE = "approvals:give"
    """May hand in what approvers have signed."""
    STATEMENTS_GIVE = "statements:give"
    """May hand in what officers have signed."""
    WHITELIST_WRITE = "whitelist:write"
    """May ask for entries of whitelists, and remove them; to confirm one its key must be able to sign orders."""
    WHITELIST_READ = "whitelist:read"
    LEDGER_READ = "ledger:read"
    TRADING = "trading"
    """May settle trades and move customers' money between funding and trading: for the trading core only."""
    EVENTS_READ = "events:read"
    CASES_READ = administration.CASES_READ
    ACTIONS_READ = administration.ACTIONS_READ
    OPERATOR = administration.OPERATOR
    """Every operator has this one; for what they do, roles count."""


class _Nonce(Enum):
    """Whether this request has spent its token's nonce already."""

    TO_BE_SPENT = 1
    SPENT = 2


@dataclass(frozen=True, slots=True, repr=False)
class Call:
    """An authenticated request. `repr` shows no body and no token."""

    services: ApiServices
    bundle: Bundle
    """In force when the request arrived: one request sees one bundle."""
    caller: Caller
    token: Token
    request: Request
    document: dict[str, Any] | None
    """The decoded body, None if there is none."""
    idempotency_key: str | None
    now: int
    """UNIX seconds."""
    operator: Operator | None
    """Who asks, if that is no program but an operator; then `caller` stands for what he may read."""
    origin: str
    """Network address that it comes from."""
    signature: str
    """Of the token, base64."""

    def __repr__(self) -> str:
        return f"Call({self.caller.id!r}, {self.request.method} {self.request.path})"

    @contextmanager
    def reading(self) -> Iterator[Tx]:
        """Spend the nonce, then read from one snapshot.

        Raises:
            TokenReplayed: the nonce was used before.
        """
        self._spend_nonce()
        with self.services.database.snapshot() as tx:
            yield tx

    def write(self, status: int, effect: Callable[[Tx], BaseModel]) -> Response:
        """Run `effect` once for this idempotency key, in the transaction that remembers the answer.

        Args:
            status: of the answer when `effect` returns.
            effect: changes the database through the transaction it gets, and returns the answer's body.

        Returns:
            The new answer, or the one given before under the same key to the same request.

        Raises:
            StrongroomError: what `effect` raised, where the answer is none that is remembered.
            TokenReplayed, IdempotencyKeyMissing, IdempotencyKeyReused: nothing was done.
        """
        key, fingerprint = self._checked_key(), self._fingerprint()
        try:
            return self._once(key, fingerprint, status, effect, _Nonce.TO_BE_SPENT)
        except TokenReplayed:
            raise
        except StrongroomError as error:
            return self._refuse(key, fingerprint, error, _Nonce.TO_BE_SPENT)

    def put(self, effect: Callable[[Tx], BaseModel]) -> Response:
        """Run an `effect` that changes nothing the second time, in the transaction that spends the nonce.

        Nothing of request or answer is kept, not even a hash: for personal data.

        Raises:
            StrongroomError: what `effect` raised; nothing but the nonce is spent.
            TokenReplayed: the nonce was used before.
        """
        try:
            with self.services.database.transaction() as tx:
                if not repository.spend_nonce(tx, self.caller.id, self.token.nonce, self.token.expires_at):
                    raise TokenReplayed("this token's nonce was used before")
                body = effect(tx).model_dump_json()
        except TokenReplayed:
            raise
        except StrongroomError as error:
            if not error.transient:
                self._spend_nonce()
            raise
        return Response(body, 200, media_type="application/json")

    def write_after(
        self, status: int, prepare: Callable[[], P], effect: Callable[[Tx, P], BaseModel]
    ) -> Response:
        """As `write`, where `effect` needs something that takes a call to another process.

        `prepare` runs outside of any transaction, when the nonce is spent and nothing is remembered yet; what
        it does may be left behind when the same request comes twice at once. `effect` still happens once.

        Raises:
            StrongroomError: what `prepare` or `effect` raised, as in `write`.
        """
        key, fingerprint = self._checked_key(), self._fingerprint()
        try:
            with self.services.database.transaction() as tx:
                answer = self._begin(tx, key, fingerprint, _Nonce.TO_BE_SPENT)
        except IdempotencyKeyReused:
            self._spend_nonce()
            raise
        if answer is not None:
            return _response(answer, replayed="true")
        try:
            prepared = prepare()
            return self._once(key, fingerprint, status, lambda tx: effect(tx, prepared), _Nonce.SPENT)
        except StrongroomError as error:
            return self._refuse(key, fingerprint, error, _Nonce.SPENT)

    def ring(self, step: Step, answer: Response) -> Response:
        """Have the workers woken for `step` once `answer` is sent: no caller waits for the bell."""
        if answer.status_code < 400:
            answer.background = BackgroundTask(self.services.wake, step)
        return answer

    def _once(
        self, key: str, fingerprint: bytes, status: int, effect: Callable[[Tx], BaseModel], nonce: _Nonce
    ) -> Response:
        with self.services.database.transaction() as tx:
            answer = self._begin(tx, key, fingerprint, nonce)
            if answer is not None:
                return _response(answer, replayed="true")
            answer = repository.StoredAnswer(fingerprint, status, effect(tx).model_dump_json())
            repository.store_answer(tx, self.caller.id, key, answer)
        return _response(answer, replayed="false")

    def _refuse(self, key: str, fingerprint: bytes, error: StrongroomError, nonce: _Nonce) -> Response:
        """All that was done is undone. What remains to be kept: the nonce, and a decision if it is one."""
        problem = describe(error, self.bundle)
        if not problem.decided or isinstance(error, IdempotencyKeyReused):
            if nonce is _Nonce.TO_BE_SPENT and problem.status < 500:
                self._spend_nonce()
            raise error
        refusal = repository.StoredAnswer(fingerprint, problem.status, problem.body())
        with self.services.database.transaction() as tx:
            answer = self._begin(tx, key, fingerprint, nonce)
            if answer is None:
                repository.store_answer(tx, self.caller.id, key, refusal)
        return _response(answer or refusal, replayed="false" if answer is None else "true")

    def _begin(self, tx: Tx, key: str, fingerprint: bytes, nonce: _Nonce) -> repository.StoredAnswer | None:
        if nonce is _Nonce.SPENT:
            repository.lock_key(tx, self.caller.id, key)
            answer = repository.stored_answer(tx, self.caller.id, key)
        else:
            fresh, answer = repository.begin(tx, self.caller.id, self.token.nonce, self.token.expires_at, key)
            if not fresh:
                raise TokenReplayed("this token's nonce was used before")
        if answer is not None and answer.request_hash != fingerprint:
            raise IdempotencyKeyReused(
                "this Idempotency-Key came before with another request: "
                "repeat that request unchanged, or use a new key for this one"
            )
        return answer

    def _spend_nonce(self) -> None:
        with self.services.database.transaction() as tx:
            repository.commit_without_waiting(tx)
            if not repository.spend_nonce(tx, self.caller.id, self.token.nonce, self.token.expires_at):
                raise TokenReplayed("this token's nonce was used before")

    def _checked_key(self) -> str:
        key = self.idempotency_key
        if key is None or not _KEY.fullmatch(key):
            raise IdempotencyKeyMissing(
                "every POST needs the header Idempotency-Key: 1 to 128 printable characters, e.g. a new UUID"
            )
        return key

    def _fingerprint(self) -> bytes:
        # Over the canonical body: a client that writes the same object with other blanks repeats itself.
        body = b"" if self.document is None else rfc8785.dumps(self.document)
        head = f"{self.request.method}\n{self.request.path}\n{self.request.query}\n"
        return hashlib.sha256(head.encode() + body).digest()


def caller_of(who: Caller | Operator) -> Caller:
    """Who asks, as a caller; an operator may read what his roles read, and asks for no payments."""
    if isinstance(who, Caller):
        return who
    return Caller(
        id=who.id,
        key=who.key,
        organisation=who.organisation,
        scopes=administration.scopes_of(who),
        not_after=who.not_after,
    )


def _response(answer: repository.StoredAnswer, *, replayed: str) -> Response:
    media_type = PROBLEM_TYPE if answer.status >= 400 else "application/json"
    return Response(answer.body, answer.status, {REPLAYED: replayed}, media_type)


def needs(scope: Scope) -> Callable[[HttpRequest], Any]:
    """The dependency of a route: its `Call`, if the caller has `scope` and every query parameter is known."""

    async def check(request: HttpRequest) -> Call:
        call: Call = request.state.call
        if scope in administration.OPERATORS_ONLY and call.operator is None:
            raise OperatorsOnly(call.caller.id)
        if scope not in call.caller.scopes:
            raise MissingScope(call.caller.id, scope)
        known = {parameter.alias for parameter in request.scope["route"].dependant.query_params}
        given = [name for name, _ in request.query_params.multi_items()]
        wrong = [
            FieldError(f"query.{name[:64]}", "there is no such parameter")
            for name in given
            if name not in known
        ]
        wrong += [FieldError(f"query.{name}", "given twice") for name in known if given.count(name) > 1]
        if wrong:
            raise InvalidRequest(wrong)
        return call

    check.__annotations__["return"] = Call
    check.scope = scope  # type: ignore[attr-defined]  # for the OpenAPI document and the tests
    return check
