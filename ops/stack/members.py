"""Who signs for the warm vaults of a trial: three signers, each with a token, a journal and a socket of its own.

One of them holds a cosigner's keys of the Bitcoin vault and an owner's key of each Safe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ops.devnet.softhsm import SoftHsmToken
from ops.stack.keys import private_directory
from ops.stack.keyset import make_in_token
from ops.stack.names import BTC_WARM
from ops.stack.networks import TrialNetwork
from policies.bundle import TrustRoot
from signers.keys.keyset import BitcoinCosignerRecord, SafeOwnerRecord
from signers.setup import NewBitcoinCosigner, NewKeyset, NewSafeOwner

MEMBERS: Final = (("berlin", "operations"), ("lisbon", "treasury"), ("oslo", "risk"))
"""Of each warm vault: where they are, and whose."""


@dataclass(frozen=True, slots=True)
class Member:
    """One of the three signers."""

    name: str
    """In the bundle, among the members of each warm vault."""
    organisation: str
    token: SoftHsmToken
    directory: Path
    """Holds journal, pinned quorum and sealed seed."""
    mark_directory: Path
    """Holds the journal's high-water mark; really another user's."""
    socket: Path

    @property
    def process(self) -> str:
        """Name of its process."""
        return f"signer-{self.name}"


@dataclass(frozen=True, slots=True)
class MemberKeys:
    """The public halves of what one of them holds."""

    member: Member
    cosigner: BitcoinCosignerRecord
    owners: tuple[SafeOwnerRecord, ...]
    """Of the networks that have tiers, in their order."""

    @property
    def log_key(self) -> str:
        """Ed25519 public key, 64 hex digits, that signs its log: that of its first wallet by name."""
        first = min((self.cosigner, *self.owners), key=lambda record: record.id)
        return first.attestation_key


def members_of(directory: Path, run: Path) -> tuple[Member, ...]:
    """The three, below an installation's directory.

    Args:
        directory: of the installation.
        run: where sockets are.
    """
    return tuple(
        Member(
            name=name,
            organisation=organisation,
            token=SoftHsmToken(directory / f"softhsm-{name}", f"strongroom-{name}"),
            directory=private_directory(directory / f"signer-{name}"),
            mark_directory=private_directory(directory / f"signer-{name}-mark"),
            socket=run / f"{name}.sock",
        )
        for name, organisation in MEMBERS
    )


def make_member(member: Member, root: TrustRoot, networks: Sequence[TrialNetwork]) -> MemberKeys:
    """Make a member's token, keys and journal, or find them.

    Raises:
        StartFailed: the signers' set-up refused.
    """
    safes = [network for network in networks if network.tiers is not None]
    wanted: list[NewKeyset] = [NewBitcoinCosigner(BTC_WARM, "regtest")]
    wanted += [NewSafeOwner(each.tiers.warm, each.chain_id) for each in safes if each.tiers is not None]
    member.token.create()
    first, *others = make_in_token(member.token, member.directory, member.mark_directory, root, wanted)
    assert isinstance(first, BitcoinCosignerRecord)
    return MemberKeys(member, first, tuple(each for each in others if isinstance(each, SafeOwnerRecord)))
