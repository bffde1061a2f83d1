"""Settings of one process: from a TOML file, from the environment, or both; all of it checked at start.

`STRONGROOM_CONFIG` names the TOML file; a variable `STRONGROOM_<FIELD>` (upper case) wins over the file's
field of that name. Tables (`nodes`, `signers`, `screening`) are JSON objects in a variable. Nothing secret has a
default, and nothing here decides over money: that is the bundle's.

```toml
database_url = "postgresql://strongroom_worker:...@127.0.0.1:5432/strongroom"
redis_url = "redis://:...@127.0.0.1:6379/0"
bundle_path = "/etc/strongroom/bundle.json"
trust_root_path = "/etc/strongroom/trust_root.json"

[nodes.bitcoin]
rpc_url = "http://user:...@127.0.0.1:8332"
rest_url = "http://127.0.0.1:8332"
zmq_url = "tcp://127.0.0.1:28332"

[nodes.ethereum]
rpc_url = "http://user:...@127.0.0.1:8545"

[signers.btc-hot]
socket = "/run/strongroom/signer.sock"

[verifiers.vera]                  # warm and cold payments need a verdict
socket = "/run/strongroom/vera.sock"

[signers."btc-warm/berlin"]       # a vault's members have a signer each
socket = "/run/strongroom/berlin.sock"

operator_networks = ["127.0.0.0/8", "::1/128"]   # of the API: from where operators may come

[screening]                       # see custody.config_tables
lists = ["/etc/strongroom/lists"]
```
"""

from __future__ import annotations

import json
import os
import re
import stat
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from custody.config_tables import (
    LOOPBACK,
    NOT_SCREENED,
    Network,
    ScreeningSettings,
    TradingCoreSettings,
    read_networks,
    read_screening,
    read_trading,
)
from custody.errors import InvalidConfiguration

FILE_VARIABLE: Final = "STRONGROOM_CONFIG"
_PREFIX: Final = "STRONGROOM_"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SIGNER: Final = re.compile(rf"{_NAME.pattern}(/{_NAME.pattern})?")
"""A key-set, or a vault and which of its members."""
_PATIENCE: Final = (60, 43_200)
"""Seconds: the least and the most of `verifier_silent_seconds`."""
_T = TypeVar("_T")


class Process(StrEnum):
    """Which process the settings are for: each needs its own, and no more."""

    API = "api"
    MONITOR = "monitor"
    WORKER = "worker"
    BEAT = "beat"
    RECONCILE = "reconcile"


_ROLES: Final = {
    Process.API: "strongroom_api",
    Process.MONITOR: "strongroom_monitor",
    Process.WORKER: "strongroom_worker",
    Process.RECONCILE: "strongroom_read",
}
_TRUST: Final = frozenset({"bundle_path", "trust_root_path"})
_NEEDS: Final = {
    Process.API: frozenset({"database_url", "redis_url", "signers", "audience"}) | _TRUST,
    Process.MONITOR: frozenset({"database_url", "nodes", "screening"}) | _TRUST,
    Process.WORKER: frozenset({"database_url", "redis_url", "nodes", "signers", "screening"}) | _TRUST,
    Process.BEAT: frozenset({"redis_url"}),
    Process.RECONCILE: frozenset({"database_url", "nodes"}) | _TRUST,
}


@dataclass(frozen=True, slots=True, repr=False)
class Secret:
    """A text that must not be shown: only `reveal` gives it."""

    _text: str

    def reveal(self) -> str:
        """The text itself, for the one place that needs it."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __repr__(self) -> str:
        return "[secret]"

    __str__ = __repr__


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """Where a chain's own node answers."""

    rpc_url: Secret
    rest_url: str
    """Of a BTC node; empty for an EVM node."""
    zmq_url: str
    """Of a BTC node. Empty: no announcements; the node is asked every second."""


@dataclass(frozen=True, slots=True)
class SocketSigner:
    """A signer on this host, behind a Unix socket."""

    socket: Path


@dataclass(frozen=True, slots=True)
class TlsSigner:
    """A signer behind TLS 1.3: it proves itself by its pinned certificate, we by ours."""

    host: str
    port: int
    server_certificate: Path
    client_certificate: Path
    client_key: Path


SignerSettings = SocketSigner | TlsSigner


