"""A production ceremony by people at a terminal: typed confirmations, hidden passphrases, shares on the screen."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from policies.bundle import BitcoinVault
from policies.bundle.root import root_fingerprint
from signers.ceremony.proven import require_proven
from signers.ceremony.session import read_ceremony
from tests.support.airgap import Quorum
from tests.support.ceremonies import (
    COSIGNER,
    EVM_KEY,
    HOLDERS,
    OPERATORS,
    PASSPHRASES,
    WALLET,
    Site,
    labels,
    opened,
    opening,
    run_key_command,
    signer_config,
)
from tests.support.terminal import TerminalSession

Answer = Callable[[re.Match[str], str], str]


class Room:
    """The people: what each of them types when asked."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.papers: dict[str, list[str]] = {}
        """What each holder has written down."""
        self.absent = {HOLDERS[0]}
        self.answers: list[tuple[str, Answer]] = [
            (r'(\w+): type "([^"]+)" to confirm[^:]*: $', lambda found, _: found[2]),
            (r"(\w+): the passphrase of your key.*: $", lambda found, _: PASSPHRASES[found[1]]),
            (r"user PIN of token '(\w+)'.*: $", self._pin),
            (r"typed entropy .*: $", lambda _, __: "1 2 3 4 5 6"),
            (r"(\w+): press Enter when you alone see the screen\. $", lambda _, __: ""),
            (r"(\w+): press Enter when you have written down all 33 words\. $", self._write_down),
            (r"(\w+): the last word, from your paper.*: $", lambda found, _: self.papers[found[1]][-1]),
            (r"(\w+): your share, or the path[^\n]*\n.*share \(not shown\): $", self._give),
        ]

    def hold(self, command: str = "run") -> TerminalSession:
        self.arguments = ["ceremony", command, str(self.site.plan)]
        session = TerminalSession(
            [sys.executable, "-m", "signers.cli", *self.arguments], self.site.token.env, self.answers
        )
        self.code = session.run()
        return session

    def _pin(self, found: re.Match[str], _shown: str) -> str:
        return (self.site.token if found[1] == "main" else self.site.proof_token).user_pin()

    def _write_down(self, found: re.Match[str], shown: str) -> str:
        screen = shown.rsplit("\x1b[2J", 1)[-1]
        words = re.findall(r"^ *\d+\. (\w+)\s*$", screen, re.MULTILINE)
        assert len(words) == 33
        self.papers[found[1]] = words
        return ""

    def _give(self, found: re.Match[str], _shown: str) -> str:
        return "" if found[1] in self.absent else " ".join(self.papers[found[1]])


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path, EVM_KEY, environment="production")
    plan = site.plan_object()
    for token in ("token", "proof_token"):
        del plan[token]["pin_file"]
    plan["holders"] = [{"name": name} for name in HOLDERS]
    site.write_plan(**plan)
    return site


def test_two_people_at_a_terminal_make_a_key_set_that_production_opens(site: Site) -> None:
    room = Room(site)
    session = room.hold()
    assert room.code == 0, session.shown
    signed, proven = read_ceremony(site.directory, site.id)
    assert proven is not None
    # One holder did not come to the proof, so the other two have proven it.
    assert proven.proof.holders == HOLDERS[1:]
    require_proven(site.directory, signed.record.keyset)
    # A production signer also asks for the test of signatures; then it opens.
    assert "never tested" in opening(site, "production").stderr
    config = signer_config(site, "production")
    run_key_command(["test", "--config", str(config), "--signatures", "1024"], site.token.env)
    assert opened(site, "production")["record"]["address"] == signed.record.addresses[0].address
    proof = site.directory / f"{site.id}.proven.json"
    proof.rename(proof.with_suffix(".away"))
    assert "no proven ceremony" in opening(site, "production").stderr
    shown = session.shown
    for secret in (*PASSPHRASES.values(), site.token.user_pin(), "1 2 3 4 5 6"):
        assert secret not in shown
    for holder, words in room.papers.items():
        # Once on the screen, one word a line, and cleared away; not when it was given back.
        assert len(re.findall(rf"^ *33\. {words[-1]}", shown, re.MULTILINE)) == 1
        assert " ".join(words[:4]) not in shown
        assert f"Everybody but {holder} looks away." in shown


def test_the_wrong_word_or_code_confirms_nothing(site: Site) -> None:
    room = Room(site)
    room.answers[0] = (room.answers[0][0], lambda found, _: found[2][:-1] + "g")
    session = room.hold()
    assert room.code == 1
    assert f"{OPERATORS[0]} did not confirm the step 'plan'" in session.shown
    assert labels(site.token) == []


