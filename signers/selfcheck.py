"""Known-answer tests that a signer passes at every start, before it takes work."""

from __future__ import annotations

import hashlib
from typing import Final

import coincurve
from cryptography.hazmat.primitives.asymmetric import utils
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from chains.btc.hd import agreed_address
from chains.btc.network import NETWORKS
from chains.btc.psbt import require_native_curve
from chains.btc.tx import Transaction, sighash_p2wpkh
from chains.errors import StrongroomError
from chains.eth.address import checksummed, keccak256
from chains.eth.forwarder import forwarder_address
from chains.eth.tx import SignedTx, address_text_of_key
from signers.ecdsa import normalised
from signers.errors import SelfCheckFailed, TokenLost, WrongSignature
from signers.keyset import KEY_PLACE
from signers.sealed import AccountSecret
from signers.wallets import BitcoinKeys, EvmKeys, Keys, verifies

# BIP143, native P2WPKH: the unsigned transaction, its second input, and the digest.
_BIP143_TX: Final = bytes.fromhex(
    "0100000002fff7f7881a8099afa6940d42d1e7f6362bec38171ea3edf433541db4e4ad969f0000000000eeffffff"
    "ef51e1b804cc89d182d279655c3aa89e815b1b309fe287d9b2b55d57b90ec68a0100000000ffffffff02202cb206"
    "000000001976a9148280b37df378db99f66f85c95a783a76ac7a6d5988ac9093510d000000001976a9143bde42db"
    "ee7e4dbe6a21b2d50ce2f0167faa815988ac11000000"
)
_BIP143_PUBKEY: Final = bytes.fromhex("025476c2e83188368da1ff3e292e7acafcdb3566bb0ad253f62fc70f07aeee6357")
_BIP143_DIGEST: Final = "c37af31116d1b27caf68aae9e3ac82f1477929014d5b917657d0eb49478cb670"
# RFC 6979 on secp256k1: key 1, SHA-256 of "Satoshi Nakamoto" (the vector that all libraries share).
_RFC6979_DIGEST: Final = bytes.fromhex("a0dc65ffca799873cbea0ac274015b9526505daaaed385155425f7337704883e")
_RFC6979_RS: Final = (
    "934b1ea10a4b3c1757e2b0c017d0b6143ce3c9a7e6a4a49860d7a6ab210ee3d8"
    "2442ce9d2b916064108014783e923ec36b49743e2ffa1c4496f01a512aafd9e5"
)
# BIP39, BIP32, BIP84: the first address of 32 zero bytes of entropy ("abandon ... art"), as other wallets show it.
_ZERO_ENTROPY_FIRST: Final = "bc1qzmtrqsfuaf6l6kkcsseumq26ukaphfj9skkug6"
# EIP-1559: a transaction of Ethereum's main network as its nodes have it, its id and its sender.
_EIP1559_TX: Final = bytes.fromhex(
    "02f8b00142843b9aca008504a817c80082ad62946069a6c32cf691f5982febae4faf8a6f3ab2f0f680b844a22cb465"
    "0000000000000000000000005eee75727d804a2b13038928d36f8b188945a57a"
    "0000000000000000000000000000000000000000000000000000000000000000"
    "c080a0840cfc572845f5786e702984c2a582528cad4b49b2a10b9db1be7fca90058565"
    "a025e7109ceb98168d95b09b18bbf6b685130e0562f233877d492b94eee0c5b6d1"
)
_EIP1559_TXID: Final = "0ec0b6a2df4d87424e5f6ad2a654e27aaeb7dac20ae9e8385cc09087ad532ee0"
_EIP1559_SENDER: Final = "0xDD6B8b3dC6B7AD97db52F08a275FF4483e024CEa"
# EIP-1014: creator, salt, init code, address (the fifth example of the text).
_EIP1014_FACTORY: Final = bytes.fromhex("00000000000000000000000000000000deadbeef")
_EIP1014_SALT: Final = bytes.fromhex("00000000000000000000000000000000000000000000000000000000cafebabe")
_EIP1014_INIT_CODE: Final = bytes.fromhex("deadbeef")
_EIP1014_ADDRESS: Final = "0x60f3f640a8508fC6a86d45DF051962668E1e8AC7"
_SAMPLES: Final = 8


