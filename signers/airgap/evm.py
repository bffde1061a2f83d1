"""Signs a Safe request that nothing speaks against, and checks the signature by other means than made it."""

from __future__ import annotations

from typing import Protocol

from chains.errors import InvalidValue
from chains.eth.address import checksummed, keccak256
from chains.eth.safe_files import SafeSignature, encode_signature
from signers.airgap.errors import Refused
from signers.airgap.evm_review import SafeReview
from signers.airgap.keys import WrongSignature


class SafeOwnerKey(Protocol):
    """The holder's key that owns Safes."""

    @property
    def evm_address(self) -> str:
        """Its address, with the checksum of EIP-55."""

    def sign_ethereum(self, digest: bytes) -> bytes:
        """r, s and v (27 or 28), 65 bytes, over a digest of 32 bytes."""


def sign(review: SafeReview, key: SafeOwnerKey) -> bytes:
    """The file with the owner's signature over what was reviewed; the same request gives the same file.

    Args:
        review: of the request, for this key.
        key: signs the hash that both readers have computed.

    Raises:
        Refused: something speaks against it, or it was reviewed for another key.
        WrongSignature: what the key gave is not its signature over that hash; not released.
    """
    if review.objections:
        raise Refused(tuple(map(str, review.objections)))
    owner = key.evm_address
    if owner != review.owner:
        raise Refused((f"reviewed for {review.owner}, not for {owner}",))
    try:
        signed = SafeSignature(
            review.safe_tx_hash, bytes.fromhex(owner[2:]), key.sign_ethereum(review.safe_tx_hash)
        )
    except InvalidValue as error:
        raise WrongSignature(f"{error}; nothing was released") from None
    if _recovered(signed) != owner:
        raise WrongSignature("a second library recovers another key; nothing was released")
    return encode_signature(signed)


def _recovered(signed: SafeSignature) -> str:
    """The address that signed, as embit's own libsecp256k1 recovers it; coincurve's has signed and recovered before.

    Raises:
        WrongSignature: it recovers to no key.
    """
    from embit.util import secp256k1

    compact, recovery = signed.signature[:64], signed.signature[64] - 27
    try:
        parsed = secp256k1.ecdsa_recoverable_signature_parse_compact(compact, recovery)
        point = secp256k1.ecdsa_recover(parsed, signed.safe_tx_hash)
    except ValueError as error:
        raise WrongSignature(f"a signature of no key ({error}); nothing was released") from None
    return checksummed(
        keccak256(bytes(secp256k1.ec_pubkey_serialize(point, secp256k1.EC_UNCOMPRESSED))[1:])[-20:]
    )
