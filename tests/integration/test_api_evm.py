"""Assets with 0, 6, 18 and 24 decimals on an EVM network beside BTC: the same answers, each in its own whole units."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import msgspec
import psycopg
import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner, Result

from chains.eth.address import checksummed
from custody.console.app import app
from custody.storage.db import Database
from custody.storage.events import emit
from custody.treasury.fees import observe
from policies.bundle import (
    AssetEntry,
    Bundle,
    Confirmations,
    EvmNetwork,
    GasCaps,
    TierCap,
    check_consistent,
)
from tests.fakes.api import AUDIENCE, FOREIGN_ADDRESS, RunningApi, kind, running_api
from tests.fakes.evm_desk import EvmKeys
from tests.support.amounts import AmountRules, with_amounts

CHAIN: Final = "ethereum-devnet"
KEYSET: Final = "eth-hot"
ETHER: Final = 10**18
FOREIGN: Final = "0x52908400098527886E0F7030069857D2E4169EE7"
"""EIP-55's example: not ours."""
DECIMALS: Final = {"ETH": 18, "USDX": 6, "WHOLE": 0, "FINE": 24}
FUNDS: Final = {"ETH": 3 * ETHER, "USDX": 5_000_000_001, "WHOLE": 7, "FINE": 10**24 + 1}
SHOWN: Final = {
    "ETH": "3.000000000000000000",
    "USDX": "5000.000001",
    "WHOLE": "7",
    "FINE": "1.000000000000000000000001",
}


def contract(asset: str) -> str | None:
    return None if asset == "ETH" else checksummed(asset.encode().rjust(20, b"\x11"))


