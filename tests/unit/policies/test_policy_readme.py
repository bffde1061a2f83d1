"""policies/README.md: every example is read as it stands there, and every word of the language is in it."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from custody.console.app import app
from custody.console.officers import publish
from custody.console.policy import policy_app
from custody.console.policy_proofs import prove_app
from ops.stack.quorum import APPROVER_ROLE
from policies.cases import judge_all
from policies.reading import RULE_KEYS, WHEN_KEYS, read_policy
from policies.reading_cases import CASE_KEYS, FACT_KEYS
from policies.rules import Operation
from tests.fakes.house import bundle

ROOT = Path(__file__).resolve().parents[3]
README = (ROOT / "policies" / "README.md").read_text()
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
HOUSE = bundle()
"""What the shipped file and most examples are about."""
TRIAL = msgspec.structs.replace(
    HOUSE,
    approvers=tuple(msgspec.structs.replace(each, roles=(APPROVER_ROLE,)) for each in HOUSE.approvers),
)
"""What the first ten lines are tried on: somebody has the role that approvers of `strongroom up` have."""


@pytest.mark.parametrize("text", EXAMPLES)
def test_every_example_is_read_and_its_cases_come_out(text: str) -> None:
    if text.startswith("- "):
        indented = "".join(f"  {line}" for line in text.splitlines(keepends=True))
        text = f"groups: {{operators: {{roles: [operator]}}}}\nrules:\n{indented}"
    house = TRIAL if text == EXAMPLES[0] else HOUSE
    policy = read_policy(text, house, file="example.yaml")
    assert policy.rules
    outcomes = judge_all(msgspec.structs.replace(house, policy=policy))
    assert [outcome.wrong for outcome in outcomes if outcome.wrong] == []


def test_there_are_examples_of_everything() -> None:
    assert len(EXAMPLES) >= 8
    together = "\n".join(EXAMPLES)
    for section in (
        "amounts:",
        "groups:",
        "addresses:",
        "rules:",
        "holdings:",
        "cases:",
        "unless:",
        "any:",
        "all:",
    ):
        assert section in together


@pytest.mark.parametrize("word", [*RULE_KEYS[3:], *WHEN_KEYS, *FACT_KEYS, *CASE_KEYS[1:], *Operation])
def test_every_word_of_the_language_is_explained(word: str) -> None:
    assert f"`{word}`" in README


def test_every_code_of_lint_is_explained() -> None:
    sources = [path.read_text() for path in (ROOT / "policies").glob("lint*.py")]
    codes = {code for source in sources for code in re.findall(r'Finding\(\s*"([a-z-]+)"', source)}
    assert len(codes) > 20
    assert {code for code in codes if f"`{code}`" not in README} == set()


def test_every_verb_and_option_that_it_names_is_there() -> None:
    assert {policy_app, prove_app} <= {
        group.typer_instance for root in (app, policy_app) for group in root.registered_groups
    }
    assert publish in {command.callback for command in policy_app.registered_commands}
    proofs = {command.name for command in prove_app.registered_commands}
    lines = re.findall(r"^strongroom ([a-z]+)(.*)$", README, re.MULTILINE)
    assert len(lines) > 8
    for first, rest in lines:
        words = rest.split()
        verbs = [first, *(words[:1] if first == "policy" else [])]
        verbs += [word for word in words[1:2] if verbs[-1] == "prove" and word in proofs]
        shown = CliRunner().invoke(app, [*verbs, "--help"], env={"COLUMNS": "200"})
        assert shown.exit_code == 0, verbs
        plain = re.sub(r"\x1b\[[0-9;]*m", "", shown.output)
        for option in re.findall(r"--[a-z]+(?:-[a-z]+)*", rest):
            assert option in plain, verbs
