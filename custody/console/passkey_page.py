"""The page on `localhost` where a person's passkey signs, or is made; served by the command itself, never by the API.

One page, one answer, then the server ends. Other pages in the same browser can neither read it nor post to it: its path
is a fresh secret, its Host and Origin are compared letter by letter, and it loads nothing but itself.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import secrets
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from string import Template
from typing import Any, Final

import msgspec

from chains.errors import InvalidValue, PermanentError
from policies.bundle import Passkey
from policies.canonical import BadSignature
from policies.intent import Assertion
from policies.passkeys import ALGORITHMS, decode, encode, registered, verify_assertion

HOST: Final = "localhost"
WAIT_SECONDS: Final = 300
MAX_BODY_BYTES: Final = 16_384
_POLL_SECONDS: Final = 0.1
_WARNING: Final = ' class="warning"'

Lines = Iterable[tuple[str, str]]


class NobodySigned(PermanentError):
    """No answer came in time."""


@dataclass(frozen=True, slots=True)
class Page:
    """What is shown, what the browser is asked for, and what is made of its answer."""

    title: str
    lines: tuple[tuple[str, str], ...]
    button: str
    asked: Mapping[str, Any]
    read: Callable[[Mapping[str, Any]], object]
    """Raises PermanentError: the answer is none, and another one may come."""
    thanks: str


def origin_of(port: int) -> str:
    """The page's origin."""
    return f"http://{HOST}:{port}"


def sign_with_passkey(
    passkey: Passkey,
    challenge: bytes,
    *,
    title: str,
    lines: Lines,
    tell: Callable[[str], None],
    wait_seconds: int = WAIT_SECONDS,
) -> Assertion:
    """Serve the page until the passkey has signed the challenge (32 bytes).

    Args:
        passkey: of the bundle; its origin says the port.
        title: what is signed, in a few words.
        lines: what it does, a heading and a sentence each.
        tell: gets the page's address.

    Raises:
        NobodySigned: not within `wait_seconds`.
        InvalidValue: the passkey is for a page elsewhere, or the port is taken.
    """
    prefix, port = f"http://{HOST}:", passkey.origin.rpartition(":")[2]
    if passkey.rp_id != HOST or not passkey.origin.startswith(prefix) or not port.isdecimal():
        raise InvalidValue(f"this passkey is for {passkey.origin}, not for a page of {prefix}PORT")

    def read(answer: Mapping[str, Any]) -> Assertion:
        names = ("authenticator_data", "client_data", "signature")
        # Checked as what others send is: a document made by hand would not be.
        assertion = msgspec.convert({name: _text(answer, name) for name in names}, Assertion)
        verify_assertion(assertion, passkey, challenge)
        return assertion

    asked = {
        "challenge": encode(challenge),
        "rp_id": passkey.rp_id,
        "credential_id": passkey.credential_id,
    }
    page = Page(
        title, tuple(lines), "Sign with your passkey", asked, read, "Signed. You may close this page."
    )
    signed = _serve(page, int(port), tell, wait_seconds)
    assert isinstance(signed, Assertion)
    return signed


def make_passkey(
    name: str, *, port: int, tell: Callable[[str], None], wait_seconds: int = WAIT_SECONDS
) -> Passkey:
    """Serve the page until somebody has made a passkey for `name` (shown by the authenticator).

    Raises:
        NobodySigned: not within `wait_seconds`.
        InvalidValue: the port is taken.
    """
    challenge, origin = secrets.token_bytes(32), origin_of(port)

    def read(answer: Mapping[str, Any]) -> Passkey:
        attestation, client = decode(_text(answer, "attestation")), decode(_text(answer, "client_data"))
        return registered(attestation, client, challenge, rp_id=HOST, origin=origin)

    asked = {
        "challenge": encode(challenge),
        "rp_id": HOST,
        "user_id": encode(secrets.token_bytes(16)),
        "name": name,
        "algorithms": list(ALGORITHMS),
    }
    lines = (("approver", name), ("page", origin))
    page = Page("Make a passkey", lines, "Make it", asked, read, "Made. You may close this page.")
    made = _serve(page, port, tell, wait_seconds)
    assert isinstance(made, Passkey)
    return made


