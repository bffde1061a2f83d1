"""A provider that is asked over HTTP.

It gets `POST` with `{"kind": "destination", "chain", "address"}` or `{"kind": "deposit", "chain", "address", "txid",
"output", "sources"}`, and nothing about customers or amounts. It answers 200 with
`{"verdict": "clear" | "hit", "version", "reason", "source"}`: `version` says by which state of its data, and `reason`
(of a hit) should be the same for as long as it means the same.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Annotated, Any, Final, Literal

import httpx
import msgspec

from custody.screening.model import Finding, Subject, Word, normal
from custody.screening.ports import ScreeningUnavailable

MAX_ANSWER_BYTES: Final = 16 * 1024
MAX_KEPT: Final = 50_000
"""Answers that are remembered at most."""
AT_ONCE: Final = 8
REST_SECONDS: Final = 5
"""After a failure nothing is asked for so long: thousands of deposits must not wait for one time-out each."""
_HEADERS: Final = {
    "content-type": "application/json",
    "accept": "application/json",
    "accept-encoding": "identity",
}
_MAX_TOKEN_BYTES: Final = 8 * 1024

_Text = Annotated[str, msgspec.Meta(max_length=300)]


class _Answer(msgspec.Struct, frozen=True):
    verdict: Literal["clear", "hit"]
    version: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    reason: _Text = ""
    source: _Text = ""


class HttpProvider:
    """One provider. Safe to be shared by threads; connects when it is first asked.

    Args:
        name: in records.
        url: where questions are posted; redirects are not followed.
        token_path: a file with the token for `Authorization: Bearer`, read for each question.
        ca_path: certificates (PEM) to trust; None: the system's.
        timeout_seconds: for a question as a whole, from connecting to the last byte.
        clear_seconds: how long `clear` is remembered.
        hit_seconds: how long a hit is.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        name: str,
        url: str,
        *,
        token_path: Path | None = None,
        ca_path: Path | None = None,
        timeout_seconds: int = 5,
        clear_seconds: int = 900,
        hit_seconds: int = 300,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._name, self._url, self._token_path, self._ca_path = name, url, token_path, ca_path
        self._timeout_seconds, self._clock = timeout_seconds, clock
        self._kept_seconds = {"clear": clear_seconds, "hit": hit_seconds}
        self._kept: OrderedDict[Subject, tuple[float, Word]] = OrderedDict()  # until when, in clock seconds
        self._resting: tuple[float, str] | None = None  # until when, in clock seconds, and why
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._client: httpx.AsyncClient | None = None
        self._turns: asyncio.Semaphore | None = None

    @property
    def name(self) -> str:
        """As configured."""
        return self._name

    def ask(self, subject: Subject) -> Word:
        """What it says, or said not long ago. Raises ScreeningUnavailable."""
        with self._lock:
            until, word = self._kept.get(subject, (0.0, None))
            if word is not None and self._clock() < until:
                return word
            if self._resting is not None and self._clock() < self._resting[0]:
                raise ScreeningUnavailable(self._resting[1])
        try:
            # One loop in one thread for all callers: only so can a question as a whole be given a time.
            loop = self._running()
            answer = asyncio.run_coroutine_threadsafe(self._post(subject), loop).result()
        except ScreeningUnavailable as error:
            with self._lock:
                self._resting = (self._clock() + REST_SECONDS, str(error))
            raise
        word = self._word(subject, answer)
        with self._lock:
            self._resting = None
            self._kept[subject] = (self._clock() + self._kept_seconds[answer.verdict], word)
            self._kept.move_to_end(subject)
            while len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
        return word

    def _word(self, subject: Subject, answer: _Answer) -> Word:
        if answer.verdict == "clear":
            return Word(self._name, answer.version)
        listed = normal(subject.resource or subject.address)
        finding = Finding(self._name, listed, answer.reason, answer.source or self._name, answer.version)
        return Word(self._name, answer.version, (finding,))

    async def _post(self, subject: Subject) -> _Answer:
        assert self._client is not None
        assert self._turns is not None
        try:
            headers = {**_HEADERS, **self._token()}
            async with (
                asyncio.timeout(self._timeout_seconds),
                self._turns,
                self._client.stream(
                    "POST", self._url, content=_question(subject), headers=headers
                ) as response,
            ):
                if response.status_code != 200:
                    raise ScreeningUnavailable(f"it answered with status {response.status_code}")
                body = bytearray()
                async for chunk in response.aiter_raw():
                    body += chunk
                    if len(body) > MAX_ANSWER_BYTES:
                        raise ScreeningUnavailable(f"its answer has more than {MAX_ANSWER_BYTES} bytes")
            return msgspec.json.decode(bytes(body), type=_Answer)
        except TimeoutError:
            raise ScreeningUnavailable(f"no answer within {self._timeout_seconds} s") from None
        except msgspec.MsgspecError:
            raise ScreeningUnavailable("its answer is not one of the expected form") from None
        except (httpx.HTTPError, ssl.SSLError, OSError) as error:
            # Their texts may quote what was received, but hold no token: that is in the request alone.
            raise ScreeningUnavailable(f"{type(error).__name__}: {str(error)[:200]}") from None

    def _token(self) -> dict[str, str]:
        if self._token_path is None:
            return {}
        with self._token_path.open("rb") as file:
            token = file.read(_MAX_TOKEN_BYTES).decode("ascii", "replace").strip()
        if not token or not token.isascii() or not token.isprintable():
            raise ScreeningUnavailable(f"{self._token_path.name} holds no token")
        return {"authorization": f"Bearer {token}"}

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = self._start()
            return self._loop

    def _start(self) -> asyncio.AbstractEventLoop:
        try:
            verify = ssl.create_default_context(cafile=None if self._ca_path is None else str(self._ca_path))
        except OSError as error:
            raise ScreeningUnavailable(f"{self._ca_path}: {error}") from None
        loop, self._turns = asyncio.new_event_loop(), asyncio.Semaphore(AT_ONCE)
        # The environment's proxies would see what is asked.
        self._client = httpx.AsyncClient(
            verify=verify, timeout=None, follow_redirects=False, trust_env=False, max_redirects=0
        )
        self._thread = threading.Thread(target=loop.run_forever, name=f"screening {self._name}", daemon=True)
        self._thread.start()
        return loop

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            loop, client, self._loop, self._client = self._loop, self._client, None, None
        if loop is None or client is None or self._thread is None:
            return
        asyncio.run_coroutine_threadsafe(client.aclose(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join()
        loop.close()


def _question(subject: Subject) -> bytes:
    asked: dict[str, Any] = {"chain": subject.chain, "address": subject.address}
    if subject.txid is None:
        return msgspec.json.encode({"kind": "destination", **asked})
    more = {"txid": subject.txid, "output": subject.resource, "sources": subject.sources}
    return msgspec.json.encode({"kind": "deposit", **asked, **more})
