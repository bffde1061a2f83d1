"""An EVM transaction of one key's own address: its strict form, its network, its price. Pure."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Final

from chains.errors import InvalidValue
from chains.eth.address import keccak256
from chains.eth.tx import ContractCreation, UnsignedTx
from policies.bundle import EvmNetwork, NetworkEntry
from signers.guard.examined import Reach, Unreadable, Unsigned
from signers.ports import Reason, SignRequest

MAX_NONCE_AHEAD: Final = 256
"""How far a nonce may be beyond the highest this signer has signed: more than are ever in flight."""


@dataclass(frozen=True, slots=True)
class EvmUnsigned(Unsigned):
    """A transaction of one key's address."""

    tx: UnsignedTx


def read_transaction(request: SignRequest, sender: bytes) -> EvmUnsigned:
    """A request's transaction, as one of `sender` (20 bytes). Raises Unreadable: not EIP-1559 in its only form."""
    try:
        raw = base64.b64decode(request.transaction, validate=True)
        tx = UnsignedTx.decode(raw)
    except ContractCreation as creation:
        raise Unreadable("contract-creation", str(creation)) from None
    except (InvalidValue, binascii.Error, ValueError) as error:
        raise Unreadable("malformed-transaction", str(error)) from None
    return EvmUnsigned(
        content=keccak256(raw).hex(),  # `decode` has compared with its only form, so this is `tx.content`
        resources=frozenset({tx.resource(sender)}),
        fee_units=tx.max_fee_wei,
        called=tx.to + tx.data,
        tx=tx,
    )


def check_evm_network(network: NetworkEntry, chain_id: int) -> None:
    """Check that a network of the bundle is the one that a key is for. Raises Unreadable."""
    if not isinstance(network, EvmNetwork) or network.chain_id != chain_id:
        raise Unreadable("wrong-network", f"{network.chain} is not the network with chain id {chain_id}")


def price_reasons(tx: UnsignedTx, network: EvmNetwork) -> list[Reason]:
    """Objections to another network's chain id, and to a feerate above the cap."""
    reasons = []
    if tx.chain_id != network.chain_id:
        reasons.append(
            Reason("wrong-chain-id", f"chain id {tx.chain_id}: {network.chain} has {network.chain_id}")
        )
    if tx.max_fee_per_gas_wei > network.feerate_cap:
        reasons.append(
            Reason("feerate-cap", f"{tx.max_fee_per_gas_wei} wei per gas: at most {network.feerate_cap}")
        )
    return reasons


def gas_reasons(tx: UnsignedTx, cap: int) -> list[Reason]:
    """Objection to a gas limit above what a call of its kind may have."""
    if tx.gas_limit <= cap:
        return []
    return [Reason("gas-cap", f"gas limit {tx.gas_limit}: at most {cap} for this call")]


def nonce_reach(tx: UnsignedTx) -> Reach:
    """How far a transaction's nonce reaches."""
    return Reach(tx.nonce, MAX_NONCE_AHEAD, "nonce")
