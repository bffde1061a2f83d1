"""The guard's EVM part: what a transaction's own bytes do, and every objection to them. Pure.

Only five calls exist: the native asset to one address, a listed token to one address, a batch through the key-set's
payout contract, a flush of own forwarders through its factory, and nothing at all to oneself. Whatever a
transaction does beside is no call of these, as the decoders know one form of each only.
"""

from __future__ import annotations

import base64
import binascii
from collections import Counter
from dataclasses import dataclass
from typing import Final, NamedTuple

from chains.errors import InvalidValue
from chains.eth.address import checksummed, parse_address, raw_address
from chains.eth.erc20 import decode_transfer
from chains.eth.forwarder import decode_flush, index_of
from chains.eth.payout import decode_payout
from chains.eth.tx import UnsignedTx
from policies.bundle import Bundle, EvmKeyset, EvmNetwork, GasCaps, NetworkEntry, WalletEntry
from policies.intent import Kind
from signers.examined import Findings, Grounds, Reach, Unreadable, Unsigned
from signers.keyset import EvmKeysetRecord
from signers.ports import Reason, SignRequest

MAX_NONCE_AHEAD: Final = 256
"""How far a nonce may be beyond the highest this signer has signed: more than are ever in flight."""
_NOBODY: Final = bytes(20)


@dataclass(frozen=True, slots=True)
class EvmUnsigned(Unsigned):
    """A transaction of one key's address."""

    tx: UnsignedTx


class _Transfer(NamedTuple):
    """Value that a transaction moves to somebody."""

    contract: bytes | None
    """Of the token, 20 bytes; None for the native asset."""
    to: bytes
    units: int


@dataclass(frozen=True, slots=True)
class _Call:
    """What a transaction does, as far as it is one of the five."""

    gas_cap: int
    transfers: tuple[_Transfer, ...] = ()
    deposits: frozenset[int] = frozenset()


class EvmRules:
    """One key's `FamilyRules`.

    Args:
        record: the signer's own record of the key-set.
    """

    kinds: Final = frozenset({Kind.PAYMENT, Kind.SWEEP, Kind.NONCE_FILL})

    def __init__(self, record: EvmKeysetRecord) -> None:
        self._record, self._address = record, raw_address(record.address)

    def check_keyset(self, keyset: WalletEntry, network: NetworkEntry) -> None:
        """Check that the bundle means this key, on the network it is for. Raises Unreadable."""
        record = self._record
        ours = (record.id, record.address, record.attestation_key)
        if not isinstance(keyset, EvmKeyset) or ours != (keyset.id, keyset.address, keyset.attestation_key):
            raise Unreadable(
                "wrong-keyset", f"the bundle's key-set {keyset.id} is not the one this signer holds"
            )
        if not isinstance(network, EvmNetwork) or network.chain_id != record.chain_id:
            raise Unreadable(
                "wrong-network", f"{network.chain} is not the network with chain id {record.chain_id}"
            )

    def read(self, request: SignRequest) -> EvmUnsigned:
        """The request's transaction. Raises Unreadable unless it is EIP-1559 in its only form."""
        try:
            tx = UnsignedTx.decode(base64.b64decode(request.transaction, validate=True))
            return EvmUnsigned(
                content=tx.content,
                resources=frozenset({tx.resource(self._address)}),
                fee_units=tx.max_fee_wei,
                tx=tx,
            )
        except (InvalidValue, binascii.Error, ValueError) as error:
            raise Unreadable("malformed-transaction", str(error)) from None

    def find(self, request: SignRequest, unsigned: EvmUnsigned, grounds: Grounds) -> Findings:
        """Objections to network, price, gas, and to what is called."""
        tx, network, keyset = unsigned.tx, grounds.network, grounds.wallet
        assert isinstance(network, EvmNetwork)  # check_keyset has said so
        assert isinstance(keyset, EvmKeyset)
        reasons: list[Reason] = []
        if tx.chain_id != network.chain_id:
            reasons.append(
                Reason("wrong-chain-id", f"chain id {tx.chain_id}: {network.chain} has {network.chain_id}")
            )
        if tx.max_fee_per_gas_wei > network.feerate_cap:
            reasons.append(
                Reason("feerate-cap", f"{tx.max_fee_per_gas_wei} wei per gas: at most {network.feerate_cap}")
            )
        tokens = _tokens(grounds.bundle, request.chain)
        wanted, objections = _wanted(request, keyset, grounds.bundle, tokens)
        reasons += objections
        deposits: frozenset[int] = frozenset()
        try:
            call = self._call(request, tx, keyset, network.gas_caps, tokens)
        except Unreadable as unknown:
            reasons.append(unknown.reason)
        else:
            deposits = call.deposits
            if tx.gas_limit > call.gas_cap:
                reasons.append(
                    Reason("gas-cap", f"gas limit {tx.gas_limit}: at most {call.gas_cap} for this call")
                )
            reasons += _transfer_reasons(Counter(call.transfers), wanted)
        return Findings(Reach(tx.nonce, MAX_NONCE_AHEAD, "nonce"), deposits, reasons)

    def _call(
        self,
        request: SignRequest,
        tx: UnsignedTx,
        keyset: EvmKeyset,
        gas: GasCaps,
        tokens: frozenset[bytes],
    ) -> _Call:
        """What the transaction does. Raises Unreadable: nothing that intents of this kind may do."""
        kinds = {intent.kind for intent in request.intents}
        try:
            if kinds == {Kind.PAYMENT}:
                return _payment(tx, keyset, gas, tokens)
            if any(intent.destination != keyset.address for intent in request.intents):
                raise Unreadable("bad-destination", f"the house's own go to {keyset.address}")
            if kinds == {Kind.SWEEP}:
                return _sweep(tx, keyset, gas, tokens)
            if kinds == {Kind.NONCE_FILL} and (tx.to, tx.value_wei, tx.data) == (self._address, 0, b""):
                return _Call(gas.transfer)
        except InvalidValue as error:
            raise Unreadable("unknown-call", str(error)) from None
        raise Unreadable("unknown-call", f"not what {', '.join(sorted(kinds))} does")


