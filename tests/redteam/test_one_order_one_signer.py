"""An order names no key-set: two signers that may both pay it would both pay it, each within the tier's cap."""

from __future__ import annotations

import msgspec
import pytest

from chains.errors import InvalidValue
from policies.bundle import read_bundle
from tests.fakes.signing import SoftKeys, World


def test_a_bundle_with_two_keysets_that_pay_from_one_tier_of_a_chain_is_not_believed() -> None:
    world = World(SoftKeys.make().record)
    other = SoftKeys.make(bytes([1]) * 32, "btc-hot-2").record
    second = world.keyset_entry(
        id=other.id, account=other.account, origin=other.origin, attestation_key=other.attestation_key
    )
    good = world.bundle()
    assert read_bundle(world.signed(good).encode(), world.root, now=world.now) == good
    both = msgspec.structs.replace(world.signed(good), bundle=world.bundle(keysets=(*good.keysets, second)))
    signed = msgspec.structs.replace(
        both,
        signatures=tuple(
            msgspec.structs.replace(entry, signature=world.officers[entry.key].sign(both.bundle))
            for entry in both.signatures
        ),
    )
    with pytest.raises(InvalidValue, match="one chain and tier"):
        read_bundle(signed.encode(), world.root, now=world.now)
    warm = msgspec.structs.replace(second, tier="warm")
    read_bundle(world.signed(world.bundle(keysets=(*good.keysets, warm))).encode(), world.root, now=world.now)
