"""Rules as sentences: whoever signs a policy reads these."""

from __future__ import annotations

import pytest

from policies import words
from policies.reading import read_policy
from policies.rules import AllOf, AnyOf, Need
from tests.fakes.house import bundle

HOUSE = bundle()


def sentence(text: str, sections: str = "groups: {operators: {roles: [operator]}}\n") -> str:
    policy = read_policy(f"{sections}rules:\n  - {{id: it, {text}}}\n", HOUSE, file="policy.yaml")
    assert [rule.id for rule in policy.rules] == ["it"]
    return words.rule(policy.rules[0], HOUSE.told, HOUSE.unit)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("route: hot", "All operations are paid from hot."),
        (
            "when: {operation: withdrawal, destination: internal}, route: ledger",
            "Withdrawals to addresses of our customers are settled without a transaction.",
        ),
        (
            ("when: {operation: withdrawal, amount_from: 0.1 BTC, amount_below: 10 BTC}, route: warm,"
            " approvals: 2 of operators, verdict: required"),
            ("Withdrawals of 0.1 BTC or more and below 10 BTC are paid from warm, need the approval of 2 of operators,"
            " need a verifier's word that they are covered."),
        ),
        (
            "when: {operation: withdrawal, value_from: 50_000 USD, value_below: 1_000_000.50 USD}, delay: 12h",
            "Withdrawals worth 50000 USD or more worth less than 1000000.5 USD wait 12 hours.",
        ),
        (
            ("when: {operation: withdrawal, destination: external, destination_younger_than: 90m}, unless:"
            " {customer: [alice, bob]}, deny: Too new!"),
            ("Withdrawals to external destinations known for less than 90 minutes, except those of customers alice or"
            " bob, are denied: Too new!"),
        ),
        (
            "when: {operation: withdrawal, tier: hot}, limit: {at_most: 5 BTC, within: 24h, per: all, beyond: wait}",
            "Withdrawals of BTC that hot pays may come to at most 5 BTC within 24 hours in all, what is more waits.",
        ),
        (
            "when: {operation: withdrawal}, limit: {at_most: 1 payment, within: 1d, per: destination}",
            "Withdrawals may come to at most 1 payment within 24 hours for each destination, what is more is denied.",
        ),
        (
            "when: {operation: [sweep, refill], source: [deposits, btc-hot], chain: bitcoin}, route: hot",
            "Sweeps and refills on bitcoin from deposits or btc-hot are paid from hot.",
        ),
        (
            "when: {operation: administration, action: release-case, hours: mon-fri 08:00-18:00 UTC}, route: ledger",
            "Administrative actions (release-case) within mon-fri 08:00-18:00 UTC are settled without a transaction.",
        ),
        (
            ("when: {new_device: yes, new_ip: no, password_younger_than: 2d, mfa_younger_than: 1w, mfa_fewer_than: 2,"
            " mfa_without: [webauthn]}, deny: no"),
            ("All operations from a new device from a known network address with a password changed less than 2 days"
            " ago with a second factor changed less than 7 days ago with fewer than 2 authentication methods"
            " authenticated without webauthn are denied: no."),
        ),
        (
            ("when: {kyc_below: 2, initiator: exchange, screening: hit, destination: [contract,"
            " 'address:bitcoin:bc1q']}, checks: [screening, travel-rule, ownership-proof]"),
            ("All operations to contracts or bc1q on bitcoin of customers below KYC level 2 that exchange asks for"
            " which screening objects to must pass screening, need originator and beneficiary data, need the signature"
            " of the destination's owner."),
        ),
    ],
)  # fmt: skip
def test_a_rule_is_one_sentence(text: str, told: str) -> None:
    assert sentence(text) == told


def test_approvals_say_what_belongs_together() -> None:
    two = Need(group="operators", count=2, distinct="organisations")
    one = Need(group="risk", count=1, distinct="organisations")
    assert words.needed(AllOf(needs=(two, AnyOf(needs=(one, two))))) == (
        "2 of operators from different organisations and"
        " (1 of risk or 2 of operators from different organisations)"
    )
    assert words.needed(AllOf(needs=())) == "nobody"


def test_the_whole_policy_is_told_with_its_groups_addresses_and_holdings() -> None:
    policy = read_policy(
        """
groups:
  deciders: {roles: [operator], people: [kim, lee]}
addresses:
  partners: [bitcoin:bc1q]
rules:
  - {id: partners, about: For them., when: {destination: group:partners}, route: hot}
holdings:
  - {tiers: [hot, warm], at_most: 1_100 BTC, share: 0.5%, refill_below: 30%}
""",
        HOUSE,
        file="policy.yaml",
    )
    assert list(words.policy(policy, HOUSE.told)) == [
        "Rules",
        "  partners: All operations to the addresses of partners are paid from hot.",
        "      For them.",
        "  Whatever no rule allows is denied; the strictest of all that fit wins.",
        "Groups",
        "  deciders: approvers with the role operator and kim and lee",
        "Addresses",
        "  partners: bitcoin:bc1q",
        "Holdings",
        (
            "  Hot and warm together should hold at most 1100 BTC, or 0.5% of all BTC if that is less; what is below"
            " 30% of that is filled up again."
        ),
    ]
