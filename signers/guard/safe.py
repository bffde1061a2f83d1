"""The guard's part for Safes: what their owners sign, and what a gas payer sends for them. Pure.

A Safe moves the native asset or a listed token, once a transaction, or does nothing so that its nonce is used, or
changes the treasury of a factory whose admin it is (`administration`), and nothing else: no delegatecall, no refund of
gas, no call of itself with anything (which is how its owners, threshold, modules, guard and fallback handler change),
no batch of calls.
"""

from __future__ import annotations

import base64
import binascii
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from chains.errors import InvalidValue
from chains.eth.address import checksummed, raw_address
from chains.eth.safe import CALL, SafeMessage, SafeTx, decode_execution, owners_of
from chains.eth.tx import UnsignedTx
from policies.bundle import Bundle, EvmKeyset, EvmNetwork, EvmVault, NetworkEntry, WalletEntry
from policies.intent import Kind
from signers.guard.administration import administered, administration_reasons, change_reasons
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
from signers.guard.evm_tx import check_evm_network
from signers.guard.examined import Findings, Grounds, Reach, Unreadable, Unsigned
from signers.guard.refills import refill_of
from signers.keys.keyset import SafeOwnerRecord
from signers.ports import Reason, SignRequest

MAX_NONCE_AHEAD: Final = 256
"""How far a nonce may be beyond the highest this owner has signed."""
_CARRIED_OUT: Final = frozenset({"active", "deactivated", "compromised"})
"""States of a vault whose transactions a gas payer sends: its owners have judged each, by the rules of the state."""


@dataclass(frozen=True, slots=True)
class SafeUnsigned(Unsigned):
    """What one owner of a Safe is to sign. It costs the owner nothing: whoever sends it pays the gas."""

    message: SafeMessage


class SafeRules:
    """One owner's `FamilyRules`.

    Args:
        record: the signer's own record of the owner's key.
    """

    kinds: Final = frozenset(
        {Kind.PAYMENT, Kind.REFILL, Kind.ROTATION, Kind.CANCELLATION, Kind.ADMINISTRATION}
    )

    def __init__(self, record: SafeOwnerRecord) -> None:
        self._record = record

    def check_keyset(self, keyset: WalletEntry, network: NetworkEntry) -> None:
        """Check that the bundle means a Safe that this key is an owner of, on its network. Raises Unreadable."""
        record = self._record
        if not isinstance(keyset, EvmVault) or keyset.id != record.id:
            raise Unreadable("wrong-keyset", f"{keyset.id} is not the Safe whose owner this signer is")
        if [owner.address for owner in keyset.owners].count(record.address) != 1:
            raise Unreadable("wrong-keyset", f"{record.address} is no owner of {keyset.id} in the bundle")
        check_evm_network(network, record.chain_id)

    def read(self, request: SignRequest) -> SafeUnsigned:
        """What the owner is to sign. Raises Unreadable unless it is in its only form."""
        if request.safe_nonce is not None:
            raise Unreadable("malformed-request", "the nonce of a Safe's transaction is in its bytes")
        try:
            message = SafeMessage.decode(base64.b64decode(request.transaction, validate=True))
        except (InvalidValue, binascii.Error, ValueError) as error:
            raise Unreadable("malformed-transaction", str(error)) from None
        return SafeUnsigned(
            content=message.content,
            resources=frozenset({message.resource}),
            fee_units=0,
            called=message.tx.to + message.tx.data,
            message=message,
        )

    def find(self, request: SignRequest, unsigned: SafeUnsigned, grounds: Grounds) -> Findings:
        """Objections to network and Safe, and to everything that the transaction would do."""
        message, network, vault, bundle = unsigned.message, grounds.network, grounds.wallet, grounds.bundle
        assert isinstance(network, EvmNetwork)  # check_keyset has said so
        assert isinstance(vault, EvmVault)
        reasons: list[Reason] = []
        if message.chain_id != network.chain_id:
            reasons.append(
                Reason(
                    "wrong-chain-id", f"chain id {message.chain_id}: {network.chain} has {network.chain_id}"
                )
            )
        if message.safe != listed(vault.address):
            reasons.append(Reason("wrong-safe", f"{checksummed(message.safe)} is not {vault.address}"))
        tokens = token_contracts(bundle, request.chain)
        wanted, objections = wanted_transfers(request, (vault.address,), bundle, tokens)
        reasons += objections
        target, objections = refill_of(request, grounds)
        reasons += objections
        wanted += wanted_refills(request, bundle)
        if grounds.kinds == {Kind.CANCELLATION}:
            reasons += _cancellation_reasons(request, message.tx, vault)
        elif grounds.kinds == {Kind.ADMINISTRATION}:
            reasons += administration_reasons(request, message.tx, vault, bundle)
        else:
            moved, objections = safe_effect(message.tx, listed(vault.address), tokens)
            reasons += objections
            if moved is not None and grounds.kinds == {Kind.ROTATION}:
                reasons += rotation_reasons(request, moved, grounds)
            elif moved is not None:
                reasons += transfer_reasons(Counter([moved]), wanted)
        reach = Reach(message.tx.nonce, MAX_NONCE_AHEAD, "nonce")
        return Findings(reach, frozenset(), reasons, target)


def cancels(tx: SafeTx, safe: bytes) -> bool:
    """Whether a Safe's transaction does nothing but use up its nonce: an empty call of the Safe by itself."""
    return (tx.to, tx.value_wei, tx.data, tx.operation, tx.refunds) == (safe, 0, b"", CALL, False)


