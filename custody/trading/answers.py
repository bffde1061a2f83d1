"""Answers to POSTs by their Idempotency-Key, in memory: the same request again gets the same answer, another one 409.

They are forgotten when the process ends. Then an order's client id, a transfer's id and a cancel's meaning still
make sure that nothing happens twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import msgspec
from starlette.responses import Response

from chains.errors import StrongroomError
from custody.trading.problems import describe
from custody.web.errors import IdempotencyKeyMissing, IdempotencyKeyReused
from custody.web.problems import MEDIA_TYPE as PROBLEM_TYPE

KEPT: Final = 100_000
REPLAYED: Final = "Idempotency-Replayed"
_KEY: Final = re.compile(r"[\x21-\x7e]{1,128}")
_Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes

    def response(self, replayed: str) -> Response:
        media_type = PROBLEM_TYPE if self.status >= 400 else "application/json"
        return Response(self.body, self.status, {REPLAYED: replayed}, media_type)


class Answers:
    """Remembers the last `KEPT` answers of all callers."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str], tuple[bytes, asyncio.Future[_Answer]]] = OrderedDict()

    async def once(
        self,
        caller: str,
        key: str | None,
        request: bytes,
        status: int,
        effect: Callable[[], Awaitable[_Json]],
    ) -> Response:
        """Run `effect` once for this caller and key.

        Args:
            caller: who asks.
            key: the header, if there was one.
            request: what identifies the request: method, path, body.
            status: of the answer when `effect` returns.
            effect: does it, and returns the answer's body.

        Raises:
            IdempotencyKeyMissing: there is no usable key.
            IdempotencyKeyReused: it came before with another request.
            StrongroomError: what `effect` raised, where that is no decision to be remembered.
        """
        if key is None or not _KEY.fullmatch(key):
            raise IdempotencyKeyMissing(
                "every POST needs the header Idempotency-Key: 1 to 128 printable characters, e.g. a new UUID"
            )
        fingerprint = hashlib.sha256(request).digest()
        known = self._known.get((caller, key))
        if known is not None:
            if known[0] != fingerprint:
                raise IdempotencyKeyReused(
                    "this Idempotency-Key came before with another request: "
                    "repeat that request unchanged, or use a new key for this one"
                )
            return (await asyncio.shield(known[1])).response("true")
        coming: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        self._known[caller, key] = fingerprint, coming
        if len(self._known) > KEPT:
            self._known.popitem(last=False)
        try:
            answer = _Answer(status, msgspec.json.encode(await effect()))
        except BaseException as error:
            problem = describe(error) if isinstance(error, StrongroomError) else None
            if problem is None or not problem.decided:
                self._known.pop((caller, key), None)
                if isinstance(error, StrongroomError):
                    coming.set_exception(error)
                    coming.exception()  # looked at: nobody else may be waiting
                else:
                    coming.cancel()
                raise
            answer = _Answer(problem.status, problem.body().encode())
        coming.set_result(answer)
        return answer.response("false")
