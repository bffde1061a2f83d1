"""The small quorum of a trial installation, and the bundle that it signs.

Three officers of three organisations, any two of whom sign. Numbers are DESIGN's defaults; confirmations and
depths are those of the main network, for on regtest six blocks cost nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from ops.devnet.files import write_private
from ops.stack.keys import Person, person
from policies.bundle import (
    AssetEntry,
    BitcoinNetwork,
    Bundle,
    Caller,
    Confirmations,
    KeysetEntry,
    NetworkEntry,
    Officer,
    Rules,
    SignedBundle,
    TierCap,
    TrustRoot,
)
from policies.keys import sign_bundle

CHAIN: Final = "bitcoin-regtest"
ASSET: Final = "BTC"
REGTEST_GENESIS: Final = "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206"
BTC_SATS: Final = 100_000_000

_DAY: Final = 24 * 3600
_YEAR: Final = 365 * _DAY
_OFFICERS: Final = (("olga", "operations"), ("felix", "finance"), ("sanna", "security"))
THRESHOLD: Final = 2


@dataclass(frozen=True, slots=True)
class Quorum:
    """The officers of a trial installation."""

    officers: tuple[Person, ...]

    def trust_root(self, *, minimum_version: int) -> TrustRoot:
        """What signers and services pin: the officers' public keys and how many of them must sign."""
        return TrustRoot(
            threshold=THRESHOLD,
            keys={officer.id: officer.key.public_hex for officer in self.officers},
            organisations={officer.id: officer.organisation for officer in self.officers},
            minimum_version=minimum_version,
        )

    def sign(self, bundle: Bundle) -> SignedBundle:
        """The bundle with the signatures of the first two officers.

        Raises:
            InvalidValue: the bundle is inconsistent within itself.
        """
        return sign_bundle(bundle, {officer.id: officer.key for officer in self.officers[:THRESHOLD]})


def make_quorum(directory: Path) -> Quorum:
    """Reads the officers' keys from `directory`, or makes them; a real installation keeps them apart."""
    return Quorum(tuple(person(directory, name, organisation=of) for name, of in _OFFICERS))


@dataclass(frozen=True, slots=True)
class CallerGrant:
    """A caller's key and what it may do."""

    person: Person
    scopes: tuple[str, ...]


def make_bundle(
    *, version: int, keyset: KeysetEntry, callers: Sequence[CallerGrant], quorum: Quorum
) -> Bundle:
    """The bundle of a regtest installation with one hot key-set for BTC.

    Args:
        version: from 1, rising.
        keyset: the public half of the hot key-set.
        callers: who may call the API.
        quorum: whose officers are listed.
    """
    now = int(time.time())
    return Bundle(
        v=1,
        version=version,
        issued_at=now,
        expires_at=now + _YEAR,
        networks=(_regtest(),),
        assets=(_bitcoin(),),
        keysets=(keyset,),
        caps=(
            TierCap(
                tier="hot",
                asset=ASSET,
                payment_below=str(BTC_SATS // 10),
                window_cap=str(5 * BTC_SATS),
                window_seconds=_DAY,
            ),
        ),
        callers=tuple(
            Caller(
                id=grant.person.id,
                key=grant.person.key.public_hex,
                organisation=grant.person.organisation,
                scopes=grant.scopes,
                not_after=now + _YEAR,
            )
            for grant in callers
        ),
        officers=tuple(
            Officer(
                id=officer.id,
                key=officer.key.public_hex,
                organisation=officer.organisation,
                not_after=now + _YEAR,
            )
            for officer in quorum.officers
        ),
        rules=(
            Rules(
                asset=ASSET,
                hot_below=str(BTC_SATS // 10),
                warm_below=str(10 * BTC_SATS),
                hot_window_cap=str(5 * BTC_SATS),
                customer_window_cap=str(2 * BTC_SATS),
                window_seconds=_DAY,
            ),
        ),
    )


def _regtest() -> NetworkEntry:
    return BitcoinNetwork(
        chain=CHAIN,
        network="regtest",
        genesis=REGTEST_GENESIS,
        native_asset=ASSET,
        settle_blocks=6,
        feerate_floor=1_000,
        feerate_cap=500_000,
        fee_cap=str(BTC_SATS // 100),
        fee_window_cap=str(BTC_SATS // 10),
        fee_window_seconds=_DAY,
    )


def _bitcoin() -> AssetEntry:
    return AssetEntry(
        id=ASSET,
        chain=CHAIN,
        decimals=8,
        contract=None,
        minimum_deposit="1000",
        withdrawal_fee="50000",
        confirmations=(Confirmations(from_units="0", blocks=6),),
    )


def publish(directory: Path, signed: SignedBundle, root: TrustRoot) -> tuple[Path, Path]:
    """Writes `bundle.json` and `trust-root.json`, and returns their paths."""
    bundle_path, root_path = directory / "bundle.json", directory / "trust-root.json"
    write_private(bundle_path, signed.encode().decode())
    write_private(root_path, msgspec.json.encode(root).decode())
    return bundle_path, root_path
