"""`strongroom key status|freeze|bundle|clock`: officers and signers over their sockets, without anything online."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from policies.keys import SigningKey
from signers.cli.root import main
from signers.config import ListenSection
from signers.ports import SignerStatus
from tests.fakes.certificates import make_certificate
from tests.fakes.signer import Bench, SignerBench
from tests.fakes.signer_server import served
from tests.fakes.signing import SoftKeys, World


class SecondBench(SignerBench):
    """Another signer of the same quorum."""

    def __init__(self, directory: Path, officers: dict[str, SigningKey]) -> None:
        self.keys = SoftKeys.make()
        Bench.__init__(self, directory, World(self.keys.record, officers=officers))


class Office:
    """An officer's key, and two signers on Unix sockets, the first one over TLS too."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        places = [directory / name for name in ("first", "second")]
        for place in places:
            place.mkdir()
        self.first = SignerBench(places[0])
        self.second = SecondBench(places[1], self.first.world.officers)
        self.key = directory / "olga.pem"
        self.first.world.officers["olga"].save(self.key)
        self.who = ["--officer", "olga", "--key", str(self.key)]
        self.sockets = [str(directory / f"{name}.sock") for name in ("first", "second")]
        for path, bench in zip(self.sockets, (self.first, self.second), strict=True):
            stack.enter_context(served(bench.service, ListenSection(unix=path), officers=bench.desk))
        self.one = ["--signer", self.sockets[0]]
        self.both = [*self.one, "--signer", self.sockets[1]]
        server, client = make_certificate(directory, "signer"), make_certificate(directory, "officer")
        listen = ListenSection(
            host="127.0.0.1",
            port=0,
            certificate=str(server[0]),
            private_key=str(server[1]),
            clients=(str(client[0]),),
        )
        running = stack.enter_context(served(self.first.service, listen, officers=self.first.desk))
        self.tls = ["--signer", f"127.0.0.1:{running.address.rpartition(':')[2]}"]
        self.files = [
            *("--certificate", str(client[0]), "--private-key", str(client[1])),
            *("--signer-certificate", str(server[0])),
        ]

    def bundle(self, version: int, path: Path, **changes: Any) -> str:
        """The path of a bundle that suits the first signer."""
        world = self.first.world
        path.write_bytes(world.signed(world.bundle(version, **changes)).encode())
        return str(path)


