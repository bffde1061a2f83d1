"""No network, by construction: the process gives up its network modules before it imports anything else.

Some libraries import network modules that they never use here (`importlib.metadata` does by way of `email`, segno by
way of `xml.sax`). In their place stand empty modules, and a hook refuses every socket that anything would open all
the same, also from C. Neither can be undone in this process.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any, Final

from chains.errors import PermanentError

NETWORK_MODULES: Final = (
    "_socket",
    "socket",
    "socketserver",
    "_ssl",
    "ssl",
    "http",
    "http.client",
    "http.server",
    "urllib.request",
    "ftplib",
    "smtplib",
    "xmlrpc",
    "_asyncio",
    "asyncio",
)
"""What this process cannot load. `urllib.parse` cuts texts only, and `pathlib` needs it."""
_REFUSED: Final = ("socket.", "urllib.", "http.", "ftplib.", "smtplib.")
"""Beginnings of the audit events that whatever meets the network raises (PEP 578)."""


class NetworkLoaded(PermanentError):
    """A network module was loaded before the process could give it up."""


class NetworkRefused(PermanentError):
    """Something tried to meet the network."""


def seal() -> None:
    """Give up the network for good. The first thing that the program does; again changes nothing.

    Raises:
        NetworkLoaded: too late: start the program by its own command, without debuggers and start-up files.
    """
    present = [name for name in NETWORK_MODULES if name in sys.modules]
    if any(not isinstance(sys.modules[name], _Absent) for name in present):
        raise NetworkLoaded(
            f"{', '.join(present)} loaded already: start strongroom-airgap by its own command"
        )
    if len(present) == len(NETWORK_MODULES):
        return
    sys.addaudithook(_refuse)
    for name in NETWORK_MODULES:
        sys.modules[name] = _Absent(name)


class _Absent(ModuleType):
    """A module of which only the name is there."""


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event.startswith(_REFUSED):
        raise NetworkRefused(f"{event} {arguments!r}: this program never meets the network")
