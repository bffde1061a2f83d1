"""Puts the parts of one process together from its settings. Nothing connects before it is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import msgspec

from chains.errors import InvalidValue
from chains.eth.node import EvmNode
from custody.bell import CeleryBell
from custody.config import Settings, SignerSettings, SocketSigner
from custody.config_tables import ScreeningSettings
from custody.errors import InvalidConfiguration
from custody.nodes import Node, open_node
from custody.officers.standing import Standing
from custody.ports import Clock, Wake, system_clock, wake_nobody
from custody.pricing import PriceFile, Prices
from custody.reconcile.trading import TradingCore, open_core
from custody.screening.lists import FileLists
from custody.screening.ports import Elsewhere, Provider, Screening
from custody.signing.btc.site import btc_site
from custody.signing.evm.safe_site import safe_site
from custody.signing.evm.site import evm_site, gas_payer_site
from custody.signing.site import Pace, Site
from custody.signing.verdicts import Verifier
from custody.storage.db import WAIT_SECONDS, Database
from custody.storage.sealing import KeyRing
from custody.travelrule.ports import FileOutbox, TravelRuleExchange
from custody.whitelist.lookalikes import Ends
from policies.bundle import Bundle, EvmVault, GasPayer, TrustRoot, Vault, WalletEntry, read_bundle
from policies.democlock import DemoClock, check_test_networks
from signers.client import SignerClient, TlsAddress, UnixAddress, VerdictClient
from signers.ports import Signer

_TIERS: Final = ("hot", "warm", "cold")
_IN_USE: Final = ("active", "suspended", "deactivated", "compromised")


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What a process works with."""

    settings: Settings
    database: Database
    """With the process's own role."""
    root: TrustRoot
    """The pinned quorum."""
    bundle: Callable[[], Bundle]
    """The bundle in force now, as officers have lowered it. Raises UntrustedBundle."""
    clock: Clock
    nodes: Mapping[str, Node]
    """By chain."""
    signers: Mapping[str, Signer]
    """By key-set; of a vault by its id, a slash, and the member's."""
    verifiers: Sequence[Verifier]
    """Who gives verdicts."""
    screening: Screening
    """Of deposits and destinations."""
    sealing: KeyRing | None
    """The keys of sealed columns; None where no personal data is taken in."""
    exchange: TravelRuleExchange | None
    """Carries travel-rule data to other services; None where nobody does."""
    prices: Prices | None
    """Present ones; None: the bundle's bounds are all that is known."""
    wake: Wake
    core: TradingCore | None = None
    """The trading core; None where there is none."""

    @property
    def ends(self) -> Ends:
        """How much of an address people look at."""
        return Ends(self.settings.lookalike_head, self.settings.lookalike_tail)

    def node(self, chain: str) -> Node:
        """The node of a chain. Raises InvalidValue if none is configured."""
        if chain not in self.nodes:
            raise InvalidValue(f"no node is configured for {chain}")
        return self.nodes[chain]

    def signer(self, keyset: str) -> Signer:
        """The signer of a key-set. Raises InvalidValue if none is configured."""
        if keyset not in self.signers:
            raise InvalidValue(f"no signer is configured for {keyset}")
        return self.signers[keyset]

    def members(self, vault: str) -> dict[str, Signer]:
        """The signers of a vault's members, by their ids in the vault; none where all of them sign offline."""
        prefix = f"{vault}/"
        return {name[len(prefix) :]: one for name, one in self.signers.items() if name.startswith(prefix)}

    def sites(self) -> tuple[Site, ...]:
        """The wallets that this process can pay from: a chain's active one of each tier."""
        return tuple(
            site
            for site in self.wallets()
            if site.wallet.state == "active" and not isinstance(site.wallet, GasPayer)
        )

    def wallets(self) -> tuple[Site, ...]:
        """All wallets with a node that hold or have held money: key-sets and gas payers that have a signer, and vaults,
        of which all members may be offline. By tier, gas payers last, the active one of a chain first."""
        bundle = self.bundle()
        gather = self.settings.gather_seconds
        pace = Pace() if gather is None else Pace(gather_seconds=gather)
        found = [
            wallet
            for wallet in bundle.wallets
            if wallet.state in _IN_USE
            and wallet.chain in self.nodes
            and (wallet.id in self.signers or isinstance(wallet, Vault))
        ]
        found.sort(key=_order)
        return tuple(_site(bundle, wallet, self.nodes[wallet.chain], pace) for wallet in found)

    def close(self) -> None:
        """Close all connections."""
        self.database.close()
        self.screening.close()
        for node in self.nodes.values():
            node.close()
        for signer in self.signers.values():
            if isinstance(signer, SignerClient):
                signer.close()
        for verifier in self.verifiers:
            if isinstance(verifier, VerdictClient):
                verifier.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def wire(
    settings: Settings,
    *,
    clock: Clock | None = None,
    pool_size: int = 8,
    wait_seconds: float = WAIT_SECONDS,
    waiting_at_most: int = 0,
) -> Services:
    """The services of one process.

    Args:
        settings: as `custody.config.load` gives them.
        clock: the present, UNIX seconds; None: as the settings say.
        pool_size: most database connections.
        wait_seconds: how long a transaction waits for one.
        waiting_at_most: how many wait for one, see `Database`.

    Raises:
        InvalidConfiguration: bundle, trust root, nodes and signers do not fit together.
        UntrustedBundle: the bundle lacks its quorum, is too old, or has expired.
        UnusableKeyRing: the sealing keys cannot be used.
    """
    root = read_trust_root(settings.trust_root_path)
    clock = _clock(settings, root) if clock is None else clock
    ring = None if settings.sealing_keys_path is None else KeyRing(settings.sealing_keys_path)
    bundle = Standing(settings.bundle_path, root, clock, lambda: database)
    database = Database(
        settings.database_url.reveal(),
        application=f"strongroom-{settings.process}",
        pool_size=pool_size,
        wait_seconds=wait_seconds,
        waiting_at_most=waiting_at_most,
        frozen=bundle.frozen,
    )
    try:
        bundle()  # who has nothing to go by must not start
    except BaseException:
        database.close()
        raise
    return Services(
        settings=settings,
        database=database,
        root=root,
        bundle=bundle,
        clock=clock,
        nodes=_nodes(settings, bundle),
        signers={keyset: signer_client(entry) for keyset, entry in settings.signers.items()},
        verifiers=[VerdictClient(signer_client(entry)) for entry in settings.verifiers.values()],
        screening=_screening(settings.screening, clock),
        sealing=ring,
        exchange=_exchange(settings, ring),
        prices=None
        if settings.prices_path is None
        else PriceFile(settings.prices_path, clock, valid_seconds=settings.prices_valid_seconds),
        wake=CeleryBell(settings.redis_url) if settings.redis_url else wake_nobody,
        core=None if settings.trading is None else open_core(settings.trading, clock),
    )


