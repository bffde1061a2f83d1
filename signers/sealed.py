"""An HD seed sealed under an HSM key, and the account key that lives in this process while it signs.

At rest: 32 bytes of BIP39 entropy (24 words, no passphrase) as AES-256-GCM ciphertext under a key that cannot
leave the token; the associated data binds key-set, network and account path, so that a sealed file can't be
used under another name. In memory: only the BIP84 account node m/84h/coinh/0h. It is never written, printed,
logged or sent.

Sources: BIP32, BIP39, BIP84, RFC 6979 (deterministic nonces, so the same digest gives the same signature).
"""

from __future__ import annotations

import base64
import hmac
import os
import re
from pathlib import Path
from typing import Final, NoReturn, Self

import coincurve
import msgspec

from chains.btc.hd import HARDENED, AccountKey
from chains.btc.network import NETWORKS, BtcNetwork
from chains.errors import InvalidValue
from policies.canonical import Document, Name
from signers.errors import SealBroken
from signers.files import read_kept, write_new
from signers.keyset import BitcoinKeysetRecord, NetworkName
from signers.pkcs11 import Token

ENTROPY_BYTES: Final = 32
"""256 bits: 24 BIP39 words."""
_CURVE_ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
_ACCOUNT_PATH: Final = re.compile(r"84'/[01]'/(0|[1-9][0-9]{0,8})'")


class SealedSeed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The file `KEYSET.seed.json`: ciphertext and what it is bound to."""

    v: int = 1
    record: BitcoinKeysetRecord
    sealed: str
    """Base64 of nonce (12), ciphertext (32), tag (16)."""


class AccountSecret:
    """The private BIP84 account of one key-set, in memory."""

    __slots__ = ("_branches", "_secret", "public")

    public: AccountKey
    """Its public half, from which every address is derived."""

    def __init__(self, secret: bytes, chain_code: bytes, public: AccountKey) -> None:
        self._secret = secret
        self.public = public
        self._branches = tuple(_child(secret, chain_code, branch) for branch in (0, 1))

    def __repr__(self) -> str:
        return "[secret]"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a private key is not copied or pickled")

    @classmethod
    def from_entropy(cls, entropy: bytes, network: BtcNetwork, path: str) -> tuple[Self, str]:
        """The account at m/`path` of the wallet with this BIP39 entropy, and its origin text.

        Args:
            entropy: 32 bytes.
            network: decides the version bytes.
            path: three hardened steps, e.g. `84'/1'/0'`.

        Raises:
            InvalidValue: malformed entropy or path.
        """
        from embit import bip32, bip39

        if len(entropy) != ENTROPY_BYTES or not _ACCOUNT_PATH.fullmatch(path):
            raise InvalidValue(f"expected {ENTROPY_BYTES} bytes of entropy and a path such as 84'/1'/0'")
        seed = bip39.mnemonic_to_seed(bip39.mnemonic_from_bytes(entropy))
        master = bip32.HDKey.from_seed(seed, version=network.xprv_version)
        account = master.derive("m/" + path.replace("'", "h"))
        public = AccountKey.parse(account.to_public().to_base58(version=network.xpub_version), network)
        secret = cls(bytes(account.key.secret), bytes(account.chain_code), public)
        return secret, f"{bytes(master.my_fingerprint).hex()}/{path}"

    def sign(self, branch: int, index: int, digest: bytes) -> tuple[bytes, bytes]:
        """Sign 32 bytes with the key at branch/index.

        Returns:
            The public key (33 bytes) and the low-s DER signature; deterministic (RFC 6979).

        The caller compares the key with the one it derived from the account's public half, and verifies.

        Raises:
            InvalidValue: no such path, or not 32 bytes.
        """
        if branch not in (0, 1) or not 0 <= index < HARDENED or len(digest) != 32:
            raise InvalidValue(f"path {branch}/{index} with a digest of {len(digest)} bytes: not signable")
        secret, chain_code, pubkey = self._branches[branch]
        key = coincurve.PrivateKey(_tweaked(secret, chain_code, pubkey, index)[0])
        return key.public_key.format(), key.sign(digest, hasher=None)


def _tweaked(secret: bytes, chain_code: bytes, pubkey: bytes, number: int) -> tuple[bytes, bytes]:
    """CKDpriv of BIP32 for a non-hardened child: its secret and chain code."""
    digest = hmac.digest(chain_code, pubkey + number.to_bytes(4, "big"), "sha512")
    tweak = int.from_bytes(digest[:32], "big")
    child = (tweak + int.from_bytes(secret, "big")) % _CURVE_ORDER
    if tweak >= _CURVE_ORDER or child == 0:
        raise InvalidValue(f"child {number}: no key exists at this index, use the next one")
    return child.to_bytes(32, "big"), digest[32:]


def _child(secret: bytes, chain_code: bytes, number: int) -> tuple[bytes, bytes, bytes]:
    """Secret, chain code and public key of a branch."""
    pubkey = coincurve.PrivateKey(secret).public_key.format()
    child, child_code = _tweaked(secret, chain_code, pubkey, number)
    return child, child_code, coincurve.PrivateKey(child).public_key.format()


class _Binding(Document, frozen=True):
    """What the ciphertext is bound to."""

    domain = "sealed-seed"

    keyset: Name
    network: str
    path: str


def _associated(keyset: str, network: str, path: str) -> bytes:
    return _Binding(keyset=keyset, network=network, path=path).digest()


def sealing_key_name(keyset: str) -> str:
    """Label of the AES key in the token under which the key-set's seed is sealed."""
    return f"{keyset}-seal"


