"""Whose output it is: the scripts of a key-set or vault, derived again from what the bundle says. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from chains.btc.hd import CHANGE, RECEIVE, AccountKey, Origin
from chains.btc.multisig import Multisig, agreed_multisig_address, parse_multisig
from chains.btc.network import NETWORKS
from chains.btc.psbt import KeyOrigin
from chains.errors import InvalidValue
from policies.bundle import BitcoinKeyset, BitcoinVault, Bundle, Tier, WalletEntry
from signers.keys.keyset import NetworkName

Place = tuple[int, int]
"""Branch (0: deposits, 1: change) and index."""


class WalletScripts(Protocol):
    """The outputs of one wallet."""

    def place(self, keys: tuple[KeyOrigin, ...]) -> Place | None:
        """Where a PSBT says that an output of this wallet is; None if it names another wallet's keys."""

    def script(self, branch: int, index: int) -> bytes:
        """The output's script. Raises InvalidValue: no such place."""

    def address(self, branch: int, index: int) -> str:
        """The output's address. Raises InvalidValue: no such place."""


@dataclass(frozen=True, slots=True)
class KeysetScripts:
    """The outputs of an HD wallet."""

    origin: Origin
    account: AccountKey

    def place(self, keys: tuple[KeyOrigin, ...]) -> Place | None:
        """Of the one key that is named. A hint: what counts is the script at that place."""
        return self.origin.place(keys[0].path) if len(keys) == 1 else None

    def script(self, branch: int, index: int) -> bytes:
        """22 bytes (P2WPKH) or 34 (P2TR). Raises InvalidValue: no such place."""
        return self.account.script(branch, index)

    def address(self, branch: int, index: int) -> str:
        """The output's address. Raises InvalidValue: no such place."""
        return self.account.address(branch, index)


@dataclass(frozen=True, slots=True)
class VaultScripts:
    """The outputs of a vault."""

    wallet: Multisig

    def place(self, keys: tuple[KeyOrigin, ...]) -> Place | None:
        """Where all of the vault's keys are named, each of them and no other."""
        places = {
            member.origin.place(key.path)
            for key in keys
            for member in self.wallet.members
            if member.origin.fingerprint == key.fingerprint
        } - {None}
        if len(places) != 1:
            return None
        [place] = places
        return place if place is not None and self.wallet.behind(*place).keys == keys else None

    def script(self, branch: int, index: int) -> bytes:
        """34 bytes (P2WSH). Raises InvalidValue: no such place."""
        return self.wallet.script(branch, index)

    def address(self, branch: int, index: int) -> str:
        """The output's address. Raises InvalidValue: no such place."""
        return self.wallet.address(branch, index)


@lru_cache(maxsize=64)
def keyset_scripts(keyset: BitcoinKeyset, network: NetworkName) -> KeysetScripts:
    """Scripts of a key-set of the bundle. Raises InvalidValue: its account is malformed or another network's."""
    account = AccountKey.parse(keyset.account, NETWORKS[network], keyset.script)
    return KeysetScripts(Origin.parse(keyset.origin), account)


@lru_cache(maxsize=64)
def vault_scripts(vault: BitcoinVault, network: NetworkName) -> VaultScripts:
    """Scripts of a vault of the bundle, if its descriptor is the one that its cosigners have together.

    Raises:
        InvalidValue: it is not, or a cosigner is malformed or another network's.
        DerivationDisagreement: two implementations derive different addresses from it.
    """
    members = [(cosigner.origin, cosigner.account) for cosigner in vault.cosigners]
    wallet = parse_multisig(vault.threshold, members, NETWORKS[network])
    if wallet.descriptor != vault.descriptor:
        raise InvalidValue(
            f"vault {vault.id}: its cosigners have another descriptor together: {wallet.descriptor}"
        )
    for branch in (RECEIVE, CHANGE):
        agreed_multisig_address(wallet, branch, 0)
    return VaultScripts(wallet)


def scripts_of(wallet: WalletEntry, network: NetworkName) -> WalletScripts | None:
    """Scripts of a wallet of the bundle; None if it is not on Bitcoin. Raises InvalidValue, DerivationDisagreement."""
    if isinstance(wallet, BitcoinKeyset):
        return keyset_scripts(wallet, network)
    return vault_scripts(wallet, network) if isinstance(wallet, BitcoinVault) else None


def active_scripts(bundle: Bundle, chain: str, tier: Tier, network: NetworkName) -> WalletScripts:
    """Scripts of the one active key-set or vault of a tier on a chain.

    Raises:
        InvalidValue: there is none, or it is malformed.
        DerivationDisagreement: two implementations derive different addresses from it.
    """
    for wallet in bundle.wallets:
        if (wallet.chain, wallet.tier, wallet.state) == (chain, tier, "active"):
            scripts = scripts_of(wallet, network)
            if scripts is not None:
                return scripts
    raise InvalidValue(f"the bundle has no active {tier} wallet on {chain}")
