"""Sweeps over the API: listed by page and state, shown one by one, with amounts beside their assets."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

import psycopg
import pytest

from custody.ids import new_id
from policies.intent import Kind
from tests.fakes.api import RunningApi, kind, running_api


@pytest.fixture
def api(database: str) -> Iterator[RunningApi]:
    with running_api(database) as running:
        yield running


def recorded(api: RunningApi, database: str, state: str, *units: int) -> UUID:
    """A consolidation in a state, of addresses with so many satoshis each."""
    sweep_id, transaction_id = new_id(), new_id()
    chain, txid = api.bundle.networks[0].chain, sweep_id.hex * 2
    with psycopg.connect(database) as connection:
        connection.execute(
            "INSERT INTO transactions (id, chain, keyset, kind, state, confirmed_txid, height, block_hash)"
            " VALUES (%s, %s, 'btc-hot', %s, 'final', %s, 5, %s)",
            [transaction_id, chain, Kind.CONSOLIDATION, txid, "ab" * 32],
        )
        connection.execute(
            "INSERT INTO transaction_versions (transaction_id, version, request, unsigned, content, resources, signed,"
            " txid, fee_units, feerate, size, state)"
            " VALUES (%s, 1, '{}', '\\x01', %s, '{a:0}', '\\x01', %s, 1234, 1000, 200, 'signed')",
            [transaction_id, txid, txid],
        )
        connection.execute(
            "INSERT INTO sweeps (id, chain, keyset, kind, state, reason, transaction_id)"
            " VALUES (%s, %s, 'btc-hot', %s, %s, 'many', %s)",
            [sweep_id, chain, Kind.CONSOLIDATION, state, transaction_id],
        )
        for number, amount in enumerate(units):
            connection.execute(
                "WITH a AS (INSERT INTO addresses (chain, keyset, asset, purpose, branch, index, address, script)"
                " VALUES (%s, 'btc-hot', 'BTC', 'change', 1, %s, %s, %s) RETURNING id)"
                " INSERT INTO sweep_items (sweep_id, address_id, asset, units) SELECT %s, a.id, 'BTC', %s FROM a",
                [
                    chain,
                    number + int(sweep_id.hex[-5:], 16) * 8,
                    f"{sweep_id}{number}",
                    sweep_id.bytes + bytes([number]),
                    sweep_id,
                    amount,
                ],
            )
    return sweep_id


def test_a_sweep_shows_what_it_moves_and_what_that_cost(api: RunningApi, database: str) -> None:
    sweep_id = recorded(api, database, "confirmed", 70_000, 30_000)
    shown = api.client().sweep(str(sweep_id))
    assert shown["amounts"] == [{"asset": "BTC", "amount": "0.00100000"}]
    assert shown["network_fee"] == {"asset": "BTC", "amount": "0.00001234"}
    assert (shown["kind"], shown["state"], shown["reason"]) == ("consolidation", "confirmed", "many")
    assert (shown["addresses"], shown["txid"]) == (2, sweep_id.hex * 2)


def test_sweeps_are_listed_by_page_and_by_state(api: RunningApi, database: str) -> None:
    ids = [str(recorded(api, database, state, 50_000)) for state in ("abandoned", "confirmed", "confirmed")]
    client = api.client()
    assert [item["id"] for item in client.sweeps()] == ids
    assert [item["id"] for item in client.sweeps(state="confirmed")] == ids[1:]
    first = client.get("/v1/sweeps", {"limit": "2"})
    assert [item["id"] for item in first["items"]] == ids[:2]
    rest = client.get("/v1/sweeps", {"limit": "2", "after": first["next"]})
    assert ([item["id"] for item in rest["items"]], rest["next"]) == (ids[2:], None)


def test_a_sweep_that_is_none_and_a_state_that_is_none_are_refused(api: RunningApi) -> None:
    client = api.client()
    missing = client.send("GET", f"/v1/sweeps/{new_id()}")
    assert (missing.status_code, kind(missing)) == (404, "not-found")
    wrong = client.send("GET", "/v1/sweeps", {"state": "lost"})
    assert wrong.status_code == 400
    assert client.get("/v1/sweeps") == {"items": [], "next": None}
