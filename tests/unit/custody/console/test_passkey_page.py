"""The page for passkeys: it asks for exactly one signature, answers nobody else, and its script does what it should."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html import unescape
from pathlib import Path
from queue import Queue
from typing import Any

import httpx
import pytest

from chains.errors import InvalidValue
from custody.console.passkey_page import NobodySigned, make_passkey, origin_of, sign_with_passkey
from ops.devnet.process import free_port, release_port
from policies.bundle import Passkey
from policies.intent import Assertion
from policies.passkeys import check_passkey, verify_assertion
from tests.fakes.passkey import SoftPasskey

CHALLENGE = hashlib.sha256(b"an approval").digest()
LINES = [("pay", "1 BTC"), ("to", "</dd><script>alert(1)</script>"), ("WARNING", "signers will refuse it")]


@dataclass
class Browser:
    """Opens the page that a command serves meanwhile, in a thread of its own."""

    port: int
    path: str = ""
    result: Queue[Any] = field(default_factory=Queue)

    def serve(self, serve: Callable[[Callable[[str], None]], object]) -> None:
        address: Queue[str] = Queue()

        def run() -> None:
            try:
                self.result.put(serve(address.put))
            except Exception as error:  # noqa: BLE001 - the test looks at it
                self.result.put(error)
                address.put("")

        threading.Thread(target=run, daemon=True).start()
        url = address.get(timeout=10)
        self.path = url.removeprefix(origin_of(self.port))

    def request(
        self, method: str, path: str | None = None, content: Any = None, **headers: str
    ) -> httpx.Response:
        sent = {"Host": f"localhost:{self.port}", "Origin": origin_of(self.port)} | headers
        body = None if content is None else json.dumps(content)
        with httpx.Client(trust_env=False, timeout=10) as client:
            url = f"http://127.0.0.1:{self.port}{self.path if path is None else path}"
            return client.request(method, url, content=body, headers=sent)

    def asked(self) -> dict[str, Any]:
        found = re.search(r'id="asked">(.*?)</script>', self.request("GET").text)
        assert found is not None
        return dict(json.loads(found[1]))


@pytest.fixture
def port() -> Iterator[int]:
    found = free_port()
    yield found
    release_port(found)


@pytest.fixture
def soft(port: int) -> SoftPasskey:
    return SoftPasskey(origin=origin_of(port))


@pytest.fixture
def browser(soft: SoftPasskey) -> Browser:
    found = Browser(int(soft.origin.rpartition(":")[2]))
    found.serve(
        lambda tell: sign_with_passkey(
            soft.entry(), CHALLENGE, title="Approve as ada", lines=LINES, tell=tell, wait_seconds=60
        )
    )
    return found


def parts(assertion: Assertion) -> dict[str, str]:
    return {name: getattr(assertion, name) for name in assertion.__struct_fields__}


def test_the_page_shows_what_is_signed_in_plain_words_and_loads_nothing(browser: Browser) -> None:
    response = browser.request("GET")
    shown = re.findall(r"<dt>(.*?)</dt><dd[^>]*>(.*?)</dd>", response.text)
    assert [(name, unescape(text)) for name, text in shown] == LINES
    assert "<script>alert" not in response.text
    assert 'class="warning">signers' in response.text
    assert re.search(r"(src|href|action)=", response.text) is None
    scripts = re.findall(r"<script>(.*?)</script>", response.text, re.S)
    styles = re.findall(r"<style>(.*?)</style>", response.text, re.S)
    hashes = [
        "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in (*scripts, *styles)
    ]
    policy = response.headers["Content-Security-Policy"]
    assert policy.split("; ") == [
        "default-src 'none'",
        f"script-src '{hashes[0]}'",
        f"style-src '{hashes[1]}'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert response.headers["Cache-Control"] == "no-store"


def test_one_good_answer_ends_it(browser: Browser, soft: SoftPasskey) -> None:
    assert browser.asked()["challenge"] == base64.urlsafe_b64encode(CHALLENGE).rstrip(b"=").decode()
    response = browser.request("POST", content=parts(soft.get(CHALLENGE)))
    assert (response.status_code, response.json()) == (200, {"said": "Signed. You may close this page."})
    signed = browser.result.get(timeout=10)
    verify_assertion(signed, soft.entry(), CHALLENGE)
    with pytest.raises(httpx.TransportError):
        browser.request("GET")


def test_other_pages_of_this_browser_get_nothing_and_hand_in_nothing(
    browser: Browser, soft: SoftPasskey
) -> None:
    good = parts(soft.get(CHALLENGE))
    stranger = {"Origin": "http://localhost:3000"}
    for method, path, headers, status in (
        ("GET", "/", {}, 404),
        ("GET", browser.path[:-2], {}, 404),
        ("GET", "/" + "A" * 43 + "/", {}, 404),
        ("POST", "/", {}, 404),
        ("GET", browser.path, {"Host": f"attacker.example:{browser.port}"}, 404),
        ("GET", browser.path, {"Host": f"127.0.0.1:{browser.port}"}, 404),
        ("POST", browser.path, stranger, 403),
        ("POST", browser.path, {"Origin": "null"}, 403),
        ("PUT", browser.path, {}, 501),
    ):
        response = browser.request(method, path, good if method == "POST" else None, **headers)
        assert response.status_code == status, (method, path, headers)
        assert "1 BTC" not in response.text
    assert browser.result.empty()
    assert browser.request("POST", content=good).status_code == 200
    assert isinstance(browser.result.get(timeout=10), Assertion)


def test_a_wrong_answer_is_told_and_the_page_stays(browser: Browser, soft: SoftPasskey) -> None:
    wrong: list[Any] = [
        parts(soft.get(hashlib.sha256(b"another").digest())),
        parts(SoftPasskey(origin=soft.origin).get(CHALLENGE)),
        parts(soft.get(CHALLENGE, flags=1)),
        {"authenticator_data": "AA"},
        dict.fromkeys(("authenticator_data",), "x" * 9000),
        dict.fromkeys(("authenticator_data", "client_data", "signature"), 7),
        [],
        "no",
    ]
    for content in wrong:
        response = browser.request("POST", content=content)
        assert response.status_code == 400
        assert "not taken" in response.json()["said"]
    assert browser.request("POST", content={"filler": "x" * 20_000}).status_code == 413
    assert browser.result.empty()
    assert browser.request("POST", content=parts(soft.get(CHALLENGE))).status_code == 200


def test_a_connection_that_says_nothing_keeps_nobody_waiting(browser: Browser, soft: SoftPasskey) -> None:
    with socket.create_connection(("127.0.0.1", browser.port)):
        assert browser.request("POST", content=parts(soft.get(CHALLENGE))).status_code == 200
        assert isinstance(browser.result.get(timeout=10), Assertion)


def test_nobody_signs_in_time_or_the_port_is_taken_or_the_page_is_elsewhere(soft: SoftPasskey) -> None:
    def sign(passkey: Passkey) -> object:
        return sign_with_passkey(
            passkey, CHALLENGE, title="", lines=(), tell=lambda url: None, wait_seconds=0
        )

    with pytest.raises(NobodySigned):
        sign(soft.entry())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(soft.origin.rpartition(":")[2])))
        taken.listen()
        with pytest.raises(InvalidValue, match="port"):
            sign(soft.entry())
    with pytest.raises(InvalidValue, match="is for https"):
        sign(soft.entry(rp_id="example.com", origin="https://example.com"))


def test_a_passkey_is_made_and_only_a_good_one(port: int, soft: SoftPasskey) -> None:
    browser = Browser(port)
    browser.serve(lambda tell: make_passkey("ada", port=port, tell=tell, wait_seconds=60))
    asked = browser.asked()
    challenge = base64.urlsafe_b64decode(asked["challenge"] + "=")
    assert (asked["name"], asked["algorithms"], asked["rp_id"]) == ("ada", [-7, -8], "localhost")
    for content in (
        soft.create(bytes(32)),
        soft.create(challenge, flags=0x41),
        soft.create(challenge, flags=0x05),
        soft.create(challenge, type="webauthn.get"),
        soft.create(challenge, origin="http://localhost:1"),
        SoftPasskey(origin=soft.origin, rp_id="elsewhere").create(challenge),
        {**soft.create(challenge), "attestation": "AAAA"},
    ):
        assert browser.request("POST", content=content).status_code == 400
    assert browser.request("POST", content=soft.create(challenge)).status_code == 200
    made = browser.result.get(timeout=10)
    check_passkey(made)
    assert made == soft.entry()


STUB = """
const [script, asked, credential] = JSON.parse(require("fs").readFileSync(0, "utf8"));
const sign = {addEventListener: (_, act) => { nodes.act = act; }};
const nodes = {asked: {textContent: JSON.stringify(asked)}, said: {}, sign};
const calls = [];
function buffer(text) { return Uint8Array.from(Buffer.from(text, "base64url")).buffer; }
function plain(value) {
  if (ArrayBuffer.isView(value)) return Buffer.from(value).toString("base64url");
  if (Array.isArray(value)) return value.map(plain);
  if (value && typeof value === "object")
    return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, plain(v)]));
  return value;
}
const response = Object.fromEntries(Object.entries(credential).map(([k, v]) => [k, buffer(v)]));
const give = (kind) => async (options) => { calls.push([kind, plain(options)]); return {response}; };
const context = {
  document: {getElementById: (id) => nodes[id]},
  navigator: {credentials: {get: give("get"), create: give("create")}},
  location: {pathname: "/secret/"},
  fetch: async (path, options) => { calls.push([path, JSON.parse(options.body), options.method]);
    return {ok: true, json: async () => ({said: "thanks"})}; },
  atob, btoa, Uint8Array, Array, String, JSON,
};
require("vm").runInNewContext(script, context);
nodes.act().then(() => console.log(JSON.stringify([calls, nodes.said.textContent, nodes.sign.disabled])));
"""


def run_script(page: str, asked: dict[str, Any], credential: dict[str, str]) -> Any:
    """What the page's own script does in an engine of JavaScript whose authenticator gives `credential`."""
    script = re.findall(r"<script>(.*?)</script>", page, re.S)[0]
    node = Path(sys.executable).with_name("node")
    done = subprocess.run(
        [node, "-e", STUB],
        input=json.dumps([script, asked, credential]),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return json.loads(done.stdout)


def test_the_script_asks_for_this_challenge_with_verification_and_posts_what_was_signed(
    browser: Browser, soft: SoftPasskey
) -> None:
    asked, signed = browser.asked(), soft.get(CHALLENGE)
    credential = {
        "authenticatorData": signed.authenticator_data,
        "clientDataJSON": signed.client_data,
        "signature": signed.signature,
    }
    calls, said, disabled = run_script(browser.request("GET").text, asked, credential)
    [[kind, options], [path, posted, method]] = calls
    assert (kind, path, method) == ("get", "/secret/", "POST")
    assert options["publicKey"] == {
        "challenge": asked["challenge"],
        "rpId": "localhost",
        "allowCredentials": [{"type": "public-key", "id": soft.entry().credential_id}],
        "userVerification": "required",
    }
    assert posted == parts(signed)
    assert (said, disabled) == ("thanks", True)
    assert browser.request("POST", content=posted).status_code == 200


def test_the_script_makes_a_passkey_without_attestation(port: int, soft: SoftPasskey) -> None:
    browser = Browser(port)
    browser.serve(lambda tell: make_passkey("ada", port=port, tell=tell, wait_seconds=60))
    asked = browser.asked()
    made = soft.create(base64.urlsafe_b64decode(asked["challenge"] + "="))
    credential = {"attestationObject": made["attestation"], "clientDataJSON": made["client_data"]}
    calls, _, _ = run_script(browser.request("GET").text, asked, credential)
    [[kind, options], [_, posted, _]] = calls
    assert kind == "create"
    assert options["publicKey"]["attestation"] == "none"
    assert options["publicKey"]["authenticatorSelection"]["userVerification"] == "required"
    assert [each["alg"] for each in options["publicKey"]["pubKeyCredParams"]] == [-7, -8]
    assert posted == made
    assert browser.request("POST", content=posted).status_code == 200
    assert browser.result.get(timeout=10) == soft.entry()
