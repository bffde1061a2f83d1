"""Taking in a signed bundle or a bare descriptor: what becomes of it for one holder, and what is refused."""

from __future__ import annotations

from functools import cache

import msgspec
import pytest

from chains.errors import DerivationDisagreement, InvalidValue
from policies.bundle import BitcoinVault, EvmKeyset, UntrustedBundle, read_bundle
from policies.bundle.root import read_root, root_fingerprint
from signers.airgap.btc_wallets import own_place, read_descriptor
from signers.airgap.keys import HolderKey
from signers.airgap.registered import FeeCaps, Registered
from signers.airgap.registering import (
    of_bundle,
    of_descriptor,
    wallets_to_confirm,
)
from tests.support.airgap import REGTEST, SAFE_ADDRESS, Quorum, cold_bundle, holder_key, multisig


@cache
def holders() -> tuple[HolderKey, ...]:
    return tuple(holder_key(number) for number in range(5))


def test_a_bundle_gives_a_holder_his_wallets_and_the_names_of_the_others() -> None:
    bundle = cold_bundle(holders())
    found = of_bundle(bundle, holders()[2])
    (vault,) = found.vaults
    assert (vault.id, vault.network, vault.threshold) == ("btc-cold", "regtest", 3)
    assert vault.descriptor == multisig(holders(), 3).descriptor
    assert vault.caps == FeeCaps(fee_cap_sats=100_000, feerate_cap_sat_per_kvb=500_000)
    assert [(safe.id, safe.address, safe.chain_id) for safe in found.safes] == [("eth-cold", SAFE_ADDRESS, 1)]
    assert {wallet.id for wallet in found.wallets} == {"btc-warm", "btc-hot"}
    assert {(token.symbol, token.decimals) for token in found.tokens} == {("USDC", 6), ("USDT", 6)}
    assert [(n.chain_id, n.symbol, n.decimals) for n in found.networks] == [(1, "ETH", 18)]
    assert found.name_of(1, SAFE_ADDRESS) == "your cold Safe eth-cold"
    assert found.source is not None
    assert found.source.digest == bundle.digest_hex()


def test_each_wallet_is_shown_with_what_must_be_compared() -> None:
    found = of_bundle(cold_bundle(holders()), holders()[2])
    bitcoin, safe = wallets_to_confirm(found, Registered(), holders()[2])
    wallet = multisig(holders(), 3)
    text = "\n".join(bitcoin.lines)
    assert "any 3 of 5 keys" in text
    assert f"  {holders()[2].fingerprint.hex()}  holder-2, org-2   <- you" in bitcoin.lines
    for branch, index in ((0, 0), (0, 1), (0, 2), (1, 0)):
        assert f"    {branch}/{index}  {wallet.address(branch, index)}" in bitcoin.lines
    assert f"  checksum  {wallet.descriptor[-8:]}" in bitcoin.lines
    assert bitcoin.answer == wallet.address(0, 0)[-12:]
    assert (safe.id, safe.answer) == ("eth-cold", SAFE_ADDRESS[-12:])


def test_what_was_confirmed_before_is_not_asked_again() -> None:
    found = of_bundle(cold_bundle(holders()), holders()[2])
    again = of_bundle(cold_bundle(holders(), version=8), holders()[2])
    assert list(wallets_to_confirm(again, found, holders()[2])) == []


def test_a_key_that_is_in_no_wallet_gets_nothing() -> None:
    with pytest.raises(InvalidValue, match="a member of no wallet"):
        of_bundle(cold_bundle(holders()), holder_key(66))


def test_a_fingerprint_with_another_account_is_refused() -> None:
    bundle = cold_bundle(holders())
    cold = next(vault for vault in bundle.vaults if vault.id == "btc-cold")
    assert isinstance(cold, BitcoinVault)
    forged = msgspec.structs.replace(
        cold,
        cosigners=(
            msgspec.structs.replace(cold.cosigners[0], account=holder_key(66).xpub),
            *cold.cosigners[1:],
        ),
    )
    others = tuple(vault for vault in bundle.vaults if vault.id != "btc-cold")
    with pytest.raises(InvalidValue, match="another account or path"):
        of_bundle(msgspec.structs.replace(bundle, vaults=(*others, forged)), holders()[0])


def test_a_descriptor_that_is_not_its_members_own_is_refused() -> None:
    bundle = cold_bundle(holders())
    cold = next(vault for vault in bundle.vaults if vault.id == "btc-cold")
    forged = msgspec.structs.replace(cold, descriptor=multisig(holders(), 2).descriptor)
    others = tuple(vault for vault in bundle.vaults if vault.id != "btc-cold")
    with pytest.raises(DerivationDisagreement):
        of_bundle(msgspec.structs.replace(bundle, vaults=(*others, forged)), holders()[0])


def test_fault_46_a_bundle_of_another_network_is_refused() -> None:
    from chains.btc.network import NETWORKS

    with pytest.raises(InvalidValue, match="your key is for main"):
        of_bundle(cold_bundle(holders()), holder_key(0, NETWORKS["main"]))


