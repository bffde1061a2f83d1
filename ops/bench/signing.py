"""Guarded signing by the daemon, eight requests in flight, beside one bare PKCS#11 session of that HSM.

And how long the daemon takes to start when it knows 100,000 addresses, beside one that knows none.
"""

from __future__ import annotations

import base64
import itertools
import os
import secrets
import selectors
import shutil
import socket
import statistics
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from chains.btc.hd import AccountKey
from chains.btc.network import NETWORKS
from chains.btc.psbt import PsbtInput, build_psbt
from chains.btc.tx import Outpoint, Transaction, TxIn, TxOut
from chains.eth.address import checksummed, keccak256, raw_address
from chains.eth.tx import UnsignedTx
from chains.types import TxId
from ops.bench.compare import Row, Side, interleave
from ops.devnet.files import part_directory, write_private
from ops.devnet.process import ManagedProcess
from ops.devnet.softhsm import SoftHsmToken
from ops.stack import config
from ops.stack.keys import Person, person, private_directory
from ops.stack.keyset import bitcoin_keyset, make_signer, mark_directory, signer_directory
from ops.stack.listing import ASSET, CHAIN, bitcoin, evm
from ops.stack.networks import ETHEREUM
from ops.stack.quorum import CallerGrant, make_bundle, make_quorum, publish
from policies.bundle import BitcoinKeyset, EvmKeyset
from policies.canonical import decoder_for
from policies.intent import Evidence, Intent, Kind, Order
from policies.keys import sign_order
from policies.rules import Rule
from signers.client import SignerClient, UnixAddress
from signers.config import JOURNAL_FILE, MARK_FILE
from signers.journal.book import Book
from signers.journal.journal import Journal
from signers.journal.mark import MarkFile
from signers.keys.keyset import EvmKeysetRecord, KeysetRecord
from signers.ports import SignerUnavailable, SignRequest, SignResponse
from signers.wire import REPLIES, Call, Disconnected, read_frame, write_frame

_IN_FLIGHT: Final = 8
_REQUESTS: Final = 240
_REPEATS: Final = 5
_KNOWN: Final = 100_000
_PAYMENT_UNITS: Final = 500_000
_COIN_SATS: Final = 1_000_000
_FEE_SATS: Final = 1_000
_GAS: Final = 21_000
_GAS_PRICE_WEI: Final = 10**9
_SECP256K1: Final = bytes.fromhex("06052b8104000a")
_HARDENED: Final = 2**31
_PAYMENT_ADDRESS: Final = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"
_PAYMENT_SCRIPT: Final = bytes.fromhex("0014751e76e8199196d454941c45d1b3a323f1433bd6")
_ENOUGH: Final = str(10**30)


def rows(progress: Callable[[str], None]) -> Iterator[Row]:
    """Signatures a second. Ours: decode, check all, journal on disk, sign, verify; one coin or ten a request, or a
    payment from an EVM key, whose signature is made in the HSM and goes to the disk as well."""
    directory = part_directory("strongroom-bench-")
    try:
        progress("signing: making a token and a signer")
        token = SoftHsmToken(directory / "softhsm", "bench")
        token.create()
        os.environ.update(token.env)  # before this process loads the library, for the peer
        caller, btc, eth = _ceremony(directory, token)
        yield _start(directory, token, (btc, eth), progress)
        socket = directory / "signer.sock"
        with _daemon(directory, token, socket, (btc, eth)) as signer:
            signer.wait_ready(socket.exists)
            asker, bare = _Asker(socket), _bare_session(token)
            desk = _Desk(btc, caller)
            try:
                yield _compare("signing", 1, asker, bare, desk.request, progress)
                yield _compare("signing-batches-of-10", 10, asker, bare, desk.request, progress)
                yield _compare("signing-evm", 1, asker, bare, _EvmDesk(eth, caller).request, progress)
            except (OSError, Disconnected) as error:
                raise AssertionError(f"{error}; exit code {signer.exit_code}: {signer.log_tail()}") from error
            asker.close()
    finally:
        shutil.rmtree(directory)


