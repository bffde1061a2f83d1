"""The test that a backend passes before it serves: its nonces, its signatures, its attestations, and a record of it.

A key that is known to the test is made in the same backend (imported into the token; a fresh account or key of the
same code otherwise) and signs random digests. From each signature as the backend gave it, before s is brought into
the lower half, follows k, and `bias` looks at all of them. Deterministic backends are compared with another
library besides. The real keys sign digests that no transaction has: their r must never repeat for another digest.

Sources: SEC 1 section 4.1 (k = (z + r*d) / s mod n), RFC 6979, BIP340 (k = s - e*d mod n).
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import coincurve
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256

from chains.btc.network import NETWORKS
from chains.btc.script import tagged_hash, taproot_tweak
from chains.errors import InvalidValue
from chains.secp256k1 import CURVE_ORDER
from signers.hsm.pkcs11 import Token
from signers.keys.account import ENTROPY_BYTES, AccountSecret
from signers.keys.ecdsa import sign_with_throwaway
from signers.keys.evm_keys import TokenKeys
from signers.keys.keyset import KEY_PLACE, BitcoinCosignerRecord, BitcoinKeysetRecord, KeysetRecord
from signers.keytest.bias import MIN_SIGNATURES, suspicions
from signers.wallets import Keys

SIGNATURES: Final = 4096
"""How many a test looks at if nothing else is said: a bit that is 1 in 58 % of all k is found."""
REAL_SIGNATURES: Final = 128
COMPARED: Final = 32
"""How many signatures of a deterministic backend are made again by the other library; in Python it takes a while."""

Form = Literal["der", "raw", "schnorr"]
"""How a backend gives its signatures: ECDSA in DER, ECDSA as r and s, or BIP340."""


@dataclass(frozen=True, slots=True)
class Throwaway:
    """A key of the backend under test that the test knows, and that never holds money."""

    secret: int = field(repr=False)
    """Of BIP340: the output key's, with an even y."""
    sign: Callable[[Sequence[bytes]], list[bytes]]
    """Signatures of digests, as the backend gives them."""
    form: Form
    again: Callable[[bytes], bytes] | None = field(default=None, repr=False)
    """What another library signs, where signatures are deterministic."""


def form_of(record: KeysetRecord) -> Form:
    """How the keys with this public half sign."""
    if isinstance(record, BitcoinKeysetRecord) and record.script == "p2tr":
        return "schnorr"
    return "der" if isinstance(record, BitcoinKeysetRecord | BitcoinCosignerRecord) else "raw"


def throwaway_for(keys: Keys, token: Token | None) -> Throwaway:
    """A key that the test knows, in the backend of some keys.

    Args:
        keys: the real ones.
        token: where they are, or under which key they are sealed; None for keys in a file.
    """
    if isinstance(keys, TokenKeys):
        if token is None:
            raise ValueError("these keys are in a token")
        secret = secrets.randbelow(CURVE_ORDER - 1) + 1
        return Throwaway(secret, lambda digests: sign_with_throwaway(token, _bytes(secret), digests), "raw")
    form = form_of(keys.record)
    if form == "raw":
        return _software_key()
    path = {"schnorr": "86'/1'/0'", "der": "84'/1'/0'"}[form]
    return _account_key(path, form)


def _software_key() -> Throwaway:
    key = coincurve.PrivateKey()

    def sign(digests: Sequence[bytes]) -> list[bytes]:
        return [key.sign_recoverable(digest, hasher=None)[:64] for digest in digests]

    secret = int.from_bytes(key.secret, "big")
    return Throwaway(secret, sign, "raw", lambda digest: _raw(_openssl(secret, digest)))


def _account_key(path: str, form: Form) -> Throwaway:
    """The key at 0/0 of a fresh account, whose private key embit derives as well."""
    from embit import bip32, bip39
    from embit.util.key import sign_schnorr

    entropy, network = secrets.token_bytes(ENTROPY_BYTES), NETWORKS["regtest"]
    account, _ = AccountSecret.from_entropy(entropy, network, path)
    seed = bip39.mnemonic_to_seed(bip39.mnemonic_from_bytes(entropy))
    leaf = bip32.HDKey.from_seed(seed).derive(f"m/{path}/0/0".replace("'", "h"))
    secret = int.from_bytes(bytes(leaf.key.secret), "big")

    def sign(digests: Sequence[bytes]) -> list[bytes]:
        return [account.sign(0, 0, digest)[1] for digest in digests]

    if form == "der":
        return Throwaway(secret, sign, form, lambda digest: _openssl(secret, digest))
    pubkey = coincurve.PrivateKey.from_int(secret).public_key.format()
    output = (_even(secret) + int.from_bytes(taproot_tweak(pubkey), "big")) % CURVE_ORDER
    return Throwaway(
        _even(output), sign, form, lambda digest: bytes(sign_schnorr(_bytes(output), digest, bytes(32)))
    )


def _even(secret: int) -> int:
    """The one of a key and its negative whose point has an even y (BIP340)."""
    point = coincurve.PrivateKey.from_int(secret).public_key.format()
    return secret if point[0] == 2 else CURVE_ORDER - secret


