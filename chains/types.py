"""Values that every chain shares. Each is valid by construction: what exists is checked.

Amounts are integers in base units (satoshi, wei, token units). Decimals exist at the edges only:
`Amount.parse` reads a decimal string, `Amount.decimal` writes one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from chains.errors import AssetMismatch, InvalidValue

MAX_UNITS: Final = 10**78 - 1
"""Largest magnitude that the database column NUMERIC(78,0) holds; above 2**256."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_DECIMAL: Final = re.compile(r"(0|[1-9][0-9]{0,77})(?:\.([0-9]{1,36}))?")


def _match(pattern: re.Pattern[str], value: object) -> re.Match[str] | None:
    """The whole value against the pattern; None also where a caller ignored the types and passed no text."""
    return pattern.fullmatch(value) if isinstance(value, str) else None


@dataclass(frozen=True, slots=True)
class Asset:
    """One asset on one chain. Two assets are the same only if all fields are.

    Raises:
        InvalidValue: a name is empty or malformed, or `decimals` is outside 0..36.
    """

    id: str
    """Unique among all assets of a bundle, e.g. `BTC`; 1 to 32 of `A-Za-z0-9._-`."""
    chain: str
    """Id of the network in the bundle, e.g. `bitcoin` or `bitcoin-regtest`."""
    decimals: int
    """Base units per whole unit are 10**decimals (8 for BTC)."""

    def __post_init__(self) -> None:
        for name, value in (("asset id", self.id), ("chain id", self.chain)):
            if _match(_NAME, value) is None:
                raise InvalidValue(f"{name} {value!r}: expected 1 to 32 of A-Za-z0-9._-")
        if type(self.decimals) is not int or not 0 <= self.decimals <= 36:
            raise InvalidValue(f"decimals {self.decimals!r}: expected an integer 0 to 36")

    def decimal(self, units: int) -> str:
        """Any number of base units as an exact decimal, all places written: `0.00050000`; sign only when negative."""
        digits = str(abs(units)).rjust(self.decimals + 1, "0")
        cut = len(digits) - self.decimals
        text = digits[:cut] + ("." + digits[cut:] if self.decimals else "")
        return ("-" if units < 0 else "") + text

    def told(self, units: int) -> str:
        """Any number of base units as people read it: `0.00050000 BTC`."""
        return f"{self.decimal(units)} {self.id}"


@dataclass(frozen=True, slots=True, order=False)
class Amount:
    """A signed number of base units of one asset.

    Raises:
        InvalidValue: `units` is not an int (bool counts as not), or beyond NUMERIC(78,0).
    """

    asset: Asset
    units: int

    def __post_init__(self) -> None:
        if type(self.units) is not int:
            raise InvalidValue(f"units {self.units!r}: expected an integer number of base units")
        if abs(self.units) > MAX_UNITS:
            raise InvalidValue("units: more than 78 digits")

    @classmethod
    def parse(cls, asset: Asset, text: str) -> Amount:
        """Read a non-negative decimal string such as `0.0005`, exactly.

        Raises:
            InvalidValue: not a plain decimal number (no sign, exponent, blanks, NaN), or finer than the asset.
        """
        match = _match(_DECIMAL, text)
        if match is None:
            raise InvalidValue(f"amount {str(text)[:40]!r}: expected a plain decimal such as 0.25")
        whole, fraction = match.group(1), match.group(2) or ""
        if len(fraction) > asset.decimals:
            raise InvalidValue(
                f"amount {text!r}: {len(fraction)} decimal places, {asset.id} has {asset.decimals}"
            )
        return cls(asset, int(whole + fraction.ljust(asset.decimals, "0")))

    def decimal(self) -> str:
        """The exact decimal string, all places written: `0.00050000`; sign only when negative."""
        return self.asset.decimal(self.units)

    def __str__(self) -> str:
        return self.asset.told(self.units)

    def _same(self, other: object) -> int:
        if not isinstance(other, Amount) or other.asset != self.asset:
            raise AssetMismatch(f"{self.asset.id} combined with {getattr(other, 'asset', other)!r}")
        return other.units

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.asset, self.units + self._same(other))

    def __sub__(self, other: Amount) -> Amount:
        return Amount(self.asset, self.units - self._same(other))

    def __neg__(self) -> Amount:
        return Amount(self.asset, -self.units)

    def __lt__(self, other: Amount) -> bool:
        return self.units < self._same(other)

    def __le__(self, other: Amount) -> bool:
        return self.units <= self._same(other)

    def __gt__(self, other: Amount) -> bool:
        return self.units > self._same(other)

    def __ge__(self, other: Amount) -> bool:
        return self.units >= self._same(other)


def check_hash(text: str, *, what: str) -> str:
    """Return `text` if it is 64 lower-case hex digits (32 bytes, in the order people read).

    Raises:
        InvalidValue: it is not.
    """
    if _match(_HASH, text) is None:
        raise InvalidValue(f"{what} {str(text)[:80]!r}: expected 64 lower-case hex digits")
    return text


@dataclass(frozen=True, slots=True)
class TxId:
    """A transaction id as people and RPC write it: 64 lower-case hex digits (32 bytes).

    Raises:
        InvalidValue: malformed.
    """

    hex: str

    def __post_init__(self) -> None:
        check_hash(self.hex, what="txid")

    def __str__(self) -> str:
        return self.hex


@dataclass(frozen=True, slots=True)
class BlockRef:
    """A block named by height and hash (64 lower-case hex digits). Chain data never travels without one.

    Raises:
        InvalidValue: negative height or malformed hash.
    """

    height: int
    hash: str

    def __post_init__(self) -> None:
        if type(self.height) is not int or self.height < 0:
            raise InvalidValue(f"height {self.height!r}: expected an integer from 0")
        check_hash(self.hash, what="block hash")

    def __str__(self) -> str:
        return f"{self.height}:{self.hash}"


@dataclass(frozen=True, slots=True)
class Address:
    """An address of one network: the text people see, and the script (BTC) or 20 bytes (EVM) that chain data has.

    Made only by an adapter's `parse_address`, which checks network and checksum.
    """

    chain: str
    text: str
    """Canonical form: bech32 in lower case, EVM addresses with EIP-55 checksum."""
    script: bytes
    """scriptPubKey on BTC (22 to 34 bytes for the standard types); the 20 address bytes on EVM chains."""
    kind: str
    """`p2pkh`, `p2sh`, `p2wpkh`, `p2wsh`, `p2tr` on BTC; `evm` on EVM chains."""

    def __str__(self) -> str:
        return self.text
