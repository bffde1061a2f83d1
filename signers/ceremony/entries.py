"""Ceremonies' records as entries of the bundle, so that nobody types a key. Pure.

A wallet is `pre-active` until its ceremony is proven, and `active` only when the quorum says so; the state given here
is a proposal for the bundle that the officers sign.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from chains.btc.multisig import agreed_multisig_address, parse_multisig
from chains.btc.network import NETWORKS
from chains.errors import InvalidValue
from chains.eth.address import is_checksummed
from policies.bundle import (
    BitcoinKeyset,
    BitcoinVault,
    Cosigner,
    EvmKeyset,
    EvmVault,
    GasPayer,
    KeysetEntry,
    KeyState,
    Owner,
    Tier,
)
from signers.ceremony.facts import BRANCHES, FIRST_ADDRESSES
from signers.ceremony.record import FirstAddress, ProvenCeremony, SignedCeremony
from signers.errors import BadConfiguration
from signers.keys.keyset import (
    BitcoinCosignerRecord,
    BitcoinKeysetRecord,
    EvmKeysetRecord,
    GasPayerRecord,
    SafeOwnerRecord,
)


@dataclass(frozen=True, slots=True)
class Contracts:
    """What a key-set of an EVM network has on its chain; see `policies.bundle.EvmKeyset`."""

    factory: str
    forwarder: str
    """keccak256 of the forwarders' init code, 64 hex digits."""
    payout: str | None
    admin: str | None = None
    """Id of the Safe that is the factory's admin."""


def wallet_entry(
    signed: SignedCeremony,
    proven: ProvenCeremony | None,
    *,
    chain: str,
    tier: Tier,
    contracts: Contracts | None = None,
    state: KeyState = "pre-active",
) -> KeysetEntry:
    """The entry of a wallet of its own.

    Args:
        signed: genuine record (`read_ceremony` checks).
        proven: its genuine proof, if there is one.
        chain: id of the network in the bundle.
        tier: in which it pays.
        contracts: of an EVM key-set.
        state: `pre-active`, or `active` if it is proven.

    Raises:
        BadConfiguration: a member of a vault, missing contracts, or an active key-set without proof.
    """
    keyset = signed.record.keyset
    _check_state(signed, proven, state)
    if isinstance(keyset, BitcoinKeysetRecord):
        return BitcoinKeyset(
            id=keyset.id,
            chain=chain,
            tier=tier,
            attestation_key=keyset.attestation_key,
            state=state,
            script=keyset.script,
            account=keyset.account,
            origin=keyset.origin,
        )
    if not isinstance(keyset, EvmKeysetRecord):
        raise BadConfiguration(
            f"{keyset.id!r} is a member of a vault or a gas payer, not a wallet of its own"
        )
    if contracts is None:
        raise BadConfiguration(f"key-set {keyset.id!r} needs the addresses of its contracts")
    return EvmKeyset(
        id=keyset.id,
        chain=chain,
        tier=tier,
        attestation_key=keyset.attestation_key,
        state=state,
        address=keyset.address,
        factory=contracts.factory,
        forwarder=contracts.forwarder,
        payout=contracts.payout,
        admin=contracts.admin,
    )


def gas_payer_entry(
    signed: SignedCeremony,
    proven: ProvenCeremony | None,
    *,
    chain: str,
    holding_cap: str,
    state: KeyState = "pre-active",
) -> GasPayer:
    """The entry of a gas payer.

    Args:
        signed: genuine record (`read_ceremony` checks).
        proven: its genuine proof, if there is one.
        chain: id of the network in the bundle.
        holding_cap: the most that it should hold, in base units of the native asset.
        state: `pre-active`, or `active` if it is proven.

    Raises:
        BadConfiguration: keys of another purpose, or an active gas payer without proof.
    """
    keyset = signed.record.keyset
    _check_state(signed, proven, state)
    if not isinstance(keyset, GasPayerRecord):
        raise BadConfiguration(f"{keyset.id!r} is no gas payer")
    return GasPayer(
        id=keyset.id,
        chain=chain,
        address=keyset.address,
        attestation_key=keyset.attestation_key,
        holding_cap=holding_cap,
        state=state,
    )


