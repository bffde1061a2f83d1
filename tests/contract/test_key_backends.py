"""What every backend of keys does alike: a key inside a token, seeds sealed under one, and keys in a file.

Each runs on its own SoftHSM store, so that a test can take the token away. What a backend returns is checked by two
libraries that don't know each other: OpenSSL and libsecp256k1, or for BIP340 libsecp256k1 and embit's Python.
"""

from __future__ import annotations

import base64
import hashlib
import os
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import coincurve
import PyKCS11
import pytest
from bip_utils import Bip32Slip10Secp256k1
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from embit.util import py_secp256k1
from eth_account import Account

from chains.btc.script import taproot_output_key
from chains.errors import InvalidValue, StrongroomError
from chains.secp256k1 import LOW_S_LIMIT
from ops.devnet.process import wait_until
from signers.errors import TokenLost, TokenRefused, WrongSignature
from signers.hsm.pkcs11 import Token
from signers.keys.ecdsa import normalised
from signers.keys.evm_keys import (
    TokenKeys,
    create_evm_keyset,
    create_gas_payer,
    key_path,
    read_key_file,
    signing_key_name,
)
from signers.keys.keyset import KEY_PLACE
from signers.keys.sealed import (
    SealedCosigner,
    SealedKeys,
    attestation_key_name,
    create_cosigner,
    create_keyset,
    read_sealed,
    seed_path,
)
from signers.keys.software import (
    open_software_keys,
    software_bitcoin_file,
    software_evm_file,
    write_software_keys,
)
from signers.ports import AttestRequest
from signers.wallets import Keys, verifies
from tests.fakes.evm_signing import EVM_CHAIN, EVM_CHAIN_ID, EvmWorld, SoftEvmKeys
from tests.fakes.own_token import OwnToken, in_child, own_store
from tests.fakes.signer import Bench, EvmBench, SignerBench
from tests.fakes.signing import CHAIN, World

KEYSET = "keys"
DIGESTS = [hashlib.sha256(bytes([number])).digest() for number in range(64)]


@dataclass
class Backend:
    """Keys that were made once and may be opened any number of times."""

    name: str
    store: OwnToken
    files: Path

    def __post_init__(self) -> None:
        self._tokens: list[Token] = []
        with_token = self.name.startswith(("token", "sealed"))
        if with_token:
            self._make(self.token())
        else:
            self._write()
        self.has_token = with_token
        self.has_places = not self.name.endswith("evm")
        self.keys = self.open()

    def token(self) -> Token:
        soft = self.store.soft
        self._tokens.append(Token(soft.module_path, soft.label, soft.user_pin))
        return self._tokens[-1]

    def _make(self, token: Token) -> None:
        match self.name:
            case "token-evm":
                create_evm_keyset(token, KEYSET, EVM_CHAIN_ID, self.files)
            case "token-gas-payer-evm":
                create_gas_payer(token, KEYSET, EVM_CHAIN_ID, self.files)
            case "sealed-p2wpkh":
                create_keyset(token, KEYSET, "regtest", self.files)
            case "sealed-p2tr":
                create_keyset(token, KEYSET, "regtest", self.files, script="p2tr")
            case "sealed-cosigner":
                create_cosigner(token, KEYSET, "regtest", self.files)

    def _write(self) -> None:
        match self.name:
            case "software-p2wpkh":
                file = software_bitcoin_file(KEYSET, "regtest", "p2wpkh")
            case "software-p2tr":
                file = software_bitcoin_file(KEYSET, "regtest", "p2tr")
            case _:
                file = software_evm_file(KEYSET, EVM_CHAIN_ID)
        write_software_keys(self.files / "software.json", file)

    def open(self) -> Keys:
        match self.name:
            case "token-evm" | "token-gas-payer-evm":
                file = read_key_file(key_path(self.files, KEYSET))
                return TokenKeys(self.token(), file, signing_key_name(KEYSET))
            case "sealed-p2wpkh" | "sealed-p2tr":
                return SealedKeys(self.token(), read_sealed(seed_path(self.files, KEYSET)))
            case "sealed-cosigner":
                return SealedCosigner(self.token(), read_sealed(seed_path(self.files, KEYSET)))
        return open_software_keys(self.files / "software.json", KEYSET)

    def close(self) -> None:
        for token in self._tokens:
            token.close()

    def place(self, number: int) -> tuple[int, int]:
        """One of many places, or the only one."""
        return (number % 2, number // 2) if self.has_places else KEY_PLACE

    def check(self, number: int, digest: bytes, keys: Keys | None = None) -> tuple[bytes, bytes]:
        """Signs and has two libraries verify; returns public key and signature."""
        pubkey, signature = (keys or self.keys).sign(*self.place(number), digest)
        assert self.verified(pubkey, digest, signature)
        return pubkey, signature

    def verified(self, pubkey: bytes, digest: bytes, signature: bytes) -> bool:
        if self.name.endswith("p2tr"):
            x_only = taproot_output_key(pubkey)
            first = coincurve.PublicKeyXOnly(x_only).verify(signature, digest)
            key = py_secp256k1.ec_pubkey_parse(b"\x02" + x_only)
            return bool(first and py_secp256k1.schnorrsig_verify(signature, digest, key))
        if self.name.endswith("evm"):
            low = normalised(signature, pubkey, digest)
            r, s = (int.from_bytes(low[at : at + 32], "big") for at in (0, 32))
            signature = encode_dss_signature(r, s)
        other = coincurve.PublicKey(pubkey).verify(signature, digest, hasher=None)
        return bool(other and verifies(pubkey, digest, signature))


NAMES = (
    "token-evm",
    "token-gas-payer-evm",
    "sealed-p2wpkh",
    "sealed-p2tr",
    "sealed-cosigner",
    "software-p2wpkh",
    "software-p2tr",
    "software-evm",
)
WITH_TOKEN = NAMES[:5]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnToken]:
    with own_store(tmp_path_factory.mktemp("token")) as made:
        yield made


