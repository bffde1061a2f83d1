"""Whitelists, proofs and what callers say of a session, through the API and the console."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import coincurve
import msgspec
import pytest
from eth_account import Account
from eth_account.messages import encode_defunct
from structlog.testing import capture_logs
from typer.testing import CliRunner, Result

import custody.console.whitelist  # noqa: F401 - adds its verbs
from chains.btc.address import address_text, parse_address
from chains.btc.network import NETWORKS
from chains.btc.script import p2wpkh_script
from chains.types import Address
from custody.console.app import app
from custody.ids import new_id
from custody.screening.ports import Elsewhere, Screening
from custody.storage.db import Database
from custody.web.client import ApiRefused
from custody.whitelist import proofs
from custody.whitelist.errors import ChallengeExpired
from custody.whitelist.service import list_confirmed, note_destination
from custody.withdrawals.routing import route
from policies.bundle import Bundle
from policies.intent import Order
from policies.rules import Rule, When
from policies.statements import WhitelistEntry
from tests.fakes.api import AUDIENCE, BTC, FOREIGN_ADDRESS, RunningApi, as_role, kind, running_api
from tests.support.messages import signed_by

CHAIN = "bitcoin-regtest"
REGTEST = NETWORKS["regtest"]
RULES = (
    Rule(id="new-device", when=When(new_device=True), deny="not from a new device"),
    # About nobody; but entries cool for so long.
    Rule(id="young", when=When(initiators=("nobody",), destination_younger_than=600), deny="too new"),
    Rule(id="young-mfa", when=When(mfa_younger_than=3600), deny="the second factor is too new"),
)


def with_rules(*rules: Rule) -> Callable[[Bundle], Bundle]:
    def extended(bundle: Bundle) -> Bundle:
        policy = msgspec.structs.replace(bundle.policy, rules=(*bundle.policy.rules, *rules))
        return msgspec.structs.replace(bundle, policy=policy)

    return extended


@pytest.fixture
def api(database: str) -> Iterator[RunningApi]:
    with capture_logs(), running_api(database, extend=with_rules(*RULES)) as running:
        running.client().create_customer("alice")
        running.fund("alice", BTC)
        yield running


def work(api: RunningApi) -> None:
    """What a worker does."""
    with Database(as_role(api.superuser_dsn, "strongroom_worker"), application="worker", pool_size=2) as db:
        list_confirmed(db, api.bundle, now=api.now())
        route(db, api.bundle, Screening([Elsewhere("tests")]), now=api.now())


def asked(api: RunningApi, address: str = FOREIGN_ADDRESS, **changes: Any) -> dict[str, Any]:
    return api.client().request_entry(
        str(new_id()), owner="alice", chain=CHAIN, address=address, provenance="a test", **changes
    )


def document(entry: Mapping[str, Any], **changes: Any) -> WhitelistEntry:
    fields = {name: entry[name] for name in ("id", "owner", "chain", "address")}
    return WhitelistEntry(**({"v": 1, "caller": "exchange", "issued_at": 1, **fields} | changes))


def refused(call: Callable[[], object]) -> tuple[int, str]:
    with pytest.raises(ApiRefused) as refusal:
        call()
    return refusal.value.status, refusal.value.kind


# Whitelists.


def test_an_entry_goes_its_way_and_shows_its_label_to_its_readers_only(api: RunningApi) -> None:
    client = api.client()
    entry = asked(api, label="Grandma's wallet")
    assert (entry["state"], entry["label"], entry["usable_at"]) == ("requested", "Grandma's wallet", None)
    confirmed = client.confirm_entry(document(entry))
    assert (confirmed["state"], confirmed["label"]) == ("confirmed", None)
    work(api)
    shown = client.get(f"/v1/whitelist/{entry['id']}")
    assert (shown["state"], shown["label"], shown["usable_at"] is not None) == (
        "cooling",
        "Grandma's wallet",
        True,
    )
    api.now_offset = 601
    later = api.client(clock=lambda: time.time() + api.now_offset)
    assert later.get(f"/v1/whitelist/{entry['id']}")["state"] == "usable"
    api.now_offset = 0
    assert client.remove_entry(entry["id"])["state"] == "removed"
    assert client.remove_entry(entry["id"])["state"] == "removed"
    assert [each["id"] for each in client.items("/v1/whitelist", {"owner": "alice"})] == [entry["id"]]
    everything = json.dumps({name: str(rows) for name, rows in api.contents().items()})
    assert "Grandma" not in everything


def test_asking_again_changes_nothing_and_asking_for_something_else_is_refused(api: RunningApi) -> None:
    client, entry = api.client(), asked(api, label="mine")
    before = api.contents()

    def again(**changes: Any) -> object:
        fields = {
            "owner": "alice",
            "chain": CHAIN,
            "address": FOREIGN_ADDRESS,
            "provenance": "a test",
            "label": "mine",
        }
        return client.request_entry(entry["id"], **(fields | changes))

    assert again() == entry
    assert refused(lambda: again(provenance="another")) == (409, "duplicate-entry")
    assert refused(lambda: again(label="other")) == (409, "duplicate-entry")
    assert refused(lambda: asked(api)) == (409, "already-listed")
    assert refused(lambda: asked(api, FOREIGN_ADDRESS.upper()))[0] == 400
    assert refused(lambda: again(owner="nobody")) == (404, "unknown-customer")
    assert api.contents() == before


def test_a_signature_of_somebody_else_or_about_something_else_confirms_nothing(api: RunningApi) -> None:
    client, entry = api.client(), asked(api)
    assert refused(lambda: client.confirm_entry(document(entry, owner="house"))) == (400, "entry-mismatch")
    assert refused(lambda: client.confirm_entry(document(entry, caller="other"))) == (400, "bad-signature")
    body = {"entry": document(entry).to_object(), "signature": api.keys["other"].sign(document(entry))}
    path = f"/v1/whitelist/{entry['id']}/confirm"
    assert refused(lambda: client.post(path, body)) == (400, "bad-signature")
    assert client.get(f"/v1/whitelist/{entry['id']}")["state"] == "requested"


def test_the_house_waits_for_an_operator_and_is_no_customer(api: RunningApi) -> None:
    client = api.client()
    entry = client.request_entry(
        str(new_id()), owner="house", chain=CHAIN, address=FOREIGN_ADDRESS, provenance="the plan"
    )
    client.confirm_entry(document(entry))
    work(api)
    assert client.get(f"/v1/whitelist/{entry['id']}")["state"] == "confirmed"
    assert refused(lambda: client.create_customer("house")) == (400, "invalid-value")


def test_fault_43_who_asks_for_or_pays_to_a_lookalike_is_warned(api: RunningApi) -> None:
    body = FOREIGN_ADDRESS[len("bcrt1q") :]
    known = f"bcrt1q{body[:4]}{'q' * 30}{body[-4:]}"
    with Database(api.superuser_dsn, application="tests") as db, db.transaction() as tx:
        note_destination(tx, "alice", CHAIN, known, now=api.now())
    entry = asked(api)
    assert [known in warning for warning in entry["warnings"]] == [True]
    made = api.client().withdraw(api.order())
    assert [known in warning for warning in made["warnings"]] == [True]
    work(api)
    with api.database.snapshot() as tx:
        [row] = tx.all("SELECT decision->'lookalikes' AS found FROM withdrawals")
    assert row["found"] == [known]


# Whose a destination is.


def sign(key: coincurve.PrivateKey, address: str, text: str) -> str:
    return signed_by(key, parse_address(address, REGTEST, CHAIN), text)


def challenged(api: RunningApi, address: str) -> dict[str, Any]:
    body = {"owner": "alice", "chain": CHAIN, "address": address}
    return api.client().post("/v1/ownership-challenges", body)


def test_a_challenge_is_signed_by_the_key_of_the_address_once(api: RunningApi) -> None:
    key = coincurve.PrivateKey()
    address = address_text(p2wpkh_script(key.public_key.format()), REGTEST)
    challenge = challenged(api, address)
    assert address in challenge["text"]
    assert AUDIENCE in challenge["text"]
    path = f"/v1/ownership-challenges/{challenge['id']}/proof"
    foreign = sign(coincurve.PrivateKey(), address, challenge["text"])
    assert refused(lambda: api.client().post(path, {"signature": foreign})) == (409, "proof-refused")
    other = challenged(api, address)
    good = sign(key, address, challenge["text"])
    elsewhere = f"/v1/ownership-challenges/{other['id']}/proof"
    assert refused(lambda: api.client().post(elsewhere, {"signature": good})) == (409, "proof-refused")
    assert not proved(api, "alice", address)
    assert api.client().post(path, {"signature": good})["proved_at"] is not None
    assert api.client().post(path, {"signature": good})["proved_at"] is not None
    assert refused(lambda: api.client().post(path, {"signature": good + "A"})) == (409, "challenge-used")
    assert proved(api, "alice", address)
    assert not proved(api, "bob", address)
    late, after = sign(key, address, other["text"]), api.now() + proofs.CHALLENGE_SECONDS
    with pytest.raises(ChallengeExpired), api.database.transaction() as tx:
        proofs.prove(tx, api.bundle, UUID(other["id"]), late, now=after)


def proved(api: RunningApi, owner: str, address: str, chain: str = CHAIN) -> bool:
    with api.database.snapshot() as tx:
        return proofs.is_proved(tx, api.bundle, owner, chain, address)


def test_a_row_that_says_something_is_proved_proves_nothing(api: RunningApi) -> None:
    key = coincurve.PrivateKey()
    address = address_text(p2wpkh_script(key.public_key.format()), REGTEST)
    challenge = challenged(api, address)
    with api.database.transaction() as tx:
        tx.execute(
            "UPDATE ownership_proofs SET signature = 'AA==', proved_at = now() WHERE id = %s",
            [challenge["id"]],
        )
    assert not proved(api, "alice", address)


def test_an_address_whose_key_cannot_sign_messages_gets_no_challenge(api: RunningApi) -> None:
    script_hash = "2MvFmznfQjLsfocBv45Ty89SqXsHkzjX1Sp"
    assert refused(lambda: challenged(api, script_hash)) == (400, "invalid-value")


def test_evm_keys_sign_by_eip_191() -> None:
    account, other = Account.create(), Account.create()
    address = Address("ethereum", account.address, bytes.fromhex(account.address[2:]), "evm")
    good = account.sign_message(encode_defunct(text="text")).signature.hex()
    assert proofs.evm_signed(address, "text", good)
    assert proofs.evm_signed(address, "text", "0x" + good.removeprefix("0x"))
    assert not proofs.evm_signed(address, "texT", good)
    assert not proofs.evm_signed(
        address, "text", other.sign_message(encode_defunct(text="text")).signature.hex()
    )
    for noise in ("", "0x", "zz", "00" * 65, "ff" * 65, "00" * 3):
        assert not proofs.evm_signed(address, "text", noise)


# What a caller says of the session.


def paid(api: RunningApi, context: dict[str, Any] | None) -> tuple[str, str]:
    document = api.order().to_object() | ({} if context is None else {"context": context})
    made = api.client().withdraw(Order.from_object(document))
    work(api)
    found = api.client().withdrawal(made["id"])
    return found["state"], found["reason"]


KNOWN = {"new_device": False, "mfa_changed_at": 1}


def test_rules_about_the_session_go_by_what_the_caller_has_signed(api: RunningApi) -> None:
    assert paid(api, KNOWN)[0] == "queued"
    state, reason = paid(api, KNOWN | {"new_device": True})
    assert (state, "not from a new device" in reason) == ("rejected", True)
    state, reason = paid(api, KNOWN | {"mfa_changed_at": int(time.time()) - 60})
    assert (state, "second factor" in reason) == ("rejected", True)


@pytest.mark.parametrize("missing", [None, "new_device", "mfa_changed_at"])
def test_what_the_caller_does_not_say_denies_where_a_rule_asks(api: RunningApi, missing: str | None) -> None:
    said = None if missing is None else {name: value for name, value in KNOWN.items() if name != missing}
    state, reason = paid(api, said)
    assert (state, "missing-fact" in reason) == ("rejected", True)


@pytest.mark.parametrize("edited", [{"new_device": False}, {"mfa_methods": ["totp"]}, {"kyc_level": 3}])
def test_what_was_said_of_the_session_cannot_be_edited_on_its_way(
    api: RunningApi, edited: dict[str, Any]
) -> None:
    order = Order.from_object(api.order().to_object() | {"context": KNOWN | {"new_device": True}})
    body = api.signed(order)
    body["order"]["context"] = body["order"]["context"] | edited
    before = api.contents()
    response = api.client().send("POST", "/v1/withdrawals", None, body, idempotency_key=str(new_id()))
    assert (response.status_code, kind(response)) == (400, "bad-signature")
    del body["order"]["context"]
    response = api.client().send("POST", "/v1/withdrawals", None, body, idempotency_key=str(new_id()))
    assert (response.status_code, kind(response)) == (400, "bad-signature")
    assert api.contents() == before


# The console.


def test_all_of_it_can_be_done_by_hand(api: RunningApi, tmp_path: Path) -> None:
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

    place = ("--owner", "alice", "--chain", CHAIN, "--address", FOREIGN_ADDRESS)
    result = run("whitelist", "add", *place, "--provenance", "by hand", "--json")
    assert result.exit_code == 0, result.output
    entry = json.loads(result.stdout)
    wrong = run("whitelist", "confirm", entry["id"], "--address", "bcrt1qsomethingelse")
    assert (wrong.exit_code, "entry" in wrong.stderr.lower()) == (2, True)
    assert (
        json.loads(run("whitelist", "confirm", entry["id"], "--address", FOREIGN_ADDRESS, "--json").stdout)[
            "state"
        ]
        == "confirmed"
    )
    assert [
        each["id"] for each in json.loads(run("whitelist", "list", "--owner", "alice", "--json").stdout)
    ] == [entry["id"]]
    assert json.loads(run("whitelist", "remove", entry["id"], "--json").stdout)["state"] == "removed"
    assert json.loads(run("whitelist", "list", "--owner", "alice", "--json").stdout) == []
    assert json.loads(run("whitelist", "challenge", *place, "--json").stdout)["text"]
    made = run(
        "withdrawal", "create", "--customer", "alice", "--amount", "0.01", "--to", FOREIGN_ADDRESS, "--kyc-level", "2",
        "--known-device", "--new-ip", "--password-changed-at", "5", "--mfa-changed-at", "6", "--mfa-method", "totp",
        "--json",
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    with api.database.snapshot() as tx:
        row = tx.one("SELECT order_json FROM withdrawals WHERE id = %s", [json.loads(made.stdout)["id"]])
    assert json.loads(row["order_json"])["context"] == {
        "kyc_level": 2,
        "new_device": False,
        "new_ip": True,
        "password_changed_at": 5,
        "mfa_changed_at": 6,
        "mfa_methods": ["totp"],
    }
