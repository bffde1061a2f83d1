"""What is asked of screening, and what it answers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

_CASELESS: Final = re.compile(r"0x[0-9a-f]{40}|[0-9a-f]{64}(:.*)?|(bc|tb|bcrt)1[02-9ac-hj-np-z]{6,87}")


def normal(text: str) -> str:
    """How an address, txid or output is compared: hexadecimal (EIP-55 or not) and bech32 (BIP173) in lower case, all
    else (base58) letter by letter."""
    lower = text.lower()
    return lower if _CASELESS.fullmatch(lower) else text


@dataclass(frozen=True, slots=True)
class Subject:
    """What is asked about: a destination, or a deposit if it has a `txid`. Whose it is, nobody is told."""

    chain: str
    address: str
    """The destination; of a deposit, our address that was paid."""
    txid: str | None = None
    resource: str | None = None
    """A deposit's identity, see `chains.ports.Receipt`; `txid:vout` on BTC."""
    sources: tuple[str, ...] = ()
    """Addresses that a deposit came from, where they are known."""
    units: int = 0
    """What arrived, base units. It stays on this host."""

    def texts(self) -> tuple[str, ...]:
        """Everything that a list may name."""
        found = (self.address, self.txid, self.resource, *self.sources)
        return tuple(text for text in found if text is not None)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that speaks against a subject."""

    provider: str
    listed: str
    """Which of the subject's addresses, txid or output it is about, in its `normal` form."""
    reason: str
    source: str
    """Whose word it is, such as the name of a sanctions list."""
    version: str
    """Of the provider's list."""

    @property
    def what(self) -> tuple[str, str, str]:
        """Provider, text and reason: what a person has decided about. A newer version that says the same is no news."""
        return self.provider, self.listed, self.reason

    def describe(self) -> dict[str, str]:
        """As it is stored."""
        return {
            "provider": self.provider,
            "listed": self.listed,
            "reason": self.reason,
            "source": self.source,
            "version": self.version,
        }

    def __str__(self) -> str:
        told = f"{self.listed}: {self.reason}" if self.reason else self.listed
        return f"{told} ({self.source or self.provider}, version {self.version})"


@dataclass(frozen=True, slots=True)
class Word:
    """What one provider says of a subject, by which version of what it knows."""

    provider: str
    version: str
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What all providers say of a subject."""

    words: tuple[Word, ...]
    missing: tuple[tuple[str, str], ...] = ()
    """Providers that did not answer, and why."""

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All that speaks against it."""
        return tuple(finding for word in self.words for finding in word.findings)

    def why_missing(self) -> str:
        """A sentence about the providers that did not answer."""
        return "; ".join(f"{name}: {why}" for name, why in self.missing)

    def describe(self) -> list[dict[str, Any]]:
        """The verdicts as they are kept with a decision."""
        said = [
            {
                "provider": word.provider,
                "version": word.version,
                "verdict": "hit" if word.findings else "clear",
                **({"findings": [each.describe() for each in word.findings]} if word.findings else {}),
            }
            for word in self.words
        ]
        return said + [{"provider": name, "verdict": "unavailable", "why": why} for name, why in self.missing]
