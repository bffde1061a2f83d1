"""Which signers' silence keeps a verifier from knowing what was signed."""

from __future__ import annotations

import pytest

from chains.errors import StrongroomError
from signers.ports import SignerUnavailable
from signers.verifier.logs import LogUnreadable, untold
from tests.fakes.house import bundle

WARM = ("btc-warm",)
MEMBERS = {"berlin": WARM, "lisbon": WARM, "oslo": WARM}
AWAY = SignerUnavailable("nobody answers")


def silent(*names: str, why: StrongroomError = AWAY) -> dict[str, StrongroomError]:
    return dict.fromkeys(names, why)


def test_one_of_two_of_three_may_be_silent_for_the_others_logs_tell_of_whatever_it_pays() -> None:
    assert untold(silent("oslo"), MEMBERS, bundle()) == {}


def test_as_many_as_sign_for_a_vault_may_not() -> None:
    assert set(untold(silent("oslo", "berlin"), MEMBERS, bundle())) == {"oslo", "berlin"}


def test_a_signer_of_anything_else_may_never() -> None:
    assert untold(silent("hot"), MEMBERS, bundle()) == {"hot": str(AWAY)}


def test_a_vault_that_is_not_in_the_bundle_excuses_nobody() -> None:
    assert set(untold(silent("oslo"), {"oslo": ("btc-warm", "unknown")}, bundle())) == {"oslo"}


def test_a_log_that_is_there_and_cannot_be_read_is_no_silence() -> None:
    assert set(untold(silent("oslo", why=LogUnreadable("forged")), MEMBERS, bundle())) == {"oslo"}


@pytest.mark.parametrize("members", [{}, {"oslo": ()}])
def test_whoever_is_not_said_to_sign_for_vaults_only_may_not(members: dict[str, tuple[str, ...]]) -> None:
    assert set(untold(silent("oslo"), members, bundle())) == {"oslo"}
