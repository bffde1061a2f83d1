"""A vault pays with two of three members. The third must not be lost in silence: a signer signs only so far beyond what
it has signed itself, so if it was never asked, the loss of one other member would be the loss of the vault."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from chains.eth.safe import parse_safe_resource
from ops.devnet.anvil import Anvil
from tests.fakes.approving import Desk
from tests.fakes.evm_desk import ETHER
from tests.fakes.safe_till import LARGE, OWNERS, SafeOutside, SafeTill
from tests.fakes.teller import opened

PAID = 6


@pytest.fixture
def till(database: str, tmp_path: Path) -> Iterator[SafeTill]:
    with Anvil(tmp_path / "node") as node, opened(SafeTill(database, SafeOutside(node), tmp_path)) as till:
        till.customer("alice", ETH=40 * ETHER)
        till.fund_safe(ETH=40 * ETHER)
        yield till


def test_owners_sign_by_turns_so_that_none_falls_behind_the_nonces_that_it_would_sign(till: SafeTill) -> None:
    desk = Desk(till)  # type: ignore[arg-type]
    for _ in range(PAID):
        withdrawal = desk.request(LARGE["ETH"])
        desk.approve(withdrawal, "ada")
        till.route()
        transaction = till.build_safe()
        assert transaction is not None
        assert till.collect() == [transaction]
    rows = till.query(
        "SELECT m.member, v.resources FROM session_members m JOIN signing_sessions s ON s.id = m.session_id"
        " JOIN transaction_versions v USING (transaction_id, version) WHERE m.response IS NOT NULL"
    )
    furthest = dict.fromkeys(OWNERS, -1)
    for row in rows:
        nonce = parse_safe_resource(row["resources"][0])[1]
        furthest[row["member"]] = max(furthest[row["member"]], nonce)
    assert min(furthest.values()) >= PAID - 2, furthest
