"""A holder's key: one BIP39 entropy, an account for Bitcoin vaults and one key that owns Safes.

Private keys are derived by embit and checked against public derivation by coincurve; coincurve signs, with the
deterministic nonces of RFC 6979; OpenSSL verifies before anything leaves.

Sources: BIP32, BIP39, BIP48 (m/48'/coin'/0'/2': P2WSH multisig), BIP44 (m/44'/60'/0'/0/0), RFC 6979, BIP146 (low s).
"""

from __future__ import annotations

from typing import Any, Final, NoReturn, Self

import coincurve
from coincurve._libsecp256k1 import ffi
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256

from chains.btc.hd import HARDENED, BranchKeys, Origin
from chains.btc.network import BtcNetwork
from chains.btc.psbt import require_native_curve
from chains.btc.script import hash160
from chains.errors import InvalidValue, PermanentError
from chains.eth.address import checksummed, keccak256
from signers.airgap.secret import Secret

ETHEREUM_PATH: Final = (44 + HARDENED, 60 + HARDENED, HARDENED, 0, 0)
"""m/44'/60'/0'/0/0: the key that owns Safes, the same on every network."""
WORD_COUNTS: Final = (12, 15, 18, 21, 24)

_CURVE: Final = ec.SECP256K1()
_DIGEST: Final = ec.ECDSA(utils.Prehashed(SHA256()))
_LOW_R_BYTES: Final = 70
"""Longest DER signature whose r and s have no leading zero byte."""


class WrongSignature(PermanentError):
    """What the key's library gave does not verify. It was not released."""


def bitcoin_path(network: BtcNetwork) -> tuple[int, ...]:
    """m/48'/coin'/0'/2': the account of P2WSH multisig wallets (BIP48)."""
    return (48 + HARDENED, network.coin_type + HARDENED, HARDENED, 2 + HARDENED)


def words_of(entropy: Secret) -> tuple[str, ...]:
    """The BIP39 words of 16 to 32 bytes."""
    from embit import bip39

    return tuple(bip39.mnemonic_from_bytes(entropy.reveal()).split())


def entropy_of_words(words: str) -> Secret:
    """The entropy that BIP39 words (English) stand for.

    Raises:
        InvalidValue: which of them is no such word, or that the checksum is wrong; the words are not repeated.
    """
    from embit import bip39
    from embit.wordlists.bip39 import WORDLIST

    given = words.lower().split()
    if len(given) not in WORD_COUNTS:
        raise InvalidValue(f"{len(given)} words: expected {', '.join(map(str, WORD_COUNTS[:-1]))} or 24")
    known = frozenset(WORDLIST)
    wrong = [str(number) for number, word in enumerate(given, 1) if word not in known]
    if wrong:
        raise InvalidValue(f"not in the list of BIP39 words: number {', '.join(wrong)}")
    try:
        return Secret(bip39.mnemonic_to_bytes(" ".join(given)))
    except ValueError:
        raise InvalidValue(
            "the words' checksum is wrong: a word is another one, or in another place"
        ) from None


