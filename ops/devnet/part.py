"""What the launched servers have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Part(ABC):
    """A server of ours: started, stopped, started again on the same port; as a context, from start to close."""

    @abstractmethod
    def start(self) -> None:
        """Starts it and waits until it answers. Raises StartFailed."""

    @abstractmethod
    def stop(self) -> None:
        """Stops it in good order. Again changes nothing."""

    @abstractmethod
    def close(self) -> None:
        """Stops it for good and gives up its ports."""

    def restart(self) -> None:
        """Stops and starts it, on the same ports and with the same password."""
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        """Starts it."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops it for good."""
        self.close()
