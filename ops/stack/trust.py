"""The key ceremony of a trial installation: quorum, key-sets in the HSM, contracts, callers, bundle."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec

from ops.devnet.anvil import Anvil
from ops.devnet.errors import DevnetError
from ops.devnet.softhsm import SoftHsmToken
from ops.stack import ethereum
from ops.stack.keys import Person, person
from ops.stack.keyset import bitcoin_keyset, make_signer
from ops.stack.listing import Listing, bitcoin
from ops.stack.networks import TrialNetwork
from ops.stack.quorum import CallerGrant, Quorum, make_bundle, make_quorum, publish
from policies.bundle import Bundle, EvmKeyset, EvmNetwork, TrustRoot, read_bundle
from signers.keys.keyset import EvmKeysetRecord

_READS: Final = (
    "customers:read",
    "deposits:read",
    "withdrawals:read",
    "ledger:read",
    "events:read",
)
_APPROVALS: Final = ("approvals:read", "approvals:give")
_CALLERS: Final = {
    "exchange": (
        "trading",
        (
            *_READS,
            *_APPROVALS,
            "customers:write",
            "addresses:write",
            "withdrawals:write",
            "withdrawals:sign",
            "whitelist:read",
            "whitelist:write",
        ),
    ),
    "dora": ("treasury", (*_READS, *_APPROVALS, "withdrawals:write", "withdrawals:sign")),
}
_OPERATOR: Final = "operator"
"""Whoever runs a trial; has all roles."""
_ALSO_APPROVES: Final = "dora"
"""A treasurer who gives orders as well: for her own ones she never counts."""


@dataclass(frozen=True, slots=True)
class Trust:
    """What a trial installation is built on."""

    quorum: Quorum
    callers: Mapping[str, Person]
    """Who calls the API: programs, and the operator."""
    verifier: Person
    bundle: Bundle
    bundle_path: Path
    trust_root_path: Path


def prepare(directory: Path, token: SoftHsmToken, chains: Mapping[TrialNetwork, Anvil]) -> Trust:
    """Makes quorum, hot key-sets, contracts, callers and bundle below `directory`, or finds them there.

    Args:
        directory: of the installation.
        token: holds the signer's keys.
        chains: the node of each EVM network; it runs.

    Raises:
        UntrustedBundle: the bundle that is there is not believed (expired, not signed by this quorum).
        DevnetError: a chain has not what the bundle is to say, or does say, of it.
    """
    officers = directory / "officers"
    callers = {
        name: person(directory / "callers", name, organisation=organisation)
        for name, (organisation, _) in _CALLERS.items()
    }
    operator = person(directory / "callers", _OPERATOR, organisation="operations")
    quorum = make_quorum(officers)
    quorum = replace(quorum, approvers=(*quorum.approvers, callers[_ALSO_APPROVES]))
    verifier = person(directory / "verifiers", "verifier", organisation="audit")
    bundle_path, root_path = directory / "bundle.json", directory / "trust-root.json"
    admin = ethereum.admin_address(officers)
    if not bundle_path.exists():
        grants = [CallerGrant(callers[name], scopes) for name, (_, scopes) in _CALLERS.items()]
        pinned = quorum.trust_root(minimum_version=1)
        listings = _listings(directory, token, pinned, chains, admin=admin)
        made = make_bundle(
            version=1,
            listings=listings,
            callers=grants,
            quorum=quorum,
            verifiers=[verifier],
            operators=[operator],
        )
        publish(directory, quorum.sign(made), pinned)
    root = msgspec.json.decode(root_path.read_bytes(), type=TrustRoot)
    bundle = read_bundle(bundle_path.read_bytes(), root, now=int(time.time()))
    _check_chains(bundle, chains, admin=admin)
    return Trust(quorum, {**callers, _OPERATOR: operator}, verifier, bundle, bundle_path, root_path)


def _listings(
    directory: Path, token: SoftHsmToken, root: TrustRoot, chains: Mapping[TrialNetwork, Anvil], *, admin: str
) -> list[Listing]:
    """What the bundle is to say of each network; contracts are deployed for the keys that the HSM has made."""
    first, *others = make_signer(directory, token, root, list(chains))
    listings = [bitcoin(bitcoin_keyset(first))]
    for (network, node), record in zip(chains.items(), others, strict=True):
        assert isinstance(record, EvmKeysetRecord)
        listings.append(ethereum.prepare(node, network, record, admin=admin))
    return listings


def _check_chains(bundle: Bundle, chains: Mapping[TrialNetwork, Anvil], *, admin: str) -> None:
    nodes = {network.chain: node for network, node in chains.items()}
    for network in bundle.networks:
        if not isinstance(network, EvmNetwork):
            continue
        keyset = bundle.keyset_for(network.chain, "hot")
        if network.chain not in nodes or not isinstance(keyset, EvmKeyset):
            raise DevnetError(
                f"this installation began with {network.chain} as well: start it with that network"
            )
        ethereum.check_still_there(nodes[network.chain], keyset, network, admin=admin)
