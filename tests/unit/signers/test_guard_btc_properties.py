"""Transactions put together at random, of honest and dishonest parts: what is signed pays the order once."""

from __future__ import annotations

import base64
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from chains.btc.address import parse_address
from chains.btc.psbt import PsbtInput, ScriptKeys, build_psbt
from chains.btc.tx import RBF_SEQUENCE, Transaction, TxIn, TxOut
from chains.errors import InvalidValue
from policies.intent import Order
from signers.ports import Refused, SignRequest
from tests.fakes.signer import Bench, SignerBench
from tests.fakes.signing import CHAIN, DESTINATION, REGTEST, Coin, Draft, SoftKeys, World
from tests.fakes.vault_signing import SoftCosigner, VaultBench

PAID_SATS = 400_000
CEILING_SATS = 50_000
PAYMENT = TxOut(PAID_SATS, parse_address(DESTINATION, REGTEST, CHAIN).script)
WIDE = {"network_fee_window_cap": str(10**15), "cap_window_cap": str(10**15)}

Owner = Literal["ours", "thief"]


@dataclass(frozen=True)
class Spent:
    """A coin, and whose place the PSBT says that it is at."""

    owner: Owner
    units: int
    branch: int
    index: int
    sequence: int


@dataclass(frozen=True)
class Made:
    """An output: the payment, or one to a place of a wallet, with or without its origin."""

    what: Literal["payment", "wallet"]
    owner: Owner
    units: int
    branch: int
    index: int
    named: Literal["yes", "no", "as ours"]


SPENT = st.builds(
    Spent,
    st.sampled_from(["ours", "ours", "ours", "thief"]),
    st.sampled_from([300_000, 500_000]),
    st.integers(0, 1),
    st.sampled_from([0, 5]),
    st.sampled_from([RBF_SEQUENCE] * 8 + [0xFFFF_FFFF, 0]),
)
MADE = st.builds(
    Made,
    st.sampled_from(["payment", "wallet", "wallet"]),
    st.sampled_from(["ours", "ours", "thief"]),
    st.sampled_from([PAID_SATS, PAID_SATS, 90_000, 20_000, 200]),
    st.sampled_from([1, 1, 1, 0]),
    st.sampled_from([0, 7, 999, 1_000, 2**31 - 1]),
    st.sampled_from(["yes", "yes", "no", "as ours"]),
)

CHANGED = st.fixed_dictionaries(
    {},
    optional={
        "owner": st.sampled_from(["ours", "thief"]),
        "units": st.sampled_from([90_000, 95_000, 40_000, 200]),
        "branch": st.integers(0, 1),
        "index": st.sampled_from([0, 7, 999, 1_000, 2**31 - 1]),
        "named": st.sampled_from(["yes", "no", "as ours"]),
    },
)
HONEST_SPENT = Spent("ours", 500_000, 0, 5, RBF_SEQUENCE)
HONEST_PAYMENT = Made("payment", "ours", 0, 1, 0, "no")
HONEST_CHANGE = Made("wallet", "ours", 90_000, 1, 7, "yes")
HONEST = ([HONEST_SPENT], [HONEST_PAYMENT, HONEST_CHANGE])
SPENTS = st.builds(
    lambda first, more: [first, *more],
    st.one_of(st.just(HONEST_SPENT), st.just(HONEST_SPENT), SPENT),
    st.one_of(st.just([]), st.lists(SPENT, max_size=2)),
)
MADES = st.builds(
    lambda first, second, more: [first, *second, *more],
    st.one_of(st.just(HONEST_PAYMENT), st.just(HONEST_PAYMENT), MADE),
    st.one_of(st.just([HONEST_CHANGE]), st.builds(lambda made: [replace(HONEST_CHANGE, **made)], CHANGED)),
    st.one_of(st.just([]), st.just([]), st.lists(MADE, max_size=1)),
)


class Side:
    """One wallet's coins and outputs, ours or a thief's, as a PSBT has them."""

    def __init__(self, bench: Bench[Any]) -> None:
        self.bench = bench

    def request(self, draft: Draft) -> SignRequest:
        raise NotImplementedError

    def script(self, owner: Owner, branch: int, index: int) -> bytes:
        raise NotImplementedError

    def input(self, spent: Spent, coin: Coin) -> PsbtInput:
        raise NotImplementedError

    def psbt(self, tx: Transaction, inputs: list[PsbtInput], named: dict[int, Made]) -> bytes:
        raise NotImplementedError


class KeysetSide(Side):
    def __init__(self, bench: SignerBench) -> None:
        super().__init__(bench)
        thief = SoftKeys.make(b"\x66" * 32, script=bench.world.record.script)
        self.worlds: dict[str, World] = {"ours": bench.world, "thief": World(thief.record)}

    def request(self, draft: Draft) -> SignRequest:
        return self.worlds["ours"].request(draft)

    def script(self, owner: Owner, branch: int, index: int) -> bytes:
        return self.worlds[owner].account.script(branch, index)

    def input(self, spent: Spent, coin: Coin) -> PsbtInput:
        world = self.worlds[spent.owner]
        path, pubkey = world.path(coin.branch, coin.index), world.account.pubkey(coin.branch, coin.index)
        return PsbtInput(coin.outpoint, spent.sequence, coin.previous.serialize(), path, pubkey)

    def psbt(self, tx: Transaction, inputs: list[PsbtInput], named: dict[int, Made]) -> bytes:
        change = {}
        for number, made in named.items():
            world = self.worlds["ours" if made.named == "as ours" else made.owner]
            change[number] = (
                world.account.pubkey(made.branch, made.index),
                world.path(made.branch, made.index),
            )
        return build_psbt(tx, inputs, change, self.worlds["ours"].record.fingerprint)


