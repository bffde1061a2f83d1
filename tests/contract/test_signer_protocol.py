"""The protocol as `signers/README.md` tells it: a client of socket, json, hashlib and Ed25519, and the examples there.

What speaks here to a signer imports nothing of ours, so that somebody else can write the same from the document.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from signers import ports
from signers.config import ListenSection
from signers.process.calls import handlers
from signers.wire import CALLS, REPLIES
from tests.fakes.signer import SignerBench
from tests.fakes.signer_server import served
from tests.fakes.signing import CHAIN, KEYSET

README = (Path(__file__).parents[2] / "signers/README.md").read_text()
EXAMPLES = re.findall(r"^```json (\w+) (\w+)\n(.*?)\n```$", README, re.M | re.S)
ANSWERS: dict[str, type[msgspec.Struct]] = {
    "sign": ports.SignResponse,
    "attest": ports.SignedAttestation,
    "announce": ports.Announced,
    "status": ports.SignerStatus,
    "open": ports.OpenPage,
    "resolve": ports.Resolved,
    "log": ports.LogPage,
}


class ByHand:
    """A client as anybody could write it."""

    def __init__(self, path: Path) -> None:
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.settimeout(20)
        self._connection.connect(str(path))

    def call(self, name: str, body: Any) -> dict[str, Any]:
        sent = json.dumps({"v": 1, "call": name, "body": body}).encode()
        self._connection.sendall(struct.pack(">I", len(sent)) + sent)
        (length,) = struct.unpack(">I", self._exactly(4))
        answer = json.loads(self._exactly(length))
        assert isinstance(answer, dict)
        return answer

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self._connection.recv(size - len(data))
            assert piece, "the signer hung up"
            data += piece
        return data

    def close(self) -> None:
        self._connection.close()


def canonical(document: Any) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest(domain: str, document: Any) -> bytes:
    return hashlib.sha256(f"strongroom:{domain}:v1\n".encode() + canonical(document)).digest()


def signature(key: Ed25519PrivateKey, domain: str, document: Any) -> str:
    return base64.b64encode(key.sign(digest(domain, document))).decode()


def verify(public: str, domain: str, document: Any, signed: str) -> None:
    Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(
        base64.b64decode(signed), digest(domain, document)
    )


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[SignerBench]:
    made = SignerBench(tmp_path)
    yield made
    made.journal.close()


@pytest.fixture
def client(bench: SignerBench, tmp_path: Path) -> Iterator[ByHand]:
    path = tmp_path / "signer.sock"
    with served(
        bench.service,
        ListenSection(unix=str(path)),
        announcing=bench.service,
        officers=bench.desk,
        witness=bench.witness,
    ):
        made = ByHand(path)
        yield made
        made.close()


def plain(request: msgspec.Struct) -> Any:
    return json.loads(msgspec.json.encode(request))


def attestation_key(bench: SignerBench) -> str:
    return bench.keys.record.attestation_key


def officer(bench: SignerBench, name: str) -> Ed25519PrivateKey:
    return bench.world.officers[name]._key


def test_an_order_signed_by_hand_is_paid(bench: SignerBench, client: ByHand) -> None:
    """The caller's side: its order, its hash and its signature; the intent refers to the order by its digest."""
    body = plain(bench.request())
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes_raw().hex()
    order, intent = body["evidence"]["orders"][0]["order"], body["intents"][0]
    assert intent["order"] == digest("order", order).hex()
    callers = bench.trust.present.callers
    replaced = [msgspec.structs.replace(c, key=public) if c.id == order["caller"] else c for c in callers]
    bench.adopt(2, callers=tuple(replaced))
    intent["policy_version"] = 2
    assert client.call("sign", body)["refused"][0]["code"] == "order-signature"
    body["evidence"]["orders"][0]["signature"] = signature(key, "order", order)
    (signed,) = client.call("sign", body)["ok"]["signatures"]
    assert signed["index"] == 0
    assert signed["signature"].endswith("01")
    assert client.call("sign", body)["ok"]["signatures"] == [signed]


def test_an_attestation_is_verified_by_hand(bench: SignerBench, client: ByHand) -> None:
    body = {
        "v": 1,
        "chain": CHAIN,
        "keyset": KEYSET,
        "customer": "alice",
        "asset": "BTC",
        "branch": 0,
        "index": 7,
    }
    answer = client.call("attest", body)["ok"]
    verify(attestation_key(bench), "attestation", answer["attestation"], answer["signature"])
    assert answer["attestation"]["path"].endswith("/0/7")
    refused = client.call("attest", body | {"customer": "bob"})["refused"]
    assert [reason["code"] for reason in refused] == ["address-taken"]


def test_an_order_is_announced_by_hand(bench: SignerBench, client: ByHand) -> None:
    signed = plain(bench.request().evidence.orders[0])
    (sighting,) = client.call("announce", {"v": 1, "orders": [signed]})["ok"]["sightings"]
    assert sighting == {
        "order": signed["order"]["id"],
        "order_since": bench.time,
        "destination_since": bench.time,
    }