def _daemon(
    directory: Path, token: SoftHsmToken, socket: Path, keysets: tuple[BitcoinKeyset, EvmKeyset]
) -> ManagedProcess:
    config_path = _config(directory, token, socket, keysets)
    return ManagedProcess(
        "signer",
        [sys.executable, "-m", "signers.daemon", "--config", config_path],
        log_path=directory / "signer.log",
        env={**os.environ, **token.env, "PYTHONFAULTHANDLER": "1"},
    )


def _start(
    directory: Path,
    token: SoftHsmToken,
    keysets: tuple[BitcoinKeyset, EvmKeyset],
    progress: Callable[[str], None],
) -> Row:
    """From the start of the process until it has answered. Keys are derived when they are needed, so both are alike."""
    many = private_directory(directory / "many")
    shutil.copy2(directory / "bundle.json", many)
    for part in (signer_directory(directory), mark_directory(directory)):
        shutil.copytree(part, many / part.name, dirs_exist_ok=True)
    progress(f"signing-start: writing {_KNOWN} attested addresses into a journal")
    _attest_many(many, keysets[0])
    progress("signing-start: starting signers")
    seconds: dict[Path, list[float]] = {many: [], directory: []}
    for _ in range(_REPEATS):
        for place, found in seconds.items():
            found.append(_seconds_to_answer(place, token, keysets))
    ours, peer = (statistics.median(found) * 1000 for found in seconds.values())
    return Row(
        "signing-start", ours, peer, "the same signer, which knows no address yet", "ms to its first answer"
    )


def _seconds_to_answer(
    directory: Path, token: SoftHsmToken, keysets: tuple[BitcoinKeyset, EvmKeyset]
) -> float:
    socket = directory / "start.sock"
    client = SignerClient(UnixAddress(socket))

    def answers() -> bool:
        try:
            return bool(client.status().keysets)
        except SignerUnavailable:
            return False

    begun = time.perf_counter()
    with _daemon(directory, token, socket, keysets) as signer:
        signer.wait_ready(answers)
        took = time.perf_counter() - begun
        client.close()
    return took