class VaultSide(Side):
    def __init__(self, bench: VaultBench) -> None:
        super().__init__(bench)
        world = bench.world
        # A thief's wallet with two of our own cosigners in it: their keys alone would pass.
        swapped = [*world.cosigners[:2], SoftCosigner.make(66).record]
        self.wallets = {"ours": world.wallet, "thief": world.wallet_of(swapped)}

    def request(self, draft: Draft) -> SignRequest:
        intents = [self.bench.world.vault_intent(order, policy_version=2) for order in draft.orders]
        found: SignRequest = self.bench.world.vault_request(replace(draft, intents=intents))
        return found

    def script(self, owner: Owner, branch: int, index: int) -> bytes:
        return self.wallets[owner].script(branch, index)

    def input(self, spent: Spent, coin: Coin) -> PsbtInput:
        behind = self.wallets[spent.owner].behind(coin.branch, coin.index)
        return PsbtInput(coin.outpoint, spent.sequence, coin.previous.serialize(), behind=behind)

    def psbt(self, tx: Transaction, inputs: list[PsbtInput], named: dict[int, Made]) -> bytes:
        scripts: dict[int, ScriptKeys] = {}
        for number, made in named.items():
            wallet = self.wallets["ours" if made.named == "as ours" else made.owner]
            scripts[number] = wallet.behind(made.branch, made.index)
        return build_psbt(tx, inputs, {}, bytes(4), scripts)


@pytest.fixture(scope="module", params=["p2wpkh", "p2tr", "vault"])
def side(request: pytest.FixtureRequest) -> Iterator[Side]:
    with tempfile.TemporaryDirectory() as directory:
        if request.param == "vault":
            vault = VaultBench(Path(directory))
            vault.adopt(2, network_fee_window_cap=str(10**15))
            made: Side = VaultSide(vault)
        else:
            hot = SignerBench(Path(directory), request.param)
            hot.adopt(2, **WIDE)
            made = KeysetSide(hot)
        yield made
        made.bench.journal.close()


def asked(
    side: Side, spents: list[Spent], mades: list[Made], order: Order
) -> tuple[SignRequest, Transaction]:
    """The request with exactly these inputs and outputs. Raises InvalidValue where no PSBT can say so."""
    world = side.bench.world
    coins = []
    for spent in spents:
        coin = world.coin(spent.units)
        script = side.script(spent.owner, spent.branch, spent.index)
        previous = replace(coin.previous, outputs=(coin.previous.outputs[0], TxOut(spent.units, script)))
        coins.append(Coin(previous, 1, spent.branch, spent.index))
    outputs = tuple(
        PAYMENT
        if made.what == "payment"
        else TxOut(made.units, side.script(made.owner, made.branch, made.index))
        for made in mades
    )
    sequences = [spent.sequence for spent in spents]
    tx = Transaction(2, tuple(TxIn(c.outpoint, n) for c, n in zip(coins, sequences, strict=True)), outputs)
    inputs = [side.input(spent, coin) for spent, coin in zip(spents, coins, strict=True)]
    named = {n: made for n, made in enumerate(mades) if made.what == "wallet" and made.named != "no"}
    raw = side.psbt(tx, inputs, named)
    draft = Draft([world.coin(10**6)], [order])
    if isinstance(side, KeysetSide):
        draft.intents = [world.intent(order, policy_version=2)]
    else:
        draft = Draft([world.vault_coin(10**6)], [order])
    request = side.request(draft)
    changed = msgspec.structs.replace(request, transaction=base64.b64encode(raw).decode())
    return (changed if isinstance(side, KeysetSide) else world.evidence(changed)), tx


@settings(max_examples=400)
@given(SPENTS, MADES)
@example(*HONEST)
def test_whatever_is_signed_pays_the_order_once_and_leaves_the_rest_with_us(
    side: Side, spents: list[Spent], mades: list[Made]
) -> None:
    order = side.bench.world.order(PAID_SATS, fee_ceiling=str(CEILING_SATS))
    try:
        request, tx = asked(side, spents, mades, order)
    except InvalidValue:
        event("no PSBT")
        return
    try:
        side.bench.service.sign(request)
    except Refused:
        event("refused")
        return
    event("signed")
    assert {spent.owner for spent in spents} == {"ours"}
    assert {spent.sequence for spent in spents} == {RBF_SEQUENCE}
    rest = Counter(tx.outputs) - Counter([PAYMENT])
    assert rest.total() == len(tx.outputs) - 1 <= 1
    reach = side.bench.journal.write(lambda book: book.high_water(request.keyset)) + 1_000
    own = {side.script("ours", 1, index) for index in (0, 7, 999, 1_000) if index <= reach}
    assert {output.script for output in rest} <= own
    fee = sum(spent.units for spent in spents) - sum(output.units for output in tx.outputs)
    assert 0 <= fee <= CEILING_SATS


def test_the_honest_one_of_them_is_signed(side: Side) -> None:
    order = side.bench.world.order(PAID_SATS, fee_ceiling=str(CEILING_SATS))
    request, _ = asked(side, *HONEST, order)
    assert len(side.bench.signatures(request)) == 1
