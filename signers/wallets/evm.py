"""One key on an EVM network: what it signs by which rules, and the one signature that each transaction gets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from chains.errors import InvalidValue
from chains.eth.address import checksummed
from chains.eth.forwarder import agreed_forwarder
from chains.eth.safe import owner_of
from chains.eth.tx import address_text_of_key
from policies.bundle import EvmKeyset, WalletEntry
from signers.errors import SealBroken, SignerStopped
from signers.guard.evm import EvmRules
from signers.guard.evm_tx import EvmUnsigned
from signers.guard.gas_payer import GasPayerRules
from signers.guard.safe import SafeRules, SafeUnsigned
from signers.keys.ecdsa import normalised
from signers.keys.keyset import KEY_PLACE, EvmKeysetRecord, EvmRecord, GasPayerRecord, SafeOwnerRecord
from signers.ports import InputSignature
from signers.wallets.common import Kept, Keys, Wallet

_V_OF_PARITY: Final = 27
"""What a Safe expects to be added to the parity of y."""


class EvmKeys(Keys, Protocol):
    """One key of an EVM network. An HSM's signatures are random, so those that are released are kept."""

    @property
    def record(self) -> EvmRecord:
        """The public half."""

    @property
    def pubkey(self) -> bytes:
        """33 bytes."""

    def sign(self, branch: int, index: int, digest: bytes) -> tuple[bytes, bytes]:
        """Public key, and r and s (64 bytes), which may be others each time, and s in either half.

        Its only place is `KEY_PLACE`.
        """


class EvmWallet:
    """A key that pays, and the forwarders that pay into its address.

    Raises:
        SealBroken: the key was made for a Safe's owner, or to pay gas only.
    """

    own_addresses: Final = 1

    def __init__(self, keys: EvmKeys) -> None:
        if not isinstance(keys.record, EvmKeysetRecord):
            raise SealBroken(
                f"{keys.record.id!r}: this key was not made to pay, but as {_purpose(keys.record)}"
            )
        _check_address(keys)
        self.keys = keys
        self.rules = EvmRules(keys.record)

    def address(self, keyset: WalletEntry, branch: int, index: int) -> tuple[str, str]:
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
            WrongSignature, TokenLost: see `Wallet`.
        """
        return _sent_once(self.keys, unsigned, kept)


class GasPayerWallet:
    """A key that sends what owners of Safes have signed, and pays the gas.

    Raises:
        SealBroken: the key was made for something else.
    """

    own_addresses: Final = 0

    def __init__(self, keys: EvmKeys) -> None:
        if not isinstance(keys.record, GasPayerRecord):
            raise SealBroken(
                f"{keys.record.id!r}: this key was made as {_purpose(keys.record)}, not to pay gas"
            )
        _check_address(keys)
        self.keys = keys
        self.rules = GasPayerRules(keys.record)

    def address(self, keyset: WalletEntry, branch: int, index: int) -> tuple[str, str]:
        """Raises InvalidValue: its only address is in the bundle, and nobody is to deposit there."""
        raise InvalidValue(f"{keyset.id} has one address, which the bundle names")

    def sign(self, unsigned: EvmUnsigned, kept: Kept) -> tuple[InputSignature, ...]:
        """The one signature of the transaction, kept like any other.

        Raises:
            SignerStopped: the one in the journal does not verify.
            WrongSignature, TokenLost: see `Wallet`.
        """
        return _sent_once(self.keys, unsigned, kept)


class SafeWallet:
    """The key of one owner of a Safe. Its address never pays anything itself.

    Raises:
        SealBroken: the key was made for something else.
    """

    own_addresses: Final = 0

    def __init__(self, keys: EvmKeys) -> None:
        if not isinstance(keys.record, SafeOwnerRecord):
            raise SealBroken(
                f"{keys.record.id!r}: this key was made as {_purpose(keys.record)}, not for a Safe"
            )
        _check_address(keys)
        self.keys = keys
        self.rules = SafeRules(keys.record)

    def address(self, keyset: WalletEntry, branch: int, index: int) -> tuple[str, str]:
        """Raises InvalidValue: a Safe's only address is in the bundle, and an owner can't derive it."""
        raise InvalidValue(f"{keyset.id} has one address, which the bundle names")

    def sign(self, unsigned: SafeUnsigned, kept: Kept) -> tuple[InputSignature, ...]:
        """The owner's one signature, kept like any other.

        Raises:
            SignerStopped: the one in the journal does not verify.
            WrongSignature, TokenLost: see `Wallet`.
        """

        def owner(signature: bytes) -> bytes:
            return owner_of(unsigned.message.signing_hash, signature)

        return _signed_once(self.keys, unsigned.content, kept, first_v=_V_OF_PARITY, signer=owner)


def evm_wallet(keys: EvmKeys) -> Wallet[Any]:
    """The wallet for which a key was made."""
    if isinstance(keys.record, SafeOwnerRecord):
        return SafeWallet(keys)
    return GasPayerWallet(keys) if isinstance(keys.record, GasPayerRecord) else EvmWallet(keys)


def _purpose(record: EvmRecord) -> str:
    """What a key was made for, as its record says it."""
    return str(record.__struct_config__.tag)


def _sent_once(keys: EvmKeys, unsigned: EvmUnsigned, kept: Kept) -> tuple[InputSignature, ...]:
    """The one signature of a transaction of the key's own address."""

    def sender(signature: bytes) -> bytes:
        return unsigned.tx.signed(signature).sender()

    return _signed_once(keys, unsigned.content, kept, first_v=0, signer=sender)


def _signed_once(
    keys: EvmKeys, content: str, kept: Kept, *, first_v: int, signer: Callable[[bytes], bytes]
) -> tuple[InputSignature, ...]:
    """The one signature of a content: the journal's, or one that is made, verified and kept now.

    Args:
        keys: make it.
        content: what is signed, 64 hex digits.
        kept: the journal's memory.
        first_v: what stands for an even y in the last byte.
        signer: recovers the address (20 bytes) that made 65 bytes; raises ValueError where none did.
    """
    pubkey, digest = keys.pubkey, bytes.fromhex(content)
    if kept.before is None:
        # libsecp256k1, which no token signs with, has recovered the public key from what comes out here.
        plain = normalised(keys.sign(*KEY_PLACE, digest)[1], pubkey, digest)
        made = (plain[:64] + bytes([first_v + plain[64]])).hex()
        text = kept.keep(made)
        if text == made:
            return (InputSignature(index=0, pubkey=pubkey.hex(), signature=text),)
    else:
        text = kept.before
    if not _verified(text, keys.record.address, signer):
        raise SignerStopped(f"the journal's signature for {content} is damaged")
    return (InputSignature(index=0, pubkey=pubkey.hex(), signature=text),)


def _verified(text: str, address: str, signer: Callable[[bytes], bytes]) -> bool:
    """Whether a signature (65 bytes, hex) was made by the key of an address."""
    try:
        return checksummed(signer(bytes.fromhex(text))) == address
    except ValueError:
        return False


def _check_address(keys: EvmKeys) -> None:
    """Check once that what signatures are compared with is the record's. Raises SealBroken."""
    if address_text_of_key(keys.pubkey) != keys.record.address:
        raise SealBroken(f"{keys.record.id!r}: the public key is not the one of the record's address")
