"""Whose an address is: by the word of the signer that derived it, and by nothing that stands beside it. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from chains.errors import InvalidValue, PermanentError
from policies.bundle import Bundle
from policies.canonical import decoder_for, verify_ed25519
from signers.ports import SignedAttestation
from signers.verifier.model import AddressRow, Finding, FindingKind


@dataclass(frozen=True, slots=True)
class Proven:
    """An address that a signer has attested."""

    chain: str
    keyset: str
    customer: str
    asset: str
    address: str
    script: bytes


def prove(row: AddressRow, bundle: Bundle, script_of: Callable[[str, str], bytes]) -> Proven | Finding:
    """What a signer has said of an address, if the row says the same; else what is wrong with the row.

    Args:
        row: of a deposit address.
        bundle: names the key-sets' attestation keys.
        script_of: script by chain and address text.
    """
    customer = row.customer or ""
    try:
        signed = decoder_for(SignedAttestation).decode((row.attestation or "").encode())
        said = signed.attestation
        entry = bundle.keyset(said.keyset)
        verify_ed25519(entry.attestation_key, said.digest(), signed.signature)
        if said.chain != entry.chain or said.customer is None:
            raise InvalidValue(f"it speaks of {said.chain} and of {said.customer or 'the house'}")
        script = script_of(said.chain, said.address)
    except (PermanentError, msgspec.MsgspecError, UnicodeError) as error:
        return Finding("address-unattested", customer, row.address, f"no signer's word for it: {error}")

    def wrong(kind: FindingKind, detail: str) -> Finding:
        return Finding(kind, customer, row.address, detail)

    if said.customer != row.customer:
        return wrong("address-of-another", f"the signer gave it to {said.customer}")
    if (said.address, script) != (row.address, row.script):
        return wrong("address-swapped", f"the signer's word is for {said.address}")
    if (said.chain, said.keyset, said.asset, "deposit") != (row.chain, row.keyset, row.asset, row.purpose):
        return wrong(
            "address-swapped",
            f"the signer's word is for {said.asset} on {said.chain} of {said.keyset}, the row says {row.asset} on"
            f" {row.chain} of {row.keyset} ({row.purpose})",
        )
    return Proven(said.chain, said.keyset, said.customer, said.asset, said.address, script)


decoder_for(SignedAttestation)
