"""One officer lowers a number, alone and at once; it lasts until a bundle of the quorum, and never opens anything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from policies.keys import SigningKey, sign_lowering
from policies.statements import Lowering, SignedLowering
from signers.ports import Refused
from signers.trust.officers import MAX_STATEMENTS
from tests.fakes.signer import SignerBench
from tests.fakes.signing import CHAIN, DAY

BELOW = "cap:hot:BTC:payment_below"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[SignerBench]:
    made = SignerBench(tmp_path)
    yield made
    made.journal.close()


def lowering(
    bench: SignerBench,
    target: str = BELOW,
    value: int = 1_000_000,
    key: SigningKey | None = None,
    **changes: Any,
) -> SignedLowering:
    fields: dict[str, Any] = {
        "v": 1,
        "officer": "olga",
        "target": target,
        "value": str(value),
        "bundle_version": bench.trust.present.version,
        "reason": "until we know more",
        "issued_at": bench.time,
    }
    made = Lowering(**(fields | changes))
    return sign_lowering(made, key or bench.world.officers[made.officer])


def logged(bench: SignerBench) -> list[str]:
    return [entry.what for entry in bench.journal.write(lambda book: book.log_entries(0, 1000))]


def test_it_acts_at_once_and_after_a_restart_until_a_higher_bundle(bench: SignerBench) -> None:
    bench.signatures(bench.request(2_000_000))
    status = bench.desk.lower(lowering(bench))
    assert status.lowered == (f"{BELOW}=1000000",)
    assert status.bundle_version == 1
    assert bench.codes(bench.request(2_000_000)) == {"payment-cap"}
    bench.signatures(bench.request(999_999))
    bench.restart()
    assert bench.codes(bench.request(2_000_000)) == {"payment-cap"}
    assert bench.service.status().lowered == status.lowered
    bench.adopt(2)
    assert bench.service.status().lowered == ()
    bench.signatures(bench.under(2, 2_000_000))


def test_what_was_signed_before_is_given_out_again(bench: SignerBench) -> None:
    """It may be out in the world: a refusal would say that it is not."""
    request = bench.request(2_000_000)
    signatures = bench.signatures(request)
    bench.desk.lower(lowering(bench))
    assert bench.signatures(request) == signatures


@pytest.mark.parametrize(
    ("target", "value", "code"),
    [
        (BELOW, 1_000_000, "payment-cap"),
        ("cap:hot:BTC:window_cap", 999_999, "window-cap"),
        ("breaker:all-btc-hot:value_cap", 10, "value-cap"),
        (f"network:{CHAIN}:fee_cap", 1, "fee-cap"),
        (f"network:{CHAIN}:feerate_cap", 1_000, "feerate-cap"),
        (f"network:{CHAIN}:fee_window_cap", 1, "fee-window"),
        ("caller:exchange:not_after", 1, "caller-expired"),
        ("longest_order_seconds", 60, "order-too-long"),
    ],
)
def test_each_number_is_what_the_guard_goes_by(
    bench: SignerBench, target: str, value: int, code: str
) -> None:
    request = bench.request(1_000_000)
    bench.desk.lower(lowering(bench, target, value))
    assert code in bench.codes(request)


def test_the_lowest_of_several_counts_whoever_says_it(bench: SignerBench) -> None:
    bench.desk.lower(lowering(bench, value=3_000_000))
    bench.desk.lower(lowering(bench, value=1_000_000, officer="felix"))
    assert bench.codes(bench.request(2_000_000)) == {"payment-cap"}
    with pytest.raises(Refused, match="not lower"):
        bench.desk.lower(lowering(bench, value=2_000_000, officer="sanna"))


def test_again_changes_nothing(bench: SignerBench) -> None:
    signed = lowering(bench)
    first = bench.desk.lower(signed)
    before = logged(bench)
    assert bench.desk.lower(signed).lowered == first.lowered
    assert logged(bench) == before == ["bundle", "lowering"]


def test_it_counts_also_while_the_clock_is_in_doubt_or_the_bundle_has_expired(bench: SignerBench) -> None:
    bench.jump(10 * DAY)
    bench.desk.lower(lowering(bench))
    assert bench.trust.present.cap("hot", "BTC").payment_below == "1000000"


def test_a_request_that_is_looked_at_meanwhile_is_looked_at_again(
    bench: SignerBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a payment that was examined under the higher number would be admitted under it."""
    request = bench.request(2_000_000)
    write, done = bench.journal.begin, list[bool]()

    def late(work: Any) -> Any:
        if not done:
            done.append(True)
            bench.desk.lower(lowering(bench))
        return write(work)

    monkeypatch.setattr(bench.journal, "begin", late)
    assert bench.codes(request) == {"payment-cap"}


