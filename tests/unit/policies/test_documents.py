"""Orders, intents, evidence and bundles: one canonical form, bound to their kind, strict about what they read."""

from __future__ import annotations

import base64
import json
import string
import uuid
from typing import Any

import msgspec
import pytest
import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from chains.errors import InvalidValue
from policies.bundle import (
    MAX_CLOCK_AHEAD_SECONDS,
    Bundle,
    Confirmations,
    SignedBundle,
    TrustRoot,
    UntrustedBundle,
    check_consistent,
    read_bundle,
)
from policies.canonical import (
    MAX_DOCUMENT_BYTES,
    BadSignature,
    Document,
    domain_hash,
    encode_signature,
    verify_ed25519,
)
from policies.intent import Approval, Attestation, Context, Evidence, Intent, Kind, Order, Verdict
from policies.keys import SigningKey, sign_bundle, sign_order
from policies.ordered import facts_of
from tests.fakes.signing import DAY, NOW, SoftKeys, World

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
UUIDS = st.uuids().map(str)
HEX32 = st.binary(min_size=32, max_size=32).map(bytes.hex)
UNITS = st.integers(0, 10**78 - 1).map(str)
SECONDS = st.integers(0, 2**53 - 1)
DESTINATIONS = st.text(min_size=1, max_size=128)

ORDERS = st.builds(
    Order,
    v=st.just(1),
    id=UUIDS,
    caller=NAMES,
    customer=NAMES,
    chain=NAMES,
    asset=NAMES,
    destination=DESTINATIONS,
    amount=UNITS,
    fee_ceiling=UNITS,
    expires_at=SECONDS,
)
INTENTS = st.builds(
    Intent,
    v=st.just(1),
    kind=st.sampled_from(Kind),
    id=UUIDS,
    chain=NAMES,
    keyset=NAMES,
    tier=st.sampled_from(["hot", "warm", "cold"]),
    asset=NAMES,
    destination=DESTINATIONS,
    amount=UNITS,
    order=st.none() | HEX32,
    policy_version=st.integers(1, 2**53 - 1),
)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def world() -> World:
    return World(SoftKeys.make().record)


@given(ORDERS)
def test_an_order_reads_back_from_its_canonical_bytes(order: Order) -> None:
    assert Order.from_canonical(order.canonical()) == order
    assert Order.from_object(order.to_object()) == order


@given(INTENTS)
def test_an_intent_reads_back_from_its_canonical_bytes(intent: Intent) -> None:
    assert Intent.from_canonical(intent.canonical()) == intent
    assert intent.units == int(intent.amount)


@given(st.one_of(ORDERS, INTENTS))
def test_the_canonical_bytes_are_those_of_rfc_8785(document: Document) -> None:
    assert document.canonical() == rfc8785.dumps(document.to_object())


def test_evidence_and_bundles_are_canonical_by_rfc_8785_too(world: World) -> None:
    evidence = Evidence(orders=(sign_order(world.order(destination='\u20ac\x01"\\/'), world.caller),))
    for document in (evidence, world.bundle()):
        assert document.canonical() == rfc8785.dumps(document.to_object())


@pytest.mark.parametrize("version", [0, -1, 2**53, 2**64, 1.0, "1", True])
def test_a_version_that_has_no_one_canonical_form_is_refused(world: World, version: object) -> None:
    with pytest.raises(InvalidValue):
        Intent.from_object(world.intent(world.order()).to_object() | {"policy_version": version})


@given(ORDERS)
def test_the_digest_does_not_depend_on_how_the_json_was_written(order: Order) -> None:
    fields = order.to_object()
    turned = dict(reversed(fields.items()))
    for text in (json.dumps(turned, indent=3), json.dumps(turned, ensure_ascii=False)):
        assert Order.from_json(text.encode("utf-8", "surrogatepass")).digest() == order.digest()


@given(ORDERS)
def test_only_the_canonical_bytes_are_canonical(order: Order) -> None:
    fields = order.to_object()
    for text in (json.dumps(fields, indent=1), json.dumps(dict(reversed(fields.items())))):
        with pytest.raises(InvalidValue, match="canonical"):
            Order.from_canonical(text.encode())


@given(ORDERS, ORDERS)
def test_two_orders_have_the_same_digest_only_if_they_are_equal(a: Order, b: Order) -> None:
    assert (a.digest() == b.digest()) == (a == b)


@given(st.binary(max_size=300))
def test_any_bytes_are_an_order_or_an_invalid_value(raw: bytes) -> None:
    with pytest.raises(InvalidValue):
        Order.from_json(raw)


