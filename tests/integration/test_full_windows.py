"""What people are told when a signer's window is full: what stands in it, and what would empty it."""

from __future__ import annotations

import msgspec

from tests.fakes.till import Till


def test_a_refusal_for_a_full_window_says_that_a_verifier_may_be_missing(till: Till) -> None:
    """Without one nothing that was signed ever stops counting, and hot paying ends within a day."""
    till.customer("alice", 3_000_000)
    till.adopt(2, caps=tuple(msgspec.structs.replace(cap, window_cap="1000000") for cap in till.bundle.caps))
    withdrawal = till.request("alice", 2_000_000)
    till.route()
    assert till.build() is not None
    assert till.sign() == []
    assert "window-cap" in till.withdrawal(withdrawal.id).reason
    [alert] = till.query("SELECT message FROM alerts WHERE type = 'signer.refused'")
    assert "verifier" in alert["message"]
