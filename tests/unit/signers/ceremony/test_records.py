"""A ceremony's record and proof: genuine or refused; what the bundle says of them; plans that make sense."""

from __future__ import annotations

import uuid
from pathlib import Path

import coincurve
import msgspec
import pytest

from policies.bundle import BitcoinKeyset, Cosigner, EvmKeyset, Owner
from policies.canonical import encode_signature
from policies.keys import SigningKey
from signers.ceremony.entries import (
    Contracts,
    bitcoin_vault_entry,
    gas_payer_entry,
    member_entry,
    safe_entry,
    wallet_entry,
)
from signers.ceremony.facts import bitcoin_record, check_facts, evm_record, facts_of
from signers.ceremony.handout import share_text, words_in
from signers.ceremony.people import code_of
from signers.ceremony.plan import (
    NewKeys,
    NewWallet,
    read_plan,
)
from signers.ceremony.proven import require_proven
from signers.ceremony.record import (
    OperatorSignature,
    ProvenCeremony,
    check_ceremony,
    check_proven,
    proven_path,
)
from signers.ceremony.shares import split
from signers.ceremony.text import proof_text, record_text
from signers.ceremony.tool import code_hash, tool_text
from signers.errors import BadConfiguration, CeremonyStopped, NotProven
from tests.support.records import COSIGNER, EVM_KEY, OWNER, PAYER, POINT, WALLET, Held


def written(directory: Path, proven: ProvenCeremony) -> Path:
    directory.mkdir(exist_ok=True)
    proven_path(directory, proven.proof.keyset).write_bytes(msgspec.json.encode(proven))
    return directory


@pytest.mark.parametrize("new", [WALLET, COSIGNER, EVM_KEY, OWNER, PAYER], ids=lambda new: new.id)
def test_a_genuine_proof_opens_a_key_set_in_production(new: NewKeys, tmp_path: Path) -> None:
    held = Held(new)
    require_proven(written(tmp_path, held.proven()), held.keyset)
    check_facts(held.record())


def test_without_a_file_with_a_broken_one_and_after_a_rehearsal_nothing_opens(tmp_path: Path) -> None:
    held = Held()
    with pytest.raises(NotProven, match="strongroom key ceremony"):
        require_proven(tmp_path, held.keyset)
    proven_path(tmp_path, held.keyset.id).write_text("{}")
    with pytest.raises(NotProven, match="required field"):
        require_proven(tmp_path, held.keyset)
    rehearsal = Held(environment="trial")
    with pytest.raises(NotProven, match="rehearsal"):
        require_proven(written(tmp_path, rehearsal.proven()), rehearsal.keyset)


def test_a_proof_of_other_keys_does_not_open_these(tmp_path: Path) -> None:
    held, other = Held(), Held()
    with pytest.raises(NotProven, match="other keys"):
        require_proven(written(tmp_path, other.proven()), held.keyset)


def test_every_signature_is_needed_and_nothing_they_sign_can_be_changed() -> None:
    held = Held()
    proven = held.proven()
    check_proven(proven, held.keyset)
    (first, second), wrong = proven.signatures, encode_signature(bytes(64))
    for signatures in (
        (first, OperatorSignature(operator="otto", signature=wrong)),
        (OperatorSignature(operator="olga", signature=wrong), second),
        (first, first),
        (second, first),
    ):
        with pytest.raises(NotProven, match="signature"):
            check_proven(msgspec.structs.replace(proven, signatures=signatures), held.keyset)
        ceremony = msgspec.structs.replace(proven.ceremony, signatures=signatures)
        with pytest.raises(NotProven, match="signature"):
            check_ceremony(ceremony, held.keyset)
    with pytest.raises(NotProven, match="signature"):
        check_proven(msgspec.structs.replace(proven, attestation=wrong), held.keyset)
    with pytest.raises(NotProven, match="signature"):
        check_ceremony(msgspec.structs.replace(proven.ceremony, attestation=wrong), held.keyset)
    for change in ({"environment": "trial"}, {"made_at": 9}, {"purpose": "owner"}, {"public_key": "x"}):
        record = msgspec.structs.replace(proven.ceremony.record, **change)
        with pytest.raises(NotProven, match="signature"):
            check_ceremony(msgspec.structs.replace(proven.ceremony, record=record), held.keyset)


