"""Every reason for a refusal is explained in signers/README.md, and some test expects it by its code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
MAKERS = {"NamedCall", "Reason", "Unreadable", "refusal", "_refused", "Reach"}
CODE = re.compile(r"[a-z]+(-[a-z]+)*")


def codes() -> set[str]:
    """Codes as the sources of the signer write them: texts of that form given to what makes reasons."""
    ours = (path for path in (ROOT / "signers").rglob("*.py") if "verifier" not in path.parts)
    sources = (*ours, ROOT / "policies" / "approvals.py", ROOT / "chains" / "eth" / "named_calls.py")
    of_policy = {c for c in _codes_in(ROOT / "policies" / "engine.py") if c.startswith("policy-")}
    return of_policy.union(*map(_codes_in, sources))


def _codes_in(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in MAKERS:
            texts = [one.value for one in node.args if isinstance(one, ast.Constant)]
            yield from (text for text in texts if isinstance(text, str) and CODE.fullmatch(text))


def test_the_codes_are_found() -> None:
    assert {"payment-cap", "unknown-call", "nonce", "change-index", "address-taken"} <= codes()
    assert len(codes()) > 40


def test_every_code_is_in_the_readme() -> None:
    readme = (ROOT / "signers" / "README.md").read_text()
    assert {code for code in codes() if f"`{code}`" not in readme} == set()


def test_every_code_is_expected_by_a_test() -> None:
    here = Path(__file__)
    sources = "".join(
        path.read_text() for path in (ROOT / "tests").rglob("test_*.py") if path.name != here.name
    )
    assert {code for code in codes() if not re.search(rf"""["']{code}["']""", sources)} == set()


def test_the_readme_names_no_code_that_does_not_exist() -> None:
    text = (ROOT / "signers" / "README.md").read_text()
    named: set[str] = set()
    for table in text.split("\n\n"):
        header, *rows = table.splitlines() or [""]
        if header.startswith("| codes |"):
            named |= {
                code for row in rows for code in re.findall(r"`([a-z]+(?:-[a-z]+)*)`", row.split("|")[1])
            }
    assert len(named) > 40
    assert named - codes() == set()
