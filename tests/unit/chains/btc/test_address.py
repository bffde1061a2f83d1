"""Addresses against the vectors of BIP173 and BIP350, two other implementations, and arbitrary text."""

from __future__ import annotations

import pytest
from bip_utils import Base58Encoder, SegwitBech32Encoder
from hypothesis import given
from hypothesis import strategies as st

from chains.btc.address import address_text, p2wpkh_address_text, parse_address
from chains.btc.network import NETWORKS
from chains.btc.script import (
    classify,
    p2pkh_script_from_hash,
    p2sh_script_from_hash,
    p2wpkh_script_from_hash,
    witness_script,
)
from chains.errors import InvalidAddress, InvalidValue

MAIN, TEST, REGTEST = NETWORKS["main"], NETWORKS["test"], NETWORKS["regtest"]

VALID = [
    (
        MAIN,
        "BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4",
        "0014751e76e8199196d454941c45d1b3a323f1433bd6",
        "p2wpkh",
    ),
    (
        TEST,
        "tb1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3q0sl5k7",
        "00201863143c14c5166804bd19203356da136c985678cd4d27a1b8c6329604903262",
        "p2wsh",
    ),
    (
        TEST,
        "tb1qqqqqp399et2xygdj5xreqhjjvcmzhxw4aywxecjdzew6hylgvsesrxh6hy",
        "0020000000c4a5cad46221b2a187905e5266362b99d5e91c6ce24d165dab93e86433",
        "p2wsh",
    ),
    (
        TEST,
        "tb1pqqqqp399et2xygdj5xreqhjjvcmzhxw4aywxecjdzew6hylgvsesf3hn0c",
        "5120000000c4a5cad46221b2a187905e5266362b99d5e91c6ce24d165dab93e86433",
        "p2tr",
    ),
    (
        MAIN,
        "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0",
        "512079be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798",
        "p2tr",
    ),
    (
        MAIN,
        "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa",
        "76a91462e907b15cbf27d5425399ebf6f0fb50ebb88f1888ac",
        "p2pkh",
    ),
    (MAIN, "3P14159f73E4gFr7JterCCQh9QjiTjiZrG", "a914e9c3dd0c07aac76179ebc76a6c78d4d67c6c160a87", "p2sh"),
]

# The invalid addresses of BIP173 and BIP350, and the valid ones of no standard type.
INVALID = [
    "tc1qw508d6qejxtdg4y5r3zarvary0c5xw7kg3g4ty",
    "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t5",
    "BC13W508D6QEJXTDG4Y5R3ZARVARY0C5XW7KN40WF2",
    "bc1rw5uspcuh",
    "bc10w508d6qejxtdg4y5r3zarvary0c5xw7kw508d6qejxtdg4y5r3zarvary0c5xw7kw5rljs90",
    "BC1QR508D6QEJXTDG4Y5R3ZARVARYV98GJ9P",
    "tb1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3q0sL5k7",
    "bc1zw508d6qejxtdg4y5r3zarvaryvqyzf3du",
    "tb1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3pjxtptv",
    "bc1gmk9yu",
    "tc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vq5zuyut",
    "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqh2y7hd",
    "tb1z0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqglt7rf",
    "BC1S0XLXVLHEMJA6C4DQV22UAPCTQUPFHLXM9H8Z3K2E72Q4K9HCZ7VQ54WELL",
    "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kemeawh",
    "tb1q0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vq24jc47",
    "bc1p38j9r5y49hruaue7wxjce0updqjuyyx0kh56v8s25huc6995vvpql3jow4",
    "BC130XLXVLHEMJA6C4DQV22UAPCTQUPFHLXM9H8Z3K2E72Q4K9HCZ7VQ7ZWS8R",
    "bc1pw5dgrnzv",
    "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7v8n0nx0muaewav253zgeav",
    "tb1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vq47Zagq",
    "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7v07qwwzcrf",
    "tb1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vpggkg4j",
    "bc1pw508d6qejxtdg4y5r3zarvary0c5xw7kw508d6qejxtdg4y5r3zarvary0c5xw7kt5nd6y",
    "BC1SW50QGDZ25J",
    "bc1zw508d6qejxtdg4y5r3zarvaryvaxxpcs",
    "",
    " bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
    "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4\n",
    "1A1zP1eP5QGefi2DMPTfTL5SLmv7Divfna",
    "5HueCGU8rMjxEXxiPuD5BDku4MkFqeZyd4dZ1jvhTVqvbTLvyTJ",
]


