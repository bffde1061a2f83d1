"""What the logs of a vault's members tell of what too few of them have signed, and the form of the verifier's file."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.bundle import Vault
from signers.errors import BadConfiguration
from signers.verifier.logs import LogKeeper, MemberLogs
from signers.verifier.state import FORMAT, State
from tests.fakes.house import bundle

NAMES = ("berlin", "lisbon", "oslo")
OVER = 1_000


class Read:
    """When each log was read."""

    def __init__(self, at: dict[str, int]) -> None:
        self.at = at

    def read_at(self, signer: str) -> int | None:
        return self.at.get(signer)


class Told:
    """Which logs tell of one transaction."""

    def __init__(self, by: Collection[str]) -> None:
        self.by = by

    def rows(self, query: str, *values: object) -> list[tuple[str]]:
        return [(name,) for name in self.by]


def members(by: Collection[str], at: dict[str, int], of: Collection[str] = NAMES) -> MemberLogs:
    known = dict.fromkeys(of, ("btc-warm",))
    return MemberLogs(cast(State, Told(by)), cast(LogKeeper, Read(at)), known)


def vault() -> Vault:
    return next(each for each in bundle().vaults if each.id == "btc-warm")


@given(
    st.frozensets(st.sampled_from(NAMES)),
    st.dictionaries(st.sampled_from(NAMES), st.integers(OVER - 2, OVER + 2)),
    st.frozensets(st.sampled_from(NAMES)),
)
def test_too_few_have_signed_only_where_so_many_logs_of_later_do_not_tell_of_it(
    by: frozenset[str], at: dict[str, int], configured: frozenset[str]
) -> None:
    found = members(by, at, configured).too_few(vault(), "bitcoin", "ab", OVER)
    may_have = [name for name in NAMES if name in by or name not in configured or at.get(name, 0) <= OVER]
    assert found == (len(may_have) < vault().threshold)


@pytest.mark.parametrize(
    ("heard", "tells"), [((), False), (("oslo",), False), (("oslo", "berlin"), True), (NAMES, True)]
)
def test_a_payment_is_in_some_log_that_was_read_once_so_many_were(
    heard: Collection[str], tells: bool
) -> None:
    assert members((), dict.fromkeys(heard, 1)).would_tell(vault()) is tells


def test_members_whose_logs_are_not_configured_tell_nothing() -> None:
    assert not members((), dict.fromkeys(NAMES, 1), ()).would_tell(vault())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.sqlite"


def test_a_file_of_another_format_is_not_read_and_one_of_this_is(path: Path) -> None:
    State(path).close()
    State(path).close()
    other = sqlite3.connect(path)
    other.execute(f"PRAGMA user_version = {FORMAT + 1}")
    other.close()
    with pytest.raises(BadConfiguration, match="move it away"):
        State(path)