def test_one_operator_with_two_names_or_two_keys_is_still_one() -> None:
    key = SigningKey.generate()
    alone = Held(operators={"olga": key, "otto": key})
    with pytest.raises(NotProven, match="stands for two"):
        check_ceremony(alone.signed(), alone.keyset)
    held = Held()
    record = held.record()
    same = (record.operators[0], msgspec.structs.replace(record.operators[1], name="olga"))
    with pytest.raises(NotProven, match="stands for two"):
        check_ceremony(held.signed(operators=same), held.keyset)


def test_a_proof_of_another_record_is_none_of_this() -> None:
    held = Held()
    for change in ({"record": "00" * 32}, {"keyset": "other"}, {"ceremony": str(uuid.UUID(int=2))}):
        with pytest.raises(NotProven, match="another ceremony"):
            check_proven(held.proven(None, **change), held.keyset)


@pytest.mark.parametrize("field_name", ["public_key", "fingerprints", "descriptor", "addresses"])
@pytest.mark.parametrize("new", [WALLET, COSIGNER, EVM_KEY], ids=lambda new: new.id)
def test_a_record_that_says_what_does_not_follow_from_its_keys_is_refused(
    new: NewKeys, field_name: str
) -> None:
    record, other = Held(new).record(), Held(OWNER if new is not EVM_KEY else WALLET).record()
    value = getattr(other, field_name)
    if value == getattr(record, field_name):
        value = (msgspec.structs.replace(Held().record().addresses[0], index=9),)
    with pytest.raises(NotProven):
        check_facts(msgspec.structs.replace(record, **{field_name: value}))


def test_known_answers_of_bip_84_and_86() -> None:
    """The test vectors of both BIPs have other entropy; here are those of the words abandon ... art."""
    entropy, public = bytes(32), bytes(32)
    wallet = bitcoin_record(NewWallet(id="a", network="main"), entropy, public)
    assert wallet.origin.startswith("5436d724/84'/0'/0'")
    taproot = bitcoin_record(NewWallet(id="a", network="main", script="p2tr"), entropy, public)
    assert taproot.origin.startswith("5436d724/86'/0'/0'")
    addresses = facts_of(wallet, wallet.account).addresses
    assert [(one.branch, one.index) for one in addresses] == [(b, i) for b in (0, 1) for i in (0, 1, 2)]
    descriptor = facts_of(taproot, taproot.account).descriptor
    assert descriptor is not None
    assert descriptor.startswith("tr([5436d724/86h/0h/0h]xpub")
    assert facts_of(evm_record(EVM_KEY, POINT, public), POINT.hex()).addresses[0].address == (
        "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf"
    )


def test_records_and_proofs_in_print_say_what_is_signed() -> None:
    for new in (WALLET, COSIGNER, EVM_KEY, OWNER, PAYER):
        proven = Held(new).proven()
        record = proven.ceremony.record
        text = record_text(record, proven.ceremony) + proof_text(proven)
        said = [record.ceremony, record.digest_hex(), record.public_key, record.keyset.attestation_key]
        said += [one.address for one in record.addresses] + [one.signature for one in proven.signatures]
        said += [*record.fingerprints.values(), "identifier 7", "h3", "PROVEN", proven.proof.digest_hex()]
        assert [part for part in said if part not in text] == []
        assert max(len(line) for line in text.splitlines()) < 300


def test_a_bundle_lists_what_was_made_and_nobody_types_a_key() -> None:
    held = Held()
    signed, proven = held.signed(), held.proven()
    entry = wallet_entry(signed, None, chain="bitcoin", tier="hot")
    assert isinstance(entry, BitcoinKeyset)
    assert (entry.state, entry.account, entry.script) == ("pre-active", signed.record.public_key, "p2wpkh")
    with pytest.raises(BadConfiguration, match="pre-active until"):
        wallet_entry(signed, None, chain="bitcoin", tier="hot", state="active")
    assert wallet_entry(signed, held.proven(signed), chain="b", tier="hot", state="active").state == "active"
    with pytest.raises(BadConfiguration, match="pre-active until"):
        wallet_entry(Held().signed(), proven, chain="bitcoin", tier="hot", state="active")

    evm = Held(EVM_KEY).signed()
    with pytest.raises(BadConfiguration, match="contracts"):
        wallet_entry(evm, None, chain="ethereum", tier="hot")
    contracts = Contracts("0x" + "11" * 20, "22" * 32, None)
    listed = wallet_entry(evm, None, chain="ethereum", tier="hot", contracts=contracts)
    assert isinstance(listed, EvmKeyset)
    assert listed.address == evm.record.addresses[0].address