def _attest_many(directory: Path, keyset: BitcoinKeyset) -> None:
    """What a signer's journal and log have after so many deposit addresses."""
    marks = MarkFile.open(mark_directory(directory) / MARK_FILE)
    journal = Journal.open(signer_directory(directory) / JOURNAL_FILE, marks)
    now = int(time.time())

    def attest(first: int, book: Book) -> None:
        for index in range(first, first + _KNOWN // 10):
            book.record_attestation(keyset.id, 0, index, f"customer-{index}", ASSET, now=now)

    for tenth in range(10):
        journal.write(partial(attest, tenth * _KNOWN // 10))
    journal.close()


def _ceremony(directory: Path, token: SoftHsmToken) -> tuple[Person, BitcoinKeyset, EvmKeyset]:
    """A bundle whose caps let thousands of payments through in one run."""
    quorum = make_quorum(directory / "officers")
    root = quorum.trust_root(minimum_version=1)
    caller = person(directory / "callers", "bench", organisation="bench")
    grants = [CallerGrant(caller, ("withdrawals:sign",))]
    first, second = make_signer(directory, token, root, [ETHEREUM])
    btc, eth = bitcoin_keyset(first), _evm_keyset(second)
    tokens = {each.asset: _address(each.name) for each in ETHEREUM.tokens}
    listings = [bitcoin(btc), evm(ETHEREUM, "00" * 32, eth, tokens)]
    bundle = make_bundle(version=1, listings=listings, callers=grants, quorum=quorum)
    replace = msgspec.structs.replace
    bundle = replace(
        bundle,
        networks=tuple(replace(network, fee_window_cap=_ENOUGH) for network in bundle.networks),
        caps=tuple(replace(cap, window_cap=_ENOUGH) for cap in bundle.caps),
        breakers=tuple(replace(breaker, value_cap=_ENOUGH) for breaker in bundle.breakers),
        policy=replace(bundle.policy, rules=tuple(map(_unlimited, bundle.policy.rules)), cases=()),
    )
    publish(directory, quorum.sign(bundle), root)
    return caller, btc, eth


def _unlimited(rule: Rule) -> Rule:
    """A rule whose window is counted as ever, and never full."""
    limit = None if rule.limit is None else msgspec.structs.replace(rule.limit, at_most=_ENOUGH)
    return msgspec.structs.replace(rule, limit=limit)


def _evm_keyset(record: KeysetRecord) -> EvmKeyset:
    """What the bundle says of the key; no chain is there, so its contracts are names only."""
    assert isinstance(record, EvmKeysetRecord)
    return EvmKeyset(
        id=record.id,
        chain=ETHEREUM.chain,
        tier="hot",
        attestation_key=record.attestation_key,
        address=record.address,
        factory=_address("factory"),
        forwarder="ab" * 32,
        payout=_address("payout"),
    )


def _address(name: str) -> str:
    return checksummed(keccak256(name.encode())[12:])


def _config(
    directory: Path, token: SoftHsmToken, socket: Path, keysets: tuple[BitcoinKeyset, EvmKeyset]
) -> Path:
    path = directory / "signer.toml"
    content = {
        "environment": "trial",
        "directory": str(signer_directory(directory)),
        "mark_directory": str(mark_directory(directory)),
        "bundle_path": str(directory / "bundle.json"),
        "tokens": {"main": config.token_section(token)},
        "keys": {keyset.id: config.key_section(keyset) for keyset in keysets},
        # What is measured is signing, not how well it is held back.
        "listen": {"unix": str(socket), "rates": {"sign": {"per_second": 1_000_000, "burst": 1_000_000}}},
    }
    write_private(path, config.to_toml(content))
    return path


def _compare(
    name: str,
    size: int,
    asker: _Asker,
    bare: Callable[[bytes], object],
    request: Callable[[int], SignRequest],
    progress: Callable[[str], None],
) -> Row:
    """Requests of `size` signatures each; the rates are of signatures."""
    requests = max(_REQUESTS // size, _IN_FLIGHT)
    total = requests * (_REPEATS + 1)
    progress(f"{name}: writing {total} requests")
    waiting = [_call(request(size)) for _ in range(total)]
    waiting.reverse()  # they are taken from the end, and a signer takes nonces only near those it knows
    digests = [secrets.token_bytes(32) for _ in range(requests * size)]

    def ours() -> None:
        answers = asker.ask([waiting.pop() for _ in range(requests)])
        if not all(len(answer.signatures) == size for answer in answers):
            raise AssertionError("the signer did not sign every input")

    def peer() -> None:
        for digest in digests:
            bare(digest)

    progress(f"{name}: signing")
    ours_rate, peer_rate = interleave(Side(ours, requests * size), Side(peer, len(digests)), repeats=_REPEATS)
    peer_name = "SoftHSM: one bare PKCS#11 session, C_Sign of a digest, unchecked"
    return Row(name, ours_rate, peer_rate, peer_name, "signatures/s")


class _Asker:
    """Keeps eight calls in flight, on as many connections, by one thread: what is measured is signing, not asking."""

    def __init__(self, path: Path) -> None:
        self._ready = selectors.DefaultSelector()
        self._connections = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(_IN_FLIGHT)]
        for connection in self._connections:
            connection.connect(str(path))
            self._ready.register(connection, selectors.EVENT_READ)

    def ask(self, payloads: list[bytes]) -> list[SignResponse]:
        """Make these calls; what was answered, as the answers came. Raises AssertionError: one was not signed."""
        waiting, answers = iter(payloads), list[SignResponse]()
        for connection, payload in zip(self._connections, waiting, strict=False):
            write_frame(connection, payload)
        while len(answers) < len(payloads):
            for key, _ in self._ready.select():
                ready = key.fileobj
                assert isinstance(ready, socket.socket)
                reply = REPLIES.decode(read_frame(ready))
                if (following := next(waiting, None)) is not None:
                    write_frame(ready, following)
                if reply.refused is not None or reply.error is not None:
                    raise AssertionError(f"not signed: {reply.refused or reply.error}")
                answers.append(decoder_for(SignResponse).decode(reply.ok))
        return answers

    def close(self) -> None:
        """Close all connections."""
        self._ready.close()
        for connection in self._connections:
            connection.close()


def _call(request: SignRequest) -> bytes:
    """A request as it is sent."""
    return msgspec.json.encode(Call(call="sign", body=msgspec.Raw(msgspec.json.encode(request))))


class _Desk:
    """Writes requests as the workers would: coins of ours, payments that customers ordered, and change."""

    def __init__(self, keyset: BitcoinKeyset, caller: Person) -> None:
        self._keyset, self._caller = keyset, caller
        self._account = AccountKey.parse(keyset.account, NETWORKS["regtest"], keyset.script)
        self._root = tuple(int(step[:-1]) + _HARDENED for step in keyset.account_path.split("/")[1:])
        self._numbers = itertools.count()

    def request(self, size: int) -> SignRequest:
        """A request that no other one conflicts with."""
        orders = [_order(self._caller, CHAIN, ASSET, _PAYMENT_ADDRESS, _FEE_SATS * 2) for _ in range(size)]
        inputs = [self._coin(next(self._numbers)) for _ in range(size)]
        change_sats = size * (_COIN_SATS - _PAYMENT_UNITS - _FEE_SATS)
        transaction = Transaction(
            2,
            tuple(TxIn(entry.outpoint, entry.sequence) for entry in inputs),
            (
                *(TxOut(_PAYMENT_UNITS, _PAYMENT_SCRIPT) for _ in orders),
                TxOut(change_sats, self._account.script(1, 0)),
            ),
        )
        change = {size: (self._account.pubkey(1, 0), (*self._root, 1, 0))}
        psbt = build_psbt(transaction, inputs, change, self._keyset.fingerprint)
        return SignRequest(
            chain=CHAIN,
            keyset=self._keyset.id,
            intents=tuple(_intent(order, self._keyset.id) for order in orders),
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


class _EvmDesk:
    """Writes requests for plain payments, one nonce each."""

    def __init__(self, keyset: EvmKeyset, caller: Person) -> None:
        self._keyset, self._caller = keyset, caller
        self._payee = _address("payee")
        self._nonces = itertools.count()

    def request(self, _size: int) -> SignRequest:
        """A request that no other one conflicts with; a transaction of an account has one signature."""
        order = _order(self._caller, ETHEREUM.chain, ETHEREUM.native, self._payee, _GAS * _GAS_PRICE_WEI)
        transaction = UnsignedTx(
            chain_id=ETHEREUM.chain_id,
            nonce=next(self._nonces),
            max_priority_fee_per_gas_wei=1,
            max_fee_per_gas_wei=_GAS_PRICE_WEI,
            gas_limit=_GAS,
            to=raw_address(self._payee),
            value_wei=order.units,
        )
        return SignRequest(
            chain=ETHEREUM.chain,
            keyset=self._keyset.id,
            intents=(_intent(order, self._keyset.id),),
            evidence=Evidence(orders=(sign_order(order, self._caller.key),)),
            transaction=base64.b64encode(transaction.encode()).decode(),
        )


def _order(caller: Person, chain: str, asset: str, destination: str, ceiling: int) -> Order:
    return Order(
        v=1,
        id=str(uuid.uuid4()),
        caller=caller.id,
        customer="alice",
        chain=chain,
        asset=asset,
        destination=destination,
        amount=str(_PAYMENT_UNITS),
        fee_ceiling=str(ceiling),
        expires_at=int(time.time()) + 3600,
    )


def _intent(order: Order, keyset: str) -> Intent:
    return Intent(
        v=1,
        kind=Kind.PAYMENT,
        id=order.id,
        chain=order.chain,
        keyset=keyset,
        tier="hot",
        asset=order.asset,
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
