"""What the bundle of a trial says of its vaults: whose keys are in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from chains.btc.multisig import agreed_multisig_address, parse_multisig
from chains.btc.network import NETWORKS
from ops.stack.listing import CHAIN
from ops.stack.members import MemberKeys
from ops.stack.names import BTC_COLD, BTC_WARM, COLD_THRESHOLD, WARM_THRESHOLD
from ops.stack.networks import TrialNetwork
from policies.bundle import BitcoinVault, Cosigner, Owner, Vault
from signers.airgap.records import KeyRecord


def bitcoin_vaults(members: Sequence[MemberKeys], holders: Sequence[KeyRecord]) -> tuple[Vault, ...]:
    """The warm and the cold vault on Bitcoin.

    Raises:
        DerivationDisagreement: two implementations derive different first addresses.
    """
    warm = [
        Cosigner(
            id=each.member.name,
            organisation=each.member.organisation,
            account=each.cosigner.account,
            origin=each.cosigner.origin,
        )
        for each in members
    ]
    cold = [
        Cosigner(id=each.name, organisation=each.organisation, account=each.xpub, origin=each.origin)
        for each in holders
    ]
    return (_vault(BTC_WARM, "warm", WARM_THRESHOLD, warm), _vault(BTC_COLD, "cold", COLD_THRESHOLD, cold))


def owners_of(network: TrialNetwork, members: Sequence[MemberKeys]) -> list[Owner]:
    """Who own the warm Safe of a network."""
    return [
        Owner(id=each.member.name, organisation=each.member.organisation, address=owner.address)
        for each in members
        for owner in each.owners
        if network.tiers is not None and owner.id == network.tiers.warm
    ]


def holding_owners(holders: Sequence[KeyRecord]) -> list[Owner]:
    """Who own each cold Safe."""
    return [Owner(id=each.name, organisation=each.organisation, address=each.evm_address) for each in holders]


def _vault(
    name: str, tier: Literal["warm", "cold"], threshold: int, cosigners: Sequence[Cosigner]
) -> BitcoinVault:
    wallet = parse_multisig(
        threshold, [(each.origin, each.account) for each in cosigners], NETWORKS["regtest"]
    )
    for branch in (0, 1):
        agreed_multisig_address(wallet, branch, 0)
    return BitcoinVault(
        id=name,
        chain=CHAIN,
        tier=tier,
        threshold=threshold,
        cosigners=tuple(cosigners),
        descriptor=wallet.descriptor,
    )
