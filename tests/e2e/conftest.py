"""A whole running system for one test, in a directory that is kept when the test failed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ops.demo.world import World
from ops.devnet.files import part_directory
from ops.devnet.postgres import Durability
from ops.stack.stack import Stack


@pytest.fixture
def stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    """Every part and process, ready; all of it is gone after the test, the data too unless it failed."""
    failed_before = request.session.testsfailed
    running = Stack(part_directory("strongroom-e2e-"), durability=Durability.FAST)
    with running:
        yield running
    if request.session.testsfailed > failed_before:
        print(f"\nlogs and data are kept in {running.directory}")
    else:
        running.remove()


@pytest.fixture
def world(stack: Stack) -> Iterator[World]:
    """Somebody outside, a miner and a caller of the API, around the running system."""
    with World.of(stack) as around:
        yield around
