"""What officers, verifiers and callers tell signers beside orders, each with a signature of its own (DESIGN section 1).

None of these needs the online service: they are handed to a signer over its own listener, by whomever, and what
counts is who signed them.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec

from policies.canonical import (
    Document,
    Hex32,
    Name,
    Seconds,
    Units,
    Uuid,
    Version,
    decoder_for,
    verify_ed25519,
)
from policies.intent import Destination, Signature

FreezeScope = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^(all|tier:(hot|warm|cold)|(chain|wallet|asset|customer):[A-Za-z0-9][A-Za-z0-9._-]{0,63})\Z"
    ),
]
"""`all`, a `tier:`, a `chain:`, `wallet:` (key-set or vault) or `asset:` by its id in the bundle, or a `customer:`."""

LoweringTarget = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^(longest_order_seconds|cap:(hot|warm|cold):{name}:(payment_below|window_cap)|breaker:{name}:value_cap"
        r"|network:{name}:(feerate_cap|fee_cap|fee_window_cap)|rule:{name}:at_most"
        r"|(caller|operator|approver|verifier):{name}:not_after)\Z".replace(
            "{name}", "[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
        )
    ),
]
"""A number of the bundle that one officer may lower (`policies.overlays`), e.g. `cap:hot:BTC:payment_below`."""

Why = Annotated[str, msgspec.Meta(max_length=500)]

Resource = Annotated[str, msgspec.Meta(min_length=1, max_length=160)]
"""What only one transaction can use, as `chains.ports.Consumption` names it."""


class Freeze(Document, frozen=True):
    """One officer's veto: nothing in its scope is signed until the quorum has signed a higher bundle."""

    domain: ClassVar[str] = "freeze"

    v: Literal[1]
    officer: Name
    scope: FreezeScope
    bundle_version: Version
    """A bundle of a higher version lifts it: officers who want it to last sign one that says so."""
    reason: Why
    issued_at: Seconds


class Veto(Document, frozen=True):
    """One officer's word that a bundle, though the quorum has signed it, must not come into force; for good."""

    domain: ClassVar[str] = "veto"

    v: Literal[1]
    officer: Name
    bundle: Hex32
    """Its digest."""
    reason: Why
    issued_at: Seconds


class Lowering(Document, frozen=True):
    """One officer lowers one number of the bundle. It acts at once, until a bundle of a higher version."""

    domain: ClassVar[str] = "lowering"

    v: Literal[1]
    officer: Name
    target: LoweringTarget
    value: Units
    """What the number is from now on, unless it is lower already; in the unit of the target."""
    bundle_version: Version
    """Of the bundle in force, whose number is lowered."""
    reason: Why
    issued_at: Seconds


class ClockConfirmation(Document, frozen=True):
    """One officer's word that a signer's clock is right, after it jumped or the signer stood still for long."""

    domain: ClassVar[str] = "clock"

    v: Literal[1]
    officer: Name
    journal: Hex32
    """Of the signer that is meant: its journal's id."""
    at: Seconds
    """The time when it was signed; a signer whose clock says something else does not take it."""


class Resolution(Document, frozen=True):
    """A verifier's word on what became of one transaction that a signer has signed, from its own node.

    `confirmed`: it is in the best chain at finality depth. `dead`: one of its resources was used, at finality depth, by
    another transaction, or by itself with a receipt that says it failed; so it can never pay any more.
    """

    domain: ClassVar[str] = "resolution"

    v: Literal[1]
    verifier: Name
    chain: Name
    content: Hex32
    """Hash of what was signed (see chains.ports): the journal's name for the transaction."""
    resource: Resource
    """One of what it uses, by which it was decided. On EVM chains two senders can sign the same bytes: the sender is in
    here only."""
    outcome: Literal["confirmed", "dead"]
    block: Hex32
    """Hash of the block that proves it."""
    height: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]


class WhitelistEntry(Document, frozen=True):
    """A caller's word that an owner wants to pay to a destination later. Whoever reads it begins to count its age."""

    domain: ClassVar[str] = "whitelist-entry"

    v: Literal[1]
    id: Uuid
    """Of the entry: listing the same destination anew needs a new signature."""
    caller: Name
    """Whose key signed: a caller of the bundle who may sign orders."""
    owner: Name
    """The customer, or `house`."""
    chain: Name
    address: Destination
    """Canonical address text of `chain`."""
    issued_at: Seconds


class SignedFreeze(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A freeze and its officer's signature."""

    freeze: Freeze
    signature: Signature


class SignedVeto(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A veto and its officer's signature."""

    veto: Veto
    signature: Signature


class SignedLowering(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A lowering and its officer's signature."""

    lowering: Lowering
    signature: Signature


class SignedClockConfirmation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A confirmation and its officer's signature."""

    confirmation: ClockConfirmation
    signature: Signature


class SignedResolution(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A resolution and its verifier's signature."""

    resolution: Resolution
    signature: Signature


class SignedWhitelistEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An entry of a whitelist and its caller's signature."""

    entry: WhitelistEntry
    signature: Signature

    def verify(self, public_key_hex: str) -> None:
        """Raises BadSignature unless `public_key_hex` (32 bytes) signed this entry."""
        verify_ed25519(public_key_hex, self.entry.digest(), self.signature)


for _kind in (
    SignedFreeze,
    SignedVeto,
    SignedLowering,
    SignedClockConfirmation,
    SignedResolution,
    SignedWhitelistEntry,
):
    decoder_for(_kind)