@given(ANY_JSON)
def test_any_json_is_an_order_or_an_invalid_value(value: Any) -> None:
    with pytest.raises(InvalidValue):
        Order.from_object(value)
    with pytest.raises(InvalidValue):
        Order.from_json(json.dumps(value).encode())


@given(ORDERS, st.sampled_from(Order.__struct_fields__), ANY_JSON)
def test_a_field_of_another_kind_is_refused_or_read_as_what_it_says(
    order: Order, name: str, value: Any
) -> None:
    changed = order.to_object() | {name: value}
    try:
        read = Order.from_object(changed)
    except InvalidValue:
        return
    assert read.to_object() == changed


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"v": "1"},
        {"v": True},
        {"amount": 5},
        {"amount": "05"},
        {"amount": "-5"},
        {"amount": "+5"},
        {"amount": "5.0"},
        {"amount": "5e3"},
        {"amount": "٣"},
        {"amount": ""},
        {"amount": "5\n"},
        {"amount": "1" + "0" * 78},
        {"id": "not-a-uuid"},
        {"id": str(uuid.uuid4()).upper()},
        {"caller": "-x"},
        {"caller": "x" * 65},
        {"caller": "x\n"},
        {"destination": ""},
        {"destination": "x" * 129},
        {"expires_at": -1},
        {"expires_at": 2**53},
        {"expires_at": 1.5},
        {"surprise": 1},
    ],
)
def test_a_malformed_field_is_refused(world: World, change: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue, match="order"):
        Order.from_object(world.order().to_object() | change)


def test_every_field_is_required(world: World) -> None:
    fields = world.order().to_object()
    for name in fields:
        with pytest.raises(InvalidValue):
            Order.from_object({key: value for key, value in fields.items() if key != name})


def test_a_document_that_is_too_long_is_not_read() -> None:
    with pytest.raises(InvalidValue, match="at most"):
        Order.from_json(b" " * (MAX_DOCUMENT_BYTES + 1))


def test_a_key_that_comes_twice_is_never_canonical(world: World) -> None:
    raw = world.order().canonical()
    doubled = raw[:-1] + b',"amount":"999"}'
    with pytest.raises(InvalidValue):
        Order.from_canonical(doubled)


def test_the_digest_is_the_hash_of_domain_version_and_canonical_bytes(world: World) -> None:
    import hashlib

    order = world.order()
    expected = hashlib.sha256(b"strongroom:order:v1\n" + rfc8785.dumps(order.to_object())).hexdigest()
    assert order.digest_hex() == expected


def test_a_signature_for_one_kind_of_document_is_none_for_another() -> None:
    key, body = SigningKey.generate(), b"{}"
    signature = key.sign_digest(domain_hash("order", 1, body))
    verify_ed25519(key.public_hex, domain_hash("order", 1, body), signature)
    for domain, version in (("intent", 1), ("order", 2), ("bundle", 1)):
        with pytest.raises(BadSignature):
            verify_ed25519(key.public_hex, domain_hash(domain, version, body), signature)


def test_all_domains_differ() -> None:
    kinds = (Order, Intent, Approval, Verdict, Evidence, Attestation, Bundle)
    assert len({kind.domain for kind in kinds}) == len(kinds)
    assert all(set(kind.domain) <= set(string.ascii_lowercase + "-") for kind in kinds)


@pytest.mark.parametrize("signature", ["", "!", "AA==", base64.b64encode(bytes(63)).decode(), "é" * 88])
def test_a_malformed_signature_is_a_bad_signature(signature: str) -> None:
    with pytest.raises(BadSignature):
        verify_ed25519(SigningKey.generate().public_hex, bytes(32), signature)


@pytest.mark.parametrize("key", ["", "00", "00" * 31, "00" * 33, "zz" * 32])
def test_under_what_is_no_key_every_signature_is_bad(key: str) -> None:
    with pytest.raises(BadSignature):
        verify_ed25519(key, bytes(32), encode_signature(bytes(64)))


def test_keys_of_small_order_sign_nothing() -> None:
    neutral = (1).to_bytes(32, "little")
    Ed25519PublicKey.from_public_bytes(neutral).verify(neutral + bytes(32), b"any message")
    with pytest.raises(BadSignature):
        verify_ed25519(neutral.hex(), bytes(32), encode_signature(neutral + bytes(32)))


