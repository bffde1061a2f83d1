"""The guard's EVM part: what a transaction's own bytes do, and every objection to them. Pure.

Only a few calls exist: the native asset to one address, a listed token to one address, a batch through the key-set's
payout contract, a flush of own forwarders through its factory, and nothing at all to oneself. Whatever a transaction
does beside is no call of these, as the decoders know one form of each only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from chains.errors import InvalidValue
from chains.eth.address import checksummed, raw_address
from chains.eth.forwarder import decode_flush, index_of
from chains.eth.payout import decode_payout
from chains.eth.tx import UnsignedTx
from policies.bundle import EvmKeyset, EvmNetwork, GasCaps, NetworkEntry, WalletEntry
from policies.intent import Kind
from signers.guard.evm_calls import (
    Transfer,
    listed,
    money_transfer,
    refusal,
    token_contracts,
    transfer_reasons,
    wanted_refills,
    wanted_transfers,
)
from signers.guard.evm_tx import (
    EvmUnsigned,
    check_evm_network,
    gas_reasons,
    nonce_reach,
    price_reasons,
    read_transaction,
)
from signers.guard.examined import Findings, Grounds, Unreadable
from signers.guard.gas_payer import fill_reasons
from signers.guard.refills import refill_of
from signers.guard.safe import rotation_reasons
from signers.keys.keyset import EvmKeysetRecord
from signers.ports import Reason, SignRequest


@dataclass(frozen=True, slots=True)
class _Call:
    """What a transaction does, as far as it is one of the few."""

    gas_cap: int
    transfers: tuple[Transfer, ...] = ()
    """To others: each must be a payment that an intent asks for."""
    deposits: frozenset[int] = frozenset()
    depositor: str | None = None
    """Key-set whose forwarders those are."""
    reasons: tuple[Reason, ...] = ()


class EvmRules:
    """One key's `FamilyRules`.

    Args:
        record: the signer's own record of the key-set.
    """

    kinds: Final = frozenset({Kind.PAYMENT, Kind.SWEEP, Kind.NONCE_FILL, Kind.ROTATION, Kind.REFILL})

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
        check_evm_network(network, record.chain_id)

    def read(self, request: SignRequest) -> EvmUnsigned:
        """The request's transaction. Raises Unreadable unless it is EIP-1559 in its only form."""
        if request.safe_nonce is not None:
            raise Unreadable("malformed-request", "only a gas payer's execution says a Safe's nonce")
        return read_transaction(request, self._address)

    def find(self, request: SignRequest, unsigned: EvmUnsigned, grounds: Grounds) -> Findings:
        """Objections to network, price, gas, and to what is called."""
        tx, network, keyset = unsigned.tx, grounds.network, grounds.wallet
        assert isinstance(network, EvmNetwork)  # check_keyset has said so
        assert isinstance(keyset, EvmKeyset)
        reasons = price_reasons(tx, network)
        tokens = token_contracts(grounds.bundle, request.chain)
        ours = (keyset.address, keyset.factory, keyset.payout)
        wanted, objections = wanted_transfers(request, ours, grounds.bundle, tokens)
        reasons += objections
        deposits: frozenset[int] = frozenset()
        depositor: str | None = None
        target, objections = refill_of(request, grounds)
        reasons += objections
        wanted += wanted_refills(request, grounds.bundle)
        try:
            call = self._call(request, unsigned, grounds, tokens)
        except Unreadable as unknown:
            reasons.append(unknown.reason)
        else:
            deposits, depositor = call.deposits, call.depositor
            reasons += call.reasons
            reasons += gas_reasons(tx, call.gas_cap)
            reasons += transfer_reasons(Counter(call.transfers), wanted)
        return Findings(nonce_reach(tx), deposits, reasons, target, depositor)

    def _call(
        self, request: SignRequest, unsigned: EvmUnsigned, grounds: Grounds, tokens: Collection[bytes]
    ) -> _Call:
        """What the transaction does. Raises Unreadable: nothing that intents of this kind may do."""
        tx = unsigned.tx
        keyset, network = grounds.wallet, grounds.network
        assert isinstance(network, EvmNetwork)
        assert isinstance(keyset, EvmKeyset)
        gas, kinds = network.gas_caps, grounds.kinds
        if kinds == {Kind.PAYMENT}:
            return _payment(tx, keyset, gas, tokens)
        if kinds == {Kind.REFILL}:
            moved = money_transfer(tx.to, tx.value_wei, tx.data, tokens)
            return _Call(gas.transfer if moved.contract is None else gas.token, (moved,))
        if kinds == {Kind.ROTATION}:
            moved = money_transfer(tx.to, tx.value_wei, tx.data, tokens)
            cap = gas.transfer if moved.contract is None else gas.token
            return _Call(cap, reasons=tuple(rotation_reasons(request, moved, grounds)))
        if kinds == {Kind.NONCE_FILL}:
            return _Call(gas.transfer, reasons=tuple(fill_reasons(request, unsigned, keyset.address)))
        if any(intent.destination != keyset.address for intent in request.intents):
            raise Unreadable("bad-destination", f"the house's own go to {keyset.address}")
        if kinds == {Kind.SWEEP}:
            return _sweep(tx, grounds, gas, tokens)
        raise refusal(tx.data, "unknown-call", f"not what {', '.join(sorted(kinds))} does")


