"""Whitelists, and proofs of whose a destination is."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import ConfigDict, Field, StringConstraints

from custody.web.schemas import In, NameText, Out, UnixSeconds, UuidText

AddressText = Annotated[str, Field(min_length=1, max_length=128)]
_Line = r"^[^\x00-\x1f\x7f-\x9f]+$"


class NewEntry(In):
    """A destination to be listed. Nothing follows from it until it is confirmed."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "owner": "alice",
                    "chain": "bitcoin-regtest",
                    "address": "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080",
                    "provenance": "typed by the customer in session 4711",
                }
            ]
        }
    )

    owner: NameText = Field(description="The customer whose payments may go there; `house` for our own.")
    chain: NameText
    address: AddressText = Field(description="In its canonical form, as in orders.")
    provenance: Annotated[str, StringConstraints(min_length=1, max_length=300, pattern=_Line)] = Field(
        description="How you came by the address. Kept in clear: name no person here."
    )
    label: Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=_Line)] | None = Field(
        default=None, description="For people; sealed at rest."
    )


class EntryIn(In):
    """The signed document (RFC 8785; domain `whitelist-entry`, version 1)."""

    v: Literal[1]
    id: UuidText
    caller: NameText
    owner: NameText
    chain: NameText
    address: AddressText
    issued_at: UnixSeconds


class NewConfirmation(In):
    """An entry with its caller's signature."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "entry": {
                        "v": 1,
                        "id": "0192f0c1-5b7e-7c3a-9d2e-3f4a5b6c7d90",
                        "caller": "exchange",
                        "owner": "alice",
                        "chain": "bitcoin-regtest",
                        "address": "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080",
                        "issued_at": 1793456000,
                    },
                    "signature": "A" * 86 + "==",
                }
            ]
        }
    )

    entry: EntryIn
    signature: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/]{86}==$")] = Field(
        description="Ed25519 over the entry's digest, base64."
    )


class EntryOut(Out):
    """An entry of a whitelist."""

    id: UUID
    owner: str
    chain: str
    address: str
    provenance: str
    label: str | None = Field(description="Shown by GET and PUT.")
    requested_by: str
    state: Literal["requested", "confirmed", "cooling", "usable", "removed"]
    usable_at: datetime | None = Field(
        description="When it can be used, by the present policy; null: not listed."
    )
    warnings: list[str] = Field(description="Known addresses of the owner that this one could be taken for.")
    created_at: datetime
    updated_at: datetime


class NewChallenge(In):
    """An address whose key is to prove that it is its owner's."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "owner": "alice",
                    "chain": "bitcoin-regtest",
                    "address": "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080",
                }
            ]
        }
    )

    owner: NameText
    chain: NameText
    address: AddressText


class ChallengeOut(Out):
    """What the key of an address is to sign, once."""

    id: UUID
    owner: str
    chain: str
    address: str
    text: str = Field(
        description="Word for word: BIP322 (simple) for P2WPKH and P2TR, EIP-191 on EVM chains."
    )
    expires_at: datetime
    proved_at: datetime | None


class NewProof(In):
    """The signature of a challenge."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"signature": "AkcwRAIgZRfIY3p7/DoVTty6YZbWS71bc5Vct9p9Fia83eRmw2QC"}]
        }
    )

    signature: Annotated[str, StringConstraints(min_length=1, max_length=1000, pattern=r"^[!-~]+$")] = Field(
        description="BTC: base64 of the witness; EVM: hex, 65 bytes."
    )
