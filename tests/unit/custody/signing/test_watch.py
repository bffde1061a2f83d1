"""When a verifier is silent, by what a signer says of itself."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from custody.signing.watch import ago, patience_seconds, silence, waiting
from policies.bundle import Bundle
from signers.ports import SignerStatus, Unresolved
from tests.fakes.evm_signing import EVM_CHAIN, EvmWorld, SoftEvmKeys
from tests.fakes.signing import CHAIN, DAY, KEYSET, NOW, SoftKeys, World

HOUR = 3600


@pytest.fixture
def bundle() -> Bundle:
    """With a network that is final after 6 blocks, and windows of a day."""
    made = World(SoftKeys.make().record).bundle()
    (network,) = made.networks
    return msgspec.structs.replace(made, networks=(msgspec.structs.replace(network, settle_blocks=6),))


def status(**changes: Any) -> SignerStatus:
    """A signer one of whose transactions waits since four hours."""
    fields: dict[str, Any] = {
        "keyset": KEYSET,
        "chain": CHAIN,
        "count": 1,
        "oldest_at": NOW - 4 * HOUR,
        "resolved_at": None,
    }
    waits = Unresolved(**(fields | changes))
    return SignerStatus(bundle_version=1, keysets=(KEYSET,), signed=9, at=NOW, unresolved=(waits,))


def test_patience_is_three_times_what_finality_takes(bundle: Bundle) -> None:
    assert patience_seconds(bundle, CHAIN, None) == 3 * 6 * 600
    (network,) = bundle.networks
    quicker = msgspec.structs.replace(bundle, networks=(msgspec.structs.replace(network, settle_blocks=2),))
    assert patience_seconds(quicker, CHAIN, None) == 3 * 2 * 600


def test_patience_on_an_evm_chain_waits_for_finalised_blocks() -> None:
    evm = EvmWorld(SoftEvmKeys.make().record, SoftEvmKeys.make("xeth-hot", 31338).record).bundle()
    blocks = evm.network(EVM_CHAIN).settle_blocks
    assert patience_seconds(evm, EVM_CHAIN, None) == 3 * (1200 + 12 * blocks)


def test_patience_is_what_the_operator_wants_but_never_more_than_half_a_window(bundle: Bundle) -> None:
    assert patience_seconds(bundle, CHAIN, 60) == 60
    assert patience_seconds(bundle, CHAIN, 100 * DAY) == DAY // 2
    (cap,) = bundle.caps
    short = msgspec.structs.replace(bundle, caps=(msgspec.structs.replace(cap, window_seconds=HOUR),))
    assert patience_seconds(short, CHAIN, None) == HOUR // 2


def test_what_waits_for_longer_than_patience_without_a_word_is_silence(bundle: Bundle) -> None:
    found = silence(status(count=7), bundle, KEYSET, None)
    assert found is not None
    assert (found.keyset, found.chain, found.count) == (KEYSET, CHAIN, 7)
    assert (found.oldest_seconds, found.heard_seconds) == (4 * HOUR, None)


@pytest.mark.parametrize(
    ("changes", "silent"),
    [
        ({"oldest_at": NOW - 3 * HOUR}, False),
        ({"oldest_at": NOW - 3 * HOUR - 1}, True),
        # A verifier that speaks of others is at work; this one waits for its block.
        ({"oldest_at": NOW - 20 * HOUR, "resolved_at": NOW - 3 * HOUR}, False),
        ({"oldest_at": NOW - 20 * HOUR, "resolved_at": NOW - 3 * HOUR - 1}, True),
        # It said all there was to say, long ago; what waits now is young.
        ({"oldest_at": NOW - HOUR, "resolved_at": NOW - 90 * HOUR}, False),
        ({"count": 0, "oldest_at": None, "resolved_at": NOW - 90 * HOUR}, False),
    ],
)
def test_silence_begins_after_the_last_word_or_the_oldest_signature(
    bundle: Bundle, changes: dict[str, Any], *, silent: bool
) -> None:
    assert (silence(status(**changes), bundle, KEYSET, None) is not None) is silent


def test_a_keyset_that_never_signed_waits_for_nobody(bundle: Bundle) -> None:
    assert waiting(status(keyset="another"), KEYSET) is None
    assert silence(status(keyset="another"), bundle, KEYSET, None) is None


def test_ages_are_told_in_words() -> None:
    assert (ago(119), ago(120), ago(7199), ago(11_100)) == (
        "119 s ago",
        "2 min ago",
        "119 min ago",
        "3 h 5 min ago",
    )