def _payment(tx: UnsignedTx, keyset: EvmKeyset, gas: GasCaps, tokens: Collection[bytes]) -> _Call:
    """A batch payout, a token transfer or a plain transfer. Raises Unreadable."""
    if keyset.payout is None or tx.to != listed(keyset.payout):
        moved = money_transfer(tx.to, tx.value_wei, tx.data, tokens)
        return _Call(gas.transfer if moved.contract is None else gas.token, (moved,))
    try:
        batch = decode_payout(tx.data)
    except InvalidValue as error:
        raise refusal(tx.data, "unknown-call", str(error)) from None
    if sum(payout.units for payout in batch) != tx.value_wei:
        raise Unreadable("payout-sum", f"{tx.value_wei} wei go to the payout contract, another sum out of it")
    return _Call(gas.payout, tuple(Transfer(None, payout.to, payout.units) for payout in batch))


def _sweep(tx: UnsignedTx, grounds: Grounds, gas: GasCaps, tokens: Collection[bytes]) -> _Call:
    """A flush of forwarders by the key-set's own factory, or by that of one before it, which pays whom the quorum's
    cold Safe has said. Raises Unreadable."""
    keyset = _flushed(grounds, tx.to)
    if keyset is None:
        told = f"{checksummed(tx.to)} is no factory of {grounds.wallet.id}, nor of a key-set before it"
        raise refusal(tx.data, "unlisted-contract", told)
    try:
        flush = decode_flush(tx.data)
    except InvalidValue as error:
        raise refusal(tx.data, "unknown-call", str(error)) from None
    if tx.value_wei != 0:
        raise Unreadable("value-with-call", f"{tx.value_wei} wei go to the factory")
    if len(set(flush.salts)) != len(flush.salts) or len(set(flush.tokens)) != len(flush.tokens):
        raise Unreadable("unknown-call", "a forwarder or token is listed twice")
    unlisted = set(flush.tokens) - set(tokens)
    if unlisted:
        raise Unreadable("unlisted-token", f"{checksummed(min(unlisted))} is no listed token")
    try:
        deposits = frozenset(index_of(salt) for salt in flush.salts)
    except InvalidValue as error:
        raise Unreadable("foreign-forwarder", str(error)) from None
    return _Call(gas.sweep, deposits=deposits, depositor=keyset.id)


def _flushed(grounds: Grounds, factory: bytes) -> EvmKeyset | None:
    """Whose factory it is: the wallet's, or of an active one that of a key-set of its chain and tier before it."""
    wallet = grounds.wallet
    for keyset in grounds.bundle.keysets:
        if not isinstance(keyset, EvmKeyset) or (keyset.chain, keyset.tier) != (wallet.chain, wallet.tier):
            continue
        before = wallet.state == "active" and keyset.state in ("deactivated", "compromised")
        if listed(keyset.factory) == factory and (keyset.id == wallet.id or before):
            return keyset
    return None
