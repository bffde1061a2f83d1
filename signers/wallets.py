"""A key-set's keys together with its family's rules: what signs, verifies what was signed, and derives addresses.

Keys may be anywhere (an HSM, a sealed seed); nothing that they return is released before another library has
verified it.
"""

from __future__ import annotations

from typing import Final, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256

from chains.btc.hd import HARDENED, AccountKey, agreed_address
from chains.btc.tx import SIGHASH_ALL, SegwitDigests
from chains.eth.address import checksummed
from chains.eth.forwarder import agreed_forwarder
from policies.bundle import EvmKeyset, KeysetEntry
from signers.btc import BitcoinRules, BitcoinUnsigned
from signers.ecdsa import normalised
from signers.errors import SignerStopped, WrongSignature
from signers.evm import EvmRules, EvmUnsigned
from signers.guard import FamilyRules, U
from signers.keyset import BitcoinKeysetRecord, EvmKeysetRecord, KeysetRecord
from signers.ports import InputSignature

_LOW_S_LIMIT: Final = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0
"""Half of the order of secp256k1; above it a signature is not relayed (BIP146, EIP-2)."""
_DIGEST: Final = ec.ECDSA(utils.Prehashed(SHA256()))
_CURVE: Final = ec.SECP256K1()


class Kept(Protocol):
    """The journal's memory of one transaction's signature."""

    @property
    def before(self) -> str | None:
        """The signature that was recorded earlier, None if there is none."""

    def keep(self, signature: str) -> str:
        """Record a signature and return the one to release: of several made at once the first one recorded.

        Raises:
            JournalUnavailable: it is not on the disk, so it must not be released.
        """


class Keys(Protocol):
    """The keys of one key-set, wherever they are. What they return is verified before it is released."""

    @property
    def record(self) -> KeysetRecord:
        """The public half."""

    def attest(self, digest: bytes) -> bytes:
        """Ed25519 signature (64 bytes) of 32 bytes by the attestation key."""


class BitcoinKeys(Keys, Protocol):
    """The keys of an HD wallet."""

    @property
    def record(self) -> BitcoinKeysetRecord:
        """The public half."""

    @property
    def account(self) -> AccountKey:
        """The account public key."""

    def sign(self, branch: int, index: int, digest: bytes) -> tuple[bytes, bytes]:
        """Public key (33 bytes) and low-s DER signature of 32 bytes; the same for the same digest."""


class EvmKeys(Keys, Protocol):
    """One key of an EVM network."""

    @property
    def record(self) -> EvmKeysetRecord:
        """The public half."""

    @property
    def pubkey(self) -> bytes:
        """33 bytes."""

    def sign(self, digest: bytes) -> bytes:
        """r and s (64 bytes) for a digest of 32 bytes; they may be others each time, and s in either half."""


class Wallet(Protocol[U]):
    """One key-set of one family."""

    @property
    def keys(self) -> Keys:
        """Its keys."""

    @property
    def rules(self) -> FamilyRules[U]:
        """How its transactions are read and judged."""

    @property
    def own_addresses(self) -> int:
        """How many addresses branch 1 has."""

    def address(self, keyset: KeysetEntry, branch: int, index: int) -> tuple[str, str]:
        """Path and address at `branch`/`index`, derived by two implementations that agree.

        Args:
            keyset: what the bundle says of the key-set; checked to be this one.
            branch: 0 for deposits, 1 for the house's own.
            index: below `own_addresses` on branch 1.
        """

    def sign(self, unsigned: U, kept: Kept) -> tuple[InputSignature, ...]:
        """The verified signatures of a journaled transaction; the same for the same transaction.

        Raises:
            WrongSignature: the backend returned something else; nothing is released.
            TokenLost: the token does not answer.
        """


