"""The small quorum of a trial installation, who approves payments in it, and the bundle that the quorum signs.

Three officers of three organisations, any two of whom sign; three treasurers.
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
from ops.stack.listing import DAY, Listing
from ops.stack.policy import trial_policy
from policies.bundle import (
    Approver,
    Attestor,
    Breaker,
    Bundle,
    Caller,
    Officer,
    Operator,
    OperatorRole,
    SignedBundle,
    TrustRoot,
)
from policies.keys import sign_bundle
from policies.rules import Policy

_YEAR: Final = 365 * DAY
_OFFICERS: Final = (("olga", "operations"), ("felix", "finance"), ("sanna", "security"))
_APPROVERS: Final = (("ada", "treasury"), ("ben", "treasury"), ("cleo", "risk"))
APPROVER_ROLE: Final = "treasurer"
OPERATOR_ROLES: Final[tuple[OperatorRole, ...]] = ("support", "treasury", "compliance", "security", "auditor")
THRESHOLD: Final = 2
HOT_VALUE_CAP: Final = str(2_000_000_00)
"""Of all hot key-sets together in a day, in cents of a dollar, every asset at its highest believable price."""


@dataclass(frozen=True, slots=True)
class Quorum:
    """The officers of a trial installation, and its approvers."""

    officers: tuple[Person, ...]
    approvers: tuple[Person, ...]

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
    """Reads the officers' keys from `directory` and the approvers' from `approvers` in it, or makes them; a real
    installation keeps them apart."""
    return Quorum(
        tuple(person(directory, name, organisation=of) for name, of in _OFFICERS),
        tuple(person(directory / "approvers", name, organisation=of) for name, of in _APPROVERS),
    )


@dataclass(frozen=True, slots=True)
class CallerGrant:
    """A caller's key and what it may do."""

    person: Person
    scopes: tuple[str, ...]


def make_bundle(
    *,
    version: int,
    listings: Sequence[Listing],
    callers: Sequence[CallerGrant],
    quorum: Quorum,
    verifiers: Sequence[Person] = (),
    operators: Sequence[Person] = (),
) -> Bundle:
    """The bundle of a trial installation.

    Args:
        version: from 1, rising.
        listings: its networks with all that belongs to them.
        callers: who may call the API.
        quorum: whose officers and approvers are listed.
        verifiers: who signs verdicts and what became of transactions.
        operators: who runs it, each with all roles; a real installation gives each person as few as will do.
    """
    now = int(time.time())
    made = Bundle(
        v=1,
        version=version,
        issued_at=now,
        expires_at=now + _YEAR,
        networks=tuple(each.network for each in listings),
        assets=tuple(asset for each in listings for asset in each.assets),
        keysets=tuple(each.keyset for each in listings),
        vaults=tuple(vault for each in listings for vault in each.vaults),
        gas_payers=tuple(payer for each in listings for payer in each.gas_payers),
        caps=tuple(cap for each in listings for cap in each.caps),
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
        verifiers=tuple(
            Attestor(
                id=verifier.id,
                key=verifier.key.public_hex,
                organisation=verifier.organisation,
                not_after=now + _YEAR,
            )
            for verifier in verifiers
        ),
        operators=tuple(
            Operator(
                id=operator.id,
                key=operator.key.public_hex,
                organisation=operator.organisation,
                roles=OPERATOR_ROLES,
                not_after=now + _YEAR,
            )
            for operator in operators
        ),
        approvers=tuple(
            Approver(
                id=approver.id,
                key=approver.key.public_hex,
                organisation=approver.organisation,
                roles=(APPROVER_ROLE,),
                not_after=now + _YEAR,
            )
            for approver in quorum.approvers
        ),
        policy=Policy(),
        longest_order_seconds=DAY,
        breakers=(
            Breaker(
                id="hot",
                keysets=tuple(key.id for each in listings for key in (each.keyset, *each.gas_payers)),
                value_cap=HOT_VALUE_CAP,
                window_seconds=DAY,
            ),
        ),
        prices=tuple(price for each in listings for price in each.prices),
    )
    return msgspec.structs.replace(made, policy=trial_policy(made))


def publish(directory: Path, signed: SignedBundle, root: TrustRoot) -> tuple[Path, Path]:
    """Writes `bundle.json` and `trust-root.json`, and returns their paths."""
    bundle_path, root_path = directory / "bundle.json", directory / "trust-root.json"
    write_private(bundle_path, signed.encode().decode())
    write_private(root_path, msgspec.json.encode(root).decode())
    return bundle_path, root_path
