"""The resources of an EVM chain, as a monitor watches them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from chains.errors import InvalidValue
from chains.eth.address import raw_address
from chains.eth.safe import parse_safe_resource
from chains.eth.tx import MAX_NONCE

_RESOURCE: Final = re.compile(r"0x([0-9a-f]{40}):(0|[1-9][0-9]{0,19})")


class WatchedSenders:
    """Every nonce of some senders and Safes, also those that nobody has reserved: so that foreign uses are seen.

    It cannot grow or shrink by single resources; being told of one changes nothing.
    """

    __slots__ = ("safes", "senders", "texts")

    def __init__(self, senders: Iterable[str], safes: Iterable[str] = ()) -> None:
        """Watches these addresses (EIP-55). Raises InvalidAddress: one is written otherwise."""
        self.senders = frozenset(raw_address(sender) for sender in senders)
        """Keys, as 20 bytes each."""
        self.safes = frozenset(raw_address(safe) for safe in safes)
        """Safes, which have nonces of their own, as 20 bytes each."""
        self.texts = frozenset("0x" + sender.hex() for sender in self.senders)
        """As JSON-RPC writes them: in lower case."""

    def update(self, resources: Iterable[str]) -> None:
        """Changes nothing: all nonces are watched."""

    def discard(self, resource: str) -> None:
        """Changes nothing: all nonces are watched."""

    def __contains__(self, resource: object) -> bool:
        if not isinstance(resource, str):
            return False
        match = _RESOURCE.fullmatch(resource)
        if match is not None:
            return int(match[2]) <= MAX_NONCE and bytes.fromhex(match[1]) in self.senders
        try:
            return parse_safe_resource(resource)[0] in self.safes
        except InvalidValue:
            return False
