"""FAULTS row 40: the disk is full, for real. What stands on it fails closed, and goes on when there is space again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chains.btc.tx import TxOut
from chains.errors import TransientError
from custody.monitor.monitor import Options
from custody.storage.migrate import upgrade
from ops.devnet.errors import StartFailed
from ops.devnet.files import part_directory
from ops.devnet.postgres import Durability, EmbeddedPostgres
from ops.devnet.process import wait_until
from signers.errors import JournalUnavailable
from tests.fakes.chain import FakeChain
from tests.fakes.desk import open_desk
from tests.fakes.signer import EvmBench, SignerBench
from tests.support.volume import NoMounts, SmallVolume, small_volume

UNITS = 50_000
DEPOSITS_AT_ONCE = 4_000
"""More rows than fit into the free space of a database's files."""


@pytest.fixture(autouse=True)
def may_mount(tmp_path: Path) -> None:
    """A disk can be filled only where one can be mounted. No set-up can give a container that right."""
    try:
        with small_volume(tmp_path / "probe", 1):
            return
    except NoMounts as error:
        pytest.skip(str(error))


@pytest.fixture
def directory() -> Iterator[Path]:
    path = part_directory("strongroom-full-")
    yield path
    shutil.rmtree(path)


def test_fault_40_a_database_without_space_credits_nothing_and_goes_on_where_it_was(directory: Path) -> None:
    with small_volume(directory / "disk", 160) as disk:
        server = EmbeddedPostgres(disk.path / "pg", durability=Durability.FULL)
        server.start()
        try:
            server.create_database("full")
            upgrade(server.superuser_dsn("full"))
            _deposits_meet_a_full_disk(server, disk)
        finally:
            disk.free()
            server.remove()


def _deposits_meet_a_full_disk(server: EmbeddedPostgres, disk: SmallVolume) -> None:
    chain = FakeChain()
    options = Options(start_height=0, heartbeat_seconds=0, mempool_seconds=0)
    with open_desk(server.superuser_dsn("full"), chain, confirmations=1, options=options) as desk:
        script = desk.address(desk.customer("alice")).script
        chain.pay([TxOut(UNITS, script)])
        chain.mine()
        desk.catch_up()
        assert desk.balance("alice") == UNITS
        before = desk.contents()
        chain.pay([TxOut(UNITS, script)] * DEPOSITS_AT_ONCE)
        chain.mine()
        disk.fill()
        with pytest.raises(TransientError):
            desk.monitor.step()
        with pytest.raises(TransientError):
            desk.monitor.step()
        disk.free()
        wait_until(lambda: _answers(server), timeout=60, what="the database to recover")
        desk.restart()
        assert desk.contents() == before, "not one deposit of the block, and not the cursor on it"
        desk.catch_up()
        assert desk.balance("alice") == UNITS * (1 + DEPOSITS_AT_ONCE)
        desk.check()


def _answers(server: EmbeddedPostgres) -> bool:
    """A server whose log of changes met the full disk stops itself; whoever supervises it starts it again."""
    if not server.process.running:
        try:
            server.start()
        except StartFailed:
            return False
    return True


@pytest.mark.parametrize(("bench", "another"), [(SignerBench, {}), (EvmBench, {"nonce": 1})])
def test_fault_40_a_signer_without_space_signs_nothing_and_knows_afterwards_what_it_signed(
    directory: Path, bench: type[SignerBench | EvmBench], another: dict[str, Any]
) -> None:
    with small_volume(directory / "disk", 2) as disk:
        signer = bench(disk.path)
        try:
            first, second = signer.request(), signer.request(**another)
            answer = signer.service.sign(first)
            disk.fill()
            with pytest.raises(JournalUnavailable):
                signer.service.sign(second)
            disk.free()
            with pytest.raises(JournalUnavailable):
                signer.service.sign(second)
            signer.restart()
            assert signer.service.status().signed == 1
            assert signer.service.sign(first) == answer
            assert signer.service.status().signed == 1
        finally:
            signer.journal.close()