@given(st.integers(0, 95), st.integers(0, 255))
def test_openssl_and_libsodium_believe_the_same_signatures(at: int, flip: int) -> None:
    key = SigningKey.generate()
    both = bytearray(bytes(32) + base64.b64decode(key.sign_digest(bytes(32))))
    both[at] ^= flip
    digest, signature = bytes(both[:32]), bytes(both[32:])
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(key.public_hex)).verify(signature, digest)
    except InvalidSignature:
        with pytest.raises(BadSignature):
            verify_ed25519(key.public_hex, digest, encode_signature(signature))
    else:
        verify_ed25519(key.public_hex, digest, encode_signature(signature))


def test_a_signature_has_one_text_only() -> None:
    key = SigningKey.generate()
    text = key.sign_digest(bytes(32))
    verify_ed25519(key.public_hex, bytes(32), text)
    letters = string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/"
    last = letters.index(text[85])
    for spare in range(1, 16):
        same_bytes = text[:85] + letters[last + spare] + "=="
        assert base64.b64decode(same_bytes) == base64.b64decode(text)
        with pytest.raises(BadSignature, match="one form"):
            verify_ed25519(key.public_hex, bytes(32), same_bytes)


def test_a_malformed_public_key_is_a_bad_signature() -> None:
    for key in ("", "zz" * 32, "00" * 31, "ff" * 32):
        with pytest.raises(BadSignature):
            verify_ed25519(key, bytes(32), encode_signature(bytes(64)))


def test_evidence_has_room_for_approvals_and_verdicts(world: World) -> None:
    evidence = Evidence()
    assert Evidence.from_canonical(evidence.canonical()) == evidence
    assert set(evidence.to_object()) == {"v", "orders", "approvals", "verdicts"}


# The bundle.


def test_a_bundle_with_its_quorum_is_read(world: World) -> None:
    bundle = world.bundle()
    assert read_bundle(world.signed(bundle).encode(), world.root, now=NOW) == bundle


def test_the_order_of_signatures_and_further_ones_do_not_matter(world: World) -> None:
    bundle = world.bundle()
    for names in (["sanna", "olga"], ["olga", "felix", "sanna"]):
        assert read_bundle(world.signed(bundle, names).encode(), world.root, now=NOW) == bundle


def test_two_officers_of_one_organisation_count_once(world: World) -> None:
    together = {"olga": "one", "felix": "one", "sanna": "two"}
    root = msgspec.structs.replace(world.root, organisations=together)
    with pytest.raises(UntrustedBundle, match="1 of 2 organisations"):
        read_bundle(world.signed(world.bundle(), ["olga", "felix"]).encode(), root, now=NOW)
    read_bundle(world.signed(world.bundle(), ["olga", "sanna"]).encode(), root, now=NOW)


def test_one_officer_listed_under_two_names_counts_once(world: World) -> None:
    olga = world.officers["olga"]
    keys = {"olga": olga.public_hex, "olga2": olga.public_hex}
    organisations = {"olga": "one", "olga2": "two"}
    root = TrustRoot(threshold=2, keys=keys, organisations=organisations, minimum_version=1)
    signed = sign_bundle(world.bundle(), {"olga": olga, "olga2": olga})
    with pytest.raises(UntrustedBundle):
        read_bundle(signed.encode(), root, now=NOW)


@given(st.data())
def test_any_flipped_bit_in_a_signed_bundle_is_refused(data: st.DataObject) -> None:
    world = WORLD
    raw = bytearray(RAW)
    position = data.draw(st.integers(0, len(raw) - 1))
    raw[position] ^= 1 << data.draw(st.integers(0, 7))
    try:
        read = read_bundle(bytes(raw), world.root, now=NOW)
    except (InvalidValue, UntrustedBundle):
        return
    # A flip in white space or in how a character is written may leave the same document, never another one.
    assert read == BUNDLE


def test_versions_below_the_pinned_one_are_refused(world: World) -> None:
    root = msgspec.structs.replace(world.root, minimum_version=5)
    with pytest.raises(UntrustedBundle, match="older"):
        read_bundle(world.signed(world.bundle(4)).encode(), root, now=NOW)
    assert read_bundle(world.signed(world.bundle(5)).encode(), root, now=NOW).version == 5


def test_a_bundle_is_believed_from_its_issue_until_before_its_expiry(world: World) -> None:
    raw = world.signed(world.bundle(issued_at=NOW, expires_at=NOW + DAY)).encode()
    for now in (NOW - MAX_CLOCK_AHEAD_SECONDS, NOW, NOW + DAY - 1):
        read_bundle(raw, world.root, now=now)
    with pytest.raises(UntrustedBundle, match="not yet"):
        read_bundle(raw, world.root, now=NOW - MAX_CLOCK_AHEAD_SECONDS - 1)
    with pytest.raises(UntrustedBundle, match="expired"):
        read_bundle(raw, world.root, now=NOW + DAY)