@dataclass(frozen=True, slots=True)
class Settings:
    """What one process is told at its start. Texts and tables that it does not need may be empty."""

    process: Process
    database_url: Secret
    redis_url: Secret
    bundle_path: Path
    trust_root_path: Path
    nodes: Mapping[str, NodeSettings]
    """By chain id of the bundle."""
    signers: Mapping[str, SignerSettings]
    """By key-set id of the bundle; of a vault by its id, a slash, and the member's."""
    verifiers: Mapping[str, SignerSettings]
    """Whom to ask for verdicts, by id in the bundle."""
    audience: str
    """The service's own name, which callers put into their tokens."""
    api_host: str
    api_port: int
    screening: ScreeningSettings
    """Who knows which destinations and deposits must not be dealt with."""
    sealing_keys_path: Path | None
    """The key ring of sealed columns, see `custody.storage.sealing`; null: no personal data is taken in."""
    travel_rule_outbox: Path | None
    """A directory from which a gateway takes travel-rule data; null: none is delivered."""
    prices_path: Path | None
    """A file of present prices (`custody.pricing`); null: values are known between the bundle's bounds only."""
    prices_valid_seconds: int
    """Older prices are none."""
    gather_seconds: int | None
    """How long withdrawals, and deposits to be swept, wait for others to share a transaction; null: the usual, seconds
    for the former and minutes for the latter."""
    demo_clock_path: Path | None
    """What a demonstration sets its clock forward by (`policies.democlock`), on test networks only; null: the clock is
    the machine's."""
    trading: TradingCoreSettings | None
    """The trading core that is reconciled with the ledger; null: there is none."""
    operator_networks: tuple[Network, ...]
    """From where operators may use the API: addresses of connections, or what a trusted proxy says of them."""
    trusted_proxies: tuple[Network, ...]
    """Whose `X-Forwarded-For` is believed."""
    verifier_silent_seconds: int | None
    """How long what a signer signed may wait for a verifier's word before that is an alert; null: three times what
    finality takes on its chain."""
    lookalike_head: int
    """So many first characters, and ..."""
    lookalike_tail: int
    """... so many last ones in common make an address look like a known one."""


def load(process: Process, environment: Mapping[str, str] | None = None) -> Settings:
    """Read and check everything.

    Args:
        process: whose settings.
        environment: variables; None: this process's own.

    Raises:
        InvalidConfiguration: with a sentence for each wrong or missing value that says what to write.
    """
    variables = os.environ if environment is None else environment
    reader = _Reader(process)
    reader.take(variables)
    settings = Settings(
        process=process,
        database_url=reader.value("database_url", reader.database, Secret("")),
        redis_url=reader.value("redis_url", reader.redis, Secret("")),
        bundle_path=reader.value("bundle_path", reader.file, Path()),
        trust_root_path=reader.value("trust_root_path", reader.file, Path()),
        nodes=reader.value("nodes", reader.nodes, {}),
        signers=reader.value("signers", reader.signers, {}),
        verifiers=reader.value("verifiers", reader.verifiers, {}),
        audience=reader.value("audience", reader.name, ""),
        api_host=reader.value("api_host", reader.host, "127.0.0.1"),
        api_port=reader.value("api_port", reader.port, 8080),
        screening=reader.value("screening", reader.screening, NOT_SCREENED),
        sealing_keys_path=reader.value("sealing_keys_path", reader.file, None),
        travel_rule_outbox=reader.value("travel_rule_outbox", reader.directory, None),
        prices_path=reader.value("prices_path", reader.file, None),
        prices_valid_seconds=reader.value("prices_valid_seconds", reader.seconds, 300),
        gather_seconds=reader.value("gather_seconds", reader.seconds, None),
        demo_clock_path=reader.value("demo_clock_path", reader.file, None),
        trading=reader.value("trading", reader.trading, None),
        operator_networks=reader.value("operator_networks", reader.networks, LOOPBACK),
        trusted_proxies=reader.value("trusted_proxies", reader.networks, ()),
        verifier_silent_seconds=reader.value("verifier_silent_seconds", reader.patience, None),
        lookalike_head=reader.value("lookalike_head", reader.characters, 4),
        lookalike_tail=reader.value("lookalike_tail", reader.characters, 4),
    )
    if reader.problems:
        raise InvalidConfiguration(reader.problems)
    return settings


_FIELDS: Final = frozenset(Settings.__dataclass_fields__) - {"process"}
_TABLES: Final = frozenset(
    {"nodes", "signers", "verifiers", "screening", "trading", "operator_networks", "trusted_proxies"}
)
_NUMBERS: Final = frozenset(
    {
        "api_port",
        "gather_seconds",
        "prices_valid_seconds",
        "verifier_silent_seconds",
        "lookalike_head",
        "lookalike_tail",
    }
)


