"""Whose a destination is: its key signs a challenge of ours, once (BIP322 on Bitcoin, EIP-191 on EVM chains).

What is stored is verified again whenever it counts, so a row without the key's signature proves nothing. Contracts
(EIP-1271), P2PKH, P2SH and P2WSH addresses can't prove anything here: a rule that asks for it denies them.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from chains.btc import message as btc_message
from chains.errors import InvalidValue, PermanentError
from chains.types import Address
from custody.customers import service as customers
from custody.errors import NotFound
from custody.ids import new_id
from custody.storage import events
from custody.storage.db import Row, Tx
from custody.whitelist.errors import ChallengeExpired, ChallengeUsed, ProofRefused
from custody.withdrawals.destinations import destination_of
from policies.bundle import Bundle
from policies.rules import HOUSE

CHALLENGE_SECONDS: Final = 24 * 3600
"""How long there is to sign: keys that are worth a proof may be in a safe."""
_COLUMNS: Final = "id, owner, chain, address, text, expires_at, signature, proved_at"
_NEWEST: Final = 5


@dataclass(frozen=True, slots=True)
class Challenge:
    """What the key of an address is to sign, and whether it has."""

    id: UUID
    owner: str
    chain: str
    address: str
    text: str
    """Word for word."""
    expires_at: datetime
    signature: str | None
    proved_at: datetime | None


def challenge(
    tx: Tx, bundle: Bundle, *, owner: str, chain: str, address: str, service: str, now: int
) -> Challenge:
    """A new text for the key of an address to sign.

    Args:
        owner: a customer, or `house`.
        address: in its canonical form.
        service: the name of this service, so that no other's text is taken for ours.
        now: UNIX seconds.

    Raises:
        UnknownCustomer, InvalidAddress, OrderMismatch: as for an entry of the whitelist.
        InvalidValue: the bundle has no such chain, or no proof is known for such an address.
    """
    if owner != HOUSE:
        customers.get(tx, owner)
    found = destination_of(bundle, chain, address)
    if found.kind != "evm" and found.kind not in btc_message.SUPPORTED:
        raise InvalidValue(
            f"a {found.kind} address proves nothing here: only P2WPKH, P2TR and EVM addresses do"
        )
    expires_at = now + CHALLENGE_SECONDS
    text = _text(service, owner, chain, address, secrets.token_hex(16), expires_at)
    row = tx.one(
        "INSERT INTO ownership_proofs (id, owner, chain, address, text, expires_at)"
        f" VALUES (%s, %s, %s, %s, %s, to_timestamp(%s)) RETURNING {_COLUMNS}",
        [new_id(), owner, chain, address, text, expires_at],
    )
    return Challenge(**row)


def _text(service: str, owner: str, chain: str, address: str, nonce: str, expires_at: int) -> str:
    until = datetime.fromtimestamp(expires_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return (
        f"{service}: I hold the key of this address.\n"
        f"owner: {owner}\nchain: {chain}\naddress: {address}\nnonce: {nonce}\nuntil: {until}"
    )


def prove(tx: Tx, bundle: Bundle, challenge_id: UUID, signature: str, *, now: int) -> Challenge:
    """Take the signature of a challenge. The same again changes nothing.

    Raises:
        NotFound: there is none.
        ChallengeUsed: it was answered with another signature.
        ChallengeExpired: too late.
        ProofRefused: not signed by the address's key.
    """
    row = tx.optional(f"SELECT {_COLUMNS} FROM ownership_proofs WHERE id = %s FOR UPDATE", [challenge_id])
    if row is None:
        raise NotFound("challenge", str(challenge_id))
    found = Challenge(**row)
    if found.signature is not None:
        if found.signature != signature:
            raise ChallengeUsed(f"challenge {challenge_id} was answered with another signature")
        return found
    if now >= found.expires_at.timestamp():
        raise ChallengeExpired(int(found.expires_at.timestamp()), now)
    if not _signed(bundle, found, signature):
        raise ProofRefused(f"the signature is not that of {found.address} over the text of the challenge")
    row = tx.one(
        f"UPDATE ownership_proofs SET signature = %s, proved_at = now() WHERE id = %s RETURNING {_COLUMNS}",
        [signature, challenge_id],
    )
    data = {"owner": found.owner, "chain": found.chain, "address": found.address}
    events.emit(tx, "destination.proved", str(challenge_id), data)
    return Challenge(**row)


def is_proved(tx: Tx, bundle: Bundle, owner: str, chain: str, address: str) -> bool:
    """Whether the key of an address has signed for this owner."""
    rows = tx.all(
        f"SELECT {_COLUMNS} FROM ownership_proofs WHERE owner = %s AND chain = %s AND address = %s"
        " AND signature IS NOT NULL ORDER BY proved_at DESC LIMIT %s",
        [owner, chain, address, _NEWEST],
    )
    return any(_holds(bundle, row) for row in rows)


def _holds(bundle: Bundle, row: Row) -> bool:
    found = Challenge(**row)
    return found.signature is not None and _signed(bundle, found, found.signature)


def _signed(bundle: Bundle, found: Challenge, signature: str) -> bool:
    lines = found.text.splitlines()
    about = [f"owner: {found.owner}", f"chain: {found.chain}", f"address: {found.address}"]
    if lines[1:4] != about:
        return False
    try:
        address = destination_of(bundle, found.chain, found.address)
    except PermanentError:
        return False
    if address.kind == "evm":
        return evm_signed(address, found.text, signature)
    return address.kind in btc_message.SUPPORTED and btc_message.verifies(address, found.text, signature)


def evm_signed(address: Address, text: str, signature: str) -> bool:
    """Whether the key of an EVM address has signed a text (EIP-191, version 0x45); `signature`: 65 bytes as hex."""
    # Heavy, and only needed here.
    from eth_account import Account
    from eth_account.messages import encode_defunct

    try:
        raw = bytes.fromhex(signature.removeprefix("0x"))
        signer = Account.recover_message(encode_defunct(text=text), signature=raw)
    except Exception:  # noqa: BLE001 - the library raises many types for what is no signature
        return False
    return bool(signer == address.text)
