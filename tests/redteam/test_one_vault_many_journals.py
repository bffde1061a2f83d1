"""A vault's signers know only their own signatures. Whoever asks which of them what, and in which order: one payment.

The attacker has everything online, and honest orders with all their approvals. For one order he makes several
transactions, some of which could confirm beside each other, and asks each signer for any of them, again and again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.intent import Order
from signers.ports import Refused, SignRequest
from signers.wallets import BitcoinVaultWallet, BitcoinWallet, Wallet
from tests.fakes.signing import DAY, Draft, SoftKeys, carrier_of
from tests.fakes.vault_signing import THRESHOLD, VAULT, SoftCosigner, VaultBench

SIGNERS = 3
COINS_OF = ((0,), (1,), (0, 1), (1, 2), (2,))
"""Which coins each transaction spends."""


@pytest.fixture(scope="module")
def signers() -> Iterator[list[VaultBench]]:
    with tempfile.TemporaryDirectory() as directory:
        made: list[VaultBench] = []
        for number in range(SIGNERS):
            home = Path(directory) / str(number)
            home.mkdir()
            made.append(VaultBench(home, number, made[0] if made else None))
            made[-1].adopt(2, network_fee_window_cap=str(10**15))
        yield made
        for signer in made:
            signer.journal.close()


@settings(max_examples=120)
@given(st.lists(st.tuples(st.integers(0, SIGNERS - 1), st.integers(0, len(COINS_OF) - 1)), max_size=14))
def test_of_all_transactions_that_enough_have_signed_no_two_could_confirm_beside_each_other(
    signers: list[VaultBench], asks: list[tuple[int, int]]
) -> None:
    world = signers[0].world
    order = world.order(1_000_000)
    intents = [world.vault_intent(order, policy_version=2)]
    coins = [world.vault_coin(2_000_000, index=number) for number in range(3)]
    requests = [
        world.vault_request(Draft([coins[n] for n in spent], [order], intents=intents)) for spent in COINS_OF
    ]
    signed: dict[int, set[int]] = {number: set() for number in range(len(requests))}
    for signer, number in asks:
        try:
            signers[signer].service.sign(requests[number])
        except Refused:
            assert signer not in signed[number], "what was signed once is given again"
        else:
            signed[number].add(signer)
    complete = [number for number, by in signed.items() if len(by) >= THRESHOLD]
    for one, other in combinations(complete, 2):
        assert set(COINS_OF[one]) & set(COINS_OF[other])


class OfTwoVaults(VaultBench):
    """One of three signers of a vault, who was also one of five of the vault before."""

    def wallets(self) -> Mapping[str, Wallet[Any]]:
        return {VAULT: BitcoinVaultWallet(self.cosigners[self.own]), "before": self._before()}

    def _before(self) -> BitcoinVaultWallet:
        record = msgspec.structs.replace(self.cosigners[self.own].record, id="before")
        return BitcoinVaultWallet(replace(self.cosigners[self.own], record=record))


def test_two_of_five_do_not_know_what_the_other_three_have_paid_before_a_vault_of_their_own_follows(
    tmp_path: Path,
) -> None:
    """Three of five signed an order for the old vault; the other two are enough for the new one."""
    signer = OfTwoVaults(tmp_path)
    world = signer.world
    members = [*(c.record for c in signer.cosigners), *(SoftCosigner.make(n).record for n in (3, 4))]
    old = world.vault_entry(
        members, id="before", threshold=3, descriptor=world.wallet_of(members, 3).descriptor, state="active"
    )
    new = world.vault_entry(state="pre-active")
    signer.adopt(2, vaults=(old, new))
    order = world.order(20_000_000, expires_at=signer.time + 3_600)
    signer.time += 60
    follows = msgspec.structs.replace(new, state="active", active_from=signer.time)
    signer.adopt(3, vaults=(msgspec.structs.replace(old, state="deactivated"), follows))

    def asked(wanted: Order) -> SignRequest:
        intents = [world.vault_intent(wanted, policy_version=3)]
        draft = Draft([world.vault_coin(30_000_000)], [wanted], intents=intents)
        request = world.vault_request(draft)
        verdict = world.verdict(intents[0], expires_at=signer.time + 60, carrier=carrier_of(request))
        return world.evidence(
            request,
            approvals=tuple(
                world.approval(intents[0], n, expires_at=signer.time + 60) for n in ("ada", "ben")
            ),
            verdicts=(verdict,),
        )

    assert signer.codes(asked(order)) == {"order-too-old"}
    signer.time += 60
    young = world.order(20_000_000, expires_at=signer.time + DAY)
    assert signer.signatures(asked(young))
    signer.journal.close()


def test_what_others_have_signed_for_a_vault_its_member_does_not_know_when_the_hot_tier_takes_it_over(
    tmp_path: Path,
) -> None:
    """One signer with the hot keys and one of the vault's: the other two have signed without it."""

    class HotToo(VaultBench):
        def wallets(self) -> Mapping[str, Wallet[Any]]:
            return {**super().wallets(), hot.record.id: BitcoinWallet(hot)}

    hot = SoftKeys.make()
    signer = HotToo(tmp_path)
    world = signer.world
    world.record = hot.record
    world.__post_init__()
    caps = world.bundle().caps

    def bounds(below: str) -> Any:
        return tuple(
            msgspec.structs.replace(cap, **{"payment_below" if cap.tier == "hot" else "payment_from": below})
            for cap in caps
        )

    signer.adopt(2, caps=bounds("1000000"))
    order = world.order(1_500_000, expires_at=signer.time + 3_600)
    signer.time += 60
    signer.adopt(3, caps=bounds("2000000"))
    intents = [world.intent(order, policy_version=3)]
    request = world.request(Draft([world.coin()], [order], intents=intents))
    assert signer.codes(request) == {"order-moved"}
    signer.journal.close()
