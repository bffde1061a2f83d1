"""The real parts for tests: one of each a pytest process, in a directory that is kept when a test failed."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from ops.devnet.anvil import Anvil
from ops.devnet.bitcoind import Bitcoind
from ops.devnet.files import part_directory
from ops.devnet.postgres import Durability, EmbeddedPostgres
from ops.devnet.redis import RedisServer
from ops.devnet.softhsm import SoftHsmToken

if TYPE_CHECKING:
    from tests.fakes.till import Till

_TEMPLATE = "strongroom_template"

# Machines are shared and slow at times: a property test judges results, never the time they took.
settings.register_profile("strongroom", deadline=None, print_blob=True)
settings.load_profile("strongroom")


def pytest_configure(config: pytest.Config) -> None:
    """Gives this run an id that all its processes know, to find what they leave when a test fails."""
    if getattr(config.option, "testrunuid", "") is None:
        config.option.testrunuid = uuid.uuid4().hex


def run_id(config: pytest.Config) -> str:
    """The id of this run, which pytest-xdist hands to its workers."""
    return str(os.environ.get("PYTEST_XDIST_TESTRUNUID") or config.option.testrunuid)[:8]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Says where the parts' logs are, if there are any left."""
    left = sorted(Path(tempfile.gettempdir()).glob(f"strongroom-tests-{run_id(config)}-*"))
    if left:
        terminalreporter.section("logs and data of the parts are kept")
        for directory in left:
            terminalreporter.write_line(str(directory))


@pytest.fixture(scope="session")
def parts_directory(request: pytest.FixtureRequest) -> Iterator[Path]:
    """Where the parts of this session live; removed in the end unless a test failed."""
    directory = part_directory(f"strongroom-tests-{run_id(request.config)}-")
    yield directory
    if not request.session.testsfailed:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest, parts_directory: Path) -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL cluster for this session, empty but for its superuser."""
    with EmbeddedPostgres(parts_directory / "postgres", durability=Durability.FAST) as server:
        yield server
    if not request.session.testsfailed:
        server.remove()


@pytest.fixture(scope="session")
def redis_server(parts_directory: Path) -> Iterator[RedisServer]:
    """A Redis for this session; a test that cares for its content flushes it first."""
    with RedisServer(parts_directory / "redis") as server:
        yield server


@pytest.fixture(scope="module")
def bitcoind(request: pytest.FixtureRequest, parts_directory: Path) -> Iterator[Bitcoind]:
    """A regtest node for a file's tests, which share its chain and so assert on differences only.

    Not for longer: every 150 blocks halve the subsidy, and after some files nobody outside would have money left.
    """
    failed_before = request.session.testsfailed
    directory = parts_directory / f"bitcoind-{uuid.uuid4().hex}"
    with Bitcoind(directory) as node:
        yield node
    if request.session.testsfailed == failed_before:
        shutil.rmtree(directory)


@pytest.fixture(scope="module")
def anvil(request: pytest.FixtureRequest, parts_directory: Path) -> Iterator[Anvil]:
    """An Ethereum node for a file's tests, which share its chain and so assert on differences only.

    Not for longer: it keeps the whole state of each block, in memory and on disk, gigabytes after many files.
    """
    failed_before = request.session.testsfailed
    directory = parts_directory / f"anvil-{uuid.uuid4().hex}"
    with Anvil(directory) as node:
        yield node
    if request.session.testsfailed == failed_before:
        shutil.rmtree(directory)


@pytest.fixture
def fresh_anvil(request: pytest.FixtureRequest, parts_directory: Path) -> Iterator[Callable[..., Anvil]]:
    """Starts Ethereum nodes with chains of their own: called with the arguments of `Anvil` after the first."""
    failed_before = request.session.testsfailed
    directories: list[Path] = []
    with ExitStack() as nodes:

        def start(**options: Any) -> Anvil:
            directories.append(parts_directory / f"anvil-{uuid.uuid4().hex}")
            return nodes.enter_context(Anvil(directories[-1], **options))

        yield start
    if request.session.testsfailed == failed_before:
        for directory in directories:
            shutil.rmtree(directory)


@pytest.fixture(scope="session")
def softhsm(parts_directory: Path) -> Iterator[SoftHsmToken]:
    """A SoftHSM token, also for this very process: SOFTHSM2_CONF is set before anybody loads the library."""
    token = SoftHsmToken(parts_directory / "softhsm", "strongroom-tests")
    token.create()
    before = {name: os.environ.get(name) for name in token.env}
    os.environ.update(token.env)
    yield token
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@pytest.fixture(scope="session")
def migrated_template(postgres: EmbeddedPostgres) -> str:
    """Name of a database with the whole schema in it, from which `database` is copied."""
    from custody.storage.migrate import upgrade

    postgres.create_database(_TEMPLATE)
    upgrade(postgres.superuser_dsn(_TEMPLATE))
    return _TEMPLATE


@pytest.fixture
def database(postgres: EmbeddedPostgres, migrated_template: str) -> Iterator[str]:
    """Connection address (superuser) of a fresh, migrated database, dropped after the test."""
    name = f"test_{uuid.uuid4().hex}"
    postgres.create_database(name, template=migrated_template)
    yield postgres.superuser_dsn(name)
    postgres.drop_database(name)


@pytest.fixture
def till(database: str, bitcoind: Bitcoind, tmp_path: Path) -> Iterator[Till]:
    """A small world whose payment steps the test drives; in the end its books and the chain must agree."""
    from tests.fakes.till import open_till

    with open_till(database, bitcoind, tmp_path) as opened:
        yield opened