def test_a_freeze_is_signed_by_hand(bench: SignerBench, client: ByHand) -> None:
    freeze = {
        "v": 1, "officer": "olga", "scope": "all", "bundle_version": 1, "reason": "a drill — über", "issued_at": 5,
    }  # fmt: skip
    body = {"freeze": freeze, "signature": signature(officer(bench, "olga"), "freeze", freeze)}
    assert client.call("freeze", body)["ok"]["frozen"] == ["all"]
    (reason,) = client.call("sign", plain(bench.request()))["refused"]
    assert reason["code"] == "frozen"


def test_a_bundle_is_signed_by_hand(bench: SignerBench, client: ByHand) -> None:
    bundle = plain(bench.world.bundle(2))
    names = ("olga", "felix")
    signatures = [
        {"key": name, "signature": signature(officer(bench, name), "bundle", bundle)} for name in names
    ]
    assert client.call("deliver", {"bundle": bundle, "signatures": signatures[:1]})["refused"]
    assert client.call("deliver", {"bundle": bundle, "signatures": signatures})["ok"]["bundle_version"] == 2


def test_the_log_is_followed_by_hand(bench: SignerBench, client: ByHand) -> None:
    client.call("sign", plain(bench.request()))
    raw = client.call("log", {"v": 1, "after": 0})["ok"]
    before = bytes(32)
    for number, entry in enumerate(raw["entries"], 1):
        start = json.dumps([entry["number"], entry["at"], entry["what"]], separators=(",", ":")).encode()
        body = json.dumps(entry["body"], separators=(",", ":"), ensure_ascii=False).encode()
        before = hashlib.sha256(before + start + b"\n" + body).digest()
        assert (entry["number"], entry["head"]) == (number, before.hex())
    assert raw["head"]["head"] == before.hex()
    verify(attestation_key(bench), "signer-log", raw["head"], raw["signature"])
    assert "transaction" in {entry["what"] for entry in raw["entries"]}


def test_what_is_open_is_resolved_by_hand(bench: SignerBench, client: ByHand) -> None:
    client.call("sign", plain(bench.request()))
    (found,) = client.call("open", {"v": 1, "after": None})["ok"]["transactions"]
    resolution = {
        "v": 1, "verifier": "vera", "chain": found["chain"], "content": found["content"], "outcome": "dead",
        "resource": found["resources"][0], "block": "aa" * 32, "height": 5,
    }  # fmt: skip
    key = Ed25519PrivateKey.generate()
    body = {
        "v": 1,
        "resolutions": [{"resolution": resolution, "signature": signature(key, "resolution", resolution)}],
    }
    assert client.call("resolve", body)["refused"][0]["code"] in {"verifier-unknown", "resolution-signature"}
    resolution["verifier"] = bench.trust.present.verifiers[0].id
    own = bench.world.verifier._key
    body = {
        "v": 1,
        "resolutions": [{"resolution": resolution, "signature": signature(own, "resolution", resolution)}],
    }
    assert client.call("resolve", body)["ok"] == {"accepted": 1}
    assert client.call("open", {"v": 1, "after": None})["ok"]["transactions"] == []


def test_a_call_that_is_not_served_or_not_known_is_refused(client: ByHand) -> None:
    assert client.call("metrics", {})["refused"][0]["code"] == "call-not-served"
    assert client.call("export", {})["refused"][0]["code"] == "malformed-request"
    assert client.call("status", {"surprise": 1})["refused"][0]["code"] == "malformed-request"


# The examples of the document.


def test_the_document_has_an_example_of_every_call_that_has_a_body() -> None:
    calls = {name for kind, name, _ in EXAMPLES if kind == "call"}
    officers = {"freeze", "veto", "lower", "confirm_clock"}
    assert calls == officers | {"sign", "attest", "announce", "open", "resolve", "log"}
    assert {name for kind, name, _ in EXAMPLES if kind == "answer"} == set(ANSWERS)


@pytest.mark.parametrize(
    ("kind", "name", "text"), EXAMPLES, ids=lambda value: value if len(value) < 20 else ""
)
def test_every_example_is_read_as_what_it_says(bench: SignerBench, kind: str, name: str, text: str) -> None:
    if kind == "canonical":
        order = json.loads(text)
        assert canonical(order).decode() == text
        key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
        assert key.public_key().public_bytes_raw().hex() in README
        assert digest(name, order).hex() in README
        assert signature(key, name, order) in README
    elif kind == "call":
        call = CALLS.decode(text.encode())
        calls = handlers(bench.service, announcing=bench.service, officers=bench.desk, witness=bench.witness)
        body = msgspec.json.decode(call.body, type=calls[call.call].request)
        assert call.call == name
        assert set(json.loads(msgspec.json.encode(body))) >= set(json.loads(text)["body"])
    else:
        msgspec.json.decode(REPLIES.decode(text.encode()).ok, type=ANSWERS[name])


def test_the_documents_example_of_a_log_has_the_head_that_follows() -> None:
    (text,) = [text for kind, name, text in EXAMPLES if (kind, name) == ("answer", "log")]
    (entry,) = json.loads(text)["ok"]["entries"]
    body = json.dumps(entry["body"], separators=(",", ":")).encode()
    head = hashlib.sha256(bytes(32) + b'[1,1800000000,"bundle"]\n' + body).hexdigest()
    assert entry["head"] == head
