"""The daemon's configuration: one TOML file, read and checked whole at start."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from chains.errors import InvalidValue
from policies.canonical import Name
from signers.errors import BadConfiguration
from signers.keys.keyref import KeyRef, SoftwareRef, parse_keyref
from signers.process.files import read_toml
from signers.process.rates import Rate
from signers.wire import CallName

JOURNAL_FILE: Final = "journal.sqlite"
PINNED_FILE: Final = "pinned.json"
MARK_FILE: Final = "journal.mark"
LOG_FILE: Final = "log.jsonl"
MAX_PIN_BYTES: Final = 256


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of the configuration's sections."""


Environment = Literal["production", "trial"]
"""What a signer is for. In production it uses no keys in files, and keys that were tested only."""


Outgoing = Literal["none", "token"]
"""`token`: an HSM's library may reach it over the network. The signer's own code never connects anywhere."""


class TokenSection(_Section, frozen=True):
    """`[tokens.NAME]`: an HSM's token; several may be in one library."""

    module: str
    """Path of the vendor's PKCS#11 library."""
    label: Annotated[str, msgspec.Meta(min_length=1, max_length=32)]
    pin_file: str | None = None
    """File with the user PIN, readable by its owner only."""
    pin_fd: Annotated[int, msgspec.Meta(ge=3)] | None = None
    """Open file descriptor from which the PIN can be read, instead of `pin_file`."""


class KeySection(_Section, frozen=True):
    """`[keys.ID]`: the keys of a key-set, or this signer's keys of a vault."""

    uri: str
    """Where they are, see `signers.keys.keyref`."""

    @property
    def ref(self) -> KeyRef:
        """The same, parsed. Raises InvalidValue."""
        return parse_keyref(self.uri)


class ListenSection(_Section, frozen=True):
    """`[listen]`: a Unix socket, or TLS 1.3 with pinned client certificates."""

    unix: str | None = None
    """Path of the socket (made with mode 0600)."""
    host: str | None = None
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] | None = None
    certificate: str | None = None
    """PEM of the daemon's own certificate."""
    private_key: str | None = None
    """PEM of its key."""
    clients: tuple[str, ...] = ()
    """PEM files of the client certificates that may connect; nobody else may, whoever signed theirs."""
    max_connections: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 64
    """Of each client (certificate, or user at a Unix socket); and handshakes under way."""
    rates: dict[CallName, Rate] = {}
    """`[listen.rates.CALL]`: how often each client may make a call; `signers.process.rates` has what others are."""


class SignerConfig(_Section, frozen=True):
    """The whole file."""

    environment: Environment
    directory: str
    """Holds `journal.sqlite`, `pinned.json`, and `KEYSET.seed.json` (BTC) or `KEYSET.key.json` (EVM)."""
    mark_directory: str
    """Another directory, in production of another user, for `journal.mark`."""
    bundle_path: str
    """JSON of the signed bundle; re-read when it changes."""
    keys: Annotated[dict[Name, KeySection], msgspec.Meta(min_length=1)]
    """By the id that the bundle has for the key-set or vault."""
    listen: ListenSection
    tokens: dict[Name, TokenSection] = {}
    """Needed by all keys but those in files."""
    user: str | None = None
    """Whom the process becomes if it is started as root; in production nobody else may run it."""
    mark_user: str | None = None
    """Whom the keeper of the mark becomes; another one than `user`."""
    outgoing: Outgoing = "none"
    """What connections the kernel lets this process make."""
    demo_clock: str | None = None
    """File of a trial's clock (`policies.democlock`), on test networks only; production refuses it."""
    log_directory: str | None = None
    """For `log.jsonl`, the signed log; where it is missing, the log is in `directory`."""

    @property
    def journal_path(self) -> Path:
        """The journal."""
        return Path(self.directory) / JOURNAL_FILE

    @property
    def pinned_path(self) -> Path:
        """The quorum's keys."""
        return Path(self.directory) / PINNED_FILE

    @property
    def log_path(self) -> Path:
        """The signed log."""
        return Path(self.log_directory or self.directory) / LOG_FILE

    @property
    def mark_path(self) -> Path:
        """The journal's high-water mark."""
        return Path(self.mark_directory) / MARK_FILE


