"""Whom the verifier believes: a pinned quorum, versions that only rise, and what was in force before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from policies.bundle import UntrustedBundle
from policies.keys import SigningKey, sign_veto
from policies.statements import Veto
from signers.errors import BadConfiguration
from signers.verifier.bundles import Bundles
from signers.verifier.state import State
from tests.fakes.signing import NOW, SoftKeys, World


class Installation:
    """A quorum's files, and the verifier's state beside them."""

    def __init__(self, directory: Path) -> None:
        self.world = World(SoftKeys.make().record, now=NOW)
        self.root, self.bundle = directory / "root.json", directory / "bundle.json"
        self.root.write_bytes(msgspec.json.encode(self.world.root))
        self.state = State(directory / "state.sqlite")
        self.now = NOW
        self.publish(1)

    def publish(self, version: int, **changes: object) -> None:
        self.bundle.write_bytes(self.world.signed(self.world.bundle(version, **changes)).encode())

    def open(self) -> Bundles:
        return Bundles(self.state, self.root, self.bundle, lambda: self.now)


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    made = Installation(tmp_path)
    yield made
    made.state.close()


def refreshed(bundles: Bundles) -> list[str]:
    troubles: list[str] = []
    bundles.refresh(troubles.append)
    return troubles


def test_versions_only_rise_also_over_restarts_and_without_the_file(installation: Installation) -> None:
    bundles = installation.open()
    installation.publish(3)
    assert refreshed(bundles) == []
    assert bundles.present().version == 3
    installation.publish(2)
    [trouble] = refreshed(bundles)
    assert "older than 3" in trouble
    assert installation.open().present().version == 3
    installation.bundle.unlink()
    assert installation.open().present().version == 3


def test_another_bundle_of_a_version_that_was_adopted_is_not_taken(installation: Installation) -> None:
    bundles = installation.open()
    installation.publish(1, longest_order_seconds=5)
    [trouble] = refreshed(bundles)
    assert "another bundle of version 1" in trouble
    assert bundles.present().longest_order_seconds != 5


def test_a_bundle_without_its_quorum_is_not_taken(installation: Installation) -> None:
    signed = installation.world.signed(installation.world.bundle(2), ("olga",))
    installation.bundle.write_bytes(signed.encode())
    with pytest.raises(UntrustedBundle):
        installation.open()


def test_the_quorum_is_pinned_at_the_first_start(installation: Installation) -> None:
    installation.open()
    other = msgspec.structs.replace(installation.world.root, threshold=1)
    installation.root.write_bytes(msgspec.json.encode(other))
    with pytest.raises(BadConfiguration, match="another trust root"):
        installation.open()


def test_callers_and_fees_of_the_past_are_still_known(installation: Installation) -> None:
    bundles = installation.open()
    world = installation.world
    asset = world.bundle().assets[0]
    installation.publish(
        2,
        callers=(),
        assets=(msgspec.structs.replace(asset, withdrawal_fee=str(2 * int(asset.withdrawal_fee))),),
    )
    assert refreshed(bundles) == []
    for known in (bundles, installation.open()):
        assert known.present().callers == ()
        assert known.caller_keys("exchange") == {world.caller.public_hex}
        assert known.caller_keys("reader") == frozenset()
        assert known.lowest_fee("BTC") == int(asset.withdrawal_fee)


def test_a_new_bundle_waits_also_over_a_restart_unless_all_officers_have_signed_it(
    installation: Installation,
) -> None:
    installation.publish(2, veto_seconds=3600)
    bundles = installation.open()
    assert bundles.present().version == 2, "the first one waits for nothing"
    installation.publish(3)
    assert refreshed(bundles) == []
    assert bundles.present().version == 2
    installation.now += 3599
    bundles = installation.open()
    assert refreshed(bundles) == []
    assert bundles.present().version == 2
    installation.now += 1
    assert refreshed(bundles) == []
    assert bundles.present().version == 3
    everybody = ("olga", "felix", "sanna")
    signed = installation.world.signed(installation.world.bundle(4, in_force_from=NOW + 9_000), everybody)
    installation.bundle.write_bytes(signed.encode())
    assert refreshed(bundles) == []
    assert bundles.present().version == 4


@pytest.mark.parametrize("officer", ["sanna", "mallory", "forged"])
def test_it_hears_of_vetoes_by_the_signers_logs_and_believes_officers_only(
    installation: Installation, officer: str
) -> None:
    installation.publish(2, veto_seconds=3600)
    bundles, world = installation.open(), installation.world
    installation.publish(3)
    refreshed(bundles)
    veto = Veto(
        v=1,
        officer="sanna" if officer == "forged" else officer,
        bundle=world.bundle(3).digest_hex(),
        reason="odd",
        issued_at=NOW,
    )
    key = world.officers["sanna"] if officer == "sanna" else SigningKey.generate()
    installation.state.write(
        "INSERT INTO logs VALUES ('hot', 1, ?, 'veto', ?, 'ab')",
        NOW,
        msgspec.json.encode(sign_veto(veto, key)),
    )
    installation.now += 3600
    troubles = refreshed(bundles)
    assert bundles.present().version == (2 if officer == "sanna" else 3)
    assert any("sanna has vetoed it: odd" in trouble for trouble in troubles) is (officer == "sanna")
    assert installation.open().present().version == bundles.present().version
