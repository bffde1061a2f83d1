"""A holder's look at a Bitcoin payment: what is said of an honest one, and each reason to refuse."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chains.btc.hd import HARDENED
from chains.btc.multisig import Multisig
from chains.btc.network import NETWORKS
from chains.btc.psbt import InputSignature, finalize
from chains.btc.script import p2wsh_script
from chains.btc.tx import Transaction
from chains.errors import InvalidValue
from signers.airgap.btc_file import PaymentFile, read_payment, with_signatures
from signers.airgap.btc_review import BtcReview, review_payment, sign_payment
from signers.airgap.errors import Refused
from signers.airgap.keys import HolderKey
from signers.airgap.registered import FeeCaps, KnownVault, Registered
from tests.support.airgap import (
    STRANGER,
    Payment,
    holder_key,
    maps_of,
    multisig,
    psbt_of,
    vault_of,
    version_2,
)

CAPS = FeeCaps(fee_cap_sats=100_000, feerate_cap_sat_per_kvb=500_000)


@cache
def holders() -> tuple[HolderKey, ...]:
    return tuple(holder_key(number) for number in range(5))


@cache
def wallet() -> Multisig:
    return multisig(holders(), 3)


@cache
def registered() -> Registered:
    return Registered(vaults=(vault_of(holders(), 3, CAPS),))


def look(raw: bytes, known: Registered | None = None, holder: int = 0) -> BtcReview:
    return review_payment(read_payment(raw), known or registered(), holders()[holder])


def objections(raw: bytes, known: Registered | None = None) -> str:
    review = look(raw, known)
    assert review.places == () or not review.objections
    return " ".join(review.objections)


def signed(file: PaymentFile, holder: int) -> bytes:
    key = holders()[holder]
    return with_signatures(file, sign_payment(file, review_payment(file, registered(), key), key))


# The honest ways.


def test_a_payment_is_told_in_plain_words_with_every_digit() -> None:
    review = look(Payment(wallet()).build())
    text = "\n".join(review.lines)
    assert review.objections == ()
    assert review.leaves_sats == 50_000_000
    assert "BITCOIN PAYMENT from cold-btc (3 of 5), regtest network" in text
    assert "PAYS, 1 of 1:  0.50000000 BTC = 50 000 000 sats" in text
    assert f"COMES BACK:  1.49990000 BTC = 149 990 000 sats\n  to  {wallet().address(1, 0)}" in text
    assert "yours: derived again here as change address 1/0 of cold-btc" in text
    assert "FEE  10 000 sats = 0.02 %, 44.4 sat/vB" in text
    assert all(len(line) < 80 for line in review.lines)


@pytest.mark.parametrize("form", ["version 0", "version 2"])
def test_three_holders_one_after_the_other_finish_it(form: str) -> None:
    raw = Payment(wallet(), coins=[(100_000_000, 0, 3), (100_000_000, 1, 9)]).build()
    raw = raw if form == "version 0" else version_2(raw)
    for count, holder in enumerate((3, 0, 4)):
        file = read_payment(raw)
        assert f"Signatures so far: {count} of 3" in "\n".join(look(raw, holder=holder).lines)
        raw = signed(file, holder)
        assert review_payment(read_payment(raw), registered(), holders()[holder]).signed
    last = read_payment(raw)
    assert last.version == (0 if form == "version 0" else 2)
    signatures = [
        InputSignature(index, key[1:], value)
        for index, pairs in enumerate(last.inputs)
        for key, value in pairs
        if key[0] == 2
    ]
    assert Transaction.parse(finalize(last.psbt, signatures)).txid == last.psbt.tx.txid


def test_signing_adds_its_own_signature_and_nothing_else_and_again_changes_nothing() -> None:
    raw = Payment(wallet()).build()
    once = signed(read_payment(raw), 1)
    before, after = maps_of(raw), maps_of(once)
    pubkey = holders()[1].keys.pubkey(0, 0)
    assert after[1].pop(b"\x02" + pubkey)[-1:] == b"\x01"
    assert after == before
    assert signed(read_payment(once), 1) == once


def test_signatures_are_those_that_another_library_makes_too() -> None:
    from embit import bip32, bip39, psbt

    from signers.airgap.keys import words_of
    from signers.airgap.secret import Secret

    for index in range(12):  # half of all signatures have a high r at first
        raw = Payment(wallet(), coins=[(200_000_000, 0, index)]).build()
        other = psbt.PSBT.parse(raw)
        seed = bip39.mnemonic_to_seed(" ".join(words_of(Secret(bytes([1]) * 32))))
        assert other.sign_with(bip32.HDKey.from_seed(seed, version=NETWORKS["regtest"].xprv_version)) == 1
        ours = read_payment(signed(read_payment(raw), 0))
        (theirs,) = other.inputs[0].partial_sigs.values()
        assert theirs in dict(ours.inputs[0]).values()
        assert len(theirs) <= 71


def test_an_output_to_another_wallet_of_the_bundle_has_its_name() -> None:
    warm = multisig([holder_key(number) for number in (7, 8, 9)], 2)
    described = vault_of([holder_key(number) for number in (7, 8, 9)], 2)
    known = KnownVault(
        id="warm-btc",
        tier="warm",
        network="regtest",
        kind="wsh-sortedmulti",
        threshold=2,
        members=described.members,
    )
    maps = maps_of(Payment(wallet(), pays=[(50_000_000, warm.script(1, 4))]).build())
    behind = warm.behind(1, 4)
    maps[2][b"\x01"] = behind.script or b""
    for key in behind.keys:
        path = b"".join(step.to_bytes(4, "little") for step in key.path)
        maps[2][b"\x02" + key.pubkey] = key.fingerprint + path
    raw = psbt_of(maps)
    assert "FOREIGN CHANGE" in objections(raw)
    review = look(raw, msgspec.structs.replace(registered(), wallets=(known,)))
    assert review.objections == ()
    assert "      your warm wallet warm-btc, change address 1/4, derived again here" in review.lines
    assert review.leaves_sats == 50_000_000


def test_paying_nobody_is_said() -> None:
    review = look(Payment(wallet(), pays=[], change=(199_990_000, 1, 3)).build())
    assert (review.objections, review.leaves_sats) == ((), 0)
    assert "PAYS NOBODY: everything but the fee comes back to the wallet." in review.lines


# What is refused.


def test_an_unregistered_wallet_is_refused() -> None:
    assert "No wallet is registered" in objections(Payment(wallet()).build(), Registered())
    others = multisig([holder_key(number) for number in (0, 7, 8)], 2)
    assert "of no wallet that you have registered" in objections(Payment(others).build())


def test_a_wallet_whose_descriptor_is_not_its_keys_own_is_refused() -> None:
    from chains.errors import DerivationDisagreement

    vault = registered().vaults[0]
    forged = msgspec.structs.replace(vault, threshold=1)
    with pytest.raises(DerivationDisagreement):
        look(Payment(wallet()).build(), Registered(vaults=(forged,)))


def test_foreign_change_is_refused() -> None:
    """A thief's key in place of one holder's: the output looks like change, and is a 3-of-5 of other keys."""
    thief = multisig([*holders()[:4], holder_key(66)], 3)
    maps = maps_of(Payment(wallet()).build())
    forged = Payment(wallet(), pays=[(50_000_000, STRANGER), (149_990_000, thief.script(1, 0))], change=None)
    target = maps_of(forged.build())
    behind = thief.behind(1, 0)
    target[3][b"\x01"] = behind.script or b""
    for key in behind.keys:
        path = b"".join(step.to_bytes(4, "little") for step in key.path)
        target[3][b"\x02" + key.pubkey] = key.fingerprint + path
    assert len(maps) == len(target)
    assert "FOREIGN CHANGE: output 2" in objections(psbt_of(target))


def test_change_that_names_our_keys_but_pays_somebody_else_is_refused() -> None:
    honest = maps_of(Payment(wallet()).build())
    forged = maps_of(
        Payment(
            wallet(), pays=[(50_000_000, STRANGER), (149_990_000, p2wsh_script(b"\x51"))], change=None
        ).build()
    )
    forged[3] = {key: value for key, value in honest[3].items() if key[0] == 2}
    assert "FOREIGN CHANGE: output 2" in objections(psbt_of(forged))


def test_change_where_no_wallet_looks_is_refused_and_far_change_is_said() -> None:
    far = look(Payment(wallet(), change=(149_990_000, 1, 1_001)).build())
    assert far.objections == ()
    assert far.warnings == ("Output 2 is yours, but far off: place 1001.",)
    lost = Payment(wallet(), change=(149_990_000, 1, HARDENED - 1)).build()
    assert "where no wallet looks" in objections(lost)


def test_coins_of_two_wallets_are_refused() -> None:
    others = multisig([holder_key(number) for number in (0, 7, 8)], 2)
    ours = maps_of(Payment(wallet(), coins=[(100_000_000, 0, 0), (100_000_000, 0, 1)]).build())
    theirs = maps_of(Payment(others, coins=[(100_000_000, 0, 0), (100_000_000, 0, 1)]).build())
    tx, foreign = Transaction.parse(ours[0][b"\x00"]), Transaction.parse(theirs[0][b"\x00"])
    mixed = Transaction(2, (tx.inputs[0], foreign.inputs[1]), tx.outputs, 0)
    raw = psbt_of([{b"\x00": mixed.serialize()}, ours[1], theirs[2], *ours[3:]])
    known = msgspec.structs.replace(
        registered(), vaults=(*registered().vaults, msgspec.structs.replace(
            vault_of([holder_key(number) for number in (0, 7, 8)], 2), id="other"
        ))
    )  # fmt: skip
    for registrations in (registered(), known):
        assert "Input 2 of 2 spends a coin that is not cold-btc's: it mixes wallets." in objections(
            raw, registrations
        )


def test_fault_46_a_payment_of_another_network_is_refused() -> None:
    main = tuple(holder_key(number, NETWORKS["main"]) for number in range(5))
    raw = Payment(multisig(main, 3)).build()
    assert objections(raw).startswith("WRONG NETWORK: its coins are not of the regtest network")


def test_fees_above_the_bundles_caps_are_refused() -> None:
    assert objections(Payment(wallet(), change=(149_900_000, 1, 0)).build()) == ""
    too_much = Payment(wallet(), change=(149_899_999, 1, 0)).build()
    assert "FEE TOO HIGH: 100 001 sats; the bundle allows 100 000." in objections(too_much)
    strict = Registered(
        vaults=(vault_of(holders(), 3, FeeCaps(fee_cap_sats=100_000, feerate_cap_sat_per_kvb=44_000)),)
    )
    assert "44.4 sat/vB; the bundle allows 44.0 sat/vB" in objections(Payment(wallet()).build(), strict)


def test_without_a_bundle_a_fee_above_five_percent_is_refused() -> None:
    bare = Registered(vaults=(vault_of(holders(), 3),))
    at_five = Payment(wallet(), pays=[(1_000_000, STRANGER)], change=(198_950_000, 1, 0))
    assert objections(at_five.build(), bare) == ""
    assert look(at_five.build(), bare).warnings == ("The fee is 5.00 % of the amount.",)
    at_five.change = (198_949_999, 1, 0)
    assert "FEE TOO HIGH" in objections(at_five.build(), bare)
    itself = Payment(wallet(), pays=[], change=(189_999_999, 1, 0))
    assert "FEE TOO HIGH" in objections(itself.build(), bare)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"version": 3}, "Transaction version 3"),
        ({"locktime": 500_000_000}, "locked until a time"),
        ({"sequence": 144}, "locked for a time after its coin's block"),
    ],
)
def test_odd_locks_and_versions_are_refused(changes: dict[str, int], told: str) -> None:
    assert told in objections(Payment(wallet(), **changes).build())  # type: ignore[arg-type]


def test_a_lock_until_a_block_is_said() -> None:
    review = look(Payment(wallet(), locktime=912_345).build())
    assert review.objections == ()
    assert review.warnings[0].startswith("Not valid before block 912 345.")


def test_an_output_that_is_no_address_is_refused() -> None:
    raw = Payment(wallet(), pays=[(50_000_000, b"\x6a\x04noted")]).build()
    assert "Output 1 pays to no address" in objections(raw)


def test_what_is_refused_is_not_signed() -> None:
    file = read_payment(Payment(wallet(), locktime=500_000_000).build())
    review = review_payment(file, registered(), holders()[0])
    with pytest.raises(Refused):
        sign_payment(file, review, holders()[0])


def edited(change: Callable[[list[dict[bytes, bytes]]], object], raw: bytes | None = None) -> bytes:
    maps = maps_of(raw or Payment(wallet()).build())
    change(maps)
    return psbt_of(maps)


@pytest.mark.parametrize("sighash", [0, 2, 3, 0x81, 0x82, 0x83])
def test_only_sighash_all_is_read(sighash: int) -> None:
    with pytest.raises(InvalidValue, match="only ALL is signed"):
        read_payment(edited(lambda maps: maps[1].update({b"\x03": sighash.to_bytes(4, "little")})))


def test_an_absent_sighash_type_is_all() -> None:
    assert look(edited(lambda maps: maps[1].pop(b"\x03"))).objections == ()


def test_a_missing_or_other_previous_transaction_is_refused() -> None:
    with pytest.raises(InvalidValue, match="whole previous transaction is required"):
        read_payment(edited(lambda maps: maps[1].pop(b"\x00")))
    other = maps_of(Payment(wallet(), coins=[(300_000_000, 0, 0)]).build())[1][b"\x00"]
    with pytest.raises(InvalidValue, match="is not the transaction it spends"):
        read_payment(edited(lambda maps: maps[1].update({b"\x00": other})))


def test_an_amount_that_contradicts_the_previous_transaction_is_refused() -> None:
    output = (100_000_000).to_bytes(8, "little") + b"\x22" + wallet().script(0, 0)
    with pytest.raises(InvalidValue, match="contradicts the previous transaction"):
        read_payment(edited(lambda maps: maps[1].update({b"\x01": output})))


@pytest.mark.parametrize(
    ("place", "field"),
    [(0, 0x7F), (0, 0x05), (1, 0x04), (1, 0x07), (1, 0x0A), (1, 0x18), (1, 0x7F), (2, 0x00), (2, 0x06), (2, 0x7F)],
)  # fmt: skip
def test_unknown_fields_and_those_of_other_ways_to_sign_are_refused(place: int, field: int) -> None:
    with pytest.raises(InvalidValue):
        read_payment(edited(lambda maps: maps[place].update({bytes([field]): b"\x01"})))


def test_notes_of_other_programs_stay_and_change_nothing() -> None:
    raw = edited(lambda maps: maps[1].update({b"\xfc\x04note": b"hello"}))
    assert look(raw).objections == ()
    assert maps_of(signed(read_payment(raw), 0))[1][b"\xfc\x04note"] == b"hello"


def test_a_signature_of_somebody_else_that_does_not_verify_is_refused() -> None:
    raw = signed(read_payment(Payment(wallet()).build()), 2)
    key = b"\x02" + holders()[2].keys.pubkey(0, 0)
    damaged = edited(lambda maps: maps[1].update({key: maps[1][key][:-2] + b"\x00\x01"}), raw)
    with pytest.raises(InvalidValue, match="a signature in it does not verify"):
        read_payment(damaged)


def test_what_the_two_decoders_read_differently_is_refused() -> None:
    """embit takes a sequence of 0 for the largest: the digests would differ."""
    tx = maps_of(Payment(wallet()).build())[0][b"\x00"]
    raw = edited(lambda maps: maps[0].update({b"\x00": tx.replace(b"\xfd\xff\xff\xff", bytes(4))}))
    with pytest.raises(InvalidValue, match="two decoders"):
        read_payment(raw)


def test_version_2_that_may_still_change_or_asks_for_a_lock_is_refused() -> None:
    raw = version_2(Payment(wallet()).build())
    for place, field in (
        (0, {b"\x06": b"\x01"}),
        (1, {b"\x11": bytes(4)}),
        (1, {b"\x12": b"\x01\x00\x00\x00"}),
    ):
        with pytest.raises(InvalidValue):
            read_payment(edited(lambda maps, at=place, add=field: maps[at].update(add), raw))  # type: ignore[misc]


# Whatever is flipped.


def harmless(raw: bytes, at: int, bit: int) -> bool:
    """Whether a flipped bit is refused, leaves the same payment, or makes one that is told otherwise."""
    payment, lines = honest(raw)
    flipped = raw[:at] + bytes([raw[at] ^ 1 << bit]) + raw[at + 1 :]
    try:
        file = read_payment(flipped)
    except InvalidValue:
        return True
    review = review_payment(file, registered(), holders()[0])
    return bool(review.objections) or moves(file) == payment or told(review) != lines


@cache
def honest(raw: bytes) -> tuple[object, tuple[str, ...]]:
    return moves(read_payment(raw)), told(look(raw))


def moves(file: PaymentFile) -> object:
    """What is paid from what; whether it may be replaced is not of it."""
    tx = file.psbt.tx
    return (tx.version, tx.locktime, tx.resources, tx.outputs, file.psbt.spent)


def told(review: BtcReview) -> tuple[str, ...]:
    return review.lines + review.warnings


@cache
def half_signed(version: int) -> bytes:
    raw = signed(read_payment(Payment(wallet()).build()), 4)
    return raw if version == 0 else version_2(raw)


@pytest.mark.parametrize("version", [0, 2])
def test_every_byte_flipped_is_refused_or_leaves_the_same_payment_or_is_told(version: int) -> None:
    raw = half_signed(version)
    assert honest(raw) == honest(half_signed(0))
    assert [at for at in range(len(raw)) if not harmless(raw, at, at % 8)] == []


@settings(max_examples=100, deadline=None)
@given(st.data(), st.sampled_from([0, 2]))
def test_any_bit_flipped_is_refused_or_leaves_the_same_payment_or_is_told(
    data: st.DataObject, version: int
) -> None:
    raw = half_signed(version)
    assert harmless(raw, data.draw(st.integers(0, len(raw) - 1)), data.draw(st.integers(0, 7)))
