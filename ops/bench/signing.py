"""Guarded signing by the daemon, eight requests in flight, beside one bare PKCS#11 session of that HSM."""

from __future__ import annotations

import base64
import itertools
import os
import secrets
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import msgspec

from chains.btc.hd import AccountKey
from chains.btc.network import NETWORKS
from chains.btc.psbt import PsbtInput, build_psbt
from chains.btc.tx import Outpoint, Transaction, TxIn, TxOut
from chains.types import TxId
from ops.bench.compare import Row, Side, interleave
from ops.devnet.files import part_directory, write_private
from ops.devnet.process import ManagedProcess
from ops.devnet.softhsm import SoftHsmToken
from ops.stack import config
from ops.stack.keys import Person, person
from ops.stack.keyset import BTC_KEYSET, bitcoin_keyset, make_signer, mark_directory, signer_directory
from ops.stack.listing import ASSET, BTC_SATS, CHAIN, bitcoin
from ops.stack.quorum import CallerGrant, make_bundle, make_quorum, publish
from policies.bundle import BitcoinKeyset
from policies.intent import Evidence, Intent, Kind, Order
from policies.keys import sign_order
from signers.client import SignerClient, UnixAddress
from signers.ports import SignerUnavailable, SignRequest

_IN_FLIGHT: Final = 8
_REQUESTS: Final = 240
_REPEATS: Final = 5
_PAYMENT_SATS: Final = 500_000
_COIN_SATS: Final = 1_000_000
_FEE_SATS: Final = 1_000
_SECP256K1: Final = bytes.fromhex("06052b8104000a")
_HARDENED: Final = 2**31
_PAYMENT_ADDRESS: Final = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"
_PAYMENT_SCRIPT: Final = bytes.fromhex("0014751e76e8199196d454941c45d1b3a323f1433bd6")
_ENOUGH: Final = str(20_000_000 * BTC_SATS)


def rows(progress: Callable[[str], None]) -> Iterator[Row]:
    """Signatures a second. Ours: decode, check all, journal on disk, sign, verify; one coin or ten a request."""
    directory = part_directory("strongroom-bench-")
    try:
        progress("signing: making a token and a signer")
        token = SoftHsmToken(directory / "softhsm", "bench")
        token.create()
        os.environ.update(token.env)  # before this process loads the library, for the peer
        caller, keyset = _ceremony(directory, token)
        socket = directory / "signer.sock"
        signer = ManagedProcess(
            "signer",
            [sys.executable, "-m", "signers.daemon", "--config", _config(directory, token, socket)],
            log_path=directory / "signer.log",
            env={**os.environ, **token.env, "PYTHONFAULTHANDLER": "1"},
        )
        with signer:
            signer.wait_ready(socket.exists)
            client, bare = SignerClient(UnixAddress(socket)), _bare_session(token)
            desk = _Desk(keyset, caller)
            try:
                yield _compare("signing", 1, client, bare, desk, progress)
                yield _compare("signing-batches-of-10", 10, client, bare, desk, progress)
            except SignerUnavailable as error:
                raise AssertionError(f"{error}; exit code {signer.exit_code}: {signer.log_tail()}") from error
            client.close()
    finally:
        shutil.rmtree(directory)


def _ceremony(directory: Path, token: SoftHsmToken) -> tuple[Person, BitcoinKeyset]:
    """A bundle whose caps let thousands of payments through in one run."""
    quorum = make_quorum(directory / "officers")
    root = quorum.trust_root(minimum_version=1)
    caller = person(directory / "callers", "bench", organisation="bench")
    grants = [CallerGrant(caller, ("withdrawals:sign",))]
    [record] = make_signer(directory, token, root)
    keyset = bitcoin_keyset(record)
    bundle = make_bundle(version=1, listings=[bitcoin(keyset)], callers=grants, quorum=quorum)
    replace = msgspec.structs.replace
    bundle = replace(
        bundle,
        networks=(replace(bundle.networks[0], fee_window_cap=_ENOUGH),),
        caps=(replace(bundle.caps[0], window_cap=_ENOUGH),),
    )
    publish(directory, quorum.sign(bundle), root)
    return caller, keyset


def _config(directory: Path, token: SoftHsmToken, socket: Path) -> Path:
    path = directory / "signer.toml"
    content = {
        "directory": str(signer_directory(directory)),
        "mark_directory": str(mark_directory(directory)),
        "bundle_path": str(directory / "bundle.json"),
        "keysets": [BTC_KEYSET],
        "token": {
            "module": str(token.module_path),
            "label": token.label,
            "pin_file": str(token.pin_path),
        },
        "listen": {"unix": str(socket)},
    }
    write_private(path, config.to_toml(content))
    return path