class HolderKey:
    """The private keys behind one entropy. Use it in a `with`, for as short as can be."""

    __slots__ = ("_account", "_ethereum", "fingerprint", "keys", "network", "origin")

    fingerprint: bytes
    """First 4 bytes of HASH160 of the master public key."""
    network: BtcNetwork
    origin: Origin
    """Of the Bitcoin account."""
    keys: BranchKeys
    """The Bitcoin account's public keys."""

    def __init__(self, entropy: Secret, network: BtcNetwork) -> None:
        from embit import bip32, bip39

        require_native_curve()
        seed = bip39.mnemonic_to_seed(" ".join(words_of(entropy)))
        version = {"xprv": network.xprv_version, "xpub": network.xpub_version}
        root = bip32.HDKey.from_seed(seed, version=version["xprv"])
        account = root.derive(list(bitcoin_path(network)))
        self.network = network
        self.fingerprint = hash160(root.get_public_key().sec())[:4]
        self.origin = Origin(self.fingerprint, bitcoin_path(network))
        self.keys = BranchKeys.of_depth(account.to_public(version["xpub"]).to_base58(), network, 4)
        self._account: Any = account
        self._ethereum = Secret(root.derive(list(ETHEREUM_PATH)).key.secret)

    def __repr__(self) -> str:
        return "[secret]"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a private key is not copied or pickled")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ethereum.wipe()
        self._account = None

    @property
    def xpub(self) -> str:
        """The Bitcoin account: `xpub...` on main, `tpub...` elsewhere."""
        return self.keys.xpub

    @property
    def origin_text(self) -> str:
        """As bundles and descriptors have it: `d34db33f/48'/1'/0'/2'`."""
        steps = "".join(f"/{step - HARDENED}'" for step in self.origin.path)
        return self.fingerprint.hex() + steps

    @property
    def evm_address(self) -> str:
        """Of the key that owns Safes, with the checksum of EIP-55."""
        public = coincurve.PublicKey.from_secret(self._ethereum.reveal())
        return checksummed(keccak256(public.format(compressed=False)[1:])[-20:])

    def sign_bitcoin(self, branch: int, index: int, digest: bytes) -> tuple[bytes, bytes]:
        """Sign a digest of an input with the account's key at branch/index.

        Args:
            branch: 0 or 1.
            index: not hardened.
            digest: 32 bytes (BIP143).

        Returns:
            The public key (33 bytes) and the signature: DER, low s, low r, without a sighash byte (70 bytes or less).

        Raises:
            WrongSignature: another key or a signature that does not verify; not released.
        """
        expected = self.keys.pubkey(branch, index)
        with Secret(self._account.derive([branch, index]).key.secret) as secret:
            key = coincurve.PrivateKey(secret.reveal())
            pubkey = bytes(key.public_key.format())
            if pubkey != expected:
                raise WrongSignature(f"{branch}/{index}: the private key is not that of the public one")
            signature = _low_r(key, digest)
        check_signature(pubkey, digest, signature)
        return pubkey, signature

    def sign_ethereum(self, digest: bytes) -> bytes:
        """Sign a digest with the key that owns Safes.

        Args:
            digest: 32 bytes (EIP-712).

        Returns:
            65 bytes: r, s (low) and v, which is 27 or 28.

        Raises:
            WrongSignature: it does not verify; not released.
        """
        key = coincurve.PrivateKey(self._ethereum.reveal())
        raw = key.sign_recoverable(digest, hasher=None)
        der = utils.encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:64], "big"))
        check_signature(bytes(key.public_key.format()), digest, der)
        return raw[:64] + bytes([27 + raw[64]])


def check_signature(pubkey: bytes, digest: bytes, der: bytes) -> None:
    """Have OpenSSL, which has not made it, verify a signature (DER) over 32 bytes.

    Raises:
        WrongSignature: it does not verify.
    """
    try:
        ec.EllipticCurvePublicKey.from_encoded_point(_CURVE, pubkey).verify(der, digest, _DIGEST)
    except (InvalidSignature, ValueError):
        raise WrongSignature("a signature does not verify; nothing was released") from None


def _low_r(key: coincurve.PrivateKey, digest: bytes) -> bytes:
    """A signature whose r needs no leading zero, as bitcoind makes them: one byte less, and the same every time."""
    signature = bytes(key.sign(digest, hasher=None))
    counter = 0
    while len(signature) > _LOW_R_BYTES:
        counter += 1
        # RFC 6979 section 3.6: additional data makes another nonce, deterministic too.
        extra = ffi.new("unsigned char[32]", counter.to_bytes(32, "little"))
        signature = bytes(key.sign(digest, hasher=None, custom_nonce=(ffi.NULL, extra)))
    return signature
