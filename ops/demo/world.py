"""Who acts in the tour: somebody outside with a wallet of their own, a miner, and a caller of the API."""

from __future__ import annotations

import operator
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Self, TypeVar

from custody.console.client import ApiClient, ApiUnavailable
from ops.demo.record import StepFailed, expect
from ops.devnet.bitcoind import Bitcoind, OutsideWallet, btc_to_sats, sats_to_btc
from ops.stack.keys import Person
from ops.stack.quorum import ASSET, CHAIN
from ops.stack.stack import Stack
from policies.bundle import Bundle
from policies.intent import Order
from policies.keys import sign_order

_T = TypeVar("_T")
_LOOK_AGAIN_SECONDS: Final = 0.1
PATIENCE_SECONDS: Final = 60.0
"""Deadline of one wait. What it waits for takes a few seconds; a slow machine gets its time."""
CONFIRMATIONS: Final = 6
FEE_CEILING_SATS: Final = 200_000


@dataclass(slots=True)
class World:
    """Everything the tour may touch: the node's own wallets, the API, and the bundle a caller has."""

    node: Bitcoind
    api: ApiClient
    """The exchange's trading core: the caller of nearly everything."""
    operator: ApiClient
    exchange: Person
    bundle: Bundle
    reconcile: Callable[[], dict[str, Any]]
    """Runs `strongroom reconcile --json` as a process and returns what it prints."""
    note: Callable[[str], None] = lambda _: None
    outside: OutsideWallet = field(init=False)
    miner: OutsideWallet = field(init=False)
    addresses: dict[str, str] = field(default_factory=dict)
    """Deposit address of each customer."""
    balances_sats: dict[str, int] = field(default_factory=dict)
    """What each customer must have, by our own books beside the ledger's."""
    fees_earned_sats: int = 0
    paid_out_sats: int = 0
    network_fees: dict[str, int] = field(default_factory=dict)
    """Fee in satoshis of each confirmed transaction of the service, by txid."""

    def __post_init__(self) -> None:
        """Opens the outside wallets."""
        self.outside = self.node.wallet("outside")
        self.miner = self.node.wallet("miner")

    @classmethod
    @contextmanager
    def of(cls, stack: Stack) -> Iterator[Self]:
        """The world around a stack that is up; its connections to the API are closed in the end."""
        with stack.client("exchange") as api, stack.client("operator") as operator_client:
            yield cls(
                node=stack.node,
                api=api,
                operator=operator_client,
                exchange=stack.trust.callers["exchange"],
                bundle=stack.bundle,
                reconcile=stack.reconcile,
            )

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

    def await_monitor(self) -> None:
        """Waits until the monitor has read the node's last block."""
        height = self.node.rpc("getblockcount")
        part = f"monitor {CHAIN}"
        self.until(
            lambda: (self.ready() or {}).get(part, {}).get("detail", ""),
            lambda detail: str(detail).endswith(f" {height}"),
            f"the monitor to have read block {height}",
        )

    def available_sats(self, customer: str) -> int:
        """The customer's available balance."""
        return self._balance(customer)[0]

    def _balance(self, customer: str) -> tuple[int, int]:
        for entry in self.api.balances(customer):
            if entry["asset"] == ASSET:
                return sats(entry["available"]), sats(entry["frozen"])
        return 0, 0

    def expect_balances(self, *customers: str) -> dict[str, str]:
        """Waits until customers have exactly what they must have by our own books, nothing of it frozen."""
        for customer in customers:
            due = (self.balances_sats.get(customer, 0), 0)
            self.until(
                partial(self._balance, customer),
                partial(operator.eq, due),
                f"{customer} to have {due[0]} sats available and none frozen",
            )
        return {customer: btc(self.balances_sats.get(customer, 0)) for customer in customers}

    def statement(self, customer: str) -> list[dict[str, Any]]:
        """All lines of the customer's statement."""
        return list(self.api.statement(customer, ASSET))

    def deposit(self, customer: str, txid: str) -> dict[str, Any] | None:
        """The customer's deposit made by a transaction, if the service knows it."""
        return next((entry for entry in self.api.deposits(customer=customer) if entry["txid"] == txid), None)

    def await_deposit(self, customer: str, txid: str, state: str) -> dict[str, Any]:
        """Waits until the deposit is in this state."""
        found = self.until(
            lambda: self.deposit(customer, txid),
            lambda entry: entry is not None and entry["state"] == state,
            f"{customer}'s deposit {txid} to be {state}",
        )
        assert found is not None
        self.note(f"deposit {found['id']} is {state}")
        return found

    def order(self, customer: str, destination: str, amount_sats: int) -> Order:
        """A fresh order of the exchange, good for an hour."""
        return Order(
            v=1,
            id=str(uuid.uuid4()),
            caller=self.exchange.id,
            customer=customer,
            chain=CHAIN,
            asset=ASSET,
            destination=destination,
            amount=str(amount_sats),
            fee_ceiling=str(FEE_CEILING_SATS),
            expires_at=int(time.time()) + 3600,
        )

    def signed(self, order: Order) -> dict[str, Any]:
        """The body of a withdrawal: the order, signed by the exchange's key."""
        return {"order": order.to_object(), "signature": sign_order(order, self.exchange.key).signature}

    def withdraw(self, customer: str, destination: str, amount_sats: int) -> dict[str, Any]:
        """Orders a withdrawal and returns it as accepted."""
        return self.api.withdraw(self.order(customer, destination, amount_sats))

    def await_pending(self, *txids: str) -> None:
        """Waits until the node has these transactions in its mempool."""
        self.until(
            lambda: self.node.rpc("getrawmempool"),
            lambda pool: set(txids) <= set(pool),
            f"{' and '.join(sorted(set(txids)))} to be in the node's mempool",
        )

    def paid(self, customer: str, withdrawal: dict[str, Any], address: str, amount_sats: int) -> None:
        """Checks that a settled withdrawal arrived outside exactly once, and books it in our own books."""
        arrived = btc_to_sats(self.outside.rpc("getreceivedbyaddress", address, 1))
        expect(
            arrived == amount_sats, f"{address} received the amount once", arrived=arrived, due=amount_sats
        )
        fee = sats(withdrawal["fee"])
        self.balances_sats[customer] -= amount_sats + fee
        self.fees_earned_sats += fee
        self.paid_out_sats += amount_sats
        confirmed = withdrawal["confirmed_txid"]
        version = next(entry for entry in withdrawal["versions"] if entry["txid"] == confirmed)
        self.network_fees[confirmed] = sats(version["network_fee"]["amount"])

    def await_withdrawal(self, identity: str, state: str) -> dict[str, Any]:
        """Waits until the withdrawal is in this state."""
        found = self.until(
            lambda: self.api.withdrawal(identity),
            lambda entry: entry["state"] == state,
            f"withdrawal {identity} to be {state}",
        )
        self.note(f"withdrawal {identity} is {state}")
        return found


def sats(decimal: str) -> int:
    """Satoshis of a decimal string of BTC such as `0.50000000`."""
    whole, _, fraction = decimal.partition(".")
    return int(whole + fraction.ljust(8, "0"))


def btc(amount_sats: int) -> str:
    """The decimal string of an amount: `0.50000000 BTC`."""
    return f"{sats_to_btc(amount_sats)} {ASSET}"
