"""The key ceremony of a trial installation: quorum, key-sets in the HSM, contracts, callers, bundle."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec

from ops.devnet.anvil import Anvil
from ops.devnet.errors import DevnetError
from ops.devnet.softhsm import SoftHsmToken
from ops.stack import ethereum
from ops.stack.holders import make_holders
from ops.stack.keys import Person, person
from ops.stack.keyset import bitcoin_keyset, make_signer
from ops.stack.listing import Listing, bitcoin
from ops.stack.members import Member, MemberKeys, make_member
from ops.stack.networks import TrialNetwork
from ops.stack.quorum import CallerGrant, Quorum, make_bundle, make_quorum, publish
from ops.stack.trading import RECONCILER, TRADING_CORE
from ops.stack.vaults import bitcoin_vaults, holding_owners, owners_of
from policies.bundle import Bundle, EvmKeyset, EvmNetwork, EvmVault, TrustRoot, read_bundle
from signers.airgap.records import KeyRecord
from signers.keys.keyset import EvmKeysetRecord, GasPayerRecord, KeysetRecord

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
            "trading:read",
            "trading:write",
        ),
    ),
    TRADING_CORE: ("trading", ("trading",)),
    RECONCILER: ("operations", ("trading:read",)),
    "dora": ("treasury", (*_READS, *_APPROVALS, "withdrawals:write", "withdrawals:sign")),
}
_OPERATOR: Final = "operator"
"""Whoever runs a trial; has all roles."""
_ALSO_APPROVES: Final = "dora"
"""A treasurer who gives orders as well: for her own ones she never counts."""


@dataclass(frozen=True, slots=True)
class KeyPlaces:
    """Where the keys of an installation are made and kept."""

    directory: Path
    """Of the installation."""
    token: SoftHsmToken
    """Of the hot keys; initialised here."""
    members: Sequence[Member]
    """Who sign for warm vaults."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The public halves of all keys."""

    hot: Sequence[KeysetRecord]
    """Of Bitcoin first, then of each network, then the gas payers."""
    members: Sequence[MemberKeys]
    holders: Sequence[KeyRecord]


@dataclass(frozen=True, slots=True)
class Trust:
    """What a trial installation is built on."""

    quorum: Quorum
    callers: Mapping[str, Person]
    """Who calls the API: programs, and the operator."""
    verifier: Person
    keys: Keys
    bundle: Bundle
    bundle_path: Path
    trust_root_path: Path


def make_keys(places: KeyPlaces, root: TrustRoot, networks: Sequence[TrialNetwork]) -> Keys:
    """Makes all keys, or finds them; no chain is needed for it.

    Raises:
        StartFailed: a set-up refused.
    """
    safes = [network for network in networks if network.tiers is not None]

    def hot() -> list[KeysetRecord]:
        places.token.create()
        return make_signer(places.directory, places.token, root, networks, gas_payers=safes)

    # Each is made in processes of its own.
    with ThreadPoolExecutor(2 + len(places.members)) as together:
        hot_made = together.submit(hot)
        cold_made = together.submit(make_holders, places.directory)
        warm_made = [together.submit(make_member, each, root, networks) for each in places.members]
        return Keys(hot_made.result(), [each.result() for each in warm_made], cold_made.result())


def quorum_of(directory: Path) -> Quorum:
    """The quorum of the installation below `directory`, made if there is none."""
    callers = _callers(directory)
    quorum = make_quorum(directory / "officers")
    return replace(quorum, approvers=(*quorum.approvers, callers[_ALSO_APPROVES]))


def prepare(directory: Path, keys: Keys, chains: Mapping[TrialNetwork, Anvil]) -> Trust:
    """Makes callers, contracts and bundle below `directory`, or finds them there.

    Args:
        directory: of the installation.
        keys: of all tiers.
        chains: the node of each EVM network; it runs.

    Raises:
        UntrustedBundle: the bundle that is there is not believed (expired, not signed by this quorum).
        DevnetError: a chain has not what the bundle is to say, or does say, of it.
    """
    callers, quorum = _callers(directory), quorum_of(directory)
    operator = person(directory / "callers", _OPERATOR, organisation="operations")
    verifier = person(directory / "verifiers", "verifier", organisation="audit")
    bundle_path, root_path = directory / "bundle.json", directory / "trust-root.json"
    admin = ethereum.admin_address(directory / "officers")
    if not bundle_path.exists():
        grants = [CallerGrant(callers[name], scopes) for name, (_, scopes) in _CALLERS.items()]
        pinned = quorum.trust_root(minimum_version=1)
        made = make_bundle(
            version=1,
            listings=_listings(keys, chains, admin=admin),
            callers=grants,
            quorum=quorum,
            verifiers=[verifier],
            operators=[operator],
        )
        publish(directory, quorum.sign(made), pinned)
    root = msgspec.json.decode(root_path.read_bytes(), type=TrustRoot)
    bundle = read_bundle(bundle_path.read_bytes(), root, now=int(time.time()))
    _check_chains(bundle, chains, admin=admin)
    return Trust(quorum, {**callers, _OPERATOR: operator}, verifier, keys, bundle, bundle_path, root_path)


def _callers(directory: Path) -> dict[str, Person]:
    return {
        name: person(directory / "callers", name, organisation=organisation)
        for name, (organisation, _) in _CALLERS.items()
    }


def _listings(keys: Keys, chains: Mapping[TrialNetwork, Anvil], *, admin: str) -> list[Listing]:
    """What the bundle is to say of each network; contracts are deployed for the keys that were made."""
    bitcoin_key, *others = keys.hot
    listings = [bitcoin(bitcoin_keyset(bitcoin_key), bitcoin_vaults(keys.members, keys.holders))]
    payers = {record.chain_id: record for record in others if isinstance(record, GasPayerRecord)}
    hot = {record.chain_id: record for record in others if isinstance(record, EvmKeysetRecord)}
    for network, node in chains.items():
        safes = None
        if network.tiers is not None:
            warm, cold = owners_of(network, keys.members), holding_owners(keys.holders)
            safes = ethereum.make_safes(node, network, warm, cold, payers[network.chain_id])
        record = hot[network.chain_id]
        listings.append(ethereum.prepare(node, network, record, admin=admin, safes=safes))
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
        safes = [each for each in bundle.vaults if isinstance(each, EvmVault) and each.chain == network.chain]
        cold = [each.address for each in safes if each.tier == "cold"]
        ethereum.check_still_there(
            nodes[network.chain], keyset, network, admin=cold[0] if cold else admin, safes=safes
        )