@pytest.mark.parametrize(("network", "text", "script", "kind"), VALID)
def test_a_valid_address_is_read_and_written_back(network, text, script, kind) -> None:  # type: ignore[no-untyped-def]
    address = parse_address(text, network, "some-chain")
    assert (address.script.hex(), address.kind, address.chain) == (script, kind, "some-chain")
    assert address_text(address.script, network) == address.text
    assert address.text in (text, text.lower())


@pytest.mark.parametrize("network", [MAIN, TEST, REGTEST], ids=lambda network: network.name)
@pytest.mark.parametrize("text", INVALID)
def test_an_invalid_address_is_refused_on_every_network(text: str, network) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidAddress):
        parse_address(text, network, "some-chain")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx", "wrong network"),
        ("mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn", "wrong network"),
        ("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t5", "bad checksum"),
        ("1A1zP1eP5QGefi2DMPTfTL5SLmv7Divfna", "bad checksum"),
        ("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3T4", "mixed"),
        ("bc1zw508d6qejxtdg4y5r3zarvaryvaxxpcs", "unknown type"),
        ("bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqh2y7hd", "wrong encoding"),
        ("5HueCGU8rMjxEXxiPuD5BDku4MkFqeZyd4dZ1jvhTVqvbTLvyTJ", "unknown type"),
        ("0x52908400098527886E0F7030069857D2E4169EE7", "no address of Bitcoin"),
    ],
)
def test_the_error_says_what_is_wrong(text: str, reason: str) -> None:
    with pytest.raises(InvalidAddress, match=reason):
        parse_address(text, MAIN, "bitcoin")


def test_a_script_of_no_standard_type_has_no_address() -> None:
    with pytest.raises(InvalidValue):
        address_text(b"\x6a\x04abcd", MAIN)


hashes = st.binary(min_size=20, max_size=20)
networks = st.sampled_from(list(NETWORKS.values()))
scripts = st.one_of(
    st.builds(p2pkh_script_from_hash, hashes),
    st.builds(p2sh_script_from_hash, hashes),
    st.builds(p2wpkh_script_from_hash, hashes),
    st.builds(witness_script, st.sampled_from([0, 1]), st.binary(min_size=32, max_size=32)),
)


@given(scripts, networks)
def test_every_standard_script_survives_the_way_through_its_address(script: bytes, network) -> None:  # type: ignore[no-untyped-def]
    address = parse_address(address_text(script, network), network, "c")
    assert (address.script, address.kind) == (script, classify(script))


@given(hashes, networks)
def test_the_quick_encoder_writes_what_bip_utils_writes(key_hash: bytes, network) -> None:  # type: ignore[no-untyped-def]
    assert p2wpkh_address_text(key_hash, network) == SegwitBech32Encoder.Encode(
        network.bech32_hrp, 0, key_hash
    )


@given(hashes)
def test_base58_agrees_with_bip_utils(key_hash: bytes) -> None:
    theirs = Base58Encoder.CheckEncode(b"\x00" + key_hash)
    assert address_text(p2pkh_script_from_hash(key_hash), MAIN) == theirs
    theirs = Base58Encoder.CheckEncode(b"\xc4" + key_hash)
    assert address_text(p2sh_script_from_hash(key_hash), REGTEST) == theirs


@given(
    st.one_of(
        st.text(max_size=100), st.from_regex(r"(bc1|tb1|bcrt1|1|3|m|2)[0-9a-zA-Z]{10,70}", fullmatch=True)
    )
)
def test_arbitrary_text_is_refused_with_the_right_error(text: str) -> None:
    with pytest.raises(InvalidAddress):
        parse_address(text, MAIN, "bitcoin")


@given(scripts, st.data())
def test_one_wrong_character_is_always_noticed(script: bytes, data: st.DataObject) -> None:
    text = address_text(script, MAIN)
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(
        st.sampled_from("023456789acdefghjklmnpqrstuvwxyz").filter(lambda c: c != text[at].lower())
    )
    with pytest.raises(InvalidAddress):
        parse_address(text[:at] + other + text[at + 1 :], MAIN, "bitcoin")


@given(
    st.binary(min_size=20, max_size=20),
    st.integers(0, 43),
    st.sampled_from("qpzry9x8gf2tvdw0s3jn54khce6mua7lbio1"),
)
def test_an_address_with_a_changed_character_is_refused_in_either_case(
    key_hash: bytes, at: int, other: str
) -> None:
    """Lower case is read quickly, upper case by the reference decoder."""
    text = p2wpkh_address_text(key_hash, REGTEST)
    changed = text[:at] + other + text[at + 1 :]
    for form in (changed, changed.upper()):
        if changed == text:
            assert parse_address(form, REGTEST, "x").script == p2wpkh_script_from_hash(key_hash)
        else:
            with pytest.raises(InvalidAddress):
                parse_address(form, REGTEST, "x")