def _text(answer: Mapping[str, Any], name: str) -> str:
    value = answer.get(name)
    if not isinstance(value, str) or not value:
        raise InvalidValue(f"the page sent no {name}")
    return value


def _serve(page: Page, port: int, tell: Callable[[str], None], wait_seconds: int) -> object:
    path = f"/{secrets.token_urlsafe(32)}/"
    try:
        server = _Server(page, path, port)
    except OSError as error:
        raise InvalidValue(f"port {port} of localhost: {error.strerror}; is another approval open?") from None
    with server:
        # A browser opens connections that it does not use: they must not keep others waiting.
        serving = threading.Thread(target=server.serve_forever, args=(_POLL_SECONDS,), daemon=True)
        serving.start()
        try:
            tell(f"{origin_of(port)}{path}")
            if not server.done.wait(wait_seconds):
                raise NobodySigned(f"nobody signed on the page within {wait_seconds} s")
        finally:
            server.shutdown()
            serving.join()
    return server.answer


class _Server(ThreadingHTTPServer):
    request_queue_size = 8

    def __init__(self, page: Page, path: str, port: int) -> None:
        self.page, self.path, self.origin = page, path, origin_of(port)
        self.body, self.policy = rendered(page)
        self.answer: object = None
        self.done = threading.Event()
        super().__init__(("127.0.0.1", port), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: a browser that hangs up is no trouble of ours."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = 10
    server_version, sys_version = "strongroom", ""

    def do_GET(self) -> None:
        """The page."""
        if self._mine():
            self._send(200, self.server.body, "text/html; charset=utf-8")

    def do_POST(self) -> None:
        """The browser's answer."""
        if not self._mine():
            return
        length = self.headers.get("Content-Length", "")
        if self.headers.get("Origin") != self.server.origin or not length.isdecimal():
            self._say(403, "not from this page")
            return
        if len(length) > 5 or int(length) > MAX_BODY_BYTES:
            self._say(413, "too large")
            return
        try:
            answer = json.loads(self.rfile.read(int(length)))
            if not isinstance(answer, dict):
                raise InvalidValue("expected an object")
            found = self.server.page.read(answer)
        except (BadSignature, InvalidValue, msgspec.MsgspecError, ValueError, RecursionError) as error:
            self._say(400, f"That was not taken: {error}")
            return
        self.server.answer = found
        self._say(200, self.server.page.thanks)
        self.server.done.set()

    def _mine(self) -> bool:
        """Whether the request is for this page, by the name it has: another name may be another's, bound to us."""
        good = f"http://{self.headers.get('Host', '')}" == self.server.origin
        if not good or not secrets.compare_digest(self.path.encode(), self.server.path.encode()):
            self._say(404, "there is nothing here")
            return False
        return True

    def _say(self, status: int, sentence: str) -> None:
        self._send(status, json.dumps({"said": sentence}).encode(), "application/json")

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Content-Security-Policy": self.server.policy,
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Cache-Control": "no-store",
            "Connection": "close",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the path is a secret."""


def rendered(page: Page) -> tuple[bytes, str]:
    """The page's HTML, and the Content-Security-Policy under which it runs: its own script and style, nothing else."""
    folder = resources.files("custody.console") / "page"
    style, script = (folder / "page.css").read_text(), (folder / "page.js").read_text()
    lines = "".join(
        f"<dt>{html.escape(name)}</dt><dd{_WARNING if name.isupper() else ''}>{html.escape(text)}</dd>"
        for name, text in page.lines
    )
    body = Template((folder / "page.html").read_text()).substitute(
        style=style,
        script=script,
        title=html.escape(page.title),
        lines=lines,
        button=html.escape(page.button),
        # What could end the script element is written otherwise; JSON reads it the same.
        asked=json.dumps(dict(page.asked)).replace("<", "\\u003c"),
    )
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return body.encode(), policy


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
