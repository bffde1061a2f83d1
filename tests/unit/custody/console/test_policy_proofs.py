"""`strongroom policy backtest|replay|prove` on files: what people see, what programs get, and how each verb ends."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from custody.console.policy import policy_app
from custody.console.policy_proofs import prove_app
from policies.backtest import Ended, describe
from policies.bundle import Bundle, SignedBundle
from policies.cases import facts_in
from policies.deciding import decide
from policies.decision import LimitKey
from policies.reading import read_policy
from policies.records import read, record
from policies.rules import Limit
from policies.windows import Windows
from tests.fakes.house import bundle

DEFAULT = Path(__file__).resolve().parents[4] / "policies" / "default.yaml"
RUNNER = CliRunner()
assert prove_app.info.no_args_is_help

OLD = """
rules:
  - {id: hot, when: {operation: withdrawal, destination: external, amount_below: 0.1 BTC}, route: hot}
  - {id: window, when: {tier: hot}, limit: {at_most: 1 BTC, within: 24h, per: customer}}
"""
STRICTER = OLD.replace("1 BTC, within", "0.1 BTC, within")


def with_policy(text: str) -> Bundle:
    return bundle(read_policy(text, bundle(), file="old.yaml"))


@pytest.fixture
def signed(tmp_path: Path) -> Path:
    path = tmp_path / "bundle.json"
    path.write_bytes(SignedBundle(bundle=with_policy(OLD), signatures=()).encode())
    return path


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """Four payments of one customer, decided under the old policy; the first is paid before the last is decided."""
    old = with_policy(OLD)
    windows, lines = Windows(old.policy), []
    for number in range(4):
        facts = replace(facts_in({"chain": "bitcoin", "asset": "BTC", "units": "5000000"}), id=f"w{number}")
        facts = replace(facts, now=facts.now + number)
        windows.move_to(facts.now)
        spent: dict[LimitKey, int] = {}

        def asked(key: LimitKey, limit: Limit, spent: dict[LimitKey, int] = spent) -> int:
            spent[key] = windows(key, limit)
            return spent[key]

        decision = decide(old, facts, asked)
        windows.let_through(facts.id, getattr(decision, "counts", ()))
        lines.append(record(old, facts, spent, decision))
    lines.insert(3, describe(Ended("w0", read(lines[2]).facts.now, "settled")))
    path = tmp_path / "history.jsonl"
    path.write_bytes(b"\n".join(msgspec.json.encode(line) for line in lines) + b"\n")
    return path


def run(*arguments: object) -> tuple[int, str]:
    done = RUNNER.invoke(policy_app, [str(each) for each in arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


def as_json(*arguments: object, code: int = 0) -> Any:
    done = RUNNER.invoke(policy_app, [*(str(each) for each in arguments), "--json"])
    assert done.exit_code == code, done.output
    return json.loads(done.stdout)


def written(directory: Path, text: str) -> Path:
    path = directory / "draft.yaml"
    path.write_text(text)
    return path


def test_the_same_policy_changes_nothing(signed: Path, history: Path) -> None:
    code, text = run("backtest", "--bundle", signed, "--history", history, "--unchanged")
    assert (code, text) == (0, "4 decisions, 0 would change\n")


def test_a_stricter_draft_shows_what_it_would_have_refused(
    signed: Path, history: Path, tmp_path: Path
) -> None:
    asked = ("backtest", "--bundle", signed, "--file", written(tmp_path, STRICTER), "--history", history)
    code, text = run(*asked)
    assert code == 0
    assert "was hot; becomes deny" in text
    assert "(rule window)" in text
    assert text.endswith("4 decisions, 2 would change: 2 hot -> deny\n")
    told = as_json(*asked, "--unchanged", code=1)
    assert (told["decisions"], told["changed"], told["moves"]) == (4, 2, {"hot -> deny": 2})
    assert [change["id"] for change in told["changes"]] == ["w2", "w3"]
    assert as_json(*asked) == told


def test_replay_confirms_records_and_finds_an_altered_one(signed: Path, history: Path) -> None:
    code, text = run("replay", "--bundle", signed, "--history", history)
    assert (code, text) == (0, "4 records decided again, 0 differ\n")
    lines = history.read_text().splitlines()
    lines[1] = lines[1].replace('"delay_seconds":0', '"delay_seconds":1')
    lines[2] = lines[2].replace('"bundle_version":7', '"bundle_version":8')
    history.write_text("\n".join(lines))
    told = as_json("replay", "--bundle", signed, "--history", history, code=1)
    assert (told["replayed"], told["no_bundle"]) == ({"7": 3}, {"8": 1})
    assert [each["id"] for each in told["different"]] == ["w1"]
    code, text = run("replay", "--history", history)
    assert code == 2
    assert "--bundle FILE" in text


def test_what_a_record_says_reaches_no_terminal_as_a_command(
    signed: Path, history: Path, tmp_path: Path
) -> None:
    history.write_text(history.read_text().replace('"w3"', '"w3\\u001b[2J"'))
    code, text = run(
        "backtest", "--bundle", signed, "--file", written(tmp_path, STRICTER), "--history", history
    )
    assert code == 0
    assert "w3\ufffd[2J" in text
    assert text.replace("\n", "").isprintable()


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (
            ("outflow", "--at-most", "1 BTC", "--within", "24h", "--of-one", "customer"),
            0,
            "proven: no more than 1",
        ),
        (("outflow", "--at-most", "1 BTC", "--within", "25h", "--of-one", "customer"), 1, "refuted: "),
        (("outflow", "--at-most", "5 BTC", "--within", "24h"), 1, "refuted: "),
        (("outflow", "--at-most", "1 BTC", "--within", "24h", "--tier", "cold"), 0, "no more than 0"),
        (("never", "amount_from: 0.1 BTC"), 0, "proven: no such withdrawal can ever be paid"),
        (("never", "destination_younger_than: 24h"), 1, "refuted: this one is paid from the hot tier"),
        (("approved", "--by", "1 people"), 1, "refuted: this one is paid when 0 people have approved"),
        (
            ("approved", "--by", "3 organisations", "--tier", "cold"),
            0,
            "proven: each is approved by at least 3",
        ),
        (("never", "amount_form: 0.1 BTC"), 2, "did you mean amount_from?"),
        (("never", "kyc_below: 1", "--tier", "ledger"), 2, "write hot, warm or cold"),
        (("approved", "--by", "three"), 2, "write '3 organisations' or '2 people'"),
        (("outflow", "--at-most", "3 payments", "--within", "24h"), 2, "write an amount or a value"),
        (("outflow", "--at-most", "3 BTC", "--within", "day"), 2, "is no duration"),
    ],
)
def test_questions_are_answered(signed: Path, arguments: tuple[str, ...], code: int, told: str) -> None:
    ended, text = run("prove", *arguments, "--bundle", signed)
    assert told in text
    assert ended == code, text


def test_programs_get_the_payments_that_show_the_contrary(signed: Path) -> None:
    told = as_json("prove", "outflow", "--at-most", "0.3 BTC", "--within", "1h", "--bundle", signed, code=1)
    assert told["outcome"] == "refuted"
    assert int(told["reached"]) > 30_000_000
    assert sum(int(step["facts"]["units"]) for step in told["steps"]) == int(told["reached"])
    assert {step["decision"]["outcome"] for step in told["steps"]} == {"route"}


SHIPPED = [
    ("never", "destination_younger_than: 24h, destination: external"),
    ("never", "kyc_below: 1, destination: external"),
    ("never", "screening: hit"),
    ("never", "lookalike: yes, destination: external"),
    ("approved", "--by", "3 organisations", "--tier", "cold"),
    ("approved", "--by", "2 people", "--tier", "warm", "--tier", "cold"),
    ("outflow", "--at-most", "5 BTC", "--within", "24h", "--tier", "hot"),
    ("outflow", "--at-most", "5 BTC", "--within", "24h", "--unapproved"),
    ("outflow", "--at-most", "1 BTC", "--within", "24h", "--unapproved", "--of-one", "customer"),
    ("outflow", "--at-most", "100 BTC", "--within", "24h", "--of-one", "customer"),
]


@pytest.mark.parametrize("question", SHIPPED, ids=" ".join)
def test_what_the_shipped_policy_promises_is_proven(signed: Path, question: tuple[str, ...]) -> None:
    code, text = run("prove", *question, "--bundle", signed, "--file", DEFAULT)
    assert text.startswith("proven: ")
    assert code == 0


def test_what_the_shipped_policy_does_not_promise_is_shown(signed: Path) -> None:
    question = ("prove", "outflow", "--at-most", "4.99 BTC", "--within", "24h", "--tier", "hot")
    told = as_json(*question, "--bundle", signed, "--file", DEFAULT, code=1)
    assert (told["outcome"], told["at_most"], told["reached"]) == ("refuted", "500000000", "499999950")
    code, text = run(
        "prove", "approved", "--by", "1 people", "--tier", "hot", "--bundle", signed, "--file", DEFAULT
    )
    assert code == 1
    assert "0 people have approved" in text


def test_what_is_neither_proven_nor_shown_ends_with_one_and_says_both_numbers(
    signed: Path, tmp_path: Path
) -> None:
    lumps = written(
        tmp_path,
        """
rules:
  - id: hot
    when: {operation: withdrawal, destination: external, amount_from: 0.00000007 BTC, amount_below: 0.00000008 BTC}
    route: hot
  - {id: window, when: {tier: hot}, limit: {at_most: 0.0000001 BTC, within: 24h, per: all}}
""",
    )
    question = ("prove", "outflow", "--at-most", "0.00000009 BTC", "--within", "24h", "--bundle", signed)
    code, text = run(*question, "--file", lumps)
    assert code == 1
    assert text.startswith("not proven: ")
    told = as_json(*question, "--file", lumps, code=1)
    assert (told["outcome"], told["at_most"], told["reached"]) == ("not-proven", "10", "7")


@pytest.mark.parametrize("verb", ["backtest", "replay"])
def test_a_history_that_cannot_be_read_is_named(signed: Path, tmp_path: Path, verb: str) -> None:
    code, text = run(verb, "--bundle", signed, "--history", tmp_path / "none.jsonl")
    assert code == 2
    assert "none.jsonl" in text
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"facts": 1}\n')
    code, text = run(verb, "--bundle", signed, "--history", broken)
    assert code == 2
    assert "line 1" in text
