"""Whether a cold vault was tried out before real money: what is recorded, and what may go to it until then.

The bundle alone says which vaults there are, and signers obey it. The record is kept online, as it is made of what only
the online side sees (the chain, and what holders have signed), and it allows nobody anything: until it is there the
treasury moves no more than small amounts to the vault.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec
from psycopg.types.json import Jsonb

from custody.storage.db import Tx
from policies.bundle import BitcoinVault, Bundle, EvmVault, Vault, WalletEntry

SMALL_PER_CENT: Final = 1
"""Of what hot pays by itself: so much may go to a cold vault that was not tried out."""


@dataclass(frozen=True, slots=True)
class Proof:
    """That a vault was tried out."""

    proven_at: datetime
    transaction_id: UUID
    """The payment out."""
    told: Sequence[tuple[str, str]]
    """Each step, and what was found."""


def cold_vault(wallet: WalletEntry) -> Vault | None:
    """The wallet, if it is one that has to be tried out: a vault of the cold tier."""
    return wallet if isinstance(wallet, BitcoinVault | EvmVault) and wallet.tier == "cold" else None


def digest_of(vault: Vault) -> str:
    """Of what was tried out: keys, owners, threshold, descriptor, address; not the vault's state. 64 hex digits."""
    said = msgspec.structs.replace(vault, state="active", active_from=0)
    return hashlib.sha256(b"strongroom:vault:v1\n" + msgspec.json.encode(said, order="sorted")).hexdigest()


def find(tx: Tx, vault: Vault) -> Proof | None:
    """The record of a vault as the bundle has it now; None: it was not tried out, or was another one then."""
    row = tx.optional(
        "SELECT proven_at, transaction_id, told FROM vault_proofs WHERE wallet = %s AND digest = %s",
        [vault.id, digest_of(vault)],
    )
    return (
        None
        if row is None
        else Proof(row["proven_at"], row["transaction_id"], [(step, told) for step, told in row["told"]])
    )


def keep(tx: Tx, vault: Vault, transaction_id: UUID, told: Sequence[tuple[str, str]]) -> None:
    """Record it, once. The database wants an operator's action beside it."""
    tx.execute(
        "INSERT INTO vault_proofs (wallet, digest, transaction_id, told) VALUES (%s, %s, %s, %s)"
        " ON CONFLICT DO NOTHING",
        [vault.id, digest_of(vault), transaction_id, Jsonb([[*step] for step in told])],
    )


def small_units(bundle: Bundle, asset: str) -> int:
    """What may go at once to a cold vault that was not tried out, in base units; 0 where hot pays nothing of it."""
    caps = [cap for cap in bundle.caps if (cap.tier, cap.asset) == ("hot", asset)]
    return int(caps[0].payment_below) * SMALL_PER_CENT // 100 if caps else 0


def objection(tx: Tx, bundle: Bundle, target: WalletEntry, asset: str, units: int) -> str | None:
    """Why so much must not go to a wallet yet; None if nothing speaks against it."""
    vault = cold_vault(target)
    if vault is None or units <= (most := small_units(bundle, asset)) or find(tx, vault) is not None:
        return None
    return (
        f"not proven: {vault.id} was never tried out in and out, so at most {bundle.told(asset, most)} goes to it:"
        f" strongroom cold prove {vault.id}"
    )
