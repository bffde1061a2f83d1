"""Commands and events as bytes: JSON arrays, tag first. JSON, because 18 decimals do not fit msgpack's 64 bits.

`encode_*` gives one line without a line feed, the same bytes for equal values. `run` is the whole engine as a function
from bytes to bytes: the seam where a native core can stand in, compared byte by byte.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from chains.errors import InvalidValue
from custody.trading.commands import AnyCommand
from custody.trading.events import AnyEvent

if TYPE_CHECKING:
    from custody.trading.engine import Engine

_ENCODER: Final = msgspec.json.Encoder()
_COMMAND: Final = msgspec.json.Decoder(AnyCommand)
_EVENTS: Final = msgspec.json.Decoder(list[AnyEvent])

encode_command = _ENCODER.encode
"""One command to bytes."""
encode_events = _ENCODER.encode
"""The list of events that one command gave, to bytes."""


def decode_command(data: bytes) -> AnyCommand:
    """One command from bytes.

    Raises:
        InvalidValue: these bytes are no command.
    """
    try:
        command: AnyCommand = _COMMAND.decode(data)
    except msgspec.DecodeError as error:
        raise InvalidValue(f"command: {error}") from None
    return command


def decode_events(data: bytes) -> list[AnyEvent]:
    """The events of one command from bytes.

    Raises:
        InvalidValue: these bytes are no list of events.
    """
    try:
        return _EVENTS.decode(data)
    except msgspec.DecodeError as error:
        raise InvalidValue(f"events: {error}") from None


def run(engine: Engine, command: bytes) -> bytes:
    """Applies one command and answers its events, both as bytes.

    Raises:
        InvalidValue: these bytes are no command; the engine is unchanged.
    """
    return encode_events(engine.apply(decode_command(command)))