def _compare(
    name: str,
    size: int,
    client: SignerClient,
    bare: Callable[[bytes], object],
    desk: _Desk,
    progress: Callable[[str], None],
) -> Row:
    """Requests of `size` coins and as many payments each; the rates are of signatures."""
    requests = max(_REQUESTS // size, _IN_FLIGHT)
    total = requests * (_REPEATS + 1)
    progress(f"{name}: writing {total} requests")
    waiting = [desk.request(size) for _ in range(total)]
    digests = [secrets.token_bytes(32) for _ in range(requests * size)]
    with ThreadPoolExecutor(_IN_FLIGHT) as pool:

        def ours() -> None:
            batch = [waiting.pop() for _ in range(requests)]
            answers = list(pool.map(client.sign, batch))
            if not all(len(answer.signatures) == size for answer in answers):
                raise AssertionError("the signer did not sign every input")

        def peer() -> None:
            for digest in digests:
                bare(digest)

        progress(f"{name}: signing")
        ours_rate, peer_rate = interleave(
            Side(ours, requests * size), Side(peer, len(digests)), repeats=_REPEATS
        )
    peer_name = "SoftHSM: one bare PKCS#11 session, C_Sign of a digest, unchecked"
    return Row(name, ours_rate, peer_rate, peer_name, "signatures/s")


class _Desk:
    """Writes requests as the workers would: coins of ours, payments that customers ordered, and change."""

    def __init__(self, keyset: BitcoinKeyset, caller: Person) -> None:
        self._keyset, self._caller = keyset, caller
        self._account = AccountKey.parse(keyset.account, NETWORKS["regtest"])
        self._root = tuple(int(step[:-1]) + _HARDENED for step in keyset.account_path.split("/")[1:])
        self._numbers = itertools.count()

    def request(self, size: int) -> SignRequest:
        """A request that no other one conflicts with."""
        orders = [self._order() for _ in range(size)]
        inputs = [self._coin(next(self._numbers)) for _ in range(size)]
        change_sats = size * (_COIN_SATS - _PAYMENT_SATS - _FEE_SATS)
        transaction = Transaction(
            2,
            tuple(TxIn(entry.outpoint, entry.sequence) for entry in inputs),
            (
                *(TxOut(_PAYMENT_SATS, _PAYMENT_SCRIPT) for _ in orders),
                TxOut(change_sats, self._account.script(1, 0)),
            ),
        )
        change = {size: (self._account.pubkey(1, 0), (*self._root, 1, 0))}
        psbt = build_psbt(transaction, inputs, change, self._keyset.fingerprint)
        return SignRequest(
            chain=CHAIN,
            keyset=self._keyset.id,
            intents=tuple(self._intent(order) for order in orders),
            evidence=Evidence(orders=tuple(sign_order(order, self._caller.key) for order in orders)),
            transaction=base64.b64encode(psbt).decode(),
        )

    def _coin(self, number: int) -> PsbtInput:
        """A coin of ours, with the whole transaction that made it."""
        coin = Transaction(
            2,
            (TxIn(Outpoint(TxId(secrets.token_hex(32)), 0)),),
            (TxOut(_COIN_SATS, self._account.script(0, number)),),
        )
        path = (*self._root, 0, number)
        outpoint = Outpoint(coin.txid, 0)
        return PsbtInput(
            outpoint, TxIn(outpoint).sequence, coin.serialize(), path, self._account.pubkey(0, number)
        )

    def _order(self) -> Order:
        return Order(
            v=1,
            id=str(uuid.uuid4()),
            caller=self._caller.id,
            customer="alice",
            chain=CHAIN,
            asset=ASSET,
            destination=_PAYMENT_ADDRESS,
            amount=str(_PAYMENT_SATS),
            fee_ceiling=str(_FEE_SATS * 2),
            expires_at=int(time.time()) + 3600,
        )

    def _intent(self, order: Order) -> Intent:
        return Intent(
            v=1,
            kind=Kind.PAYMENT,
            id=order.id,
            chain=CHAIN,
            keyset=self._keyset.id,
            tier="hot",
            asset=ASSET,
            destination=order.destination,
            amount=order.amount,
            order=order.digest_hex(),
            policy_version=1,
        )


def _bare_session(token: SoftHsmToken) -> Callable[[bytes], object]:
    """C_Sign with a fresh secp256k1 key of the same token, in this process."""
    import PyKCS11

    library = PyKCS11.PyKCS11Lib()
    library.load(str(token.module_path))
    slot = next(
        s
        for s in library.getSlotList(tokenPresent=True)
        if str(library.getTokenInfo(s).label).rstrip("\0 ") == token.label
    )
    session = library.openSession(slot, PyKCS11.CKF_SERIAL_SESSION | PyKCS11.CKF_RW_SESSION)
    session.login(token.user_pin())
    public = [
        (PyKCS11.CKA_TOKEN, PyKCS11.CK_FALSE),
        (PyKCS11.CKA_VERIFY, PyKCS11.CK_TRUE),
        (PyKCS11.CKA_EC_PARAMS, tuple(_SECP256K1)),
    ]
    private = [(PyKCS11.CKA_TOKEN, PyKCS11.CK_FALSE), (PyKCS11.CKA_SIGN, PyKCS11.CK_TRUE)]
    _, key = session.generateKeyPair(public, private, mecha=PyKCS11.Mechanism(PyKCS11.CKM_EC_KEY_PAIR_GEN))
    mechanism = PyKCS11.Mechanism(PyKCS11.CKM_ECDSA)
    return lambda digest: session.sign(key, digest, mechanism)
