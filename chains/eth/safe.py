"""Transactions of a Safe (version 1.4.1): what its owners sign, and the call that carries it out. Pure.

A Safe acts when enough owners have signed the EIP-712 hash of a `SafeTx`. It takes signatures of several kinds; ours
are ECDSA over that hash only (v 27 or 28), and never contract signatures, approved hashes or `eth_sign`. Both the
tuple and the call have one serialisation only, like all calldata (see `abi.py`).

Sources: `Safe.sol` and `SignatureDecoder.sol` of safe-smart-account v1.4.1; EIP-712.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Self

import coincurve

from chains.errors import InvalidValue
from chains.eth.abi import (
    WORD_BYTES,
    address_word,
    body,
    decode_arguments,
    encode_arguments,
    selector,
    topic,
    uint_word,
    word_address,
    word_uint,
)
from chains.eth.address import ADDRESS_BYTES, keccak256
from chains.eth.tx import MAX_RAW_BYTES, address_of_key
from chains.secp256k1 import CURVE_ORDER, LOW_S_LIMIT

CALL: Final = 0
"""Operation: the Safe calls the destination."""
DELEGATECALL: Final = 1
"""Operation: code of the destination runs as if it were the Safe's own, and may change anything of it."""

SIGNATURE_BYTES: Final = 65
"""r and s (32 bytes each) and v (27 or 28)."""

DOMAIN_TYPEHASH: Final = keccak256(b"EIP712Domain(uint256 chainId,address verifyingContract)")
SAFE_TX_TYPEHASH: Final = keccak256(
    b"SafeTx(address to,uint256 value,bytes data,uint8 operation,uint256 safeTxGas,uint256 baseGas,"
    b"uint256 gasPrice,address gasToken,address refundReceiver,uint256 nonce)"
)
EXEC_TRANSACTION: Final = selector(
    "execTransaction(address,uint256,bytes,uint8,uint256,uint256,uint256,address,address,bytes)"
)

ADMINISTRATION: Final[Mapping[bytes, str]] = {
    selector(signature): signature.partition("(")[0]
    for signature in (
        "setup(address[],uint256,address,bytes,address,address,uint256,address)",
        "addOwnerWithThreshold(address,uint256)",
        "removeOwner(address,address,uint256)",
        "swapOwner(address,address,address)",
        "changeThreshold(uint256)",
        "enableModule(address)",
        "disableModule(address,address)",
        "setGuard(address)",
        "setFallbackHandler(address)",
        "approveHash(bytes32)",
        "changeMasterCopy(address)",
        "execTransactionFromModule(address,uint256,bytes,uint8)",
        "execTransactionFromModuleReturnData(address,uint256,bytes,uint8)",
        "simulateAndRevert(address,bytes)",
    )
}
"""Calls that change who rules a Safe or what it runs, by selector; `changeMasterCopy` is of Safes before 1.1."""
MULTI_SEND: Final = selector("multiSend(bytes)")
"""Many calls in one, each with an operation of its own."""
NONCE: Final = selector("nonce()")
EXECUTED: Final[Mapping[str, bool]] = {
    topic("ExecutionSuccess(bytes32,uint256)"): True,
    topic("ExecutionFailure(bytes32,uint256)"): False,
}
"""First topics of the events that use up a nonce, and whether the inner call succeeded; the second is the hash that
owners have signed."""

_RESOURCE: Final = re.compile(r"safe:0x([0-9a-f]{40}):([0-9]{1,78})")
_FIELDS: Final = 10
_DATA_AT: Final = 2
_SIGNATURES_AT: Final = 9
_NOBODY: Final = bytes(ADDRESS_BYTES)
_WORD: Final = 2**256