def _tokens(bundle: Bundle, chain: str) -> frozenset[bytes]:
    """Contracts of the tokens that are listed on a chain."""
    return frozenset(
        _listed(entry.contract)
        for entry in bundle.assets
        if entry.chain == chain and entry.contract is not None
    )


def _listed(address: str) -> bytes:
    """The 20 bytes of an address in the bundle, whose checksum was looked at when the bundle was read."""
    return bytes.fromhex(address[2:])


def _payment(tx: UnsignedTx, keyset: EvmKeyset, gas: GasCaps, tokens: frozenset[bytes]) -> _Call:
    """A batch payout, a token transfer or a plain transfer. Raises Unreadable, InvalidValue."""
    if keyset.payout is not None and tx.to == _listed(keyset.payout):
        batch = decode_payout(tx.data)
        if sum(payout.units for payout in batch) != tx.value_wei:
            raise Unreadable(
                "unknown-call", f"{tx.value_wei} wei go to the payout contract, another sum out of it"
            )
        return _Call(gas.payout, tuple(_Transfer(None, payout.to, payout.units) for payout in batch))
    if tx.to in tokens:
        if tx.value_wei != 0:
            raise Unreadable("unknown-call", f"{tx.value_wei} wei go to a token contract")
        transfer = decode_transfer(tx.data)
        return _Call(gas.token, (_Transfer(tx.to, transfer.to, transfer.units),))
    if tx.data:
        raise Unreadable(
            "unknown-call", f"{len(tx.data)} bytes of calldata to {checksummed(tx.to)}, which is not listed"
        )
    return _Call(gas.transfer, (_Transfer(None, tx.to, tx.value_wei),))


def _sweep(tx: UnsignedTx, keyset: EvmKeyset, gas: GasCaps, tokens: frozenset[bytes]) -> _Call:
    """A flush of forwarders by the key-set's own factory. Raises Unreadable, InvalidValue."""
    if tx.to != _listed(keyset.factory):
        raise Unreadable("unknown-call", f"{checksummed(tx.to)} is not the factory {keyset.factory}")
    if tx.value_wei != 0:
        raise Unreadable("unknown-call", f"{tx.value_wei} wei go to the factory")
    flush = decode_flush(tx.data)
    if len(set(flush.salts)) != len(flush.salts) or len(set(flush.tokens)) != len(flush.tokens):
        raise Unreadable("unknown-call", "a forwarder or token is listed twice")
    unlisted = set(flush.tokens) - tokens
    if unlisted:
        raise Unreadable("unlisted-token", f"{checksummed(min(unlisted))} is no listed token")
    try:
        deposits = frozenset(index_of(salt) for salt in flush.salts)
    except InvalidValue as error:
        raise Unreadable("foreign-forwarder", str(error)) from None
    return _Call(gas.sweep, deposits=deposits)


def _wanted(
    request: SignRequest, keyset: EvmKeyset, bundle: Bundle, tokens: frozenset[bytes]
) -> tuple[Counter[_Transfer], list[Reason]]:
    """What the payments ask for, and objections to where they go."""
    wanted: Counter[_Transfer] = Counter()
    reasons: list[Reason] = []
    ours = (keyset.address, keyset.factory, keyset.payout)
    for intent in request.intents:
        if intent.kind is not Kind.PAYMENT:
            continue
        try:
            to = parse_address(intent.destination, request.chain)
        except InvalidValue as error:
            reasons.append(Reason("bad-destination", str(error)))
            continue
        if to.script == _NOBODY or to.script in tokens or to.text in ours:
            reasons.append(
                Reason(
                    "bad-destination", f"{to.text} is the zero address, a listed token's contract or our own"
                )
            )
        contract = bundle.asset(intent.asset).contract
        wanted[_Transfer(_listed(contract) if contract else None, to.script, intent.units)] += 1
    return wanted, reasons


def _transfer_reasons(paid: Counter[_Transfer], wanted: Counter[_Transfer]) -> list[Reason]:
    """Every transfer pays exactly one intent, and every payment is paid exactly once."""
    return [
        *(
            Reason(
                "unknown-output",
                f"{count} of {of.units} units to {checksummed(of.to)} that no intent asks for",
            )
            for of, count in (paid - wanted).items()
        ),
        *(
            Reason("unpaid-intent", f"{count} intents of {of.units} units to {checksummed(of.to)}")
            for of, count in (wanted - paid).items()
        ),
    ]
