"""A signer of the trial's own hot tier, Bitcoin and Ethereum under one breaker, and somebody who wants all of it.

The bundle is the one that `strongroom up` makes, with DESIGN's numbers; the keys are in this process, guard and journal
are real.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from chains.errors import TransientError
from ops.stack.listing import bitcoin, evm
from ops.stack.networks import ETHEREUM
from ops.stack.policy import trial_policy
from ops.stack.quorum import HOT_VALUE_CAP
from policies.bundle import Breaker, Bundle, EvmKeyset
from policies.intent import Kind
from policies.rules import Policy
from signers.ports import Refused, SignRequest
from signers.wallets import BitcoinWallet, EvmWallet, Wallet
from tests.fakes.evm_signing import EVM_CHAIN, USDX, EvmDraft, EvmWorld, SoftEvmKeys, named_address
from tests.fakes.signer import Bench
from tests.fakes.signing import DAY, Draft, SoftKeys, World

THIEF = {
    "BTC": "bcrt1qcr8te4kr609gcawutmrza0j4xv80jy8zeqchgx",
    "ETH": named_address("the thief"),
    "USDX": named_address("the thief"),
}
"""Where he wants it, by asset."""
HOUR = 3600


@dataclass
class TrialWorld(EvmWorld):
    """The trial's bundle, with people whose keys the tests have."""

    btc: World = field(kw_only=True)

    def bundle(self, version: int = 1, **changes: Any) -> Bundle:
        eth = self.keyset_entry(self.record, EVM_CHAIN)
        assert isinstance(eth, EvmKeyset)
        listings = (
            bitcoin(self.btc.keyset_entry()),
            evm(ETHEREUM, "00" * 32, eth, {"USDX": USDX}),
        )
        fields: dict[str, Any] = {
            "v": 1,
            "version": version,
            "issued_at": self.now - 10,
            "expires_at": self.now + 30 * DAY,
            "longest_order_seconds": DAY,
            "networks": tuple(each.network for each in listings),
            "assets": tuple(asset for each in listings for asset in each.assets),
            "keysets": tuple(each.keyset for each in listings),
            "caps": tuple(cap for each in listings for cap in each.caps),
            "policy": Policy(),
            "prices": tuple(price for each in listings for price in each.prices),
            "breakers": (
                Breaker(
                    id="hot",
                    keysets=tuple(each.keyset.id for each in listings),
                    value_cap=HOT_VALUE_CAP,
                    window_seconds=DAY,
                ),
            ),
            **self.people(),
        }
        made = Bundle(**(fields | changes))
        return made if "policy" in changes else msgspec.structs.replace(made, policy=trial_policy(made))


@dataclass(frozen=True)
class Taken:
    """Something that a signature lets leave: to whom, of what, and how much at most."""

    at: int
    what: Literal["paid", "fee"]
    asset: str
    units: int


class Fortress(Bench[TrialWorld]):
    """The signer."""

    def __init__(self, directory: Path) -> None:
        self.btc_keys, self.eth_keys = SoftKeys.make(), SoftEvmKeys.make()
        other = SoftEvmKeys.make("unused")
        house = EvmWorld(self.eth_keys.record, other.record)
        btc = World(
            self.btc_keys.record, officers=house.officers, caller=house.caller, stranger=house.stranger
        )
        world = TrialWorld(
            self.eth_keys.record,
            other.record,
            officers=house.officers,
            caller=house.caller,
            stranger=house.stranger,
            btc=btc,
        )
        super().__init__(directory, world)
        self.nonce = 0

    def wallets(self) -> Mapping[str, Wallet[Any]]:
        return {
            self.btc_keys.record.id: BitcoinWallet(self.btc_keys),
            self.eth_keys.record.id: EvmWallet(self.eth_keys),
        }

    @property
    def bundle(self) -> Bundle:
        return self.trust.present


