"""What must hold within a bundle before anybody believes any of it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Final

from chains.errors import InvalidValue
from chains.eth.address import is_checksummed
from policies.bundle.document import Bundle
from policies.bundle.networks import EvmNetwork
from policies.bundle.people import Passkey
from policies.bundle.wallets import BitcoinVault, Cosigner, EvmKeyset, EvmVault, GasPayer
from policies.checks import Names, check_policy
from policies.rules import HOUSE

MAX_VETO_SECONDS: Final = 30 * 24 * 3600
"""Longest time that the next bundle waits."""


def check_consistent(bundle: Bundle) -> None:
    """Check that ids are unique and that everything referred to exists.

    Raises:
        InvalidValue: names the entry.
    """
    _check_unique(bundle)
    _check_passkeys(bundle)
    _check_operators(bundle)
    _check_networks(bundle)
    families = {n.chain: n.family for n in bundle.networks}
    _check_assets(bundle, families)
    _check_keysets(bundle, families)
    _check_vaults(bundle, families)
    _check_gas_payers(bundle, families)
    for entry in (*bundle.assets, *bundle.wallets):
        if entry.chain not in families:
            raise InvalidValue(f"bundle: {entry.id} is on an unlisted network {entry.chain}")
    _check_windows(bundle)
    _check_named_assets(bundle)
    _check_bands(bundle)
    _check_limits(bundle)
    _check_successors(bundle)
    check_policy(bundle.policy, names_of(bundle))


def names_of(bundle: Bundle) -> Names:
    """What the bundle's policy may name."""
    # That module needs people of the bundle, so it comes after this one.
    from policies.administration import ACTIONS

    return Names(
        assets={entry.id: entry.chain for entry in bundle.assets},
        chains=frozenset(network.chain for network in bundle.networks),
        evm_chains=frozenset(n.chain for n in bundle.networks if isinstance(n, EvmNetwork)),
        wallets=frozenset(wallet.id for wallet in bundle.wallets),
        initiators=frozenset(
            [
                HOUSE,
                *(caller.id for caller in bundle.callers),
                *(approver.id for approver in bundle.approvers),
                *(operator.id for operator in bundle.operators),
                *(officer.id for officer in bundle.officers),
            ]
        ),
        people={approver.id: frozenset(approver.roles) for approver in bundle.approvers},
        actions=frozenset(ACTIONS),
    )


def _check_unique(bundle: Bundle) -> None:
    active = [w for w in (*bundle.keysets, *bundle.vaults) if w.state == "active"]
    for what, ids in (
        ("network", [n.chain for n in bundle.networks]),
        ("asset", [a.id for a in bundle.assets]),
        ("asset of one chain and contract", [(a.chain, a.contract) for a in bundle.assets]),
        ("chain id", [n.chain_id for n in bundle.networks if isinstance(n, EvmNetwork)]),
        ("key-set, vault or gas payer", [w.id for w in bundle.wallets]),
        # Each signer's journal knows its own signatures only: two that may pay one order could both pay it, and a cap
        # of the tier would hold for each of them.
        ("active key-set of one chain and tier", [(k.chain, k.tier) for k in active]),
        ("active gas payer of one chain", [p.chain for p in bundle.gas_payers if p.state == "active"]),
        ("caller", [c.id for c in bundle.callers]),
        ("caller key", [c.key for c in bundle.callers]),
        # A token names one or the other, and a key is one person's or program's.
        ("caller or operator", [*(c.id for c in bundle.callers), *(o.id for o in bundle.operators)]),
        (
            "key of a caller or operator",
            [*(c.key for c in bundle.callers), *(o.key for o in bundle.operators)],
        ),
        ("officer", [o.id for o in bundle.officers]),
        ("approver", [a.id for a in bundle.approvers]),
        ("approver key", [a.key if isinstance(a.key, str) else a.key.public_key for a in bundle.approvers]),
        ("verifier", [v.id for v in bundle.verifiers]),
        ("breaker", [b.id for b in bundle.breakers]),
        ("key-set under breakers", [keyset for b in bundle.breakers for keyset in b.keysets]),
        ("price", [p.asset for p in bundle.prices]),
        ("cap", [(c.tier, c.asset) for c in bundle.caps]),
    ):
        if len(set(ids)) != len(ids):
            raise InvalidValue(f"bundle: a {what} is listed twice")


def _check_passkeys(bundle: Bundle) -> None:
    passkeys = [approver for approver in bundle.approvers if isinstance(approver.key, Passkey)]
    if not passkeys:
        return
    # Slow to load, and most that read a bundle never check an approval.
    from policies.passkeys import check_passkey, raw_key

    keys = {approver.key for approver in bundle.approvers if isinstance(approver.key, str)}
    for approver in passkeys:
        assert isinstance(approver.key, Passkey)
        try:
            check_passkey(approver.key)
            raw = raw_key(approver.key)
        except InvalidValue as error:
            raise InvalidValue(f"bundle: approver {approver.id}: {error}") from None
        if raw in keys:
            raise InvalidValue(
                f"bundle: the key behind the passkey of {approver.id} is another approver's, too"
            )