def test_unknown_fields_in_a_bundle_are_refused(world: World) -> None:
    value = msgspec.json.decode(world.signed(world.bundle()).encode())
    value["bundle"]["networks"][0]["surprise"] = 1
    with pytest.raises(InvalidValue):
        read_bundle(msgspec.json.encode(value), world.root, now=NOW)


@pytest.mark.parametrize("part", ["networks", "assets", "keysets", "callers", "officers", "caps"])
def test_a_part_that_is_listed_twice_is_inconsistent(world: World, part: str) -> None:
    bundle = world.bundle()
    doubled = msgspec.structs.replace(bundle, **{part: getattr(bundle, part) * 2})
    with pytest.raises(InvalidValue, match="twice"):
        check_consistent(doubled)
    with pytest.raises(InvalidValue, match="twice"):
        world.signed(doubled)


def test_one_key_of_two_callers_is_inconsistent(world: World) -> None:
    callers = (world.caller_entry("a", world.caller), world.caller_entry("b", world.caller))
    with pytest.raises(InvalidValue, match="caller key"):
        check_consistent(world.bundle(callers=callers))


@pytest.mark.parametrize(
    "change",
    [
        {"network_native_asset": "DOGE"},
        {"network_chain": "elsewhere"},
        {"network_feerate_floor": 100_001},
        {"cap_asset": "DOGE"},
        {"cap_window_seconds": 0},
        {"network_fee_window_seconds": 0},
    ],
)
def test_a_bundle_that_refers_to_nothing_or_limits_nothing_is_inconsistent(
    world: World, change: dict[str, Any]
) -> None:
    with pytest.raises(InvalidValue, match="bundle"):
        check_consistent(world.bundle(**change))


def test_parts_are_found_by_name_and_missing_ones_are_invalid(world: World) -> None:
    bundle = world.bundle()
    assert bundle.keyset_for("bitcoin-regtest", "hot").id == "btc-hot"
    assert bundle.cap("hot", "BTC").tier == "hot"
    for find in (
        lambda: bundle.network("x"),
        lambda: bundle.asset("x"),
        lambda: bundle.keyset("x"),
        lambda: bundle.keyset_for("bitcoin-regtest", "cold"),
        lambda: bundle.cap("cold", "BTC"),
        lambda: bundle.caller("x"),
    ):
        with pytest.raises(InvalidValue, match="the bundle has no"):
            find()


def test_larger_deposits_need_more_confirmations(world: World) -> None:
    steps = (Confirmations(from_units="1000", blocks=3), Confirmations(from_units="50000", blocks=12))
    asset = msgspec.structs.replace(world.bundle().assets[0], confirmations=steps)
    assert [asset.confirmations_for(units) for units in (1000, 49_999, 50_000, 10**12)] == [3, 3, 12, 12]
    # Below every step nothing fits: then the most careful one holds.
    assert asset.confirmations_for(999) == 12


WORLD = World(SoftKeys.make().record)
BUNDLE = WORLD.bundle()
RAW = WORLD.signed(BUNDLE).encode()


def test_the_stored_form_reads_back(world: World) -> None:
    assert msgspec.json.decode(RAW, type=SignedBundle) == msgspec.json.decode(
        msgspec.json.format(RAW), type=SignedBundle
    )


def test_an_orders_context_is_signed_and_left_out_where_nothing_is_said(world: World) -> None:
    silent = world.order()
    assert b"context" not in silent.canonical()
    told = msgspec.structs.replace(
        silent, context=Context(kyc_level=2, new_device=False, mfa_methods=("totp",))
    )
    assert Order.from_canonical(told.canonical()) == told
    assert b'"context":{"kyc_level":2,"mfa_methods":["totp"],"new_device":false}' in told.canonical()
    assert told.digest() != silent.digest()
    facts = facts_of(told, now=10)
    assert (facts.kyc_level, facts.new_device, facts.new_ip) == (2, False, None)
    assert facts.mfa_methods == frozenset({"totp"})


def test_what_was_changed_in_the_future_was_changed_now(world: World) -> None:
    order = msgspec.structs.replace(
        world.order(), context=Context(password_changed_at=1_000, mfa_changed_at=5)
    )
    facts = facts_of(order, now=100)
    assert (facts.password_age_seconds, facts.mfa_age_seconds) == (0, 95)
