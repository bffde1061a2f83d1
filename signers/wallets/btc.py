"""An HD wallet on Bitcoin: its keys, its rules, and signatures that another library has verified."""

from __future__ import annotations

from typing import Final, Protocol

from chains.btc.hd import HARDENED, AccountKey, agreed_address
from chains.btc.tx import SIGHASH_ALL, SegwitDigests
from policies.bundle import KeysetEntry
from signers.btc import BitcoinRules, BitcoinUnsigned
from signers.errors import WrongSignature
from signers.keyset import BitcoinKeysetRecord
from signers.ports import InputSignature
from signers.wallets.common import Kept, Keys, verifies


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
