"""One signer may hold several keys of one network: the old one beside the new one, say.

The bytes of an EVM transaction don't name who pays. So whatever is known of a transaction is known of one key-set only,
and nobody is to have it signed by another one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from policies.bundle import Breaker
from signers.errors import TokenLost
from signers.ports import SignRequest
from signers.wallets import EvmKeys, EvmWallet, Wallet
from tests.fakes.evm_signing import EVM_CHAIN, SoftEvmKeys
from tests.fakes.signer import EvmBench
from tests.fakes.signing import DAY

OLD = "eth-hot-before"


class Stuck:
    """Keys whose token does not answer."""

    def __init__(self, keys: EvmKeys) -> None:
        self._keys = keys
        self.lost = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._keys, name)

    def sign(self, branch: int, index: int, digest: bytes) -> tuple[bytes, bytes]:
        if self.lost:
            raise TokenLost("it does not answer")
        return self._keys.sign(branch, index, digest)


class TwoKeys(EvmBench):
    """The signer of a network's active key, which still holds the one before it."""

    def __init__(self, directory: Path) -> None:
        self.old = SoftEvmKeys.make(OLD)
        super().__init__(directory)
        self.keys = self.token = Stuck(self.keys)
        self.restart()
        self.put(2)

    def put(self, version: int, **changes: Any) -> None:
        """Adopt a bundle that has both keys."""
        active, elsewhere = self.world.bundle().keysets
        entries = (
            active,
            elsewhere,
            self.world.keyset_entry(self.old.record, EVM_CHAIN, state="deactivated"),
        )
        breaker = Breaker(
            id="all", keysets=tuple(e.id for e in entries), value_cap=str(10**30), window_seconds=DAY
        )
        self.adopt(version, keysets=entries, breakers=(breaker,), **changes)

    def wallets(self) -> Mapping[str, Wallet[Any]]:
        return {keys.record.id: EvmWallet(keys) for keys in (self.keys, self.other, self.old)}

    def payment(self, **changes: Any) -> SignRequest:
        draft = self.draft(**changes)
        draft.intents = [self.world.intent(order, policy_version=2) for order in draft.orders]
        return self.world.request(draft)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[TwoKeys]:
    made = TwoKeys(tmp_path)
    yield made
    made.journal.close()


def test_what_was_journaled_for_one_key_is_not_signed_by_another(bench: TwoKeys) -> None:
    """Else the old key pays it at a nonce of its own, and a replacement for the new key's nonce pays it again."""
    request = bench.payment()
    as_the_old_key = msgspec.structs.replace(request, keyset=OLD)
    assert "wrong-keyset" in bench.codes(as_the_old_key)
    bench.token.lost = True
    with pytest.raises(TokenLost):
        bench.signatures(request)
    assert bench.codes(as_the_old_key) == {"wrong-keyset"}
    bench.token.lost = False
    signatures = bench.signatures(request)
    assert bench.codes(as_the_old_key) == {"wrong-keyset"}
    assert bench.signatures(request) == signatures


def test_nor_is_what_the_bundle_says_nothing_more_about(bench: TwoKeys) -> None:
    request = bench.payment()
    signatures = bench.signatures(request)
    bench.put(3, caps=())
    assert bench.signatures(request) == signatures
    assert bench.codes(msgspec.structs.replace(request, keyset=OLD)) == {"no-cap"}
