"""What needs no process in a trial installation: quorum, bundle, files, the record of the tour, a row."""

from __future__ import annotations

import io
import json
import stat
import time
import tomllib
from pathlib import Path
from typing import Final, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from chains.eth.address import checksummed, is_checksummed
from ops.bench.compare import Row
from ops.demo.record import Record, StepFailed, StepRecord, expect
from ops.demo.show import summary
from ops.stack.config import to_toml, vaults_of
from ops.stack.ethereum import admin_address
from ops.stack.holders import holders_of, make_holders
from ops.stack.keys import person
from ops.stack.listing import ASSET, CHAIN, Listing, bitcoin, evm
from ops.stack.networks import TRIAL_NETWORKS, TrialNetwork
from ops.stack.quorum import CallerGrant, Quorum, make_bundle, make_quorum, publish
from policies.bundle import (
    BitcoinKeyset,
    BitcoinVault,
    Bundle,
    Cosigner,
    EvmKeyset,
    EvmVault,
    GasPayer,
    Owner,
    Tier,
    TrustRoot,
    UntrustedBundle,
    read_bundle,
)
from policies.bundle.checks import check_consistent
from policies.cases import judge_all
from policies.lint import lint
from policies.rules import Rule

KEYSET = BitcoinKeyset(
    id="btc-hot",
    chain=CHAIN,
    tier="hot",
    account="tpub",
    origin="d34db33f/84'/1'/0'",
    attestation_key="00" * 32,
)


def contract(number: int) -> str:
    return checksummed(bytes([number]) * 20)


EVM_KEYSETS = {
    network: EvmKeyset(
        id=network.keyset,
        chain=network.chain,
        tier="hot",
        attestation_key="00" * 32,
        address=contract(1),
        factory=contract(2),
        forwarder="22" * 32,
        payout=contract(3),
    )
    for network in TRIAL_NETWORKS
}
MEMBERS = tuple(
    Cosigner(id=f"m{n}", organisation=f"org-{n}", account=f"tpub{n}", origin="d34db33f/48'/1'/0'/2'")
    for n in range(5)
)
SIZES: Final[tuple[tuple[Literal["warm", "cold"], int, int], ...]] = (("warm", 2, 3), ("cold", 3, 5))
VAULTS = tuple(
    BitcoinVault(
        id=f"btc-{tier}",
        chain=CHAIN,
        tier=tier,
        threshold=most,
        cosigners=MEMBERS[:total],
        descriptor="wsh()",
    )
    for tier, most, total in SIZES
)


def evm_listing(network: TrialNetwork, keyset: EvmKeyset) -> Listing:
    tokens = {token.asset: contract(4) for token in network.tokens}
    tiers = network.tiers
    if tiers is None:
        return evm(network, "33" * 32, keyset, tokens)
    owners = tuple(Owner(id=f"m{n}", organisation=f"org-{n}", address=contract(20 + n)) for n in range(5))
    vaults = tuple(
        EvmVault(
            id=f"eth-{tier}",
            chain=network.chain,
            tier=tier,
            threshold=most,
            owners=owners[:total],
            address=contract(10 + total),
        )
        for tier, most, total in SIZES
    )
    payer = GasPayer(
        id=tiers.gas_payer,
        chain=network.chain,
        address=contract(9),
        attestation_key="44" * 32,
        holding_cap="1000",
    )
    return evm(network, "33" * 32, keyset, tokens, vaults=vaults, gas_payers=(payer,))


LISTINGS = [
    bitcoin(KEYSET, VAULTS),
    *(evm_listing(network, keyset) for network, keyset in EVM_KEYSETS.items()),
]
HOT_ONLY = bitcoin(KEYSET)


def bundle_of(directory: Path, quorum: Quorum) -> Bundle:
    caller = person(directory / "callers", "exchange", organisation="trading")
    grants = [CallerGrant(caller, ("withdrawals:sign", "operator"))]
    return make_bundle(version=1, listings=LISTINGS, callers=grants, quorum=quorum)


def test_a_published_bundle_is_believed_under_the_published_root(tmp_path: Path) -> None:
    quorum = make_quorum(tmp_path / "officers")
    made = bundle_of(tmp_path, quorum)
    bundle_path, root_path = publish(tmp_path, quorum.sign(made), quorum.trust_root(minimum_version=1))
    root = msgspec.json.decode(root_path.read_bytes(), type=TrustRoot)
    assert read_bundle(bundle_path.read_bytes(), root, now=int(time.time())) == made


