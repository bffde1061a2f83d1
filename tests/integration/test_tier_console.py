"""What callers and people are told when hot cannot pay: the API and `strongroom`, beside a treasury that acts on it.

Database, node, monitor, workers' steps, guards and API are real.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner

from custody.console.app import app
from custody.treasury.planner import LEAD_SECONDS
from ops.devnet.bitcoind import Bitcoind
from policies.bundle import Bundle
from tests.fakes.api import AUDIENCE, RunningApi, running_api
from tests.fakes.teller import opened
from tests.fakes.vault_till import VAULT
from tests.integration.test_refills_btc import HOLDS, HOT, TreasuryTill

Run = Callable[..., Any]


@pytest.fixture
def till(database: str, bitcoind: Bitcoind, tmp_path: Path) -> Iterator[TreasuryTill]:
    """Hot may hold 0.1 BTC and has 0.09; the vault has the rest of alice's 0.3."""
    with opened(TreasuryTill(database, bitcoind, tmp_path)) as till:
        till.adopt(2, holdings=(msgspec.structs.replace(HOLDS, at_most="10000000"),))
        till.customer("alice", 30_000_000)
        till.treasury()
        till.send_refill(till.refill())
        till.settle()
        yield till


@pytest.fixture
def api(till: TreasuryTill) -> Iterator[RunningApi]:
    def extend(bundle: Bundle) -> Bundle:
        return msgspec.structs.replace(till.bundle, callers=bundle.callers, operators=bundle.operators)

    with capture_logs(), running_api(till.dsn, extend=extend) as running:
        yield running


@pytest.fixture
def run(api: RunningApi, tmp_path: Path) -> Run:
    """Runs a verb as the caller `exchange`; its JSON, or its text where `text` is asked for."""
    key = tmp_path / "exchange.pem"
    api.keys["exchange"].save(key)
    environment = {
        "STRONGROOM_API_URL": api.url,
        "STRONGROOM_CALLER": "exchange",
        "STRONGROOM_CALLER_KEY": str(key),
        "STRONGROOM_AUDIENCE": AUDIENCE,
        "COLUMNS": "250",
    }

    def invoke(*arguments: str, form: str = "json") -> Any:
        given = [*arguments, "--json"] if form == "json" else list(arguments)
        result = CliRunner().invoke(app, given, env=environment)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout) if form == "json" else result.stdout

    return invoke


def test_what_hot_cannot_pay_waits_says_so_names_the_refill_it_has_triggered_and_is_paid_with_it(
    till: TreasuryTill, run: Run
) -> None:
    small, large = till.request("alice", 1_000_000), till.request("alice", 9_500_000)
    till.send()
    till.settle()
    till.treasury()
    refill = till.refills()[-1]
    till.execute("UPDATE withdrawals SET not_before = now()")
    assert till.build() is None

    told = run("withdrawal", "show", str(large.id))
    assert told["state"] == "queued"
    assert told["reason"].startswith("insufficient-hot-funds: ")
    assert told["reason"].endswith(
        f"; refill {refill.id} of {till.bundle.told('BTC', refill.units)} from {VAULT} is proposed"
    )
    assert told["reason"] in run("withdrawal", "show", str(large.id), form="text").replace("\n", " ")
    assert run("withdrawal", "show", str(small.id))["state"] == "settled"

    hot, warm = run("tier")["items"][:2]
    fee = large.signed_order.order.fee_ceiling_units
    assert till.bundle.told("BTC", 9_500_000 + fee) == f"{hot['waited_for']} BTC", "in the planner's input"
    assert f"{hot['coming']} BTC" == till.bundle.told("BTC", refill.units)
    assert hot["free"] == "0.00000000"
    assert hot["outflow_per_hour"] == "0.00166667", "0.01 in six hours"
    assert 0 < hot["dry_in_seconds"] < LEAD_SECONDS, "most of what it has, and gets, is waited for"
    assert warm["holds"] == "0.21000000"
    assert (refill.why, refill.state) == ("need", "proposed")
    assert refill.about.startswith("payments and gas need ")
    [under_way] = run("tier")["refills"]
    assert (under_way["id"], under_way["about"]) == (str(refill.id), refill.about)

    shown = run("tier", "--history", form="text")
    for part in ("hot", "warm", "dry in", "Under way", VAULT, HOT, str(refill.id)[:8]):
        assert part in shown, part
    assert [each["state"] for each in run("refill", "list")] == ["confirmed", "proposed"]
    assert run("refill", "show", str(refill.id))["amount"] == under_way["amount"]

    till.answer(refill, "ada", "ben")
    till.treasury()
    till.send_refill(refill)
    till.settle()
    till.execute("UPDATE withdrawals SET not_before = now()")
    till.send()
    till.settle()
    assert run("withdrawal", "show", str(large.id))["state"] == "settled"
    assert [each["state"] for each in run("refill", "list")] == ["confirmed", "confirmed"]
