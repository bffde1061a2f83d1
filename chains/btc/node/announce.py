"""ZMQ announcements of a bitcoind: they save waiting, and nothing depends on them."""

from __future__ import annotations

from types import TracebackType
from typing import Final, Self

import zmq

TOPICS: Final = (b"hashblock", b"sequence")
"""New tips, and (dis)connected blocks and transactions entering or leaving the mempool."""


class BlockAnnouncements:
    """Tells that something changed at the node, never what: the reader asks the node. For one thread."""

    def __init__(self, zmq_url: str) -> None:
        """Subscribes at once; reconnects by itself when the node comes back."""
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.LINGER, 0)
        for topic in TOPICS:
            self._socket.setsockopt(zmq.SUBSCRIBE, topic)
        self._socket.connect(zmq_url)

    def wait(self, timeout_s: float) -> bool:
        """Waits for an announcement and takes all that are there; False if none came in time.

        Announcements can be lost (a full queue, a restart): look at the node after a False, too.
        """
        if not self._socket.poll(int(timeout_s * 1000)):
            return False
        while self._socket.poll(0):
            self._socket.recv_multipart()
        return True

    def close(self) -> None:
        """Ends the subscription. Again changes nothing."""
        self._socket.close()
        self._context.term()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
