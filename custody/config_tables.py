"""Tables of the settings that are long: who screens, and how; where the trading core is.

```toml
[screening]
lists = ["/etc/strongroom/lists", "/etc/strongroom/own.csv"]   # files, and directories of *.csv
lists_valid_days = 7

[screening.http.kyt]
url = "https://kyt.example/v1/screen"
token_path = "/etc/strongroom/kyt.token"                       # sent as `Authorization: Bearer ...`
timeout_seconds = 5
clear_seconds = 900                                            # so long is an answer kept
hit_seconds = 300
```

Or, for an installation where somebody else does it: `elsewhere = "the exchange's compliance gateway"`.

```toml
[trading]                         # of workers and `strongroom reconcile`: the trading core, if there is one
url = "http://127.0.0.1:8090"
audience = "trading"
caller = "reconcile"              # in the bundle, with the scope trading:read
key_path = "/etc/strongroom/reconcile.pem"
```
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TAKEN: Final = frozenset({"lists", "elsewhere"})
"""Names of providers that are no HTTP ones: records tell them apart by name."""
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_HTTP_FIELDS: Final = frozenset(
    {"url", "token_path", "ca_path", "timeout_seconds", "clear_seconds", "hit_seconds"}
)
Problem = Callable[[str], None]
Network = IPv4Network | IPv6Network
LOOPBACK: Final[tuple[Network, ...]] = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))


@dataclass(frozen=True, slots=True)
class HttpScreening:
    """A provider that answers over HTTP."""

    url: str
    token_path: Path | None
    """Holds the token, alone; read for each question, so that it can be replaced."""
    ca_path: Path | None
    """Certificates (PEM) that its own must come from; None: those that the system trusts."""
    timeout_seconds: int
    """For the whole of one question."""
    clear_seconds: int
    """How long an answer that nothing is known is good."""
    hit_seconds: int
    """How long any other."""


@dataclass(frozen=True, slots=True)
class ScreeningSettings:
    """Who screens destinations and deposits: all of them are asked."""

    lists: tuple[Path, ...]
    lists_valid_days: int
    http: Mapping[str, HttpScreening]
    elsewhere: str
    """Who else does it; empty: nobody."""


NOT_SCREENED: Final = ScreeningSettings((), 0, {}, "")
"""Of a process that screens nothing."""


@dataclass(frozen=True, slots=True)
class TradingCoreSettings:
    """Where the trading core answers, and as whom we ask it."""

    url: str
    audience: str
    """Its own name."""
    caller: str
    """Our id in the bundle."""
    key_path: Path


def read_trading(field: str, raw: Any, problem: Problem) -> TradingCoreSettings | None:
    """`[trading]` with url, audience, caller and key_path, or None after telling every `problem` of it."""
    troubles: list[str] = []
    known = ("url", "audience", "caller", "key_path")
    if not isinstance(raw, dict) or set(raw) != set(known):
        problem(f"{field}: write a table of {', '.join(known)}")
        return None
    if not _is_safe(raw["url"]):
        troubles.append(f"{field}.url: write https://HOST, or http://127.0.0.1:PORT on this host")
    for name in ("audience", "caller"):
        if not isinstance(raw[name], str) or not _NAME.fullmatch(raw[name]):
            troubles.append(f"{field}.{name}: write 1 to 64 of A-Za-z0-9._-")
    path = _file(f"{field}.key_path", raw["key_path"], troubles)
    for each in troubles:
        problem(each)
    if troubles or path is None:
        return None
    return TradingCoreSettings(raw["url"], raw["audience"], raw["caller"], path)


def read_networks(field: str, raw: Any, problem: Problem) -> tuple[Network, ...] | None:
    """Networks such as `10.1.0.0/16`, or None after telling every `problem` of them."""
    if not isinstance(raw, list) or not all(isinstance(each, str) for each in raw):
        problem(f'{field}: write a list of networks, such as ["127.0.0.0/8", "10.1.2.3/32"]')
        return None
    found: list[Network] = []
    for text in raw:
        try:
            found.append(ip_network(text))
        except ValueError as error:
            problem(f"{field}: {text[:64]!r}: {error}")
    return None if len(found) != len(raw) else tuple(found)


def read_screening(field: str, raw: Any, problem: Problem) -> ScreeningSettings | None:
    """The table, or None after telling every `problem` of it."""
    if not isinstance(raw, dict):
        problem(f"{field}: write a table [{field}] with lists, http, or elsewhere")
        return None
    troubles: list[str] = []
    known = {"lists", "lists_valid_days", "http", "elsewhere"}
    troubles += [
        f"{field}.{name} is no setting: write {', '.join(sorted(known))}" for name in raw.keys() - known
    ]
    elsewhere = raw.get("elsewhere", "")
    if not isinstance(elsewhere, str) or len(elsewhere) > 200:
        troubles.append(f"{field}.elsewhere: write who screens instead, in at most 200 characters")
    lists = _paths(f"{field}.lists", raw.get("lists", []), troubles)
    days = _number(f"{field}.lists_valid_days", raw.get("lists_valid_days", 7), 1, 366, troubles)
    tables = raw.get("http", {})
    if not isinstance(tables, dict):
        troubles.append(f"{field}.http: write one table for each provider, as [{field}.http.NAME]")
        tables = {}
    http = {name: _http(f"{field}.http.{name}", name, table, troubles) for name, table in tables.items()}
    if bool(lists or http) is bool(elsewhere):
        troubles.append(f"{field}: write lists or http, or else elsewhere: who screens instead")
    for sentence in troubles:
        problem(sentence)
    found = {name: each for name, each in http.items() if each is not None}
    return None if troubles else ScreeningSettings(lists, days, found, elsewhere)


def _http(where: str, name: str, table: Any, troubles: list[str]) -> HttpScreening | None:
    if not _NAME.fullmatch(name) or name in _TAKEN or not isinstance(table, dict):
        troubles.append(
            f"{where}: write a table whose name is 1 to 64 of A-Za-z0-9._-, not lists or elsewhere"
        )
        return None
    unknown = table.keys() - _HTTP_FIELDS
    troubles += [f"{where}.{each} is no setting: write {', '.join(sorted(_HTTP_FIELDS))}" for each in unknown]
    if not _is_safe(table.get("url")):
        troubles.append(
            f"{where}.url: write https://HOST/PATH; plain http:// to 127.0.0.1 only; no password in it"
        )
    return HttpScreening(
        str(table.get("url")),
        _file(f"{where}.token_path", table.get("token_path"), troubles),
        _file(f"{where}.ca_path", table.get("ca_path"), troubles),
        _number(f"{where}.timeout_seconds", table.get("timeout_seconds", 5), 1, 30, troubles),
        _number(f"{where}.clear_seconds", table.get("clear_seconds", 900), 0, 86_400, troubles),
        _number(f"{where}.hit_seconds", table.get("hit_seconds", 300), 0, 86_400, troubles),
    )


def _is_safe(url: Any) -> bool:
    try:
        parts = urlsplit(url) if isinstance(url, str) else None
        if parts is None or not parts.hostname or parts.username or parts.password or parts.fragment:
            return False
        _ = parts.port
    except ValueError:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)


def _paths(where: str, raw: Any, troubles: list[str]) -> tuple[Path, ...]:
    if not isinstance(raw, list) or not all(
        isinstance(each, str) and Path(each).is_absolute() for each in raw
    ):
        troubles.append(f"{where}: write a list of absolute paths of files and directories")
        return ()
    troubles += [
        f"{where}: {each}: there is no such file or directory" for each in raw if not Path(each).exists()
    ]
    return tuple(Path(each) for each in raw)


def _file(where: str, raw: Any, troubles: list[str]) -> Path | None:
    if raw is None:
        return None
    if not isinstance(raw, str) or not Path(raw).is_absolute() or not Path(raw).is_file():
        troubles.append(f"{where}: write the absolute path of a file that is there")
        return None
    return Path(raw)


def _number(where: str, raw: Any, least: int, most: int, troubles: list[str]) -> int:
    if type(raw) is not int or not least <= raw <= most:
        troubles.append(f"{where}: write a number, {least} to {most}")
        return least
    return raw
