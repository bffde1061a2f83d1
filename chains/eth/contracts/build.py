"""`python -m chains.eth.contracts.build --node NODE --solc SOLJSON DIRECTORY...`: compiles what lies there.

Each contract of `DIRECTORY/*.sol` becomes `DIRECTORY/<contract>.json`: same sources, same compiler, same bytes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from chains.eth.contracts import HERE

SETTINGS: Final[Mapping[str, Any]] = {
    # The oldest rules that every network of the family has had for years: no PUSH0, no transient storage.
    "evmVersion": "paris",
    "optimizer": {"enabled": True, "runs": 1_000_000},
    # Two per cent less gas for a flush.
    "viaIR": True,
    # Nothing after the code: what is on the chain follows from the sources alone, not from their paths.
    "metadata": {"appendCBOR": False, "bytecodeHash": "none"},
}
# `transfer` and `selfdestruct` are deprecated, and wallets outside use them all the same: our tests have such.
_TOLERATED: Final = frozenset({"5159", "9207"})
_OUTPUTS: Final = [
    "abi",
    "evm.bytecode.object",
    "evm.deployedBytecode.object",
    "evm.deployedBytecode.immutableReferences",
]


class CompilationFailed(Exception):
    """The compiler found an error or a warning; the message is the compiler's."""


def compiler_input(directory: Path) -> str:
    """The compiler's standard JSON input for all Solidity files of a directory, as explorers ask for it too."""
    sources = {
        path.name: {"content": path.read_text(encoding="utf-8")} for path in sorted(directory.glob("*.sol"))
    }
    settings = {**SETTINGS, "outputSelection": {"*": {"*": _OUTPUTS}}}
    return json.dumps({"language": "Solidity", "sources": sources, "settings": settings}, indent=1)


def compile_directory(directory: Path, *, node: Path, solc: Path) -> dict[str, str]:
    """Compiles all Solidity files of a directory, and writes nothing.

    Args:
        directory: holds the sources; they may import each other as `./Name.sol`.
        node: the program Node.js.
        solc: the compiler's WebAssembly build, `soljson.js`.

    Returns:
        The text of each artifact by the name of its file.

    Raises:
        CompilationFailed: an error or a warning.
        subprocess.CalledProcessError, OSError: the compiler could not run.
    """
    question = compiler_input(directory)
    done = subprocess.run(
        [node, HERE / "compile.js", solc], input=question, capture_output=True, text=True, check=True
    )
    answer = json.loads(done.stdout)
    errors = answer["output"].get("errors", [])
    complaints = [error["formattedMessage"] for error in errors if error["errorCode"] not in _TOLERATED]
    if complaints:
        raise CompilationFailed("\n".join(complaints))
    return {
        f"{name}.json": _artifact(name, source, contract, answer["version"])
        for source, contracts in answer["output"]["contracts"].items()
        for name, contract in contracts.items()
        if contract["evm"]["bytecode"]["object"]  # interfaces have none
    }


def _artifact(name: str, source: str, contract: Mapping[str, Any], version: str) -> str:
    runtime = contract["evm"]["deployedBytecode"]
    places = [place for places in runtime["immutableReferences"].values() for place in places]
    found = {
        "abi": contract["abi"],
        "bytecode": "0x" + contract["evm"]["bytecode"]["object"],
        "compiler": {"version": version, "settings": SETTINGS},
        "contract": name,
        "immutables": sorted(places, key=lambda place: int(place["start"])),
        "runtime": "0x" + runtime["object"],
        "source": source,
    }
    return json.dumps(found, indent=1, sort_keys=True) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Compiles the directories, replaces their artifacts, and returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m chains.eth.contracts.build", description=__doc__)
    parser.add_argument("--node", type=Path, help="the program Node.js")
    parser.add_argument("--solc", type=Path, help="soljson.js, the compiler as WebAssembly")
    parser.add_argument(
        "--print-input", action="store_true", help="print the compiler's input and do no more"
    )
    parser.add_argument("directories", type=Path, nargs="+", metavar="DIRECTORY")
    options = parser.parse_args(argv)
    if options.print_input:
        print("\n".join(map(compiler_input, options.directories)))
        return 0
    if options.node is None or options.solc is None:
        parser.error("--node and --solc are needed to compile")
    for directory in options.directories:
        try:
            artifacts = compile_directory(directory, node=options.node, solc=options.solc)
        except CompilationFailed as error:
            print(error, file=sys.stderr)
            return 1
        for stale in set(directory.glob("*.json")) - {directory / name for name in artifacts}:
            stale.unlink()
        for name, text in artifacts.items():
            (directory / name).write_text(text, encoding="utf-8")
        print(f"{directory}: {', '.join(sorted(artifacts))}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
