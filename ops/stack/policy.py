"""The policy of a trial, read from the file beside this, for the networks that are there."""

from __future__ import annotations

from collections.abc import Collection
from importlib import resources
from typing import Final

import msgspec

from ops.stack.listing import ASSET
from ops.stack.names import BTC_COLD, BTC_KEYSET, BTC_WARM
from ops.stack.networks import TRIAL_NETWORKS
from policies.bundle import AssetEntry, BitcoinVault, Bundle, Confirmations
from policies.reading import read_policy
from policies.rules import Case, Policy, Rule, When

FILE: Final = "trial-policy.yaml"
_WALLETS: Final = frozenset(
    {
        BTC_KEYSET,
        BTC_WARM,
        BTC_COLD,
        *(network.keyset for network in TRIAL_NETWORKS),
        *(
            name
            for network in TRIAL_NETWORKS
            if network.tiers
            for name in (network.tiers.warm, network.tiers.cold)
        ),
    }
)
"""What money comes from, in the whole trial."""


def trial_policy(bundle: Bundle) -> Policy:
    """The trial's policy, without what is about assets and wallets that the bundle does not list.

    Args:
        bundle: the trial's, of some of its networks; its own policy is not looked at.
    """
    text = resources.files("ops.stack").joinpath(FILE).read_text()
    listed = {entry.id for entry in bundle.assets}
    every = {
        ASSET: 8,
        **{network.native: 18 for network in TRIAL_NETWORKS},
        **{token.asset: token.decimals for network in TRIAL_NETWORKS for token in network.tokens},
    }
    # The file is about the whole trial. What is not there is of no consequence but for its name and decimals.
    missing = tuple(
        AssetEntry(
            id=asset,
            chain=bundle.networks[0].chain,
            decimals=decimals,
            contract=None,
            minimum_deposit="0",
            withdrawal_fee="0",
            confirmations=(Confirmations(from_units="0", blocks=1),),
        )
        for asset, decimals in every.items()
        if asset not in listed
    )
    wallets = {wallet.id for wallet in bundle.wallets}
    absent = tuple(
        BitcoinVault(
            id=name, chain=bundle.networks[0].chain, tier="warm", threshold=2, cosigners=(), descriptor=""
        )
        for name in _WALLETS - wallets
    )
    whole = msgspec.structs.replace(
        bundle, assets=(*bundle.assets, *missing), vaults=(*bundle.vaults, *absent)
    )
    policy = read_policy(text, whole, file=FILE)
    return msgspec.structs.replace(
        policy,
        rules=tuple(_of_wallets(rule, wallets) for rule in policy.rules if _about(rule, listed, wallets)),
        holdings=tuple(holding for holding in policy.holdings if holding.asset in listed),
        cases=tuple(case for case in policy.cases if _asks(case, bundle)),
    )


def _about(rule: Rule, listed: Collection[str], wallets: Collection[str]) -> bool:
    return all(asset in listed for asset in rule.when.assets) and (
        not rule.when.sources or bool(_there(rule.when, wallets).sources)
    )


def _of_wallets(rule: Rule, wallets: Collection[str]) -> Rule:
    unless = rule.unless
    if unless is not None:
        unless = _there(unless, wallets)
        unless = unless if unless != When() else None
    return msgspec.structs.replace(rule, when=_there(rule.when, wallets), unless=unless)


def _there(scope: When, wallets: Collection[str]) -> When:
    """The scope without sources that the bundle does not list."""
    sources = tuple(each for each in scope.sources if each in wallets or each not in _WALLETS)
    return msgspec.structs.replace(scope, sources=sources)


def _asks(case: Case, bundle: Bundle) -> bool:
    asset = msgspec.json.decode(case.given).get("asset")
    chains = {entry.chain for entry in bundle.assets if entry.id == asset}
    tiers = {wallet.tier for wallet in bundle.wallets if wallet.chain in chains}
    return bool(chains) and (case.expect in tiers or case.expect in ("deny", "wait", "ledger"))
