"""Looking at a token before it is listed: what its code suggests, for people to decide. Pure.

Code can hide anything: what is found here is a hint, what is not found proves nothing. Safe is what follows from
observation whatever a token does (balance differences); this only spares surprises that are easy to foresee.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from chains.eth.abi import WORD_BYTES, selector

MAX_DECIMALS: Final = 36

IMPLEMENTATION_SLOT: Final = bytes.fromhex("360894a13ba1a3210667c828492db98dca3e2076cc3735a920a3ca505d382bbc")
"""Where upgradable proxies keep the address of their code (EIP-1967)."""

_CLONE: Final = (bytes.fromhex("363d3d373d3d3d363d73"), bytes.fromhex("5af43d82803e903d91602b57fd5bf3"))
"""What stands before and after the address in a minimal proxy (EIP-1167)."""

_TELLTALES: Final[Mapping[str, tuple[str, ...]]] = {
    "pausable": ("paused()", "pause()", "setPaused(bool)"),
    "blacklist": (
        "isBlacklisted(address)",
        "isBlackListed(address)",
        "blacklisted(address)",
        "blacklist(address)",
        "addBlackList(address)",
        "getBlackListStatus(address)",
        "isFrozen(address)",
        "freeze(address)",
    ),
    "fee-on-transfer": (
        "basisPointsRate()",
        "setParams(uint256,uint256)",
        "feeBps()",
        "transferFee()",
        "totalFees()",
        "isExcludedFromFee(address)",
        "excludeFromFee(address)",
        "reflectionFromToken(uint256,bool)",
    ),
    "rebasing": (
        "rebase(uint256)",
        "rebase(uint256,int256)",
        "sharesOf(address)",
        "getPooledEthByShares(uint256)",
        "scaledBalanceOf(address)",
        "creditsBalanceOf(address)",
    ),
}
"""Functions by which tokens of each trait are known."""

_PUSH4: Final = b"\x63"


@dataclass(frozen=True, slots=True)
class TokenFacts:
    """What a node says of a contract."""

    code: bytes
    implementation: bytes
    """Code behind a proxy; empty where none is known."""
    decimals: bytes | None
    """What `decimals()` returns; None if it fails."""
    balance: bytes | None
    """What `balanceOf` returns for anybody; None if it fails."""
    transfer: bytes | None
    """What a transfer of nothing would return; None if it fails."""


@dataclass(frozen=True, slots=True)
class TokenReport:
    """What to know before a token is listed."""

    decimals: int | None
    traits: tuple[str, ...]
    """Suggested, in the bundle's words; each with the function it is known by in `reasons`."""
    reasons: tuple[str, ...]
    obstacles: tuple[str, ...]
    """Why it cannot be listed; empty if nothing speaks against it."""


def assess(facts: TokenFacts) -> TokenReport:
    """Say what the facts suggest."""
    code = facts.code + facts.implementation
    traits: list[str] = []
    reasons: list[str] = []
    obstacles: list[str] = []
    for trait, signatures in _TELLTALES.items():
        known_by = [name for name in signatures if _PUSH4 + selector(name) in code]
        if known_by:
            traits.append(trait)
            reasons.append(f"{trait}: it has {known_by[0]}")
    if facts.transfer == b"":
        traits.append("no-return")
        reasons.append("no-return: a transfer returns nothing")
    if facts.implementation:
        reasons.append("its code can be changed, or is another contract's: look at who may do that")
    decimals = _small_number(facts.decimals)
    if not facts.code:
        obstacles.append("there is no contract at this address")
    elif decimals is None:
        obstacles.append(f"it does not tell its decimals, or more than {MAX_DECIMALS}")
    if facts.code and (facts.balance is None or len(facts.balance) != WORD_BYTES):
        obstacles.append("it does not tell balances")
    if "rebasing" in traits:
        obstacles.append("balances seem to change without transfers (rebasing)")
    return TokenReport(decimals, tuple(traits), tuple(reasons), tuple(obstacles))


def clone_target(code: bytes) -> bytes | None:
    """The contract (20 bytes) that a minimal proxy (EIP-1167) stands for; None for any other code."""
    before, after = _CLONE
    if len(code) == len(before) + 20 + len(after) and code.startswith(before) and code.endswith(after):
        return code[len(before) : len(before) + 20]
    return None


def _small_number(answer: bytes | None) -> int | None:
    if answer is None or len(answer) != WORD_BYTES:
        return None
    value = int.from_bytes(answer, "big")
    return value if value <= MAX_DECIMALS else None
