"""What a Safe on a chain is, and whether that is the vault that was agreed. Pure; `chains.eth.node.safes` reads it.

A Safe is a proxy: its own code is 171 bytes that hand every call to the code of the address in its first storage slot.
So the code at both addresses is compared with the official one, and what they answer is believed only then. Modules act
without any owner's signature, a guard can stop every payment, and a fallback handler answers in the Safe's name: a
vault of ours has none of them.

Sources: `Safe.sol`, `SafeProxy.sol`, `GuardManager.sol`, `FallbackManager.sol`, `ModuleManager.sol` of
safe-smart-account v1.4.1; code hash of the singleton as in safe-deployments, `v1.4.1/safe.json`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from chains.eth.abi import address_word, encode_arguments, selector, uint_word
from chains.eth.address import ADDRESS_BYTES, checksummed, keccak256

VERSION: Final = "1.4.1"
SINGLETON_CODE: Final = bytes.fromhex("1fe2df852ba3299d6534ef416eefa406e56ced995bca886ab7a553e6d0c5e1c4")
"""keccak256 of the code that all Safes of this version share."""
PROXY_CODE: Final = bytes.fromhex("d7d408ebcd99b2b70be43e20253d6d92a8ea8fab29bd3be7f55b10032331fb4c")
"""keccak256 of the code of a Safe itself."""
FACTORY_CODE: Final = bytes.fromhex("50c3cdc4074750a7a974204a716c999edd37482f907608d960b2b025ee0b3317")
"""keccak256 of the code of `SafeProxyFactory`, which makes Safes."""

SINGLETON_SLOT: Final = uint_word(0)
GUARD_SLOT: Final = keccak256(b"guard_manager.guard.address")
FALLBACK_SLOT: Final = keccak256(b"fallback_manager.handler.address")

SETUP: Final = selector("setup(address[],uint256,address,bytes,address,address,uint256,address)")
NOBODY: Final = bytes(ADDRESS_BYTES)
_SETUP_HEAD: Final = 8


@dataclass(frozen=True, slots=True)
class SafeReport:
    """What a node says of a Safe after one block."""

    safe: bytes
    """Its address, 20 bytes."""
    code_hash: bytes
    """keccak256 of the code at its address, 32 bytes."""
    singleton: bytes
    """The address (20 bytes) to which it hands all calls."""
    singleton_code_hash: bytes
    """keccak256 of the code there."""
    version: str
    owners: tuple[bytes, ...]
    """20 bytes each, in the contract's order."""
    threshold: int
    modules: tuple[bytes, ...]
    """20 bytes each; of very many only the first ones."""
    guard: bytes | None
    fallback_handler: bytes | None
    nonce: int
    """Of its next transaction."""

    @property
    def official(self) -> bool:
        """Whether its code is the official one, so that all else is as it says."""
        return (self.code_hash, self.singleton_code_hash) == (PROXY_CODE, SINGLETON_CODE)


def objections(report: SafeReport, owners: Collection[bytes], threshold: int) -> list[str]:
    """Why a Safe is not the vault that was agreed, a sentence each; nothing if it is.

    Args:
        report: as read from the chain.
        owners: who must own it, 20 bytes each.
        threshold: how many of them must sign.
    """
    where = checksummed(report.safe)
    if report.code_hash == keccak256(b""):
        return [f"{where} has no code: no Safe is there"]
    if not report.official:
        codes = f"code {report.code_hash.hex()}, singleton {checksummed(report.singleton)} with code"
        codes += f" {report.singleton_code_hash.hex()}"
        nothing = "nothing that it says of itself can be believed"
        return [f"{where} does not run the official code of Safe {VERSION} ({codes}): {nothing}"]
    found = []
    if report.version != VERSION:
        found.append(f"its version is {report.version!r}, not {VERSION}")
    there, due = set(report.owners), set(owners)
    found += [f"{checksummed(each)} is an owner, and should not be" for each in sorted(there - due)]
    found += [f"{checksummed(each)} should be an owner, and is not" for each in sorted(due - there)]
    if report.threshold != threshold:
        found.append(f"its threshold is {report.threshold}, not {threshold}")
    found += [
        f"{checksummed(each)} is a module: it acts without any owner's signature" for each in report.modules
    ]
    if report.guard is not None:
        found.append(f"{checksummed(report.guard)} is its guard: it can stop every payment")
    if report.fallback_handler is not None:
        found.append(
            f"{checksummed(report.fallback_handler)} is its fallback handler: it answers in the Safe's name"
        )
    return found


def setup_calldata(owners: Collection[bytes], threshold: int) -> bytes:
    """The call that makes a fresh proxy a Safe of these owners: no module, no guard, no fallback handler, no payment.

    Args:
        owners: 20 bytes each, in the order in which the contract will list them.
        threshold: how many of them sign.

    Raises:
        InvalidValue: an owner is not 20 bytes.
    """
    array = uint_word(len(owners)) + b"".join(address_word(owner) for owner in owners)
    head = [
        uint_word(_SETUP_HEAD * 32),
        uint_word(threshold),
        address_word(NOBODY),
        uint_word(_SETUP_HEAD * 32 + len(array)),
        address_word(NOBODY),
        address_word(NOBODY),
        uint_word(0),
        address_word(NOBODY),
    ]
    return SETUP + encode_arguments(head) + array + uint_word(0)
