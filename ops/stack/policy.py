"""The policy of a trial, read from the file beside this, for the networks that are there."""

from __future__ import annotations

from collections.abc import Collection
from importlib import resources
from typing import Final

import msgspec

from ops.stack.listing import ASSET
from ops.stack.networks import TRIAL_NETWORKS
from policies.bundle import AssetEntry, Bundle, Confirmations
from policies.reading import read_policy
from policies.rules import Case, Policy, Rule

FILE: Final = "trial-policy.yaml"


def trial_policy(bundle: Bundle) -> Policy:
    """The trial's policy, without what is about assets that the bundle does not list.

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
    # The file is about all networks of a trial. An asset that is not there is of no consequence but for its decimals.
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
    whole = msgspec.structs.replace(bundle, assets=(*bundle.assets, *missing))
    policy = read_policy(text, whole, file=FILE)
    return msgspec.structs.replace(
        policy,
        rules=tuple(rule for rule in policy.rules if _about(rule, listed)),
        holdings=tuple(holding for holding in policy.holdings if holding.asset in listed),
        cases=tuple(case for case in policy.cases if _asks(case, listed)),
    )


def _about(rule: Rule, listed: Collection[str]) -> bool:
    return all(asset in listed for asset in rule.when.assets)


def _asks(case: Case, listed: Collection[str]) -> bool:
    return msgspec.json.decode(case.given).get("asset") in listed
