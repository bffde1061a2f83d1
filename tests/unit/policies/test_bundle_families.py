"""Bundles with networks of two families: what each part may say, and that none passes for one of the other."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import rfc8785

from chains.errors import InvalidValue
from policies.bundle import (
    BitcoinKeyset,
    BitcoinNetwork,
    Bundle,
    EvmKeyset,
    EvmNetwork,
    EvmVault,
    Owner,
    SignedBundle,
    check_consistent,
    read_bundle,
)
from policies.bundle.differences import differences
from tests.fakes.evm_signing import (
    EVM_CHAIN,
    FACTORY,
    OTHER_EVM_CHAIN,
    PAYOUT,
    USDX,
    EvmWorld,
    SoftEvmKeys,
    named_address,
)
from tests.fakes.safe_signing import GAS_PAYER, SAFE, SafeWorld
from tests.fakes.signing import CHAIN, SoftKeys, World


@pytest.fixture(scope="module")
def evm() -> EvmWorld:
    return EvmWorld(SoftEvmKeys.make().record, SoftEvmKeys.make("xeth-hot", 31338).record)


@pytest.fixture(scope="module")
def btc(evm: EvmWorld) -> World:
    return World(SoftKeys.make().record, officers=evm.officers, caller=evm.caller, stranger=evm.stranger)


@pytest.fixture(scope="module")
def both(evm: EvmWorld, btc: World) -> Bundle:
    """BTC and two EVM networks."""
    bundle, other = evm.bundle(), btc.bundle()
    return msgspec.structs.replace(
        bundle,
        networks=(*other.networks, *bundle.networks),
        assets=(*other.assets, *bundle.assets),
        keysets=(*other.keysets, *bundle.keysets),
        caps=(*other.caps, *bundle.caps),
        policy=other.policy,
    )


def with_part(bundle: Bundle, part: str, at: int, **changes: Any) -> Bundle:
    """The bundle with one entry of a part changed."""
    entries = list(getattr(bundle, part))
    entries[at] = msgspec.structs.replace(entries[at], **changes)
    return msgspec.structs.replace(bundle, **{part: tuple(entries)})


def test_a_bundle_of_both_families_with_its_quorum_is_read(evm: EvmWorld, both: Bundle) -> None:
    found = read_bundle(evm.signed(both).encode(), evm.root, now=evm.now)
    assert found == both
    assert [type(n) for n in found.networks] == [BitcoinNetwork, EvmNetwork, EvmNetwork]
    assert [type(k) for k in found.keysets] == [BitcoinKeyset, EvmKeyset, EvmKeyset]
    assert [n.family for n in found.networks] == ["btc", "evm", "evm"]


def test_the_canonical_form_of_both_families_is_rfc_8785_and_names_the_family(both: Bundle) -> None:
    plain = both.to_object()
    assert both.canonical() == rfc8785.dumps(plain)
    assert [n["family"] for n in plain["networks"]] == ["btc", "evm", "evm"]
    assert [k["kind"] for k in plain["keysets"]] == ["btc-hd", "evm-key", "evm-key"]
    assert Bundle.from_canonical(both.canonical()) == both


def test_the_digest_depends_on_every_new_field(both: Bundle) -> None:
    digests = {both.digest_hex()}
    changes: list[tuple[str, int, dict[str, Any]]] = [
        ("networks", 1, {"chain_id": 5}),
        ("networks", 1, {"native_mode": "balance"}),
        ("networks", 1, {"gas_caps": msgspec.structs.replace(_evm(both).gas_caps, sweep=1)}),
        ("keysets", 1, {"factory": named_address("another")}),
        ("keysets", 1, {"forwarder": "ab" * 32}),
        ("keysets", 1, {"payout": None}),
        ("assets", 2, {"traits": ("pausable",)}),
        ("assets", 2, {"sweep_above": "1"}),
    ]
    for change in changes:
        part, at, fields = change
        digests.add(with_part(both, part, at, **fields).digest_hex())
    assert len(digests) == len(changes) + 1


def _evm(bundle: Bundle) -> EvmNetwork:
    network = bundle.networks[1]
    assert isinstance(network, EvmNetwork)
    return network


def test_a_rebasing_token_is_refused_when_it_is_listed(both: Bundle) -> None:
    for traits in (("rebasing",), ("pausable", "rebasing")):
        with pytest.raises(InvalidValue, match="USDX is a rebasing token"):
            check_consistent(with_part(both, "assets", 2, traits=traits))
    check_consistent(with_part(both, "assets", 2, traits=("no-return", "pausable", "blacklist")))


@pytest.mark.parametrize(
    ("part", "at", "field"),
    [
        ("assets", 2, "contract"),
        ("keysets", 1, "address"),
        ("keysets", 1, "factory"),
        ("keysets", 1, "payout"),
    ],
)
@pytest.mark.parametrize("write", [str.lower, lambda text: "0x" + text[2:].upper(), lambda text: text + "0"])
def test_an_address_has_its_checksum_in_every_place(
    both: Bundle, part: str, at: int, field: str, write: Any
) -> None:
    text = write(getattr(getattr(both, part)[at], field))
    with pytest.raises(InvalidValue, match="checksum"):
        check_consistent(with_part(both, part, at, **{field: text}))


def test_a_keyset_of_one_family_on_a_network_of_the_other_is_inconsistent(both: Bundle) -> None:
    for at, chain in ((0, EVM_CHAIN), (1, CHAIN)):
        tier = "warm"  # or it would be the second of its chain and tier
        with pytest.raises(InvalidValue, match="of another family"):
            check_consistent(with_part(both, "keysets", at, chain=chain, tier=tier))


def test_a_contract_on_a_bitcoin_network_is_inconsistent(both: Bundle) -> None:
    with pytest.raises(InvalidValue, match="which has none"):
        check_consistent(with_part(both, "assets", 2, chain=CHAIN))


def test_one_contract_listed_as_two_assets_is_inconsistent(both: Bundle) -> None:
    twin = msgspec.structs.replace(both.asset("USDX"), id="USDY")
    with pytest.raises(InvalidValue, match="one chain and contract"):
        check_consistent(msgspec.structs.replace(both, assets=(*both.assets, twin)))
    # The same contract address on another chain is another token.
    elsewhere = msgspec.structs.replace(twin, chain=OTHER_EVM_CHAIN)
    check_consistent(msgspec.structs.replace(both, assets=(*both.assets, elsewhere)))


def test_two_native_assets_of_one_chain_are_inconsistent(both: Bundle) -> None:
    twin = msgspec.structs.replace(both.asset("ETH"), id="WETH")
    with pytest.raises(InvalidValue, match="one chain and contract"):
        check_consistent(msgspec.structs.replace(both, assets=(*both.assets, twin)))


def test_a_native_asset_with_a_contract_is_inconsistent(both: Bundle) -> None:
    with pytest.raises(InvalidValue, match="names no native asset of its own"):
        check_consistent(with_part(both, "networks", 1, native_asset="USDX"))


def test_one_chain_id_of_two_networks_is_inconsistent(both: Bundle) -> None:
    """What is signed for one of them would be valid on the other."""
    with pytest.raises(InvalidValue, match="chain id is listed twice"):
        check_consistent(with_part(both, "networks", 2, chain_id=_evm(both).chain_id))


@pytest.mark.parametrize(
    "change",
    [{"factory": USDX}, {"payout": USDX}, {"address": USDX}, {"payout": FACTORY}, {"factory": PAYOUT}],
)
def test_an_address_has_one_meaning_on_its_chain(both: Bundle, change: dict[str, str]) -> None:
    with pytest.raises(InvalidValue, match="share an address"):
        check_consistent(with_part(both, "keysets", 1, **change))


def test_an_asset_is_found_by_chain_and_contract(both: Bundle) -> None:
    assert both.asset_of(EVM_CHAIN, None) == both.asset("ETH")
    assert both.asset_of(EVM_CHAIN, USDX) == both.asset("USDX")
    assert both.asset_of(OTHER_EVM_CHAIN, USDX) is None
    assert both.asset_of(CHAIN, None) == both.asset("BTC")


@pytest.mark.parametrize(
    ("part", "at", "change"),
    [
        ("networks", 0, {"family": "evm"}),
        ("networks", 1, {"family": "btc"}),
        ("networks", 1, {"family": "sol"}),
        ("networks", 1, {"chain_id": 0}),
        ("networks", 1, {"chain_id": -1}),
        ("networks", 1, {"chain_id": 2**53}),
        ("networks", 1, {"chain_id": "1"}),
        ("networks", 1, {"native_mode": "both"}),
        ("networks", 1, {"gas_caps": {"transfer": 1}}),
        ("networks", 1, {"network": "regtest"}),
        ("networks", 0, {"chain_id": 1}),
        ("keysets", 0, {"kind": "evm-key"}),
        ("keysets", 1, {"kind": "btc-hd"}),
        ("keysets", 1, {"address": "0x00"}),
        ("keysets", 1, {"forwarder": "0x" + "ab" * 32}),
        ("keysets", 1, {"account": "tpub"}),
        ("assets", 2, {"traits": ["deflationary"]}),
        ("assets", 2, {"sweep_above": "-1"}),
    ],
)
def test_a_part_with_fields_of_the_other_family_or_malformed_ones_is_not_read(
    evm: EvmWorld, both: Bundle, part: str, at: int, change: dict[str, Any]
) -> None:
    plain = msgspec.json.decode(evm.signed(both).encode())
    plain["bundle"][part][at] |= change
    with pytest.raises(InvalidValue):
        read_bundle(msgspec.json.encode(plain), evm.root, now=evm.now)


def test_the_stored_form_reads_back(evm: EvmWorld, both: Bundle) -> None:
    stored = evm.signed(both).encode()
    assert msgspec.json.decode(stored, type=SignedBundle).bundle == both


def test_half_of_a_vaults_members_are_not_enough_as_the_other_half_could_pay_the_same_order(
    evm: EvmWorld,
) -> None:
    owners = tuple(Owner(id=name, organisation=name, address=named_address(name)) for name in "abcd")
    vault = EvmVault(
        id="warm", chain=EVM_CHAIN, tier="warm", threshold=2, address=named_address("safe"), owners=owners
    )
    with pytest.raises(InvalidValue, match="two groups that share nobody could each pay one order"):
        check_consistent(evm.bundle(vaults=(vault,)))
    check_consistent(evm.bundle(vaults=(msgspec.structs.replace(vault, threshold=3),)))
    check_consistent(evm.bundle(vaults=(msgspec.structs.replace(vault, owners=owners[:3]),)))


# Gas payers.


@pytest.fixture(scope="module")
def safe() -> SafeWorld:
    return SafeWorld.make()


def test_a_gas_payer_is_read_found_and_part_of_what_is_signed(safe: SafeWorld) -> None:
    bundle = safe.bundle()
    found = read_bundle(safe.signed(bundle).encode(), safe.root, now=safe.now)
    payer = found.gas_payer_for(EVM_CHAIN)
    assert found == bundle
    assert (payer.family, payer.tier) == ("evm", "hot")
    assert found.wallet(GAS_PAYER) is payer
    assert payer in found.wallets
    digests = {bundle.digest_hex(), safe.bundle(gas_holding_cap="7").digest_hex()}
    digests |= {safe.bundle(gas_active_from=7).digest_hex(), safe.bundle(gas_state="suspended").digest_hex()}
    assert len(digests) == 4
    with pytest.raises(InvalidValue, match="no active gas payer on"):
        found.gas_payer_for(OTHER_EVM_CHAIN)
    with pytest.raises(InvalidValue, match="no active gas payer on"):
        safe.bundle(gas_state="suspended").gas_payer_for(EVM_CHAIN)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"gas_chain": "nowhere"}, "unlisted network nowhere"),
        ({"gas_id": "eth-hot"}, "key-set, vault or gas payer is listed twice"),
        ({"gas_id": "eth-warm"}, "key-set, vault or gas payer is listed twice"),
        ({"gas_holding_cap": "0"}, "could hold nothing"),
        ({"gas_address": named_address("gas").lower()}, "checksum"),
        ({"gas_address": USDX}, "is somebody else's on"),
        ({"gas_address": FACTORY}, "is somebody else's on"),
        ({"gas_address": PAYOUT}, "is somebody else's on"),
        ({"gas_address": SAFE}, "is somebody else's on"),
    ],
)
def test_a_gas_payer_that_contradicts_the_bundle_is_refused(
    safe: SafeWorld, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidValue, match=says):
        check_consistent(safe.bundle(**changes))


def test_a_gas_payer_has_a_key_of_its_own(safe: SafeWorld) -> None:
    for address in (safe.record.address, safe.owners[0].record.address):
        with pytest.raises(InvalidValue, match="is somebody else's on"):
            check_consistent(safe.bundle(gas_address=address))
    # The same key on another chain is another wallet.
    check_consistent(safe.bundle(gas_address=safe.other.address))


def test_a_gas_payer_is_under_a_breaker(safe: SafeWorld) -> None:
    bundle = safe.bundle()
    without = tuple(each for each in bundle.breakers if GAS_PAYER not in each.keysets)
    with pytest.raises(InvalidValue, match="gas payer eth-gas is under no breaker"):
        check_consistent(msgspec.structs.replace(bundle, breakers=without))


def test_one_gas_payer_of_a_chain_is_active(safe: SafeWorld) -> None:
    twin = safe.gas_payer_entry(id="eth-gas-2", address=named_address("the next gas payer"))
    with pytest.raises(InvalidValue, match="active gas payer of one chain is listed twice"):
        check_consistent(safe.bundle(gas_payers=(safe.gas_payer_entry(), twin)))
    check_consistent(safe.bundle(gas_payers=(safe.gas_payer_entry(state="compromised"), twin)))


def test_a_gas_payer_on_a_bitcoin_network_is_inconsistent(safe: SafeWorld, btc: World) -> None:
    bundle, other = safe.bundle(gas_chain=CHAIN), btc.bundle()
    networks, assets = (*other.networks, *bundle.networks), (*other.assets, *bundle.assets)
    with pytest.raises(InvalidValue, match="of another family"):
        check_consistent(msgspec.structs.replace(bundle, networks=networks, assets=assets))


def test_officers_read_what_becomes_of_a_gas_payer(safe: SafeWorld) -> None:
    present = safe.bundle()
    assert differences(present, safe.bundle(gas_state="compromised")) == [
        "gas payer eth-gas: is now compromised (was active)"
    ]
    assert differences(present, safe.bundle(gas_holding_cap=str(10**18))) == [
        "gas payer eth-gas: should hold at most 1 ETH, and is topped up with no more (was 0.5 ETH)"
    ]
    (line,) = differences(msgspec.structs.replace(present, gas_payers=()), present)
    assert line.startswith("gas payer eth-gas: added, ")