def check_libraries() -> None:
    """Check digests, signatures and derivation against published answers.

    Raises:
        SelfCheckFailed: names the one that came out differently.
    """
    try:
        require_native_curve()
        tx = Transaction.parse(_BIP143_TX)
        _same("BIP143 digest", sighash_p2wpkh(tx, 1, _BIP143_PUBKEY, 600_000_000).hex(), _BIP143_DIGEST)
        one = coincurve.PrivateKey((1).to_bytes(32, "big"))
        _same(
            "RFC 6979 signature", one.sign_recoverable(_RFC6979_DIGEST, hasher=None)[:64].hex(), _RFC6979_RS
        )
        secret, _ = AccountSecret.from_entropy(bytes(32), NETWORKS["main"], "84'/0'/0'")
        _same("BIP84 address", agreed_address(secret.public, 0, 0), _ZERO_ENTROPY_FIRST)
        signed = SignedTx.decode(_EIP1559_TX)
        _same("EIP-1559 transaction id", signed.txid.hex, _EIP1559_TXID)
        _same("EIP-1559 sender", checksummed(signed.sender()), _EIP1559_SENDER)
        forwarder = forwarder_address(_EIP1014_FACTORY, keccak256(_EIP1014_INIT_CODE), _EIP1014_SALT)
        _same("EIP-1014 address", checksummed(forwarder), _EIP1014_ADDRESS)
    except StrongroomError as error:
        raise SelfCheckFailed(f"self-check: {error}") from error


def check_bitcoin_keys(keys: BitcoinKeys) -> None:
    """Check that a wallet signs, deterministically and without repeating nonces, and that it attests.

    Raises:
        SelfCheckFailed: says what is wrong with which key-set.
        TokenLost: the token does not answer.
    """
    what = f"key-set {keys.record.id}"
    nonces = set()
    for number in range(4):
        digest = hashlib.sha256(f"strongroom self-check {number}".encode()).digest()
        pubkey, der = keys.sign(1, number, digest)
        if pubkey != keys.account.pubkey(1, number) or not verifies(pubkey, digest, der):
            raise SelfCheckFailed(f"self-check: {what} returned a signature that does not verify")
        _same(f"second signature of {what}", keys.sign(1, number, digest)[1].hex(), der.hex())
        nonces.add(der[4 : 4 + der[3]])
    if len(nonces) != 4:
        raise SelfCheckFailed(f"self-check: {what} used a nonce twice")
    _check_attestation(keys)


def check_evm_keys(keys: EvmKeys) -> None:
    """Check that a key signs for its address, without repeating nonces, and that it attests.

    Raises:
        SelfCheckFailed: says what is wrong with which key-set.
        TokenLost: the token does not answer.
    """
    what = f"key-set {keys.record.id}"
    _same(f"address of {what}", address_text_of_key(keys.pubkey), keys.record.address)
    nonces = set()
    for number in range(_SAMPLES):
        digest = hashlib.sha256(f"strongroom self-check {number}".encode()).digest()
        try:
            signature = normalised(keys.sign(*KEY_PLACE, digest)[1], keys.pubkey, digest)
        except WrongSignature as error:
            raise SelfCheckFailed(f"self-check: {what}: {error}") from error
        r, s = (int.from_bytes(part, "big") for part in (signature[:32], signature[32:64]))
        if not verifies(keys.pubkey, digest, utils.encode_dss_signature(r, s)):
            raise SelfCheckFailed(f"self-check: {what} returned a signature that does not verify")
        nonces.add(r)
    if len(nonces) != _SAMPLES:
        raise SelfCheckFailed(f"self-check: {what} used a nonce twice")
    _check_attestation(keys)


def _check_attestation(keys: Keys) -> None:
    digest = b"strongroom self-check".ljust(32, b".")
    try:
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(keys.record.attestation_key))
        public.verify(keys.attest(digest), digest)
    except TokenLost:
        raise
    except Exception as error:
        raise SelfCheckFailed(
            f"self-check: the attestation key of key-set {keys.record.id} does not work: {error}"
        ) from error


def _same(what: str, found: str, expected: str) -> None:
    if found != expected:
        raise SelfCheckFailed(f"self-check: {what} is {found}, expected {expected}")
