"""Which programs held a ceremony, so that it can be said later, and compared on two machines before."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from pathlib import Path
from typing import Final

_PACKAGES: Final = ("chains", "policies", "signers")
_LIBRARIES: Final = ("PyKCS11", "bip-utils", "coincurve", "cryptography", "embit", "shamir-mnemonic")
_ROOT: Final = Path(__file__).parents[2]


def code_hash(root: Path = _ROOT) -> str:
    """SHA-256 (hex) over names and contents of all Python files that a signer consists of."""
    digest = hashlib.sha256()
    for path in sorted(path for package in _PACKAGES for path in root.joinpath(package).rglob("*.py")):
        for part in (path.relative_to(root).as_posix().encode(), path.read_bytes()):
            digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def tool_text() -> str:
    """Hash of the code, and the versions of Python and of the libraries that touch keys."""
    versions = [f"{name} {importlib.metadata.version(name)}" for name in _LIBRARIES]
    return f"strongroom code {code_hash()}; Python {platform.python_version()}; {', '.join(versions)}"
