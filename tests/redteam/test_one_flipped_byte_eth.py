"""Changing any one byte of a valid EVM request, on its way or inside its transaction, pays nobody else.

Exhaustive: every byte of the frame as it is sent, and every byte of the decoded transaction; to each of the 255 other
values for a native payment, and with each bit flipped for all else: a token's payment, a Safe's, refills, an execution.
What comes out is a refusal, or a transaction with the same payments, everything else still ours, and the fee within its
caps.

The guard judges each variant with an empty journal, so that none is refused only because of an earlier one. Of those
that it let pass, many are then given to a whole signer that has signed the valid request.
"""

from __future__ import annotations

import base64
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chains.eth.address import checksummed, raw_address
from chains.eth.erc20 import decode_transfer
from chains.eth.safe import SafeMessage, decode_execution, owner_of
from chains.eth.tx import UnsignedTx
from signers.guard.guard import admit, examine
from signers.ports import InputSignature, Refused, SignRequest, SignResponse
from signers.process.calls import Desk, handlers
from signers.process.rates import Gate
from signers.wallets import Wallet
from signers.wire import Call
from tests.fakes.evm_signing import ETHER, EVM_CHAIN_ID, EVM_DESTINATION, GAS_CAPS, GWEI, USDX
from tests.fakes.evm_tiers import HotBench, WarmBench
from tests.fakes.safe_signing import SAFE, ExecutorBench, OwnerBench
from tests.fakes.signer import Bench, EvmBench

FEE_CEILING_WEI = ETHER // 50
"""Of the one order."""
FEERATE_CAP_WEI = 200 * GWEI
FEE_CAP_WEI = ETHER // 5
"""Of the network, where there is no order."""
NONCE_REACH = 256
UNITS = 10**15 + 7
MOST_COMMITS = 100
"""So often a test waits for the disk to record a signature."""


class Fresh:
    """The journal's memory of a transaction that was never signed before."""

    before = None

    def keep(self, signature: str) -> str:
        return signature


@dataclass
class Target:
    """A signer, a valid request, and what may come of a spoiled one."""

    bench: Bench[Any]
    wallet: Wallet[Any]
    request: SignRequest
    check: Callable[[bytes, bytes], None]
    """Given transaction and signature, fails unless both are harmless."""
    every: Callable[[int], Iterator[int]]
    """Other values of a byte."""
    signed: list[tuple[str, SignRequest]] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    """First code of each refusal."""

    def __post_init__(self) -> None:
        self.frame = frame(self.request)
        self.transaction = base64.b64decode(self.request.transaction)
        ticks = itertools.count(0, 10**12)
        gate = Gate({}, nanoseconds=lambda: next(ticks))  # no client is ever too quick
        self._desk = Desk(handlers(self), gate)

    def status(self) -> Any:
        return self.bench.service.status()

    def attest(self, request: Any) -> Any:
        return self.bench.service.attest(request)

    def sign(self, request: SignRequest) -> SignResponse:
        """As the service does, but nothing is recorded."""
        if request.keyset not in self.bench.wallets():
            return self.bench.service.sign(request)
        now = self.bench.time
        bundle, held = self.bench.trust.present, self.bench.wallets()
        examination = examine(request, bundle, self.wallet.rules, held=held, now=now)
        examined = examination.examined
        if examined is None or examination.reasons:
            raise Refused(examination.reasons)
        outcome = self.bench.journal.write(lambda book: admit(examined, (), book, now=now))
        if isinstance(outcome, tuple):
            raise Refused(outcome)
        return SignResponse(signatures=self.wallet.sign(examined.unsigned, Fresh()))

    def judge(self, payload: bytes, where: str) -> None:
        """Give a frame to the signer; what comes back must be harmless."""
        reply = self._desk.answer("attacker", payload)
        if not bytes(reply.ok):
            assert reply.refused is not None, (where, reply.error)
            self.refused[reply.refused[0].code] += 1
            return
        call = msgspec.json.decode(payload, type=Call)
        assert call.call == "sign", where
        request = msgspec.json.decode(call.body, type=SignRequest)
        (item,) = msgspec.json.decode(reply.ok, type=SignResponse).signatures
        self.checked(request, item, where)
        self.signed.append((where, request))

    def checked(self, request: SignRequest, item: InputSignature, where: str) -> None:
        try:
            self.check(base64.b64decode(request.transaction), bytes.fromhex(item.signature))
        except AssertionError as error:
            raise AssertionError(where) from error

    def variants(self, data: bytes) -> Iterator[tuple[str, bytes]]:
        """All of `data` with one byte changed, and where."""
        for at, value in enumerate(data):
            for other in self.every(value):
                yield f"byte {at}: {value} to {other}", b"%b%c%b" % (data[:at], other, data[at + 1 :])