@pytest.fixture
def office(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Office]:
    with ExitStack() as stack:
        made = Office(tmp_path, stack)
        monkeypatch.setattr("signers.cli.officer.time", SimpleNamespace(time=lambda: made.first.time))
        yield made
    for bench in (made.first, made.second):
        bench.journal.close()


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    code = main([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_status_tells_what_each_signer_says_of_itself(
    office: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    code, outcomes = run(capsys, "status", *office.both)
    assert code == 0
    assert [outcome["signer"] for outcome in outcomes] == office.sockets
    statuses = [msgspec.convert(outcome["status"], SignerStatus) for outcome in outcomes]
    assert statuses == [office.first.service.status(), office.second.service.status()]
    assert main(["status", *office.one]) == 0
    said = capsys.readouterr().out
    for line in ("bundle     version 1", "frozen     nothing", "time       runs", office.first.journal.id):
        assert line in said


def test_status_tells_what_waits_for_a_verifier_and_how_full_the_windows_are(
    office: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    office.first.signatures(office.first.request(1_000_000))
    office.first.time += 600
    assert main(["status", *office.one]) == 0
    said = capsys.readouterr().out
    assert "waits      btc-hot: 1 transactions, the oldest for 600 s; last word never" in said
    [use] = [use for use in office.first.service.status().windows if use.kind == "payments"]
    assert f"window     payments of hot|BTC: {use.units} of {use.cap} BTC, base units" in said
    office.first.resolve()
    office.first.time += 60
    assert main(["status", *office.one]) == 0
    assert "waits      btc-hot: 0 transactions; last word 60 s ago" in capsys.readouterr().out


def test_a_freeze_reaches_every_signer_and_again_changes_nothing(
    office: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        code, outcomes = run(capsys, "freeze", "wallet:btc-hot", *office.both, *office.who, "--reason", "odd")
        assert code == 0
        assert [outcome["status"]["frozen"] for outcome in outcomes] == [["wallet:btc-hot"]] * 2
    assert office.first.codes(office.first.request()) == {"frozen"}
    assert office.second.codes(office.second.request()) == {"frozen"}
    (freeze,) = office.first.journal.write(lambda book: book.freezes())
    assert (freeze.officer, freeze.reason, freeze.bundle_version) == ("olga", "odd", 1)
    assert main(["status", *office.one]) == 0
    assert "frozen     wallet:btc-hot" in capsys.readouterr().out


def test_a_freeze_may_outlast_the_bundle_that_is_on_its_way(
    office: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, "freeze", "all", *office.one, *office.who, "--bundle-version", "2")[0] == 0
    office.first.adopt(2)
    assert office.first.service.status().frozen == ("all",)


def test_a_bundle_is_handed_over_and_one_that_does_not_rise_is_refused(
    office: Office, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = office.bundle(2, tmp_path / "bundle.json")
    code, outcomes = run(capsys, "bundle", path, *office.one)
    assert (code, outcomes[0]["status"]["bundle_version"]) == (0, 2)
    older = office.bundle(1, tmp_path / "older.json")
    code, outcomes = run(capsys, "bundle", older, *office.one)
    assert (code, outcomes[0]["refused"][0]["code"]) == (1, "bundle-refused")
    assert main(["bundle", older, *office.one]) == 1
    assert "refused: bundle-refused: version 1 is older than 2" in capsys.readouterr().out


def test_officers_lift_a_freeze_by_the_next_bundle_with_nothing_but_these_commands(
    office: Office, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signers.cli.bundles.time", SimpleNamespace(time=lambda: office.first.time))
    assert run(capsys, "freeze", "all", *office.one, *office.who)[0] == 0
    present, draft = office.bundle(1, tmp_path / "bundle.json"), str(tmp_path / "draft.json")
    assert main(["draft", "--bundle", present, "--out", draft, "--days", "7"]) == 0
    assert main(["draft", "--bundle", present, "--out", draft]) == 2
    assert "File exists" in capsys.readouterr().err
    assert run(capsys, "bundle", draft, *office.one)[0] == 1  # nobody has signed it
    sign = ["sign", draft, "--present", present]
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert main([*sign, *office.who]) == 1
    assert "not signed" in capsys.readouterr().err
    for name, key in office.first.world.officers.items():
        if name != "olga":
            key.save(tmp_path / f"{name}.pem")
        assert main([*sign, "--officer", name, "--key", str(tmp_path / f"{name}.pem"), "--yes"]) == 0
    assert "lifts all freezes" in capsys.readouterr().out
    code, outcomes = run(capsys, "bundle", draft, *office.one)
    assert (code, outcomes[0]["status"]["frozen"]) == (0, [])


def test_the_clock_is_confirmed_for_each_signers_own_journal(
    office: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    for bench in (office.first, office.second):
        bench.jump(1000)
    code, outcomes = run(capsys, "status", *office.both)
    assert ["jumped 1000 s" in outcome["status"]["suspended"] for outcome in outcomes] == [True, True]
    code, outcomes = run(capsys, "clock", *office.both, *office.who)
    assert code == 0
    assert [outcome["status"]["suspended"] for outcome in outcomes] == ["", ""]


def test_signers_are_reached_over_tls_by_their_own_certificate(
    office: Office, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, outcomes = run(capsys, "freeze", "all", *office.tls, *office.files, *office.who)
    assert (code, outcomes[0]["status"]["frozen"]) == (0, ["all"])
    stranger = make_certificate(tmp_path, "stranger")
    code, outcomes = run(
        capsys, "status", *office.tls, *office.files[:4], "--signer-certificate", str(stranger[0])
    )
    assert (code, outcomes[0]["status"]) == (3, None)


def test_one_that_does_not_answer_keeps_nobody_from_the_others(
    office: Office, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    nobody = ["--signer", str(tmp_path / "nobody.sock")]
    code, outcomes = run(capsys, "freeze", "all", *nobody, *office.one, *office.who)
    assert code == 3
    assert [outcome["error"] is not None for outcome in outcomes] == [True, False]
    assert office.first.service.status().frozen == ("all",)
    assert main(["status", *nobody]) == 3
    assert "not available" in capsys.readouterr().out


def test_a_refusal_weighs_more_than_a_silence(
    office: Office, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    nobody = ["--signer", str(tmp_path / "nobody.sock")]
    stranger = tmp_path / "stranger.pem"
    SigningKey.generate().save(stranger)
    code, outcomes = run(
        capsys, "freeze", "all", *nobody, *office.one, "--officer", "olga", "--key", str(stranger)
    )
    assert (code, outcomes[1]["refused"][0]["code"]) == (1, "officer-signature")


def test_wrong_input_asks_nobody(office: Office, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text("{}")
    loose = tmp_path / "loose.pem"
    SigningKey.generate().save(loose)
    loose.chmod(0o644)
    for arguments, said in (
        (["freeze", "everything", *office.one, *office.who], "scope"),
        (["freeze", "all", *office.one, "--officer", "ol ga", "--key", str(office.key)], "officer"),
        (["freeze", "all", *office.one, "--officer", "olga", "--key", str(loose)], "chmod 600"),
        (["clock", *office.one, "--officer", "ol ga", "--key", str(office.key)], "officer"),
        (["clock", *office.one, "--officer", "olga", "--key", str(tmp_path / "none.pem")], "none.pem"),
        (["bundle", str(bad), *office.one], "signed bundle"),
        (["bundle", str(tmp_path / "none.json"), *office.one], "No such file"),
        (["status", "--signer", "localhost"], "HOST:PORT"),
        (["status", *office.tls], "--certificate"),
    ):
        assert main(arguments) == 2, arguments
        assert said in capsys.readouterr().err
    assert office.first.service.status().frozen == ()


def test_an_officer_lowers_a_number_at_all_signers_and_the_status_says_so(
    office: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    target = "cap:hot:BTC:payment_below"
    code, outcomes = run(capsys, "lower", target, "1000000", *office.both, *office.who, "--reason", "odd")
    assert code == 0
    assert [outcome["status"]["lowered"] for outcome in outcomes] == [[f"{target}=1000000"]] * 2
    assert office.first.codes(office.first.request(2_000_000)) == {"payment-cap"}
    assert main(["status", *office.one]) == 0
    assert f"lowered    {target}=1000000" in capsys.readouterr().out
    code, outcomes = run(capsys, "lower", target, "1000001", *office.one, *office.who)
    assert code == 1
    assert [reason["code"] for reason in outcomes[0]["refused"]] == ["lowering-refused"]


def test_an_officer_vetoes_a_bundle_that_waits_by_its_file_or_by_its_digest(
    office: Office, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = office.first.world
    office.first.desk.deliver(world.signed(world.bundle(2, veto_seconds=3600)))
    draft = office.bundle(3, tmp_path / "next.json")
    code, outcomes = run(capsys, "bundle", draft, *office.one)
    assert code == 0
    waiting = outcomes[0]["status"]["waiting"]
    assert waiting["acts_from"] == office.first.time + 3600
    assert main(["status", *office.one]) == 0
    assert (
        f"waiting    version 3, in force from 2027-01-15 09:00 UTC: {waiting['digest']}"
        in capsys.readouterr().out
    )
    code, outcomes = run(capsys, "veto", draft, *office.one, *office.who, "--reason", "not read by me")
    assert (code, outcomes[0]["status"]["waiting"]) == (0, None)
    code, outcomes = run(capsys, "veto", waiting["digest"], *office.one, *office.who)
    assert code == 0, "again changes nothing"
    code, outcomes = run(capsys, "bundle", draft, *office.one)
    assert code == 1
    assert "olga has vetoed it: not read by me" in outcomes[0]["refused"][0]["detail"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["lower", "cap:hot:BTC:payment_from", "1"], "target"),
        (["lower", "cap:hot:BTC:payment_below", "0.5"], "value"),
        (["veto", "no-such-file"], "No such file"),
    ],
)
def test_what_is_no_statement_is_found_before_a_signer_is_asked(
    office: Office, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    assert main([*arguments, *office.one, *office.who]) == 2
    assert told in capsys.readouterr().err
