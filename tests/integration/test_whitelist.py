"""Whitelists: an entry is asked for, signed, listed, cools, is used and removed; on a real database, node and guard."""

from __future__ import annotations

import time
import uuid
from typing import Any
from uuid import UUID

import pytest
from psycopg.errors import CheckViolation, InsufficientPrivilege

from chains.errors import InvalidAddress
from custody.errors import NotFound, OrderMismatch, UnknownCustomer
from custody.lifecycle import ImpossibleTransition
from custody.whitelist import service
from custody.whitelist.errors import AlreadyListed, DuplicateEntry, EntryMismatch
from custody.whitelist.lifecycle import Standing
from custody.whitelist.model import Entry
from ops.devnet.process import wait_until
from policies.canonical import BadSignature
from policies.keys import SigningKey, sign_entry
from policies.rules import HOUSE, Rule, When
from policies.statements import SignedWhitelistEntry, WhitelistEntry
from tests.fakes.signing import CHAIN
from tests.fakes.till import Till

HOUR = 3600
LISTED_ONLY = Rule(id="listed-only", when=When(destinations=("one-time",)), deny="list it first")
LOOKALIKE = Rule(id="lookalike", when=When(lookalike=True), deny="not the one that you know")
YOUNG = Rule(id="young", when=When(destination_younger_than=HOUR), deny="the destination is too new")


class Lister:
    """A till whose customers have whitelists."""

    def __init__(self, till: Till) -> None:
        self.till = till
        till.customer("alice", 5_000_000)

    def now(self) -> int:
        return int(time.time())

    def ask(self, address: str, owner: str = "alice", **changes: Any) -> Entry:
        fields: dict[str, Any] = {
            "provenance": "the customer, by mail",
            "label": None,
            "keys": None,
        } | changes
        entry_id = fields.pop("entry_id", None) or uuid.uuid4()
        with self.till.api.transaction() as tx:
            return service.request(
                tx,
                entry_id,
                owner=owner,
                chain=CHAIN,
                address=address,
                caller=self.till.caller,
                bundle=self.till.bundle,
                **fields,
            )

    def signed(self, entry: Entry, key: SigningKey | None = None, **changes: Any) -> SignedWhitelistEntry:
        fields: dict[str, Any] = {
            "v": 1,
            "id": str(entry.id),
            "caller": "exchange",
            "owner": entry.owner,
            "chain": entry.chain,
            "address": entry.address,
            "issued_at": self.now(),
        }
        return sign_entry(WhitelistEntry(**(fields | changes)), key or self.till.world.caller)

    def confirm(self, entry: Entry, signed: SignedWhitelistEntry | None = None) -> Entry:
        with self.till.api.transaction() as tx:
            return service.confirm(
                tx, entry.id, signed or self.signed(entry), self.till.caller, self.till.bundle, now=self.now()
            )

    def remove(self, entry: Entry) -> Entry:
        with self.till.api.transaction() as tx:
            return service.remove(tx, entry.id, by="exchange")

    def listed(self, address: str, *, ago: int = 0, owner: str = "alice") -> Entry:
        """An entry that was listed so many seconds ago."""
        entry = self.confirm(self.ask(address, owner))
        service.list_confirmed(self.till.db, self.till.bundle, now=self.now() - ago)
        return self.entry(entry.id)

    def entry(self, entry_id: UUID) -> Entry:
        with self.till.admin.snapshot() as tx:
            return service.get(tx, entry_id)

    def standing(self, entry: Entry, *, later: int = 0) -> Standing:
        return service.standing_of(self.entry(entry.id), self.till.bundle, now=self.now() + later)

    def pay(self, address: str, units: int = 1_000_000) -> tuple[str, str]:
        """Request a payment, decide about it, and say what became of it."""
        withdrawal = self.till.request("alice", units, destination=address)
        self.till.route()
        found = self.till.withdrawal(withdrawal.id)
        return str(found.state), found.reason


@pytest.fixture
def lister(till: Till) -> Lister:
    found = Lister(till)
    till.adopt(2, requirements=(LISTED_ONLY, YOUNG))
    return found


def test_an_entry_is_asked_for_signed_listed_cools_and_is_used(lister: Lister) -> None:
    address = lister.till.outside.address()
    entry = lister.ask(address)
    assert lister.standing(entry) is Standing.REQUESTED
    assert lister.pay(address)[0] == "rejected"
    lister.confirm(entry)
    assert lister.standing(entry) is Standing.CONFIRMED
    lister.till.route()
    assert lister.standing(entry) is Standing.COOLING
    state, reason = lister.pay(address)
    assert (state, "listed-only" in reason or "list it first" in reason) == ("rejected", True)
    assert lister.standing(entry, later=HOUR - 2) is Standing.COOLING
    assert lister.standing(entry, later=HOUR) is Standing.USABLE