@dataclass(frozen=True, slots=True)
class SafeTx:
    """A Safe's transaction, with the fields of the contract.

    Raises:
        InvalidValue: a field out of range.
    """

    to: bytes
    """Whom the Safe calls, 20 bytes."""
    value_wei: int
    """Native money that goes along."""
    data: bytes
    """Calldata."""
    nonce: int
    """The Safe's own counter: of several with one nonce only one can be carried out."""
    operation: int = CALL
    safe_tx_gas: int = 0
    """Gas for the inner call; with 0 all there is, and then the whole reverts when the inner call does."""
    base_gas: int = 0
    """Gas that is refunded beside what the call uses."""
    gas_price: int = 0
    """What the Safe pays back per gas; 0: nothing."""
    gas_token: bytes = _NOBODY
    """In which token it pays back (20 bytes); zero: native money."""
    refund_receiver: bytes = _NOBODY
    """Whom it pays back (20 bytes); zero: whoever sends the transaction."""

    def __post_init__(self) -> None:
        for what, address in (
            ("destination", self.to),
            ("gas token", self.gas_token),
            ("refund receiver", self.refund_receiver),
        ):
            if type(address) is not bytes or len(address) != ADDRESS_BYTES:
                raise InvalidValue(f"{what} {address!r}: expected {ADDRESS_BYTES} bytes")
        for what, number, limit in (
            ("value", self.value_wei, _WORD),
            ("operation", self.operation, 2),
            ("safeTxGas", self.safe_tx_gas, _WORD),
            ("baseGas", self.base_gas, _WORD),
            ("gasPrice", self.gas_price, _WORD),
            ("nonce", self.nonce, _WORD),
        ):
            if type(number) is not int or not 0 <= number < limit:
                raise InvalidValue(f"{what} {number!r}: expected an integer below {limit}")
        if type(self.data) is not bytes or len(self.data) > MAX_RAW_BYTES:
            raise InvalidValue(f"calldata: expected at most {MAX_RAW_BYTES} bytes")

    @staticmethod
    def decode(raw: bytes) -> SafeTx:
        """Read the ABI encoding of the ten fields, strictly.

        Raises:
            InvalidValue: another encoding than `encode` writes, or a field out of range.
        """
        if len(raw) > 2 * MAX_RAW_BYTES:
            raise InvalidValue(f"Safe transaction of {len(raw)} bytes: at most {2 * MAX_RAW_BYTES} are read")
        arguments = decode_arguments(raw, _FIELDS, (_DATA_AT,))
        return _read(arguments[:-1], word_uint(arguments[-1]))

    def encode(self) -> bytes:
        """The ABI encoding of the ten fields, in the contract's order."""
        return encode_arguments([*self._words(self.data), uint_word(self.nonce)], (_DATA_AT,))

    def signing_hash(self, chain_id: int, safe: bytes) -> bytes:
        """What owners sign (32 bytes): the EIP-712 hash for one Safe (20 bytes) on one chain.

        Raises:
            InvalidValue: no chain id, or not 20 bytes.
        """
        struct = SAFE_TX_TYPEHASH + b"".join(self._words(keccak256(self.data))) + uint_word(self.nonce)
        return keccak256(b"\x19\x01" + domain_separator(chain_id, safe) + keccak256(struct))

    @property
    def refunds(self) -> bool:
        """Whether any field that has to do with gas and its refund is set."""
        numbers = (self.safe_tx_gas, self.base_gas, self.gas_price)
        return any(numbers) or (self.gas_token, self.refund_receiver) != (_NOBODY, _NOBODY)

    def execution(self, signatures: bytes) -> bytes:
        """Calldata of the call that carries it out; `signatures` as `join_signatures` makes them."""
        arguments = [*self._words(self.data), signatures]
        return EXEC_TRANSACTION + encode_arguments(arguments, (_DATA_AT, _SIGNATURES_AT))

    def _words(self, data: bytes) -> list[bytes]:
        """The first nine fields, with `data` (or its hash) at its place."""
        return [
            address_word(self.to),
            uint_word(self.value_wei),
            data,
            uint_word(self.operation),
            uint_word(self.safe_tx_gas),
            uint_word(self.base_gas),
            uint_word(self.gas_price),
            address_word(self.gas_token),
            address_word(self.refund_receiver),
        ]