def with_ethereum(keys: EvmKeys) -> Any:
    def extend(bundle: Bundle) -> Bundle:
        network = EvmNetwork(
            chain=CHAIN,
            genesis="ab" * 32,
            native_asset="ETH",
            settle_blocks=1,
            feerate_floor=1,
            feerate_cap=200 * 10**9,
            fee_cap=str(ETHER // 2),
            fee_window_cap=str(100 * ETHER),
            fee_window_seconds=86_400,
            chain_id=31337,
            native_mode="trace",
            gas_caps=GasCaps(
                transfer=100_000, token=200_000, payout=3_000_000, sweep=6_000_000, execution=300_000
            ),
        )
        assets = tuple(
            AssetEntry(
                id=asset,
                chain=CHAIN,
                decimals=decimals,
                contract=contract(asset),
                minimum_deposit="1",
                withdrawal_fee="1",
                confirmations=(Confirmations(from_units="0", blocks=1),),
                traits=("no-return",) if asset == "USDX" else (),
            )
            for asset, decimals in DECIMALS.items()
        )
        most = str(10**30)
        extended = msgspec.structs.replace(
            bundle,
            networks=(*bundle.networks, network),
            assets=(*bundle.assets, *assets),
            keysets=(*bundle.keysets, keys.entry()),
            caps=bundle.caps
            + tuple(
                TierCap(tier="hot", asset=a, payment_below=most, window_cap=most, window_seconds=86_400)
                for a in DECIMALS
            ),
            policy=with_amounts(
                bundle.policy,
                (
                    AmountRules(
                        asset=a,
                        hot_below=int(most),
                        warm_below=2 * int(most),
                        hot_window_cap=int(most),
                        customer_window_cap=int(most),
                        window_seconds=86_400,
                    )
                    for a in DECIMALS
                ),
            ),
        )
        check_consistent(extended)
        return extended

    return extend


@pytest.fixture
def api(database: str) -> Iterator[RunningApi]:
    """With a customer, alice, who has some of every asset."""
    keys = EvmKeys(factory=checksummed(b"\x22" * 20), forwarder="cd" * 32)
    with (
        capture_logs(),
        running_api(database, extend=with_ethereum(keys), signers={KEYSET: keys}) as running,
    ):
        running.client().create_customer("alice")
        for asset, units in FUNDS.items():
            running.fund("alice", units, asset=asset, wallet=KEYSET)
        running.others_run()
        yield running


def order(api: RunningApi, asset: str, units: int, **changes: Any) -> dict[str, Any]:
    return api.signed(
        api.order(
            chain=CHAIN,
            asset=asset,
            destination=FOREIGN,
            amount=str(units),
            fee_ceiling=str(ETHER // 100),
            **changes,
        )
    )


def test_networks_and_assets_say_what_a_caller_must_know(api: RunningApi) -> None:
    client = api.client()
    bitcoin, ethereum = client.get("/v1/networks")["items"]
    assert (bitcoin["family"], bitcoin["chain_id"]) == ("btc", None)
    assert (ethereum["family"], ethereum["chain_id"], ethereum["native_asset"]) == ("evm", 31337, "ETH")
    assert ethereum["fee_cap"] == {"asset": "ETH", "amount": "0.500000000000000000"}
    assets = {asset["id"]: asset for asset in client.get("/v1/assets")["items"]}
    assert {name: asset["decimals"] for name, asset in assets.items()} == {"BTC": 8, **DECIMALS}
    assert assets["USDX"]["contract"] == contract("USDX")
    assert (assets["USDX"]["traits"], assets["ETH"]["contract"]) == (["no-return"], None)
    assert {assets[name]["native_asset"] for name in DECIMALS} == {"ETH"}
    assert assets["WHOLE"]["withdrawal_fee"] == "1"
    assert assets["FINE"]["withdrawal_fee"] == "0.000000000000000000000001"


def test_fee_ceilings_are_suggested_by_the_last_price_and_old_ones_are_none(api: RunningApi) -> None:
    client = api.client()
    unknown = client.get("/v1/fees")["items"]
    assert {each["asset"] for each in unknown} == {"BTC", *DECIMALS}
    assert {each["fee_ceiling"] for each in unknown} == {None}
    assert all("no worker has seen yet" in each["reason"] for each in unknown)
    with Database(api.superuser_dsn, application="test") as db, db.transaction() as tx:
        observe(tx, CHAIN, 3 * 10**9)
    found = {each["asset"]: each for each in client.get("/v1/fees", {"chain": CHAIN})["items"]}
    assert found.keys() == DECIMALS.keys()
    assert (found["USDX"]["feerate"], found["USDX"]["reason"]) == (3_000_000_000, "")
    assert found["USDX"]["fee_ceiling"] == {
        "asset": "ETH",
        "amount": "0.000900000000000000",
        "units": "900000000000000",
    }
    assert found["ETH"]["fee_ceiling"]["units"] == "360000000000000"
    with psycopg.connect(api.superuser_dsn) as connection:
        connection.execute("UPDATE fee_observations SET at = at - interval '1 hour'")
    stale = client.get("/v1/fees", {"chain": CHAIN})["items"]
    assert {each["fee_ceiling"] for each in stale} == {None}
    assert all("was last seen 3600 s ago" in each["reason"] for each in stale)
    answer = client.send("GET", "/v1/fees", query={"chain": "nowhere"})
    assert (answer.status_code, kind(answer)) == (404, "not-found")


def test_balances_statements_and_events_have_all_places_of_each_asset(api: RunningApi) -> None:
    client = api.client()
    found = {balance["asset"]: balance["available"] for balance in client.balances("alice")}
    assert found == SHOWN
    for asset, amount in SHOWN.items():
        (line,) = client.statement("alice", asset)
        assert (line["amount"], line["balance_after"]) == (amount, amount)


def test_a_forwarder_is_an_address_for_its_customer_and_verified(api: RunningApi) -> None:
    client = api.client()
    for asset in DECIMALS:
        made = client.new_address("alice", asset)
        assert (made["chain"], made["asset"]) == (CHAIN, asset)
        assert made["attestation"]["attestation"]["address"] == made["address"]
    with psycopg.connect(api.superuser_dsn) as connection:
        connection.execute("UPDATE addresses SET address = %s WHERE index = 0", [FOREIGN])
    answer = client.send("GET", "/v1/customers/alice/addresses")
    assert (answer.status_code, kind(answer)) == (500, "address-not-trusted")


@pytest.mark.parametrize(("asset", "units", "amount"), [
    ("ETH", 1, "0.000000000000000001"),
    ("USDX", 2_500_000, "2.500000"),
    ("WHOLE", 5, "5"),
    ("FINE", 10**24, "1.000000000000000000000000"),
])  # fmt: skip
def test_a_withdrawal_is_shown_in_its_asset_and_its_ceiling_in_the_chains(
    api: RunningApi, asset: str, units: int, amount: str
) -> None:
    client = api.client()
    answer = client.send("POST", "/v1/withdrawals", None, order(api, asset, units), idempotency_key="k")
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert (made["asset"], made["amount"], made["destination"]) == (asset, amount, FOREIGN)
    assert made["fee_ceiling"] == {"asset": "ETH", "amount": "0.010000000000000000"}
    assert made["network_fee"] is None
    requested = next(e for e in client.events(limit=500)[0] if e["type"] == "withdrawal.requested")
    assert requested["data"]["amount"] == amount


def test_missing_funds_are_told_in_whole_units(api: RunningApi) -> None:
    answer = api.client().send(
        "POST", "/v1/withdrawals", None, order(api, "USDX", 6_000_000_000), idempotency_key="k"
    )
    assert (answer.status_code, kind(answer)) == (409, "insufficient-funds")
    assert answer.json()["needed"] == {"asset": "USDX", "amount": "6000.000001"}
    assert "6000.000001 USDX" in answer.json()["detail"]


@pytest.mark.parametrize("destination", [
    FOREIGN.lower(),  # no checksum: not the canonical form
    FOREIGN.replace("0x5", "0X5"),
    FOREIGN[:-1],
    FOREIGN[:-1] + "e",
    FOREIGN_ADDRESS,
    "0x" + "0" * 40,
])  # fmt: skip
def test_a_destination_that_is_none_on_this_chain_is_refused(api: RunningApi, destination: str) -> None:
    body = api.signed(
        api.order(
            chain=CHAIN, asset="ETH", destination=destination, amount="1000", fee_ceiling=str(ETHER // 100)
        )
    )
    answer = api.client().send("POST", "/v1/withdrawals", None, body, idempotency_key=str(uuid4()))
    assert answer.status_code == 400, answer.text
    assert api.query("SELECT count(*) FROM withdrawals") == [(0,)]


def test_a_payment_in_a_block_says_what_it_paid_and_counts_from_the_finalised_block(api: RunningApi) -> None:
    client = api.client()
    made = client.send(
        "POST", "/v1/withdrawals", None, order(api, "USDX", 1_000_000), idempotency_key="k"
    ).json()
    transaction, txid, block = uuid4(), "c" * 64, "b" * 64
    with psycopg.connect(api.superuser_dsn) as connection:
        connection.execute(
            "INSERT INTO transactions (id, chain, keyset, kind, state, confirmed_txid, height, block_hash)"
            " VALUES (%s, %s, %s, 'payment', 'confirming', %s, 9, %s)",
            [transaction, CHAIN, KEYSET, txid, block],
        )
        connection.execute(
            "INSERT INTO transaction_versions (transaction_id, version, request, unsigned, content, resources,"
            " signed, txid, fee_units, feerate, size, state)"
            " VALUES (%s, 1, '{}', '\\x01', %s, %s, '\\x02', %s, %s, %s, 90000, 'signed')",
            [transaction, "d" * 64, [f"0x{'1' * 40}:0"], txid, 90_000 * 30 * 10**9, 30 * 10**9],
        )
        for state in ("screening", "queued", "building", "signing", "broadcast"):
            connection.execute(
                "UPDATE withdrawals SET state = %s, screened_at = now() WHERE id = %s", [state, made["id"]]
            )
        connection.execute(
            "UPDATE withdrawals SET transaction_id = %s WHERE id = %s", [transaction, made["id"]]
        )
    shown = client.withdrawal(made["id"])
    (version,) = shown["versions"]
    assert version["network_fee"] == {"asset": "ETH", "amount": "0.002700000000000000"}
    assert (version["feerate"], shown["confirmations"]) == (30 * 10**9, 0)
    with psycopg.connect(api.superuser_dsn) as connection:
        connection.execute("UPDATE cursors SET height = 12, anchor = 10 WHERE chain = %s", [CHAIN])
        connection.execute(
            "INSERT INTO blocks (chain, height, hash, previous) VALUES (%s, 9, %s, %s)",
            [CHAIN, block, "a" * 64],
        )
        connection.execute(
            "INSERT INTO consumptions (chain, resource, txid, content, succeeded, fee_units, height, block_hash)"
            " VALUES (%s, %s, %s, %s, true, %s, 9, %s)",
            [CHAIN, f"0x{'1' * 40}:0", txid, "d" * 64, 51_000 * 21 * 10**9, block],
        )
    shown = client.withdrawal(made["id"])
    assert shown["network_fee"] == {"asset": "ETH", "amount": "0.001071000000000000"}
    assert shown["confirmations"] == 2
    bump = api.client("otto").bump_withdrawal(made["id"], feerate=45 * 10**9)
    assert bump["feerate"] == 45 * 10**9
    (chain,) = [each for each in client.status()["chains"] if each["chain"] == CHAIN]
    assert (chain["family"], chain["height"], chain["final_height"]) == ("evm", 12, 10)


def test_amounts_of_an_event_without_an_asset_are_of_its_chains(api: RunningApi) -> None:
    with Database(api.superuser_dsn, application="test") as db, db.transaction() as tx:
        emit(tx, "test", "x", {"chain": CHAIN, "fee_units": "1000000000000"})
        emit(tx, "test", "y", {"fee_units": "5"})
    found = {event["subject"]: event["data"] for event in api.client().events(limit=500)[0]}
    assert found["x"] == {"chain": CHAIN, "fee": "0.000001000000000000"}
    assert found["y"] == {"fee_units": "5"}


def test_a_person_writes_and_reads_whole_units(
    api: RunningApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "exchange.pem"
    api.keys["exchange"].save(key)

    def run(*arguments: str) -> Result:
        environment = {
            "STRONGROOM_API_URL": api.url,
            "STRONGROOM_CALLER": "exchange",
            "STRONGROOM_CALLER_KEY": str(key),
            "STRONGROOM_AUDIENCE": AUDIENCE,
        }
        return CliRunner().invoke(app, list(arguments), env=environment)

    ask = (
        "withdrawal",
        "create",
        "--customer",
        "alice",
        "--asset",
        "USDX",
        "--amount",
        "2.5",
        "--to",
        FOREIGN,
    )
    without = run(*ask)
    assert without.exit_code == 2
    assert "--fee-ceiling" in without.stderr
    assert "ETH" in without.stderr
    assert "no worker has seen yet" in without.stderr
    with Database(api.superuser_dsn, application="test") as db, db.transaction() as tx:
        observe(tx, CHAIN, 3 * 10**9)
    suggested = run(*ask)
    assert suggested.exit_code == 0, suggested.output
    assert "fee ceiling 0.000900000000000000 ETH (suggested at the present price)" in suggested.stderr
    assert "0.000900000000000000 ETH" in suggested.stdout
    made = json.loads(run(*ask, "--fee-ceiling", "0.01", "--json").stdout)
    assert (made["amount"], made["asset"]) == ("2.500000", "USDX")
    assert made["fee_ceiling"] == {"asset": "ETH", "amount": "0.010000000000000000"}
    shown = run("withdrawal", "show", made["id"])
    assert "2.500000" in shown.stdout
    assert "0.010000000000000000 ETH" in shown.stdout
    refused = run(*ask[:7], "2.5000001", *ask[8:], "--fee-ceiling", "0.01")
    assert refused.exit_code == 2
    statement = json.loads(run("ledger", "statement", "alice", "--asset", "WHOLE", "--json").stdout)
    assert (statement["ok"], statement["replayed"]) == (True, {"available": "7"})
    status = run("status")
    assert status.exit_code == 0
    assert "ethereum-devnet" in status.stdout
    assert "5000.000001 USDX" in status.stdout