def _check_operators(bundle: Bundle) -> None:
    """An approver with an operator's name is that operator: whoever seconds actions must be somebody."""
    operators = {operator.id: operator for operator in bundle.operators}
    for approver in bundle.approvers:
        same = operators.get(approver.id)
        if same is not None and same.organisation != approver.organisation:
            raise InvalidValue(
                f"bundle: {approver.id} is an operator of {same.organisation} and an approver of "
                f"{approver.organisation}: one person has one organisation"
            )


def _check_networks(bundle: Bundle) -> None:
    assets = {a.id: a for a in bundle.assets}
    for network in bundle.networks:
        native = assets.get(network.native_asset)
        if native is None or native.chain != network.chain or native.contract is not None:
            raise InvalidValue(f"bundle: {network.chain} names no native asset of its own")
        if network.feerate_floor > network.feerate_cap:
            raise InvalidValue(f"bundle: the feerate floor of {network.chain} is above its cap")


def _check_assets(bundle: Bundle, families: Mapping[str, str]) -> None:
    for entry in bundle.assets:
        if "rebasing" in entry.traits:
            raise InvalidValue(
                f"bundle: {entry.id} is a rebasing token: balances that change by themselves cannot be kept in a ledger"
            )
    for entry in bundle.assets:
        if entry.contract is not None and families.get(entry.chain) == "btc":
            raise InvalidValue(f"bundle: {entry.id} names a contract on {entry.chain}, which has none")
        if entry.contract is not None and families.get(entry.chain) == "evm":
            _check_address(entry.id, entry.contract)


def _check_keysets(bundle: Bundle, families: Mapping[str, str]) -> None:
    for keyset in bundle.keysets:
        if families.get(keyset.chain, keyset.family) != keyset.family:
            raise InvalidValue(f"bundle: key-set {keyset.id} is of another family than {keyset.chain}")
        if isinstance(keyset, EvmKeyset):
            _check_contracts(keyset, bundle)
            _check_admin(keyset, bundle)


def _check_windows(bundle: Bundle) -> None:
    windows = [
        *((f"the fees of {n.chain}", n.fee_window_seconds) for n in bundle.networks),
        *((f"the {c.tier} cap of {c.asset}", c.window_seconds) for c in bundle.caps),
        *((f"breaker {b.id}", b.window_seconds) for b in bundle.breakers),
    ]
    for where, seconds in windows:
        if seconds < 1:
            raise InvalidValue(f"bundle: the window of {where} has no length, so it would limit nothing")


def _check_named_assets(bundle: Bundle) -> None:
    assets = {entry.id for entry in bundle.assets}
    named = [
        *(c.asset for c in bundle.caps),
        *(p.asset for p in bundle.prices),
    ]
    for listed in named:
        if listed not in assets:
            raise InvalidValue(f"bundle: a cap or price names an unlisted asset {listed}")


def _check_bands(bundle: Bundle) -> None:
    """Tiers don't know of each other's signatures, so no amount may belong to two of them."""
    chains = {asset.id: asset.chain for asset in bundle.assets}
    wallets = {(wallet.chain, wallet.tier) for wallet in (*bundle.keysets, *bundle.vaults)}
    caps = [cap for cap in bundle.caps if (chains[cap.asset], cap.tier) in wallets]
    for one, other in combinations(caps, 2):
        lowest = max(int(one.payment_from), int(other.payment_from))
        if one.asset == other.asset and lowest < min(int(one.payment_below), int(other.payment_below)):
            raise InvalidValue(
                f"bundle: {one.tier} and {other.tier} could both pay one order of {lowest} {one.asset}: let "
                "payment_from of the colder one be payment_below of the hotter one"
            )


def _check_successors(bundle: Bundle) -> None:
    """Whatever is active became so last. One that is active again has not seen what others have paid meanwhile."""
    wallets = (*bundle.keysets, *bundle.vaults)
    since = {(w.chain, w.tier): w for w in wallets if w.state == "active"}
    for wallet in wallets:
        active = since.get((wallet.chain, wallet.tier), wallet)
        if wallet.state != "pre-active" and wallet.active_from > active.active_from:
            raise InvalidValue(
                f"bundle: {active.id} is active again after {wallet.id}: its active_from must say since when, or both "
                "could pay one order"
            )