def _cancellation_reasons(request: SignRequest, tx: SafeTx, vault: EvmVault) -> list[Reason]:
    """A cancellation is an empty call of the Safe by itself, and is meant to be."""
    reasons = []
    if any(intent.destination != vault.address for intent in request.intents):
        reasons.append(Reason("bad-destination", f"a cancellation is to {vault.address}"))
    if not cancels(tx, listed(vault.address)):
        told = "a cancellation calls the Safe itself, with nothing"
        reasons.append(refusal(tx.data, "unknown-call", told).reason)
    return reasons


def safe_effect(tx: SafeTx, safe: bytes, tokens: Collection[bytes]) -> tuple[Transfer | None, list[Reason]]:
    """What a Safe's transaction moves (None: it can't be said), and objections to all that it does beside.

    Args:
        tx: the transaction.
        safe: address of the Safe, 20 bytes.
        tokens: contracts of the listed tokens.
    """
    reasons: list[Reason] = []
    if tx.operation != CALL:
        reasons.append(Reason("delegate-call", f"{checksummed(tx.to)} would run as if it were the Safe"))
    if tx.refunds:
        reasons.append(
            Reason("refund-fields", "gas, its price, token or receiver of a refund: the Safe refunds nothing")
        )
    if tx.to == safe:
        known = refusal(tx.data, "safe-administration", "the Safe would call itself")
        return None, [*reasons, known.reason]
    try:
        return money_transfer(tx.to, tx.value_wei, tx.data, tokens), reasons
    except Unreadable as objection:
        return None, [*reasons, objection.reason]


def rotation_reasons(request: SignRequest, moved: Transfer, grounds: Grounds) -> list[Reason]:
    """A rotation goes to the active wallet of its chain and tier, as the bundle has it, and is meant to."""
    try:
        target = active_address(grounds.bundle, grounds.wallet)
    except InvalidValue as error:
        return [Reason("rotation-target", str(error))]
    reasons = []
    if moved.to != listed(target):
        reasons.append(Reason("rotation-target", f"{checksummed(moved.to)}: everything goes to {target}"))
    if any(intent.destination != target for intent in request.intents):
        reasons.append(Reason("bad-destination", f"a rotation is to {target}"))
    return reasons


def active_address(bundle: Bundle, wallet: WalletEntry) -> str:
    """Address of the active EVM key-set or Safe of a wallet's chain and tier. Raises InvalidValue if none is."""
    for entry in (*bundle.keysets, *bundle.vaults):
        place = (entry.chain, entry.tier, entry.state)
        if place == (wallet.chain, wallet.tier, "active") and isinstance(entry, EvmKeyset | EvmVault):
            return entry.address
    raise InvalidValue(f"the bundle has no active {wallet.tier} wallet on {wallet.chain}")


def execution_reasons(
    request: SignRequest, tx: UnsignedTx, bundle: Bundle, chain_id: int, tokens: Collection[bytes]
) -> list[Reason]:
    """Objections to a gas payer's call of `execTransaction`: its owners have signed what it is, and may sign.

    Args:
        request: names the Safe's nonce and, as destination of its intent, the Safe.
        tx: the gas payer's transaction.
        bundle: knows the Safes and their owners.
        chain_id: of the network.
        tokens: contracts of the listed tokens.
    """
    vault = _vault(bundle, request.chain, tx.to)
    if vault is None:
        return [Reason("wrong-safe", f"{checksummed(tx.to)} is no Safe of the bundle on {request.chain}")]
    reasons = []
    if any(intent.destination != vault.address for intent in request.intents):
        reasons.append(Reason("bad-destination", f"an execution is to {vault.address}"))
    if vault.state not in _CARRIED_OUT:
        reasons.append(Reason("key-state", f"{vault.id} is {vault.state}"))
    if tx.value_wei != 0:
        reasons.append(Reason("value-with-call", f"{tx.value_wei} wei go to the Safe"))
    assert request.safe_nonce is not None  # read has said so
    try:
        execution = decode_execution(tx.data, request.safe_nonce)
    except InvalidValue as error:
        return [*reasons, refusal(tx.data, "unknown-call", str(error)).reason]
    if administered(bundle, vault, execution.tx.to) is not None:
        reasons += change_reasons(execution.tx, vault, bundle)[1]
    elif not cancels(execution.tx, tx.to):
        reasons += safe_effect(execution.tx, tx.to, tokens)[1]
    try:
        signed = owners_of(execution.tx.signing_hash(chain_id, tx.to), execution.signatures)
    except InvalidValue as error:
        return [*reasons, Reason("owner-signatures", str(error))]
    strangers = set(signed) - {listed(owner.address) for owner in vault.owners}
    if strangers:
        reasons.append(
            Reason(
                "owner-signatures",
                f"{checksummed(min(strangers))} is no owner of {vault.id}, or the nonce differs",
            )
        )
    elif len(signed) < vault.threshold:
        reasons.append(Reason("owner-signatures", f"{len(signed)} of {vault.threshold} owners have signed"))
    return reasons


def _vault(bundle: Bundle, chain: str, address: bytes) -> EvmVault | None:
    for vault in bundle.vaults:
        if isinstance(vault, EvmVault) and vault.chain == chain and raw_address(vault.address) == address:
            return vault
    return None
