"""A signer's memory of the ledger's heads: it signs what continues them, and nothing beside."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from policies.canonical import verify_ed25519
from signers.ports import LedgerHead, Refused, SealRequest
from signers.trust.sealing import NO_HEAD
from tests.fakes.sealer import KEYSET, Sealer

NOW = 1_800_000_000


@pytest.fixture
def sealer(tmp_path: Path) -> Iterator[Sealer]:
    made = Sealer(tmp_path, clock=lambda: NOW)
    yield made
    made.stop()


def head(before: LedgerHead | None = None, **changes: Any) -> LedgerHead:
    """One that continues `before`."""
    first = LedgerHead(
        v=1, number=1, previous=NO_HEAD, at=NOW - 9000, day=None, accounts=2, lines=4, root="ab" * 32
    )
    if before is not None:
        first = msgspec.structs.replace(
            first,
            number=before.number + 1,
            previous=before.digest_hex(),
            at=before.at + 60,
            lines=before.lines + 2,
        )
    return msgspec.structs.replace(first, **changes)


def seal(sealer: Sealer, *heads: LedgerHead) -> tuple[int, str]:
    told = sealer.seal(SealRequest(keyset=KEYSET, heads=heads))
    if heads:
        assert told.signature is not None
        verify_ed25519(sealer.key.public_hex, heads[-1].digest(), told.signature)
    return told.number, told.digest


def refused(sealer: Sealer, *heads: LedgerHead) -> str:
    before = seal(sealer)
    with pytest.raises(Refused) as caught:
        seal(sealer, *heads)
    assert seal(sealer) == before, "what is refused is not recorded"
    return caught.value.reasons[0].code


def test_heads_that_continue_each_other_are_signed_and_remembered_over_a_restart(sealer: Sealer) -> None:
    assert seal(sealer) == (0, NO_HEAD)
    first = head()
    second, third = head(first), head(head(first))
    assert seal(sealer, first) == seal(sealer, first) == (1, first.digest_hex())  # again just the same
    sealer.stop()
    sealer.start()
    assert seal(sealer) == (1, first.digest_hex())
    assert seal(sealer, second, third) == (3, third.digest_hex()), "those in between lead there"
    assert seal(sealer, third) == (3, third.digest_hex())


def test_what_does_not_continue_the_last_head_is_refused(sealer: Sealer) -> None:
    first = head()
    second = head(first)
    seal(sealer, first, second)
    assert refused(sealer, head(first, root="cd" * 32)) == "head-does-not-continue"  # another second
    assert refused(sealer, first) == "head-behind"
    assert refused(sealer, head(second, previous=first.digest_hex())) == "head-does-not-continue"
    assert refused(sealer, head(head(second))) == "head-does-not-continue"  # one is missing
    assert refused(sealer, head(first, lines=1), head(second)) == "head-does-not-continue"
    assert refused(sealer, head(second), head(head(second), lines=0)) == "head-does-not-continue"
    assert refused(sealer, head(second, at=NOW + 601)) == "head-of-the-future"
    assert seal(sealer, head(second))[0] == 3


def test_a_day_is_closed_once(sealer: Sealer) -> None:
    first = head(day="2026-11-20")
    second = head(first)
    seal(sealer, first, second)
    assert refused(sealer, head(second, day="2026-11-20")) == "day-closed"
    assert refused(sealer, head(second, day="2026-11-19")) == "day-closed"
    assert seal(sealer, head(second, day="2026-11-21"))[0] == 3


def test_a_key_set_that_it_has_not_signs_nothing(sealer: Sealer) -> None:
    with pytest.raises(Refused, match="unknown-keyset"):
        sealer.seal(SealRequest(keyset="another", heads=(head(),)))