def _check_limits(bundle: Bundle) -> None:
    """What would allow more than it seems to, or nothing at all."""
    if bundle.longest_order_seconds < 1:
        raise InvalidValue("bundle: longest_order_seconds allows no order at all")
    if bundle.veto_seconds > MAX_VETO_SECONDS:
        raise InvalidValue(f"bundle: veto_seconds: at most {MAX_VETO_SECONDS}, or none could follow it")
    if bundle.in_force_from >= bundle.expires_at:
        raise InvalidValue("bundle: it would expire before it is in force")
    keysets = {keyset.id for keyset in (*bundle.keysets, *bundle.gas_payers)}
    for breaker in bundle.breakers:
        for named in breaker.keysets:
            if named not in keysets:
                raise InvalidValue(f"bundle: breaker {breaker.id} names no key-set {named}")
    for bound in bundle.prices:
        if not 0 < int(bound.low) <= int(bound.high):
            raise InvalidValue(f"bundle: the price of {bound.asset} is from {bound.low} to {bound.high}")


def _check_vaults(bundle: Bundle, families: Mapping[str, str]) -> None:
    """A vault's members are its own, and no two groups of them could each sign without the other."""
    for vault in bundle.vaults:
        if families.get(vault.chain, vault.family) != vault.family:
            raise InvalidValue(f"bundle: vault {vault.id} is of another family than {vault.chain}")
        members = vault.cosigners if isinstance(vault, BitcoinVault) else vault.owners
        keys = [m.account if isinstance(m, Cosigner) else m.address for m in members]
        if len(set(keys)) != len(keys) or len({m.id for m in members}) != len(members):
            raise InvalidValue(f"bundle: vault {vault.id} lists a member twice")
        if vault.threshold > len(members):
            raise InvalidValue(
                f"bundle: vault {vault.id} has {len(members)} members for {vault.threshold} signatures"
            )
        if 2 * vault.threshold <= len(members):
            raise InvalidValue(
                f"bundle: {vault.threshold} of the {len(members)} members of vault {vault.id} are not more than half: "
                "two groups that share nobody could each pay one order"
            )
        if isinstance(vault, EvmVault):
            for address in (vault.address, *keys):
                _check_address(vault.id, address)
            if vault.address in keys:
                raise InvalidValue(f"bundle: vault {vault.id} owns itself")


def _check_gas_payers(bundle: Bundle, families: Mapping[str, str]) -> None:
    """A gas payer's address is nobody else's: what it holds is gas, and none of it counts as anything else."""
    for payer in bundle.gas_payers:
        if families.get(payer.chain, payer.family) != payer.family:
            raise InvalidValue(f"bundle: gas payer {payer.id} is of another family than {payer.chain}")
        _check_address(payer.id, payer.address)
        if payer.address in _addresses_beside(payer, bundle):
            raise InvalidValue(
                f"bundle: the address of gas payer {payer.id} is somebody else's on {payer.chain}"
            )
        if payer.holding_cap == "0":
            raise InvalidValue(f"bundle: gas payer {payer.id} could hold nothing")
        if not any(payer.id in breaker.keysets for breaker in bundle.breakers):
            raise InvalidValue(f"bundle: gas payer {payer.id} is under no breaker")


def _addresses_beside(payer: GasPayer, bundle: Bundle) -> set[str | None]:
    """All other addresses that the bundle names on a gas payer's chain."""
    beside: set[str | None] = {entry.contract for entry in bundle.assets if entry.chain == payer.chain}
    for wallet in bundle.wallets:
        if wallet.chain != payer.chain or wallet is payer:
            continue
        if isinstance(wallet, EvmKeyset):
            beside |= {wallet.address, wallet.factory, wallet.payout}
        elif isinstance(wallet, EvmVault):
            beside |= {wallet.address, *(owner.address for owner in wallet.owners)}
        elif isinstance(wallet, GasPayer):
            beside.add(wallet.address)
    return beside


def _check_contracts(keyset: EvmKeyset, bundle: Bundle) -> None:
    """What a call of an address means must follow from the address alone."""
    own = [address for address in (keyset.address, keyset.factory, keyset.payout) if address is not None]
    for address in own:
        _check_address(keyset.id, address)
    tokens = {entry.contract for entry in bundle.assets if entry.chain == keyset.chain}
    if len(set(own)) != len(own) or tokens & set(own):
        raise InvalidValue(f"bundle: key-set {keyset.id}: key, factory, payout and tokens share an address")


def _check_admin(keyset: EvmKeyset, bundle: Bundle) -> None:
    """Who may change whom forwarders pay are many, and offline."""
    if keyset.admin is None:
        return
    admin = next((vault for vault in bundle.vaults if vault.id == keyset.admin), None)
    if not isinstance(admin, EvmVault) or (admin.chain, admin.tier) != (keyset.chain, "cold"):
        told = f"the admin {keyset.admin} of {keyset.id}'s factory is no cold Safe of {keyset.chain}"
        raise InvalidValue(f"bundle: {told}")


def _check_address(where: str, text: str) -> None:
    """Addresses are compared as texts everywhere, so each has one form only."""
    if not is_checksummed(text):
        raise InvalidValue(f"bundle: {where}: {text} lacks the checksum of EIP-55")
