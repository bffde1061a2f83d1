"""Ceremonies' records as entries of the bundle, so that nobody types a key. Pure.

A wallet is `pre-active` until its ceremony is proven, and `active` only when the quorum says so; the state given here
is a proposal for the bundle that the officers sign.
"""

from __future__ import annotations

from dataclasses import dataclass

from policies.bundle import BitcoinKeyset, Cosigner, EvmKeyset, KeysetEntry, KeyState, Owner, Tier
from signers.ceremony.record import ProvenCeremony, SignedCeremony
from signers.errors import BadConfiguration
from signers.keyset import BitcoinCosignerRecord, BitcoinKeysetRecord, EvmKeysetRecord, SafeOwnerRecord


@dataclass(frozen=True, slots=True)
class Contracts:
    """What a key-set of an EVM network has on its chain; see `policies.bundle.EvmKeyset`."""

    factory: str
    forwarder: str
    """keccak256 of the forwarders' init code, 64 hex digits."""
    payout: str | None


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
    if state != "pre-active" and (proven is None or proven.ceremony != signed):
        raise BadConfiguration(f"key-set {keyset.id!r} is pre-active until its backup was proven")
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
        raise BadConfiguration(f"{keyset.id!r} is a member of a vault, not a wallet of its own")
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