@dataclass(frozen=True, slots=True)
class SafeMessage:
    """All that an owner signs: a transaction, and for which Safe on which chain.

    Raises:
        InvalidValue: chain id 0 or out of range, or a Safe that is not 20 bytes.
    """

    chain_id: int
    safe: bytes
    """Address of the Safe, 20 bytes."""
    tx: SafeTx

    def __post_init__(self) -> None:
        domain_separator(self.chain_id, self.safe)

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Read the ABI encoding of chain id, Safe and the ten fields, strictly.

        Raises:
            InvalidValue: another encoding than `encode` writes, or a field out of range.
        """
        head, tx = raw[: 2 * WORD_BYTES], SafeTx.decode(raw[2 * WORD_BYTES :])
        return cls(word_uint(head[:WORD_BYTES]), word_address(head[WORD_BYTES:]), tx)

    def encode(self) -> bytes:
        """What is sent to a signer: chain id and Safe in a word each, and the encoding of the transaction."""
        return uint_word(self.chain_id) + address_word(self.safe) + self.tx.encode()

    @property
    def signing_hash(self) -> bytes:
        """What the owner signs (32 bytes)."""
        return self.tx.signing_hash(self.chain_id, self.safe)

    @property
    def content(self) -> str:
        """The signing hash as 64 hex digits: the name of the transaction before and whatever its signatures."""
        return self.signing_hash.hex()

    @property
    def resource(self) -> str:
        """The one resource that it uses up."""
        return safe_resource(self.safe, self.tx.nonce)


@dataclass(frozen=True, slots=True)
class Execution:
    """What `execTransaction` was called with. The nonce is not in it: the Safe adds its own."""

    tx: SafeTx
    """With the nonce for which the signatures are claimed to be."""
    signatures: tuple[bytes, ...]
    """65 bytes each, in the order of the call."""


def domain_separator(chain_id: int, safe: bytes) -> bytes:
    """The EIP-712 domain (32 bytes) of one Safe (20 bytes) on one chain.

    Raises:
        InvalidValue: chain id 0 or out of range, or not 20 bytes.
    """
    if chain_id == 0:
        raise InvalidValue("chain id 0: a signature would belong to no network")
    return keccak256(DOMAIN_TYPEHASH + uint_word(chain_id) + address_word(safe))


def safe_resource(safe: bytes, nonce: int) -> str:
    """What a Safe's transaction uses up: the Safe (20 bytes) in lower-case hex, and its nonce.

    Raises:
        InvalidValue: not 20 bytes, or a nonce out of range.
    """
    address_word(safe)
    return f"safe:0x{safe.hex()}:{word_uint(uint_word(nonce))}"


def parse_safe_resource(resource: str) -> tuple[bytes, int]:
    """Safe (20 bytes) and nonce of a resource. Raises InvalidValue: not what `safe_resource` writes."""
    found = _RESOURCE.fullmatch(resource)
    if found is None:
        raise InvalidValue(f"resource {resource[:80]!r}: expected safe:0x, 40 hex digits, and a nonce")
    safe, nonce = bytes.fromhex(found[1]), int(found[2])
    if safe_resource(safe, nonce) != resource:
        raise InvalidValue(f"resource {resource!r}: not in its only form")
    return safe, nonce


def decode_execution(calldata: bytes, nonce: int) -> Execution:
    """Read what `SafeTx.execution` writes, and nothing else.

    Args:
        calldata: of the transaction that calls the Safe.
        nonce: of the Safe, which the call does not name.

    Raises:
        InvalidValue: another call, another encoding, or signatures that are not 65 bytes each.
    """
    arguments = decode_arguments(body(calldata, EXEC_TRANSACTION), _FIELDS, (_DATA_AT, _SIGNATURES_AT))
    blob = arguments[_SIGNATURES_AT]
    if not blob or len(blob) % SIGNATURE_BYTES:
        raise InvalidValue(f"{len(blob)} bytes of signatures: expected {SIGNATURE_BYTES} each")
    cut = tuple(blob[at : at + SIGNATURE_BYTES] for at in range(0, len(blob), SIGNATURE_BYTES))
    return Execution(_read(arguments[:_SIGNATURES_AT], nonce), cut)


def owner_of(digest: bytes, signature: bytes) -> bytes:
    """The owner's address (20 bytes) who signed a hash of 32 bytes. Arguments and errors as of `key_of`."""
    return address_of_key(key_of(digest, signature))


def key_of(digest: bytes, signature: bytes) -> bytes:
    """The public key (33 bytes) that signed a hash of 32 bytes.

    Args:
        digest: from `SafeTx.signing_hash`.
        signature: r, s (32 bytes each) and v (27 or 28).

    Raises:
        InvalidValue: another form (contract signatures, approved hashes and `eth_sign` have other v), s in the
            upper half, or of no key.
    """
    if len(signature) != SIGNATURE_BYTES or signature[64] not in (27, 28):
        raise InvalidValue("signature: expected r, s and v of 27 or 28 in 65 bytes")
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big")
    if not 0 < r < CURVE_ORDER or not 0 < s <= LOW_S_LIMIT:
        raise InvalidValue("signature: r or s out of range, or s in the upper half")
    compact = signature[:64] + bytes([signature[64] - 27])
    try:
        key = coincurve.PublicKey.from_signature_and_message(compact, digest, hasher=None)
    except ValueError as error:
        raise InvalidValue(f"signature: no key has made it ({error})") from None
    return key.format()


def owners_of(digest: bytes, signatures: Sequence[bytes]) -> tuple[bytes, ...]:
    """The owners (20 bytes each) who signed, in ascending order as the contract wants them.

    Raises:
        InvalidValue: like `owner_of`; or not in ascending order, so also one twice.
    """
    owners = tuple(owner_of(digest, signature) for signature in signatures)
    if any(left >= right for left, right in pairwise(owners)):
        raise InvalidValue("signatures: not in ascending order of their owners, or one comes twice")
    return owners


def join_signatures(digest: bytes, signatures: Sequence[bytes]) -> bytes:
    """The blob for `execTransaction`: all signatures of a hash, ascending by owner. Raises InvalidValue."""
    ordered = sorted(signatures, key=lambda signature: owner_of(digest, signature))
    owners_of(digest, ordered)
    return b"".join(ordered)


def _read(arguments: Sequence[bytes], nonce: int) -> SafeTx:
    """The transaction with these first nine fields. Raises InvalidValue: a field out of range."""
    to, value, data, operation, safe_tx_gas, base_gas, gas_price, gas_token, receiver = arguments
    return SafeTx(
        to=word_address(to),
        value_wei=word_uint(value),
        data=data,
        nonce=nonce,
        operation=word_uint(operation),
        safe_tx_gas=word_uint(safe_tx_gas),
        base_gas=word_uint(base_gas),
        gas_price=word_uint(gas_price),
        gas_token=word_address(gas_token),
        refund_receiver=word_address(receiver),
    )
