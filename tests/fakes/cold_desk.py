"""An operator's shell beside a cold vault: `strongroom cold VERB` as typed, on the workers' settings."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from typer.testing import CliRunner, Result

from custody.console import cold, proving
from custody.console.app import app
from policies.bundle import Operator
from policies.keys import SigningKey
from tests.fakes.api import as_role
from tests.fakes.cold_till import ColdTill
from tests.fakes.operators import client_file
from tests.fakes.signing import CHAIN, DAY

VERBS = (cold.cold_app, proving.prove)
"""The app has its verbs because these are imported."""


class Desk:
    """An operator's shell."""

    def __init__(self, till: ColdTill) -> None:
        self.till, self.key, folder = till, SigningKey.generate(), till.directory
        otto = Operator(
            id="otto",
            key=self.key.public_hex,
            organisation="house",
            roles=("treasury",),
            not_after=till.world.now + DAY,
        )
        till.adopt(2, operators=(otto,))
        client_file(folder, "otto", self.key)
        (folder / "root.json").write_bytes(msgspec.json.encode(till.world.root))
        node = {"rpc_url": till.bitcoind.rpc_url, "rest_url": till.bitcoind.rest_url}
        self.settings = {
            "STRONGROOM_OPERATOR": str(folder / "otto.toml"),
            "STRONGROOM_DATABASE_URL": as_role(till.dsn, "strongroom_worker"),
            "STRONGROOM_REDIS_URL": "redis://:unused@127.0.0.1:1/0",
            "STRONGROOM_BUNDLE_PATH": str(till.bundle_path),
            "STRONGROOM_TRUST_ROOT_PATH": str(folder / "root.json"),
            "STRONGROOM_NODES": json.dumps({CHAIN: node}),
            "STRONGROOM_SCREENING": json.dumps({"elsewhere": "tests"}),
            "STRONGROOM_SIGNERS": json.dumps({"btc-hot": {"socket": str(folder / "signer.sock")}}),
        }

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(app, ["cold", *arguments], env=self.settings)

    def json(self, *arguments: str, code: int = 0) -> Any:
        result = self.run(*arguments, "--json")
        assert result.exit_code == code, result.output
        return json.loads(result.stdout)