# Attacks.


def test_what_raises_is_of_another_bundle_or_of_nobody_is_refused(bench: SignerBench) -> None:
    stranger = SigningKey.generate()
    bench.adopt(2)
    for code, bad in (
        ("lowering-refused", lowering(bench, value=10_000_000)),
        ("lowering-refused", lowering(bench, value=10**30)),
        ("lowering-refused", lowering(bench, bundle_version=1)),
        ("lowering-refused", lowering(bench, bundle_version=3)),
        ("lowering-refused", lowering(bench, "cap:warm:BTC:payment_below")),
        ("lowering-refused", lowering(bench, f"network:{CHAIN}:feerate_cap", 999)),
        ("officer-unknown", lowering(bench, key=stranger, officer="mallory")),
        ("officer-signature", lowering(bench, key=stranger)),
        ("officer-signature", lowering(bench, key=bench.world.officers["felix"])),
    ):
        with pytest.raises(Refused, match=code):
            bench.desk.lower(bad)
    assert bench.service.status().lowered == ()
    bench.signatures(bench.under(2, 2_000_000))


def test_an_old_one_does_not_come_back_after_a_higher_bundle(bench: SignerBench) -> None:
    old = lowering(bench)
    bench.desk.lower(old)
    bench.adopt(2)
    with pytest.raises(Refused, match="lowering-refused"):
        bench.desk.lower(old)
    bench.restart()
    assert bench.trust.present == bench.world.bundle(2)


def test_one_of_a_removed_officer_is_refused_and_what_he_lowered_ends_with_the_bundle_that_removes_him(
    bench: SignerBench,
) -> None:
    bench.desk.lower(lowering(bench))
    bench.adopt(2, officers=tuple(each for each in bench.trust.present.officers if each.id != "olga"))
    assert bench.service.status().lowered == ()
    with pytest.raises(Refused, match="officer-unknown"):
        bench.desk.lower(lowering(bench))


def test_an_officer_whom_the_bundle_names_but_the_pinned_root_does_not_lowers_nothing(
    bench: SignerBench,
) -> None:
    stranger = SigningKey.generate()
    olga = msgspec.structs.replace(bench.trust.present.officer("olga"), key=stranger.public_hex)
    bench.adopt(2, officers=(olga,))
    with pytest.raises(Refused, match="officer-unknown"):
        bench.desk.lower(lowering(bench, key=stranger))


def test_lower_payments_are_no_other_tiers(bench: SignerBench) -> None:
    """A warm tier that pays from 0.1 BTC on still does after the hot tier was lowered: nobody pays what is between."""
    bench.adopt(2, cap_payment_from="5000000")
    bench.desk.lower(lowering(bench, value=4_000_000))
    assert bench.codes(bench.under(2, 4_500_000)) == {"payment-cap", "payment-floor"}


def test_a_shorter_life_of_orders_does_not_let_new_keys_pay_what_old_ones_could_have(
    bench: SignerBench,
) -> None:
    """Orders of the full length may be out: the number also says until when another signer could have paid them."""
    entry = bench.world.keyset_entry(active_from=bench.time)
    bench.adopt(2, keysets=(entry,))
    assert "order-too-old" in bench.codes(bench.under(2))
    bench.desk.lower(lowering(bench, "longest_order_seconds", 3601))
    assert "order-too-old" in bench.codes(bench.under(2))


def test_a_stolen_key_fills_no_disk_with_lowerings(bench: SignerBench) -> None:
    bench.desk.lower(lowering(bench, value=9_000_000))
    for number in range(MAX_STATEMENTS):
        made = lowering(bench, value=8_000_000, issued_at=number)
        bench.journal.write(lambda book, made=made: book.record_lowering(made, now=bench.time))  # type: ignore[misc]
    with pytest.raises(Refused, match="officer-too-much"):
        bench.desk.lower(lowering(bench, value=1))
    bench.restart()
    bench.desk.lower(lowering(bench, value=1, officer="felix"))
    assert bench.trust.present.cap("hot", "BTC").payment_below == "1"
