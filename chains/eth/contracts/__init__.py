"""Our contracts: Solidity sources, and what they compile to, beside them as one JSON file each.

Nothing here needs a compiler: `artifact` reads what is committed, and a test rebuilds it and compares.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
"""The directory of the sources and artifacts."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """A compiled contract."""

    name: str
    abi: tuple[dict[str, Any], ...]
    """As the Solidity ABI specification has it."""
    bytecode: bytes
    """Init code without constructor arguments, which are appended in ABI encoding."""
    runtime: bytes
    """Code on the chain, with zeros in the places of immutables."""
    immutables: tuple[tuple[int, int], ...]
    """Places in `runtime` that the constructor fills: offset and length in bytes."""

    def is_code(self, code: bytes) -> bool:
        """Whether code found on a chain is this contract, whatever its immutables are.

        Immutables hold addresses and hashes that the contract itself tells; compare those too.
        """
        blank = bytearray(code)
        if len(blank) != len(self.runtime):
            return False
        for start, length in self.immutables:
            blank[start : start + length] = bytes(length)
        return bytes(blank) == self.runtime


def artifact(name: str, directory: Path = HERE) -> Artifact:
    """Reads a compiled contract.

    Args:
        name: of the contract, such as `ForwarderFactory`.
        directory: where `name.json` is.

    Raises:
        OSError, ValueError, KeyError: there is no such artifact, or it is damaged.
    """
    found = json.loads((directory / f"{name}.json").read_text(encoding="utf-8"))
    return Artifact(
        name=found["contract"],
        abi=tuple(found["abi"]),
        bytecode=bytes.fromhex(found["bytecode"].removeprefix("0x")),
        runtime=bytes.fromhex(found["runtime"].removeprefix("0x")),
        immutables=tuple((place["start"], place["length"]) for place in found["immutables"]),
    )
