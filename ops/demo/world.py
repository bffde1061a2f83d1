"""Who acts in the tour: people outside with wallets of their own, miners, and a caller of the API."""

from __future__ import annotations

import operator
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from subprocess import CompletedProcess
from typing import Any, Final, Self, TypeVar

import msgspec

from chains.types import Amount, Asset
from custody.console.client import ApiClient
from custody.web.client import ApiUnavailable, RestCaller
from ops.demo.evm import EvmSide
from ops.demo.record import StepFailed, expect
from ops.demo.terminal import Terminal
from ops.devnet.bitcoind import Bitcoind, OutsideWallet, btc_to_sats, sats_to_btc
from ops.stack.keys import Person
from ops.stack.listing import ASSET, CHAIN
from ops.stack.networks import ETHEREUM
from ops.stack.stack import Stack
from policies.bundle import BitcoinKeyset, Bundle, EvmVault, Tier
from policies.intent import Order
from policies.keys import sign_order
from signers.verifier.ports import Findings

_T = TypeVar("_T")
_LOOK_AGAIN_SECONDS: Final = 0.1
PATIENCE_SECONDS: Final = 60.0
"""Deadline of one wait. What it waits for takes a few seconds; a slow machine gets its time."""
CONFIRMATIONS: Final = 6
FEE_CEILINGS: Final = {8: 200_000, 18: 10**16}
"""Highest network fee of an order by the decimals of its chain's native asset: 0.002 BTC, 0.01 ETH."""


@dataclass(slots=True)
class Books:
    """One asset by our own books, beside the ledger's; base units."""

    asset: Asset
    balances: dict[str, int] = field(default_factory=dict)
    """What each customer must have."""
    fees_earned: int = 0
    paid_out: int = 0
    suspense: int = 0
    """Sent to the house itself: gas for a hot key."""
    network_fees: dict[str, int] = field(default_factory=dict)
    """Fee of each confirmed transaction of the service, by txid; of a chain's native asset only."""

    @property
    def owed(self) -> int:
        """What all customers must have."""
        return sum(self.balances.values())

    @property
    def on_chain(self) -> int:
        """What the service must have on the chain."""
        return self.owed + self.fees_earned + self.suspense - sum(self.network_fees.values())

    def credit(self, customer: str, units: int) -> None:
        """A customer has more; less where `units` is negative."""
        self.balances[customer] = self.balances.get(customer, 0) + units

    def show(self, units: int) -> str:
        """An amount for people: `0.50000000 BTC`."""
        return str(Amount(self.asset, units))

    def read(self, decimal: str) -> int:
        """Base units of a decimal string as the API writes it; negative ones too."""
        sign = -1 if decimal.startswith("-") else 1
        return sign * Amount.parse(self.asset, decimal.removeprefix("-")).units


