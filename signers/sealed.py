"""An HD seed sealed under an HSM key, and the account key that lives in this process while it signs.

At rest: 32 bytes of BIP39 entropy (24 words, no passphrase) as AES-256-GCM ciphertext under a key that cannot
leave the token; the associated data binds key-set, network and account path, so that a sealed file can't be
used under another name. In memory: only the account node: m/84h/coinh/0h (P2WPKH), m/86h/coinh/0h (P2TR), or as one
cosigner of a vault m/48h/coinh/0h/2h. It is never written, printed, logged or sent.

Sources: BIP32, BIP39, BIP48, BIP84, BIP86; RFC 6979, and BIP340 with zeros as auxiliary randomness (deterministic
nonces, so the same digest gives the same signature); BIP341 (the tweak of a taproot key).
"""

from __future__ import annotations

import base64
import hmac
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, NoReturn, TypeVar

import coincurve
import msgspec

from chains.btc.hd import HARDENED, AccountKey, BranchKeys
from chains.btc.network import NETWORKS, BtcNetwork
from chains.btc.script import KeyScript, taproot_tweak
from chains.errors import InvalidValue
from policies.canonical import Document, Name
from signers.errors import SealBroken
from signers.files import read_kept, write_new
from signers.keyset import PURPOSES, BitcoinCosignerRecord, BitcoinKeysetRecord, NetworkName
from signers.pkcs11 import Token

ENTROPY_BYTES: Final = 32
"""256 bits: 24 BIP39 words."""
SealedRecord = BitcoinKeysetRecord | BitcoinCosignerRecord
"""The public half of what a sealed seed is for."""
P = TypeVar("P", bound=BranchKeys)
R = TypeVar("R", bound=SealedRecord)
_CURVE_ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
_ACCOUNT_PATHS: Final = {
    kind: re.compile(rf"{n}'/[01]'/(0|[1-9][0-9]{{0,8}})'") for kind, n in PURPOSES.items()
}
_COSIGNER_PATH: Final = re.compile(r"48'/[01]'/(0|[1-9][0-9]{0,8})'/2'")
_NO_RANDOMNESS: Final = bytes(32)


class SealedSeed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The file `KEYSET.seed.json`: ciphertext and what it is bound to."""

    v: int = 1
    record: SealedRecord
    sealed: str
    """Base64 of nonce (12), ciphertext (32), tag (16)."""


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
    even = secret if pubkey[0] == 2 else _CURVE_ORDER - secret
    tweaked = (even + int.from_bytes(taproot_tweak(pubkey), "big")) % _CURVE_ORDER
    return coincurve.PrivateKey(tweaked.to_bytes(32, "big"))


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
    token: Token,
    keyset_id: str,
    network: str,
    directory: Path,
    *,
    account: int = 0,
    script: KeyScript = "p2wpkh",
    entropy: Callable[[int], bytes] = os.urandom,
) -> BitcoinKeysetRecord:
    """Make a key-set: keys in the token, a fresh seed sealed under one of them, and its public record.

    Again with the same `directory` returns the record of the key-set that is there.

    Args:
        token: logged in.
        keyset_id: its name in the bundle.
        network: `main`, `test`, `signet` or `regtest`.
        directory: the signer's directory; gets `KEYSET.seed.json` (0600).
        account: BIP44 account number.
        script: what its keys lock coins with.
        entropy: gives so many random bytes.

    Raises:
        InvalidValue: a malformed name, or an unknown network.
        TokenRefused: the token has keys of this name but the sealed seed is missing.
        TokenLost: the token does not answer.
        SealBroken: what was sealed does not open again (nothing is kept then), or other keys are there.
    """
    path = seed_path(directory, keyset_id)
    if path.exists():
        found = read_sealed(path).record
        if not isinstance(found, BitcoinKeysetRecord) or (found.network, found.script) != (network, script):
            raise SealBroken(f"{path} is no seed of a {script} key-set on {network}")
        return found
    name = _network(keyset_id, network)
    constants = NETWORKS[name]
    account_path = f"{PURPOSES[script]}'/{constants.coin_type}'/{account}'"
    made = entropy(ENTROPY_BYTES)
    secret, origin = AccountSecret.from_entropy(made, constants, account_path)
    record = BitcoinKeysetRecord(
        id=keyset_id,
        network=name,
        script=script,
        account=secret.public.xpub,
        origin=origin,
        attestation_key=_made_keys(token, keyset_id),
    )
    file = seal_entropy(token, record, made)
    write_new(path, msgspec.json.encode(file))
    return record


def create_cosigner(
    token: Token,
    vault_id: str,
    network: str,
    directory: Path,
    *,
    account: int = 0,
    entropy: Callable[[int], bytes] = os.urandom,
) -> BitcoinCosignerRecord:
    """Make one cosigner's keys of a vault, like `create_keyset`; takes and raises the same."""
    path = seed_path(directory, vault_id)
    if path.exists():
        found = read_sealed(path).record
        if not isinstance(found, BitcoinCosignerRecord) or found.network != network:
            raise SealBroken(f"{path} is no seed of a cosigner on {network}")
        return found
    name = _network(vault_id, network)
    constants = NETWORKS[name]
    made = entropy(ENTROPY_BYTES)
    account_path = f"48'/{constants.coin_type}'/{account}'/2'"
    secret, origin = AccountSecret.of_cosigner(made, constants, account_path)
    record = BitcoinCosignerRecord(
        id=vault_id,
        network=name,
        account=secret.public.xpub,
        origin=origin,
        attestation_key=_made_keys(token, vault_id),
    )
    file = seal_entropy(token, record, made)
    write_new(path, msgspec.json.encode(file))
    return record


