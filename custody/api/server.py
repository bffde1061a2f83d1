"""How the application is served: uvicorn, without its access log, which would name customers."""

from __future__ import annotations

from typing import Final

import uvicorn
from fastapi import FastAPI

MAX_REQUESTS_AT_ONCE: Final = 256
KEEP_ALIVE_SECONDS: Final = 15
SHUTDOWN_SECONDS: Final = 10


def make_server(app: FastAPI, *, host: str, port: int) -> uvicorn.Server:
    """A server that is not running yet; `run()` serves until SIGTERM or SIGINT.

    Args:
        app: made by `create_app`.
        host: loopback unless a TLS proxy stands in front: tokens are worth what the transport is worth.
        port: 0 takes a free one.
    """
    return uvicorn.Server(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            access_log=False,
            log_level="warning",
            server_header=False,
            proxy_headers=False,
            limit_concurrency=MAX_REQUESTS_AT_ONCE,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        )
    )