def _openssl(secret: int, digest: bytes) -> bytes:
    """The low-s DER signature with the nonce of RFC 6979, by OpenSSL."""
    key = ec.derive_private_key(secret, ec.SECP256K1())
    made = key.sign(digest, ec.ECDSA(utils.Prehashed(SHA256()), deterministic_signing=True))
    r, s = utils.decode_dss_signature(made)
    return utils.encode_dss_signature(r, min(s, CURVE_ORDER - s))


def _raw(der: bytes) -> bytes:
    return b"".join(_bytes(part) for part in utils.decode_dss_signature(der))


def _bytes(number: int) -> bytes:
    return number.to_bytes(32, "big")


def examine_nonces(key: Throwaway, signatures: int) -> tuple[str, ...]:
    """What is wrong with the nonces of a backend; empty if nothing was found.

    Args:
        key: made in it.
        signatures: how many are looked at, at least 256.

    Raises:
        InvalidValue: too few.
        TokenRefused: the token refuses to sign, or takes no key for a test.
        TokenLost: the token does not answer.
    """
    if signatures < MIN_SIGNATURES:
        raise InvalidValue(f"{signatures} signatures say little of a backend: at least {MIN_SIGNATURES}")
    digests = [secrets.token_bytes(32) for _ in range(signatures)]
    made = key.sign(digests)
    try:
        nonces = [_nonce(key, digest, each) for digest, each in zip(digests, made, strict=True)]
    except ValueError:
        return ("a signature that is none",)
    wrong = sum(not _made_by(key, *pair) for pair in zip(made, nonces, strict=True))
    if wrong:
        return (f"{wrong} of {signatures} signatures are not of the key that should have made them",)
    found = list(suspicions(nonces, digests))
    if key.again is not None and any(
        key.again(digest) != each for digest, each in zip(digests[:COMPARED], made, strict=False)
    ):
        found.append("signatures are not the deterministic ones that another library makes")
    return tuple(found)


def _nonce(key: Throwaway, digest: bytes, signature: bytes) -> int:
    """k behind a signature, or its negative. Raises ValueError (no signature at all)."""
    r, s = _numbers(key.form, signature)
    if key.form == "schnorr":
        pubkey = coincurve.PrivateKey.from_int(key.secret).public_key.format()[1:]
        challenge = tagged_hash("BIP0340/challenge", signature[:32] + pubkey + digest)
        return (s - int.from_bytes(challenge, "big") * key.secret) % CURVE_ORDER
    z = int.from_bytes(digest, "big")
    return (z + r * key.secret) * pow(s, -1, CURVE_ORDER) % CURVE_ORDER


def _numbers(form: Form, signature: bytes) -> tuple[int, int]:
    """r (of BIP340: the x of R) and s. Raises ValueError."""
    if form == "der":
        r, s = utils.decode_dss_signature(signature)
    elif len(signature) == 64:
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    else:
        raise ValueError(f"a signature of {len(signature)} bytes")
    if not (r and 0 < s < CURVE_ORDER):
        raise ValueError("r or s out of range")
    return r, s


def _made_by(key: Throwaway, signature: bytes, nonce: int) -> bool:
    """Whether a signature is the key's: then its r is the x of k times the base point."""
    r, _ = _numbers(key.form, signature)
    if not nonce:
        return False
    point = coincurve.PrivateKey.from_int(nonce).public_key.format()
    return int.from_bytes(point[1:], "big") % CURVE_ORDER == r % CURVE_ORDER


def examine_keys(keys: Keys) -> tuple[str, ...]:
    """What is wrong with signatures and attestations of the real keys; empty if nothing was found.

    They sign hashes of random bytes and of words, which are no transaction's, each twice.

    Raises:
        TokenRefused: the token refuses to sign.
        TokenLost: the token does not answer.
    """
    form, deterministic = form_of(keys.record), not isinstance(keys, TokenKeys)
    digests = [
        hashlib.sha256(b"strongroom key test" + secrets.token_bytes(32)).digest()
        for _ in range(REAL_SIGNATURES)
    ]
    places = [KEY_PLACE if form == "raw" else (1, number % 8) for number in range(REAL_SIGNATURES)]
    signed_by: dict[int, tuple[bytes, bytes]] = {}
    made: dict[bytes, bytes] = {}
    found = set()
    for place, digest in list(zip(places, digests, strict=True)) * 2:
        pubkey, signature = keys.sign(*place, digest)
        try:
            r, _ = _numbers(form, signature)
        except ValueError:
            return ("a signature that is none",)
        if signed_by.setdefault(r, (pubkey, digest)) != (pubkey, digest):
            found.add("one r for different digests or keys: this gives the key away")
        if deterministic and made.setdefault(digest, signature) != signature:
            found.add("the same digest gets another signature again")
    return (*sorted(found), *_examine_attestations(keys, digests[:COMPARED]))


def _examine_attestations(keys: Keys, digests: Sequence[bytes]) -> tuple[str, ...]:
    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(keys.record.attestation_key))
    for digest in digests:
        signature = keys.attest(digest)
        try:
            public.verify(signature, digest)
        except InvalidSignature:
            return ("an attestation does not verify",)
        if keys.attest(digest) != signature:
            return ("the same attestation gets another signature again",)
    return ()
