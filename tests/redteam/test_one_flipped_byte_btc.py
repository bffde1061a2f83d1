"""Flipping any one bit of a valid Bitcoin request, on its way or inside its PSBT, pays nobody else and nothing more.

Exhaustive for P2WPKH: every bit of the frame as it is sent, and every bit of the decoded PSBT. Of taproot, of a vault
and of a refill two bits of every byte. What comes out is a refusal, or a transaction with the same payments, the
remainder ours, and the fee within its caps. After each signature the signer gets its empty journal back, so that no
variant is refused only because of an earlier one.
"""

from __future__ import annotations

import base64
import itertools
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chains.btc.psbt import InputSignature, ParsedPsbt, finalize, parse_psbt
from chains.btc.tx import Transaction
from signers.ports import SignRequest, SignResponse
from signers.process.calls import Desk, handlers
from signers.process.rates import Gate
from signers.service import SignerService
from signers.wallets import BitcoinVaultWallet
from signers.wire import Call, Reply
from tests.fakes.signer import Bench, SignerBench
from tests.fakes.signing import Draft
from tests.fakes.tiers import TierBench
from tests.fakes.vault_signing import VAULT, VaultBench

PAID_SATS = 1_000_000
FEE_CEILING_SATS = 50_000
"""Of the one order."""
FEERATE_CAP_SAT_PER_VB = 100
CHANGE_REACH = 1_000
EVERY_BIT, TWO_BITS = range(8), (0, 7)


@dataclass
class Target:
    """A signer, a valid request, and what may come of a spoiled one."""

    bench: Bench[Any]
    request: SignRequest
    own: frozenset[bytes]
    """Scripts to which what is left may go."""
    bits: Sequence[int]
    """Which of each byte are flipped."""
    others: Callable[[SignRequest], tuple[InputSignature, ...]] = lambda request: ()
    """Signatures of the signers beside this one."""
    signed: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    """First code of each refusal."""

    def __post_init__(self) -> None:
        self.frame = frame(self.request)
        psbt = read(self.request)
        self.psbt = base64.b64decode(self.request.transaction)
        self.spent = dict(zip((txin.outpoint for txin in psbt.tx.inputs), psbt.spent, strict=True))
        self.paid = Counter([(psbt.tx.outputs[0].units, psbt.tx.outputs[0].script)])
        self.bench.journal.close()
        self.empty = self.bench.directory.with_name("empty")
        shutil.copytree(self.bench.directory, self.empty)
        self._start()

    def _start(self) -> None:
        self.bench.start()
        ticks = itertools.count(0, 10**12)
        gate = Gate({}, nanoseconds=lambda: next(ticks))  # no client is ever too quick
        self._desk = Desk(handlers(self.bench.service), gate)

    def forget(self) -> None:
        """Give the signer its empty journal back, and the mark that goes with it."""
        self.bench.journal.close()
        shutil.copytree(self.empty, self.bench.directory, dirs_exist_ok=True)
        self._start()

    def judge(self, payload: bytes, where: str) -> None:
        """Give a frame to the signer; what comes back must be harmless."""
        reply = self._desk.answer("attacker", payload)
        if not bytes(reply.ok):
            assert reply.refused is not None, (where, reply.error)
            self.refused[reply.refused[0].code] += 1
            return
        call = msgspec.json.decode(payload, type=Call)
        assert call.call == "sign", where
        self.check(msgspec.json.decode(call.body, type=SignRequest), reply, where)
        self.signed += 1
        self.forget()

    def check(self, request: SignRequest, reply: Reply, where: str) -> None:
        """The same payments, the remainder ours, the fee within its caps; by what the coins are really worth."""
        response = msgspec.json.decode(reply.ok, type=SignResponse)
        given = [
            InputSignature(item.index, bytes.fromhex(item.pubkey), bytes.fromhex(item.signature))
            for item in response.signatures
        ]
        tx = Transaction.parse(finalize(read(request), [*given, *self.others(request)]))
        outputs = Counter((out.units, out.script) for out in tx.outputs)
        assert not self.paid - outputs, (where, "a payment is missing")
        left = outputs - self.paid
        assert left.total() <= 1, (where, "more than one output beside the payment")
        assert {script for _, script in left} <= self.own, (where, "what is left is not ours")
        worth = sum(self.spent[txin.outpoint].units for txin in tx.inputs)
        fee = worth - sum(out.units for out in tx.outputs)
        # A signature may be a byte shorter than the largest, by which its signer judged.
        assert 0 <= fee <= min(FEE_CEILING_SATS, FEERATE_CAP_SAT_PER_VB * (tx.vsize + 2)), (where, fee)


