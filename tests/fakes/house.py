"""A bundle of a whole house for tests of policies: two chains, four assets, wallets of all tiers, people. No keys."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from policies.bundle import (
    Approver,
    AssetEntry,
    BitcoinKeyset,
    BitcoinNetwork,
    BitcoinVault,
    Breaker,
    Bundle,
    Caller,
    Confirmations,
    Cosigner,
    EvmKeyset,
    EvmNetwork,
    EvmVault,
    GasCaps,
    Officer,
    Owner,
    PriceBound,
    TierCap,
    check_consistent,
)
from policies.rules import Policy

DAY = 24 * 3600
NOW = 1_800_000_000
_GAS = GasCaps(transfer=100_000, token=200_000, payout=6_000_000, sweep=12_000_000, execution=300_000)
OPERATORS = {"anna": "exchange", "bert": "exchange", "cleo": "exchange"}
KEY_HOLDERS = {"kim": "north", "lee": "south", "max": "east", "nia": "west", "ola": "centre"}
ONE = {"BTC": 10**8, "ETH": 10**18, "USDC": 10**6, "USDT": 10**6}
"""Base units of one whole."""


def _key(number: int) -> str:
    return f"{number:064x}"


def _asset(name: str, chain: str, decimals: int, contract: str | None) -> AssetEntry:
    return AssetEntry(
        id=name,
        chain=chain,
        decimals=decimals,
        contract=contract,
        minimum_deposit="1",
        withdrawal_fee="1",
        confirmations=(Confirmations(from_units="0", blocks=1),),
    )


def _network(**changes: Any) -> dict[str, Any]:
    return {
        "settle_blocks": 6,
        "feerate_floor": 1,
        "feerate_cap": 500,
        "fee_cap": "1000",
        "fee_window_cap": "10000",
        "fee_window_seconds": DAY,
        **changes,
    }


def _bitcoin_vault(name: str, tier: Literal["warm", "cold"], threshold: int, members: int) -> BitcoinVault:
    cosigners = tuple(
        Cosigner(
            id=f"{name}-{n}",
            organisation=f"{name}-{n}",
            account=f"xpub-{name}-{n}",
            origin=f"{n:08x}/48'/0'/0'/2'",
        )
        for n in range(members)
    )
    return BitcoinVault(
        id=name, chain="bitcoin", tier=tier, threshold=threshold, cosigners=cosigners, descriptor="descriptor"
    )


def _safe(name: str, tier: Literal["warm", "cold"], number: int, threshold: int, members: int) -> EvmVault:
    owners = tuple(
        Owner(id=f"{name}-{n}", organisation=f"{name}-{n}", address=_address(number + n + 1))
        for n in range(members)
    )
    return EvmVault(
        id=name, chain="ethereum", tier=tier, threshold=threshold, address=_address(number), owners=owners
    )


def _address(number: int) -> str:
    """Digits only: such an address is its own checksum form."""
    return f"0x{number:040d}"


def bundle(policy: Policy | None = None, **changes: Any) -> Bundle:
    """The house's bundle; `changes` replace fields of it."""
    people = [(name, of, "operator") for name, of in OPERATORS.items()]
    people += [(name, of, "key-holder") for name, of in KEY_HOLDERS.items()]
    made = Bundle(
        v=1,
        version=7,
        issued_at=NOW,
        expires_at=NOW + 365 * DAY,
        networks=(
            BitcoinNetwork(
                chain="bitcoin", network="main", genesis=_key(1), native_asset="BTC", **_network()
            ),
            EvmNetwork(
                chain="ethereum",
                chain_id=1,
                genesis=_key(2),
                native_asset="ETH",
                native_mode="trace",
                gas_caps=_GAS,
                **_network(),
            ),
        ),
        assets=(
            _asset("BTC", "bitcoin", 8, None),
            _asset("ETH", "ethereum", 18, None),
            _asset("USDC", "ethereum", 6, _address(1)),
            _asset("USDT", "ethereum", 6, _address(2)),
        ),
        keysets=(
            BitcoinKeyset(
                id="btc-hot",
                chain="bitcoin",
                tier="hot",
                attestation_key=_key(3),
                account="xpub-hot",
                origin="00000000/84'/0'/0'",
            ),
            EvmKeyset(
                id="eth-hot",
                chain="ethereum",
                tier="hot",
                attestation_key=_key(4),
                address=_address(10),
                factory=_address(11),
                forwarder=_key(5),
                payout=None,
            ),
        ),
        vaults=(
            _bitcoin_vault("btc-warm", "warm", 2, 3),
            _bitcoin_vault("btc-cold", "cold", 3, 5),
            _safe("eth-warm", "warm", 100, 2, 3),
            _safe("eth-cold", "cold", 200, 3, 5),
        ),
        caps=tuple(
            TierCap(
                tier="hot",
                asset=asset,
                payment_below=str(below * ONE[asset]) if below else str(ONE[asset] // 10),
                window_cap=str(cap * ONE[asset]),
                window_seconds=DAY,
            )
            for asset, below, cap in (
                ("BTC", 0, 5),
                ("ETH", 2, 100),
                ("USDC", 10_000, 500_000),
                ("USDT", 10_000, 500_000),
            )
        ),
        breakers=(
            Breaker(
                id="hot", keysets=("btc-hot", "eth-hot"), value_cap=str(3_000_000_00), window_seconds=DAY
            ),
        ),
        prices=tuple(
            PriceBound(asset=asset, low=str(price * 50), high=str(price * 200))
            for asset, price in (("BTC", 100_000), ("ETH", 5_000), ("USDC", 1), ("USDT", 1))
        ),
        callers=(
            Caller(
                id="exchange",
                key=_key(20),
                organisation="exchange",
                scopes=("withdrawals:sign",),
                not_after=NOW + 400 * DAY,
            ),
        ),
        officers=(Officer(id="olga", key=_key(30), organisation="exchange", not_after=NOW + 400 * DAY),),
        approvers=tuple(
            Approver(id=name, key=_key(40 + n), organisation=of, roles=(role,), not_after=NOW + 400 * DAY)
            for n, (name, of, role) in enumerate(people)
        ),
        policy=policy or Policy(),
        longest_order_seconds=3 * DAY,
    )
    made = msgspec.structs.replace(made, **changes)
    check_consistent(made)
    return made