def frame(request: SignRequest) -> bytes:
    """A call as a client sends it, without its length."""
    return msgspec.json.encode(Call(call="sign", body=msgspec.Raw(msgspec.json.encode(request))))


def any_value(value: int) -> Iterator[int]:
    return (other for other in range(256) if other != value)


def any_bit(value: int) -> Iterator[int]:
    return (value ^ 1 << bit for bit in range(8))


def plain(bench: EvmBench, asset: str) -> Callable[[bytes, bytes], None]:
    """A transaction of the hot key that pays the one order and at most its fee."""

    def check(raw: bytes, signature: bytes) -> None:
        signed = UnsignedTx.decode(raw).signed(signature)
        tx = signed.tx
        assert checksummed(signed.sender()) == bench.world.record.address
        if asset == "ETH":
            assert (tx.to, tx.value_wei, tx.data) == (raw_address(EVM_DESTINATION), UNITS, b"")
        else:
            transfer = decode_transfer(tx.data)
            assert (tx.to, tx.value_wei) == (raw_address(USDX), 0)
            assert (transfer.to, transfer.units) == (raw_address(EVM_DESTINATION), UNITS)
        assert tx.chain_id == EVM_CHAIN_ID
        assert tx.nonce < NONCE_REACH
        assert tx.gas_limit <= (GAS_CAPS.transfer if asset == "ETH" else GAS_CAPS.token)
        assert tx.max_fee_per_gas_wei <= FEERATE_CAP_WEI
        assert tx.max_fee_wei <= FEE_CEILING_WEI

    return check


def hot(directory: Path, asset: str) -> Target:
    bench = EvmBench(directory)
    if asset != "ETH":
        bench.adopt(2, usdx_payment_below=str(2 * UNITS), usdx_window_cap=str(2 * UNITS))
    draft = bench.draft(UNITS, asset=asset)
    version = bench.trust.present.version
    draft.intents = [bench.world.intent(order, policy_version=version) for order in draft.orders]
    request = bench.world.request(draft)
    wallet = bench.wallets()[request.keyset]
    return Target(bench, wallet, request, plain(bench, asset), any_value if asset == "ETH" else any_bit)


def safe(directory: Path) -> Target:
    bench = OwnerBench(directory)
    request = bench.request(UNITS)

    def check(raw: bytes, signature: bytes) -> None:
        message = SafeMessage.decode(raw)
        tx = message.tx
        assert checksummed(owner_of(message.signing_hash, signature)) == bench.owners[0].record.address
        assert (message.chain_id, checksummed(message.safe)) == (EVM_CHAIN_ID, SAFE)
        assert (tx.to, tx.value_wei, tx.data) == (raw_address(EVM_DESTINATION), UNITS, b"")
        assert (tx.operation, tx.refunds) == (0, False)
        assert tx.nonce < NONCE_REACH

    return Target(bench, bench.wallets()[request.keyset], request, check, any_bit)


def top_up(directory: Path) -> Target:
    bench = HotBench(directory)
    world = bench.world
    payer = world.gas.record.address
    request = world.request(world.hot_refill(payer, UNITS, max_fee_wei=GWEI, priority_wei=0))

    def check(raw: bytes, signature: bytes) -> None:
        signed = UnsignedTx.decode(raw).signed(signature)
        tx = signed.tx
        assert checksummed(signed.sender()) == world.record.address
        assert (tx.to, tx.value_wei, tx.data) == (raw_address(payer), UNITS, b"")
        assert (tx.chain_id, tx.nonce < NONCE_REACH) == (EVM_CHAIN_ID, True)
        assert tx.gas_limit <= GAS_CAPS.transfer
        assert tx.max_fee_wei <= FEE_CAP_WEI

    return Target(bench, bench.wallets()[request.keyset], request, check, any_bit)