def attestation_key_name(keyset: str) -> str:
    """Label of the Ed25519 key in the token that attests the key-set's addresses."""
    return f"{keyset}-attest"


def seed_path(directory: Path, keyset: str) -> Path:
    """Where a key-set's sealed seed is kept."""
    return directory / f"{keyset}.seed.json"


def create_keyset(
    token: Token, keyset_id: str, network: str, directory: Path, *, account: int = 0
) -> BitcoinKeysetRecord:
    """Make a key-set: keys in the token, a fresh seed sealed under one of them, and its public record.

    Again with the same `directory` returns the record of the key-set that is there.

    Args:
        token: logged in.
        keyset_id: its name in the bundle.
        network: `main`, `test`, `signet` or `regtest`.
        directory: the signer's directory; gets `KEYSET.seed.json` (0600).
        account: BIP44 account number.

    Raises:
        InvalidValue: a malformed name, or an unknown network.
        TokenRefused: the token has keys of this name but the sealed seed is missing.
        TokenLost: the token does not answer.
        SealBroken: what was sealed does not open again (nothing is kept then).
    """
    path = seed_path(directory, keyset_id)
    if path.exists():
        return read_sealed(path).record
    try:
        name, _ = msgspec.convert((network, keyset_id), tuple[NetworkName, Name])
    except msgspec.ValidationError as error:
        raise InvalidValue(f"key-set {keyset_id!r} on {network!r}: {error}") from None
    constants = NETWORKS[name]
    token.make_sealing_key(sealing_key_name(keyset_id))
    attestation_key = token.make_attestation_key(attestation_key_name(keyset_id))
    account_path = f"84'/{constants.coin_type}'/{account}'"
    entropy = os.urandom(ENTROPY_BYTES)
    secret, origin = AccountSecret.from_entropy(entropy, constants, account_path)
    record = BitcoinKeysetRecord(
        id=keyset_id,
        network=name,
        account=secret.public.xpub,
        origin=origin,
        attestation_key=attestation_key.hex(),
    )
    sealed = token.seal(sealing_key_name(keyset_id), entropy, _associated(keyset_id, network, account_path))
    file = SealedSeed(record=record, sealed=base64.b64encode(sealed).decode())
    open_keyset(token, file)
    write_new(path, msgspec.json.encode(file))
    return record


def open_keyset(token: Token, file: SealedSeed) -> AccountSecret:
    """Unseal a key-set and check that it is the one its record describes.

    Raises:
        SealBroken: it is not, or the ciphertext does not open under this token's key.
        TokenRefused: the token has no such key.
        TokenLost: the token does not answer.
    """
    record = file.record
    network = NETWORKS.get(record.network)
    if network is None:
        raise SealBroken(f"key-set {record.id!r}: unknown network {record.network!r}")
    entropy = token.unseal(
        sealing_key_name(record.id),
        base64.b64decode(file.sealed),
        _associated(record.id, record.network, record.path),
    )
    if entropy is None:
        raise SealBroken(
            f"key-set {record.id!r}: the sealed seed does not open under token {token.label!r}; "
            "it belongs to another token or key-set, or the file is damaged"
        )
    secret, origin = AccountSecret.from_entropy(entropy, network, record.path)
    if (secret.public.xpub, origin) != (record.account, record.origin):
        raise SealBroken(f"key-set {record.id!r}: the sealed seed is not the one its record describes")
    if token.attestation_public_key(attestation_key_name(record.id)).hex() != record.attestation_key:
        raise SealBroken(f"key-set {record.id!r}: the token's attestation key is not the recorded one")
    return secret


def read_sealed(path: Path) -> SealedSeed:
    """Read a sealed seed's file. Raises SealBroken where it is missing or malformed."""
    return read_kept(path, SealedSeed)


class SealedKeys:
    """A key-set whose seed was unsealed and whose attestation key stays in the token."""

    __slots__ = ("_secret", "_token", "account", "record")

    record: BitcoinKeysetRecord
    account: AccountKey

    def __init__(self, token: Token, file: SealedSeed) -> None:
        self._token = token
        self._secret = open_keyset(token, file)
        self.record = file.record
        self.account = self._secret.public

    def __repr__(self) -> str:
        return f"SealedKeys({self.record.id!r}, [secret])"

    def sign(self, branch: int, index: int, digest: bytes) -> tuple[bytes, bytes]:
        """Public key (33 bytes) and deterministic low-s DER signature of 32 bytes."""
        return self._secret.sign(branch, index, digest)

    def attest(self, digest: bytes) -> bytes:
        """Ed25519 signature (64 bytes) by the token's attestation key."""
        return self._token.sign(attestation_key_name(self.record.id), digest)