def test_only_the_very_address_of_a_usable_entry_is_paid(lister: Lister) -> None:
    address, other = lister.till.outside.address(), lister.till.outside.address()
    lister.till.adopt(
        3, requirements=(LISTED_ONLY,)
    )  # so that entries cool for a day, and signers ask for no age
    lister.listed(address, ago=24 * HOUR)
    assert lister.pay(address)[0] == "queued"
    assert lister.pay(other)[0] == "rejected"
    lister.till.send()
    lister.till.settle()
    assert lister.till.paid_to(address) == 1_000_000


def test_the_signers_own_clock_for_a_destination_starts_with_its_entry(lister: Lister) -> None:
    till, address = lister.till, lister.till.outside.address()
    brief = Rule(id="young", when=When(destination_younger_than=2), deny="the destination is too new")
    till.adopt(3, requirements=(LISTED_ONLY, brief))
    entry = lister.listed(address)
    assert till.announce() == 1
    [seen] = sights(till, address)
    assert till.announce() == 0
    wait_until(lambda: lister.standing(entry) is Standing.USABLE, timeout=20, what="a usable entry")
    withdrawal = till.request("alice", 1_000_000, destination=address)
    till.send()  # the signer has known it for as long as we have: it is not refused
    till.settle()
    assert till.withdrawal(withdrawal.id).state == "settled"
    assert sights(till, address) == [seen]


def test_an_order_that_was_too_early_starts_the_signers_clock_too(lister: Lister) -> None:
    address = lister.till.outside.address()
    lister.till.adopt(3, requirements=(YOUNG,))
    assert lister.pay(address)[0] == "rejected"
    assert lister.till.announce() == 1
    assert len(sights(lister.till, address)) == 1


def test_no_edit_of_the_database_makes_a_signer_pay_before_its_own_first_sight_is_old_enough(
    lister: Lister,
) -> None:
    """All of the online side's SQL is the attacker's; the caller's key is not."""
    till, address = lister.till, lister.till.outside.address()
    entry = lister.listed(address)
    till.announce()
    with till.admin.transaction() as tx:
        tx.execute("SET LOCAL session_replication_role = replica")
        tx.execute("UPDATE whitelist SET listed_at = now() - interval '9 days' WHERE id = %s", [entry.id])
        tx.execute("UPDATE destinations SET since = now() - interval '9 days'")
    assert lister.pay(address)[0] == "queued"
    assert till.build() is not None
    assert till.sign() == []
    [row] = till.query("SELECT reason, state FROM withdrawals")
    assert (row["state"], "destination-too-young" in row["reason"]) == ("queued", True)


def sights(till: Till, address: str) -> list[int]:
    """Since when the signer knows a destination."""
    since = till.journal.write(lambda book: book.destination_since(CHAIN, address))
    return [] if since is None else [since]


def test_who_lists_anew_what_was_removed_waits_anew(lister: Lister) -> None:
    address = lister.till.outside.address()
    lister.remove(lister.listed(address, ago=HOUR))
    again = lister.listed(address)
    assert lister.standing(again) is Standing.COOLING
    assert lister.pay(address)[0] == "rejected"


def test_removing_stops_what_was_let_through_and_is_not_built(lister: Lister) -> None:
    address = lister.till.outside.address()
    entry = lister.listed(address, ago=HOUR)
    withdrawal = lister.till.request("alice", 1_000_000, destination=address)
    lister.till.route()
    assert lister.till.withdrawal(withdrawal.id).state == "queued"
    lister.remove(entry)
    # At once: before any worker has decided again nothing is built.
    assert lister.till.build() is None
    assert lister.till.withdrawal(withdrawal.id).state == "queued"
    lister.till.route()
    ended = lister.till.withdrawal(withdrawal.id)
    assert (ended.state, "list it first" in ended.reason) == ("rejected", True)
    assert lister.till.balance("alice") == 5_000_000
    assert lister.remove(entry).state == "removed"
    before = lister.till.contents()
    lister.remove(entry)
    lister.till.route()
    assert lister.till.contents() == before


def test_removing_what_was_never_listed_holds_no_payment_up(lister: Lister) -> None:
    lister.till.adopt(3, requirements=())
    address = lister.till.outside.address()
    withdrawal = lister.till.request("alice", 1_000_000, destination=address)
    lister.till.route()
    lister.remove(lister.confirm(lister.ask(address)))
    assert lister.till.query("SELECT policy_version FROM withdrawals") == [{"policy_version": 3}]
    assert lister.till.build() is not None
    assert lister.till.withdrawal(withdrawal.id).state == "signing"