def _check_state(signed: SignedCeremony, proven: ProvenCeremony | None, state: KeyState) -> None:
    if state != "pre-active" and (proven is None or proven.ceremony != signed):
        raise BadConfiguration(
            f"key-set {signed.record.keyset.id!r} is pre-active until its backup was proven"
        )


def member_entry(signed: SignedCeremony) -> Cosigner | Owner:
    """The entry of a vault's member: a Bitcoin cosigner, or an owner of a Safe. Raises BadConfiguration: a wallet."""
    record = signed.record
    keyset = record.keyset
    if record.member is None or record.organisation is None:
        raise BadConfiguration(f"{keyset.id!r} is a wallet of its own, not a member of a vault")
    if isinstance(keyset, BitcoinCosignerRecord):
        return Cosigner(
            id=record.member,
            organisation=record.organisation,
            account=keyset.account,
            origin=keyset.origin,
        )
    if isinstance(keyset, SafeOwnerRecord):
        return Owner(id=record.member, organisation=record.organisation, address=keyset.address)
    raise BadConfiguration(f"{keyset.id!r} is no member of a vault")


def bitcoin_vault_entry(
    members: Sequence[SignedCeremony],
    *,
    chain: str,
    tier: Literal["warm", "cold"],
    threshold: int,
    state: KeyState = "pre-active",
) -> tuple[BitcoinVault, tuple[FirstAddress, ...]]:
    """The entry of a Bitcoin vault, from its cosigners' ceremonies; and its first addresses, for all to compare.

    Args:
        members: genuine records, in the order that the descriptor gets.
        chain: id of the network in the bundle.
        tier: of the vault.
        threshold: how many sign.
        state: to propose to the quorum.

    Raises:
        BadConfiguration: not cosigners of one vault on one network, or too few of them.
        DerivationDisagreement: two implementations see different addresses.
    """
    records = [signed.record.keyset for signed in members]
    cosigners = [record for record in records if isinstance(record, BitcoinCosignerRecord)]
    if len(cosigners) != len(records) or len({(one.id, one.network) for one in cosigners}) != 1:
        raise BadConfiguration("these are not cosigners of one vault on one network")
    listed = [member_entry(signed) for signed in members]
    try:
        wallet = parse_multisig(
            threshold, [(one.origin, one.account) for one in cosigners], NETWORKS[cosigners[0].network]
        )
    except InvalidValue as error:
        raise BadConfiguration(f"vault {cosigners[0].id!r}: {error}") from None
    first = tuple(
        FirstAddress(branch=branch, index=index, address=agreed_multisig_address(wallet, branch, index))
        for branch in BRANCHES
        for index in range(FIRST_ADDRESSES)
    )
    entry = BitcoinVault(
        id=cosigners[0].id,
        chain=chain,
        tier=tier,
        threshold=threshold,
        state=state,
        cosigners=tuple(one for one in listed if isinstance(one, Cosigner)),
        descriptor=wallet.descriptor,
    )
    return entry, first


def safe_entry(
    members: Sequence[SignedCeremony],
    *,
    chain: str,
    tier: Literal["warm", "cold"],
    threshold: int,
    address: str,
    state: KeyState = "pre-active",
) -> EvmVault:
    """The entry of a Safe, from its owners' ceremonies and the address to which it was deployed.

    Raises:
        BadConfiguration: not owners of one Safe on one network, too few of them, or a malformed address.
    """
    records = [signed.record.keyset for signed in members]
    owners = [record for record in records if isinstance(record, SafeOwnerRecord)]
    if len(owners) != len(records) or len({(one.id, one.chain_id) for one in owners}) != 1:
        raise BadConfiguration("these are not owners of one Safe on one network")
    if len({one.address for one in owners}) < max(threshold, len(owners)) or not is_checksummed(address):
        raise BadConfiguration(
            f"Safe {owners[0].id!r}: an owner comes twice, too few, or no checksum in the address"
        )
    listed = [member_entry(signed) for signed in members]
    return EvmVault(
        id=owners[0].id,
        chain=chain,
        tier=tier,
        threshold=threshold,
        state=state,
        address=address,
        owners=tuple(one for one in listed if isinstance(one, Owner)),
    )