def test_one_officer_alone_makes_no_bundle(tmp_path: Path) -> None:
    quorum = make_quorum(tmp_path / "officers")
    signed = quorum.sign(bundle_of(tmp_path, quorum))
    alone = msgspec.structs.replace(signed, signatures=signed.signatures[:1])
    with pytest.raises(UntrustedBundle):
        read_bundle(alone.encode(), quorum.trust_root(minimum_version=1), now=int(time.time()))


def rule(bundle: Bundle, id_: str) -> Rule:
    return next(each for each in bundle.policy.rules if each.id == id_)


def test_a_signer_is_a_member_of_the_warm_vaults_that_name_it_and_of_no_other(tmp_path: Path) -> None:
    made = bundle_of(tmp_path, make_quorum(tmp_path / "officers"))
    without = tuple(
        msgspec.structs.replace(vault, owners=vault.owners[1:]) if isinstance(vault, EvmVault) else vault
        for vault in made.vaults
    )
    made = msgspec.structs.replace(made, vaults=without)
    assert [vault.id for vault in vaults_of(made, "m0")] == ["btc-warm"]
    assert [vault.id for vault in vaults_of(made, "m1")] == ["btc-warm", "eth-warm"]
    assert vaults_of(made, "m4") == [], "a holder of cold keys"


def test_the_hot_tier_has_the_default_limits(tmp_path: Path) -> None:
    made = bundle_of(tmp_path, make_quorum(tmp_path / "officers"))
    cap = made.cap("hot", ASSET)
    assert (cap.payment_below, cap.window_cap, cap.window_seconds) == ("10000000", "500000000", 86_400)
    assert rule(made, f"hot.{ASSET}").when.amount_below == cap.payment_below
    assert made.asset(ASSET).withdrawal_fee == "50000"
    assert made.asset(ASSET).confirmations_for(1) == 6


@pytest.mark.parametrize(
    ("asset", "below", "window"),
    [
        ("ETH", 2 * 10**18, 100 * 10**18),
        ("XETH", 2 * 10**18, 100 * 10**18),
        ("USDX", 5_000 * 10**6, 250_000 * 10**6),
    ],
)
def test_each_asset_has_a_cap_and_the_same_rules(tmp_path: Path, asset: str, below: int, window: int) -> None:
    made = bundle_of(tmp_path, make_quorum(tmp_path / "officers"))
    cap, limit = made.cap("hot", asset), rule(made, f"hot-window.{asset}").limit
    assert (int(cap.payment_below), int(cap.window_cap)) == (below, window)
    assert rule(made, f"hot.{asset}").when.amount_below == cap.payment_below
    assert limit is not None
    assert limit.at_most == cap.window_cap
    assert made.asset(asset).confirmations_for(1) == 1


def test_the_trials_policy_answers_its_own_cases_and_promises_more_than_hot_only_where_there_is_more_or_it_denies(
    tmp_path: Path,
) -> None:
    made = bundle_of(tmp_path, make_quorum(tmp_path / "officers"))
    outcomes = judge_all(made)
    assert len(outcomes) == 8
    assert [outcome.wrong for outcome in outcomes if outcome.wrong] == []
    told = {(each.code, each.rule) for each in lint(made) if each.severity != "note"}
    assert told == {("no-wallet", "warm.XETH"), ("no-wallet", "cold.XETH")}
    check_consistent(made)


@pytest.mark.parametrize("tier", ["warm", "cold"])
@pytest.mark.parametrize("asset", ["BTC", "ETH", "USDX"])
def test_a_tier_pays_from_where_the_hotter_one_ends_in_the_rules_and_at_the_signers(
    tmp_path: Path, tier: Tier, asset: str
) -> None:
    made = bundle_of(tmp_path, make_quorum(tmp_path / "officers"))
    hotter: Tier = "hot" if tier == "warm" else "warm"
    cap, when = made.cap(tier, asset), rule(made, f"{tier}.{asset}").when
    assert cap.payment_from == made.cap(hotter, asset).payment_below
    assert (when.amount_from, when.amount_below) == (cap.payment_from, cap.payment_below)


def test_the_gas_payer_is_under_the_breaker_of_the_hot_keys(tmp_path: Path) -> None:
    made = bundle_of(tmp_path, make_quorum(tmp_path / "officers"))
    assert made.breaker_of("eth-gas") == made.breaker_of("eth-hot")


def test_a_trial_of_bitcoin_alone_has_rules_about_nothing_else(tmp_path: Path) -> None:
    quorum = make_quorum(tmp_path / "officers")
    made = make_bundle(version=1, listings=[HOT_ONLY], callers=[], quorum=quorum)
    assert {asset for rule in made.policy.rules for asset in rule.when.assets} == {ASSET}
    check_consistent(made)
    assert [outcome.wrong for outcome in judge_all(made) if outcome.wrong] == []


