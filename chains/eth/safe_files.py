"""Files between the online side and an owner of a Safe who signs offline: a request, and a signature. Pure.

Both are JSON with one form only (fields in the order below, no blanks; a line end after it is no matter), so that what
was checked is all there is. What is read is a `SafeMessage`, or a signature that has been recovered: nobody handles a
file's text further. A request carries no hash: whoever signs computes it.

Source: the EIP-712 fields of `Safe.sol` v1.4.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, Literal, TypeVar

import msgspec

from chains.errors import InvalidAddress, InvalidValue
from chains.eth.address import checksummed, raw_address
from chains.eth.safe import SIGNATURE_BYTES, SafeMessage, SafeTx, owner_of

MAX_FILE_BYTES: Final = 300 * 1024
"""No file of these is longer: calldata is at most 128 KiB in a transaction that nodes take."""
MAX_NOTE_CHARACTERS: Final = 200
REQUEST_TYPE: Final = "strongroom-safe-request"
SIGNATURE_TYPE: Final = "strongroom-safe-signature"

_MAX_INT: Final = 2**53 - 1
_HASH_BYTES: Final = 32
_Small = Annotated[int, msgspec.Meta(ge=0, le=_MAX_INT)]
_Units = Annotated[str, msgspec.Meta(pattern=r"^(0|[1-9][0-9]{0,77})\Z")]
_Hex = Annotated[str, msgspec.Meta(pattern=r"^0x([0-9a-f]{2})*\Z")]


class BadSafeFile(InvalidValue):
    """A file that is no request or signature in its only form. The message says what to do."""


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of both files: immutable, unknown fields refused."""

    v: Literal[1]


class _RequestFile(_File, frozen=True, kw_only=True, tag_field="type", tag=REQUEST_TYPE):
    chain_id: _Small
    safe: str
    to: str
    value: _Units
    data: _Hex
    operation: Literal[0, 1]
    safe_tx_gas: _Units
    base_gas: _Units
    gas_price: _Units
    gas_token: str
    refund_receiver: str
    nonce: _Small
    expires_at: _Small
    note: str


class _SignatureFile(_File, frozen=True, kw_only=True, tag_field="type", tag=SIGNATURE_TYPE):
    safe_tx_hash: _Hex
    owner: str
    signature: _Hex


_AnyFile = _RequestFile | _SignatureFile
_F = TypeVar("_F", _RequestFile, _SignatureFile)
_T = TypeVar("_T")
_DECODER: Final[msgspec.json.Decoder[_AnyFile]] = msgspec.json.Decoder(_AnyFile)


@dataclass(frozen=True, slots=True)
class SafeRequest:
    """What an owner is asked to sign.

    Raises:
        InvalidValue: a nonce, chain id or time beyond 2**53, or a note that no terminal shows as it is.
    """

    message: SafeMessage
    expires_at: int
    """UNIX seconds; from then on no owner signs it."""
    note: str = ""
    """Words of whoever made the request, at most 200 printable characters. Nothing checks what they say."""

    def __post_init__(self) -> None:
        for what, number in (
            ("chain id", self.message.chain_id),
            ("nonce", self.message.tx.nonce),
            ("expiry", self.expires_at),
        ):
            if type(number) is not int or not 0 <= number <= _MAX_INT:
                raise InvalidValue(f"{what} {number!r}: expected an integer below 2**53")
        # Also keeps out control sequences and marks that turn the direction of writing.
        if len(self.note) > MAX_NOTE_CHARACTERS or not self.note.isprintable():
            raise InvalidValue(f"note: expected at most {MAX_NOTE_CHARACTERS} printable characters")


@dataclass(frozen=True, slots=True)
class SafeSignature:
    """One owner's signature, recovered when it was read.

    Raises:
        InvalidValue: the signature is not that owner's over that hash.
    """

    safe_tx_hash: bytes
    """What was signed, 32 bytes."""
    owner: bytes
    """Who signed, 20 bytes."""
    signature: bytes
    """r and s (32 bytes each) and v (27 or 28)."""

    def __post_init__(self) -> None:
        if len(self.safe_tx_hash) != _HASH_BYTES:
            raise InvalidValue(f"safe_tx_hash of {len(self.safe_tx_hash)} bytes: expected {_HASH_BYTES}")
        signer = owner_of(self.safe_tx_hash, self.signature)
        if signer != self.owner:
            raise InvalidValue(f"signature: made by {checksummed(signer)}, not by {checksummed(self.owner)}")


