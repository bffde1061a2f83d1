"""A screening provider for tests, good or bad by the path that is asked: `screening_server.py PORT LOG [CERT KEY]`."""

from __future__ import annotations

import json
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

CLEAR = json.dumps({"verdict": "clear", "version": "7"}).encode()
HIT = json.dumps({"verdict": "hit", "version": "7", "reason": "mixer", "source": "kyt"}).encode()
NEVER = threading.Event()
GARBAGE = {
    "/no-json": b"<html>",
    "/no-object": b"[]",
    "/no-verdict": b'{"version": "7"}',
    "/other-verdict": b'{"verdict": "maybe", "version": "7"}',
    "/no-version": b'{"verdict": "clear"}',
    "/no-text": b"\xff\xfe",
    "/empty": b"",
    "/long-reason": json.dumps({"verdict": "hit", "version": "7", "reason": "x" * 301}).encode(),
}


class Handler(BaseHTTPRequestHandler):
    """Answers by path."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        entry = {"path": self.path, "body": json.loads(body), "headers": dict(self.headers.items())}
        with self.server.lock, self.server.log.open("a") as log:  # type: ignore[attr-defined]
            log.write(json.dumps(entry) + "\n")
        self.close_connection = self.path != "/clear"
        if self.path == "/clear":
            self._answer(200, CLEAR)
        elif self.path == "/hit":
            self._answer(200, HIT)
        elif self.path in GARBAGE:
            self._answer(200, GARBAGE[self.path])
        elif self.path == "/moved":
            self._answer(302, CLEAR, Location="/clear")
        elif self.path == "/broken":
            self._answer(500, CLEAR)
        elif self.path == "/silent":
            NEVER.wait()
        elif self.path == "/drops":
            self.connection.close()
        elif self.path == "/drips-head":
            self._drip(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n" + b"X-More: y\r\n" * 100_000)
        elif self.path == "/drips-body":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            self._drip(CLEAR.ljust(1000))
        elif self.path == "/endless":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n")
            while True:
                self.wfile.write(CLEAR.ljust(100_000))

    def _answer(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def _drip(self, content: bytes) -> None:
        for byte in content:
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            NEVER.wait(0.05)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def main(port: str, log: str, certificate: str = "", key: str = "") -> None:
    """Serve on 127.0.0.1 until killed."""
    server = ThreadingHTTPServer(("127.0.0.1", int(port)), Handler)
    server.daemon_threads = True
    server.log, server.lock = Path(log), threading.Lock()  # type: ignore[attr-defined]
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