def open_keyset(token: Token, file: SealedSeed) -> AccountSecret[AccountKey]:
    """Unseal a key-set and check that it is the one its record describes.

    Raises:
        SealBroken: it is not, or the ciphertext does not open under this token's key, or it is a cosigner's.
        TokenRefused: the token has no such key.
        TokenLost: the token does not answer.
    """
    record = file.record
    if not isinstance(record, BitcoinKeysetRecord):
        raise SealBroken(f"{record.id!r}: a cosigner's seed, not a key-set's")
    found = AccountSecret.from_entropy(_unsealed(token, file), NETWORKS[record.network], record.path)
    return _described(token, record, found)


def open_cosigner(token: Token, file: SealedSeed) -> AccountSecret[BranchKeys]:
    """Unseal a cosigner's keys, like `open_keyset`; raises the same."""
    record = file.record
    if not isinstance(record, BitcoinCosignerRecord):
        raise SealBroken(f"{record.id!r}: a key-set's seed, not a cosigner's")
    found = AccountSecret.of_cosigner(_unsealed(token, file), NETWORKS[record.network], record.path)
    return _described(token, record, found)


def _network(keyset: str, network: str) -> NetworkName:
    """The network, if name and network are well formed. Raises InvalidValue."""
    try:
        name, _ = msgspec.convert((network, keyset), tuple[NetworkName, Name])
    except msgspec.ValidationError as error:
        raise InvalidValue(f"key-set {keyset!r} on {network!r}: {error}") from None
    return name


def _made_keys(token: Token, keyset: str) -> str:
    """Make the token's keys of a key-set; the public half of the one that attests (hex)."""
    token.make_sealing_key(sealing_key_name(keyset))
    return token.make_attestation_key(attestation_key_name(keyset)).hex()


def seal_entropy(token: Token, record: SealedRecord, entropy: bytes) -> SealedSeed:
    """Seal a seed under the sealing key that the token has for this key-set, and check that it opens again.

    Args:
        token: has the sealing key and the attestation key that the record names.
        record: the public half.
        entropy: 32 bytes (BIP39).

    Raises:
        SealBroken: what was sealed does not open again, or is not what the record describes.
        TokenRefused: the token has no such keys.
        TokenLost: the token does not answer.
    """
    associated = _associated(record.id, record.network, record.path)
    ciphertext = token.seal(sealing_key_name(record.id), entropy, associated)
    file = SealedSeed(record=record, sealed=base64.b64encode(ciphertext).decode())
    if isinstance(record, BitcoinKeysetRecord):
        open_keyset(token, file)
    else:
        open_cosigner(token, file)
    return file


def _unsealed(token: Token, file: SealedSeed) -> bytes:
    record = file.record
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
    return entropy


def _described(token: Token, record: SealedRecord, found: tuple[AccountSecret[P], str]) -> AccountSecret[P]:
    """The secret, if it and the token's attestation key are what the record says."""
    secret, origin = found
    if (secret.public.xpub, origin) != (record.account, record.origin):
        raise SealBroken(f"key-set {record.id!r}: the sealed seed is not the one its record describes")
    if token.attestation_public_key(attestation_key_name(record.id)).hex() != record.attestation_key:
        raise SealBroken(f"key-set {record.id!r}: the token's attestation key is not the recorded one")
    return secret


def read_sealed(path: Path) -> SealedSeed:
    """Read a sealed seed's file. Raises SealBroken where it is missing or malformed."""
    return read_kept(path, SealedSeed)


class _Sealed(Generic[R, P]):
    """A seed that was unsealed, and the attestation key that stays in the token."""

    __slots__ = ("_secret", "_token", "account", "record")

    record: R
    account: P

    def __init__(self, token: Token, record: R, secret: AccountSecret[P]) -> None:
        self._token, self._secret = token, secret
        self.record, self.account = record, secret.public

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.record.id!r}, [secret])"

    def sign(self, branch: int, index: int, digest: bytes) -> tuple[bytes, bytes]:
        """Public key (33 bytes) and deterministic signature of 32 bytes, see `AccountSecret.sign`."""
        return self._secret.sign(branch, index, digest)

    def attest(self, digest: bytes) -> bytes:
        """Ed25519 signature (64 bytes) by the token's attestation key."""
        return self._token.sign(attestation_key_name(self.record.id), digest)


class SealedKeys(_Sealed[BitcoinKeysetRecord, AccountKey]):
    """A key-set whose seed was unsealed and whose attestation key stays in the token."""

    __slots__ = ()

    def __init__(self, token: Token, file: SealedSeed) -> None:
        secret = open_keyset(token, file)
        assert isinstance(file.record, BitcoinKeysetRecord)  # open_keyset has said so
        super().__init__(token, file.record, secret)


class SealedCosigner(_Sealed[BitcoinCosignerRecord, BranchKeys]):
    """One cosigner's keys of a vault, likewise."""

    __slots__ = ()

    def __init__(self, token: Token, file: SealedSeed) -> None:
        secret = open_cosigner(token, file)
        assert isinstance(file.record, BitcoinCosignerRecord)  # open_cosigner has said so
        super().__init__(token, file.record, secret)
