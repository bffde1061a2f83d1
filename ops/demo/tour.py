"""The tour itself: its steps in order, each one watched, timed and recorded."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from bitcoinrpc.authproxy import JSONRPCException

from chains.errors import StrongroomError
from ops.demo import arrivals, chain, cold, ethereum, evm_payments, payments, policy, trading, warm
from ops.demo.record import Record, StepFailed, StepRecord
from ops.demo.show import Show
from ops.demo.world import World
from ops.devnet.errors import DevnetError

Step = Callable[[World], dict[str, Any]]

STEPS: Final[tuple[tuple[str, str, Step], ...]] = (
    ("service", "The service is ready: API, monitor, workers, signer, each a process", arrivals.service),
    ("customers", "Customers: alice, bob, carol", arrivals.customers),
    ("addresses", "Deposit addresses, attested by the signer, verified by the caller", arrivals.addresses),
    ("deposit-confirmed", "A deposit: seen, mined, six blocks, credited", arrivals.deposit_confirmed),
    (
        "deposit-replaced",
        "A deposit double-spent by RBF before it confirms: no credit",
        arrivals.deposit_replaced,
    ),
    (
        "deposit-reorganised",
        "A deposit undone by a reorg, mined again: one credit",
        arrivals.deposit_reorganised,
    ),
    ("withdrawal-batch", "Two withdrawals in one transaction", payments.batch),
    ("withdrawal-bumped", "A withdrawal whose fee is raised while nobody mines", payments.bumped),
    (
        "withdrawal-over-limit",
        "A withdrawal above the hot tier's limit: people are asked; cancelled",
        payments.over_limit,
    ),
    (
        "withdrawal-bad-address",
        "A withdrawal to an address of another network: refused",
        payments.bad_address,
    ),
    ("withdrawal-repeated", "A request repeated under its idempotency key: one payment", payments.repeated),
    (
        "withdrawal-internal",
        "A withdrawal to one of our own addresses: settled in the ledger",
        payments.internal,
    ),
    ("gas", "Gas for the hot keys of two EVM networks: nobody's, on suspense", ethereum.gas),
    ("ethereum-addresses", "Ethereum addresses: contracts to be, without a key to steal", ethereum.addresses),
    (
        "ethereum-deposits",
        "ETH and USDX, paid by people and by contracts: credited when final",
        ethereum.deposits,
    ),
    ("ethereum-fakes", "A fake token, a lying event, a payment undone: no credit", ethereum.fakes),
    (
        "ethereum-reorganised",
        "A deposit of ETH undone by a reorg, mined again: one credit",
        ethereum.reorganised,
    ),
    ("sweep", "Ten forwarders of ETH and USDX, most not deployed: one sweep", ethereum.sweep),
    ("withdrawal-three-assets", "Withdrawals of BTC, ETH and USDX at once", evm_payments.three_assets),
    (
        "withdrawal-stuck",
        "A payment that is stuck when fees jump: replaced at its nonce",
        evm_payments.stuck,
    ),
    (
        "withdrawal-reverted",
        "A payment that its payee refuses: held until that is final",
        evm_payments.reverted,
    ),
    (
        "second-network",
        "A second EVM network beside the first: a deposit, a payment",
        evm_payments.second_network,
    ),
    (
        "trading",
        "Trading: deposits go in, two asks, a market order takes both, fees",
        trading.trade,
    ),
    (
        "trading-proceeds",
        "What was traded for goes back, and leaves on chain",
        trading.proceeds,
    ),
    (
        "policy-new-destination",
        "A large payment to a new destination: refused until it is known for a day",
        policy.new_destination,
    ),
    (
        "policy-approvals",
        "A payment that two must approve: who ordered it is none of them",
        policy.approvals,
    ),
    ("policy-freeze", "One officer freezes everything, the quorum lets it go on", policy.freeze),
    (
        "warm-funds",
        "More than hot may hold: the treasury sends it to warm, two agree",
        warm.funds,
    ),
    (
        "warm-bitcoin",
        "Warm, Bitcoin: two people agree, two of three signers sign, one is away",
        warm.bitcoin,
    ),
    (
        "warm-ethereum",
        "Warm, Ethereum: a Safe, two of three owners, a gas payer",
        warm.safe,
    ),
    (
        "cold-register",
        "Cold: holders offline take in the bundle, and compare addresses",
        cold.register,
    ),
    (
        "cold-prove",
        "Cold: a little in and out before real money, then it is proven",
        cold.prove,
    ),
    (
        "cold-funds",
        "More than hot and warm may hold: straight to cold, two agree",
        cold.funds,
    ),
    (
        "cold-bitcoin",
        "Cold, Bitcoin: three of five holders sign offline, by QR pictures",
        cold.bitcoin,
    ),
    (
        "cold-ethereum",
        "Cold, Ethereum: the same three sign for the Safe",
        cold.safe,
    ),
    (
        "refill-busy",
        "A busy hour: hot falls below 30 % of what it may hold",
        chain.busy,
    ),
    (
        "refill-chain",
        "Money comes up: cold to warm, then warm to hot",
        chain.refill,
    ),
    ("statements", "Statements replayed from zero", payments.statements),
    ("reconcile", "Ledger against chains, to the satoshi, wei and token unit", payments.reconcile),
    ("verify", "The verifier replays every ledger and finds every deposit", payments.verify),
)
"""Name, title, and what is done."""


def run(world: World, show: Show, record: Record, steps: Sequence[tuple[str, str, Step]] = STEPS) -> None:
    """Runs steps in order, those of the tour unless others are given.

    After the first that does not hold, the rest is recorded as not run.
    """
    failed = ""
    for name, title, action in steps:
        step = StepRecord(name, title)
        record.steps.append(step)
        if failed:
            step.detail["error"] = f"did not run, for {failed} did not hold"
            continue
        show.begin(title)
        world.note = show.note
        started = time.monotonic()
        try:
            step.detail.update(action(world))
            step.ok = True
        except (StepFailed, StrongroomError, DevnetError, JSONRPCException, OSError, LookupError) as error:
            step.detail["error"] = f"{type(error).__name__}: {error}"
            failed = name
        step.seconds = time.monotonic() - started
        show.end(step)
