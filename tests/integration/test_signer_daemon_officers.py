"""What officers hand to a daemon, which is killed at any moment: bundles that wait, vetoes, lower numbers."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ops.devnet.process import wait_until
from ops.devnet.softhsm import SoftHsmToken
from policies.bundle import SignedBundle
from policies.keys import sign_lowering, sign_veto
from policies.statements import Lowering, SignedVeto, Veto
from signers.client import SignerClient, UnixAddress
from signers.keys.keyset import BitcoinKeysetRecord
from signers.ports import Refused, SignerStatus, SignerUnavailable
from tests.fakes.signer_daemon import BitcoinDaemon

SHORT, LONG = 4, 3600
ROUNDS = 4


class Cautious(BitcoinDaemon):
    """Its bundles let the next one wait."""

    veto_seconds = LONG

    def signed_bundle(self, version: int, **changes: Any) -> SignedBundle:
        wanted = {"veto_seconds": self.veto_seconds} | changes
        return self.world.signed(self.world.bundle(version, **wanted))

    def veto(self, signed: SignedBundle) -> SignedVeto:
        veto = Veto(
            v=1,
            officer="sanna",
            bundle=signed.bundle.digest_hex(),
            reason="nobody asked me",
            issued_at=self.world.now,
        )
        return sign_veto(veto, self.world.officers["sanna"])

    def killed(self) -> SignerStatus:
        """It is killed and started again; what it says then."""
        self.end(signal.SIGKILL)
        self.start()
        return self.client.status()


class Hasty(Cautious):
    """The same for seconds."""

    veto_seconds = SHORT


@pytest.fixture
def cautious(
    softhsm: SoftHsmToken, daemon_keys: tuple[BitcoinKeysetRecord, Path], tmp_path: Path
) -> Iterator[Cautious]:
    made = Cautious(softhsm, *daemon_keys, tmp_path)
    made.start()
    yield made
    made.close()


@pytest.fixture
def hasty(
    softhsm: SoftHsmToken, daemon_keys: tuple[BitcoinKeysetRecord, Path], tmp_path: Path
) -> Iterator[Hasty]:
    made = Hasty(softhsm, *daemon_keys, tmp_path)
    made.start()
    yield made
    made.close()


def test_a_bundle_waits_over_a_kill_and_acts_by_itself_when_its_time_has_come(hasty: Hasty) -> None:
    before = hasty.client.deliver(hasty.signed_bundle(2)).waiting
    assert before is not None
    assert before.acts_from == before.since + SHORT
    status = hasty.killed()
    assert status.waiting == before or status.bundle_version == 2
    wait_until(
        lambda: hasty.client.status().bundle_version == 2, timeout=60, what="the bundle to come into force"
    )
    status = hasty.client.status()
    assert status.waiting is None
    assert status.at >= before.acts_from
    assert hasty.killed().bundle_version == 2


def test_a_vetoed_bundle_stays_out_over_a_kill(cautious: Cautious) -> None:
    signed = cautious.signed_bundle(2)
    assert cautious.client.deliver(signed).waiting is not None
    assert cautious.client.veto(cautious.veto(signed)).waiting is None
    status = cautious.killed()
    assert (status.bundle_version, status.waiting) == (1, None)
    with pytest.raises(Refused, match="sanna has vetoed it"):
        cautious.client.deliver(signed)


def test_a_lower_number_counts_over_a_kill(cautious: Cautious) -> None:
    lowering = Lowering(
        v=1,
        officer="olga",
        target="cap:hot:BTC:payment_below",
        value="500000",
        bundle_version=1,
        reason="a drill",
        issued_at=cautious.world.now,
    )
    answer = cautious.client.lower(sign_lowering(lowering, cautious.world.officers["olga"]))
    assert answer.lowered == ("cap:hot:BTC:payment_below=500000",)
    assert cautious.killed().lowered == answer.lowered
    with pytest.raises(Refused, match="payment-cap"):
        cautious.client.sign(cautious.request(500_000))
    cautious.client.sign(cautious.request(499_999))


def test_a_veto_that_was_answered_is_never_forgotten_whenever_the_daemon_is_killed(
    cautious: Cautious,
) -> None:
    """A veto and a kill race; who got an answer relies on it, and who got none asks again."""
    for number in range(ROUNDS):
        signed = cautious.signed_bundle(2, expires_at=cautious.world.now + 20 * LONG * 24 + number)
        cautious.client.deliver(signed)
        answered: list[SignerStatus] = []
        veto = cautious.veto(signed)

        def say(veto: SignedVeto = veto, answered: list[SignerStatus] = answered) -> None:
            client = SignerClient(UnixAddress(cautious.directory / "s.sock"), timeout_s=20)
            try:
                answered.append(client.veto(veto))
            except SignerUnavailable:
                pass
            finally:
                client.close()

        officer = threading.Thread(target=say)
        officer.start()
        if number % 2:
            officer.join()
        cautious.end(signal.SIGKILL)
        officer.join()
        cautious.start()
        status = cautious.client.status()
        assert status.bundle_version == 1
        if answered:
            assert status.waiting is None
        assert cautious.client.veto(veto).waiting is None
        with pytest.raises(Refused, match="vetoed"):
            cautious.client.deliver(signed)


def test_what_no_officer_has_signed_is_refused_over_the_socket_too(cautious: Cautious) -> None:
    signed = cautious.signed_bundle(2)
    veto = cautious.veto(signed)
    forged = msgspec.structs.replace(veto, veto=msgspec.structs.replace(veto.veto, officer="olga"))
    with pytest.raises(Refused, match="officer-signature"):
        cautious.client.veto(forged)
