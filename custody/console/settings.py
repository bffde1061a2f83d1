"""Where the API is and as whom to call it: from the environment, or one TOML file. Nothing has a default."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from custody.errors import InvalidConfiguration

FILE_VARIABLE: Final = "STRONGROOM_CLIENT"
DEFAULT_FILE: Final = Path("client.toml")

_FIELDS: Final = {
    "api_url": ("STRONGROOM_API_URL", "the API's address, such as http://127.0.0.1:8080"),
    "caller": ("STRONGROOM_CALLER", "your caller's id in the bundle"),
    "caller_key": (
        "STRONGROOM_CALLER_KEY",
        "the file of your caller's private key (Ed25519, PKCS#8 PEM, mode 0600)",
    ),
    "audience": ("STRONGROOM_AUDIENCE", "the service's own name, as its operator configured it"),
}


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """What a client must know."""

    api_url: str
    caller: str
    caller_key: Path
    audience: str


def load(environment: Mapping[str, str] | None = None) -> ClientSettings:
    """Read the settings; a variable wins over the file's field of the same meaning.

    The file is the one that STRONGROOM_CLIENT names, else `client.toml` here if there is one.
    A relative `caller_key` in a file is relative to that file.

    Raises:
        InvalidConfiguration: says what to write where.
    """
    given = os.environ if environment is None else environment
    named = given.get(FILE_VARIABLE)
    path = Path(named) if named else DEFAULT_FILE
    written = _read(path) if named or path.exists() else {}
    problems = [f"{path}: there is no field {name!r}" for name in written if name not in _FIELDS]
    found: dict[str, str] = {}
    for name, (variable, meaning) in _FIELDS.items():
        value = given.get(variable) or written.get(name)
        if not isinstance(value, str) or not value:
            problems.append(f"set {variable}, or `{name} = ...` in {path}, to {meaning}")
            continue
        if name == "caller_key" and not given.get(variable):
            value = str(path.parent / value)
        found[name] = value
    if "api_url" in found and not found["api_url"].startswith(("http://", "https://")):
        problems.append(f"STRONGROOM_API_URL is {found['api_url']!r}: write it with http:// or https://")
    if not found:
        problems.append(
            "a trial's shell has all of them: `. DIR/env`, DIR being the data directory of its stack"
        )
    if problems:
        raise InvalidConfiguration(problems)
    return ClientSettings(found["api_url"], found["caller"], Path(found["caller_key"]), found["audience"])


def _read(path: Path) -> Mapping[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidConfiguration([f"{path}: {error.strerror}"]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidConfiguration([f"{path} is not TOML: {error}"]) from None