@dataclass(slots=True)
class World:
    """Everything the tour may touch: the nodes' own wallets, the API, and the bundle a caller has."""

    node: Bitcoind
    chains: Mapping[str, EvmSide]
    """The outside world on each EVM network, by chain id."""
    api: ApiClient
    """The exchange's trading core: the caller of nearly everything."""
    operator: ApiClient
    trader: RestCaller
    """The exchange again, as a caller of the trading core: for orders, and money that goes in and out of trading."""
    exchange: Person
    bundle: Bundle
    reconcile: Callable[[], dict[str, Any]]
    """Runs `strongroom reconcile --json` as a process and returns what it prints."""
    examine: Callable[[str], Findings]
    """What the verifier finds in a customer's ledger now."""
    terminal: Terminal
    """Runs the commands that people type."""
    clients: Callable[[str], ApiClient]
    """Opens a client of the API for another caller."""
    clock: Callable[[], float]
    """The trial's."""
    pass_time: Callable[[int], None]
    """Sets it forward by so many seconds."""
    stop: Callable[[str], None]
    """Kills a process of the service."""
    start: Callable[[str], None]
    """Starts it again."""
    note: Callable[[str], None] = lambda _: None
    outside: OutsideWallet = field(init=False)
    miner: OutsideWallet = field(init=False)
    books: dict[str, Books] = field(init=False)
    addresses: dict[str, str] = field(default_factory=dict)
    """Bitcoin deposit address of each customer."""
    large_destination: str = ""
    """Where large payments may go: it is known for a day."""
    known_alerts: set[int] = field(default_factory=set)
    """Critical alerts that the tour has provoked, and understood."""

    def __post_init__(self) -> None:
        """Opens the outside wallets, and empty books."""
        self.outside = self.node.wallet("outside")
        self.miner = self.node.wallet("miner")
        self.books = {entry.id: Books(entry.asset()) for entry in self.bundle.assets}

    @classmethod
    @contextmanager
    def of(cls, stack: Stack) -> Iterator[Self]:
        """The world around a stack that is up; its connections to the API are closed in the end."""
        with (
            stack.client("exchange") as api,
            stack.client("operator") as operator_client,
            stack.trader() as trader,
            closing(stack.verifier()) as verifier,
        ):
            yield cls(
                node=stack.node,
                chains={
                    network.chain: EvmSide.of(anvil, stack.bundle, network.chain)
                    for network, anvil in stack.chains.items()
                },
                api=api,
                operator=operator_client,
                trader=trader,
                exchange=stack.trust.callers["exchange"],
                bundle=stack.bundle,
                reconcile=stack.reconcile,
                examine=verifier.audit,
                terminal=Terminal(stack),
                clients=stack.client,
                clock=stack.clock,
                pass_time=stack.pass_time,
                stop=stack.kill,
                start=stack.start,
            )

    @property
    def btc(self) -> Books:
        """Our books of BTC."""
        return self.books[ASSET]

    @property
    def btc_keyset(self) -> BitcoinKeyset:
        """The hot wallet on Bitcoin, as the bundle has it."""
        keyset = self.bundle.keyset_for(CHAIN, "hot")
        assert isinstance(keyset, BitcoinKeyset)
        return keyset

    @property
    def ethereum(self) -> EvmSide:
        """The outside world on Ethereum."""
        return self.chains[ETHEREUM.chain]

    def native(self, side: EvmSide) -> Books:
        """Our books of the native asset of an EVM network."""
        return self.books[side.network.native_asset]

    def contract_of(self, token: str) -> str:
        """Address of a listed token's contract."""
        contract = self.bundle.asset(token).contract
        assert contract is not None
        return contract

    def safe(self, tier: Tier) -> EvmVault:
        """The Safe of a tier on Ethereum, as the bundle has it."""
        for vault in self.bundle.vaults:
            if isinstance(vault, EvmVault) and vault.tier == tier:
                return vault
        raise LookupError(f"the bundle has no {tier} Safe")

    def tiers(self, asset: str) -> dict[str, dict[str, Any]]:
        """What `/v1/tiers` says of an asset, by tier; amounts are decimal texts."""
        found = self.operator.get("/v1/tiers")["items"]
        return {each["tier"]: each for each in found if each["asset"] == asset}

    # ------------------------------------------------------------------------------------------- waiting

    def until(
        self,
        look: Callable[[], _T],
        good: Callable[[_T], object],
        what: str,
        *,
        patience: float = PATIENCE_SECONDS,
    ) -> _T:
        """Looks again and again until what is seen is good, and returns it.

        Raises:
            StepFailed: the deadline passed; says what was seen last.
        """
        deadline = time.monotonic() + patience
        while True:
            seen = look()
            if good(seen):
                return seen
            if time.monotonic() >= deadline:
                raise StepFailed(f"waited {patience:g} s for {what}, in vain; last seen: {seen!r}"[:2000])
            time.sleep(_LOOK_AGAIN_SECONDS)

    # ------------------------------------------------------------------------------------- chain, outside

    def mine(self, blocks: int) -> list[str]:
        """The miner finds blocks; returns their hashes."""
        return self.miner.mine(blocks)

    def pay(self, customer: str, amount_sats: int) -> str:
        """Somebody outside pays a customer's deposit address; returns the txid."""
        return self.outside.send(self.addresses[customer], amount_sats)

    def double_spend(self, txid: str) -> str:
        """Replaces an unconfirmed payment of the outside wallet by one to itself (same inputs, RBF)."""
        old = self.outside.rpc("gettransaction", txid, True, True)
        inputs = [
            {"txid": i["txid"], "vout": i["vout"], "sequence": 0xFFFFFFFD} for i in old["decoded"]["vin"]
        ]
        total = sum(self._output_sats(i["txid"], i["vout"]) for i in inputs)
        back = {self.outside.address(): sats_to_btc(total - 20_000)}
        raw = self.outside.rpc("createrawtransaction", inputs, [back])
        signed = self.outside.rpc("signrawtransactionwithwallet", raw)
        return str(self.node.rpc("sendrawtransaction", signed["hex"]))

    def _output_sats(self, txid: str, vout: int) -> int:
        found = self.outside.rpc("gettransaction", txid, True, True)
        return btc_to_sats(found["decoded"]["vout"][vout]["value"])

    # ------------------------------------------------------------------------------------------ API, inside

    def ready(self) -> dict[str, Any] | None:
        """What `/readyz` says of each part, if all of them are ready."""
        try:
            answer = self.api.send("GET", "/readyz")
        except ApiUnavailable:
            return None
        return dict(answer.json()["parts"]) if answer.status_code == 200 else None

    def await_monitor(self, chain: str = CHAIN) -> None:
        """Waits until the monitor has read the last block of a chain's node."""
        height = self.node.rpc("getblockcount") if chain == CHAIN else self.chains[chain].node.height()
        part = f"monitor {chain}"
        self.until(
            lambda: (self.ready() or {}).get(part, {}).get("detail", ""),
            lambda detail: str(detail).endswith(f" {height}"),
            f"the monitor to have read block {height} of {chain}",
        )

    def available(self, customer: str, asset: str = ASSET) -> int:
        """The customer's available balance in base units."""
        return self._balance(customer, asset)[0]

    def _balance(self, customer: str, asset: str) -> tuple[int, int]:
        books = self.books[asset]
        for entry in self.api.balances(customer):
            if entry["asset"] == asset:
                return books.read(entry["available"]), books.read(entry["frozen"])
        return 0, 0

    def expect_balances(self, *customers: str, asset: str = ASSET) -> dict[str, str]:
        """Waits until customers have exactly what they must have by our own books, nothing of it frozen."""
        books = self.books[asset]
        for customer in customers:
            due = (books.balances.get(customer, 0), 0)
            self.until(
                partial(self._balance, customer, asset),
                partial(operator.eq, due),
                f"{customer} to have {books.show(due[0])} available and none frozen",
            )
        return {customer: books.show(books.balances.get(customer, 0)) for customer in customers}

    def statement(self, customer: str, asset: str = ASSET) -> list[dict[str, Any]]:
        """All lines of the customer's statement."""
        return list(self.api.statement(customer, asset))

    def deposit(self, customer: str, txid: str) -> dict[str, Any] | None:
        """The customer's deposit made by a transaction, if the service knows it."""
        return next((entry for entry in self.api.deposits(customer=customer) if entry["txid"] == txid), None)

    def await_deposit(self, customer: str, txid: str, *states: str) -> dict[str, Any]:
        """Waits until the deposit is in one of these states."""
        found = self.until(
            lambda: self.deposit(customer, txid),
            lambda entry: entry is not None and entry["state"] in states,
            f"{customer}'s deposit {txid} to be {' or '.join(states)}",
        )
        assert found is not None
        self.note(f"deposit {found['id']} is {found['state']}")
        return found

    def await_suspense(self, address: str, asset: str, units: int) -> dict[str, Any]:
        """Waits until what was sent to an address of the house is booked as nobody's."""
        books = self.books[asset]
        found = self.until(
            lambda: next((d for d in self.operator.deposits() if d["address"] == address), None),
            lambda entry: entry is not None and entry["state"] == "credited",
            f"{books.show(units)} at {address} to be booked",
        )
        assert found is not None
        expect(found["customer"] is None, "it is no customer's", deposit=found)
        expect(books.read(found["amount"]) == units, "it is what was sent", deposit=found)
        return found

    def order(self, customer: str, destination: str, units: int, asset: str = ASSET) -> Order:
        """A fresh order of the exchange, good for an hour."""
        chain = self.bundle.asset(asset).chain
        native = self.bundle.asset(self.bundle.network(chain).native_asset)
        return Order(
            v=1,
            id=str(uuid.uuid4()),
            caller=self.exchange.id,
            customer=customer,
            chain=chain,
            asset=asset,
            destination=destination,
            amount=str(units),
            fee_ceiling=str(FEE_CEILINGS[native.decimals]),
            expires_at=int(self.clock()) + 3600,
        )

    def signed(self, order: Order) -> dict[str, Any]:
        """The body of a withdrawal: the order, signed by the exchange's key."""
        return {"order": order.to_object(), "signature": sign_order(order, self.exchange.key).signature}

    def withdraw(self, customer: str, destination: str, units: int, asset: str = ASSET) -> dict[str, Any]:
        """Orders a withdrawal and returns it as accepted."""
        return self.api.withdraw(self.order(customer, destination, units, asset))

    def withdraw_as(self, caller: str, order: Order) -> dict[str, Any]:
        """Orders a withdrawal as another caller."""
        with self.clients(caller) as client:
            return client.withdraw(msgspec.structs.replace(order, caller=caller))

    def approve(self, withdrawal: str, name: str) -> CompletedProcess[str]:
        """`strongroom approve` as one of the approvers."""
        key = str(self.terminal.approver_key(name))
        return self.terminal.run("approve", withdrawal, "--approver", name, "--key", key, "--yes")

    def await_pending(self, *txids: str) -> None:
        """Waits until the node has these transactions in its mempool."""
        self.until(
            lambda: self.node.rpc("getrawmempool"),
            lambda pool: set(txids) <= set(pool),
            f"{' and '.join(sorted(set(txids)))} to be in the node's mempool",
        )

    def paid(self, customer: str, withdrawal: dict[str, Any], address: str, amount_sats: int) -> None:
        """Checks that a settled withdrawal of BTC arrived outside exactly once, and books it in our own books."""
        arrived = btc_to_sats(self.outside.rpc("getreceivedbyaddress", address, 1))
        expect(
            arrived == amount_sats, f"{address} received the amount once", arrived=arrived, due=amount_sats
        )
        self.book_payment(customer, withdrawal, amount_sats)
        confirmed = withdrawal["confirmed_txid"]
        version = next(entry for entry in withdrawal["versions"] if entry["txid"] == confirmed)
        self.btc.network_fees[confirmed] = self.btc.read(version["network_fee"]["amount"])

    def book_payment(self, customer: str, withdrawal: dict[str, Any], units: int) -> None:
        """Books a settled withdrawal, but for the network fee, in our own books."""
        books = self.books[withdrawal["asset"]]
        fee = books.read(withdrawal["fee"])
        books.credit(customer, -units - fee)
        books.fees_earned += fee
        books.paid_out += units

    def await_withdrawal(self, identity: str, state: str) -> dict[str, Any]:
        """Waits until the withdrawal is in this state."""
        found = self.until(
            lambda: self.api.withdrawal(identity),
            lambda entry: entry["state"] == state,
            f"withdrawal {identity} to be {state}",
        )
        self.note(f"withdrawal {identity} is {state}")
        return found