def execution(directory: Path) -> Target:
    """What a gas payer sends: whatever is changed, it is still what the owners have signed."""
    bench = ExecutorBench(directory)
    message = bench.message()
    request = bench.request(message, max_fee_wei=GWEI, priority_wei=0)

    def check(raw: bytes, signature: bytes) -> None:
        signed = UnsignedTx.decode(raw).signed(signature)
        tx = signed.tx
        assert checksummed(signed.sender()) == bench.world.gas.record.address
        assert (checksummed(tx.to), tx.value_wei) == (SAFE, 0)
        assert decode_execution(tx.data, message.tx.nonce).tx == message.tx
        assert (tx.chain_id, tx.nonce < NONCE_REACH) == (EVM_CHAIN_ID, True)
        assert tx.gas_limit <= GAS_CAPS.execution
        assert tx.max_fee_wei <= FEE_CAP_WEI

    return Target(bench, bench.wallets()[request.keyset], request, check, any_bit)


def safe_refill(directory: Path) -> Target:
    bench = WarmBench(directory)
    world = bench.world
    request = world.approved(world.safe_refill(world.record.address, UNITS))

    def check(raw: bytes, signature: bytes) -> None:
        message = SafeMessage.decode(raw)
        tx = message.tx
        assert checksummed(owner_of(message.signing_hash, signature)) == bench.owners[0].record.address
        assert (message.chain_id, checksummed(message.safe)) == (EVM_CHAIN_ID, SAFE)
        assert (tx.to, tx.value_wei, tx.data) == (raw_address(world.record.address), UNITS, b"")
        assert (tx.operation, tx.refunds, tx.nonce < NONCE_REACH) == (0, False, True)

    return Target(bench, bench.wallets()[request.keyset], request, check, any_bit)


TARGETS: dict[str, Callable[[Path], Target]] = {
    "native": lambda directory: hot(directory, "ETH"),
    "token": lambda directory: hot(directory, "USDX"),
    "safe": safe,
    "top-up": top_up,
    "execution": execution,
    "safe-refill": safe_refill,
}


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Target]:
    made = TARGETS[request.param](tmp_path)
    yield made
    made.bench.journal.close()


def test_the_request_itself_is_signed_and_harmless(target: Target) -> None:
    target.judge(target.frame, "untouched")
    assert (len(target.signed), target.refused.total()) == (1, 0)


def test_fault_44_no_changed_byte_of_a_frame_pays_anybody_else(target: Target) -> None:
    variants = 0
    for where, spoiled in target.variants(target.frame):
        target.judge(spoiled, where)
        variants += 1
    print(len(target.signed), target.refused)
    assert len(target.signed) + target.refused.total() == variants >= 8 * len(target.frame)
    _after_the_honest_one(target)


def test_fault_44_no_changed_byte_of_a_transaction_pays_anybody_else(target: Target) -> None:
    variants = 0
    for where, spoiled in target.variants(target.transaction):
        request = msgspec.structs.replace(target.request, transaction=base64.b64encode(spoiled).decode())
        target.judge(frame(request), where)
        variants += 1
    print(len(target.signed), target.refused)
    assert len(target.signed) + target.refused.total() == variants >= 8 * len(target.transaction)
    # Fees and nonces may be others; so some must have passed, or nothing was tested. Of a vault's no byte may be: what
    # would have passed for its nonce is not what the verifier's verdict is about.
    assert target.signed or target.refused["verdict-elsewhere"]
    _after_the_honest_one(target)


def _after_the_honest_one(target: Target) -> None:
    """A signer that has signed the valid request signs of these only what conflicts with it."""
    service = target.bench.service
    service.sign(target.request)
    used = _nonce(target.transaction)
    for where, request in target.signed[:: 1 + len(target.signed) // MOST_COMMITS]:
        try:
            (item,) = service.sign(request).signatures
        except Refused as error:
            refused = {reason.code for reason in error.reasons}
        else:
            refused = set()
            target.checked(request, item, where)
            assert _nonce(base64.b64decode(request.transaction)) == used, where
        # Nobody has signed the id of an intent of the house's own: under another one it is refused the same bytes.
        assert refused <= {"conflicting-version", "window-cap", "transaction-reused"}, where


def _nonce(raw: bytes) -> int:
    return UnsignedTx.decode(raw).nonce if raw[0] == 2 else SafeMessage.decode(raw).tx.nonce
