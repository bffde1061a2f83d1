"""The outputs of one wallet of ours, whatever locks them: scripts, addresses, sizes, what a PSBT says of them. Pure.

One key's outputs (BIP84, BIP86), or those of several signers together (`wsh(sortedmulti(...))`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from chains.btc.hd import AccountKey, Origin, agreed_address
from chains.btc.multisig import Multisig, agreed_multisig_address, multisig_input_wu
from chains.btc.multisig_script import MultisigScript
from chains.btc.psbt import KeyOrigin, ScriptKeys
from chains.btc.script import KEY_LOCKS, Lock, classify


class Outputs(Protocol):
    """The outputs of one wallet, by branch (0: deposits, 1: change) and index.

    Methods raise InvalidValue where branch is neither 0 nor 1, or the index is hardened or negative.
    """

    @property
    def lock(self) -> Lock:
        """How large they are, and what spends them."""

    def script(self, branch: int, index: int) -> bytes:
        """The output's script."""

    def agreed_address(self, branch: int, index: int) -> str:
        """Its address, by two implementations. Raises DerivationDisagreement: they differ; neither may be used."""

    def behind(self, branch: int, index: int) -> ScriptKeys:
        """What a PSBT says of it."""


@dataclass(frozen=True, slots=True)
class KeyOutputs:
    """Outputs of an HD wallet with one key each."""

    origin: Origin
    account: AccountKey

    @property
    def lock(self) -> Lock:
        """See `Outputs`."""
        return KEY_LOCKS[self.account.kind]

    def script(self, branch: int, index: int) -> bytes:
        """22 bytes (P2WPKH) or 34 (P2TR)."""
        return self.account.script(branch, index)

    def agreed_address(self, branch: int, index: int) -> str:
        """By coincurve and bip_utils."""
        return agreed_address(self.account, branch, index)

    def behind(self, branch: int, index: int) -> ScriptKeys:
        """The one key."""
        path = (*self.origin.path, branch, index)
        return ScriptKeys(
            None, (KeyOrigin(self.account.pubkey(branch, index), self.origin.fingerprint, path),)
        )


@dataclass(frozen=True, slots=True)
class MultisigOutputs:
    """Outputs of a vault."""

    wallet: Multisig

    @property
    def lock(self) -> Lock:
        """See `Outputs`."""
        return Lock(self.wallet.script(0, 0), multisig_input_wu(self.wallet.witness_script(0, 0)))

    def script(self, branch: int, index: int) -> bytes:
        """34 bytes (P2WSH)."""
        return self.wallet.script(branch, index)

    def agreed_address(self, branch: int, index: int) -> str:
        """By coincurve and embit."""
        return agreed_multisig_address(self.wallet, branch, index)

    def behind(self, branch: int, index: int) -> ScriptKeys:
        """The script and all its keys."""
        return self.wallet.behind(branch, index)


def lock_of(script: bytes, witness_script: bytes | None) -> Lock:
    """How an output is locked.

    Args:
        script: of the output.
        witness_script: of a vault's output; None: one key's (P2TR, else P2WPKH).

    Raises:
        InvalidValue: the witness script is no multisig.
    """
    if witness_script is not None:
        return Lock(script, multisig_input_wu(MultisigScript.parse(witness_script)))
    return KEY_LOCKS["p2tr" if classify(script) == "p2tr" else "p2wpkh"]
