"""Outside payees, and whoever wrote their contracts: a Safe's nonces go one after the other, so what owners have signed
and nobody can carry out would stop all that follows; and what fails only when it is mined would burn gas for ever."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from chains.eth.address import checksummed
from custody.signing.executions import AGAIN_SECONDS
from ops.devnet.anvil import Anvil
from tests.fakes.approving import Desk
from tests.fakes.evm_desk import ETHER
from tests.fakes.safe_till import LARGE, SafeOutside, SafeTill
from tests.fakes.teller import opened

GREEDY = checksummed(bytes.fromhex("c0ffee") + bytes(16) + b"\x01")
"""Takes 570,000 gas whenever it is paid, and then says that all is well."""
GREEDY_CODE = "0x6207ffff515000"
"""PUSH3 0x07ffff MLOAD POP STOP: memory is paid for by the square."""
TRIES = 3


@pytest.fixture
def till(database: str, tmp_path: Path) -> Iterator[SafeTill]:
    with Anvil(tmp_path / "node") as node, opened(SafeTill(database, SafeOutside(node), tmp_path)) as till:
        till.customer("alice", ETH=20 * ETHER, PAUX=20 * ETHER)
        till.fund_safe(ETH=40 * ETHER, PAUX=20 * ETHER)
        yield till


def _approved(till: SafeTill, units: int, **changes: Any) -> Any:
    desk = Desk(till)  # type: ignore[arg-type]
    withdrawal = desk.request(units, **changes)
    desk.approve(withdrawal, "ada")
    till.route()
    return withdrawal


def test_a_payee_who_takes_more_gas_than_an_execution_may_have_is_not_asked_for_and_others_are_paid(
    till: SafeTill,
) -> None:
    till.outside.node.rpc("anvil_setCode", GREEDY, GREEDY_CODE)
    greedy = _approved(till, LARGE["ETH"], destination=GREEDY)
    other = _approved(till, LARGE["ETH"])
    transaction = till.build_safe()
    assert till.withdrawal(greedy.id).reason.startswith("gas-cap")
    assert transaction is not None
    assert till.withdrawal(other.id).state == "signing"
    assert till.collect() == [transaction]
    till.send_execution()
    till.settle()
    assert till.withdrawal(other.id).state == "settled"


def test_what_fails_each_time_that_it_is_mined_is_tried_ever_later(till: SafeTill) -> None:
    """The payee sees our transaction wait, and closes the door before it: each try burns the gas payer's money."""
    _approved(till, LARGE["PAUX"], asset="PAUX")
    transaction = till.build_safe()
    assert transaction is not None
    assert till.collect() == [transaction]
    waits = []
    for _ in range(TRIES):
        till.try_again_now()
        execution = till.build_execution()
        assert execution is not None
        assert till.sign_execution() == [execution]
        till.outside.paux.do(till.outside.payer, "setPaused", True)
        till.broadcast_execution()
        till.mine()
        till.track()
        till.settle()
        assert till.transaction(execution).state == "dead"
        till.outside.paux.do(till.outside.payer, "setPaused", False)
        [row] = till.query(
            "SELECT extract(epoch FROM rebroadcast_at - now())::int AS left FROM transactions WHERE id = %s",
            transaction,
        )
        waits.append(row["left"])
    for earlier, later in pairwise(waits):
        assert later > earlier + AGAIN_SECONDS // 2, waits
