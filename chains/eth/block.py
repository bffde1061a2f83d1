"""What one block means to us: token logs, traces or balances, and uses of our nonces. Pure.

Fetching what is read here, and making sure that all of it belongs to one block, is the work of `node`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from chains.errors import InvalidValue
from chains.eth.abi import word_address
from chains.eth.address import checksummed
from chains.eth.erc20 import TRANSFER_TOPIC, decode_transfer
from chains.eth.forwarder import ETHER_FLUSHED_TOPIC
from chains.eth.safe import decode_execution, parse_safe_resource
from chains.eth.tx import TYPE, SignedTx, UnsignedTx
from chains.eth.watch import WatchedSenders
from chains.eth.wire import (
    Block,
    BlockTx,
    Log,
    MinedTx,
    ReceiptLog,
    Trace,
    TxReceipt,
    hash_text,
    octets,
    quantity,
)
from chains.ports import Consumption, Receipt
from chains.types import TxId


@dataclass(frozen=True, slots=True)
class Transfer:
    """A `Transfer` event of a listed token that concerns an address of ours. It is a claim, no arrival."""

    contract: str
    """EIP-55."""
    sender: bytes
    to: bytes
    units: int
    txid: str
    """As JSON-RPC has it, with 0x."""
    index: str
    """Of the log in the block."""


@dataclass(frozen=True, slots=True)
class Silent:
    """A token transfer of ours that did not fail, and that no event confirms: the token may have said no."""

    resource: str
    """What it has used up."""
    sender: bytes
    contract: str
    """EIP-55."""
    units: int


_SHORTEST_TOPICS: Final = 3


def transfers(
    logs: Iterable[Log], scripts: Container[bytes], contracts: Mapping[bytes, str]
) -> list[Transfer]:
    """The events that concern us, in the block's order.

    What is no ERC-20 transfer (another number of topics or length, as ERC-721's, or no addresses in them) is left out:
    a contract may emit what it likes. So are events of contracts that are not listed, whatever the node was asked for.

    Args:
        logs: of one block.
        scripts: our addresses, 20 bytes each.
        contracts: EIP-55 text of each listed token's address.

    Raises:
        InvalidValue: the node's answer is malformed, or has an event twice.
    """
    found: dict[str, Transfer] = {}
    for log in logs:
        if log.removed or len(log.topics) != _SHORTEST_TOPICS or log.topics[0] != TRANSFER_TOPIC:
            continue
        contract, data = contracts.get(octets(log.address)), octets(log.data)
        if contract is None or len(data) != 32:
            continue
        try:
            sender, to = word_address(octets(log.topics[1])), word_address(octets(log.topics[2]))
        except InvalidValue:
            continue
        if to not in scripts and sender not in scripts:
            continue
        if log.index in found:
            raise InvalidValue(f"log {log.index} is there twice")
        units = int.from_bytes(data, "big")
        found[log.index] = Transfer(contract, sender, to, units, log.txid, log.index)
    return sorted(found.values(), key=lambda transfer: quantity(transfer.index))


def arriving(found: Iterable[Transfer], scripts: Container[bytes]) -> list[Transfer]:
    """Those that bring something from outside."""
    return [t for t in found if t.units and t.to in scripts and t.sender not in scripts]


def token_receipts(
    found: Sequence[Transfer],
    scripts: Container[bytes],
    balances: Mapping[tuple[bytes, str], tuple[int, int]],
    places: Mapping[str, int],
) -> list[Receipt]:
    """Receipts of tokens: what events claim, cut to what balances show.

    A token may keep a fee, and a contract may emit what it likes. What an address got in the block is the difference
    of its balance plus what left it, less moves among our own addresses. The events share that in proportion, so that
    what each brought does not depend on which others share its block.

    Args:
        found: all events that concern us, in the block's order.
        scripts: our addresses.
        balances: per address and contract of `arriving` events: units before and after the block.
        places: per index in the block: index within the transaction.
    """
    left: dict[tuple[bytes, str], int] = {}
    for key, (before, after) in balances.items():
        left[key] = after - before
    for each in found:
        if (each.sender, each.contract) in left:
            left[each.sender, each.contract] += each.units
        if each.sender in scripts and (each.to, each.contract) in left:
            left[each.to, each.contract] -= each.units
    coming = arriving(found, scripts)
    claimed: Counter[tuple[bytes, str]] = Counter()
    for each in coming:
        claimed[each.to, each.contract] += each.units
    told: Counter[tuple[bytes, str]] = Counter()
    receipts = []
    for each in coming:
        key = each.to, each.contract
        came = max(0, min(left[key], claimed[key]))
        before_it = told[key] * came // claimed[key]
        told[key] += each.units
        units = told[key] * came // claimed[key] - before_it
        if units:
            resource = f"{hash_text(each.txid)}:log:{places[each.index]}"
            txid, source = TxId(hash_text(each.txid)), checksummed(each.sender)
            receipts.append(Receipt(resource, txid, each.to, units, each.contract, source=source))
    return receipts


def check_traces(traces: Sequence[Trace], block: Block) -> None:
    """Make sure that these are the traces of this block, and of all its transactions.

    Raises:
        InvalidValue: a transaction has none, or a frame is from another block.
    """
    traced = {trace.txid for trace in traces if not trace.path and trace.kind != "reward"}
    missing = [txid for txid in block.txids if txid not in traced]
    if missing:
        raise InvalidValue(f"no traces of {len(missing)} transactions, such as {missing[0]}")
    if any(trace.block != block.hash for trace in traces):
        raise InvalidValue("traces of another block")


def native_receipts(traces: Iterable[Trace], scripts: Container[bytes]) -> list[Receipt]:
    """Receipts of the native asset by the frames of one block's traces, in their order.

    A frame counts if it moved a value from outside to one of `scripts`, and neither it nor one above it was undone.
    """
    # By length of path, so that looking one up does not take longer the more frames somebody has undone in its block.
    undone: dict[str, dict[int, set[tuple[int, ...]]]] = {}
    moved: list[tuple[Trace, str | None, bytes, str]] = []
    for trace in traces:
        if trace.txid is None:
            continue
        if trace.error is not None:
            undone.setdefault(trace.txid, {}).setdefault(len(trace.path), set()).add(tuple(trace.path))
            continue
        sender, to, value = _movement(trace)
        if to is None or value is None or value == "0x0":
            continue
        target = octets(to)
        if target in scripts and (sender is None or octets(sender) not in scripts):
            moved.append((trace, sender, target, value))
    receipts = []
    for trace, sender, target, value in moved:
        txid, units = hash_text(trace.txid or ""), quantity(value)
        paths = undone.get(trace.txid or "", {})
        if units and not any(tuple(trace.path[:length]) in of for length, of in paths.items()):
            resource = f"{txid}:trace:{'.'.join(map(str, trace.path))}"
            source = None if sender is None else checksummed(octets(sender))
            receipts.append(Receipt(resource, TxId(txid), target, units, source=source))
    return receipts


def _movement(trace: Trace) -> tuple[str | None, str | None, str | None]:
    """From whom to whom a frame moved what. Delegated calls show the value of the call above them and move nothing."""
    action = trace.action
    if trace.kind == "call":
        return (action.sender, action.to, action.value) if action.call_type == "call" else (None, None, None)
    if trace.kind == "create":
        return action.sender, trace.result.address if trace.result else None, action.value
    if trace.kind == "suicide":
        return action.destroyed, action.heir, action.balance
    return None, None, None


def balance_receipts(
    block: str, balances: Mapping[bytes, tuple[int, int]], left: Mapping[bytes, int], own: Mapping[bytes, int]
) -> list[Receipt]:
    """Receipts of the native asset by balances, one an address, under the block's hash.

    Args:
        block: its hash, 64 hex digits.
        balances: per forwarder: wei before and after the block.
        left: per forwarder: wei that flushes sent to the treasury within it.
        own: per forwarder: wei that our own keys sent to it within it.
    """
    receipts = []
    for address, (before, after) in balances.items():
        units = after - before + left.get(address, 0) - own.get(address, 0)
        if units > 0:
            receipts.append(Receipt(f"{block}:{checksummed(address)}", TxId(block), address, units))
    return receipts


def flushed(logs: Iterable[Log], scripts: Container[bytes]) -> dict[bytes, int]:
    """Wei that left each forwarder of ours for the treasury. Only its own code can emit this event from its address.

    Raises:
        InvalidValue: an event that is malformed.
    """
    found: dict[bytes, int] = {}
    for log in logs:
        address, data = octets(log.address), octets(log.data)
        if not log.removed and address in scripts and log.topics == [ETHER_FLUSHED_TOPIC]:
            found[address] = found.get(address, 0) + int.from_bytes(data, "big")
    return found


def paid_by_us(uses: Iterable[tuple[MinedTx, TxReceipt]]) -> dict[bytes, int]:
    """Wei that transactions of watched senders paid each address directly."""
    found: dict[bytes, int] = {}
    for tx, receipt in uses:
        if tx.to is not None and receipt.succeeded:
            found[octets(tx.to)] = found.get(octets(tx.to), 0) + quantity(tx.value)
    return found


def silent(tx: MinedTx, receipt: TxReceipt, contracts: Mapping[bytes, str]) -> Silent | None:
    """What a transaction of ours claims to have moved without an event of its token; None if it claims nothing.

    `transfer` may return false instead of failing, and nobody is told what a mined call returned.
    """
    contract = None if tx.to is None else contracts.get(octets(tx.to))
    if contract is None or not receipt.succeeded:
        return None
    try:
        wanted = decode_transfer(octets(tx.data))
    except InvalidValue:
        return None
    sender = octets(tx.sender)
    if not wanted.units or any(
        _tells_of(log, octets(tx.to or ""), sender, wanted.to) for log in receipt.logs
    ):
        return None
    return Silent(resource_of(tx), sender, contract, wanted.units)


def silent_execution(
    use: Consumption, tx: MinedTx, claims: Iterable[Transfer], contracts: Mapping[bytes, str]
) -> Silent | None:
    """The same of a token transfer by a Safe, which looks at whether a call failed and not at what it returned.

    Args:
        use: of the Safe's nonce.
        tx: that carried it out. One that calls another contract, which then calls the Safe, is not looked into.
        claims: all events of the block that concern us.
        contracts: EIP-55 text of each listed token's address.
    """
    safe, nonce = parse_safe_resource(use.resource)
    if not use.succeeded or tx.to is None or octets(tx.to) != safe:
        return None
    try:
        inner = decode_execution(octets(tx.data), nonce).tx
        contract, wanted = contracts.get(inner.to), decode_transfer(inner.data)
    except InvalidValue:
        return None
    told = any(
        (each.txid, each.contract, each.sender, each.to) == (tx.hash, contract, safe, wanted.to)
        for each in claims
    )
    return (
        None
        if contract is None or not wanted.units or told
        else Silent(use.resource, safe, contract, wanted.units)
    )


def _tells_of(log: ReceiptLog, contract: bytes, sender: bytes, to: bytes) -> bool:
    if octets(log.address) != contract or len(log.topics) != _SHORTEST_TOPICS:
        return False
    if log.topics[0] != TRANSFER_TOPIC:
        return False
    return octets(log.topics[1])[-20:] == sender and octets(log.topics[2])[-20:] == to


def unpaid(
    found: Sequence[Silent], claims: Iterable[Transfer], balances: Mapping[tuple[bytes, str], tuple[int, int]]
) -> frozenset[str]:
    """What those silent transfers have used up that the sender's balance does not show either: nothing has left.

    Args:
        found: of one block.
        claims: all events that concern us, in that block.
        balances: per sender and contract of `found`: units before and after the block.
    """
    left = {key: before - after for key, (before, after) in balances.items()}
    for each in claims:
        if (each.to, each.contract) in left:
            left[each.to, each.contract] += each.units
        if (each.sender, each.contract) in left:
            left[each.sender, each.contract] -= each.units
    none = set()
    for transfer in found:
        key = transfer.sender, transfer.contract
        if left[key] < transfer.units:
            none.add(transfer.resource)
        else:
            left[key] -= transfer.units
    return frozenset(none)


def used_nonces(block: Block, resources: Container[str]) -> list[str]:
    """Ids of the transactions that use up one of `resources`, in order, from a block with its transactions."""
    found = []
    for tx in block.transactions:
        if isinstance(tx, BlockTx) and resource_of(tx) in resources:
            found.append(tx.hash)
    return found


def sent_by(senders: WatchedSenders, traces: Iterable[Trace]) -> list[str]:
    """Ids of the transactions of some senders, by the first frame of each transaction: no need to read them all."""
    return [
        trace.txid
        for trace in traces
        if not trace.path and trace.txid and (trace.action.sender or "").lower() in senders.texts
    ]


def resource_of(tx: BlockTx | MinedTx) -> str:
    """The one resource that a mined transaction uses up."""
    return f"{tx.sender.lower()}:{quantity(tx.nonce)}"


def consumption(tx: MinedTx, receipt: TxReceipt) -> Consumption:
    """The use of a nonce by a mined transaction."""
    txid = TxId(hash_text(tx.hash))
    return Consumption(resource_of(tx), txid, content_of(tx), receipt.succeeded, receipt.fee_wei)


def content_of(tx: MinedTx) -> str:
    """Content of a mined transaction: its signing hash, computed anew from its fields.

    Only if they hash to its id, and its signature is its sender's. What is not ours for certain (other types, fields
    that do not fit) gets its own id as content, which is the content of none of ours.
    """
    signed = signed_tx(tx)
    try:
        ours = signed is not None and signed.sender() == octets(tx.sender)
    except InvalidValue:
        ours = False
    if signed is None or not ours or signed.txid.hex != hash_text(tx.hash):
        return hash_text(tx.hash)
    return signed.tx.content


def signed_tx(tx: MinedTx) -> SignedTx | None:
    """The transaction as we would write it, or None if it is of another type or cannot be."""
    if quantity(tx.kind) != TYPE or None in (tx.to, tx.chain_id, tx.max_fee, tx.max_priority_fee):
        return None
    try:
        unsigned = UnsignedTx(
            quantity(tx.chain_id or ""),
            quantity(tx.nonce),
            quantity(tx.max_priority_fee or ""),
            quantity(tx.max_fee or ""),
            quantity(tx.gas),
            octets(tx.to or ""),
            quantity(tx.value),
            octets(tx.data),
        )
        return SignedTx(unsigned, quantity(tx.parity or tx.v), quantity(tx.r), quantity(tx.s))
    except InvalidValue:
        return None
