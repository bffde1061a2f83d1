"""Calldata of the few calls that we make, in the one form that Solidity's ABI encoders write. Pure.

Contracts also accept other encodings of the same values (shared tails, gaps, bytes left over, dirty upper bytes of an
address). None of them is ever needed, so decoders refuse what they would not have written themselves: what was
checked is then all there is. Source: "Contract ABI Specification" of Solidity.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from chains.errors import InvalidValue
from chains.eth.address import ADDRESS_BYTES, keccak256

WORD_BYTES: Final = 32
SELECTOR_BYTES: Final = 4
MAX_UINT: Final = 2**256 - 1

MAX_ITEMS: Final = 1_000
"""Longest array that is read: beyond it no transaction fits in a block."""


def selector(signature: str) -> bytes:
    """The first four bytes of a call, from a signature such as `transfer(address,uint256)`."""
    return keccak256(signature.encode("ascii"))[:SELECTOR_BYTES]


def topic(signature: str) -> str:
    """The first topic of an event as JSON-RPC has it (0x and 64 hex digits)."""
    return "0x" + keccak256(signature.encode("ascii")).hex()


def uint_word(value: int) -> bytes:
    """A uint256 as 32 bytes. Raises InvalidValue: out of range."""
    if type(value) is not int or not 0 <= value <= MAX_UINT:
        raise InvalidValue(f"{value!r}: expected an integer of 256 bits without a sign")
    return value.to_bytes(WORD_BYTES, "big")


def address_word(address: bytes) -> bytes:
    """An address (20 bytes) as 32 bytes. Raises InvalidValue: not 20 bytes."""
    if len(address) != ADDRESS_BYTES:
        raise InvalidValue(f"address of {len(address)} bytes: expected {ADDRESS_BYTES}")
    return bytes(WORD_BYTES - ADDRESS_BYTES) + address


def word_address(word: bytes) -> bytes:
    """The address (20 bytes) in a word. Raises InvalidValue: its upper 12 bytes are not zero."""
    if any(word[: WORD_BYTES - ADDRESS_BYTES]):
        raise InvalidValue(f"word {word.hex()}: no address, its upper bytes are not zero")
    return word[WORD_BYTES - ADDRESS_BYTES :]


def word_uint(word: bytes) -> int:
    """The uint256 in a word."""
    return int.from_bytes(word, "big")


def words(calldata: bytes, expected: bytes, count: int) -> list[bytes]:
    """The arguments of a call whose arguments are `count` static words.

    Raises:
        InvalidValue: another selector than `expected` (4 bytes), or another length.
    """
    arguments = body(calldata, expected)
    if len(arguments) != count * WORD_BYTES:
        raise InvalidValue(f"calldata of {len(calldata)} bytes: expected {count} arguments of 32")
    return _cut(arguments)


def encode_two_arrays(selector: bytes, first: Sequence[bytes], second: Sequence[bytes]) -> bytes:
    """A call with two dynamic arrays of static words (32 bytes each) as its arguments.

    Raises:
        InvalidValue: more than `MAX_ITEMS` in one of them, or no words.
    """
    if max(len(first), len(second)) > MAX_ITEMS:
        raise InvalidValue(f"arrays of {len(first)} and {len(second)}: at most {MAX_ITEMS}")
    if any(len(word) != WORD_BYTES for word in (*first, *second)):
        raise InvalidValue("arrays: expected words of 32 bytes")
    second_at = (3 + len(first)) * WORD_BYTES
    head = uint_word(2 * WORD_BYTES) + uint_word(second_at)
    tails = (uint_word(len(array)) + b"".join(array) for array in (first, second))
    return selector + head + b"".join(tails)


def decode_two_arrays(calldata: bytes, expected: bytes) -> tuple[list[bytes], list[bytes]]:
    """The words of both arrays of such a call.

    Raises:
        InvalidValue: another selector than `expected`, or not what `encode_two_arrays` writes.
    """
    arguments = body(calldata, expected)
    if len(arguments) % WORD_BYTES or len(arguments) < 4 * WORD_BYTES:
        raise InvalidValue(f"calldata of {len(calldata)} bytes: no two arrays")
    all_words = _cut(arguments)
    first_length = word_uint(all_words[2])
    if first_length > len(all_words) - 4:
        raise InvalidValue("calldata: the first array is longer than all of it")
    first, second = all_words[3 : 3 + first_length], all_words[4 + first_length :]
    if encode_two_arrays(expected, first, second) != calldata:
        raise InvalidValue("calldata: not in its only form")
    return first, second


def encode_arguments(arguments: Sequence[bytes], dynamic: Collection[int] = ()) -> bytes:
    """Arguments of a call: static words (32 bytes each), and byte strings of any length at the places `dynamic`.

    Raises:
        InvalidValue: a static argument is no word.
    """
    head, tails = b"", b""
    for place, argument in enumerate(arguments):
        if place in dynamic:
            head += uint_word(len(arguments) * WORD_BYTES + len(tails))
            tails += uint_word(len(argument)) + argument + bytes(-len(argument) % WORD_BYTES)
        elif len(argument) == WORD_BYTES:
            head += argument
        else:
            raise InvalidValue(f"argument {place} of {len(argument)} bytes: expected a word of {WORD_BYTES}")
    return head + tails


def decode_arguments(encoded: bytes, count: int, dynamic: Collection[int] = ()) -> list[bytes]:
    """What `encode_arguments` wrote: a word for each static argument, the bytes of each dynamic one.

    Raises:
        InvalidValue: not what `encode_arguments` writes.
    """
    if len(encoded) % WORD_BYTES or len(encoded) < (count + len(dynamic)) * WORD_BYTES:
        raise InvalidValue(f"{len(encoded)} bytes: not {count} arguments")
    arguments = _cut(encoded[: count * WORD_BYTES])
    for place in dynamic:
        length_at = word_uint(arguments[place])
        start = length_at + WORD_BYTES
        length = word_uint(encoded[length_at:start]) if start <= len(encoded) else len(encoded)
        arguments[place] = encoded[start : start + length]
    if encode_arguments(arguments, dynamic) != encoded:
        raise InvalidValue("arguments: not in their only form")
    return arguments


def body(calldata: bytes, expected: bytes) -> bytes:
    """What follows the selector. Raises InvalidValue: another selector than `expected` (4 bytes)."""
    if calldata[:SELECTOR_BYTES] != expected:
        raise InvalidValue(
            f"calldata: selector {calldata[:SELECTOR_BYTES].hex() or 'missing'}, expected {expected.hex()}"
        )
    return calldata[SELECTOR_BYTES:]


def _cut(encoded: bytes) -> list[bytes]:
    return [encoded[at : at + WORD_BYTES] for at in range(0, len(encoded), WORD_BYTES)]
