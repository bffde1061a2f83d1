"""Guarded signing by the daemon, eight requests in flight, beside one bare PKCS#11 session of that HSM."""

from __future__ import annotations

import base64
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
from ops.stack.keyset import HOT_KEYSET, make_signer, mark_directory, signer_directory
from ops.stack.quorum import ASSET, BTC_SATS, CHAIN, CallerGrant, make_bundle, make_quorum, publish
from policies.bundle import Bundle, KeysetEntry
from policies.intent import Evidence, Intent, Kind, Order
from policies.keys import sign_order
from signers.client import SignerClient, UnixAddress
from signers.ports import SignRequest

_IN_FLIGHT: Final = 8
_REQUESTS: Final = 240
_REPEATS: Final = 5
_PAYMENT_SATS: Final = 500_000
_COIN_SATS: Final = 1_000_000
_FEE_SATS: Final = 1_000
_SECP256K1: Final = bytes.fromhex("06052b8104000a")
_HARDENED: Final = 2**31
_ENOUGH: Final = str(20_000_000 * BTC_SATS)


def rows(progress: Callable[[str], None]) -> Iterator[Row]:
    """Signatures a second. Ours: decode, check all, journal on disk, sign, verify; one input a request."""
    directory = part_directory("strongroom-bench-")
    try:
        progress("signing: making a token and a signer")
        token = SoftHsmToken(directory / "softhsm", "bench")
        token.create()
        os.environ.update(token.env)  # before this process loads the library, for the peer
        caller, bundle = _ceremony(directory, token)
        socket = directory / "signer.sock"
        signer = ManagedProcess(
            "signer",
            [sys.executable, "-m", "signers.daemon", "--config", _config(directory, token, socket)],
            log_path=directory / "signer.log",
            env={**os.environ, **token.env},
        )
        with signer:
            signer.wait_ready(socket.exists)
            yield _compare(SignerClient(UnixAddress(socket)), token, caller, bundle, progress)
    finally:
        shutil.rmtree(directory)


def _ceremony(directory: Path, token: SoftHsmToken) -> tuple[Person, Bundle]:
    """A bundle whose caps let thousands of payments through in one run."""
    quorum = make_quorum(directory / "officers")
    root = quorum.trust_root(minimum_version=1)
    caller = person(directory / "callers", "bench", organisation="bench")
    grants = [CallerGrant(caller, ("withdrawals:sign",))]
    keyset = make_signer(directory, token, root)
    bundle = make_bundle(version=1, keyset=keyset, callers=grants, quorum=quorum)
    replace = msgspec.structs.replace
    bundle = replace(
        bundle,
        networks=(replace(bundle.networks[0], fee_window_cap=_ENOUGH),),
        caps=(replace(bundle.caps[0], window_cap=_ENOUGH),),
    )
    publish(directory, quorum.sign(bundle), root)
    return caller, bundle


def _config(directory: Path, token: SoftHsmToken, socket: Path) -> Path:
    path = directory / "signer.toml"
    content = {
        "directory": str(signer_directory(directory)),
        "mark_directory": str(mark_directory(directory)),
        "bundle_path": str(directory / "bundle.json"),
        "keysets": [HOT_KEYSET],
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
    client: SignerClient,
    token: SoftHsmToken,
    caller: Person,
    bundle: Bundle,
    progress: Callable[[str], None],
) -> Row:
    account = AccountKey.parse(bundle.keysets[0].account, NETWORKS["regtest"])
    total = _REQUESTS * (_REPEATS + 1)
    progress(f"signing: writing {total} requests")
    waiting = [_request(number, account, bundle.keysets[0], caller) for number in range(total)]
    bare = _bare_session(token)
    digests = [secrets.token_bytes(32) for _ in range(_REQUESTS)]
    with ThreadPoolExecutor(_IN_FLIGHT) as pool:

        def ours() -> None:
            batch = [waiting.pop() for _ in range(_REQUESTS)]
            answers = list(pool.map(client.sign, batch))
            if not all(len(answer.signatures) == 1 for answer in answers):
                raise AssertionError("the signer did not sign every input")

        def peer() -> None:
            for digest in digests:
                bare(digest)

        progress("signing: signing")
        ours_rate, peer_rate = interleave(Side(ours, _REQUESTS), Side(peer, _REQUESTS), repeats=_REPEATS)
    client.close()
    name = "SoftHSM: one bare PKCS#11 session, C_Sign of a digest, unchecked"
    return Row("signing", ours_rate, peer_rate, name, "signatures/s")


def _request(number: int, account: AccountKey, keyset: KeysetEntry, caller: Person) -> SignRequest:
    """A payment from one coin with change, as the workers would ask for it."""
    coin = Transaction(
        2,
        (TxIn(Outpoint(TxId(secrets.token_hex(32)), 0)),),
        (TxOut(_COIN_SATS, account.script(0, number)),),
    )
    order = Order(
        v=1,
        id=str(uuid.uuid4()),
        caller=caller.id,
        customer="alice",
        chain=CHAIN,
        asset=ASSET,
        destination="bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080",
        amount=str(_PAYMENT_SATS),
        fee_ceiling=str(_FEE_SATS * 2),
        expires_at=int(time.time()) + 3600,
    )
    intent = Intent(
        v=1,
        kind=Kind.PAYMENT,
        id=order.id,
        chain=CHAIN,
        keyset=keyset.id,
        tier="hot",
        asset=ASSET,
        destination=order.destination,
        amount=order.amount,
        order=order.digest_hex(),
        policy_version=1,
    )
    source = Outpoint(coin.txid, 0)
    payment = bytes.fromhex("0014751e76e8199196d454941c45d1b3a323f1433bd6")
    change_sats = _COIN_SATS - _PAYMENT_SATS - _FEE_SATS
    transaction = Transaction(
        2, (TxIn(source),), (TxOut(_PAYMENT_SATS, payment), TxOut(change_sats, account.script(1, 0)))
    )
    root = tuple(int(step[:-1]) + _HARDENED for step in keyset.account_path.split("/")[1:])
    spent = PsbtInput(
        source,
        transaction.inputs[0].sequence,
        coin.serialize(),
        (*root, 0, number),
        account.pubkey(0, number),
    )
    psbt = build_psbt(transaction, [spent], {1: (account.pubkey(1, 0), (*root, 1, 0))}, keyset.fingerprint)
    return SignRequest(
        chain=CHAIN,
        keyset=keyset.id,
        intents=(intent,),
        evidence=Evidence(orders=(sign_order(order, caller.key),)),
        transaction=base64.b64encode(psbt).decode(),
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
