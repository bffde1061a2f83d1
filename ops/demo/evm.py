"""The outside world on an EVM network: people who pay, contracts that pay, and what the chain itself says."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any, Self

from chains.eth.address import checksummed
from chains.eth.forwarder import Flush, decode_flush
from ops.demo.record import expect
from ops.devnet.anvil import Anvil
from ops.stack.contracts import OUTSIDE, ask, calldata, deploy, mined
from ops.stack.networks import GAS_MONEY_WEI
from policies.bundle import Bundle, EvmKeyset, EvmNetwork, EvmVault, GasPayer

_HASTE_WEI = 400 * 10**9


@dataclass(slots=True)
class EvmSide:
    """One EVM network as people outside see it; the node holds their keys."""

    node: Anvil
    network: EvmNetwork
    keyset: EvmKeyset
    """The service's hot wallet, as the bundle has it."""
    safes: tuple[EvmVault, ...] = ()
    """Its other tiers."""
    gas_payer: GasPayer | None = None
    """Who sends what Safes have signed."""
    house: str = field(init=False)
    """An account of the exchange's operators, outside of Strongroom: sends gas, nothing else."""
    payer: str = field(init=False)
    """Somebody with money."""

    addresses: dict[str, str] = field(default_factory=dict)
    """Newest deposit address of each customer."""
    forwarders: dict[str, int] = field(default_factory=dict)
    """Index of every deposit address that was made."""

    def __post_init__(self) -> None:
        """Gives the node's accounts their parts."""
        self.house, self.payer = self.node.accounts()[1:3]

    @classmethod
    def of(cls, node: Anvil, bundle: Bundle, chain: str) -> Self:
        """The side of a chain of the bundle, through its node."""
        network, keyset = bundle.network(chain), bundle.keyset_for(chain, "hot")
        assert isinstance(network, EvmNetwork)
        assert isinstance(keyset, EvmKeyset)
        safes = tuple(each for each in bundle.vaults if each.chain == chain and isinstance(each, EvmVault))
        return cls(node, network, keyset, safes, bundle.gas_payer_for(chain) if safes else None)

    @staticmethod
    def stranger() -> str:
        """An address that nobody has used yet (EIP-55)."""
        return checksummed(secrets.token_bytes(20))

    # --- what people do ---

    def pay(self, address: str, amount_wei: int) -> str:
        """Somebody pays with a plain transfer, pending until a block is mined; returns the txid without `0x`."""
        return self.node.send_eth(self.payer, address, amount_wei)[2:]

    def pay_token(self, contract: str, address: str, units: int) -> str:
        """Somebody pays with a token, freshly minted for that; returns the txid without `0x`."""
        self.call(contract, "mint(address,uint256)", self.payer, units)
        return self.call(contract, "transfer(address,uint256)", address, units)

    def call(self, contract: str, signature: str, *arguments: object, value_wei: int = 0) -> str:
        """Somebody calls a contract, pending until a block is mined; returns the txid without `0x`."""
        data = calldata(signature, *arguments)
        # No estimate: it would not see what is pending, and some calls here are meant to fail.
        return self.node.transact(self.payer, contract, data, value_wei=value_wei, gas=500_000)[2:]

    def call_first(self, contract: str, signature: str, *arguments: object) -> str:
        """The same for a price that puts it in front of everything else in its block."""
        data = "0x" + calldata(signature, *arguments).hex()
        wanted = {"from": self.payer, "to": contract, "data": data, "gas": hex(500_000)}
        return str(self.node.rpc("eth_sendTransaction", wanted | {"gasPrice": hex(_HASTE_WEI)}))[2:]

    def contract(self, name: str, *arguments: object) -> str:
        """Somebody deploys a contract of `tests/contracts`; returns its address."""
        return deploy(self.node, self.payer, name, arguments, directory=OUTSIDE)

    @property
    def senders(self) -> tuple[str, ...]:
        """Addresses of the service that send transactions: the hot key, and the gas payer where there is one."""
        return (self.keyset.address, *(() if self.gas_payer is None else (self.gas_payer.address,)))

    def send_gas(self) -> list[str]:
        """An operator sends gas to each sender, in a block of its own; returns the txids without `0x`."""
        found = []
        for address in self.senders:
            found.append(self.node.send_eth(self.house, address, GAS_MONEY_WEI))
            mined(self.node, found[-1])
        return [txid[2:] for txid in found]

    # --- what the chain says ---

    def token_units(self, contract: str, address: str) -> int:
        """What an address has of a token."""
        return int(ask(self.node, contract, "balanceOf(address)", "uint256", address))

    def receipt(self, txid: str) -> dict[str, Any]:
        """The receipt of a mined transaction. Raises StepFailed if it is in no block."""
        found = self.node.receipt(f"0x{txid}")
        expect(found is not None, f"{txid} is mined")
        assert found is not None
        return found

    def mined(self, txid: str) -> bool:
        """Whether a transaction is in a block."""
        return self.node.receipt(f"0x{txid}") is not None

    def fee_wei(self, txid: str) -> int:
        """What a mined transaction has paid for its gas."""
        receipt = self.receipt(txid)
        return int(receipt["gasUsed"], 16) * int(receipt["effectiveGasPrice"], 16)

    def transaction(self, txid: str) -> dict[str, Any]:
        """A transaction as the node has it, pending or mined. Raises StepFailed if it has not."""
        found = self.node.rpc("eth_getTransactionByHash", f"0x{txid}")
        expect(found is not None, f"the node has {txid}")
        return dict(found)

    def pending(self, txid: str) -> bool:
        """Whether a transaction waits in the node's pool."""
        found = self.node.rpc("eth_getTransactionByHash", f"0x{txid}")
        return found is not None and found["blockNumber"] is None

    def sent(self) -> list[str]:
        """Txids, without `0x`, of all mined transactions of the service's senders, oldest first."""
        found, senders = [], {address.lower() for address in self.senders}
        for height in range(self.node.height() + 1):
            block = self.node.rpc("eth_getBlockByNumber", hex(height), True)
            found += [str(tx["hash"])[2:] for tx in block["transactions"] if tx["from"] in senders]
        return found

    def flush(self, txid: str) -> Flush | None:
        """What a transaction empties, if it is a flush of the hot key's factory."""
        found = self.transaction(txid)
        if found["to"] != self.keyset.factory.lower():
            return None
        return decode_flush(bytes.fromhex(found["input"][2:]))

    def unmined(self) -> bool:
        """Whether a transaction of one of the service's senders waits for a block."""
        latest, pending = (
            [self.node.rpc("eth_getTransactionCount", sender, tag) for sender in self.senders]
            for tag in ("latest", "pending")
        )
        return bool(latest != pending)

    def deployed(self, address: str) -> bool:
        """Whether there is code at an address."""
        return bool(self.node.rpc("eth_getCode", address, "latest") != "0x")

    def holdings(self, contract: str | None) -> int:
        """What keys, Safes and deposit addresses have of a token, or of the native asset."""
        addresses = (*self.senders, *(safe.address for safe in self.safes), *self.forwarders)
        if contract is None:
            return sum(self.node.balance_wei(address) for address in addresses)
        return sum(self.token_units(contract, address) for address in addresses)