def _clock(settings: Settings, root: TrustRoot) -> Clock:
    """The machine's, or a demonstration's where no network has money of any worth."""
    if settings.demo_clock_path is None:
        return system_clock
    try:
        check_test_networks(read_bundle(settings.bundle_path.read_bytes(), root, now=system_clock()))
    except InvalidValue as error:
        raise InvalidConfiguration([f"demo_clock_path: {error}"]) from None
    demo = DemoClock(settings.demo_clock_path)
    return lambda: int(demo())


def read_trust_root(path: Path) -> TrustRoot:
    """The pinned quorum. Raises InvalidConfiguration if the file is not one."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=TrustRoot)
    except (OSError, msgspec.MsgspecError) as error:
        raise InvalidConfiguration([f"trust_root_path is {path}, which is no trust root: {error}"]) from None


def _screening(settings: ScreeningSettings, clock: Clock) -> Screening:
    providers: list[Provider] = [Elsewhere(settings.elsewhere)] if settings.elsewhere else []
    if settings.lists:
        providers.append(FileLists("lists", settings.lists, settings.lists_valid_days, clock))
    for name, each in settings.http.items():
        from custody.screening.http import HttpProvider  # httpx takes its time to load

        providers.append(
            HttpProvider(
                name,
                each.url,
                token_path=each.token_path,
                ca_path=each.ca_path,
                timeout_seconds=each.timeout_seconds,
                clear_seconds=each.clear_seconds,
                hit_seconds=each.hit_seconds,
            )
        )
    return Screening(providers)


def _exchange(settings: Settings, ring: KeyRing | None) -> TravelRuleExchange | None:
    if settings.travel_rule_outbox is None:
        return None
    if ring is None:
        raise InvalidConfiguration(["travel_rule_outbox needs sealing_keys_path: what goes there is sealed"])
    return FileOutbox(settings.travel_rule_outbox, ring)


def _nodes(settings: Settings, bundle: Callable[[], Bundle]) -> dict[str, Node]:
    nodes: dict[str, Node] = {}
    problems = []
    for chain, entry in settings.nodes.items():
        try:
            nodes[chain] = open_node(bundle, chain, entry)
        except InvalidValue as error:
            problems.append(f"nodes.{chain}: {error}")
    if problems:
        raise InvalidConfiguration(problems)
    return nodes


def _order(wallet: WalletEntry) -> tuple[bool, int, int]:
    return isinstance(wallet, GasPayer), _TIERS.index(wallet.tier), _IN_USE.index(wallet.state)


def _site(bundle: Bundle, wallet: WalletEntry, node: Node, pace: Pace) -> Site:
    """A wallet's site, by its family."""
    if isinstance(node, EvmNode):
        if isinstance(wallet, EvmVault):
            return safe_site(bundle, wallet, node, pace=pace)
        if isinstance(wallet, GasPayer):
            return gas_payer_site(bundle, wallet, node, pace=pace)
        return evm_site(bundle, wallet.chain, node, pace=pace, wallet=wallet)
    return btc_site(bundle, wallet.chain, node, pace=pace, wallet=wallet)


def signer_client(entry: SignerSettings) -> SignerClient:
    """The client of a signer. Raises BadConfiguration: a TLS file is missing or malformed."""
    if isinstance(entry, SocketSigner):
        return SignerClient(UnixAddress(entry.socket))
    return SignerClient(
        TlsAddress(
            entry.host, entry.port, entry.client_certificate, entry.client_key, entry.server_certificate
        )
    )