def read_config(path: Path) -> SignerConfig:
    """Read and check the configuration.

    Raises:
        BadConfiguration: says what to write where.
    """
    config = read_toml(path, SignerConfig, "configuration", readers="anybody")
    _check_keys(path, config)
    tls = (config.listen.host, config.listen.port, config.listen.certificate, config.listen.private_key)
    if config.listen.unix is not None:
        if any(part is not None for part in tls) or config.listen.clients:
            raise BadConfiguration(f"{path}: write either listen.unix or the TLS settings, not both")
    elif any(part is None for part in tls) or not config.listen.clients:
        raise BadConfiguration(
            f"{path}: write listen.unix, or all of listen.host, port, certificate, private_key and clients"
        )
    if Path(config.directory).resolve() == Path(config.mark_directory).resolve():
        raise BadConfiguration(f"{path}: mark_directory must be another directory than directory")
    if config.user is not None and config.user == config.mark_user:
        raise BadConfiguration(f"{path}: mark_user must be another user than user")
    if config.environment == "production" and config.demo_clock is not None:
        raise BadConfiguration("demo_clock: remove it, in production the clock is the machine's")
    if config.environment == "production" and (config.user is None or config.mark_user is None):
        raise BadConfiguration(
            f"{path}: write user and mark_user, two users without privileges: whoever takes over the signer must not "
            "be able to turn back its mark"
        )
    return config


def _check_keys(path: Path, config: SignerConfig) -> None:
    """Check tokens and keys. Raises BadConfiguration."""
    for name, token in config.tokens.items():
        if (token.pin_file is None) == (token.pin_fd is None):
            raise BadConfiguration(f"{path}: write exactly one of pin_file and pin_fd in [tokens.{name}]")
    places = [(token.module, token.label) for token in config.tokens.values()]
    if len(set(places)) != len(places):
        raise BadConfiguration(f"{path}: two sections [tokens.NAME] name the same token")
    for keyset, section in config.keys.items():
        try:
            ref = section.ref
        except InvalidValue as error:
            raise BadConfiguration(f"{path}: uri in [keys.{keyset}]: {error}") from None
        if isinstance(ref, SoftwareRef):
            if config.environment != "trial":
                raise BadConfiguration(
                    f'{path}: [keys.{keyset}] is a key in a file; that is for environment = "trial" only'
                )
        elif ref.token not in config.tokens:
            raise BadConfiguration(f"{path}: [keys.{keyset}] names a section [tokens.{ref.token}]: write it")


def pin_reader(section: TokenSection) -> Callable[[], str]:
    """The callback that reads the PIN when the token asks for it.

    Raises:
        BadConfiguration: (the callback) the file is missing, empty, or open to other users.
    """
    if section.pin_fd is not None:
        descriptor = section.pin_fd
        # A descriptor can be read once; the HSM may ask again after it was lost. So it is rewound (memfd, file).
        return lambda: _pin(os.pread(descriptor, MAX_PIN_BYTES, 0), f"descriptor {descriptor}")
    path = Path(section.pin_file or "")

    def read() -> str:
        try:
            if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise BadConfiguration(f"PIN file {path} is open to other users: chmod 600 it")
            return _pin(path.read_bytes(), str(path))
        except OSError as error:
            raise BadConfiguration(f"PIN file {path}: {error.strerror}") from None

    return read


def _pin(raw: bytes, source: str) -> str:
    pin = raw.decode("utf-8", errors="replace").strip()
    if not pin or len(raw) >= MAX_PIN_BYTES:
        raise BadConfiguration(f"{source}: expected the token's user PIN and nothing else")
    return pin
