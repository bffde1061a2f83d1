"""What a command prints: whole ids, every problem once."""

from __future__ import annotations

import pytest
import typer

from custody.console.outcome import Form, Output, outcome
from custody.web.client import ApiRefused

ID = "01a1fe27-0579-79ce-8f85-d31b7d647016"


def test_ids_of_a_list_are_whole_however_narrow_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    rows = [{"id": ID, "state": "broadcast", "reason": "a reason " * 20, "confirmed_txid": "ab" * 32}]
    Output(Form.PEOPLE).many(rows, ("id", "state", "reason", "confirmed_txid"), none="-")
    shown = capsys.readouterr().out
    assert ID in shown
    assert "…" not in shown


def test_what_fits_no_terminal_is_shown_entry_by_entry_with_every_id_amount_and_txid_in_one_piece(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    txid, amount, state = "ab" * 32, "1234.000000000000000001", "broadcast"
    rows = [{"id": ID, "asset": "ETH", "amount": amount, "state": state, "txid": txid}] * 2
    Output(Form.PEOPLE).many(iter(rows), ("id", "asset", "amount", "state", "txid"), none="-")
    shown = capsys.readouterr().out
    assert [shown.count(each) for each in (ID, "ETH", amount, state, txid)] == [2] * 5


def test_a_list_whose_words_fit_stays_a_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    Output(Form.PEOPLE).many([{"id": ID, "reason": "a reason " * 20}] * 2, ("id", "reason"), none="-")
    shown = capsys.readouterr().out
    assert (shown.count("reason"), shown.count(ID)) == (1 + 2 * 20, 2), "a heading for both"


def test_words_of_others_are_never_read_as_markup(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"reason": "[red]strange[/red] [/]"}
    Output(Form.PEOPLE).one(value, ("reason",))
    Output(Form.PEOPLE).many([value], ("reason",), none="-")
    assert capsys.readouterr().out.count("[red]strange[/red] [/]") == 2


def test_an_empty_list_in_an_object_shows_as_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    Output(Form.PEOPLE).one({"txids": []}, ("txids",))
    assert capsys.readouterr().out.split() == ["txids", "-"]


def test_a_wrong_field_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    problem = {
        "title": "A field is wrong",
        "detail": "id: too long.",
        "errors": [{"field": "id", "message": "too long"}],
    }
    with pytest.raises(typer.Exit) as end, outcome(Output(Form.PEOPLE)):
        raise ApiRefused(400, problem)
    assert end.value.exit_code == 2
    assert capsys.readouterr().err.count("too long") == 1
