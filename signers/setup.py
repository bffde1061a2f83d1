"""Makes a signer: key-sets, the pinned quorum, an empty journal and its mark. Called by set-up, once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from chains.btc.script import KeyScript
from policies.bundle import TrustRoot
from signers.config import JOURNAL_FILE, MARK_FILE, PINNED_FILE
from signers.errors import BadConfiguration
from signers.hsm.pkcs11 import Token
from signers.journal.journal import Journal
from signers.keys.evm_keys import create_evm_keyset, create_gas_payer, create_safe_owner
from signers.keys.keyset import KeysetRecord
from signers.keys.sealed import create_cosigner, create_keyset
from signers.process.files import give
from signers.trust.trust import pin


@dataclass(frozen=True, slots=True)
class NewBitcoinKeyset:
    """An HD wallet to be made."""

    id: str
    network: str
    """`main`, `test`, `signet` or `regtest`."""
    script: KeyScript = "p2wpkh"
    """What its keys lock coins with."""


@dataclass(frozen=True, slots=True)
class NewBitcoinCosigner:
    """One cosigner's keys of a vault to be made."""

    id: str
    """The vault's."""
    network: str
    """`main`, `test`, `signet` or `regtest`."""


@dataclass(frozen=True, slots=True)
class NewEvmKeyset:
    """A key for one EVM network to be made."""

    id: str
    chain_id: int
    """EIP-155."""


@dataclass(frozen=True, slots=True)
class NewSafeOwner:
    """The key of one owner of a Safe to be made."""

    id: str
    """The Safe's, in the bundle."""
    chain_id: int
    """EIP-155."""


@dataclass(frozen=True, slots=True)
class NewEvmGasPayer:
    """The key that pays the gas of Safes' transactions on one EVM network, to be made."""

    id: str
    chain_id: int
    """EIP-155."""


NewKeyset = NewBitcoinKeyset | NewBitcoinCosigner | NewEvmKeyset | NewSafeOwner | NewEvmGasPayer
"""A key-set to be made."""


def make_keys(
    module: Path,
    label: str,
    pin_callback: Callable[[], str],
    directory: Path,
    keysets: Sequence[NewKeyset],
) -> list[KeysetRecord]:
    """Make key-sets in a token and their files in `directory`; returns what the bundle has to say of them.

    Run it in a process whose environment is the token's (`SOFTHSM2_CONF`). Again returns the same records.

    Raises:
        InvalidValue: a malformed name, or an unknown network.
        SealBroken: a file of that name belongs to another network.
        TokenRefused: wrong PIN, no such token, or it has keys whose files are missing.
        TokenLost: the token does not answer.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    token = Token(module, label, pin_callback)
    try:
        return [_made(token, keyset, directory) for keyset in keysets]
    finally:
        token.close()


def _made(token: Token, keyset: NewKeyset, directory: Path) -> KeysetRecord:
    if isinstance(keyset, NewEvmKeyset):
        return create_evm_keyset(token, keyset.id, keyset.chain_id, directory)
    if isinstance(keyset, NewSafeOwner):
        return create_safe_owner(token, keyset.id, keyset.chain_id, directory)
    if isinstance(keyset, NewEvmGasPayer):
        return create_gas_payer(token, keyset.id, keyset.chain_id, directory)
    if isinstance(keyset, NewBitcoinCosigner):
        return create_cosigner(token, keyset.id, keyset.network, directory)
    return create_keyset(token, keyset.id, keyset.network, directory, script=keyset.script)


def initialise(
    directory: Path,
    mark_directory: Path,
    root: TrustRoot,
    *,
    user: str | None = None,
    mark_user: str | None = None,
) -> None:
    """Pin the quorum and make the empty journal with its mark. Again changes nothing.

    Args:
        directory: the signer's directory.
        mark_directory: another directory.
        root: the quorum, as the ceremony made it.
        user: whom the signer's directory and all in it is given to; only root can. None: it stays this user's.
        mark_user: whom the mark and its directory are given to: another one, whom the keeper becomes.

    Raises:
        BadConfiguration: only a part is there, which no crash leaves behind: it was removed or restored. Or there is no
            such user, or only root could give things to it.
        InvalidValue: the root asks for more organisations than it lists.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    mark_directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    journal, mark = directory / JOURNAL_FILE, mark_directory / MARK_FILE
    if not (directory / PINNED_FILE).exists():
        pin(root, directory / PINNED_FILE)
    if journal.exists() != mark.exists():
        raise BadConfiguration(
            f"only one of {journal} and {mark} is there: restore the other, or start with new keys in new directories"
        )
    if not journal.exists():
        Journal.create(journal, mark)
    for place, owner in ((directory, user), (mark_directory, mark_user)):
        if owner is not None:
            give(place, owner)
