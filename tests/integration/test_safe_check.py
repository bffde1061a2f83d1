"""`strongroom safe check`: the bundle's Safes, read back from the chain by a person at the host."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner, Result

from custody.console import safes  # noqa: F401 - adds its verbs to the app
from custody.console.root import app
from ops.devnet.anvil import Anvil
from ops.stack.safes import deploy_contracts, deploy_safe
from policies.bundle import Bundle, EvmVault
from tests.fakes.evm_signing import EVM_CHAIN
from tests.fakes.safe_signing import VAULT, SafeWorld, owner_keys

Run = Callable[..., Result]


@pytest.fixture
def world(anvil: Anvil) -> SafeWorld:
    keys = owner_keys()
    payer = anvil.accounts()[0]
    contracts = deploy_contracts(anvil, payer)
    safe = deploy_safe(anvil, payer, contracts, [each.record.address for each in keys], 2)
    world = SafeWorld.make(safe, keys)
    world.now = int(time.time())
    return world


def bundle_of(world: SafeWorld, anvil: Anvil, **changes: Any) -> Bundle:
    return world.bundle(network_genesis=anvil.block_hash(0)[2:], **changes)


@pytest.fixture
def run(anvil: Anvil, tmp_path: Path, world: SafeWorld, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `strongroom safe` with a worker's settings and this bundle."""

    def run(*arguments: str, bundle: Bundle) -> Result:
        (tmp_path / "bundle.json").write_bytes(world.signed(bundle).encode())
        (tmp_path / "root.json").write_bytes(msgspec.json.encode(world.root))
        settings = {
            "DATABASE_URL": "postgresql://strongroom_worker:x@127.0.0.1:1/none",
            "REDIS_URL": "redis://127.0.0.1:1/0",
            "BUNDLE_PATH": str(tmp_path / "bundle.json"),
            "TRUST_ROOT_PATH": str(tmp_path / "root.json"),
            "NODES": json.dumps({EVM_CHAIN: {"rpc_url": anvil.rpc_url}}),
            "SIGNERS": json.dumps({"eth-hot": {"socket": "/nowhere/signer.sock"}}),
            "SCREENING": '{"elsewhere": "tests"}',
        }
        for name, value in settings.items():
            monkeypatch.setenv(f"STRONGROOM_{name}", value)
        return CliRunner().invoke(app, ["safe", *arguments])

    return run


def test_a_safe_that_is_what_the_bundle_says_is_told_in_full(
    run: Run, world: SafeWorld, anvil: Anvil
) -> None:
    result = run("check", "--json", bundle=bundle_of(world, anvil))
    assert result.exit_code == 0, result.output
    [found] = json.loads(result.stdout)
    assert (found["vault"], found["ok"], found["objections"]) == (VAULT, True, [])
    assert (found["version"], found["threshold"], found["modules"], found["guard"]) == ("1.4.1", 2, [], None)
    assert {line.split()[1] for line in found["owners"]} == {"warm-a", "warm-b", "warm-c"}
    people = run("check", VAULT, bundle=bundle_of(world, anvil))
    assert people.exit_code == 0
    assert world.safe in people.stdout


def test_a_safe_that_differs_ends_with_one_and_says_how(run: Run, world: SafeWorld, anvil: Anvil) -> None:
    """One-of-one 'multisigs' 2025."""
    vault = world.vault_entry()
    assert isinstance(vault, EvmVault)
    other = msgspec.structs.replace(vault, threshold=3)
    result = run("check", VAULT, "--json", bundle=bundle_of(world, anvil, vaults=(other,)))
    assert result.exit_code == 1
    [found] = json.loads(result.stdout)
    assert found["objections"] == ["its threshold is 2, not 3"]


def test_a_vault_that_is_no_safe_of_the_bundle_is_wrong_input(
    run: Run, world: SafeWorld, anvil: Anvil
) -> None:
    result = run("check", "nowhere", bundle=bundle_of(world, anvil))
    assert result.exit_code == 2
    assert VAULT in result.output
