"""The parts of JSON-RPC's answers that matter to us, as they come. Pure.

Source: the execution-apis of Ethereum; `trace_block` as Erigon, Nethermind, Reth and Besu have it from OpenEthereum.
"""

from __future__ import annotations

import msgspec

from chains.errors import InvalidValue


def quantity(text: str) -> int:
    """A number of JSON-RPC. Raises InvalidValue: not 0x and hex digits."""
    if not text.startswith("0x"):
        raise InvalidValue(f"quantity {text[:80]!r}: expected 0x and hex digits")
    try:
        return int(text, 16)
    except ValueError:
        raise InvalidValue(f"quantity {text[:80]!r}: expected 0x and hex digits") from None


def octets(text: str) -> bytes:
    """Bytes of JSON-RPC. Raises InvalidValue: not 0x and pairs of hex digits."""
    try:
        return bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        raise InvalidValue(f"data {text[:80]!r}: expected 0x and pairs of hex digits") from None


def hash_text(text: str) -> str:
    """A hash of JSON-RPC as we write it: without 0x."""
    return text.removeprefix("0x")


class _Part(msgspec.Struct, frozen=True, gc=False):
    """Part of an answer; what it has beside the fields named here is skipped."""


class BlockTx(_Part, frozen=True):
    """A transaction in a block, as far as every one is looked at."""

    hash: str
    sender: str = msgspec.field(name="from")
    nonce: str


class Block(msgspec.Struct, frozen=True):
    """A block with its transactions, or with their ids only (`eth_getBlockByHash`)."""

    hash: str
    parent: str = msgspec.field(name="parentHash")
    number: str
    transactions: list[BlockTx | str]

    @property
    def txids(self) -> list[str]:
        """Ids of its transactions, in order."""
        return [tx if isinstance(tx, str) else tx.hash for tx in self.transactions]


class Log(_Part, frozen=True):
    """An event (`eth_getLogs`)."""

    address: str
    topics: list[str]
    data: str
    block: str = msgspec.field(name="blockHash")
    txid: str = msgspec.field(name="transactionHash")
    index: str = msgspec.field(name="logIndex")
    """Within its block."""
    removed: bool = False


class TraceAction(_Part, frozen=True):
    """What a frame did: a call, a creation or a selfdestruct."""

    sender: str | None = msgspec.field(name="from", default=None)
    to: str | None = None
    value: str | None = None
    call_type: str | None = msgspec.field(name="callType", default=None)
    destroyed: str | None = msgspec.field(name="address", default=None)
    heir: str | None = msgspec.field(name="refundAddress", default=None)
    balance: str | None = None


class TraceResult(_Part, frozen=True):
    """What came of a frame."""

    address: str | None = None
    """Of the contract that was created."""


class Trace(_Part, frozen=True):
    """One frame of a call tree (`trace_block`)."""

    kind: str = msgspec.field(name="type")
    """`call`, `create`, `suicide` or `reward`."""
    action: TraceAction
    path: list[int] = msgspec.field(name="traceAddress")
    """Which call of which call; empty for the transaction itself."""
    block: str = msgspec.field(name="blockHash")
    txid: str | None = msgspec.field(name="transactionHash", default=None)
    error: str | None = None
    """Set where the frame was undone, and with it all below it; those do not say so themselves."""
    result: TraceResult | None = None


class MinedTx(_Part, frozen=True):
    """All of a transaction that its hash covers (`eth_getTransactionByHash`)."""

    hash: str
    sender: str = msgspec.field(name="from")
    nonce: str
    gas: str
    value: str
    data: str = msgspec.field(name="input")
    to: str | None = None
    kind: str = msgspec.field(name="type", default="0x0")
    block: str | None = msgspec.field(name="blockHash", default=None)
    chain_id: str | None = msgspec.field(name="chainId", default=None)
    max_fee: str | None = msgspec.field(name="maxFeePerGas", default=None)
    max_priority_fee: str | None = msgspec.field(name="maxPriorityFeePerGas", default=None)
    parity: str | None = msgspec.field(name="yParity", default=None)
    v: str = "0x0"
    r: str = "0x0"
    s: str = "0x0"


class ReceiptLog(_Part, frozen=True):
    """An event in a receipt; its place in the list is its index within the transaction."""

    index: str = msgspec.field(name="logIndex")
    address: str = "0x"
    topics: list[str] = msgspec.field(default_factory=list)


class TxReceipt(msgspec.Struct, frozen=True):
    """What became of a mined transaction (`eth_getTransactionReceipt`)."""

    txid: str = msgspec.field(name="transactionHash")
    block: str = msgspec.field(name="blockHash")
    height: str = msgspec.field(name="blockNumber")
    status: str
    gas_used: str = msgspec.field(name="gasUsed")
    gas_price: str = msgspec.field(name="effectiveGasPrice")
    logs: list[ReceiptLog]
    blob_gas_used: str = msgspec.field(name="blobGasUsed", default="0x0")
    blob_gas_price: str = msgspec.field(name="blobGasPrice", default="0x0")
    data_fee: str = msgspec.field(name="l1Fee", default="0x0")
    """What a rollup charges for its data on the chain below."""

    @property
    def succeeded(self) -> bool:
        """Whether it did what it was sent for; if not, only its fee was paid."""
        return quantity(self.status) == 1

    @property
    def fee_wei(self) -> int:
        """What it cost its sender beside its value."""
        execution = quantity(self.gas_used) * quantity(self.gas_price)
        blobs = quantity(self.blob_gas_used) * quantity(self.blob_gas_price)
        return execution + blobs + quantity(self.data_fee)


class BlockHeader(msgspec.Struct, frozen=True):
    """A block's place in the chain (`eth_getBlockByNumber` without transactions)."""

    hash: str
    parent: str = msgspec.field(name="parentHash")
    number: str
    time: str = msgspec.field(name="timestamp")


class FeeHistory(msgspec.Struct, frozen=True):
    """Base fees (`eth_feeHistory`); the last one is that of the next block."""

    base_fees: list[str] = msgspec.field(name="baseFeePerGas")