def test_a_list_is_its_owners_alone(lister: Lister) -> None:
    lister.till.enrol("bob")
    address, ours = lister.till.outside.address(), lister.till.outside.address()
    lister.listed(address, ago=HOUR, owner="bob")
    house = lister.listed(ours, ago=HOUR, owner=HOUSE)
    assert lister.standing(house) is Standing.CONFIRMED
    with lister.till.db.transaction() as tx:
        service.accept(tx, house.id, lister.till.bundle, by="olga", now=lister.now() - HOUR)
    assert lister.standing(house) is Standing.USABLE
    assert lister.pay(address)[0] == "rejected"
    assert lister.pay(ours)[0] == "rejected"


def test_asking_and_confirming_again_changes_nothing_and_other_content_is_refused(lister: Lister) -> None:
    address, other = lister.till.outside.address(), lister.till.outside.address()
    entry = lister.ask(address)
    signed = lister.signed(entry)
    lister.confirm(entry, signed)
    lister.till.route()
    before = lister.till.contents()
    assert lister.ask(address, entry_id=entry.id).id == entry.id
    assert lister.confirm(entry, signed).state == "listed"
    lister.till.route()
    assert lister.till.contents() == before
    with pytest.raises(DuplicateEntry):
        lister.ask(other, entry_id=entry.id)
    with pytest.raises(DuplicateEntry):
        lister.ask(address, entry_id=entry.id, provenance="a phone call")
    with pytest.raises(AlreadyListed, match=str(entry.id)):
        lister.ask(address)
    with pytest.raises(ImpossibleTransition):
        lister.confirm(entry, lister.signed(entry, issued_at=5))
    lister.remove(entry)
    with pytest.raises(ImpossibleTransition):
        lister.confirm(entry, signed)


def test_what_is_no_address_or_of_nobody_is_not_listed(lister: Lister) -> None:
    address = lister.till.outside.address()
    with pytest.raises(InvalidAddress):
        lister.ask("bcrt1qnonsense")
    with pytest.raises(OrderMismatch):
        lister.ask(address.upper())
    with pytest.raises(UnknownCustomer):
        lister.ask(address, "nobody")
    with pytest.raises(NotFound), lister.till.api.transaction() as tx:
        service.remove(tx, uuid.uuid4(), by="exchange")


def test_only_a_callers_word_about_this_very_entry_confirms_it(lister: Lister) -> None:
    address, other = lister.till.outside.address(), lister.till.outside.address()
    entry = lister.ask(address)
    others: tuple[dict[str, Any], ...] = (
        {"address": other},
        {"owner": "bob"},
        {"id": str(uuid.uuid4())},
        {"chain": "elsewhere"},
    )
    for changes in others:
        with pytest.raises(EntryMismatch):
            lister.confirm(entry, lister.signed(entry, **changes))
    with pytest.raises(BadSignature):
        lister.confirm(entry, lister.signed(entry, SigningKey.generate()))
    assert lister.standing(entry) is Standing.REQUESTED


def test_a_destination_grows_older_from_the_first_genuine_order_to_it_and_never_younger(
    lister: Lister,
) -> None:
    till, address = lister.till, lister.till.outside.address()
    lister.till.adopt(3, requirements=(YOUNG,))
    assert lister.pay(address)[0] == "rejected"
    [row] = till.query("SELECT owner, address, since FROM destinations")
    assert (row["owner"], row["address"]) == ("alice", address)
    assert lister.pay(address)[0] == "rejected"
    assert till.query("SELECT since FROM destinations") == [{"since": row["since"]}]
    age = till.query(
        "SELECT decision->'facts'->>'destination_age_seconds' AS age FROM withdrawals ORDER BY created_at"
    )
    assert int(age[0]["age"]) == 0


def test_a_lookalike_of_a_known_address_is_warned_about_and_recorded(lister: Lister) -> None:
    till, address = lister.till, lister.till.outside.address()
    head, tail = address[len("bcrt1q") :][:4], address[-4:]
    known = f"bcrt1q{head}{'q' * 30}{tail}"
    with till.db.transaction() as tx:
        # As somebody's poison would be: no address of the wallet, only alike.
        service.note_destination(tx, "alice", CHAIN, known, now=lister.now())
    withdrawal = till.request("alice", 1_000_000, destination=address)
    till.route()
    [row] = till.query("SELECT decision FROM withdrawals WHERE id = %s", withdrawal.id)
    assert row["decision"]["lookalikes"] == [known]
    assert row["decision"]["facts"]["lookalike"] is True
    [alert] = till.query("SELECT message FROM alerts WHERE type = 'destination.lookalike'")
    assert address in alert["message"]
    assert known in alert["message"]
    with till.api.snapshot() as tx:
        assert service.similar(tx, "alice", CHAIN, address) == (known,)
        assert service.similar(tx, "bob", CHAIN, address) == ()