def test_a_trial_without_bitcoin_has_rules_about_the_others(tmp_path: Path) -> None:
    quorum = make_quorum(tmp_path / "officers")
    made = make_bundle(version=1, listings=LISTINGS[1:], callers=[], quorum=quorum)
    assert {asset for rule in made.policy.rules for asset in rule.when.assets} == {"ETH", "USDX", "XETH"}
    check_consistent(made)


def test_the_factorys_admin_is_somebody_whose_private_key_is_kept(tmp_path: Path) -> None:
    address = admin_address(tmp_path)
    assert admin_address(tmp_path) == address
    assert is_checksummed(address)
    assert stat.S_IMODE((tmp_path / "factory-admin.key").stat().st_mode) == 0o600


def test_each_holder_has_a_key_of_the_offline_signer_and_again_the_same(tmp_path: Path) -> None:
    records = make_holders(tmp_path)
    assert make_holders(tmp_path) == records
    assert len({record.xpub for record in records}) == len({record.organisation for record in records}) == 5
    for holder, record in zip(holders_of(tmp_path), records, strict=True):
        assert (holder.name, holder.organisation) == (record.name, record.organisation)
        assert holder.passphrase() not in (holder.home / f"{holder.name}.key").read_text()
        assert stat.S_IMODE(holder.folder.stat().st_mode) == 0o700


def test_a_persons_key_is_private_and_again_the_same(tmp_path: Path) -> None:
    first = person(tmp_path / "keys", "olga", organisation="operations")
    again = person(tmp_path / "keys", "olga", organisation="operations")
    assert first.key.public_hex == again.key.public_hex
    assert stat.S_IMODE(first.key_file.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    assert "PRIVATE" not in repr(first)


NAMES = st.text("abcdefgh-._", min_size=1, max_size=8)
VALUES = st.one_of(st.text(max_size=20), st.integers(0, 2**31), st.lists(st.text(max_size=5), max_size=3))


@given(
    st.dictionaries(
        NAMES, st.one_of(VALUES, st.dictionaries(NAMES, VALUES, min_size=1, max_size=3)), max_size=5
    )
)
def test_configuration_is_read_as_it_was_written(table: dict[str, object]) -> None:
    safe = {f"k{number}": value for number, value in enumerate(table.values())}
    assert tomllib.loads(to_toml(safe)) == safe


def test_a_tour_is_ok_only_if_there_were_steps_and_all_held(tmp_path: Path) -> None:
    record = Record()
    assert not record.ok
    record.steps.append(StepRecord("one", "One", ok=True, detail={"txid": "00"}))
    assert record.ok
    record.steps.append(StepRecord("two", "Two", detail={"error": "no"}))
    assert not record.ok
    assert record.failed
    record.write(tmp_path / "tour.json")
    written = json.loads((tmp_path / "tour.json").read_text())
    assert set(written) == {"ok", "steps", "endpoints"}
    assert [set(step) for step in written["steps"]] == [{"name", "ok", "detail"}] * 2
    assert written["steps"][0]["detail"]["txid"] == "00"


def test_the_summary_adds_up_each_asset_and_leaves_out_what_is_nothing() -> None:
    sums = {
        "on_chain": "4.50 ETH",
        "owed_to_customers": "13.00 ETH",
        "fees_earned": "0.00 ETH",
        "suspense": "1.00 ETH",
        "network_fees": "0.10 ETH",
        "difference": "0.00 ETH",
    }
    record = Record(steps=[StepRecord("reconcile", "Ledger", ok=True, detail={"assets": {"ETH": sums}})])
    console = Console(width=80, record=True, file=io.StringIO())
    summary(console, record)
    said = console.export_text()
    for line in (
        "ETH on the chain           4.50 ETH",
        "= owed to customers       13.00 ETH",
        "difference                 0.00 ETH",
    ):
        assert line in said
    assert "suspense" in said
    assert "fees earned" not in said


def test_what_was_expected_and_found_is_said() -> None:
    found, due = 3, 4
    with pytest.raises(StepFailed, match="the balance: found=3, due=4"):
        expect(found == due, "the balance", found=found, due=due)


def test_a_row_names_its_peer_and_the_ratio() -> None:
    row = Row("ledger", 10_000.0, 2_500.0, "one transfer a commit", "transfers/s")
    assert row.to_object() == {
        "name": "ledger",
        "ours": 10_000.0,
        "peer": 2_500.0,
        "peer_name": "one transfer a commit",
        "unit": "transfers/s",
        "ratio": 4.0,
    }
