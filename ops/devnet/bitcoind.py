"""A bitcoind in regtest, and wallets in it that act as the outside world: payers, payees and miners."""

from __future__ import annotations

import enum
import hashlib
import hmac
import http.client
import secrets
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ops.devnet.files import kept_password, write_private
from ops.devnet.part import Part
from ops.devnet.process import ManagedProcess, free_port, release_port, wait_until
from ops.devnet.tools import bitcoind_program

RPC_USER = "strongroom"
_RPC_TIMEOUT_SECONDS = 120
_IDLE_SECONDS = 20
"""The node closes connections that were idle for 30 s; before that we do."""
_SCAN_SECONDS = 30
_INVALID_PARAMETER = -8
"""Its code for a second scan, too."""
_SATS_PER_BTC = 100_000_000
_COINBASE_MATURITY_BLOCKS = 100


class Peers(enum.Enum):
    """Whether the node speaks to other nodes."""

    NONE = "none"
    LISTEN = "listen"
    """It listens on a loopback port; `connect` joins two such nodes."""


class Bitcoind(Part):
    """bitcoind in regtest on loopback ports: RPC, REST, and ZMQ for hashblock, rawtx and sequence.

    Beside the cookie, which changes with every start, RPC takes a password of the node's own that does not:
    so services that were told `rpc_url` once find the node again after a restart.
    """

    def __init__(self, directory: Path, *, extra_args: Sequence[str] = (), peers: Peers = Peers.NONE) -> None:
        """Prepares a node in `directory`, which is made if missing. Nothing is started yet.

        Args:
            directory: the node's data directory is `directory/data`.
            extra_args: further arguments, such as `-txindex=1`; they come last and so win.
            peers: whether it listens for other nodes.
        """
        self.directory = directory.absolute()
        self.data_directory = self.directory / "data"
        self.data_directory.mkdir(parents=True, exist_ok=True)
        self.rpc_port, self.zmq_port = free_port(), free_port()
        self.p2p_port = free_port() if peers is Peers.LISTEN else None
        self._password = kept_password(self.directory / "rpc.password")
        self._extra_args = tuple(extra_args)
        self._local = threading.local()
        self._starts = 0
        self.process = ManagedProcess(
            "bitcoind",
            [bitcoind_program(), f"-datadir={self.data_directory}", *self._extra_args],
            log_path=self.directory / "bitcoind.log",
            cwd=self.directory,
        )

    def __repr__(self) -> str:
        return f"Bitcoind(rpc_port={self.rpc_port})"

    @property
    def rpc_url(self) -> str:
        """Address of JSON-RPC with user and password; the same after each restart. Secret."""
        return f"http://{RPC_USER}:{self._password}@127.0.0.1:{self.rpc_port}"

    @property
    def rest_url(self) -> str:
        """Address of REST, which asks for no password and serves public data only, without `/rest`."""
        return f"http://127.0.0.1:{self.rpc_port}"

    @property
    def zmq_url(self) -> str:
        """Address of the publisher of `hashblock`, `rawtx` and `sequence`."""
        return f"tcp://127.0.0.1:{self.zmq_port}"

    def start(self) -> None:
        """Starts the node and waits until RPC answers and the wallets are loaded.

        Raises:
            StartFailed: it did not start.
        """
        write_private(self.data_directory / "bitcoin.conf", self._configuration())
        self.process.start()
        self._starts += 1
        self.process.wait_ready(self._answers, timeout=60)

    def stop(self) -> None:
        """Stops the node in good order; mempool and wallets are saved. Again changes nothing."""
        self.process.stop(timeout=60)

    def kill(self) -> None:
        """Kills the node at once; what it had not flushed is gone. Again changes nothing."""
        self.process.kill()

    def close(self) -> None:
        """Stops the node for good and gives up its ports. The data stay."""
        self.stop()
        for port in (self.rpc_port, self.zmq_port, self.p2p_port):
            if port is not None:
                release_port(port)

    def rpc(self, method: str, *params: object) -> Any:
        """Calls the node, outside of any wallet. Numbers with decimals come back as `Decimal`.

        Raises:
            bitcoinrpc.authproxy.JSONRPCException: the node refused; `.code` says why.
            OSError, http.client.HTTPException: the node cannot be reached, or the connection broke.
        """
        return self.call("", method, *params)

    def scan_sats(self, descriptors: Sequence[str], last_index: int) -> int:
        """What its UTXO set has for descriptors, in satoshis. Waits for the scans of others: it does one at a time.

        Args:
            descriptors: each with `*`.
            last_index: up to which index they are derived.

        Raises:
            DevnetError: others scan all the time.
        """
        from bitcoinrpc.authproxy import JSONRPCException

        wanted = [{"desc": text, "range": last_index} for text in descriptors]
        found: dict[str, Any] = {}

        def scanned() -> bool:
            try:
                found.update(self.rpc("scantxoutset", "start", wanted))
            except JSONRPCException as error:
                if error.code != _INVALID_PARAMETER:
                    raise
                return False
            return True

        wait_until(scanned, timeout=_SCAN_SECONDS, what="other scans of the UTXO set")
        return btc_to_sats(found["total_amount"])

    def call(self, path: str, method: str, *params: object) -> Any:
        """Calls the node at a path below its RPC address; see `rpc`."""
        from bitcoinrpc.authproxy import AuthServiceProxy

        connection = self._connection()
        proxy = AuthServiceProxy(f"{self.rpc_url}{path}", timeout=_RPC_TIMEOUT_SECONDS, connection=connection)
        try:
            return getattr(proxy, method)(*params)
        except (OSError, http.client.HTTPException):
            # What broke in mid-request serves no further one; the next request opens a new one by itself.
            connection.close()
            raise

    def wallet(self, name: str) -> OutsideWallet:
        """Returns the node's wallet of that name, made if there is none and loaded at each start."""
        if name not in self.rpc("listwallets"):
            known = {entry["name"] for entry in self.rpc("listwalletdir")["wallets"]}
            if name in known:
                self.rpc("loadwallet", name, True)
            else:
                # name, disable_private_keys, blank, passphrase, avoid_reuse, descriptors, load_on_startup
                self.rpc("createwallet", name, False, False, "", False, True, True)
        return OutsideWallet(self, name)

    def connect(self, other: Bitcoind) -> None:
        """Joins this node to another one that listens, and waits until both have noticed.

        Raises:
            DeadlineExceeded: they did not find each other.
        """
        if other.p2p_port is None:
            raise ValueError("the other node was made without Peers.LISTEN")
        self.rpc("addnode", f"127.0.0.1:{other.p2p_port}", "onetry")
        wait_until(lambda: bool(self.rpc("getpeerinfo")), timeout=20, what="two nodes to connect")

    def _configuration(self) -> str:
        zmq = "".join(f"zmqpub{topic}={self.zmq_url}\n" for topic in ("hashblock", "rawtx", "sequence"))
        listening = "listen=0\n"
        if self.p2p_port is not None:
            listening = f"listen=1\nbind=127.0.0.1:{self.p2p_port}\n"
        return (
            "regtest=1\n[regtest]\nserver=1\nrest=1\nprinttoconsole=1\nnodebuglogfile=1\n"
            f"rpcbind=127.0.0.1\nrpcallowip=127.0.0.1\nrpcport={self.rpc_port}\nrpcworkqueue=256\nrpcthreads=8\n"
            f"rpcauth={RPC_USER}:{_rpcauth(self._password)}\n"
            "fallbackfee=0.0001\ndnsseed=0\nfixedseeds=0\ndiscover=0\nnatpmp=0\nlistenonion=0\n"
            f"{listening}{zmq}"
        )

    def _answers(self) -> bool:
        from bitcoinrpc.authproxy import JSONRPCException

        try:
            self.rpc("getblockchaininfo")
        except (
            JSONRPCException,
            OSError,
            http.client.HTTPException,
        ):  # warming up, not listening yet, or no reply
            return False
        return True

    def _connection(self) -> http.client.HTTPConnection:
        """The connection of this thread to this run of the node: a shared one mixes up replies."""
        if getattr(self._local, "starts", None) != self._starts:
            self._local.starts = self._starts
            self._local.kept = _KeptConnection(self.rpc_port)
        kept: _KeptConnection = self._local.kept
        return kept.fresh()


