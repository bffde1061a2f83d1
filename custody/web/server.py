"""How the application is served: uvicorn, without its access log, which would name customers."""

from __future__ import annotations

import resource
from typing import Final, Literal

import uvicorn
from fastapi import FastAPI

from custody.web.connections import KEEP_ALIVE_SECONDS, MAX_HEAD_BYTES, Connection, Server

MAX_CONNECTIONS: Final = 1024
_OTHER_FILES: Final = 256
"""Open files that are no connections of clients: the database's, the signers', and some to spare."""
SHUTDOWN_SECONDS: Final = 10
MAX_MESSAGE_BYTES: Final = 16 * 1024
"""Of one message of a WebSocket's client."""


def make_server(app: FastAPI, *, host: str, port: int, websockets: Literal["on", "off"] = "off") -> Server:
    """A server that is not running yet; `run()` serves until SIGTERM or SIGINT.

    Args:
        app: made by `create_app`.
        host: loopback unless a TLS proxy stands in front: tokens are worth what the transport is worth.
        port: 0 takes a free one.
        websockets: whether connections may become WebSockets.
    """
    return Server(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            http=Connection,
            ws="websockets-sansio" if websockets == "on" else "none",
            ws_max_size=MAX_MESSAGE_BYTES,
            ws_per_message_deflate=False,
            access_log=False,
            log_level="warning",
            server_header=False,
            proxy_headers=False,
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
            limit_concurrency=_connections(),
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        )
    )


def _connections() -> int:
    """As many as there may be, or as the process may have files open: one more would stop all from coming in."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    spare = MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else max(16, soft - _OTHER_FILES)
    return min(MAX_CONNECTIONS, spare)
