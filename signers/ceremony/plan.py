"""What a ceremony is to make, where, and who takes part: one TOML file, nothing in it secret.

environment = "production"                    # or "trial", a rehearsal
directory = "/var/lib/strongroom/signer"      # the signer's: gets the sealed seed or key record, record and proof
backup_directory = "/media/backup"            # gets record, proof and wrapped key, for keeping elsewhere
threshold = 3
root = "/media/officers/trust-root.json"      # the quorum that signs bundles: its fingerprint is printed, for holders
[keyset]
kind = "btc-hd"                               # or btc-cosigner, evm-key, safe-owner, gas-payer
id = "btc-hot"                                # in the bundle; of a cosigner or owner: the vault's
network = "main"                              # EVM: chain_id = 1
script = "p2wpkh"                             # btc-hd only; or "p2tr"
# organisation = "..."                        # btc-cosigner and safe-owner: whose member of the vault it is
# member = "..."                              # ... and its id there
[token]
module = "/usr/lib/softhsm/libsofthsm2.so"
label = "strongroom"
pin_file = "/etc/strongroom/signer.pin"       # without it the PIN is asked for
[proof_token]                                 # another, freshly initialised one
module = "/usr/lib/softhsm/libsofthsm2.so"
label = "proof"
# settings = { SOFTHSM2_CONF = "..." }        # environment of its library
[[operators]]                                 # two
name = "olga"
key_file = "/media/olga/operator.pem"         # Ed25519 under a passphrase: `strongroom key ceremony operator`
[[holders]]                                   # as many as there are shares
name = "anna"
file = "/media/anna/btc-hot.share"            # without it the share is shown on the screen, once
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Final

import msgspec

from chains.btc.script import KeyScript
from policies.canonical import Name
from signers.ceremony.record import Purpose
from signers.config import Environment
from signers.errors import BadConfiguration
from signers.keys.evm_keys import signing_key_name
from signers.keys.keyset import NetworkName
from signers.keys.sealed import attestation_key_name, sealing_key_name
from signers.process.files import read_toml

DEFAULT_THRESHOLD: Final = 3
_Account = Annotated[int, msgspec.Meta(ge=0, le=999_999_999)]


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of the plan's sections."""


class _Keys(_Section, frozen=True, kw_only=True):
    """What is to be made."""

    purpose: ClassVar[Purpose] = "wallet"

    id: Name


class NewWallet(_Keys, frozen=True, kw_only=True, tag_field="kind", tag="btc-hd"):
    """An HD wallet."""

    network: NetworkName
    script: KeyScript = "p2wpkh"
    account: _Account = 0


class NewCosigner(_Keys, frozen=True, kw_only=True, tag_field="kind", tag="btc-cosigner"):
    """One cosigner's account of a Bitcoin vault."""

    purpose: ClassVar[Purpose] = "cosigner"

    network: NetworkName
    account: _Account = 0
    organisation: Name
    member: Name


class NewEvmKey(_Keys, frozen=True, kw_only=True, tag_field="kind", tag="evm-key"):
    """A key that pays."""

    chain_id: Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]


class NewOwner(_Keys, frozen=True, kw_only=True, tag_field="kind", tag="safe-owner"):
    """One owner's key of a Safe."""

    purpose: ClassVar[Purpose] = "owner"

    chain_id: Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]
    organisation: Name
    member: Name


class NewPayer(_Keys, frozen=True, kw_only=True, tag_field="kind", tag="gas-payer"):
    """A key that pays the gas of Safes' transactions."""

    purpose: ClassVar[Purpose] = "gas"

    chain_id: Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]


NewBitcoinKeys = NewWallet | NewCosigner
NewKeys = NewWallet | NewCosigner | NewEvmKey | NewOwner | NewPayer


class TokenPlan(_Section, frozen=True, kw_only=True):
    """A token that takes part."""

    module: str
    label: Annotated[str, msgspec.Meta(min_length=1, max_length=32)]
    pin_file: str | None = None
    """File with the user PIN; without it the PIN is asked for."""


class ProofTokenPlan(TokenPlan, frozen=True, kw_only=True):
    """The token to which the backup is restored as a proof; it is opened in a process of its own."""

    settings: dict[str, str] = {}
    """Environment variables that its library needs."""


class OperatorPlan(_Section, frozen=True):
    """One of the two who make the keys."""

    name: Name
    key_file: str
    """PEM of an Ed25519 key under a passphrase."""


class HolderPlan(_Section, frozen=True):
    """Who gets a share."""

    name: Name
    file: str | None = None
    """On a medium of the holder's own; without it the share is shown on the screen."""


class CeremonyPlan(_Section, frozen=True):
    """The whole file."""

    environment: Environment
    directory: str
    backup_directory: str
    keyset: NewKeys
    token: TokenPlan
    proof_token: ProofTokenPlan
    operators: tuple[OperatorPlan, OperatorPlan]
    holders: Annotated[tuple[HolderPlan, ...], msgspec.Meta(min_length=2, max_length=16)]
    threshold: Annotated[int, msgspec.Meta(ge=2, le=16)] = DEFAULT_THRESHOLD
    root: str | None = None
    """File with the quorum that signs bundles. Its fingerprint is on the record, where holders of offline keys find it
    when they register the bundle."""

    @property
    def key_names(self) -> tuple[str, ...]:
        """Labels of the keys that the token gets."""
        keyset = self.keyset
        own = sealing_key_name if isinstance(keyset, NewBitcoinKeys) else signing_key_name
        return own(keyset.id), attestation_key_name(keyset.id)


def read_plan(path: Path) -> CeremonyPlan:
    """Read and check a plan. Raises BadConfiguration: says what to write."""
    plan = read_toml(path, CeremonyPlan, "plan", readers="anybody")
    check_plan(plan)
    return plan


def check_plan(plan: CeremonyPlan) -> None:
    """Check that the parts of a plan make sense together. Raises BadConfiguration."""
    operators, holders = [o.name for o in plan.operators], [h.name for h in plan.holders]
    files = [h.file for h in plan.holders if h.file is not None]
    keys = [o.key_file for o in plan.operators]
    for what, given in (
        ("operator", operators),
        ("operator's key file", keys),
        ("holder", holders),
        ("file", files),
    ):
        if len(set(given)) != len(given):
            raise BadConfiguration(f"the plan names one {what} twice")
    if plan.threshold > len(holders):
        raise BadConfiguration(f"the plan has {len(holders)} holders, but {plan.threshold} shares are needed")
    if plan.threshold <= len(set(operators) & set(holders)):
        raise BadConfiguration("the operators hold enough shares to restore the keys between them")
    if plan.environment == "production" and plan.threshold == len(holders):
        raise BadConfiguration("the loss of one share would be the loss of the backup: name more holders")
    if (plan.token.module, plan.token.label) == (plan.proof_token.module, plan.proof_token.label):
        raise BadConfiguration(
            "the proof needs another token: one of another label, even where each has its own settings"
        )
