"""Choosing what to pay, and building it: within everybody's limits, exactly, and readable by the signer."""

from __future__ import annotations

import base64
import datetime
import uuid
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chains.btc.fees import FeeRate
from chains.btc.psbt import InvalidSignature, parse_psbt
from chains.btc.script import p2wpkh_script_from_hash
from chains.btc.tx import RBF_SEQUENCE, Outpoint, Transaction, TxIn, TxOut, sighash_p2wpkh
from chains.errors import InvalidValue
from chains.types import Address, TxId
from custody.signing.btc.finish import finish
from custody.signing.btc.plan import assemble, plan
from custody.signing.btc.site import BtcSite, btc_site
from custody.signing.errors import DecodersDisagree
from custody.signing.model import SpendableCoin, Version, VersionState
from custody.signing.requests import Built, Payee, payment_intents, read_request
from policies.keys import sign_order
from signers.ports import InputSignature, SignResponse
from tests.fakes.signing import CHAIN, NOW, SoftKeys, World
from tests.support.psbts import paths_of

KEYS = SoftKeys.make()
WORLD = World(KEYS.record)
SITE: BtcSite = btc_site(WORLD.bundle(), CHAIN, None)  # type: ignore[arg-type]  # nothing here asks the node


def coin(number: int, units: int) -> tuple[SpendableCoin, bytes]:
    previous = Transaction(
        2,
        (TxIn(Outpoint(TxId(f"{number + 1:064x}"), 0)),),
        (TxOut(units, KEYS.account.script(0, number)),),
    )
    found = SpendableCoin(
        f"{previous.txid}:0", previous.txid.hex, units, KEYS.account.script(0, number), 0, number, "00" * 32
    )
    return found, previous.serialize()


def payee(units: int, fee_ceiling: int = 50_000, number: int = 0) -> Payee:
    order = WORLD.order(units, fee_ceiling=str(fee_ceiling))
    script = p2wpkh_script_from_hash(number.to_bytes(20, "big"))
    return Payee(sign_order(order, WORLD.caller), Address(CHAIN, "somewhere", script, "p2wpkh"))


@settings(max_examples=60)
@given(
    st.lists(st.integers(600, 3_000_000), min_size=1, max_size=12),
    st.lists(st.tuples(st.integers(300, 2_000_000), st.integers(0, 30_000)), min_size=1, max_size=12),
    st.integers(1_000, 60_000),
)
def test_a_plan_pays_exactly_within_all_limits_and_names_everybody_else_with_a_reason(
    coin_units: list[int], wanted: list[tuple[int, int]], feerate: int
) -> None:
    coins = [coin(number, units)[0] for number, units in enumerate(coin_units)]
    payees = [payee(units, ceiling, number) for number, (units, ceiling) in enumerate(wanted)]
    found = plan(payees, coins, FeeRate(feerate), SITE)
    assert sorted(id(p) for p in (*found.payees, *(p for p, _ in found.waiting))) == sorted(map(id, payees))
    if found.selection is None:
        assert found.payees == ()
        return
    chosen = found.selection
    spent, paid = sum(c.units for c in chosen.coins), sum(p.units for p in found.payees)
    assert spent == paid + chosen.fee_sats + (chosen.change_sats or 0)
    assert chosen.fee_sats <= sum(p.fee_ceiling for p in found.payees)
    assert chosen.fee_sats <= int(SITE.network.fee_cap)
    assert chosen.fee_sats <= SITE.feerate_cap.fee_for(chosen.vsize_vb)
    assert chosen.fee_sats >= FeeRate(feerate).fee_for(chosen.vsize_vb)
    assert len({c.resource for c in chosen.coins}) == len(chosen.coins)


def test_the_largest_payment_waits_for_funds_and_the_others_go() -> None:
    found = plan([payee(900_000), payee(100_000), payee(50_000)], [coin(0, 200_000)[0]], FeeRate(1_000), SITE)
    assert [p.units for p in found.payees] == [100_000, 50_000]
    [(waiting, reason)] = found.waiting
    assert (waiting.units, reason.code) == (900_000, "insufficient-hot-funds")


def test_who_allows_too_little_fee_waits_and_the_others_go() -> None:
    found = plan(
        [payee(100_000, 10), payee(100_000, 5_000), payee(100_000, 400)],
        [coin(0, 500_000)[0]],
        FeeRate(20_000),
        SITE,
    )
    assert [p.fee_ceiling for p in found.payees] == [5_000]
    assert {(p.fee_ceiling, reason.code) for p, reason in found.waiting} == {
        (10, "fee-ceiling"),
        (400, "fee-ceiling"),
    }


