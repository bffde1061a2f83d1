"""A production signer from nothing: a ceremony by people at a terminal, the key test, two users, and a payment."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.devnet.files import part_directory
from signers.ceremony.session import read_ceremony
from signers.keys.keyset import BitcoinKeysetRecord
from tests.fakes.signer_daemon import BitcoinDaemon
from tests.integration.test_ceremony_terminal import Room
from tests.support.ceremonies import HOLDERS, WALLET, Site, run_key_command, signer_config

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


@pytest.fixture
def directory() -> Iterator[Path]:
    """Where other users reach it."""
    made = part_directory("strongroom-production-")
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def made_by_people(directory: Path) -> Site:
    """The site of a ceremony that has been held, and whose keys have passed their test."""
    site = Site(directory / "ceremony", WALLET, environment="production")
    plan = site.plan_object()
    for token in ("token", "proof_token"):
        del plan[token]["pin_file"]
    plan["holders"] = [{"name": name} for name in HOLDERS]
    site.write_plan(**plan)
    room = Room(site)
    session = room.hold()
    assert room.code == 0, session.shown
    config = signer_config(site, "production")
    run_key_command(["test", "--config", str(config), "--signatures", "1024"], site.token.env)
    return site


def test_a_production_signer_starts_signs_and_has_nothing_to_note_but_the_machine(directory: Path) -> None:
    site = made_by_people(directory)
    signed, _ = read_ceremony(site.directory, site.id)
    record = signed.record.keyset
    assert isinstance(record, BitcoinKeysetRecord)
    daemon = BitcoinDaemon(site.token, record, site.directory, directory / "daemon")
    daemon.belongs_to("games", "nobody")
    daemon.environment = "production"
    try:
        daemon.start()
        assert daemon.client.sign(daemon.request()).signatures
        assert not [note for note in daemon.client.status().notes if "swapped out" not in note]
        assert daemon.end() == 0
        proof = daemon.stores / f"{site.id}.proven.json"
        proof.rename(daemon.directory / "away")
        assert "no proven ceremony" in daemon.refuses_to_start()
    finally:
        daemon.close()
