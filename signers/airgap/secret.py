"""Secrets in memory: they print as `[secret]`, are not copied by accident, and are wiped as far as Python allows.

Python keeps copies that nobody can reach (of what was typed, of what a library was given), so wiping shortens the time
in which a secret lies in memory and does not end it. The process writes no core dump and ends after each verb.
"""

from __future__ import annotations

from typing import NoReturn, Self


class Secret:
    """Bytes that are wiped when their `with` ends."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes | bytearray) -> None:
        self._data = bytearray(data)

    def __repr__(self) -> str:
        return "[secret]"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not copied or pickled")

    def __len__(self) -> int:
        return len(self._data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.wipe()

    def reveal(self) -> bytes:
        """The bytes, to be handed to a library and to nothing else."""
        return bytes(self._data)

    def wipe(self) -> None:
        """Overwrite the bytes with zeros. Again changes nothing."""
        self._data[:] = bytes(len(self._data))
