"""The committed artifacts are what the committed sources compile to, byte for byte."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chains.eth.contracts import HERE
from chains.eth.contracts.build import CompilationFailed, compile_directory, main
from ops.devnet.tools import CHECKOUT, TOOLS
from tests.support.evm import TEST_CONTRACTS

NODE, SOLC = CHECKOUT / ".venv/bin/node", TOOLS / "solc/soljson.js"


@pytest.mark.parametrize("directory", [HERE, TEST_CONTRACTS], ids=["ours", "for tests"])
def test_building_again_gives_the_committed_artifacts_byte_for_byte(directory: Path) -> None:
    built = compile_directory(directory, node=NODE, solc=SOLC)
    assert built == {path.name: path.read_text(encoding="utf-8") for path in directory.glob("*.json")}


def test_a_directory_gets_its_artifacts_and_loses_stale_ones_and_again_changes_nothing(
    tmp_path: Path,
) -> None:
    (tmp_path / "One.sol").write_text(
        "// SPDX-License-Identifier: MIT\npragma solidity 0.8.37;\ncontract One { uint256 public n; }\n"
    )
    (tmp_path / "Gone.json").write_text("{}")
    argv = ["--node", str(NODE), "--solc", str(SOLC), str(tmp_path)]
    assert main(argv) == 0
    assert sorted(path.name for path in tmp_path.glob("*.json")) == ["One.json"]
    first = (tmp_path / "One.json").read_bytes()
    assert main(argv) == 0
    assert (tmp_path / "One.json").read_bytes() == first


def test_the_compilers_input_is_printed_for_explorers_and_compiles_to_the_artifacts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--print-input", str(HERE)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert sorted(printed["sources"]) == sorted(path.name for path in HERE.glob("*.sol"))
    compiled = json.loads((HERE / "ForwarderFactory.json").read_text())["compiler"]["settings"]
    assert {name: printed["settings"][name] for name in compiled} == compiled
    with pytest.raises(SystemExit):
        main([str(HERE)])


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("contract One { function f() external {", "Expected"),
        ("contract One { function f() external pure { uint256 n; } }", "Unused"),
    ],
    ids=["an error", "a warning"],
)
def test_what_the_compiler_complains_about_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], source: str, complaint: str
) -> None:
    (tmp_path / "One.sol").write_text(
        f"// SPDX-License-Identifier: MIT\npragma solidity 0.8.37;\n{source}\n", encoding="utf-8"
    )
    with pytest.raises(CompilationFailed, match=complaint):
        compile_directory(tmp_path, node=NODE, solc=SOLC)
    assert main(["--node", str(NODE), "--solc", str(SOLC), str(tmp_path)]) == 1
    assert complaint in capsys.readouterr().err
    assert list(tmp_path.glob("*.json")) == []
