"""What a verifier learns from a signer and tells it: open transactions, what became of them, and the signed log."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from policies.canonical import BadSignature, verify_ed25519
from policies.keys import SigningKey
from policies.statements import SignedResolution
from signers.journal.book import Book
from signers.journal.logchain import BEGINNING, LogBroken, Place, follow
from signers.ports import (
    AttestRequest,
    LogPage,
    LogRequest,
    OpenRequest,
    Refused,
    ResolveRequest,
    SignRequest,
)
from signers.trust.witness import MOST_ENTRIES, MOST_OPEN, JournalWitness
from signers.wallets import BitcoinVaultWallet
from tests.fakes.signer import SignerBench
from tests.fakes.signing import CHAIN, DAY, KEYSET, Draft
from tests.fakes.vault_signing import SoftCosigner


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[SignerBench]:
    made = SignerBench(tmp_path)
    yield made
    made.journal.close()


def contents(bench: SignerBench) -> list[str]:
    return [one.content for one in bench.witness.open(OpenRequest()).transactions]


def paid(bench: SignerBench, units: int = 1_000_000) -> tuple[Draft, SignRequest]:
    draft = bench.draft(units)
    request = bench.world.request(draft)
    bench.signatures(request)
    return draft, request


def told(bench: SignerBench, *resolutions: SignedResolution) -> int:
    return bench.witness.resolve(ResolveRequest(resolutions=resolutions)).accepted


# What is open, and what became of it.


def test_what_was_signed_is_open_with_its_resources_until_somebody_says_what_became_of_it(
    bench: SignerBench,
) -> None:
    draft, _ = paid(bench)
    (found,) = bench.witness.open(OpenRequest()).transactions
    assert found.chain == CHAIN
    assert found.resources == (f"{draft.coins[0].outpoint}",)
    assert told(bench, bench.resolution(CHAIN, found.content, "confirmed")) == 1
    assert contents(bench) == []


def test_open_transactions_come_page_by_page_in_order(
    bench: SignerBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signers.trust.witness.MOST_OPEN", 2)
    for _ in range(5):
        paid(bench)
    seen: list[str] = []
    after = None
    while page := bench.witness.open(OpenRequest(after=after)).transactions:
        seen += [one.content for one in page]
        after = (page[-1].chain, page[-1].content)
    assert seen == sorted(seen)
    assert len(seen) == 5
    assert MOST_OPEN == 1_000


def test_the_same_word_again_changes_nothing(bench: SignerBench) -> None:
    paid(bench)
    word = bench.resolution(CHAIN, contents(bench)[0], "dead")
    assert [told(bench, word), told(bench, word), told(bench, word, word)] == [1, 0, 0]


def test_a_confirmed_transaction_stays_so_and_a_dead_one_may_turn_out_confirmed(bench: SignerBench) -> None:
    paid(bench)
    (content,) = contents(bench)
    assert told(bench, bench.resolution(CHAIN, content, "dead")) == 1
    assert told(bench, bench.resolution(CHAIN, content, "confirmed")) == 1
    assert told(bench, bench.resolution(CHAIN, content, "dead")) == 0
    assert bench.journal.write(lambda book: book.outcome(CHAIN, content)) == "confirmed"


def test_of_a_transaction_that_was_never_signed_nothing_is_kept(bench: SignerBench) -> None:
    assert told(bench, bench.resolution(CHAIN, "ab" * 32, "confirmed")) == 0
    assert bench.witness.log(LogRequest(after=1)).entries == ()


def test_only_a_verifier_of_the_bundle_in_time_is_believed_and_else_none_of_the_call(
    bench: SignerBench,
) -> None:
    paid(bench)
    (content,) = contents(bench)
    good = bench.resolution(CHAIN, content, "dead")
    forged = SignedResolution(
        resolution=good.resolution, signature=SigningKey.generate().sign(good.resolution)
    )
    changed = msgspec.structs.replace(
        good, resolution=msgspec.structs.replace(good.resolution, outcome="confirmed")
    )
    stranger = bench.resolution(CHAIN, content, "dead", verifier="olga")
    for bad, code in (
        (forged, "resolution-signature"),
        (changed, "resolution-signature"),
        (stranger, "verifier-unknown"),
    ):
        with pytest.raises(Refused, match=code):
            told(bench, good, bad)
    assert contents(bench) == [content]
    (vera,) = bench.world.bundle().verifiers
    bench.adopt(2, verifiers=(msgspec.structs.replace(vera, not_after=bench.time),))
    with pytest.raises(Refused, match="verifier-expired"):
        told(bench, good)


def test_a_dead_version_frees_nothing_while_another_of_its_intent_is_open(bench: SignerBench) -> None:
    bench.adopt(2, cap_window_cap="1500000")
    draft = bench.draft(1_000_000)
    draft.intents = [bench.world.intent(order, policy_version=2) for order in draft.orders]
    bench.signatures(bench.world.request(draft))
    (first,) = contents(bench)
    bench.signatures(bench.world.request(replace(draft, fee_sats=3_000)))
    (second,) = set(contents(bench)) - {first}
    bench.resolve("dead", [first])
    bench.time += DAY
    bench.world.now = bench.time
    assert bench.codes(bench.under(2, 1_000_000)) == {"window-cap"}
    bench.resolve("dead", [second])
    bench.signatures(bench.under(2, 1_000_000))


def test_a_confirmed_version_ends_all_of_its_intent_and_counts_a_window_from_then_on(
    bench: SignerBench,
) -> None:
    bench.adopt(2, cap_window_cap="1500000")
    draft = bench.draft(1_000_000)
    draft.intents = [bench.world.intent(order, policy_version=2) for order in draft.orders]
    bench.signatures(bench.world.request(draft))
    (first,) = contents(bench)
    bench.signatures(bench.world.request(replace(draft, fee_sats=3_000)))
    bench.time += 3 * DAY
    bench.world.now = bench.time
    assert bench.codes(bench.under(2, 1_000_000)) == {"window-cap"}
    bench.resolve("confirmed", [first])
    bench.time += DAY - 1
    bench.world.now = bench.time
    bench.restart()
    assert bench.codes(bench.under(2, 1_000_000)) == {"window-cap"}
    bench.time += 1
    bench.signatures(bench.under(2, 1_000_000))


def test_a_payment_that_a_replacement_leaves_out_stays_open_with_the_earlier_version(
    bench: SignerBench,
) -> None:
    bench.adopt(2, cap_window_cap="1500000")
    both = bench.draft(600_000, 700_000)
    both.intents = [bench.world.intent(order, policy_version=2) for order in both.orders]
    bench.signatures(bench.world.request(both))
    (first,) = contents(bench)
    one = replace(both, orders=both.orders[:1], intents=both.intents[:1], fee_sats=3_000)
    bench.signatures(bench.world.request(one))
    (second,) = set(contents(bench)) - {first}
    bench.resolve("confirmed", [second])
    bench.time += DAY
    bench.world.now = bench.time
    # 700,000 of the earlier version, and its fee, still count; its other payment has been made long enough ago.
    assert bench.codes(bench.under(2, 796_001)) == {"window-cap"}
    bench.signatures(bench.under(2, 600_000))
    bench.resolve("dead", [first])
    bench.signatures(bench.under(2, 700_000))


def test_a_verifier_that_calls_all_dead_at_once_does_not_raise_what_is_signed_in_a_window(
    bench: SignerBench,
) -> None:
    bench.adopt(2, cap_window_cap="1500000")
    bench.signatures(bench.under(2, 1_000_000))
    bench.resolve("dead")
    bench.time += DAY - 1
    bench.world.now = bench.time
    assert bench.codes(bench.under(2, 1_000_000)) == {"window-cap"}


# The log.


def follow_all(bench: SignerBench, seen: Place = BEGINNING) -> tuple[Place, list[tuple[str, Any]]]:
    entries: list[tuple[str, Any]] = []
    while True:
        page = bench.witness.log(LogRequest(after=seen.number))
        seen = follow(page, seen, bench.keys.record.attestation_key)
        if not page.entries:
            return seen, entries
        entries += [(entry.what, json.loads(bytes(entry.body))) for entry in page.entries]


def test_the_log_tells_what_was_signed_for_whom_and_its_head_is_signed(bench: SignerBench) -> None:
    draft, request = paid(bench)
    bench.service.attest(
        AttestRequest(chain=CHAIN, keyset=KEYSET, customer="alice", asset="BTC", branch=0, index=7)
    )
    (content,) = contents(bench)
    bench.resolve("confirmed")
    place, entries = follow_all(bench)
    order = draft.orders[0]
    assert entries[0] == ("bundle", {"version": 1, "digest": bench.world.bundle().digest_hex()})
    assert entries[1] == (
        "transaction",
        {
            "chain": CHAIN,
            "keyset": KEYSET,
            "content": content,
            "fee": "2000",
            "payments": [
                {
                    "intent": order.id,
                    "kind": "payment",
                    "asset": "BTC",
                    "units": "1000000",
                    "destination": order.destination,
                    "customer": "alice",
                }
            ],
        },
    )
    assert entries[2] == (
        "attestation",
        {"keyset": KEYSET, "branch": 0, "index": 7, "customer": "alice", "asset": "BTC"},
    )
    assert entries[3][0] == "resolution"
    assert entries[3][1]["resolution"]["outcome"] == "confirmed"
    assert place.number == 4
    bench.signatures(request)
    assert follow_all(bench, place) == (place, []), "signing the same again is no news"


def test_the_head_is_signed_by_a_key_set_as_the_bundle_knows_no_attestation_key_of_a_vaults_part(
    bench: SignerBench,
) -> None:
    parts = {"a-vault": BitcoinVaultWallet(SoftCosigner.make(1, "a-vault"))}
    for wallets, signer in (({**parts, **bench.wallets()}, KEYSET), (parts, "a-vault")):
        witness = JournalWitness(wallets, bench.trust, bench.journal, bench.clock)
        assert witness.log(LogRequest(after=0)).head.keyset == signer


def test_a_refused_request_leaves_no_trace(bench: SignerBench) -> None:
    before, _ = follow_all(bench)
    assert bench.codes(bench.request(50_000_000))
    assert follow_all(bench)[0] == before


def test_a_long_log_comes_page_by_page(bench: SignerBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signers.trust.witness.MOST_ENTRIES", 3)
    for _ in range(7):
        paid(bench)
    place, entries = follow_all(bench)
    assert place.number == len(entries) == 8
    assert MOST_ENTRIES == 500
    monkeypatch.setattr("signers.trust.witness.MOST_ENTRIES", 500)
    monkeypatch.setattr("signers.journal.book.PAGE_BYTES", 1)
    assert len(bench.witness.log(LogRequest(after=0)).entries) == 1
    assert follow_all(bench) == (place, entries)


def test_fault_36_both_stores_restored_together_are_found_by_whoever_has_seen_more_of_the_log(
    bench: SignerBench, tmp_path: Path
) -> None:
    """Journal and mark of yesterday agree, so the signer itself can't know. Its verifier does, and refuses."""
    copy = tmp_path / "copy"
    paid(bench)
    bench.journal.close()
    shutil.copytree(bench.directory, copy, ignore=shutil.ignore_patterns("copy"))
    bench.start()
    paid(bench)
    seen, _ = follow_all(bench)
    bench.journal.close()
    for path in copy.rglob("*"):
        if path.is_file():
            shutil.copy(path, bench.directory / path.relative_to(copy))
    for path in bench.directory.glob("journal.sqlite-*"):
        path.unlink()
    bench.start()
    with pytest.raises(LogBroken, match="the signer has forgotten some"):
        follow_all(bench, seen)
    # And after it has signed something else in the same place, its history is another one.
    paid(bench)
    paid(bench)
    with pytest.raises(LogBroken):
        follow_all(bench, seen)


