"""Whose a destination is. Money changes hands in the ledger by this answer, and no signer looks at it."""

from __future__ import annotations

from custody.deposits.attestation import verify_row
from custody.deposits.repository import address_of_text
from custody.storage.db import Tx
from policies.bundle import Bundle


def owner_of(tx: Tx, bundle: Bundle, chain: str, address: str) -> tuple[bool, str | None]:
    """Whether an address is ours, and whose by the signer's word: (True, None) is the house's own.

    Raises:
        AddressNotOurs: a row says that it is ours, and our keys do not give it.
        AttestationMismatch: it is ours, but nobody attested that it is this customer's.
    """
    row = address_of_text(tx, chain, address)
    if row is None:
        return False, None
    verify_row(row, bundle)
    return True, row.customer
