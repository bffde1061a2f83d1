"""`strongroom cold` as an operator runs it: what is open, files out and back, and what is given up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from embit.psbt import PSBT

from chains.bbqr import FileType
from chains.pictures import read_series
from custody.console import cold
from custody.console.codes import film, fitting_version, frames, write_pictures
from custody.signing.cold import handing
from ops.devnet.bitcoind import Bitcoind
from tests.fakes.cold_desk import Desk
from tests.fakes.cold_till import COLD, ColdTill
from tests.fakes.teller import opened

VERBS = cold.cold_app
"""The app has its verbs because this is imported."""


@pytest.fixture
def desk(database: str, bitcoind: Bitcoind, tmp_path: Path) -> Iterator[Desk]:
    with opened(ColdTill(database, bitcoind, tmp_path)) as till:
        desk = Desk(till)
        till.customer("alice", 60_000_000)
        till.fund_vault(50_000_000, 50_000_000)
        yield desk


def test_an_operator_hands_a_request_out_and_brings_it_back(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paid, session = desk.till.asked()
    [row] = desk.json("list")
    assert (row["id"], row["wallet"], row["signed"], row["needed"]) == (str(session.id), COLD, [], "3 of 5")
    assert row["does"] == [f"0.10000000 BTC to {paid.destination}"]
    out, holders = tmp_path / "request.psbt", ("--holder", "ann", "--holder", "bob", "--holder", "eve")
    # Without a verifier nobody gets anything.
    assert desk.run("export", row["id"], *holders, "--out", str(out)).exit_code == 3
    assert not out.exists()
    assert desk.json("show", row["id"])["holders"] == []
    monkeypatch.setattr(handing, "check_covered", lambda *_: ())
    pictures = tmp_path / "codes"
    pictures.mkdir()
    told = desk.json("export", row["id"], *holders, "--out", str(out), "--png", str(pictures))
    assert told["holders"] == ["ann", "bob", "eve"]
    shown = read_series([Path(each) for each in told["pictures"]], lambda _: None)
    assert shown.data == out.read_bytes()
    again = desk.run("export", row["id"], *holders, "--out", str(out))
    assert (again.exit_code, "there already" in again.output) == (2, True)
    assert [each.partition(":")[0] for each in desk.json("show", row["id"])["holders"]] == [
        "ann",
        "bob",
        "eve",
    ]
    files = []
    for name in ("eve", "ann"):
        files.append(tmp_path / f"{name}.psbt")
        files[-1].write_bytes(desk.till.holders[name].sign(out.read_bytes()))
    files.append(tmp_path / "camera")
    files[-1].mkdir()
    write_pictures(FileType.PSBT, desk.till.holders["bob"].sign(out.read_bytes()), files[-1], "bob")
    taken = desk.json("import", *map(str, files))
    assert [each["kept"] for each in taken] == [["eve"], ["ann"], ["bob"]]
    assert (taken[-1]["state"], taken[-1]["node"]) == ("complete", None)
    assert desk.json("list") == []
    desk.till.settle_cold()
    assert desk.till.withdrawal(paid.id).state == "settled"
    actions = desk.till.query("SELECT action, outcome FROM operator_actions ORDER BY number")
    assert {"action": "cold-export", "outcome": "done"} in actions


def test_a_refused_signature_ends_with_exit_code_1_and_a_strange_file_too(desk: Desk, tmp_path: Path) -> None:
    _, session = desk.till.asked()
    [file] = desk.till.signed_by(session, "ann")
    psbt = PSBT.parse(file)
    [(key, good)] = psbt.inputs[0].partial_sigs.items()
    psbt.inputs[0].partial_sigs[key] = good[:40] + bytes([good[40] ^ 1]) + good[41:]
    bad, strange = tmp_path / "bad.psbt", tmp_path / "strange.psbt"
    bad.write_bytes(psbt.serialize())
    strange.write_bytes(b"psbt")
    [row] = desk.json("import", str(bad), code=1)
    assert (row["kept"], len(row["refused"])) == ([], 1)
    assert desk.run("import", str(strange)).exit_code == 2
    assert desk.till.kept() == []


def test_what_is_given_up_is_asked_for_anew_and_then_cancelled(desk: Desk) -> None:
    paid, session = desk.till.asked()
    desk.till.export(session, "ann")
    request, why = str(session.id), ("--reason", "ann is away")
    assert desk.json("abandon", request, *why)["outcome"] == "held"
    assert desk.json("list")[0]["may_confirm"]
    assert desk.json("rebuild", request, *why)["version"] == 2
    assert desk.run("rebuild", request, *why).exit_code == 1, "it is open"
    instead = desk.json("cancel", request, *why)["cancelled_by"]
    assert {each["kind"] for each in desk.json("list")} >= {"cancellation"}
    assert desk.till.withdrawal(paid.id).state == "signing"
    assert desk.json("unsigned", request, "--holder", "ann", *why)["outcome"] == "held"
    assert desk.run("show", instead).exit_code == 1, "a request, not a transaction, is shown"


def test_codes_fit_in_the_terminal_that_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    version = fitting_version(24, 80)
    shown = frames(FileType.PSBT, bytes(range(256)) * 2, version)
    assert len(shown) > 1
    assert all(len(frame.splitlines()) <= 24 for frame in shown)
    film(shown, 1, 0)
    assert f"part {len(shown)} of {len(shown)}" in capsys.readouterr().out