def built(*units: int) -> tuple[Built, Version]:
    coins = {c.resource: c for c, _ in [coin(0, 3_000_000), coin(1, 1_000_000)]}
    previous = {c.txid: raw for c, raw in [coin(0, 3_000_000), coin(1, 1_000_000)]}
    payees = [payee(n, number=position) for position, n in enumerate(units)]
    found = plan(payees, list(coins.values()), FeeRate(2_000), SITE)
    assert found.selection is not None
    index = None if found.selection.change_sats is None else 7
    result = assemble(
        SITE, found.payees, payment_intents(found.payees, SITE), found.selection, coins, previous, index
    )
    version = Version(
        transaction_id=uuid.uuid4(),
        version=1,
        request=result.request,
        unsigned=result.unsigned,
        content=result.content,
        resources=frozenset(result.resources),
        signed=None,
        txid=None,
        fee_units=result.fee_units,
        feerate=result.feerate,
        size=result.size,
        state=VersionState.BUILT,
        created_at=datetime.datetime.fromtimestamp(NOW, datetime.UTC),
    )
    return result, version


def sign(version: Version) -> SignResponse:
    """What the signer answers, from the request alone."""
    psbt = parse_psbt(base64.b64decode(read_request(version.request).transaction))
    signatures = []
    for index, (path, spent) in enumerate(zip(paths_of(psbt.input_keys), psbt.spent, strict=True)):
        assert path is not None
        branch, number = path[-2], path[-1]
        pubkey = KEYS.account.pubkey(branch, number)
        _, der = KEYS.sign(branch, number, sighash_p2wpkh(psbt.tx, index, pubkey, spent.units))
        signatures.append(InputSignature(index=index, pubkey=pubkey.hex(), signature=(der + b"\x01").hex()))
    return SignResponse(signatures=tuple(signatures))


def test_what_is_built_is_ordered_replaceable_and_says_where_the_change_goes() -> None:
    result, version = built(200_000, 100_000)
    tx = Transaction.parse(result.unsigned)
    assert [output.units for output in tx.outputs] == sorted(output.units for output in tx.outputs)
    assert all(txin.sequence == RBF_SEQUENCE for txin in tx.inputs)
    psbt = parse_psbt(base64.b64decode(read_request(version.request).transaction))
    own = [path for path in paths_of(psbt.output_keys) if path is not None]
    assert [path[-2:] for path in own] == [(1, 7)]
    assert psbt.fee_sats == result.fee_units
    assert (result.content, set(result.resources)) == (tx.txid.hex, set(tx.resources))


def test_signatures_make_bytes_that_two_decoders_read_as_the_recorded_transaction() -> None:
    result, version = built(200_000, 100_000)
    signed, txid = finish(version, sign(version))
    finished = Transaction.parse(signed)
    assert txid == Transaction.parse(result.unsigned).txid.hex
    assert finished.vsize <= result.size
    assert finished.outputs == Transaction.parse(result.unsigned).outputs


def test_signatures_for_another_transaction_or_of_another_kind_are_refused() -> None:
    _, version = built(200_000)
    _, other = built(300_000)
    with pytest.raises(InvalidSignature):
        finish(version, sign(other))
    with pytest.raises(DecodersDisagree):
        finish(replace(version, unsigned=other.unsigned), sign(version))
    response = sign(version)
    [item, *_] = response.signatures
    none = SignResponse(
        signatures=(type(item)(index=0, pubkey=item.pubkey, signature=item.signature[:-2] + "02"),)
    )
    with pytest.raises(InvalidSignature):
        finish(version, none)


def test_change_without_an_index_and_an_index_without_change_do_not_fit() -> None:
    coins = {c.resource: c for c, _ in [coin(0, 3_000_000)]}
    previous = {c.txid: raw for c, raw in [coin(0, 3_000_000)]}
    found = plan([payee(100_000)], list(coins.values()), FeeRate(2_000), SITE)
    assert found.selection is not None
    with pytest.raises(InvalidValue, match="change index"):
        assemble(
            SITE, found.payees, payment_intents(found.payees, SITE), found.selection, coins, previous, None
        )