def encode_request(request: SafeRequest) -> bytes:
    """A request as the bytes of its file."""
    message, tx = request.message, request.message.tx
    return msgspec.json.encode(
        _RequestFile(
            v=1,
            chain_id=message.chain_id,
            safe=checksummed(message.safe),
            to=checksummed(tx.to),
            value=str(tx.value_wei),
            data="0x" + tx.data.hex(),
            operation=1 if tx.operation else 0,
            safe_tx_gas=str(tx.safe_tx_gas),
            base_gas=str(tx.base_gas),
            gas_price=str(tx.gas_price),
            gas_token=checksummed(tx.gas_token),
            refund_receiver=checksummed(tx.refund_receiver),
            nonce=tx.nonce,
            expires_at=request.expires_at,
            note=request.note,
        )
    )


def decode_request(raw: bytes) -> SafeRequest:
    """Read a request. What it would do is not judged here: see `signers/airgap/evm_review.py`.

    Raises:
        BadSafeFile: not a request, not in its only form, or a field out of range.
    """
    file = _decode(raw, _RequestFile)
    try:
        tx = SafeTx(
            to=_address("to", file.to),
            value_wei=int(file.value),
            data=bytes.fromhex(file.data[2:]),
            nonce=file.nonce,
            operation=file.operation,
            safe_tx_gas=int(file.safe_tx_gas),
            base_gas=int(file.base_gas),
            gas_price=int(file.gas_price),
            gas_token=_address("gas_token", file.gas_token),
            refund_receiver=_address("refund_receiver", file.refund_receiver),
        )
        message = SafeMessage(file.chain_id, _address("safe", file.safe), tx)
        request = SafeRequest(message, file.expires_at, file.note)
    except BadSafeFile:
        raise
    except InvalidValue as error:
        raise BadSafeFile(f"Safe request: {error}. Ask for a new request") from None
    return _only_form(raw, encode_request(request), request)


def encode_signature(signature: SafeSignature) -> bytes:
    """A signature as the bytes of its file."""
    return msgspec.json.encode(
        _SignatureFile(
            v=1,
            safe_tx_hash="0x" + signature.safe_tx_hash.hex(),
            owner=checksummed(signature.owner),
            signature="0x" + signature.signature.hex(),
        )
    )


def decode_signature(raw: bytes) -> SafeSignature:
    """Read a signature, and recover whose it is. Whether that is an owner of the Safe is for the caller to see.

    Raises:
        BadSafeFile: not a signature, not in its only form, or not of the owner whom it names.
    """
    file = _decode(raw, _SignatureFile)
    digest, signature = bytes.fromhex(file.safe_tx_hash[2:]), bytes.fromhex(file.signature[2:])
    if len(signature) != SIGNATURE_BYTES:
        raise BadSafeFile(f"Safe signature of {len(signature)} bytes: expected {SIGNATURE_BYTES}. Sign again")
    try:
        found = SafeSignature(digest, _address("owner", file.owner), signature)
    except BadSafeFile:
        raise
    except InvalidValue as error:
        raise BadSafeFile(f"Safe signature: {error}. Have the owner sign again") from None
    return _only_form(raw, encode_signature(found), found)


def _decode(raw: bytes, kind: type[_F]) -> _F:
    """The file as a struct. Raises BadSafeFile."""
    name = "Safe request" if kind is _RequestFile else "Safe signature"
    if len(raw) > MAX_FILE_BYTES:
        raise BadSafeFile(f"{name}: {len(raw)} bytes, at most {MAX_FILE_BYTES} are read. Is it another file?")
    try:
        found = _DECODER.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadSafeFile(f"{name}: {error}. Copy or scan the file again, or ask for a new one") from None
    if not isinstance(found, kind):
        told = (
            "a signature, and a request"
            if isinstance(found, _SignatureFile)
            else "a request, and a signature"
        )
        raise BadSafeFile(f"{name}: this file is {told} is expected. Choose the other file")
    return found


def _address(field: str, text: str) -> bytes:
    """The 20 bytes of an address with its checksum. Raises BadSafeFile."""
    try:
        return raw_address(text)
    except InvalidAddress as error:
        raise BadSafeFile(f"{field}: {error}. Copy or scan the file again, or ask for a new one") from None


def _only_form(raw: bytes, canonical: bytes, found: _T) -> _T:
    """What was read, if its bytes are those that would be written. Raises BadSafeFile."""
    if raw.rstrip(b"\r\n") != canonical:
        told = "not in its only form: fields in another order, blanks, or a field twice"
        raise BadSafeFile(f"{told}. Ask for the file as it was made")
    return found
