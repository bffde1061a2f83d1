"""`strongroom policy` on files: what people see, what programs get, and how each verb ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from custody.console.policy import policy_app
from policies.bundle import SignedBundle
from policies.reading import read_policy
from policies.rules import Policy
from tests.fakes.house import bundle

DEFAULT = Path(__file__).resolve().parents[4] / "policies" / "default.yaml"
RUNNER = CliRunner()


@pytest.fixture
def signed(tmp_path: Path) -> Path:
    """A bundle whose policy lets nothing but small amounts of bitcoin through."""
    house = bundle()
    policy = read_policy(
        "rules:\n  - {id: hot, when: {operation: withdrawal, amount_below: 0.1 BTC}, route: hot}\n"
        "  - {id: window, when: {tier: hot}, limit: {at_most: 1 BTC, within: 24h, per: customer}}\n",
        house,
        file="old.yaml",
    )
    path = tmp_path / "bundle.json"
    path.write_bytes(SignedBundle(bundle=bundle(policy), signatures=()).encode())
    return path


def run(*arguments: object) -> tuple[int, str]:
    done = RUNNER.invoke(policy_app, [str(each) for each in arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


def as_json(*arguments: object, code: int = 0) -> Any:
    ended, text = run(*arguments, "--json")
    assert ended == code, text
    return json.loads(text)


def written(directory: Path, text: str) -> Path:
    path = directory / "policy.yaml"
    path.write_text(text)
    return path


def test_the_shipped_file_is_printed_to_begin_from() -> None:
    assert run("default") == (0, DEFAULT.read_text())


def test_show_tells_the_policy_in_words_and_as_it_is(signed: Path) -> None:
    code, text = run("show", "--bundle", signed)
    assert code == 0
    assert "  hot: Withdrawals below 0.1 BTC are paid from hot.\n" in text
    told = as_json("show", "--bundle", signed)
    assert told["sentences"]["hot"] == "Withdrawals below 0.1 BTC are paid from hot."
    assert len(msgspec.convert(told["policy"], Policy).rules) == 2


def test_a_policy_whose_file_is_lost_is_written_anew(signed: Path, tmp_path: Path) -> None:
    code, text = run("show", "--bundle", signed, "--yaml")
    assert code == 0
    present = msgspec.json.decode(signed.read_bytes(), type=SignedBundle).bundle
    assert read_policy(text, present, file="anew.yaml") == present.policy


def test_the_bundle_may_be_named_once_by_a_variable(signed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRONGROOM_BUNDLE_PATH", str(signed))
    assert run("show")[0] == 0


def test_explain_says_what_fits_what_does_not_and_what_is_left(signed: Path) -> None:
    asked = ("explain", "--bundle", signed, "--given", "amount: 0.05 BTC", "--spent", "window: 0.99 BTC")
    code, text = run(*asked)
    assert code == 0
    assert text.startswith("Denied:\n  limit: ")
    assert (
        "  window: 0.99 BTC of 1 BTC of customer are used, 0.01 BTC are left; 0.05 BTC is too much\n" in text
    )
    told = as_json(*asked)
    assert told["decision"]["outcome"] == "deny"
    assert [(rule["rule"], rule["fits"]) for rule in told["rules"]] == [("hot", "fits"), ("window", "fits")]
    assert told["windows"][0] | {"says": ""} == {
        "rule": "window",
        "bucket": "customer",
        "measure": "units",
        "at_most": "100000000",
        "spent": "99000000",
        "adds": "5000000",
        "left": "1000000",
        "says": "",
    }


def test_explain_of_the_shipped_policy_names_the_fact_that_nobody_knows(signed: Path) -> None:
    code, text = run(
        "explain", "--bundle", signed, "--file", DEFAULT, "--given", "{amount: 1 BTC, new_device: unknown}"
    )
    assert code == 0
    assert "Rules that nobody can judge\n  new-device: " in text
    assert "Nobody knows the new device." in text
    assert "rules about other operations, chains and assets.\n" in text


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "name a withdrawal, or facts with --given, and not both"),
        (("--given", "amount: 1 BCT"), "given:1:10: '1 BCT': 'BCT' is neither an asset"),
        (("--given", "amount: 1 BTC", "--spent", "hot: 1 BTC"), "no rule hot has a limit"),
        (("--given", "amont: 1 BTC"), "`given` has no `amont` (did you mean amount?)"),
    ],
)
def test_explain_asks_for_what_is_missing(signed: Path, arguments: tuple[str, ...], told: str) -> None:
    code, text = run("explain", "--bundle", signed, *arguments)
    assert code == 2
    assert told in text


def test_cases_that_fail_end_with_one_and_say_what_the_policy_answers(signed: Path, tmp_path: Path) -> None:
    rules = "rules: [{id: hot, when: {operation: withdrawal}, route: hot}]\n"
    good = written(tmp_path, rules + "cases: [{id: a, given: {amount: 1 BTC}, expect: hot}]")
    assert run("test", "--bundle", signed, "--file", good) == (0, "1 of 1 cases are as expected\n")
    bad = written(tmp_path, rules + "cases: [{id: a, given: {amount: 1 BTC}, expect: warm, because: hot}]")
    code, text = run("test", "--bundle", signed, "--file", bad)
    assert code == 1
    assert text == (
        "a: expected warm, the policy says hot: allowed: from hot (rule hot)\n0 of 1 cases are as expected\n"
    )
    [told] = as_json("test", "--bundle", signed, "--file", bad, code=1)
    assert (told["case"], told["expected"], told["answer"], told["ok"]) == ("a", "warm", "hot", False)


def test_lint_ends_with_one_for_an_error_and_for_a_warning_where_it_is_strict(
    signed: Path, tmp_path: Path
) -> None:
    assert run("lint", "--bundle", signed, "--file", DEFAULT, "--strict")[0] == 0
    assert run("lint", "--bundle", signed)[0] == 0
    assert run("lint", "--bundle", signed, "--strict")[0] == 1
    bad = written(tmp_path, "rules: [{id: cold, when: {operation: withdrawal}, route: cold}]")
    code, text = run("lint", "--bundle", signed, "--file", bad)
    assert code == 1
    assert (
        "error: cold: signers of cold sign nothing that nobody approves: add `approvals` [nobody-asked]"
        in text
    )
    found = as_json("lint", "--bundle", signed, "--file", bad, code=1)
    assert {"code": "nobody-asked", "rule": "cold", "severity": "error"}.items() <= found[0].items()


def test_a_file_with_mistakes_ends_with_two_and_gives_programs_their_places(
    signed: Path, tmp_path: Path
) -> None:
    bad = written(tmp_path, "rules:\n  - {id: a, rout: hot}\n  - {id: b, delay: 1}\n")
    for verb in ("show", "test", "lint"):
        code, text = run(verb, "--bundle", signed, "--file", bad)
        assert code == 2
        assert (
            f"{bad}:2:13: a rule has no `rout` (did you mean route?)\n{bad}:3:20: '1' is no duration" in text
        )
    told = as_json("lint", "--bundle", signed, "--file", bad, code=2)
    assert [(each["line"], each["column"]) for each in told["mistakes"]] == [(2, 13), (3, 20)]


def test_draft_writes_the_next_bundle_with_the_policy_and_says_what_changes(
    signed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "next.json"
    told = as_json("draft", "--bundle", signed, "--file", DEFAULT, "--out", out)
    drafted = msgspec.json.decode(out.read_bytes(), type=SignedBundle)
    present = msgspec.json.decode(signed.read_bytes(), type=SignedBundle).bundle
    assert (drafted.bundle.version, told["version"], drafted.signatures) == (present.version + 1, 8, ())
    assert told["digest"] == drafted.bundle.digest_hex()
    assert drafted.bundle.policy == read_policy(DEFAULT.read_text(), present, file="default.yaml")
    kept = msgspec.structs.replace(
        drafted.bundle,
        version=present.version,
        issued_at=present.issued_at,
        expires_at=present.expires_at,
        policy=present.policy,
    )
    assert kept == present
    assert any("new-destination" in change for change in told["changes"])
    code, text = run("draft", "--bundle", signed, "--file", DEFAULT, "--out", out)
    assert code == 2
    assert "name a file that is not there yet" in text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("rules: [{id: cold, when: {operation: withdrawal}, route: cold}]", "error: cold: signers of cold"),
        (
            (
                "rules: [{id: hot, when: {operation: withdrawal}, route: hot}]\n"
                "cases: [{id: c, given: {amount: 1 BTC}, expect: deny}]"
            ),
            "case c: expected deny, the policy says hot",
        ),
        ("rules: [{id: hot}]", "the rule does nothing"),
    ],
)
def test_nothing_is_drafted_that_fails_its_cases_or_lint(
    signed: Path, tmp_path: Path, text: str, told: str
) -> None:
    out = tmp_path / "next.json"
    code, shown = run("draft", "--bundle", signed, "--file", written(tmp_path, text), "--out", out)
    assert code == 2
    assert told in shown
    assert not out.exists()