def frame(request: SignRequest) -> bytes:
    """A call as a client sends it, without its length."""
    return msgspec.json.encode(Call(call="sign", body=msgspec.Raw(msgspec.json.encode(request))))


def read(request: SignRequest) -> ParsedPsbt:
    return parse_psbt(base64.b64decode(request.transaction))


def flipped(data: bytes, bits: Sequence[int]) -> Iterator[tuple[str, bytes]]:
    """Every variant with one of these bits of one byte changed, and where."""
    for at, bit in itertools.product(range(len(data)), bits):
        yield f"byte {at}, bit {bit}", b"%b%c%b" % (data[:at], data[at] ^ 1 << bit, data[at + 1 :])


def hot(directory: Path, script: Any) -> Target:
    bench = SignerBench(directory, script)
    world = bench.world
    coins = [world.coin(700_000, branch=0, index=4), world.coin(600_000, branch=1, index=9)]
    request = world.request(Draft(coins, [world.order(PAID_SATS)]))
    own = frozenset(world.account.script(1, index) for index in range(CHANGE_REACH))
    return Target(bench, request, own, EVERY_BIT if script == "p2wpkh" else TWO_BITS)


def vault(directory: Path) -> Target:
    bench = VaultBench(directory)
    world = bench.world
    coins = [world.vault_coin(700_000, index=4), world.vault_coin(600_000, branch=1, index=9)]
    request = world.vault_request(Draft(coins, [world.order(PAID_SATS)]))
    own = frozenset(world.wallet.script(1, index) for index in range(CHANGE_REACH))

    def second(spoiled: SignRequest) -> tuple[InputSignature, ...]:
        service = SignerService(
            {VAULT: BitcoinVaultWallet(bench.cosigners[1])}, bench.trust, bench.journal, bench.clock
        )
        return tuple(
            InputSignature(s.index, bytes.fromhex(s.pubkey), bytes.fromhex(s.signature))
            for s in service.sign(spoiled).signatures
        )

    return Target(bench, request, own, TWO_BITS, second)


def refill(directory: Path) -> Target:
    """The hot key-set's money to the cold vault: one key signs it, and nobody has to approve it."""
    bench = TierBench(directory, "hot")
    world = bench.world
    request = bench.refill("cold", units=PAID_SATS, index=9)
    own = frozenset(world.account.script(1, index) for index in range(CHANGE_REACH))
    return Target(bench, request, own, TWO_BITS)


TARGETS: dict[str, Callable[[Path], Target]] = {
    "p2wpkh": lambda directory: hot(directory, "p2wpkh"),
    "p2tr": lambda directory: hot(directory, "p2tr"),
    "vault": vault,
    "refill": refill,
}


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Target]:
    directory = tmp_path / "signer"
    directory.mkdir()
    made = TARGETS[request.param](directory)
    yield made
    made.bench.journal.close()


def test_the_request_itself_is_signed_and_harmless(target: Target) -> None:
    target.judge(target.frame, "untouched")
    assert (target.signed, target.refused.total()) == (1, 0)


def test_fault_44_no_flipped_bit_of_a_frame_pays_anybody_else(target: Target) -> None:
    for where, spoiled in flipped(target.frame, target.bits):
        target.judge(spoiled, where)
    assert target.signed + target.refused.total() == len(target.bits) * len(target.frame)
    assert {"malformed-request", "malformed-transaction"} <= target.refused.keys()
    assert target.refused.keys() & {"order-signature", "refill-target"}


def test_fault_44_no_flipped_bit_of_a_psbt_pays_anybody_else(target: Target) -> None:
    for where, spoiled in flipped(target.psbt, target.bits):
        request = msgspec.structs.replace(target.request, transaction=base64.b64encode(spoiled).decode())
        target.judge(frame(request), where)
    assert target.signed + target.refused.total() == len(target.bits) * len(target.psbt)
    # Not vacuous: a change output that is a little smaller is signed, and is harmless. Of a vault's it is not what the
    # verifier's verdict is about, and that alone refuses it.
    assert target.signed or target.refused["verdict-elsewhere"]
    assert {"foreign-input", "foreign-change"} <= target.refused.keys()
    assert target.refused.keys() & {"unknown-output", "refill-target"}
