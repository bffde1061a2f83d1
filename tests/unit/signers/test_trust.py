"""A signer believes only what its pinned quorum signed, and never anything older than before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from chains.errors import InvalidValue
from policies.bundle import Bundle, SignedBundle, UntrustedBundle
from policies.keys import SigningKey, sign_bundle
from signers.errors import BadConfiguration, ClockUnsteady
from signers.trust.trust import FRESH_SECONDS, pin
from tests.fakes.signer import SignerBench
from tests.fakes.signing import DAY


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[SignerBench]:
    made = SignerBench(tmp_path)
    yield made
    made.journal.close()


class Unpublished(SignerBench):
    """Without a bundle."""

    def publish(self, bundle: Bundle) -> None:
        pass


class SignedByOne(SignerBench):
    """With a bundle that one of the two officers needed has signed."""

    def publish(self, bundle: Bundle) -> None:
        (self.directory / "bundle.json").write_bytes(self.world.signed(bundle, ["olga"]).encode())


def offer(bench: SignerBench, signed: SignedBundle) -> list[str]:
    """Put a bundle where the signer looks; returns why it was not adopted."""
    troubles: list[str] = []
    (bench.directory / "bundle.json").write_bytes(signed.encode())
    bench.trust.refresh(troubles.append)
    return troubles


def test_a_higher_version_of_the_quorum_is_adopted(bench: SignerBench) -> None:
    assert offer(bench, bench.world.signed(bench.world.bundle(2))) == []
    assert bench.trust.present.version == 2


def test_looking_again_at_the_same_file_changes_nothing(bench: SignerBench) -> None:
    troubles: list[str] = []
    before = bench.trust.present
    bench.trust.refresh(troubles.append)
    assert bench.trust.present is before
    assert troubles == []


def test_a_rolled_back_file_never_counts_and_the_next_start_takes_the_journals(bench: SignerBench) -> None:
    old = bench.world.signed(bench.world.bundle(1))
    bench.adopt(3)
    assert "version 1 is older than 3" in offer(bench, old)[0]
    assert bench.trust.present.version == 3
    bench.restart()
    assert bench.trust.present == bench.world.bundle(3)
    assert ["version 1 is older than 3" in trouble for trouble in bench.troubles] == [True]


def test_a_start_needs_no_file_once_a_bundle_was_adopted(bench: SignerBench) -> None:
    bench.adopt(2)
    (bench.directory / "bundle.json").unlink()
    bench.restart()
    assert bench.trust.present == bench.world.bundle(2)
    assert bench.troubles == []
    bench.signatures(bench.under(2))


def test_a_newer_file_is_adopted_at_the_next_start(bench: SignerBench) -> None:
    bench.journal.close()
    bench.publish(bench.world.bundle(2))
    bench.start()
    assert bench.trust.present.version == 2


def test_a_first_start_without_a_bundle_is_refused(bench: SignerBench, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(BadConfiguration, match="set-up publishes it there"):
        Unpublished(other)


def test_a_first_start_with_a_bundle_of_nobody_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(UntrustedBundle, match="1 of 2"):
        SignedByOne(other)


def test_a_signer_whose_bundle_has_expired_starts_and_takes_the_next_one(bench: SignerBench) -> None:
    bench.time += 31 * DAY
    bench.restart()
    assert "bundle-expired" in bench.codes(bench.request())
    bench.world.now = bench.time
    bench.adopt(2)
    bench.signatures(bench.under(2))


def test_another_bundle_of_the_same_version_is_not_adopted(bench: SignerBench) -> None:
    other = bench.world.signed(bench.world.bundle(1, cap_window_cap="999999999999"))
    assert "another bundle of version 1" in offer(bench, other)[0]
    assert bench.trust.present.caps[0].window_cap == "500000000"


def test_a_bundle_without_its_quorum_is_not_adopted(bench: SignerBench) -> None:
    world, bundle = bench.world, bench.world.bundle(2)
    unsigned = SignedBundle(bundle=bundle, signatures=())
    alone = world.signed(bundle, ["olga"])
    strangers = sign_bundle(bundle, {"mallory": SigningKey.generate(), "trudy": SigningKey.generate()})
    impostors = sign_bundle(bundle, {"olga": SigningKey.generate(), "felix": world.officers["felix"]})
    twice = SignedBundle(bundle=bundle, signatures=alone.signatures * 2)
    for signed in (unsigned, alone, strangers, impostors, twice):
        assert offer(bench, signed) != []
        assert bench.trust.present.version == 1


def test_signatures_of_another_version_are_not_accepted(bench: SignerBench) -> None:
    genuine = bench.world.signed(bench.world.bundle(2))
    moved = SignedBundle(bundle=bench.world.bundle(3), signatures=genuine.signatures)
    assert offer(bench, moved) != []
    assert bench.trust.present.version == 1


def test_an_expired_bundle_is_not_adopted(bench: SignerBench) -> None:
    expired = bench.world.bundle(2, expires_at=bench.time)
    assert "expired" in offer(bench, bench.world.signed(expired))[0]


def test_a_bundle_from_the_future_is_not_adopted(bench: SignerBench) -> None:
    future = bench.world.bundle(2, issued_at=bench.time + DAY)
    assert "not yet" in offer(bench, bench.world.signed(future))[0]


def test_a_malformed_or_missing_bundle_keeps_the_present_one(bench: SignerBench) -> None:
    troubles: list[str] = []
    path = bench.directory / "bundle.json"
    for content in (b"", b"{}", b'{"bundle": 1}', b"\xff\xfe", b"[" * 100_000):
        path.write_bytes(content)
        bench.trust.refresh(troubles.append)
    assert len(troubles) == 5
    path.unlink()
    bench.trust.refresh(troubles.append)
    assert len(troubles) == 5
    assert bench.trust.present.version == 1


def test_a_higher_version_confirms_the_time_after_a_jump(bench: SignerBench) -> None:
    bench.jump(1000)
    with pytest.raises(ClockUnsteady, match="jumped 1000 s forward"):
        bench.service.sign(bench.request())
    bench.adopt(2)
    bench.signatures(bench.under(2))


def test_a_bundle_that_was_issued_long_ago_is_adopted_and_says_nothing_of_the_time(
    bench: SignerBench,
) -> None:
    bench.jump(FRESH_SECONDS)
    with pytest.raises(ClockUnsteady):
        bench.clock.now()
    before = bench.journal.write(lambda book: book.latest)
    bench.adopt(2)
    assert bench.trust.present.version == 2
    with pytest.raises(ClockUnsteady):
        bench.clock.now()
    assert bench.journal.write(lambda book: book.latest) == before, "the journal's time stands still"


def test_a_missing_or_malformed_trust_root_stops_the_start(bench: SignerBench) -> None:
    root = bench.directory / "pinned.json"
    root.write_text("{}")
    with pytest.raises(BadConfiguration, match="quorum"):
        bench.restart()
    bench.journal.close()
    root.unlink()
    with pytest.raises(BadConfiguration, match="quorum"):
        bench.start()


def test_a_quorum_is_pinned_once(bench: SignerBench) -> None:
    with pytest.raises(FileExistsError):
        pin(bench.world.root, bench.directory / "pinned.json")


def test_a_root_that_no_quorum_can_reach_is_not_pinned(bench: SignerBench, tmp_path: Path) -> None:
    root = msgspec.structs.replace(bench.world.root, threshold=4)
    with pytest.raises(InvalidValue):
        pin(root, tmp_path / "other.json")
