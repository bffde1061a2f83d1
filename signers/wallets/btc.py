"""Keys of Bitcoin: an HD wallet's, or one cosigner's of a vault; signatures that another library has verified."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from embit.util.key import verify_schnorr

from chains.btc.hd import HARDENED, AccountKey, BranchKeys, agreed_address
from chains.btc.script import taproot_output_key
from chains.btc.tx import SIGHASH_ALL, SegwitDigests, TaprootDigests
from chains.errors import InvalidValue
from policies.bundle import KeysetEntry
from signers.errors import WrongSignature
from signers.guard.btc import BitcoinRules
from signers.guard.btc_shape import BitcoinUnsigned
from signers.guard.btc_vault import BitcoinVaultRules
from signers.keys.keyset import BitcoinCosignerRecord, BitcoinKeysetRecord
from signers.ports import InputSignature
from signers.process.turn import INPUT_BYTES, turn_for
from signers.wallets.common import Kept, Keys, verifies

_SCHNORR_BYTES: Final = 64


class BitcoinKeys(Keys, Protocol):
    """The keys of an HD wallet."""

    @property
    def record(self) -> BitcoinKeysetRecord:
        """The public half."""

    @property
    def account(self) -> AccountKey:
        """The account public key."""

    def sign(self, branch: int, index: int, digest: bytes) -> tuple[bytes, bytes]:
        """Public key (33 bytes) and signature of 32 bytes; the same for the same digest.

        The signature is low-s DER, or of a P2TR account the 64 bytes of BIP340 by the output key of the public key.
        """


class CosignerKeys(Keys, Protocol):
    """One cosigner's keys of a vault."""

    @property
    def record(self) -> BitcoinCosignerRecord:
        """The public half."""

    @property
    def account(self) -> BranchKeys:
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
        """The address at a path of the account."""
        path = f"m/{self.keys.record.path}/{branch}/{index}"
        return path, agreed_address(self.keys.account, branch, index)

    def sign(self, unsigned: BitcoinUnsigned, kept: Kept) -> tuple[InputSignature, ...]:
        """One signature for each input."""
        psbt = unsigned.psbt
        if self.keys.account.kind == "p2tr":
            taproot = TaprootDigests(psbt.tx, psbt.spent)
            digests = [taproot.key_path(number) for number in range(len(psbt.spent))]
            return _signatures(self.keys, unsigned, digests, verifies_taproot, b"")
        segwit = SegwitDigests(psbt.tx)
        inputs = enumerate(zip(unsigned.pubkeys, psbt.spent, strict=True))
        digests = [segwit.p2wpkh(number, pubkey, spent.units) for number, (pubkey, spent) in inputs]
        return _signatures(self.keys, unsigned, digests, verifies, bytes([SIGHASH_ALL]))


class BitcoinVaultWallet:
    """One cosigner of a vault: it signs with its own key only, and attests no addresses."""

    own_addresses: Final = 0

    def __init__(self, keys: CosignerKeys) -> None:
        self.keys = keys
        self.rules = BitcoinVaultRules(keys.record, keys.account)

    def address(self, keyset: KeysetEntry, branch: int, index: int) -> tuple[str, str]:
        """None: what a vault's addresses are, each cosigner derives for itself. Raises InvalidValue."""
        raise InvalidValue(f"{keyset.id}: a vault's addresses are not attested")

    def sign(self, unsigned: BitcoinUnsigned, kept: Kept) -> tuple[InputSignature, ...]:
        """One signature for each input, by this cosigner's key."""
        psbt = unsigned.psbt
        segwit = SegwitDigests(psbt.tx)
        digests = []
        for number, (script, spent) in enumerate(zip(psbt.input_scripts, psbt.spent, strict=True)):
            assert script is not None  # its rules have read it
            digests.append(segwit.p2wsh(number, script, spent.units))
        return _signatures(self.keys, unsigned, digests, verifies, bytes([SIGHASH_ALL]))


def verifies_taproot(pubkey: bytes, digest: bytes, signature: bytes) -> bool:
    """Whether 64 bytes are the BIP340 signature of 32 bytes by the output key of an internal key (33 bytes).

    libsecp256k1 signs; this is Bitcoin Core's reference implementation in Python, which shares no code with it.
    """
    if len(signature) != _SCHNORR_BYTES:
        return False
    return bool(verify_schnorr(taproot_output_key(pubkey), signature, digest))


def _signatures(
    keys: BitcoinKeys | CosignerKeys,
    unsigned: BitcoinUnsigned,
    digests: Sequence[bytes],
    verified: Callable[[bytes, bytes, bytes], bool],
    sighash: bytes,
) -> tuple[InputSignature, ...]:
    """A verified signature of each input's digest, with the sighash byte that stands behind it."""
    # Bitcoin's keys are in this process's memory, so nothing here waits for a token.
    with turn_for(len(digests) * INPUT_BYTES):
        made = [
            keys.sign(branch, index, digest)
            for (branch, index), digest in zip(unsigned.places, digests, strict=True)
        ]
    inputs = zip(made, unsigned.pubkeys, digests, strict=True)
    for number, ((signer, signature), pubkey, digest) in enumerate(inputs):
        if signer != pubkey or not verified(pubkey, digest, signature):
            raise WrongSignature(f"the signature for input {number} does not verify; it was not released")
    return tuple(
        InputSignature(index=number, pubkey=pubkey.hex(), signature=(signature + sighash).hex())
        for number, (pubkey, signature) in enumerate(made)
    )