def changed_pages(page: LogPage) -> Iterator[LogPage]:
    """What somebody between signer and reader could make of a page."""
    first, second = page.entries[:2]
    other = msgspec.structs.replace(
        second, body=msgspec.Raw(bytes(second.body).replace(b"1000000", b"1000001"))
    )
    yield msgspec.structs.replace(page, entries=(first, other, *page.entries[2:]))
    yield msgspec.structs.replace(page, entries=(second, first, *page.entries[2:]))
    yield msgspec.structs.replace(page, entries=page.entries[1:])
    yield msgspec.structs.replace(page, entries=page.entries[:-1])
    yield msgspec.structs.replace(
        page, entries=(msgspec.structs.replace(first, at=first.at + 1), *page.entries[1:])
    )
    yield msgspec.structs.replace(page, entries=(*page.entries, page.entries[-1]))


def test_an_edited_shortened_or_reordered_log_is_not_followed(bench: SignerBench) -> None:
    for _ in range(3):
        paid(bench)
    key = bench.keys.record.attestation_key
    page = bench.witness.log(LogRequest(after=0))
    follow(page, BEGINNING, key)
    for changed in changed_pages(page):
        with pytest.raises(LogBroken):
            follow(changed, BEGINNING, key)
    with pytest.raises(LogBroken, match="of journal"):
        follow(page, Place(journal="00" * 32, number=0, head=BEGINNING.head), key)
    moved = msgspec.structs.replace(page, head=msgspec.structs.replace(page.head, number=9))
    with pytest.raises(BadSignature):
        follow(moved, BEGINNING, key)
    verify_ed25519(key, page.head.digest(), page.signature)


def test_an_entry_edited_in_the_journals_table_breaks_the_chain(bench: SignerBench) -> None:
    paid(bench)
    paid(bench)

    def edit(book: Book) -> None:
        book._sql.execute("UPDATE log SET body = replace(body, 'alice', 'mallory') WHERE number = 2")
        book.record_sight("ab" * 32, CHAIN, "x", caller="exchange", expires_at=0, now=book.latest)

    bench.journal.write(edit)
    with pytest.raises(LogBroken, match="the head of entry 2"):
        follow_all(bench)