@pytest.fixture
def backend(request: pytest.FixtureRequest, store: OwnToken, tmp_path: Path) -> Iterator[Backend]:
    made = Backend(request.param, store, tmp_path)
    try:
        yield made
    finally:
        store.forget_keys()
        made.close()


every_backend = pytest.mark.parametrize("backend", NAMES, indirect=True)
every_token = pytest.mark.parametrize("backend", WITH_TOKEN, indirect=True)


@every_backend
def test_it_signs_for_its_public_key_and_two_libraries_say_so(backend: Backend) -> None:
    for number, digest in enumerate(DIGESTS[:16]):
        pubkey, signature = backend.check(number, digest)
        try:
            assert not backend.verified(pubkey, DIGESTS[-1], signature)
        except StrongroomError:
            continue  # it recovers to no key at all


@every_backend
def test_its_public_keys_are_those_that_another_library_derives_from_its_record(backend: Backend) -> None:
    record = backend.keys.record
    for number in range(8):
        branch, index = backend.place(number)
        pubkey, _ = backend.keys.sign(branch, index, DIGESTS[0])
        if backend.has_places:
            account = Bip32Slip10Secp256k1.FromExtendedKey(_xpub(record.account))  # type: ignore[union-attr]
            child = account.ChildKey(branch).ChildKey(index)
            assert pubkey == child.PublicKey().RawCompressed().ToBytes()
        else:
            raw = normalised(backend.keys.sign(branch, index, DIGESTS[1])[1], pubkey, DIGESTS[1])
            vrs = [27 + raw[64], int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:64], "big")]
            recovered = Account._recover_hash(DIGESTS[1], vrs=vrs)
            assert recovered == record.address  # type: ignore[union-attr]


def _xpub(text: str) -> str:
    """The same key with the version bytes that bip_utils takes for BIP32 of the main network."""
    from embit import bip32

    return str(bip32.HDKey.from_string(text).to_base58(version=bytes.fromhex("0488b21e")))


@every_backend
def test_what_is_released_has_a_low_s(backend: Backend) -> None:
    for number, digest in enumerate(DIGESTS):
        pubkey, signature = backend.keys.sign(*backend.place(number), digest)
        if backend.name.endswith("p2tr"):
            assert len(signature) == 64
        elif backend.name.endswith("evm"):
            low = normalised(signature, pubkey, digest)
            assert int.from_bytes(low[32:64], "big") <= LOW_S_LIMIT
        else:
            assert verifies(pubkey, digest, signature)  # which looks at s as well


@every_backend
@pytest.mark.parametrize("length", [0, 1, 31, 33, 64])
def test_anything_but_32_bytes_is_refused(backend: Backend, length: int) -> None:
    with pytest.raises(InvalidValue, match=f"digest of {length} bytes"):
        backend.keys.sign(*KEY_PLACE, b"\x07" * length)


