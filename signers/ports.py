"""What a signer answers, and the messages that carry it. Shared by daemon and client; no I/O here."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Protocol

import msgspec

from chains.errors import PermanentError, TransientError
from policies.canonical import Name, decoder_for
from policies.intent import Attestation, Evidence, Intent, Signature

MAX_CALL_BYTES: Final = 16 * 1024 * 1024
"""Longest call that a signer reads, or answer that its client does. What is longer can never be answered."""


class SignerUnavailable(TransientError):
    """No answer: it may have signed or not. Ask again with the same request, never a changed one."""


class Reason(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One machine-readable reason for a refusal."""

    code: Name
    """Stable, e.g. `payment-cap`, `unknown-output`, `conflicting-version`."""
    detail: str
    """For people, with the numbers."""


class Refused(PermanentError):
    """The signer decided not to sign, and did not record anything for this request."""

    def __init__(self, reasons: tuple[Reason, ...]) -> None:
        super().__init__("; ".join(f"{r.code}: {r.detail}" for r in reasons))
        self.reasons = reasons


class SignRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Intents, the evidence for them, and the unsigned transaction that should carry them out."""

    v: Literal[1] = 1
    chain: Name
    keyset: Name
    intents: Annotated[tuple[Intent, ...], msgspec.Meta(min_length=1, max_length=2000)]
    evidence: Evidence
    transaction: str
    """BTC: PSBT (BIP174, base64) with every input's whole previous transaction and our derivation paths. EVM: the
    unsigned transaction (EIP-1559: 0x02 and its RLP list of nine fields), base64."""


class InputSignature(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One signature for one input of the transaction; an EVM transaction has one, of index 0."""

    index: Annotated[int, msgspec.Meta(ge=0)]
    pubkey: str
    """33 bytes, hex."""
    signature: str
    """BTC: DER and one sighash byte. EVM: r, s (32 bytes each, s in the lower half) and y parity (0 or 1). Hex."""


class SignResponse(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Signatures for all inputs of the request's transaction."""

    signatures: tuple[InputSignature, ...]


class AttestRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Ask for the address at `branch`/`index` of a key-set, bound to a customer (null: the house)."""

    v: Literal[1] = 1
    chain: Name
    keyset: Name
    customer: Name | None
    asset: Name
    branch: Annotated[int, msgspec.Meta(ge=0, le=1)]
    index: Annotated[int, msgspec.Meta(ge=0, lt=2**31)]


class SignedAttestation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An attestation and the signature of the key-set's attestation key over its digest."""

    attestation: Attestation
    signature: Signature


class SignerStatus(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a signer says of itself."""

    bundle_version: int
    keysets: tuple[str, ...]
    signed: int
    """Transactions signed since the journal began."""


class Signer(Protocol):
    """A signer for one or more key-sets."""

    def status(self) -> SignerStatus:
        """Raises SignerUnavailable."""

    def attest(self, request: AttestRequest) -> SignedAttestation:
        """The address and the signer's word for it. Raises Refused (another customer's), SignerUnavailable."""

    def sign(self, request: SignRequest) -> SignResponse:
        """Signatures for every input, the same for the same transaction. Raises Refused, SignerUnavailable."""


for _kind in (SignRequest, SignResponse, AttestRequest, SignedAttestation, SignerStatus):
    decoder_for(_kind)
