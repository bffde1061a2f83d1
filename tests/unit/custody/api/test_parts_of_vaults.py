"""What `/readyz` says of the signers of vaults: one that is away is told of, and stops nothing."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import pytest

from custody.api.parts import vaults
from policies.bundle import Bundle
from signers.ports import Signer, SignerStatus, SignerUnavailable
from tests.fakes.house import bundle

HOUSE = bundle()


class Member:
    """A signer that says what the test wants."""

    def __init__(self, **says: Any) -> None:
        self._says = {"keysets": ("btc-warm",), "bundle_version": HOUSE.version} | says

    def status(self) -> SignerStatus:
        if self._says.get("away"):
            raise SignerUnavailable("nobody answers")
        return cast(SignerStatus, msgspec.defstruct("Said", list(self._says))(**self._says))


def said(house: Bundle = HOUSE, **members: Member) -> dict[str, tuple[bool, str]]:
    def of(vault: str) -> dict[str, Signer]:
        return {name: cast(Signer, each) for name, each in members.items()} if vault == "btc-warm" else {}

    return {part.name: (part.ok, part.detail) for part in vaults(of, house)}


def test_all_that_answer_are_counted_and_a_vault_of_offline_holders_is_no_part() -> None:
    assert said(a=Member(), b=Member(), c=Member()) == {
        "signers btc-warm": (True, "3 of 3 signers answer, 2 sign")
    }


def test_one_that_is_away_is_named_and_stops_nothing() -> None:
    found = said(a=Member(), b=Member(away=True), c=Member())
    assert found == {"signers btc-warm": (True, "2 of 3 signers answer, 2 sign; away: b")}


@pytest.mark.parametrize("wrong", [{"away": True}, {"bundle_version": 0}, {"keysets": ("eth-warm",)}])
def test_with_fewer_than_sign_the_vault_is_not_ready(wrong: dict[str, Any]) -> None:
    found = said(a=Member(), b=Member(**wrong), c=Member(**wrong))
    assert found == {"signers btc-warm": (False, "1 of 3 signers answer, 2 sign; away: b, c")}
