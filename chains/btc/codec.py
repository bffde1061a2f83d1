"""Reading Bitcoin's serialisation strictly: bounds everywhere, canonical compact sizes only. Pure."""

from __future__ import annotations

from chains.errors import InvalidValue


class Reader:
    """A cursor over bytes that never reads past the end; malformed input raises InvalidValue."""

    __slots__ = ("_data", "position")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.position = 0

    @property
    def remaining(self) -> int:
        """Bytes not read yet."""
        return len(self._data) - self.position

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        end = self.position + count
        if end > len(self._data):
            raise InvalidValue(
                f"data ends at byte {len(self._data)}: {count} more expected at {self.position}"
            )
        piece = self._data[self.position : end]
        self.position = end
        return piece

    def uint(self, size: int) -> int:
        """A little-endian unsigned integer of `size` bytes."""
        return int.from_bytes(self.take(size), "little")

    def compact_size(self) -> int:
        """A compact size (1, 3, 5 or 9 bytes), refused unless written in its shortest form."""
        try:
            first = self._data[self.position]
        except IndexError:
            raise InvalidValue(f"data ends at byte {self.position}: a compact size expected") from None
        self.position += 1
        if first < 0xFD:
            return first
        width = 2 << (first - 0xFD)
        value = self.uint(width)
        if value < (0xFD, 0x1_0000, 0x1_0000_0000)[first - 0xFD]:
            raise InvalidValue(f"compact size {value} at byte {self.position}: not in its shortest form")
        return value

    def count(self, smallest_item: int) -> int:
        """A compact size counting items of at least `smallest_item` bytes, refused if they can't fit."""
        value = self.compact_size()
        if value * smallest_item > self.remaining:
            raise InvalidValue(f"count {value} at byte {self.position}: only {self.remaining} bytes follow")
        return value

    def string(self, largest: int) -> bytes:
        """Bytes preceded by their compact size, at most `largest` of them."""
        size = self.compact_size()
        if size > largest:
            raise InvalidValue(f"string of {size} bytes at byte {self.position}: at most {largest} allowed")
        return self.take(size)

    def finish(self, what: str) -> None:
        """Refuse trailing bytes."""
        if self.remaining:
            raise InvalidValue(f"{what}: {self.remaining} bytes too many")


def compact_size(value: int) -> bytes:
    """The shortest compact size of a number from 0 to 2**64 - 1."""
    if value < 0xFD:
        return bytes([value])
    if value <= 0xFFFF:
        return b"\xfd" + value.to_bytes(2, "little")
    if value <= 0xFFFF_FFFF:
        return b"\xfe" + value.to_bytes(4, "little")
    return b"\xff" + value.to_bytes(8, "little")


def with_size(data: bytes) -> bytes:
    """`data` preceded by its compact size."""
    return compact_size(len(data)) + data
