"""One key on an EVM network: its rules, its forwarders, and the one signature that each transaction gets."""

from __future__ import annotations

from typing import Final, Protocol

from cryptography.hazmat.primitives.asymmetric import utils

from chains.eth.address import checksummed
from chains.eth.forwarder import agreed_forwarder
from policies.bundle import EvmKeyset, KeysetEntry
from signers.ecdsa import normalised
from signers.errors import SignerStopped, WrongSignature
from signers.evm import EvmRules, EvmUnsigned
from signers.keyset import EvmKeysetRecord
from signers.ports import InputSignature
from signers.wallets.common import Kept, Keys, verifies


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