def test_members_of_vaults_are_listed_under_their_own_names() -> None:
    cosigner, owner = member_entry(Held(COSIGNER).signed()), member_entry(Held(OWNER).signed())
    assert isinstance(cosigner, Cosigner)
    assert isinstance(owner, Owner)
    assert (cosigner.id, cosigner.organisation, owner.id) == ("a", "house", "b")
    with pytest.raises(BadConfiguration, match="wallet of its own"):
        member_entry(Held().signed())
    with pytest.raises(BadConfiguration, match="member of a vault"):
        wallet_entry(Held(COSIGNER).signed(), None, chain="b", tier="warm")
    with pytest.raises(BadConfiguration, match="member of a vault"):
        wallet_entry(Held(OWNER).signed(), None, chain="b", tier="warm")


def test_a_gas_payer_is_listed_as_what_it_is_and_nothing_else() -> None:
    held = Held(PAYER)
    signed = held.signed()
    entry = gas_payer_entry(signed, None, chain="ethereum", holding_cap="7")
    assert (entry.id, entry.state, entry.holding_cap) == ("eth-gas", "pre-active", "7")
    assert entry.address == signed.record.addresses[0].address
    proven = held.proven(signed)
    assert gas_payer_entry(signed, proven, chain="e", holding_cap="7", state="active").state == "active"
    with pytest.raises(BadConfiguration, match="pre-active until"):
        gas_payer_entry(signed, None, chain="ethereum", holding_cap="7", state="active")
    for other in (Held(EVM_KEY), Held(OWNER), Held()):
        with pytest.raises(BadConfiguration, match="is no gas payer"):
            gas_payer_entry(other.signed(), None, chain="ethereum", holding_cap="7")
    with pytest.raises(BadConfiguration, match="a gas payer, not a wallet of its own"):
        wallet_entry(signed, None, chain="ethereum", tier="hot")
    with pytest.raises(BadConfiguration, match="not a member of a vault"):
        member_entry(signed)


def test_a_vault_is_put_together_from_its_members_records() -> None:
    held = [
        Held(msgspec.structs.replace(COSIGNER, member=f"m{n}"), entropy=bytes([n]) * 32) for n in (1, 2, 3)
    ]
    members = [one.signed() for one in held]
    entry, first = bitcoin_vault_entry(members, chain="bitcoin", tier="warm", threshold=2)
    assert [one.id for one in entry.cosigners] == ["m1", "m2", "m3"]
    assert (entry.id, entry.state, len(first)) == ("btc-warm", "pre-active", 6)
    assert entry.descriptor.startswith("wsh(sortedmulti(2,[")
    assert len({one.address for one in first}) == 6
    # The descriptor keeps the order that it was given; addresses do not depend on it (BIP67).
    again, same = bitcoin_vault_entry(members[::-1], chain="bitcoin", tier="warm", threshold=2)
    assert again.descriptor != entry.descriptor
    assert same == first
    elsewhere = Held(msgspec.structs.replace(COSIGNER, network="test"), entropy=bytes(32)).signed()
    for wrong, threshold in (
        ([*members, elsewhere], 2),
        ([*members, Held().signed()], 2),
        ([members[0], members[0]], 2),
        (members, 4),
        ([], 2),
    ):
        with pytest.raises(BadConfiguration):
            bitcoin_vault_entry(wrong, chain="bitcoin", tier="warm", threshold=threshold)


def test_a_safe_is_put_together_from_its_owners_records() -> None:
    safe = "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf"
    points = [coincurve.PrivateKey(bytes([n]) * 32).public_key.format() for n in (1, 2, 3)]
    members = [
        Held(msgspec.structs.replace(OWNER, member=f"o{n}"), point=point).signed()
        for n, point in enumerate(points)
    ]
    entry = safe_entry(members, chain="ethereum", tier="cold", threshold=2, address=safe)
    assert [one.address for one in entry.owners] == [one.record.addresses[0].address for one in members]
    for wrong, threshold, address in (
        ([*members, Held(EVM_KEY).signed()], 2, safe),
        ([members[0], members[0]], 2, safe),
        (members, 4, safe),
        (members, 2, safe.lower()),
        ([], 2, safe),
    ):
        with pytest.raises(BadConfiguration):
            safe_entry(wrong, chain="ethereum", tier="cold", threshold=threshold, address=address)


