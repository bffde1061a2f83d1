"""The private account key of an HD wallet or of one cosigner, as it lives in a signer's memory while it signs.

Only the account node: m/84h/coinh/0h (P2WPKH), m/86h/coinh/0h (P2TR), or as one cosigner of a vault m/48h/coinh/0h/2h.
It is never written, printed, logged or sent.

Sources: BIP32, BIP39, BIP48, BIP84, BIP86; RFC 6979, and BIP340 with zeros as auxiliary randomness (deterministic
nonces, so the same digest gives the same signature); BIP341 (the tweak of a taproot key).
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable
from typing import Final, Generic, NoReturn, TypeVar

import coincurve

from chains.btc.hd import HARDENED, AccountKey, BranchKeys
from chains.btc.network import BtcNetwork
from chains.btc.script import taproot_tweak
from chains.errors import InvalidValue
from chains.secp256k1 import CURVE_ORDER
from signers.keys.keyset import PURPOSES

ENTROPY_BYTES: Final = 32
"""256 bits: 24 BIP39 words."""
P = TypeVar("P", bound=BranchKeys)
_ACCOUNT_PATHS: Final = {
    kind: re.compile(rf"{n}'/[01]'/(0|[1-9][0-9]{{0,8}})'") for kind, n in PURPOSES.items()
}
_COSIGNER_PATH: Final = re.compile(r"48'/[01]'/(0|[1-9][0-9]{0,8})'/2'")
_NO_RANDOMNESS: Final = bytes(32)


class AccountSecret(Generic[P]):
    """The private account of one key-set, or of one cosigner, in memory."""

    __slots__ = ("_branches", "_secret", "public")

    public: P
    """Its public half, from which every address is derived."""

    def __init__(self, secret: bytes, chain_code: bytes, public: P) -> None:
        self._secret = secret
        self.public = public
        self._branches = tuple(_child(secret, chain_code, branch) for branch in (0, 1))

    def __repr__(self) -> str:
        return "[secret]"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a private key is not copied or pickled")

    @staticmethod
    def from_entropy(entropy: bytes, network: BtcNetwork, path: str) -> tuple[AccountSecret[AccountKey], str]:
        """The account at m/`path` of the wallet with this BIP39 entropy, and its origin text.

        Args:
            entropy: 32 bytes.
            network: decides the version bytes.
            path: three hardened steps: `84'/1'/0'` for P2WPKH, `86'/1'/0'` for P2TR.

        Raises:
            InvalidValue: the entropy has another length, or the path another form.
        """
        kinds = [kind for kind, pattern in _ACCOUNT_PATHS.items() if pattern.fullmatch(path)]
        if len(kinds) != 1:
            raise InvalidValue(f"path {path!r}: expected 84'/1'/0' or 86'/1'/0'")
        return _account(entropy, network, path, lambda text: AccountKey.parse(text, network, kinds[0]))

    @staticmethod
    def of_cosigner(entropy: bytes, network: BtcNetwork, path: str) -> tuple[AccountSecret[BranchKeys], str]:
        """A cosigner's account at m/`path`, and its origin text.

        Args:
            entropy: 32 bytes.
            network: decides the version bytes.
            path: four hardened steps, e.g. `48'/1'/0'/2'` (BIP48, P2WSH).

        Raises:
            InvalidValue: the entropy has another length, or the path another form.
        """
        if not _COSIGNER_PATH.fullmatch(path):
            raise InvalidValue(f"path {path!r}: expected one such as 48'/1'/0'/2'")
        return _account(entropy, network, path, lambda text: BranchKeys.of_depth(text, network, 4))

    def sign(self, branch: int, index: int, digest: bytes) -> tuple[bytes, bytes]:
        """Sign 32 bytes with the key at branch/index.

        Returns:
            The public key (33 bytes) and the signature: low-s DER (RFC 6979), or of a P2TR account the 64 bytes of
            BIP340 by the key's output key. Deterministic.

        The caller compares the key with the one it derived from the account's public half, and verifies.

        Raises:
            InvalidValue: no such path, or not 32 bytes.
        """
        if branch not in (0, 1) or not 0 <= index < HARDENED or len(digest) != 32:
            raise InvalidValue(f"path {branch}/{index} with a digest of {len(digest)} bytes: not signable")
        secret, chain_code, pubkey = self._branches[branch]
        key = coincurve.PrivateKey(_tweaked(secret, chain_code, pubkey, index)[0])
        own: bytes = key.public_key.format()
        if isinstance(self.public, AccountKey) and self.public.kind == "p2tr":
            return own, _output_key(key, own).sign_schnorr(digest, _NO_RANDOMNESS)
        return own, key.sign(digest, hasher=None)


def _account(
    entropy: bytes, network: BtcNetwork, path: str, parse: Callable[[str], P]
) -> tuple[AccountSecret[P], str]:
    from embit import bip32, bip39  # its word list takes a while

    if len(entropy) != ENTROPY_BYTES:
        raise InvalidValue(f"entropy of {len(entropy)} bytes: expected {ENTROPY_BYTES}")
    seed = bip39.mnemonic_to_seed(bip39.mnemonic_from_bytes(entropy))
    master = bip32.HDKey.from_seed(seed, version=network.xprv_version)
    account = master.derive("m/" + path.replace("'", "h"))
    public = parse(account.to_public().to_base58(version=network.xpub_version))
    secret = AccountSecret(bytes(account.key.secret), bytes(account.chain_code), public)
    return secret, f"{bytes(master.my_fingerprint).hex()}/{path}"


def _output_key(key: coincurve.PrivateKey, pubkey: bytes) -> coincurve.PrivateKey:
    """The private half of the taproot output key of an internal key without scripts (BIP341: taproot_tweak_seckey)."""
    secret = key.to_int()
    even = secret if pubkey[0] == 2 else CURVE_ORDER - secret
    tweaked = (even + int.from_bytes(taproot_tweak(pubkey), "big")) % CURVE_ORDER
    return coincurve.PrivateKey(tweaked.to_bytes(32, "big"))


def _tweaked(secret: bytes, chain_code: bytes, pubkey: bytes, number: int) -> tuple[bytes, bytes]:
    """CKDpriv of BIP32 for a non-hardened child: its secret and chain code."""
    digest = hmac.digest(chain_code, pubkey + number.to_bytes(4, "big"), "sha512")
    tweak = int.from_bytes(digest[:32], "big")
    child = (tweak + int.from_bytes(secret, "big")) % CURVE_ORDER
    if tweak >= CURVE_ORDER or child == 0:
        raise InvalidValue(f"child {number}: no key exists at this index, use the next one")
    return child.to_bytes(32, "big"), digest[32:]


def _child(secret: bytes, chain_code: bytes, number: int) -> tuple[bytes, bytes, bytes]:
    """Secret, chain code and public key of a branch."""
    pubkey = coincurve.PrivateKey(secret).public_key.format()
    child, child_code = _tweaked(secret, chain_code, pubkey, number)
    return child, child_code, coincurve.PrivateKey(child).public_key.format()