def test_only_the_pinned_quorum_is_believed() -> None:
    bundle, quorum, others = cold_bundle(holders()), Quorum(), Quorum()
    assert read_bundle(quorum.signed(bundle), quorum.root, now=bundle.issued_at) == bundle
    for raw in (others.signed(bundle), quorum.signed(bundle, ["olga"])):
        with pytest.raises(UntrustedBundle):
            read_bundle(raw, quorum.root, now=bundle.issued_at)


def test_a_roots_fingerprint_is_of_who_signs_and_not_of_the_version() -> None:
    root = Quorum().root
    later = msgspec.structs.replace(root, minimum_version=9)
    assert root_fingerprint(read_root(msgspec.json.encode(root))) == root_fingerprint(later)
    weaker = msgspec.structs.replace(root, threshold=1)
    assert root_fingerprint(weaker) != root_fingerprint(root)
    assert len(root_fingerprint(root)) == 24


def test_a_root_that_asks_for_more_organisations_than_it_has_is_refused() -> None:
    root = msgspec.structs.replace(
        Quorum().root, organisations=dict.fromkeys(("olga", "felix", "rosa"), "one")
    )
    with pytest.raises(InvalidValue, match="more organisations"):
        read_root(msgspec.json.encode(root))


def test_a_bare_descriptor_is_registered_beside_what_was_there() -> None:
    wallet, before = multisig(holders(), 3), of_bundle(cold_bundle(holders()), holders()[1])
    found = of_descriptor(wallet.descriptor, "spare", holders()[1], before)
    assert [vault.id for vault in found.vaults] == ["btc-cold", "spare"]
    assert found.vaults[1].descriptor == wallet.descriptor
    assert found.vaults[1].caps is None
    with pytest.raises(InvalidValue, match="there is a wallet"):
        of_descriptor(wallet.descriptor, "eth-cold", holders()[1], before)
    with pytest.raises(InvalidValue, match="your key is not in this descriptor"):
        of_descriptor(wallet.descriptor, "spare", holder_key(66), before)


def test_a_descriptor_with_apostrophes_is_the_same_wallet() -> None:
    from chains.btc.multisig import with_checksum

    wallet = multisig(holders(), 3)
    written = with_checksum(wallet.descriptor.partition("#")[0].replace("h/", "'/").replace("h]", "']"))
    assert read_descriptor(written, REGTEST) == wallet


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-1] + ("q" if text[-1] != "q" else "p"),
        lambda text: text.partition("#")[0],
        lambda text: text.replace("sortedmulti(3", "sortedmulti(2"),
        lambda text: text.replace("sortedmulti", "multi"),
        lambda text: text.replace("<0;1>", "0"),
        lambda text: "wpkh(" + text[4:],
    ],
)
def test_a_descriptor_of_another_form_or_checksum_is_refused(change: object) -> None:
    assert callable(change)
    with pytest.raises(InvalidValue):
        read_descriptor(change(multisig(holders(), 3).descriptor), REGTEST)


def test_every_letter_changed_in_a_descriptor_is_refused() -> None:
    text = multisig(holders(), 3).descriptor
    for at in range(len(text)):
        changed = text[:at] + ("x" if text[at] != "x" else "y") + text[at + 1 :]
        with pytest.raises(InvalidValue):
            read_descriptor(changed, REGTEST)


def test_an_address_is_found_at_its_place_and_a_foreign_one_is_not() -> None:
    found, wallet = of_bundle(cold_bundle(holders()), holders()[0]), multisig(holders(), 3)
    assert own_place(found, holders()[0], wallet.script(1, 7), 10) == ("btc-cold", 1, 7)
    assert own_place(found, holders()[0], wallet.script(1, 10), 10) is None
    assert own_place(found, holders()[0], multisig(holders(), 2).script(0, 0), 10) is None


def test_factories_that_a_safe_of_the_holder_is_the_admin_of_are_registered_with_the_one_treasury() -> None:
    plain = cold_bundle(holders())
    assert of_bundle(plain, holders()[2]).factories == ()
    active = next(each for each in plain.keysets if isinstance(each, EvmKeyset))
    old = msgspec.structs.replace(
        active, id="eth-hot-0", state="compromised", admin="eth-cold", factory=SAFE_ADDRESS[:-4] + "0000"
    )
    others = tuple(each for each in plain.keysets if each is not active)
    ruled = msgspec.structs.replace(active, admin="eth-cold")
    found = of_bundle(msgspec.structs.replace(plain, keysets=(*others, ruled, old)), holders()[2])
    assert [(each.keyset, each.address, each.admin) for each in found.factories] == [
        (ruled.id, ruled.factory, SAFE_ADDRESS),
        (old.id, old.factory, SAFE_ADDRESS),
    ]
    assert [(each.keyset, each.address) for each in found.treasuries] == [(ruled.id, ruled.address)]
    retired = msgspec.structs.replace(plain, keysets=(*others, old))
    assert of_bundle(retired, holders()[2]).treasuries == ()