class _KeptConnection:
    """Closes its connection when the thread that it belongs to ends, for `http.client` does not."""

    def __init__(self, port: int) -> None:
        self.http = http.client.HTTPConnection("127.0.0.1", port, timeout=_RPC_TIMEOUT_SECONDS)
        self._used_at = time.monotonic()

    def fresh(self) -> http.client.HTTPConnection:
        """The connection, opened anew by its next request if it has been idle."""
        if time.monotonic() - self._used_at > _IDLE_SECONDS:
            self.http.close()
        self._used_at = time.monotonic()
        return self.http

    def __del__(self) -> None:
        self.http.close()


class OutsideWallet:
    """A wallet of the node that plays somebody outside: a payer, a payee, a miner."""

    def __init__(self, node: Bitcoind, name: str) -> None:
        """Names a wallet that the node has loaded; use `Bitcoind.wallet`."""
        self.node = node
        self.name = name

    def rpc(self, method: str, *params: object) -> Any:
        """Calls the node in the context of this wallet; see `Bitcoind.rpc`."""
        return self.node.call(f"/wallet/{self.name}", method, *params)

    def address(self, address_type: str = "bech32") -> str:
        """Returns a fresh address: `legacy`, `p2sh-segwit`, `bech32` or `bech32m`."""
        return str(self.rpc("getnewaddress", "", address_type))

    def mine(self, blocks: int) -> list[str]:
        """Mines blocks to a fresh address of this wallet and returns their hashes, oldest first.

        The address is fresh so that a block mined after a reorg never equals the one that was undone.
        """
        return [str(block) for block in self.node.rpc("generatetoaddress", blocks, self.address())]

    def fund(self) -> None:
        """Mines until this wallet has at least one mature coinbase output to spend."""
        self.mine(1)
        while self.balance_sats() == 0:
            self.mine(_COINBASE_MATURITY_BLOCKS)

    def balance_sats(self) -> int:
        """Returns what this wallet can spend: confirmed and mature, or its own change."""
        return btc_to_sats(self.rpc("getbalances")["mine"]["trusted"])

    def send(self, address: str, amount_sats: int, *, feerate_sat_vb: int = 10) -> str:
        """Pays an address, opting in to replacement, and returns the txid."""
        outputs = [{address: sats_to_btc(amount_sats)}]
        options = {"replaceable": True, "fee_rate": feerate_sat_vb}
        return str(self.rpc("send", outputs, None, "unset", None, options)["txid"])

    def send_many(self, amounts_sats: dict[str, int], *, feerate_sat_vb: int = 10) -> str:
        """Pays many addresses in one transaction and returns its txid."""
        outputs = [{address: sats_to_btc(amount)} for address, amount in amounts_sats.items()]
        options = {"replaceable": True, "fee_rate": feerate_sat_vb}
        return str(self.rpc("send", outputs, None, "unset", None, options)["txid"])


def sats_to_btc(amount_sats: int) -> str:
    """Returns an amount as the decimal string that bitcoind takes: `sats_to_btc(150) == "0.00000150"`."""
    whole, rest = divmod(amount_sats, _SATS_PER_BTC)
    return f"{whole}.{rest:08d}"


def btc_to_sats(amount: Any) -> int:
    """Returns satoshis of an amount as bitcoind gives it (`Decimal`).

    Raises:
        ValueError: it is no whole number of satoshis.
    """
    units = amount * _SATS_PER_BTC
    if units != int(units):
        raise ValueError(f"{amount} BTC is no whole number of satoshis")
    return int(units)


def _rpcauth(password: str) -> str:
    """bitcoind's salted form of a password: `salt$HMAC-SHA256(salt, password)` (its `share/rpcauth`)."""
    salt = secrets.token_hex(16)
    return f"{salt}${hmac.new(salt.encode(), password.encode(), hashlib.sha256).hexdigest()}"
