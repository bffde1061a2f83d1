"""The environment of a command at the host: a worker's settings."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from policies.bundle import TrustRoot
from tests.fakes.api import as_role


def worker_environment(database: str, bundle_path: Path, root: TrustRoot, directory: Path) -> dict[str, str]:
    """Settings of a worker on Bitcoin that asks no node and no signer.

    Args:
        database: a superuser's URL.
        bundle_path: the signed bundle.
        root: written to `directory`.
        directory: for files.
    """
    root_path = directory / "root.json"
    root_path.write_bytes(msgspec.json.encode(root))
    node = {"rpc_url": "http://u:p@127.0.0.1:1", "rest_url": "http://127.0.0.1:1"}
    return {
        "STRONGROOM_DATABASE_URL": as_role(database, "strongroom_worker"),
        "STRONGROOM_REDIS_URL": "redis://:unused@127.0.0.1:1/0",
        "STRONGROOM_BUNDLE_PATH": str(bundle_path),
        "STRONGROOM_TRUST_ROOT_PATH": str(root_path),
        "STRONGROOM_NODES": json.dumps({"btc": node}),
        "STRONGROOM_SCREENING": json.dumps({"elsewhere": "tests"}),
        "STRONGROOM_SIGNERS": json.dumps({"btc-hot": {"socket": str(directory / "signer.sock")}}),
    }