def test_a_holder_who_has_written_down_nothing_ends_the_ceremony(site: Site) -> None:
    room = Room(site)
    room.answers[6] = (room.answers[6][0], lambda _, __: "something else")
    session = room.hold()
    assert room.code == 1
    assert "anna has not written down the share" in session.shown
    assert "To do: destroy the share that anna has written down." in session.shown.replace("\r\n", "\n")
    assert labels(site.token) == []
    assert not any(site.directory.iterdir())


@pytest.mark.parametrize("prompt", [1, 2, 3, 6, 7])
def test_whoever_ends_the_input_at_any_prompt_has_everything_undone(site: Site, prompt: int) -> None:
    room = Room(site)
    room.answers[prompt] = (room.answers[prompt][0], lambda _, __: "\x04")
    session = room.hold()
    assert room.code == 1
    assert "Traceback" not in session.shown
    made = prompt == 7
    assert bool(labels(site.token)) == made
    assert not (site.directory / f"{site.id}.proven.json").exists()
    assert made or not site.directory.exists() or not any(site.directory.iterdir())


def test_without_a_terminal_nobody_is_there(tmp_path: Path) -> None:
    site = Site(tmp_path, WALLET, environment="production")
    done = run_key_command(["ceremony", "run", str(site.plan)], site.token.env, check=False)
    assert (done.returncode, "at a terminal" in done.stderr) == (2, True)


def test_an_operator_makes_a_key_of_his_own(tmp_path: Path) -> None:
    path = tmp_path / "olga.pem"
    answers: list[tuple[str, Answer]] = [
        (r"passphrase \(not shown\): $", lambda _, __: "a long passphrase"),
        (r"once more: $", lambda _, __: "a long passphrase"),
    ]
    command = [sys.executable, "-m", "signers.cli", "ceremony", "operator", str(path)]
    session = TerminalSession(command, {}, answers)
    assert session.run() == 0
    assert re.search(r"public key [0-9a-f]{64}", session.shown)
    assert b"ENCRYPTED" in path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    again = TerminalSession(command, {}, answers)
    assert again.run() == 1
    assert "nothing there is overwritten" in again.shown


def test_records_are_shown_and_entries_printed_for_the_bundle(tmp_path: Path) -> None:
    site, root = Site(tmp_path, WALLET), tmp_path / "root.json"
    quorum = Quorum().root
    root.write_bytes(msgspec.json.encode(quorum))
    site.write_plan(root=str(root))
    site.held_until("proof")
    where = [str(site.directory), site.id]
    shown = run_key_command(["ceremony", "show", *where], {}).stdout
    assert "NOT PROVEN" in shown
    # Who holds an offline key finds on this paper what `strongroom-airgap register` asks for.
    assert f"quorum         {root_fingerprint(quorum)}\n" in shown
    assert root_fingerprint(quorum) in run_key_command(["ceremony", "quorum", str(root)], {}).stdout
    assert run_key_command(["ceremony", "quorum", str(site.plan)], {}, check=False).returncode == 2
    site.held()
    shown = run_key_command(["ceremony", "show", *where], {}).stdout
    assert "restored from the shares of" in shown
    entry = run_key_command(["ceremony", "entry", *where, "--chain", "bitcoin"], {}).stdout
    assert site.record().record.public_key in entry
    assert '"pre-active"' in entry
    refused = run_key_command(["ceremony", "entry", *where], {}, check=False)
    assert (refused.returncode, "--chain" in refused.stderr) == (2, True)


def test_a_vault_s_entry_comes_from_the_records_of_its_members(tmp_path: Path) -> None:
    sites = [Site(tmp_path / name, {**COSIGNER, "member": name}) for name in ("warm-a", "warm-b")]
    for site in sites:
        site.held()
    directories = [str(site.backup) for site in sites]
    limits = ["--chain", "bitcoin", "--tier", "warm", "--threshold", "2"]
    done = run_key_command(["ceremony", "vault", str(COSIGNER["id"]), *directories, *limits], {})
    entry = msgspec.json.decode(done.stdout, type=BitcoinVault)
    assert [one.account for one in entry.cosigners] == [site.record().record.public_key for site in sites]
    assert len(done.stderr.splitlines()) == 6
    refused = run_key_command(
        ["ceremony", "vault", str(COSIGNER["id"]), directories[0], *limits], {}, check=False
    )
    assert refused.returncode == 2
