"""From owners' signatures to the call that carries a Safe's transaction out. Two decoders must read what was recorded,
and who signed it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chains.errors import InvalidValue
from chains.eth.abi import SELECTOR_BYTES
from chains.eth.address import checksummed, raw_address
from chains.eth.safe import EXEC_TRANSACTION, SafeMessage, SafeTx, join_signatures, owner_of
from chains.eth.tx import address_of_key
from custody.signing.errors import DecodersDisagree, NotAMember, WrongSignature
from custody.signing.model import Version
from policies.bundle import EvmVault
from signers.ports import SignResponse

_FIELDS = (
    ("to", "address"),
    ("value", "uint256"),
    ("data", "bytes"),
    ("operation", "uint8"),
    ("safeTxGas", "uint256"),
    ("baseGas", "uint256"),
    ("gasPrice", "uint256"),
    ("gasToken", "address"),
    ("refundReceiver", "address"),
)


def check_owner(vault: EvmVault, version: Version, member: str, response: SignResponse) -> None:
    """Check that an owner has signed a version, and nothing else.

    Args:
        vault: the Safe.
        version: as it was recorded.
        member: the owner's id in the vault.
        response: what was said: one signature of 65 bytes (v 27 or 28), index 0.

    Raises:
        NotAMember: the vault has no such owner.
        WrongSignature: it is malformed, or another key made it.
    """
    owner = next((each for each in vault.owners if each.id == member), None)
    if owner is None:
        raise NotAMember(f"{vault.id} has no owner {member!r}")
    signed = _signatures(SafeMessage.decode(version.unsigned), response)
    if [who for who, _ in signed] != [raw_address(owner.address)]:
        told = ", ".join(checksummed(who) for who, _ in signed) or "nobody"
        raise WrongSignature(f"signed by {told}, asked was {owner.address} ({member})")


def finish(vault: EvmVault, version: Version, response: SignResponse) -> tuple[bytes, str]:
    """The calldata of `execTransaction`, and the hash that owners have signed.

    Args:
        vault: the Safe.
        version: as it was recorded.
        response: signatures of as many owners as it takes, in any order.

    Raises:
        WrongSignature: too few, one twice, or by somebody who is no owner.
        DecodersDisagree: eth-abi reads another call, or eth-account another hash or other owners.
    """
    message = SafeMessage.decode(version.unsigned)
    signed = _signatures(message, response)
    owners = {who for who, _ in signed}
    strangers = owners - {raw_address(owner.address) for owner in vault.owners}
    if strangers or len(owners) < len(signed):
        told = ", ".join(sorted(checksummed(who) for who in strangers)) or "somebody twice"
        raise WrongSignature(f"signed by {told}: expected owners of {vault.id}, each once")
    if len(owners) < vault.threshold:
        raise WrongSignature(f"{len(owners)} of {vault.threshold} owners have signed")
    calldata = message.tx.execution(
        join_signatures(message.signing_hash, [signature for _, signature in signed])
    )
    ours = (_values(message.tx), tuple(sorted(checksummed(who) for who in owners)))
    theirs = _read_by_others(calldata, message)
    if ours != theirs:
        raise DecodersDisagree(f"our decoder reads {ours}, eth-abi and eth-account read {theirs}"[:1000])
    return calldata, message.content


def _signatures(message: SafeMessage, response: SignResponse) -> Sequence[tuple[bytes, bytes]]:
    """Who signed, and the signature."""
    found = []
    try:
        for item in response.signatures:
            signature = bytes.fromhex(item.signature)
            who = owner_of(message.signing_hash, signature)
            if item.index != 0 or address_of_key(bytes.fromhex(item.pubkey)) != who:
                raise WrongSignature(
                    f"index {item.index} by {checksummed(who)}: not by the key that is named"
                )
            found.append((who, signature))
    except (InvalidValue, ValueError) as error:
        raise WrongSignature(f"no signature of a Safe's transaction: {error}") from None
    return found


def _values(tx: SafeTx) -> tuple[Any, ...]:
    return (
        checksummed(tx.to),
        tx.value_wei,
        tx.data,
        tx.operation,
        tx.safe_tx_gas,
        tx.base_gas,
        tx.gas_price,
        checksummed(tx.gas_token),
        checksummed(tx.refund_receiver),
    )


def _read_by_others(calldata: bytes, message: SafeMessage) -> tuple[tuple[Any, ...], tuple[str, ...]]:
    # A second to import: not for processes that never sign.
    from eth_abi.abi import decode
    from eth_account import Account
    from eth_account.messages import encode_typed_data

    if calldata[:SELECTOR_BYTES] != EXEC_TRANSACTION:
        raise DecodersDisagree(f"selector {calldata[:SELECTOR_BYTES].hex()} is not that of execTransaction")
    *values, blob = decode([*(kind for _, kind in _FIELDS), "bytes"], calldata[SELECTOR_BYTES:])
    read = tuple(
        checksummed(bytes.fromhex(value[2:])) if kind == "address" else value
        for (_, kind), value in zip(_FIELDS, values, strict=True)
    )
    typed = encode_typed_data(
        full_message={
            "types": {
                "EIP712Domain": [
                    {"name": "chainId", "type": "uint256"},
                    {"name": "verifyingContract", "type": "address"},
                ],
                "SafeTx": [
                    *({"name": name, "type": kind} for name, kind in _FIELDS),
                    {"name": "nonce", "type": "uint256"},
                ],
            },
            "primaryType": "SafeTx",
            "domain": {"chainId": message.chain_id, "verifyingContract": checksummed(message.safe)},
            "message": {
                **{name: value for (name, _), value in zip(_FIELDS, values, strict=True)},
                "nonce": message.tx.nonce,
            },
        }
    )
    cut = [blob[at : at + 65] for at in range(0, len(blob), 65)]
    owners = tuple(str(Account.recover_message(typed, signature=each)) for each in cut)
    if list(owners) != sorted(owners, key=str.lower):
        raise DecodersDisagree("the signatures are not in ascending order of their owners")
    return read, tuple(sorted(owners))
