"""Actions of operators through the API: the token is what the operator has signed, and each leaves a record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NoReturn

from pydantic import BaseModel
from starlette.responses import Response

from chains.errors import StrongroomError
from custody.api import repository
from custody.api.calls import Call
from custody.api.errors import AddressNotAllowed
from custody.audit import repository as record
from custody.audit import service
from custody.audit.model import Attempt, Outcome, Via
from custody.storage.db import Tx


def write(
    call: Call, action: str, parameters: Mapping[str, str], status: int, effect: Callable[[Tx], BaseModel]
) -> Response:
    """Do an operator's action once for its idempotency key, and record it, or why it was not done.

    Args:
        call: of an operator.
        action: of `policies.administration.ACTIONS`.
        parameters: what rules and readers of the record see; nothing secret, no personal data.
        status: of a good answer.
        effect: does it; its transaction has the record as well.

    Raises:
        StrongroomError: what was wrong, when it is no decision to be remembered under the key.
    """
    attempt = _attempt(call, action, parameters)
    failed: list[StrongroomError] = []

    def recorded(tx: Tx) -> BaseModel:
        try:
            return service.perform_in(tx, attempt, call.bundle, effect, now=call.now)
        except StrongroomError as error:
            failed.append(error)
            raise

    try:
        answer = call.write(status, recorded)
    except StrongroomError as error:
        if error in failed:
            raise service.recorded(call.services.database, attempt, call.bundle, error) from None
        raise
    if failed:
        service.recorded(call.services.database, attempt, call.bundle, failed[-1])
    return answer


def keep_out(call: Call) -> NoReturn:
    """Refuse an operator who comes from elsewhere: recorded, and his token is spent.

    Raises:
        AddressNotAllowed: always.
    """
    attempt = _attempt(call, "", {"method": call.request.method, "path": call.request.path[:500]})
    error = AddressNotAllowed(attempt.operator, call.origin)
    with call.services.database.transaction() as tx:
        repository.spend_nonce(tx, call.caller.id, call.token.nonce, call.token.expires_at)
        record.insert(tx, attempt, Outcome.REFUSED, reason=str(error), bundle_version=call.bundle.version)
    raise error


def _attempt(call: Call, action: str, parameters: Mapping[str, str]) -> Attempt:
    return Attempt(
        operator=call.caller.id,
        key=call.caller.key,
        via=Via.API,
        origin=call.origin,
        action=action,
        parameters=parameters,
        document=call.token.canonical().decode(),
        signature=call.signature,
    )
