"""The guard's part for a gas payer: it sends what owners of a Safe of the bundle have signed, or fills a nonce. Pure.

Nothing that it signs moves anything of its own but gas: whoever asks it for anything can burn what it holds, within the
windows of fees, and gain nothing.
"""

from __future__ import annotations

from typing import Final

from chains.eth.address import raw_address
from policies.bundle import EvmNetwork, GasPayer, NetworkEntry, WalletEntry
from policies.intent import Kind
from signers.guard.evm_calls import refusal, token_contracts
from signers.guard.evm_tx import (
    EvmUnsigned,
    check_evm_network,
    gas_reasons,
    nonce_reach,
    price_reasons,
    read_transaction,
)
from signers.guard.examined import Findings, Grounds, Unreadable
from signers.guard.safe import execution_reasons
from signers.keys.keyset import GasPayerRecord
from signers.ports import Reason, SignRequest


class GasPayerRules:
    """A gas payer's `FamilyRules`.

    Args:
        record: the signer's own record of the key.
    """

    kinds: Final = frozenset({Kind.EXECUTION, Kind.NONCE_FILL})

    def __init__(self, record: GasPayerRecord) -> None:
        self._record, self._address = record, raw_address(record.address)

    def check_keyset(self, keyset: WalletEntry, network: NetworkEntry) -> None:
        """Check that the bundle means this key, on the network it is for. Raises Unreadable."""
        record = self._record
        ours = (record.id, record.address, record.attestation_key)
        if not isinstance(keyset, GasPayer) or ours != (keyset.id, keyset.address, keyset.attestation_key):
            raise Unreadable(
                "wrong-keyset", f"the bundle's gas payer {keyset.id} is not the one this signer holds"
            )
        check_evm_network(network, record.chain_id)

    def read(self, request: SignRequest) -> EvmUnsigned:
        """The request's transaction. Raises Unreadable unless it is EIP-1559 in its only form."""
        executes = any(intent.kind is Kind.EXECUTION for intent in request.intents)
        if executes != (request.safe_nonce is not None):
            raise Unreadable("malformed-request", "an execution, and nothing else, says the Safe's nonce")
        return read_transaction(request, self._address)

    def find(self, request: SignRequest, unsigned: EvmUnsigned, grounds: Grounds) -> Findings:
        """Objections to network, price, gas, and to what is called."""
        tx, network = unsigned.tx, grounds.network
        assert isinstance(network, EvmNetwork)  # check_keyset has said so
        reasons = price_reasons(tx, network)
        if grounds.kinds == {Kind.EXECUTION}:
            tokens = token_contracts(grounds.bundle, request.chain)
            reasons += execution_reasons(request, tx, grounds.bundle, network.chain_id, tokens)
            reasons += gas_reasons(tx, network.gas_caps.execution)
        else:
            reasons += fill_reasons(request, unsigned, self._record.address)
            reasons += gas_reasons(tx, network.gas_caps.transfer)
        return Findings(nonce_reach(tx), frozenset(), reasons)


def fill_reasons(request: SignRequest, unsigned: EvmUnsigned, address: str) -> list[Reason]:
    """Objections to what fills a nonce: it does nothing at all, to the key's own address."""
    tx, reasons = unsigned.tx, list[Reason]()
    if any(intent.destination != address for intent in request.intents):
        reasons.append(Reason("bad-destination", f"the house's own go to {address}"))
    if (tx.to, tx.value_wei, tx.data) != (raw_address(address), 0, b""):
        told = f"not what {', '.join(sorted({intent.kind for intent in request.intents}))} does"
        reasons.append(refusal(tx.data, "unknown-call", told).reason)
    return reasons
