"""Operators of tests: people of a bundle with keys and client files, and the verbs as they run them."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from typer.testing import CliRunner, Result

from custody.console import audit, case, operator, sealed
from custody.console.app import app
from policies.bundle import Bundle, Operator, OperatorRole
from policies.keys import SigningKey
from tests.fakes.api import as_role
from tests.fakes.signing import APPROVERS, CHAIN, DAY, SoftKeys, World

VERBS = (audit.audit_app, case.case_app, operator.operator, sealed.sealing_key)
"""Modules whose verbs the app has because they are imported."""
ALL_ROLES: tuple[OperatorRole, ...] = ("support", "treasury", "compliance", "security", "auditor")
ROLES: dict[str, Sequence[OperatorRole]] = {
    "otto": ALL_ROLES,
    "ada": ALL_ROLES,
    "sue": ("support",),
    "tess": ("treasury",),
    "carl": ("compliance",),
    "max": ("security",),
    "aud": ("auditor",),
}
"""Who is an operator of `Office`; ada is an approver, too."""


def client_file(directory: Path, name: str, key: SigningKey) -> Path:
    """What `STRONGROOM_OPERATOR` names for somebody who signs with `key`."""
    path, pem = directory / f"{name}.toml", directory / f"{name}-{key.public_hex[:8]}.pem"
    if not pem.exists():
        key.save(pem)
    path.write_text(
        f'api_url = "http://127.0.0.1:1"\naudience = "tests"\ncaller = "{name}"\ncaller_key = "{pem}"\n'
    )
    return path


@dataclass
class Office:
    """A database, a signed bundle that names operators, and their client files."""

    database: str
    directory: Path
    world: World = field(default_factory=lambda: World(SoftKeys.make().record, now=int(time.time())))
    keys: dict[str, SigningKey] = field(
        default_factory=lambda: {name: SigningKey.generate() for name in ROLES}
    )

    def __post_init__(self) -> None:
        for name in ROLES:
            client_file(self.directory, name, self.keys[name])
        (self.directory / "root.json").write_bytes(msgspec.json.encode(self.world.root))
        self.publish(self.bundle())

    def operators(self, **roles: Sequence[OperatorRole]) -> tuple[Operator, ...]:
        """As they are in the bundle; `roles` are others than usual."""
        return tuple(
            Operator(
                id=name,
                key=self.keys[name].public_hex,
                organisation=APPROVERS.get(name, "house"),
                roles=tuple(roles.get(name, usual)),
                not_after=self.world.now + DAY,
            )
            for name, usual in ROLES.items()
        )

    def bundle(self, version: int = 1, **changes: Any) -> Bundle:
        """The house's bundle with its operators."""
        return self.world.bundle(version, **({"operators": self.operators()} | changes))

    def publish(self, bundle: Bundle) -> None:
        """Make it the one that processes read, signed by all officers: it is in force at once."""
        signed = self.world.signed(bundle, tuple(self.world.officers))
        (self.directory / "bundle.json").write_bytes(signed.encode())

    def settings(self, name: str) -> dict[str, str]:
        """Variables of an operator's shell."""
        socket = {"btc-hot": {"socket": str(self.directory / "signer.sock")}}
        return {
            "STRONGROOM_OPERATOR": str(self.directory / f"{name}.toml"),
            "STRONGROOM_DATABASE_URL": as_role(self.database, "strongroom_worker"),
            "STRONGROOM_REDIS_URL": "redis://:unused@127.0.0.1:1/0",
            "STRONGROOM_BUNDLE_PATH": str(self.directory / "bundle.json"),
            "STRONGROOM_TRUST_ROOT_PATH": str(self.directory / "root.json"),
            "STRONGROOM_NODES": json.dumps(
                {CHAIN: {"rpc_url": "http://u:p@127.0.0.1:1", "rest_url": "http://127.0.0.1:1"}}
            ),
            "STRONGROOM_SCREENING": json.dumps({"elsewhere": "tests"}),
            "STRONGROOM_SIGNERS": json.dumps(socket),
        }

    def run(self, *arguments: str, by: str = "otto", **more: str) -> Result:
        """`strongroom ...` as one of the operators."""
        return CliRunner().invoke(app, list(arguments), env={**self.settings(by), **more})

    def actions(self) -> list[dict[str, Any]]:
        """What `strongroom audit list` says."""
        result = self.run("audit", "list", "--json")
        assert result.exit_code == 0, result.output
        found: list[dict[str, Any]] = json.loads(result.stdout)
        return found

    def verified(self, *arguments: str) -> dict[str, Any]:
        """What `strongroom audit verify` says, whatever it found."""
        result = self.run("audit", "verify", "--json", *arguments)
        found: dict[str, Any] = json.loads(result.stdout)
        assert result.exit_code == (1 if found["findings"] else 0)
        return found