@every_backend
@pytest.mark.parametrize("place", [(2, 0), (-1, 0), (1, -1), (0, 2**31), (1, 2**31)])
def test_a_place_that_is_not_there_is_refused(backend: Backend, place: tuple[int, int]) -> None:
    with pytest.raises(InvalidValue, match="not signable"):
        backend.keys.sign(*place, DIGESTS[0])


@pytest.mark.parametrize("backend", ["token-evm", "token-gas-payer-evm", "software-evm"], indirect=True)
def test_a_single_key_has_one_place(backend: Backend) -> None:
    for place in ((0, 0), (0, 1), (1, 1)):
        with pytest.raises(InvalidValue, match="not signable"):
            backend.keys.sign(*place, DIGESTS[0])


@every_backend
def test_many_threads_get_their_own_signatures(backend: Backend) -> None:
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda work: backend.check(*work), list(enumerate(DIGESTS)) * 4))
        words = list(pool.map(backend.keys.attest, DIGESTS))
    places = {backend.place(number): pubkey for number, (pubkey, _) in enumerate(made[: len(DIGESTS)])}
    assert len(set(places.values())) == len(places)
    for digest, word in zip(DIGESTS, words, strict=True):
        _attested(backend.keys, digest, word)


def _attested(keys: Keys, digest: bytes, word: bytes) -> None:
    Ed25519PublicKey.from_public_bytes(bytes.fromhex(keys.record.attestation_key)).verify(word, digest)


@every_backend
def test_opened_again_it_is_the_same_keys(backend: Backend) -> None:
    first = [backend.check(number, DIGESTS[number]) for number in range(4)]
    word = backend.keys.attest(DIGESTS[0])
    backend.close()
    backend._tokens.clear()
    backend.keys = backend.open()
    again = [backend.check(number, DIGESTS[number]) for number in range(4)]
    assert [pubkey for pubkey, _ in again] == [pubkey for pubkey, _ in first]
    if not backend.name.startswith("token"):  # whose nonces are random
        assert again == first
    assert backend.keys.attest(DIGESTS[0]) == word


@every_backend
def test_a_child_after_fork_and_its_parent_both_go_on(backend: Backend) -> None:
    """The parent keeps signing in threads while the child does; neither disturbs the other's sessions."""
    backend.check(0, DIGESTS[0])

    def child() -> bytes:
        pubkey, _ = backend.check(1, DIGESTS[1])
        _attested(backend.keys, DIGESTS[1], backend.keys.attest(DIGESTS[1]))
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda number: backend.check(number, DIGESTS[number]), range(32)))
        return pubkey

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(backend.check, number, DIGESTS[number % 64]) for number in range(400)]
        answers = [in_child(child) for _ in range(3)]
        for work in running:
            work.result()
    pubkey, _ = backend.check(1, DIGESTS[1])
    assert answers == [pubkey] * 3


@every_token
def test_a_token_that_is_away_is_a_transient_loss_and_all_is_well_when_it_is_back(backend: Backend) -> None:
    before = backend.keys.attest(DIGESTS[0])
    backend.store.take_away()
    try:
        for digest in DIGESTS[:2]:
            with pytest.raises(TokenLost) as lost:
                backend.keys.attest(digest)
            assert lost.value.transient
        if backend.name.startswith("token"):
            with pytest.raises(TokenLost):
                backend.check(0, DIGESTS[0])
        else:  # the account key is in memory
            backend.check(0, DIGESTS[0])
    finally:
        backend.store.bring_back()
    wait_until(lambda: _answers(lambda: backend.keys.attest(DIGESTS[0])), timeout=20, what="the token")
    assert backend.keys.attest(DIGESTS[0]) == before
    backend.check(0, DIGESTS[0])


def _answers(call: Callable[[], object]) -> bool:
    try:
        call()
    except TokenLost:
        return False
    return True


@every_token
def test_a_key_that_is_destroyed_is_a_permanent_refusal(backend: Backend) -> None:
    backend.keys.attest(DIGESTS[0])
    backend.store.destroy(PyKCS11.CKO_PRIVATE_KEY, attestation_key_name(KEYSET))
    with pytest.raises(TokenRefused, match="0 keys named") as refused:
        backend.keys.attest(DIGESTS[0])
    assert not refused.value.transient