class BitcoinWallet:
    """An HD wallet. Its signatures are deterministic, so none has to be kept."""

    own_addresses: Final = HARDENED

    def __init__(self, keys: BitcoinKeys) -> None:
        self.keys = keys
        self.rules = BitcoinRules(keys.record, keys.account)

    def address(self, keyset: KeysetEntry, branch: int, index: int) -> tuple[str, str]:
        """The P2WPKH address at a path of the account."""
        path = f"m/{self.keys.record.path}/{branch}/{index}"
        return path, agreed_address(self.keys.account, branch, index)

    def sign(self, unsigned: BitcoinUnsigned, kept: Kept) -> tuple[InputSignature, ...]:
        """One signature for each input."""
        digests = SegwitDigests(unsigned.psbt.tx)
        signatures = []
        inputs = zip(unsigned.places, unsigned.pubkeys, unsigned.psbt.spent, strict=True)
        for number, ((branch, index), pubkey, spent) in enumerate(inputs):
            digest = digests.p2wpkh(number, pubkey, spent.units)
            signer, der = self.keys.sign(branch, index, digest)
            if signer != pubkey or not verifies(pubkey, digest, der):
                raise WrongSignature(f"the signature for input {number} does not verify; it was not released")
            signatures.append(
                InputSignature(
                    index=number, pubkey=pubkey.hex(), signature=(der + bytes([SIGHASH_ALL])).hex()
                )
            )
        return tuple(signatures)


class EvmWallet:
    """One key, and the forwarders that pay into its address. An HSM's signatures are random, so each is kept."""

    own_addresses: Final = 1

    def __init__(self, keys: EvmKeys) -> None:
        self.keys = keys
        self.rules = EvmRules(keys.record)

    def address(self, keyset: KeysetEntry, branch: int, index: int) -> tuple[str, str]:
        """The forwarder with an index as salt (branch 0), or the key's own address."""
        assert isinstance(keyset, EvmKeyset)  # check_keyset has said so
        path = f"m/{branch}/{index}"
        if branch == 1:
            return path, self.keys.record.address
        return path, agreed_forwarder(keyset.factory, keyset.forwarder, index)

    def sign(self, unsigned: EvmUnsigned, kept: Kept) -> tuple[InputSignature, ...]:
        """The one signature of the transaction: kept on the disk before it is released, and given again for ever.

        Raises:
            SignerStopped: the one in the journal does not verify.
        """
        pubkey, digest = self.keys.pubkey, bytes.fromhex(unsigned.content)
        text, made = kept.before, None
        if text is None:
            made = normalised(self.keys.sign(digest), pubkey, digest).hex()
            if not self._verified(unsigned, made):
                raise WrongSignature("the signature is not the key-set's; it was not released")
            text = kept.keep(made)
        if text != made and not self._verified(unsigned, text):
            raise SignerStopped(f"the journal's signature for {unsigned.content} is damaged")
        return (InputSignature(index=0, pubkey=pubkey.hex(), signature=text),)

    def _verified(self, unsigned: EvmUnsigned, text: str) -> bool:
        """Whether libsecp256k1 recovers the record's address from 65 bytes (hex), and OpenSSL verifies them."""
        try:
            signed = unsigned.tx.signed(bytes.fromhex(text))
            sender = checksummed(signed.sender())
        except ValueError:
            return False
        der = utils.encode_dss_signature(signed.r, signed.s)
        digest = bytes.fromhex(unsigned.content)
        return sender == self.keys.record.address and verifies(self.keys.pubkey, digest, der)


def verifies(pubkey: bytes, digest: bytes, der: bytes) -> bool:
    """Whether `der` is a low-s DER signature of a 32-byte digest by a 33-byte key, as OpenSSL sees it."""
    try:
        r, s = utils.decode_dss_signature(der)
        if s > _LOW_S_LIMIT or utils.encode_dss_signature(r, s) != der:
            return False
        ec.EllipticCurvePublicKey.from_encoded_point(_CURVE, pubkey).verify(der, digest, _DIGEST)
    except (InvalidSignature, ValueError):
        return False
    return True
