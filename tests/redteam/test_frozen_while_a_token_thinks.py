"""A token may take half a minute. What is frozen or called compromised meanwhile is not given out when it is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from signers.errors import Withheld
from signers.wallets import EvmKeys
from tests.fakes.signer import EvmBench


class Slow:
    """Keys in a token during whose work something else happens."""

    def __init__(self, keys: EvmKeys) -> None:
        self._keys = keys
        self.meanwhile: Callable[[], None] = lambda: None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._keys, name)

    def sign(self, branch: int, index: int, digest: bytes) -> tuple[bytes, bytes]:
        signed = self._keys.sign(branch, index, digest)
        self.meanwhile()
        return signed


class SlowBench(EvmBench):
    """A signer whose token takes its time."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.keys = self.token = Slow(self.keys)
        self.restart()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[SlowBench]:
    made = SlowBench(tmp_path)
    yield made
    made.journal.close()


def test_after_an_officer_was_told_that_it_is_frozen_nothing_leaves_any_more(bench: SlowBench) -> None:
    request = bench.request()
    bench.token.meanwhile = lambda: bench.freeze("asset:ETH")
    with pytest.raises(Withheld, match="frozen"):
        bench.service.sign(request)
    bench.token.meanwhile = lambda: None
    with pytest.raises(Withheld, match="frozen"):
        bench.service.sign(request)
    bench.adopt(2)
    assert bench.signatures(request)


def test_nor_after_the_quorum_has_called_the_keys_compromised(bench: SlowBench) -> None:
    request = bench.request()
    stolen = msgspec.structs.replace(bench.world.bundle().keysets[0], state="compromised")
    bench.token.meanwhile = lambda: bench.adopt(2, keysets=(stolen, bench.world.bundle().keysets[1]))
    with pytest.raises(Withheld, match="compromised"):
        bench.service.sign(request)


def test_what_is_frozen_elsewhere_meanwhile_holds_nothing_up(bench: SlowBench) -> None:
    bench.token.meanwhile = lambda: bench.freeze("asset:USDX")
    assert bench.signatures(bench.request())
