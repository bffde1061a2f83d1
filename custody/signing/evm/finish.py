"""From a signer's answer to bytes that may be sent: two decoders must read what was recorded, and who signed it."""

from __future__ import annotations

from typing import Any

from chains.errors import InvalidValue
from chains.eth.address import checksummed
from chains.eth.tx import UnsignedTx
from custody.signing.errors import DecodersDisagree, WrongSignature
from custody.signing.model import Version
from signers.ports import SignResponse


def finish(version: Version, response: SignResponse, sender: bytes) -> tuple[bytes, str]:
    """The signed bytes and their txid.

    Args:
        version: as it was recorded.
        response: the signer's answer.
        sender: the key's address, 20 bytes.

    Raises:
        WrongSignature: there is not exactly one, it is malformed, or another key made it (coincurve).
        DecodersDisagree: eth-account reads another transaction, or another sender.
    """
    recorded = UnsignedTx.decode(version.unsigned)
    try:
        [item] = response.signatures
        signed = recorded.signed(bytes.fromhex(item.signature))
        made_by, public_key = signed.sender(), signed.public_key().hex()
    except (InvalidValue, ValueError) as error:
        raise WrongSignature(f"no signature of one transaction: {error}") from None
    if item.index != 0 or made_by != sender or item.pubkey != public_key:
        raise WrongSignature(f"signed by {checksummed(made_by)}, asked was {checksummed(sender)}")
    raw = signed.encode()
    ours = (checksummed(sender), *_fields(recorded))
    theirs = _read_by_eth_account(raw)
    if ours != theirs:
        raise DecodersDisagree(f"our decoder reads {ours}, eth-account reads {theirs}"[:1000])
    return raw, signed.txid.hex


def _fields(tx: UnsignedTx) -> tuple[Any, ...]:
    return (
        tx.chain_id,
        tx.nonce,
        tx.max_priority_fee_per_gas_wei,
        tx.max_fee_per_gas_wei,
        tx.gas_limit,
        tx.to,
        tx.value_wei,
        tx.data,
        (),
    )


def _read_by_eth_account(raw: bytes) -> tuple[Any, ...]:
    # A second to import: not for processes that never sign.
    from eth_account import Account
    from eth_account.typed_transactions.typed_transaction import TypedTransaction
    from hexbytes import HexBytes

    read = TypedTransaction.from_bytes(HexBytes(raw)).as_dict()
    return (
        str(Account.recover_transaction(raw)),
        read["chainId"],
        read["nonce"],
        read["maxPriorityFeePerGas"],
        read["maxFeePerGas"],
        read["gas"],
        bytes(read["to"]),
        read["value"],
        bytes(read["data"]),
        tuple(read["accessList"]),
    )