class Thief:
    """Asks the signer for whatever he can write. What he got signed is his to broadcast whenever he likes."""

    def __init__(self, fortress: Fortress) -> None:
        self.fortress = fortress
        self.taken: list[Taken] = []
        self.refusals: set[str] = set()

    @property
    def now(self) -> int:
        return self.fortress.time

    def ask(self, request: SignRequest) -> bool:
        """Whether it was signed."""
        try:
            self.fortress.service.sign(request)
        except Refused as refused:
            self.refusals |= {reason.code for reason in refused.reasons}
            return False
        except TransientError:
            return False
        return True

    # With callers' keys.

    def pay_himself(self, asset: str, units: int, fee: int = 0) -> bool:
        """An order of his own, genuine by a stolen caller's key, paid at once."""
        world = self.fortress.world
        # Whoever signs orders names customers as he likes: no window of one customer stops him.
        mule = f"mule-{len(self.taken)}"
        common = {"expires_at": self.now + HOUR, "destination": THIEF[asset], "customer": mule}
        if asset == "BTC":
            order = world.btc.order(units, fee_ceiling=str(10**12), **common)
            draft = Draft([world.btc.coin(units + 10_000_000)], [order], fee_sats=fee or 1_000)
            request, paid_fee = world.btc.request(draft), draft.fee_sats
        else:
            order = world.order(units, asset=asset, fee_ceiling=str(10**24), **common)
            evm_draft = EvmDraft([order], nonce=self.fortress.nonce, max_fee_wei=10**9)
            request, paid_fee = world.request(evm_draft), evm_draft.gas_limit * evm_draft.max_fee_wei
        if not self.ask(request):
            return False
        native = "BTC" if asset == "BTC" else "ETH"
        self.fortress.nonce += native == "ETH"
        self.taken += [
            Taken(self.now, "paid", asset, units),
            Taken(self.now, "fee", native, paid_fee),
        ]
        return True

    def empty_the_tier(self) -> None:
        """As much as ever is signed, the dearest first, down to the dust."""
        for cap in self.fortress.bundle.caps:
            if cap.asset not in THIEF:
                continue
            units = int(cap.payment_below) - 1
            while units > int(cap.payment_below) // 2**12:
                if not self.pay_himself(cap.asset, units):
                    units //= 4

    # With what others have asked for.

    def replay(self) -> None:
        """What went over the wire, again and again, and its parts in other places."""
        world = self.fortress.world.btc
        honest = [
            world.request(
                Draft([world.coin(10_000_000)], [world.order(4_000_000, expires_at=self.now + HOUR)])
            )
            for _ in range(3)
        ]
        answers = [self.fortress.service.sign(request) for request in honest]
        for _ in range(10):
            assert [self.fortress.service.sign(request) for request in honest] == answers
        signed = self.fortress.service.status().signed
        for request, answer in zip(honest, answers, strict=True):
            for other in (each for each in honest if each is not request):
                # The same transaction gets the same signatures, whatever is shown with it.
                shown = msgspec.structs.replace(request, evidence=other.evidence)
                assert self.fortress.service.sign(shown) == answer
                assert not self.ask(msgspec.structs.replace(request, intents=other.intents))
        assert self.fortress.service.status().signed == signed

    def outvote(self) -> None:
        """One officer's key: a bundle that allows more needs the quorum; a freeze only stops."""
        world, present = self.fortress.world, self.fortress.bundle
        caps = tuple(msgspec.structs.replace(cap, window_cap=str(10**30)) for cap in present.caps)
        more = msgspec.structs.replace(present, version=present.version + 1, caps=caps)
        try:
            self.fortress.desk.deliver(world.signed(more, ("olga",)))
        except Refused as refused:
            self.refusals |= {reason.code for reason in refused.reasons}
        assert self.fortress.bundle == present

    # With the signer's door and other people's genuine orders.

    def burn(self) -> None:
        """Fees as high as they are signed, for transactions that pay nobody: consolidations and filled nonces."""
        world, bundle = self.fortress.world, self.fortress.bundle
        fee = int(bundle.network("bitcoin-regtest").fee_cap)
        while fee >= 10_000:
            coin = world.btc.coin(fee + 100_000)
            intent = world.btc.house_intent(Kind.CONSOLIDATION)
            draft = Draft([coin], [], intents=[intent], fee_sats=fee)
            if self.ask(world.btc.request(draft)):
                self.taken.append(Taken(self.now, "fee", "BTC", fee))
            else:
                fee //= 2
        network = bundle.network(EVM_CHAIN)
        price = network.feerate_cap
        while price >= 10**9:
            filler = world.fill(self.fortress.nonce, max_fee_wei=price, gas_limit=100_000)
            if self.ask(world.request(filler)):
                self.taken.append(Taken(self.now, "fee", "ETH", 100_000 * price))
                self.fortress.nonce += 1
            else:
                price //= 2

    def tamper(self) -> Iterator[tuple[str, SignRequest]]:
        """Genuine orders of honest people, turned to his own use in every way he thinks of."""
        world = self.fortress.world
        order = world.btc.order(4_000_000, expires_at=self.now + HOUR)
        honest = world.btc.request(Draft([world.btc.coin(10_000_000)], [order]))
        stolen = msgspec.structs.replace(order, destination=THIEF["BTC"])
        mine = world.btc.request(Draft([world.btc.coin(10_000_000)], [stolen]))
        evidence = honest.evidence
        yield "another destination under the old signature", msgspec.structs.replace(mine, evidence=evidence)
        [signed] = evidence.orders
        forged = msgspec.structs.replace(signed, order=stolen)
        more = msgspec.structs.replace(evidence, orders=(forged,))
        yield "another destination in the order", msgspec.structs.replace(mine, evidence=more)
        yield (
            "another amount",
            world.btc.request(
                Draft(
                    [world.btc.coin(10_000_000)],
                    [order],
                    intents=[world.btc.intent(order, amount="9999999", destination=THIEF["BTC"])],
                )
            ),
        )
        yield (
            "no order at all",
            msgspec.structs.replace(honest, evidence=msgspec.structs.replace(evidence, orders=())),
        )
        yield (
            "the house's own business to him",
            world.btc.request(
                Draft(
                    [world.btc.coin(10_000_000)],
                    [],
                    intents=[world.btc.house_intent(Kind.CONSOLIDATION, destination=THIEF["BTC"])],
                )
            ),
        )
        eth = world.order(10**18, expires_at=self.now + HOUR)
        for name, draft in (
            ("value to him", EvmDraft([eth], nonce=self.fortress.nonce, to=bytes.fromhex(THIEF["ETH"][2:]))),
            ("allowance", EvmDraft([eth], nonce=self.fortress.nonce, data=bytes.fromhex("095ea7b3"))),
        ):
            yield name, world.request(draft)


def most_in_a_day(taken: list[tuple[int, int]]) -> int:
    """The largest sum of units of (time, units) within any 24 hours."""
    return max(
        (sum(units for at, units in taken if start <= at < start + DAY) for start, _ in taken), default=0
    )
