"""Taking in a signed bundle, or a bare descriptor, for one key: what of it is this holder's, derived again. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from chains.btc.multisig import Multisig, agreed_multisig_address
from chains.errors import InvalidValue
from policies.bundle import (
    BitcoinKeyset,
    BitcoinNetwork,
    BitcoinVault,
    Bundle,
    EvmKeyset,
    EvmNetwork,
    EvmVault,
)
from signers.airgap.btc_wallets import multisig_of, own_member, read_descriptor
from signers.airgap.keys import HolderKey
from signers.airgap.registered import (
    FeeCaps,
    KnownAddress,
    KnownVault,
    Registered,
    RegisteredFactory,
    RegisteredMember,
    RegisteredNetwork,
    RegisteredOwner,
    RegisteredSafe,
    RegisteredToken,
    RegisteredTreasury,
    RegisteredVault,
    Source,
)

COMPARED_LETTERS: Final = 12
"""At the end of an address: whoever wants another one with the same end must try 2**48 Safes, or 2**60 wallets. (A
descriptor's checksum finds mistakes, but can be forged.)"""
FIRST_ADDRESSES: Final = ((0, 0), (0, 1), (0, 2), (1, 0))
"""Branch and index of what is compared with other holders."""
UNNAMED: Final = "unnamed"
"""Organisation of keys in a bare descriptor, which names none."""


@dataclass(frozen=True, slots=True)
class Wallet:
    """A wallet of the holder's, and how it is made known to other holders."""

    id: str
    lines: tuple[str, ...]
    question: str
    """What to read from another holder's paper or screen."""
    answer: str


def of_bundle(bundle: Bundle, key: HolderKey) -> Registered:
    """What of a bundle a holder needs: wallets of the key's, and names of everything else that may be paid.

    Args:
        bundle: the quorum's signatures were checked.
        key: the holder's.

    Raises:
        InvalidValue: the key is a member of no vault in it, or an entry is malformed or of another network.
        DerivationDisagreement: a descriptor is not its keys' own.
    """
    vaults = tuple(_vaults(bundle, key))
    safes = tuple(_safes(bundle, key))
    if not vaults and not safes:
        raise InvalidValue("your key is a member of no wallet in this bundle")
    mine = {vault.id for vault in vaults}
    networks = {n.chain: n for n in bundle.networks if isinstance(n, EvmNetwork)}
    return Registered(
        source=Source(version=bundle.version, digest=bundle.digest_hex(), expires_at=bundle.expires_at),
        vaults=vaults,
        wallets=tuple(wallet for wallet in _known_vaults(bundle) if wallet.id not in mine),
        safes=safes,
        networks=tuple(_networks(bundle, networks.values())),
        tokens=tuple(
            RegisteredToken(
                chain_id=networks[asset.chain].chain_id,
                contract=asset.contract,
                symbol=asset.id,
                decimals=asset.decimals,
            )
            for asset in bundle.assets
            if asset.contract is not None and asset.chain in networks
        ),
        known=tuple(_known_addresses(bundle, networks)),
        factories=tuple(_factories(bundle, networks, safes)),
        treasuries=tuple(
            RegisteredTreasury(
                chain_id=networks[keyset.chain].chain_id, address=keyset.address, keyset=keyset.id
            )
            for keyset in bundle.keysets
            if isinstance(keyset, EvmKeyset) and (keyset.tier, keyset.state) == ("hot", "active")
        ),
    )


def of_descriptor(text: str, name: str, key: HolderKey, before: Registered) -> Registered:
    """What was registered before, and a wallet that a bare descriptor describes.

    Raises:
        InvalidValue: malformed, of another network, or the key is not in it; or that name is taken.
    """
    wallet = read_descriptor(text, key.network)
    members = []
    for number, member in enumerate(wallet.members, 1):
        steps = "".join(f"/{step - (1 << 31)}'" for step in member.origin.path)
        members.append(
            RegisteredMember(
                id=f"key-{number}",
                organisation=UNNAMED,
                origin=member.origin.fingerprint.hex() + steps,
                account=member.keys.xpub,
            )
        )
    vault = RegisteredVault(
        id=name,
        network=key.network.name,  # type: ignore[arg-type]  # the names of NETWORKS are these
        threshold=wallet.threshold,
        members=tuple(members),
        descriptor=wallet.descriptor,
        caps=None,
    )
    if own_member(vault, key) is None:
        raise InvalidValue("your key is not in this descriptor, or is there with another account or path")
    if name in wallet_names(before) | {wallet.id for wallet in before.wallets}:
        raise InvalidValue(f"there is a wallet {name!r} already: choose another --name")
    return msgspec.structs.replace(before, vaults=(*before.vaults, vault))


def wallets_to_confirm(registered: Registered, before: Registered, key: HolderKey) -> Iterator[Wallet]:
    """The holder's wallets that were not registered in the same form before.

    Raises:
        DerivationDisagreement: two implementations derive different addresses.
    """
    for vault in registered.vaults:
        if _unchanged(vault, before):
            continue
        wallet = multisig_of(vault)
        yield Wallet(
            vault.id,
            tuple(_vault_lines(vault, wallet, key)),
            "Last twelve letters of address 0/0, as another holder reads them:",
            wallet.address(0, 0)[-COMPARED_LETTERS:],
        )
    for safe in registered.safes:
        if safe not in before.safes:
            yield Wallet(
                safe.id,
                tuple(_safe_lines(safe, key)),
                "Last twelve letters of its address, as another holder reads them:",
                safe.address[-COMPARED_LETTERS:],
            )


def wallet_names(registered: Registered) -> set[str]:
    """Of the holder's own wallets."""
    return {*(vault.id for vault in registered.vaults), *(safe.id for safe in registered.safes)}


def _unchanged(vault: RegisteredVault, before: Registered) -> bool:
    same = (vault.id, vault.descriptor, vault.network)
    return any((one.id, one.descriptor, one.network) == same for one in before.vaults)


def _vault_lines(vault: RegisteredVault, wallet: Multisig, key: HolderKey) -> Iterator[str]:
    own = own_member(vault, key)
    yield f"BITCOIN WALLET {vault.id}, {vault.network} network: any {vault.threshold} of {len(vault.members)} keys"
    for member in vault.members:
        yield f"  {member.origin[:8]}  {member.id}, {member.organisation}{'   <- you' if member == own else ''}"
    caps = vault.caps
    yield "" if caps is None else f"  highest fee: {caps.fee_cap_sats} sats"
    yield f"  descriptor {wallet.descriptor.rpartition('#')[0]}"
    yield "  first addresses, derived here by two programs that agree:"
    for branch, index in FIRST_ADDRESSES:
        yield f"    {branch}/{index}  {agreed_multisig_address(wallet, branch, index)}"
    yield f"  checksum  {wallet.descriptor.rpartition('#')[2]}"


def _safe_lines(safe: RegisteredSafe, key: HolderKey) -> Iterator[str]:
    yield f"SAFE {safe.id}, {safe.chain} (chain id {safe.chain_id}): any {safe.threshold} of {len(safe.owners)} owners"
    for owner in safe.owners:
        mine = "   <- you" if owner.address == key.evm_address else ""
        yield f"  {owner.address}  {owner.id}, {owner.organisation}{mine}"
    yield f"  address  {safe.address}"


def _vaults(bundle: Bundle, key: HolderKey) -> Iterator[RegisteredVault]:
    networks = {n.chain: n for n in bundle.networks if isinstance(n, BitcoinNetwork)}
    for vault in bundle.vaults:
        if not isinstance(vault, BitcoinVault) or vault.state == "destroyed":
            continue
        network = networks[vault.chain]
        found = RegisteredVault(
            id=vault.id,
            network=network.network,
            threshold=vault.threshold,
            members=_members(vault),
            descriptor=vault.descriptor,
            caps=FeeCaps(fee_cap_sats=int(network.fee_cap), feerate_cap_sat_per_kvb=network.feerate_cap),
        )
        named = [member for member in found.members if member.origin[:8] == key.fingerprint.hex()]
        if not named:
            continue
        if network.network != key.network.name:
            raise InvalidValue(
                f"{vault.id} is on the {network.network} network: your key is for {key.network.name}"
            )
        if own_member(found, key) is None:
            raise InvalidValue(
                f"{vault.id} names your fingerprint with another account or path than your key has"
            )
        multisig_of(found)
        yield found


def _safes(bundle: Bundle, key: HolderKey) -> Iterator[RegisteredSafe]:
    networks = {n.chain: n for n in bundle.networks if isinstance(n, EvmNetwork)}
    for vault in bundle.vaults:
        mine = isinstance(vault, EvmVault) and key.evm_address in {owner.address for owner in vault.owners}
        if isinstance(vault, EvmVault) and mine and vault.state != "destroyed":
            yield RegisteredSafe(
                id=vault.id,
                chain=vault.chain,
                chain_id=networks[vault.chain].chain_id,
                address=vault.address,
                owners=tuple(
                    RegisteredOwner(id=owner.id, organisation=owner.organisation, address=owner.address)
                    for owner in vault.owners
                ),
                threshold=vault.threshold,
                tier=vault.tier,
            )


def _known_vaults(bundle: Bundle) -> Iterator[KnownVault]:
    networks = {n.chain: n.network for n in bundle.networks if isinstance(n, BitcoinNetwork)}
    for vault in bundle.vaults:
        if isinstance(vault, BitcoinVault) and vault.state == "active":
            yield KnownVault(
                id=vault.id,
                tier=vault.tier,
                network=networks[vault.chain],
                kind="wsh-sortedmulti",
                threshold=vault.threshold,
                members=_members(vault),
            )
    for keyset in bundle.keysets:
        if isinstance(keyset, BitcoinKeyset) and keyset.state == "active":
            member = RegisteredMember(
                id=keyset.id, organisation=UNNAMED, origin=keyset.origin, account=keyset.account
            )
            yield KnownVault(
                id=keyset.id,
                tier=keyset.tier,
                network=networks[keyset.chain],
                kind=keyset.script,
                threshold=1,
                members=(member,),
            )


def _members(vault: BitcoinVault) -> tuple[RegisteredMember, ...]:
    return tuple(
        RegisteredMember(id=one.id, organisation=one.organisation, origin=one.origin, account=one.account)
        for one in vault.cosigners
    )


def _networks(bundle: Bundle, networks: Iterable[EvmNetwork]) -> Iterator[RegisteredNetwork]:
    for network in networks:
        native = bundle.asset(network.native_asset)
        yield RegisteredNetwork(
            chain=network.chain, chain_id=network.chain_id, symbol=native.id, decimals=native.decimals
        )


def _factories(
    bundle: Bundle, networks: dict[str, EvmNetwork], safes: Iterable[RegisteredSafe]
) -> Iterator[RegisteredFactory]:
    """Those that one of the holder's Safes is the admin of, whatever the state of their key-sets: deposits come for
    years."""
    mine = {(safe.chain, safe.id): safe for safe in safes}
    for keyset in bundle.keysets:
        safe = mine.get((keyset.chain, keyset.admin or "")) if isinstance(keyset, EvmKeyset) else None
        if isinstance(keyset, EvmKeyset) and safe is not None:
            chain_id = networks[keyset.chain].chain_id
            yield RegisteredFactory(
                chain_id=chain_id, address=keyset.factory, admin=safe.address, keyset=keyset.id
            )


def _known_addresses(bundle: Bundle, networks: dict[str, EvmNetwork]) -> Iterator[KnownAddress]:
    for vault in bundle.vaults:
        if isinstance(vault, EvmVault) and vault.state == "active":
            yield _known(networks[vault.chain], vault.address, f"your {vault.tier} Safe {vault.id}")
    for keyset in bundle.keysets:
        if isinstance(keyset, EvmKeyset) and keyset.state == "active":
            yield _known(networks[keyset.chain], keyset.address, f"your {keyset.tier} wallet {keyset.id}")
            yield _known(networks[keyset.chain], keyset.factory, f"deposit factory of {keyset.id}")
    for payer in bundle.gas_payers:
        if payer.state == "active":
            yield _known(networks[payer.chain], payer.address, f"your gas payer {payer.id}")


def _known(network: EvmNetwork, address: str, name: str) -> KnownAddress:
    return KnownAddress(chain_id=network.chain_id, address=address, name=name)
