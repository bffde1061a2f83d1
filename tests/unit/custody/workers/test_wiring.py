"""Wiring: settings that must fit together, also while the database is away. And prices that are fresh or none."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chains.errors import InvalidValue
from custody.config import Process, Settings, load
from custody.errors import InvalidConfiguration
from custody.wiring import Services, read_trust_root
from custody.wiring import wire as wired
from tests.fakes.evm_signing import (
    EVM_CHAIN,
    EVM_KEYSET,
    OTHER_EVM_CHAIN,
    OTHER_EVM_CHAIN_ID,
    EvmWorld,
    SoftEvmKeys,
)
from tests.fakes.signing import CHAIN, KEYSET, NOW, SoftKeys, World


def wire(settings: Settings) -> Services:
    """The services of a process whose database is away, for which it does not wait long."""
    return wired(settings, clock=lambda: NOW, wait_seconds=0.1)


@pytest.fixture
def world() -> World:
    return World(SoftKeys.make().record)


def publish(world: World, path: Path, version: int, names: tuple[str, ...] = ("olga", "felix")) -> None:
    beside = path.with_suffix(".new")
    beside.write_bytes(world.signed(world.bundle(version), names).encode())
    os.replace(beside, path)


def environment(world: World, tmp_path: Path, **changes: str) -> dict[str, str]:
    publish(world, tmp_path / "bundle.json", 1)
    (tmp_path / "root.json").write_bytes(msgspec.json.encode(world.root))
    node = {"rpc_url": "http://u:p@127.0.0.1:1", "rest_url": "http://127.0.0.1:1"}
    return {
        "STRONGROOM_DATABASE_URL": "postgresql://strongroom_worker:pw@127.0.0.1:1/strongroom",
        "STRONGROOM_REDIS_URL": "redis://127.0.0.1:1/0",
        "STRONGROOM_BUNDLE_PATH": str(tmp_path / "bundle.json"),
        "STRONGROOM_TRUST_ROOT_PATH": str(tmp_path / "root.json"),
        "STRONGROOM_NODES": msgspec.json.encode({CHAIN: node}).decode(),
        "STRONGROOM_SCREENING": '{"elsewhere": "tests"}',
        "STRONGROOM_SIGNERS": msgspec.json.encode(
            {KEYSET: {"socket": str(tmp_path / "signer.sock")}}
        ).decode(),
        **changes,
    }


def test_a_worker_is_wired_without_connecting_to_anything(world: World, tmp_path: Path) -> None:
    settings = load(Process.WORKER, environment(world, tmp_path))
    with wire(settings) as services:
        [site] = services.sites()
        assert (site.chain, site.wallet.id) == (CHAIN, KEYSET)
        assert services.node(CHAIN).chain == CHAIN
        with pytest.raises(InvalidValue):
            services.node("dogecoin")
        with pytest.raises(InvalidValue):
            services.signer("other")


def test_a_wallet_whose_signer_is_not_configured_is_not_paid_from(world: World, tmp_path: Path) -> None:
    other = msgspec.json.encode({"other": {"socket": str(tmp_path / "signer.sock")}}).decode()
    settings = load(Process.WORKER, environment(world, tmp_path, STRONGROOM_SIGNERS=other))
    with wire(settings) as services:
        assert services.sites() == ()


def test_a_node_for_an_unknown_chain_or_a_broken_trust_root_stops_the_start(
    world: World, tmp_path: Path
) -> None:
    node = {"rpc_url": "http://u:p@127.0.0.1:1", "rest_url": "http://127.0.0.1:1"}
    nodes = msgspec.json.encode({"dogecoin": node}).decode()
    settings = load(Process.WORKER, environment(world, tmp_path, STRONGROOM_NODES=nodes))
    with pytest.raises(InvalidConfiguration, match="dogecoin"):
        wire(settings)
    (tmp_path / "root.json").write_text("[]")
    with pytest.raises(InvalidConfiguration, match="trust_root_path"):
        read_trust_root(tmp_path / "root.json")


def test_nodes_and_wallets_of_both_families_are_wired_from_the_bundle_alone(tmp_path: Path) -> None:
    world = EvmWorld(SoftEvmKeys.make().record, SoftEvmKeys.make("xeth-hot", OTHER_EVM_CHAIN_ID).record)
    (tmp_path / "bundle.json").write_bytes(world.signed(world.bundle()).encode())
    nodes = {chain: {"rpc_url": "http://127.0.0.1:1"} for chain in (EVM_CHAIN, OTHER_EVM_CHAIN)}
    signers = {keyset: {"socket": str(tmp_path / "signer.sock")} for keyset in (EVM_KEYSET, "xeth-hot")}

    def settings(**changes: Any) -> Settings:
        (tmp_path / "root.json").write_bytes(msgspec.json.encode(world.root))
        return load(
            Process.WORKER,
            {
                "STRONGROOM_DATABASE_URL": "postgresql://strongroom_worker:pw@127.0.0.1:1/strongroom",
                "STRONGROOM_REDIS_URL": "redis://127.0.0.1:1/0",
                "STRONGROOM_BUNDLE_PATH": str(tmp_path / "bundle.json"),
                "STRONGROOM_TRUST_ROOT_PATH": str(tmp_path / "root.json"),
                "STRONGROOM_NODES": msgspec.json.encode(nodes | changes).decode(),
                "STRONGROOM_SCREENING": '{"elsewhere": "tests"}',
                "STRONGROOM_SIGNERS": msgspec.json.encode(signers).decode(),
            },
        )

    with wire(settings()) as services:
        assert [(site.chain, site.wallet.id) for site in services.sites()] == [
            (EVM_CHAIN, EVM_KEYSET),
            (OTHER_EVM_CHAIN, "xeth-hot"),
        ]
    btc = {"rpc_url": "http://127.0.0.1:1", "rest_url": "http://127.0.0.1:1"}
    with pytest.raises(InvalidConfiguration, match=f"{EVM_CHAIN}: .* leave rest_url and zmq_url out"):
        wire(settings(**{EVM_CHAIN: btc}))


def test_a_btc_node_needs_its_rest_address(world: World, tmp_path: Path) -> None:
    nodes = msgspec.json.encode({CHAIN: {"rpc_url": "http://u:p@127.0.0.1:1"}}).decode()
    settings = load(Process.WORKER, environment(world, tmp_path, STRONGROOM_NODES=nodes))
    with pytest.raises(InvalidConfiguration, match="write rest_url"):
        wire(settings)