class _Reader:
    """Collects values and problems. No sentence contains a value that may be secret."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.problems: list[str] = []
        self._raw: dict[str, Any] = {}

    def take(self, variables: Mapping[str, str]) -> None:
        """Reads the file that `STRONGROOM_CONFIG` names, and what variables say beside it."""
        if variables.get(FILE_VARIABLE):
            self._raw = self._toml(Path(variables[FILE_VARIABLE]))
        for unknown in sorted(self._raw.keys() - _FIELDS):
            self.problem(f"{unknown} is no setting: write one of {', '.join(sorted(_FIELDS))}")
        for field in _FIELDS:
            text = variables.get(_PREFIX + field.upper())
            if text is None:
                continue
            self._raw[field] = text
            if field in _TABLES:
                try:
                    self._raw[field] = json.loads(text)
                except ValueError:
                    self._raw[field] = None
            elif field in _NUMBERS and re.fullmatch(r"[0-9]{1,6}", text):
                self._raw[field] = int(text)

    def value(self, field: str, check: Callable[[str, Any], _T | None], default: _T) -> _T:
        """The checked value, or the default where there is none or it is wrong (then with a problem)."""
        if field not in self._raw:
            if field in _NEEDS[self.process]:
                self.problem(
                    f"{field} is missing, and {self.process} needs it: write {field} into the file that "
                    f"{FILE_VARIABLE} names, or set {_PREFIX}{field.upper()}"
                )
            return default
        found = check(field, self._raw[field])
        return default if found is None else found

    def problem(self, sentence: str) -> None:
        self.problems.append(sentence)

    def _toml(self, path: Path) -> dict[str, Any]:
        try:
            if stat.S_IMODE(path.stat().st_mode) & 0o007:
                self.problem(f"{path} can be read by everybody and holds passwords: run chmod 600 {path}")
            return tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8"
            self.problem(f"{FILE_VARIABLE} names {path}, which cannot be read: {reason}")
        except tomllib.TOMLDecodeError as error:
            self.problem(f"{path} is not TOML: {error}")
        return {}

    def database(self, field: str, raw: Any) -> Secret | None:
        role = _ROLES.get(self.process)
        try:
            parts = conninfo_to_dict(raw) if isinstance(raw, str) else {}
        except ProgrammingError:
            parts = {}
        if not parts.get("dbname") or not parts.get("user"):
            self.problem(f"{field}: write postgresql://{role or 'ROLE'}:PASSWORD@HOST:PORT/DATABASE")
            return None
        if role is not None and parts["user"] != role:
            self.problem(f"{field} logs in as {parts['user']}: {self.process} must use its own role {role}")
        return Secret(raw)

    def redis(self, field: str, raw: Any) -> Secret | None:
        if self._url(raw, "redis", "rediss", "unix") is None:
            self.problem(f"{field}: write redis://:PASSWORD@HOST:PORT/0")
            return None
        return Secret(raw)

    def networks(self, field: str, raw: Any) -> tuple[Network, ...] | None:
        return read_networks(field, raw, self.problem)

    def trading(self, field: str, raw: Any) -> TradingCoreSettings | None:
        return read_trading(field, raw, self.problem)

    def screening(self, field: str, raw: Any) -> ScreeningSettings | None:
        return read_screening(field, raw, self.problem)

    def file(self, field: str, raw: Any) -> Path | None:
        if not isinstance(raw, str) or not Path(raw).is_absolute():
            self.problem(f"{field}: write the absolute path of a file")
            return None
        if not Path(raw).is_file() or not os.access(raw, os.R_OK):
            self.problem(f"{field} is {raw}: there is no such file, or it cannot be read")
            return None
        return Path(raw)

    def directory(self, field: str, raw: Any) -> Path | None:
        if not isinstance(raw, str) or not Path(raw).is_absolute() or not Path(raw).is_dir():
            self.problem(f"{field}: write the absolute path of a directory that is there")
            return None
        return Path(raw)

    def name(self, field: str, raw: Any) -> str | None:
        if not isinstance(raw, str) or not _NAME.fullmatch(raw):
            self.problem(f"{field}: write 1 to 64 of A-Za-z0-9._-")
            return None
        return raw

    def host(self, field: str, raw: Any) -> str | None:
        if not isinstance(raw, str) or not re.fullmatch(r"[A-Za-z0-9.:-]{1,253}", raw):
            self.problem(f"{field}: write a host name or an IP address such as 127.0.0.1")
            return None
        return raw

    def port(self, field: str, raw: Any) -> int | None:
        if type(raw) is not int or not 1 <= raw <= 65535:
            self.problem(f"{field}: write a port number, 1 to 65535")
            return None
        return raw

    def seconds(self, field: str, raw: Any) -> int | None:
        if type(raw) is not int or not 0 <= raw <= 3600:
            self.problem(f"{field}: write a number of seconds, 0 to 3600")
            return None
        return raw

    def characters(self, field: str, raw: Any) -> int | None:
        if type(raw) is not int or not 2 <= raw <= 16:
            self.problem(f"{field}: write a number of characters, 2 to 16")
            return None
        return raw

    def patience(self, field: str, raw: Any) -> int | None:
        least, most = _PATIENCE
        if type(raw) is not int or not least <= raw <= most:
            self.problem(
                f"{field}: write a number of seconds, {least} to {most}: a signer's window is usually a day long, and"
                " when it is full paying stops"
            )
            return None
        return raw

    def nodes(self, field: str, raw: Any) -> dict[str, NodeSettings] | None:
        found: dict[str, NodeSettings] = {}
        for chain, table in self._tables(field, raw, "chain"):
            where = f"{field}.{chain}"
            self._only(where, table, {"rpc_url", "rest_url", "zmq_url"})
            rpc, rest, zmq = table.get("rpc_url"), table.get("rest_url", ""), table.get("zmq_url", "")
            if self._url(rpc, "http", "https") is None:
                self.problem(f"{where}.rpc_url: write http://USER:PASSWORD@HOST:PORT")
            elif rest != "" and self._url(rest, "http", "https") is None:
                self.problem(f"{where}.rest_url: write http://HOST:PORT (BTC), or leave it out (EVM)")
            elif zmq and self._url(zmq, "tcp", "ipc") is None:
                self.problem(f"{where}.zmq_url: write tcp://HOST:PORT, or leave it out")
            else:
                found[chain] = NodeSettings(Secret(str(rpc)), str(rest), str(zmq))
        return found

    def signers(self, field: str, raw: Any) -> dict[str, SignerSettings]:
        return self._listeners(field, self._tables(field, raw, "key-set or VAULT/MEMBER", _SIGNER))

    def verifiers(self, field: str, raw: Any) -> dict[str, SignerSettings]:
        return self._listeners(field, self._tables(field, raw, "verifier"))

    def _listeners(
        self, field: str, tables: list[tuple[str, Mapping[str, Any]]]
    ) -> dict[str, SignerSettings]:
        found: dict[str, SignerSettings] = {}
        for name, table in tables:
            listener = self._signer(f"{field}.{name}", table)
            if listener is not None:
                found[name] = listener
        return found

    def _signer(self, where: str, table: Mapping[str, Any]) -> SignerSettings | None:
        if "socket" in table:
            self._only(where, table, {"socket"})
            path = table["socket"]
            # The socket itself may come later: the signer is another process.
            if not isinstance(path, str) or not Path(path).is_absolute():
                self.problem(f"{where}.socket: write the absolute path of the signer's Unix socket")
                return None
            return SocketSigner(Path(path))
        files = ("server_certificate", "client_certificate", "client_key")
        self._only(where, table, {"host", "port", *files})
        if not {"host", "port", *files} <= table.keys():
            self.problem(f"{where}: write socket, or all of host, port, {', '.join(files)}")
            return None
        host, port = self.host(f"{where}.host", table["host"]), self.port(f"{where}.port", table["port"])
        server, certificate, key = (self.file(f"{where}.{name}", table[name]) for name in files)
        if host is None or port is None or server is None or certificate is None or key is None:
            return None
        return TlsSigner(host, port, server, certificate, key)

    def _tables(
        self, field: str, raw: Any, what: str, name: re.Pattern[str] = _NAME
    ) -> list[tuple[str, Mapping[str, Any]]]:
        if not isinstance(raw, dict) or not raw or not all(isinstance(table, dict) for table in raw.values()):
            self.problem(f"{field}: write one table for each {what}, as [{field}.ID] or a JSON object")
            return []
        for id in raw:
            if not name.fullmatch(id):
                self.problem(f"{field}: {id!r} is no {what} id, which is 1 to 64 of A-Za-z0-9._-")
        return list(raw.items())

    def _only(self, where: str, table: Mapping[str, Any], known: set[str]) -> None:
        for unknown in sorted(table.keys() - known):
            self.problem(f"{where}.{unknown} is no setting: write {', '.join(sorted(known))}")

    @staticmethod
    def _url(raw: Any, *schemes: str) -> str | None:
        try:
            parts = urlsplit(raw) if isinstance(raw, str) else None
            usable = parts is not None and parts.scheme in schemes and bool(parts.hostname or parts.path)
            _ = parts.port if parts is not None else None
        except ValueError:
            return None
        return raw if usable else None