def test_fault_43_a_rule_denies_what_looks_like_an_older_destination_and_nothing_else(lister: Lister) -> None:
    till, address = lister.till, lister.till.outside.address()
    head, tail = address[len("bcrt1q") :][:4], address[-4:]
    with till.db.transaction() as tx:
        service.note_destination(tx, "alice", CHAIN, f"bcrt1q{head}{'q' * 30}{tail}", now=lister.now() - HOUR)
    till.adopt(3, requirements=(LOOKALIKE,))
    assert lister.pay(address) == ("rejected", "denied: not the one that you know (rule lookalike)")
    # Whitelisted by the caller's own signature, it is meant. Then it is the older one's turn to be no lookalike of it.
    lister.listed(address, ago=25 * HOUR)
    assert lister.pay(address)[0] != "rejected"
    with till.api.snapshot() as tx:
        assert service.similar(tx, "alice", CHAIN, f"bcrt1q{head}{'q' * 30}{tail}") == ()


# What somebody with SQL can do.


def test_what_was_changed_in_the_database_is_no_entry_and_an_alert(lister: Lister) -> None:
    till, address, other = lister.till, lister.till.outside.address(), lister.till.outside.address()
    entry = lister.listed(address, ago=HOUR)
    with till.admin.transaction() as tx:
        tx.execute("SET LOCAL session_replication_role = replica")
        tx.execute("UPDATE whitelist SET address = %s WHERE id = %s", [other, entry.id])
    assert lister.pay(other)[0] == "rejected"
    [alert] = till.query("SELECT severity FROM alerts WHERE type = 'whitelist.tampered'")
    assert alert["severity"] == "critical"


def test_the_api_role_lists_nothing_and_ages_nothing(lister: Lister) -> None:
    till, address = lister.till, lister.till.outside.address()
    entry = lister.confirm(lister.ask(address))
    for statement in (
        "UPDATE whitelist SET state = 'listed', listed_at = now()",
        "UPDATE whitelist SET listed_at = now() - interval '9 days'",
        "UPDATE whitelist SET address = 'another'",
        "UPDATE whitelist SET owner = 'bob'",
        "INSERT INTO destinations VALUES ('alice', 'c', 'd', now() - interval '9 days')",
        (
            "INSERT INTO whitelist (id, owner, chain, address, provenance, requested_by, state, listed_at)"
            " VALUES (gen_random_uuid(), 'alice', 'c', 'd', 'p', 'x', 'listed', now() - interval '9 days')"
        ),
        "DELETE FROM whitelist",
        "UPDATE withdrawals SET policy_version = 9",
    ):
        with pytest.raises((InsufficientPrivilege, CheckViolation)), till.api.transaction() as tx:
            tx.execute(statement)
    with pytest.raises((InsufficientPrivilege, CheckViolation)), till.api.transaction() as tx:
        tx.execute("UPDATE whitelist SET state = 'listed' WHERE id = %s", [entry.id])
    assert lister.standing(entry) is Standing.CONFIRMED


def test_not_even_the_owner_of_the_tables_makes_history_older(lister: Lister) -> None:
    entry = lister.listed(lister.till.outside.address())
    for statement in (
        "UPDATE whitelist SET listed_at = now() - interval '9 days'",
        "UPDATE destinations SET since = now() - interval '9 days'",
        "DELETE FROM destinations",
        "DELETE FROM whitelist",
    ):
        with pytest.raises((CheckViolation, InsufficientPrivilege)), lister.till.admin.transaction() as tx:
            tx.execute(statement)
    assert lister.standing(entry) is Standing.COOLING


def test_an_entry_comes_into_use_by_waiting_alone(lister: Lister) -> None:
    till, address = lister.till, lister.till.outside.address()
    brief = Rule(id="young", when=When(destination_younger_than=1), deny="the destination is too new")
    till.adopt(3, requirements=(LISTED_ONLY, brief))
    lister.confirm(lister.ask(address))
    till.route()
    wait_until(lambda: lister.pay(address, 10_000)[0] == "queued", timeout=20, what="a usable entry")
