"""`eth`: the outside world of a trial's EVM networks, for a shell: somebody pays, somebody mines.

eth send ADDRESS AMOUNT [ASSET]    somebody pays ETH (or ASSET), final at once
eth balance ADDRESS [ASSET]        what an address has
eth address                        an address of somebody outside, to withdraw to
eth mine [BLOCKS]                  mines on every network; what is in the first of three is final
eth rpc CHAIN METHOD [JSON...]     asks a node
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec

from chains.errors import StrongroomError
from chains.eth.address import checksummed, parse_address, raw_address
from chains.eth.erc20 import balance_of_calldata, transfer_calldata
from chains.types import Amount
from ops.stack.contracts import calldata
from policies.bundle import AssetEntry, Bundle, SignedBundle

FINAL_AFTER_BLOCKS: Final = 3
"""Blocks of a trial's network after which the first of them is finalised."""
_PAYER: Final = 2
"""Account of the node that pays; the first two are the deployer's and the operators'."""


class Refused(Exception):
    """The node, or this command, says no; the message says why."""


@dataclass(frozen=True, slots=True)
class Outside:
    """People with accounts in the nodes of a trial."""

    bundle: Bundle
    nodes: dict[str, str]
    """JSON-RPC address by chain."""

    def rpc(self, chain: str, method: str, *params: object) -> Any:
        """Asks the node of a chain. Raises Refused."""
        if chain not in self.nodes:
            raise Refused(f"no network {chain!r}; there are {', '.join(self.nodes)}")
        question = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        try:
            answer = httpx.post(self.nodes[chain], json=question, timeout=60, trust_env=False).json()
        except httpx.HTTPError as error:
            raise Refused(f"the node of {chain} does not answer: {error}") from None
        if "error" in answer:
            raise Refused(f"{method}: {answer['error'].get('message')}")
        return answer["result"]

    def send(self, address: str, amount: str, asset: str) -> str:
        """Somebody pays, in a block that is final at once; returns the txid."""
        entry = self._asset(asset)
        units, to = Amount.parse(entry.asset(), amount).units, parse_address(address, entry.chain)
        payer = self.rpc(entry.chain, "eth_accounts")[_PAYER]
        if entry.contract is None:
            txid = self._transact(entry.chain, payer, to.text, units_wei=units)
        else:
            self._transact(
                entry.chain, payer, entry.contract, calldata("mint(address,uint256)", payer, units)
            )
            txid = self._transact(entry.chain, payer, entry.contract, transfer_calldata(to.script, units))
        self.rpc(entry.chain, "anvil_mine", hex(FINAL_AFTER_BLOCKS))
        return txid

    def balance(self, address: str, asset: str) -> str:
        """What an address has, with the asset beside it."""
        entry = self._asset(asset)
        parse_address(address, entry.chain)
        if entry.contract is None:
            found = self.rpc(entry.chain, "eth_getBalance", address, "latest")
        else:
            asked = {"to": entry.contract, "data": "0x" + balance_of_calldata(raw_address(address)).hex()}
            found = self.rpc(entry.chain, "eth_call", asked, "latest")
        return str(Amount(entry.asset(), int(found, 16)))

    def mine(self, blocks: int) -> str:
        """Mines blocks on every network; returns the new heights."""
        for chain in self.nodes:
            self.rpc(chain, "anvil_mine", hex(blocks))
        return "\n".join(f"{chain} {int(self.rpc(chain, 'eth_blockNumber'), 16)}" for chain in self.nodes)

    def _asset(self, asset: str) -> AssetEntry:
        entry = self.bundle.asset(asset)
        if entry.chain not in self.nodes:
            raise Refused(f"{asset} is not on an EVM network")
        return entry

    def _transact(self, chain: str, payer: str, to: str, data: bytes = b"", *, units_wei: int = 0) -> str:
        wanted = {
            "from": payer,
            "to": to,
            "value": hex(units_wei),
            "data": "0x" + data.hex(),
            "gas": "0x7a120",
        }
        return str(self.rpc(chain, "eth_sendTransaction", wanted))


def main(argv: Sequence[str] | None = None) -> int:
    """Does what the arguments say; returns the exit code: 1 where it was refused."""
    parser = argparse.ArgumentParser(
        prog="eth",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage=argparse.SUPPRESS,
    )
    parser.add_argument("--bundle", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--node", action="append", default=[], help=argparse.SUPPRESS)
    verbs = parser.add_subparsers(prog="eth", dest="verb", required=True, metavar="VERB")
    send, balance = verbs.add_parser("send"), verbs.add_parser("balance")
    send.add_argument("address")
    send.add_argument("amount")
    balance.add_argument("address")
    for verb in (send, balance):
        verb.add_argument("asset", nargs="?", default="ETH")
    verbs.add_parser("address")
    verbs.add_parser("mine").add_argument("blocks", nargs="?", type=int, default=FINAL_AFTER_BLOCKS)
    rpc = verbs.add_parser("rpc")
    rpc.add_argument("chain")
    rpc.add_argument("method")
    rpc.add_argument("params", nargs="*")
    options = parser.parse_args(argv)
    signed = msgspec.json.decode(options.bundle.read_bytes(), type=SignedBundle)
    outside = Outside(signed.bundle, dict(entry.split("=", 1) for entry in options.node))
    try:
        print(_answer(outside, options))
    except (Refused, StrongroomError) as refusal:
        print(f"eth: {refusal}", file=sys.stderr)
        return 1
    return 0


def _answer(outside: Outside, options: argparse.Namespace) -> str:
    match options.verb:
        case "send":
            return outside.send(options.address, options.amount, options.asset)
        case "balance":
            return outside.balance(options.address, options.asset)
        case "mine":
            return outside.mine(options.blocks)
        case "rpc":
            params = [_parameter(text) for text in options.params]
            return json.dumps(outside.rpc(options.chain, options.method, *params), indent=2)
        case _:
            return checksummed(secrets.token_bytes(20))


def _parameter(text: str) -> object:
    """A parameter as JSON, or as the text that it is: `latest` and `0x12` need no quotes."""
    try:
        found: object = json.loads(text)
    except ValueError:
        return text
    return found


if __name__ == "__main__":
    sys.exit(main())
