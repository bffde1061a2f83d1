"""The desk behind a signer's listener: whatever comes in, an answer goes out, and it tells nothing of a bug."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chains.errors import InvalidValue
from signers.ports import AttestRequest, Refused, SignedAttestation, SignerStatus, SignRequest, SignResponse
from signers.process.calls import SMALL_BYTES, Desk, handlers
from signers.process.rates import Gate, Rate
from signers.wire import REPLIES, CallName, Reply
from tests.fakes.signer import SignerBench

OFTEN = Rate(per_second=1_000_000, burst=1_000_000)


class Unlimited(Gate):
    """For tests that call often."""

    def __init__(self) -> None:
        super().__init__({})
        self._rates = dict.fromkeys(self._rates, OFTEN)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SignerBench]:
    made = SignerBench(tmp_path_factory.mktemp("desk"))
    yield made
    made.journal.close()


@pytest.fixture(scope="module")
def desk(bench: SignerBench) -> Desk:
    served = handlers(bench.service, announcing=bench.service, officers=bench.desk, witness=bench.witness)
    return Desk(served, Unlimited())


def answered(desk: Desk, payload: bytes) -> Reply:
    reply = desk.answer("user:0", payload)
    assert REPLIES.decode(msgspec.json.encode(reply)) == reply
    assert "internal error" not in (reply.error or "")
    return reply


@given(payload=st.binary(max_size=300))
def test_any_bytes_are_answered(desk: Desk, payload: bytes) -> None:
    reply = answered(desk, payload)
    assert reply.refused is not None
    assert [reason.code for reason in reply.refused] == ["malformed-request"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=20,
)
CALLS: tuple[CallName, ...] = (
    "sign", "attest", "announce", "status", "metrics", "deliver", "freeze", "confirm_clock", "open", "resolve", "log",
)  # fmt: skip


@given(call=st.sampled_from(CALLS), body=JSON)
def test_any_body_of_any_call_is_answered(desk: Desk, call: str, body: Any) -> None:
    answered(desk, json.dumps({"v": 1, "call": call, "body": body}).encode())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_one_value_of_a_request_replaced_by_any_other_is_answered(
    desk: Desk, bench: SignerBench, data: st.DataObject
) -> None:
    body = json.loads(msgspec.json.encode(bench.request()))
    places = list(_places(body))
    *way, last = data.draw(st.sampled_from(places))
    inner = body
    for step in way:
        inner = inner[step]
    before = inner[last]
    inner[last] = data.draw(JSON)
    reply = answered(desk, json.dumps({"v": 1, "call": "sign", "body": body}).encode())
    assert reply.refused is not None or inner[last] == before


def _places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, inner in entries:
        yield (*way, key)
        yield from _places(inner, (*way, key))


class Broken:
    """A signer with a bug, and one that fails after it may have recorded something."""

    def status(self) -> SignerStatus:
        raise RuntimeError("[secret] in a message")

    def attest(self, request: AttestRequest) -> SignedAttestation:
        raise InvalidValue("half way")

    def sign(self, request: SignRequest) -> SignResponse:
        raise Refused(())


def test_a_bug_is_told_to_nobody_but_by_its_place(caplog: pytest.LogCaptureFixture) -> None:
    reply = Desk(handlers(Broken())).answer("user:0", b'{"v":1,"call":"status","body":{}}')
    assert reply.error == "internal error: RuntimeError"
    assert "in status" in caplog.text
    assert "secret]" not in caplog.text.replace('"[secret] in a message"', "")


def test_what_fails_after_the_request_was_read_is_never_called_refused() -> None:
    body = b'{"v":1,"chain":"c","keyset":"k","customer":null,"asset":"a","branch":0,"index":0}'
    reply = Desk(handlers(Broken())).answer("user:0", b'{"v":1,"call":"attest","body":' + body + b"}")
    assert reply.refused is None
    assert reply.error is not None


def test_each_kind_of_call_has_a_longest_one(desk: Desk) -> None:
    small = b'{"v":1,"call":"status","body":{}}'
    assert answered(desk, small + b" " * (SMALL_BYTES - len(small))).refused is None
    assert answered(desk, small + b" " * (SMALL_BYTES - len(small) + 1)).refused is not None


def test_parts_that_are_not_there_are_calls_that_are_refused(bench: SignerBench) -> None:
    lone = Desk(handlers(bench.service), Unlimited())
    for call in set(CALLS) - {"sign", "attest", "status"}:
        reply = lone.answer("user:0", json.dumps({"v": 1, "call": call, "body": {}}).encode())
        assert reply.refused is not None
        assert reply.refused[0].code == "call-not-served"


def test_one_client_that_calls_too_often_leaves_the_others_their_calls(bench: SignerBench) -> None:
    strict = Desk(handlers(bench.service), Gate({"status": Rate(per_second=1, burst=2)}))
    call = b'{"v":1,"call":"status","body":{}}'
    assert [strict.answer("a", call).retry_ms is None for _ in range(3)] == [True, True, False]
    assert strict.answer("b", call).retry_ms is None
    told = [strict.answer("a", b"x").retry_ms is None for _ in range(60)]
    assert told[:50] == [True] * 50
    assert not told[-1]