class Flipping:
    """A backend whose answers have one bit flipped on their way."""

    def __init__(self, keys: Any) -> None:
        self.keys, self.record, self.bit = keys, keys.record, 0
        for name in ("account", "pubkey"):
            if hasattr(keys, name):
                setattr(self, name, getattr(keys, name))

    def _flipped(self, answer: bytes) -> bytes:
        place = self.bit % (8 * len(answer))
        return (int.from_bytes(answer, "big") ^ (1 << place)).to_bytes(len(answer), "big")

    def sign(self, branch: int, index: int, digest: bytes) -> tuple[bytes, bytes]:
        pubkey, signature = self.keys.sign(branch, index, digest)
        return pubkey, self._flipped(signature)

    def attest(self, digest: bytes) -> bytes:
        return self._flipped(self.keys.attest(digest))


class BitcoinBench(SignerBench):
    """A signer with keys of this backend."""

    def __init__(self, directory: Path, keys: Any) -> None:
        self.keys = keys
        Bench.__init__(self, directory, World(keys.record))


class EthereumBench(EvmBench):
    """A signer with a key of this backend."""

    def __init__(self, directory: Path, keys: Any) -> None:
        self.keys, self.other = keys, SoftEvmKeys.make("xeth-hot", 31338)
        Bench.__init__(self, directory, EvmWorld(keys.record, self.other.record))


PAYING = [name for name in NAMES if name not in ("sealed-cosigner", "token-gas-payer-evm")]
"""Backends of key-sets that pay by themselves; others' wrong signatures are in the tests of what they sign."""


@pytest.mark.parametrize("backend", PAYING, indirect=True)
def test_fault_31_a_flipped_bit_of_a_backend_never_leaves_the_signer(
    backend: Backend, tmp_path: Path
) -> None:
    """Every seventh bit of signatures and attestations; afterwards the sound backend's is released, and no other."""
    (tmp_path / "bench").mkdir()
    flipping = Flipping(backend.keys)
    kind = BitcoinBench if backend.has_places else EthereumBench
    bench: Any = kind(tmp_path / "bench", flipping)
    request = bench.request(keyset=KEYSET) if kind is EthereumBench else bench.request()
    chain, asset = (EVM_CHAIN, "ETH") if kind is EthereumBench else (CHAIN, "BTC")
    wanted = AttestRequest(chain=chain, keyset=KEYSET, customer="alice", asset=asset, branch=0, index=3)
    for flipping.bit in range(0, 8 * 64, 7):
        with pytest.raises(WrongSignature, match="was not released"):
            bench.service.sign(request)
        with pytest.raises(WrongSignature, match="was not released"):
            bench.service.attest(wanted)
    bench.keys = backend.keys
    bench.restart()
    answer = bench.service.sign(request)
    assert bench.service.sign(request) == answer
    assert bench.service.status().signed == 1
    word = bench.service.attest(wanted)
    _attested(backend.keys, word.attestation.digest(), base64.b64decode(word.signature))
    bench.journal.close()


@every_backend
def test_nothing_secret_is_shown_or_copied_away(backend: Backend) -> None:
    for text in (repr(backend.keys), str(backend.keys), f"{backend.keys!r:>200}"):
        assert not _secrets(backend) & set(_words(text))
        assert "prv" not in text
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError):
            pickle.dumps(backend.keys, protocol)
    for place, digest in (((2, 0), DIGESTS[0]), (KEY_PLACE, b"")):
        with pytest.raises(InvalidValue) as error:
            backend.keys.sign(*place, digest)
        assert not _secrets(backend) & set(_words(str(error.value)))


def _secrets(backend: Backend) -> set[str]:
    """Every private number of 32 bytes that is reachable in the object, as hex."""
    found: set[str] = set()
    stack: list[Any] = [backend.keys]
    seen: set[int] = set()
    while stack:
        value = stack.pop()
        if id(value) in seen or isinstance(value, type | Token):
            continue
        seen.add(id(value))
        if isinstance(value, bytes) and len(value) == 32:
            found.add(value.hex())
        elif isinstance(value, coincurve.PrivateKey):
            found.add(value.secret.hex())
        elif isinstance(value, tuple | list):
            stack += value
        else:
            names = [slot for kind in type(value).__mro__ for slot in getattr(kind, "__slots__", ())]
            stack += [getattr(value, name) for name in names if name.startswith("_") and hasattr(value, name)]
    assert found or backend.name.startswith("token")
    return found


def _words(text: str) -> list[str]:
    return [text[at : at + 64] for at in range(len(text))]


def test_pid_of_a_child_is_another_one() -> None:
    """The helper of these tests does fork."""
    assert in_child(lambda: str(os.getpid()).encode()) != str(os.getpid()).encode()
