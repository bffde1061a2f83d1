"""An Ethereum chain of our own (Foundry's anvil), with helpers that play the outside world: payers, reorgs."""

from __future__ import annotations

import enum
import http.client
import json
import time
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from ops.devnet.errors import DevnetError
from ops.devnet.files import kept, kept_pin
from ops.devnet.part import Part
from ops.devnet.process import ManagedProcess, free_port, release_port, wait_until
from ops.devnet.tools import anvil_program

_RPC_TIMEOUT_SECONDS = 120


class Automine(enum.Enum):
    """Whether each transaction gets a block at once."""

    ON = "on"
    OFF = "off"


class AnvilRefused(DevnetError):
    """anvil answered a call with an error; carries what JSON-RPC says about it."""

    def __init__(self, method: str, error: dict[str, Any]) -> None:
        super().__init__(f"{method}: {error.get('message')} ({error.get('code')})")
        self.method = method
        self.code = error.get("code")
        self.message = str(error.get("message"))
        self.data = error.get("data")
        """For a revert: the returned bytes in hex."""


class Anvil(Part):
    """anvil on a loopback port; it mines when told to.

    What it is and is not, as measured with 1.7.1:

    - `finalized` is the tip less `2 * slots_in_an_epoch` blocks, `safe` the tip less `slots_in_an_epoch`
      (block 0 below that), also right after a reorg: so one deeper than that changes finalized blocks.
    - It serves `trace_block`, `trace_transaction`, `debug_traceBlockByHash` (`callTracer`), also for blocks
      from before a restart; `eth_getBlockReceipts` by number or hash; `eth_getLogs` by `blockHash` (an error
      where the block is unknown); `eth_getBalance` and `eth_call` at an EIP-1898 `{"blockHash": ...}` (-32001
      where the block is unknown, also one that a reorg removed); `txpool_content` with `pending` and `queued`.
    - `anvil_reorg` forgets the transactions of the removed blocks, neither mined nor pending, as if nobody
      had kept them. `reorg` returns their bytes, and `send_raw` brings them back. Snapshots do not survive it.
    - Its pool takes a replacement that pays more at all (Ethereum's own nodes ask for 10 % more), refuses at
      once what pays less than the base fee, and refuses more than 2^24 gas (EIP-7825, asked for by us).
    - After a stop in good order the chain is there again: blocks, receipts, traces, states of old blocks, and
      the same accounts; the pool is not. **A kill loses everything since the state was last written**: at the
      last stop, or up to `save_every_seconds` ago. Without either a killed node comes back with an empty chain.
    - Nobody is asked for a password, by no version of anvil: it listens on 127.0.0.1 only.
    - Each start makes a block 0 of its own, and of several in the state any may be found again under that number.
      So the time in it is kept, which makes it the same each time, and the clock is set right at every start.
    - After a restart its clock goes on from the machine's time, or from its last block where that is later.
    - Each block is at least a second later than the one before, so many blocks at once run ahead of the clock.
    """

    def __init__(
        self,
        directory: Path,
        *,
        chain_id: int = 31337,
        slots_in_an_epoch: int = 2,
        block_time_seconds: int | None = None,
        save_every_seconds: int | None = None,
        hardfork: str = "osaka",
        extra_args: Sequence[str] = (),
    ) -> None:
        """Prepares a node in `directory`, which is made if missing. Nothing is started yet.

        Args:
            directory: holds the state (`state.json`), the log, and the seed of the accounts.
            chain_id: of EIP-155.
            slots_in_an_epoch: blocks between tip and `safe`, and between `safe` and `finalized`.
            block_time_seconds: mines a block every so often; None mines only when asked.
            save_every_seconds: how often the state is written meanwhile; None: only by a stop in good order.
            hardfork: rules of the chain, by name.
            extra_args: further arguments, such as `--gas-limit`.
        """
        self.directory = directory.absolute()
        self.directory.mkdir(parents=True, exist_ok=True)
        self.chain_id = chain_id
        self.slots_in_an_epoch = slots_in_an_epoch
        self.port = free_port()
        saving = [] if save_every_seconds is None else ["--state-interval", str(save_every_seconds)]
        mining = ["--no-mining"] if block_time_seconds is None else ["--block-time", str(block_time_seconds)]
        self.process = ManagedProcess(
            "anvil",
            [
                anvil_program(),
                *("--host", "127.0.0.1", "--port", str(self.port), "--chain-id", str(chain_id)),
                *("--slots-in-an-epoch", str(slots_in_an_epoch), "--hardfork", hardfork),
                # Random, so that no test leans on the well-known keys; kept, so that a restart has them again.
                *("--mnemonic-seed-unsafe", kept_pin(self.directory / "accounts.seed")),
                *("--state", self.directory / "state.json", "--preserve-historical-states"),
                *("--cache-path", self.directory / "cache"),
                "--enable-tx-gas-limit",
                *("--timestamp", kept(self.directory / "genesis.time", str(int(time.time())))),
                *saving,
                *mining,
                *extra_args,
            ],
            log_path=self.directory / "anvil.log",
            cwd=self.directory,
        )

    def __repr__(self) -> str:
        return f"Anvil(port={self.port}, chain_id={self.chain_id})"

    @property
    def rpc_url(self) -> str:
        """Address of JSON-RPC; the same after each restart."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Starts the node and waits until RPC answers.

        Raises:
            StartFailed: it did not start.
        """
        self.process.start()
        self.process.wait_ready(self._answers, timeout=60)
        # Its clock begins at the time of block 0 again, which may be long ago; never before its last block.
        last = int(self.rpc("eth_getBlockByNumber", "latest", False)["timestamp"], 16)
        self.rpc("evm_setTime", hex(max(int(time.time()), last)))

    def stop(self) -> None:
        """Stops the node in good order; the chain is saved, the pool is not. Again changes nothing."""
        self.process.stop(timeout=60)

    def kill(self) -> None:
        """Kills the node at once; everything since its last stop is gone. Again changes nothing."""
        self.process.kill()

    def await_saved(self) -> None:
        """Waits until the state, as it is now, has been written by itself (`save_every_seconds`).

        Raises:
            DeadlineExceeded: it was not.
        """
        began = time.time_ns()
        wait_until(lambda: self._saved_since(began), timeout=20, what="anvil to write its state")

    def close(self) -> None:
        """Stops the node for good and gives up its port. The state stays."""
        self.stop()
        release_port(self.port)

    def rpc(self, method: str, *params: object) -> Any:
        """Calls the node and returns the result as JSON has it: numbers are hex strings.

        Raises:
            AnvilRefused: the node answered with an error.
            OSError, http.client.HTTPException: the node cannot be reached, or the connection broke.
        """
        [result] = self.rpc_batch([(method, params)])
        return result

    def rpc_batch(self, calls: Sequence[tuple[str, Sequence[object]]]) -> list[Any]:
        """Makes many calls in one request and returns their results in the order of the calls.

        Raises:
            AnvilRefused: the node answered one with an error; the others may have been done.
            OSError, http.client.HTTPException: the node cannot be reached, or the connection broke.
        """
        questions = [
            {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
            for number, (method, params) in enumerate(calls)
        ]
        # A connection each: there is nothing to share between threads, and on loopback it costs little.
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_RPC_TIMEOUT_SECONDS)
        try:
            connection.request("POST", "/", json.dumps(questions), {"Content-Type": "application/json"})
            answers = sorted(json.loads(connection.getresponse().read()), key=itemgetter("id"))
        finally:
            connection.close()
        for (method, _), answer in zip(calls, answers, strict=True):
            if "error" in answer:
                raise AnvilRefused(method, answer["error"])
        return [answer["result"] for answer in answers]

    # --- the chain ---

    def height(self) -> int:
        """Returns the number of the latest block."""
        return int(self.rpc("eth_blockNumber"), 16)

    def mine(self, blocks: int = 1) -> list[str]:
        """Mines blocks, the first with all that is pending and fits, and returns their hashes, oldest first."""
        before = self.height()
        self.rpc("anvil_mine", hex(blocks))
        return [self.block_hash(before + n) for n in range(1, blocks + 1)]

    def finalize(self) -> None:
        """Mines until the block that is the latest now, or the pending one if any, is finalized."""
        self.mine(2 * self.slots_in_an_epoch + 1)

    def block_hash(self, height: int) -> str:
        """Returns the hash of the block at a height.

        Raises:
            LookupError: the chain is not that long.
        """
        block = self.rpc("eth_getBlockByNumber", hex(height), False)
        if block is None:
            raise LookupError(f"no block at {height}")
        return str(block["hash"])

    def reorg(self, depth: int, *, instead: Sequence[tuple[str, int]] = ()) -> list[str]:
        """Replaces the latest `depth` blocks by as many others, and returns what was in them.

        Args:
            depth: how many blocks are replaced.
            instead: raw transactions for the new blocks, each with the place of its block: 0 is the oldest.

        Returns:
            The raw transactions of the removed blocks, as they stood; none of them is mined or pending now.
        """
        removed = []
        for height in range(self.height() - depth + 1, self.height() + 1):
            block = self.rpc("eth_getBlockByNumber", hex(height), False)
            removed += [str(self.rpc("eth_getRawTransactionByHash", txid)) for txid in block["transactions"]]
        self.rpc("anvil_reorg", depth, [list(pair) for pair in instead])
        return removed

    def set_next_base_fee(self, fee_wei: int) -> None:
        """Sets the base fee of the next block, in wei per gas."""
        self.rpc("anvil_setNextBlockBaseFeePerGas", hex(fee_wei))

    def set_automine(self, mode: Automine) -> None:
        """Lets each transaction have a block at once, or stops doing so."""
        self.rpc("evm_setAutomine", mode is Automine.ON)

    def increase_time(self, seconds: int) -> None:
        """Puts the chain's clock forward and mines a block that shows it."""
        self.rpc("evm_increaseTime", hex(seconds))
        self.mine()

    # --- people outside ---

    def accounts(self) -> list[str]:
        """Addresses (EIP-55) whose keys the node holds, with 10,000 ETH each at the start of the chain."""
        from eth_utils.address import to_checksum_address

        return [to_checksum_address(account) for account in self.rpc("eth_accounts")]

    def balance_wei(self, address: str) -> int:
        """Returns the balance at the latest block."""
        return int(self.rpc("eth_getBalance", address, "latest"), 16)

    def fund(self, address: str, amount_wei: int) -> None:
        """Adds to a balance out of nowhere, at once and without a transaction: for senders' gas, no deposit."""
        self.rpc("anvil_setBalance", address, hex(self.balance_wei(address) + amount_wei))

    def send_eth(self, sender: str, to: str, amount_wei: int) -> str:
        """Pays with a plain transfer and returns its txid; see `transact`."""
        return self.transact(sender, to, value_wei=amount_wei)

    def transact(
        self,
        sender: str,
        to: str | None,
        data: bytes = b"",
        *,
        value_wei: int = 0,
        gas: int | None = None,
        nonce: int | None = None,
    ) -> str:
        """Sends a transaction of any address; it waits in the pool for the next block unless `Automine` is on.

        The node signs for its `accounts`. For any other sender, a contract too, it makes a transaction without
        a signature, which only this node takes: its raw bytes are of no use to `send_raw`.

        Args:
            sender: 20 bytes in hex; pays for the gas.
            to: the callee; None creates a contract.
            data: calldata, or the initcode of the contract.
            value_wei: paid along.
            gas: the limit; None has the node estimate it, which fails for what would revert.
            nonce: None takes the next one, behind those in the pool.

        Returns:
            The txid.

        Raises:
            AnvilRefused: the pool did not take it.
        """
        wanted: dict[str, str] = {"from": sender, "value": hex(value_wei), "data": "0x" + data.hex()}
        if to is not None:
            wanted["to"] = to
        if gas is not None:
            wanted["gas"] = hex(gas)
        if nonce is not None:
            wanted["nonce"] = hex(nonce)
        if sender.lower() not in self.rpc("eth_accounts"):
            self.rpc("anvil_impersonateAccount", sender)
        return str(self.rpc("eth_sendTransaction", wanted))

    def send_raw(self, raw: str) -> str:
        """Gives the pool a signed transaction (hex, as `reorg` returns it) and returns its txid."""
        return str(self.rpc("eth_sendRawTransaction", raw))

    def receipt(self, txid: str) -> dict[str, Any] | None:
        """Returns the receipt of a transaction, or None while it is not in a block."""
        found: dict[str, Any] | None = self.rpc("eth_getTransactionReceipt", txid)
        return found

    def drop(self, txid: str) -> None:
        """Makes the pool forget a transaction, as if it had been evicted."""
        self.rpc("anvil_dropTransaction", txid)

    def _saved_since(self, began_ns: int) -> bool:
        state = self.directory / "state.json"
        try:
            written_ns = state.stat().st_mtime_ns
            json.loads(state.read_bytes())
        except (OSError, ValueError):  # not yet, or not whole yet
            return False
        return written_ns > began_ns

    def _answers(self) -> bool:
        try:
            self.rpc("eth_chainId")
        except (OSError, http.client.HTTPException):  # not listening yet
            return False
        return True