def test_a_holder_s_text_gives_back_the_words_and_other_texts_give_none() -> None:
    share = split(bytes(range(32)), 2, 3, lambda count: bytes(range(count)))[0]
    text = share_text("btc-hot", str(uuid.UUID(int=1)), "anna", share, 3)
    assert words_in(text) == share.words
    assert words_in(share.words + "\n") == share.words
    for other in ("", "\n", text.replace("SHARE:", "share "), text + text, "12 34"):
        with pytest.raises(CeremonyStopped, match="no recovery share"):
            words_in(other)


def test_the_code_to_be_typed_depends_on_what_is_confirmed() -> None:
    assert code_of("to token 1") != code_of("to token 2")
    assert code_of("a") == "ca97"


PLAN = """
environment = "production"
directory = "/signer"
backup_directory = "/backup"
keyset = { kind = "btc-hd", id = "btc-hot", network = "main" }
token = { module = "m", label = "main" }
proof_token = { module = "m", label = "proof" }
operators = [{ name = "olga", key_file = "1" }, { name = "otto", key_file = "2" }]
holders = [{ name = "a" }, { name = "b" }, { name = "c" }, { name = "d" }, { name = "e" }]
"""


def test_a_plan_asks_for_three_of_five_by_default(tmp_path: Path) -> None:
    (tmp_path / "plan").write_text(PLAN)
    plan = read_plan(tmp_path / "plan")
    assert (plan.threshold, len(plan.holders)) == (3, 5)
    assert plan.key_names == ("btc-hot-seal", "btc-hot-attest")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"otto"', '"olga"', "operator twice"),
        ('key_file = "2"', 'key_file = "1"', "key file twice"),
        ('{ name = "b" }', '{ name = "a" }', "holder twice"),
        (
            '{ name = "a" }, { name = "b" }',
            '{ name = "a", file = "x" }, { name = "b", file = "x" }',
            "file twice",
        ),
        ('environment = "production"', 'environment = "production"\nthreshold = 5', "name more holders"),
        ('environment = "production"', 'environment = "production"\nthreshold = 6', "6 shares are needed"),
        ('environment = "production"', 'environment = "production"\nthreshold = 1', "threshold"),
        ('label = "proof"', 'label = "main"', "another token"),
        ('environment = "production"', 'environment = "test"', "environment"),
        ('network = "main"', 'network = "mainnet"', "network"),
        ('"btc-hot"', '"../btc"', "keyset.id"),
        ("directory =", "directry =", "directry"),
        ('environment = "production"', 'environment = "production', "plan"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in PLAN
    (tmp_path / "plan").write_text(PLAN.replace(old, new, 1))
    with pytest.raises(BadConfiguration, match=said):
        read_plan(tmp_path / "plan")


def test_operators_do_not_hold_enough_shares_to_restore_the_keys(tmp_path: Path) -> None:
    plan = PLAN.replace('"olga"', '"a"').replace('"otto"', '"b"')
    (tmp_path / "plan").write_text(plan)
    assert read_plan(tmp_path / "plan").threshold == 3
    (tmp_path / "plan").write_text(plan.replace("directory =", "threshold = 2\ndirectory =", 1))
    with pytest.raises(BadConfiguration, match="between them"):
        read_plan(tmp_path / "plan")


def test_the_hash_of_the_code_changes_with_any_file(tmp_path: Path) -> None:
    for package in ("chains", "policies", "signers"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "a.py").write_text("one = 1\n")
    hashes = {code_hash(tmp_path)}
    (tmp_path / "signers" / "a.py").write_text("one = 2\n")
    hashes.add(code_hash(tmp_path))
    (tmp_path / "signers" / "a.py").rename(tmp_path / "signers" / "b.py")
    hashes.add(code_hash(tmp_path))
    (tmp_path / "signers" / "README.md").write_text("not code")
    hashes.add(code_hash(tmp_path))
    assert len(hashes) == 3
    assert code_hash() in tool_text()
    assert "shamir-mnemonic" in tool_text()
