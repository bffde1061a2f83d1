"""EVM keys in a real SoftHSM token: alone, behind the daemon beside a BTC key-set, and as a real node sees them."""

from __future__ import annotations

import shutil
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import msgspec
import PyKCS11
import pytest
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from chains.errors import InvalidValue
from chains.eth.address import raw_address
from chains.eth.tx import SignedTx
from chains.secp256k1 import LOW_S_LIMIT
from ops.devnet.anvil import Anvil
from ops.devnet.process import wait_until
from ops.devnet.softhsm import SoftHsmToken
from policies.bundle import SignedBundle
from policies.canonical import verify_ed25519
from signers.errors import SealBroken, TokenRefused
from signers.hsm.pkcs11 import Token
from signers.keys.ecdsa import must_stay_inside, normalised
from signers.keys.evm_keys import TokenKeys, create_evm_keyset, key_path, read_key_file, signing_key_name
from signers.keys.keyset import KEY_PLACE, BitcoinKeysetRecord, EvmKeysetRecord, KeysetRecord
from signers.keytest.selfcheck import check_evm_keys
from signers.ports import Refused, SignerUnavailable, SignRequest, SignResponse
from signers.setup import NewBitcoinKeyset, NewEvmKeyset, NewKeyset, make_keys
from signers.wallets import verifies
from tests.fakes.evm_signing import (
    ETHER,
    EVM_CHAIN,
    EVM_CHAIN_ID,
    EVM_DESTINATION,
    OTHER_EVM_CHAIN_ID,
    EvmDraft,
    EvmWorld,
)
from tests.fakes.signer_daemon import SignerDaemon
from tests.fakes.signing import Draft, World

BTC, ETH, XETH = "three-btc", "three-eth", "three-xeth"


@pytest.fixture
def name() -> str:
    return f"k-{uuid.uuid4().hex[:12]}"


# The key.


def test_a_key_is_made_once_and_opens_again(token: Token, name: str, tmp_path: Path) -> None:
    record = create_evm_keyset(token, name, EVM_CHAIN_ID, tmp_path)
    assert create_evm_keyset(token, name, EVM_CHAIN_ID, tmp_path) == record
    keys = TokenKeys(token, read_key_file(key_path(tmp_path, name)), signing_key_name(name))
    assert keys.record == record
    check_evm_keys(keys)
    assert key_path(tmp_path, name).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [f"{name}.key.json"]


def test_its_signatures_are_random_and_all_of_them_verify_in_another_library(
    token: Token, name: str, tmp_path: Path
) -> None:
    create_evm_keyset(token, name, EVM_CHAIN_ID, tmp_path)
    keys = TokenKeys(token, read_key_file(key_path(tmp_path, name)), signing_key_name(name))
    digest = b"\x07" * 32
    with ThreadPoolExecutor(8) as pool:
        raws = list(pool.map(lambda _: keys.sign(*KEY_PLACE, digest)[1], range(64)))
    assert len({raw[:32] for raw in raws}) == 64
    # Half of them have a high s; none that comes out does.
    assert any(int.from_bytes(raw[32:], "big") > LOW_S_LIMIT for raw in raws)
    for raw in raws:
        signature = normalised(raw, keys.pubkey, digest)
        der = _der(signature)
        assert verifies(keys.pubkey, digest, der)
        assert not verifies(keys.pubkey, b"\x08" * 32, der)


def _der(signature: bytes) -> bytes:
    return encode_dss_signature(*(int.from_bytes(signature[at : at + 32], "big") for at in (0, 32)))


def test_the_key_can_not_be_read_out_or_made_readable(token: Token, name: str, tmp_path: Path) -> None:
    create_evm_keyset(token, name, EVM_CHAIN_ID, tmp_path)
    session = token._session(token._slot())
    wanted = [(PyKCS11.CKA_CLASS, PyKCS11.CKO_PRIVATE_KEY), (PyKCS11.CKA_LABEL, signing_key_name(name))]
    (key,) = session.findObjects(wanted)
    sensitive, extractable, value = session.getAttributeValue(
        key, [PyKCS11.CKA_SENSITIVE, PyKCS11.CKA_EXTRACTABLE, PyKCS11.CKA_VALUE]
    )
    assert (bool(sensitive), bool(extractable), value) == (True, False, None)
    for attribute, wish in ((PyKCS11.CKA_EXTRACTABLE, True), (PyKCS11.CKA_SENSITIVE, False)):
        with pytest.raises(PyKCS11.PyKCS11Error):
            session.setAttributeValue(key, [(attribute, wish)])
    session.closeSession()


def test_a_key_that_was_made_extractable_is_not_used(token: Token, name: str, tmp_path: Path) -> None:
    """Somebody else made the key, under the right name: what it can give away it may have given away."""
    create_evm_keyset(token, name, EVM_CHAIN_ID, tmp_path)
    file = read_key_file(key_path(tmp_path, name))
    session = token._session(token._slot())
    for kind in (PyKCS11.CKO_PRIVATE_KEY, PyKCS11.CKO_PUBLIC_KEY):
        wanted = [(PyKCS11.CKA_CLASS, kind), (PyKCS11.CKA_LABEL, signing_key_name(name))]
        session.destroyObject(session.findObjects(wanted)[0])
    public = [
        (PyKCS11.CKA_EC_PARAMS, bytes.fromhex("06052b8104000a")),
        (PyKCS11.CKA_LABEL, signing_key_name(name)),
        (PyKCS11.CKA_TOKEN, True),
    ]
    private = [
        (PyKCS11.CKA_LABEL, signing_key_name(name)),
        (PyKCS11.CKA_TOKEN, True),
        (PyKCS11.CKA_SIGN, True),
        (PyKCS11.CKA_SENSITIVE, False),
        (PyKCS11.CKA_EXTRACTABLE, True),
    ]
    session.generateKeyPair(public, private, PyKCS11.Mechanism(PyKCS11.CKM_EC_KEY_PAIR_GEN, None))
    session.closeSession()
    with pytest.raises(SealBroken, match="not the recorded ones"):
        TokenKeys(token, file, signing_key_name(name))
    with pytest.raises(TokenRefused, match="is or was extractable"):
        must_stay_inside(token, signing_key_name(name))


def test_a_record_that_was_edited_does_not_open(token: Token, name: str, tmp_path: Path) -> None:
    create_evm_keyset(token, name, EVM_CHAIN_ID, tmp_path)
    create_evm_keyset(token, name + "-b", EVM_CHAIN_ID, tmp_path)
    file = read_key_file(key_path(tmp_path, name))
    other = read_key_file(key_path(tmp_path, name + "-b"))
    for change in (
        {"chain_id": OTHER_EVM_CHAIN_ID},
        {"id": other.record.id},
        {"address": other.record.address},
        {"attestation_key": other.record.attestation_key},
    ):
        edited = msgspec.structs.replace(file, record=msgspec.structs.replace(file.record, **change))
        with pytest.raises(SealBroken):
            TokenKeys(token, edited, signing_key_name(name))


def test_a_key_of_one_network_is_not_made_one_of_another(token: Token, name: str, tmp_path: Path) -> None:
    create_evm_keyset(token, name, EVM_CHAIN_ID, tmp_path)
    with pytest.raises(SealBroken, match="give the new key-set another name"):
        create_evm_keyset(token, name, OTHER_EVM_CHAIN_ID, tmp_path)


def test_a_key_whose_record_was_lost_is_not_made_anew(token: Token, name: str, tmp_path: Path) -> None:
    create_evm_keyset(token, name, EVM_CHAIN_ID, tmp_path)
    key_path(tmp_path, name).unlink()
    with pytest.raises(TokenRefused, match="already"):
        create_evm_keyset(token, name, EVM_CHAIN_ID, tmp_path)


def test_names_and_chain_ids_are_checked_before_anything_is_made(token: Token, tmp_path: Path) -> None:
    for bad_name, chain_id in (("../x", 1), ("", 1), ("good-evm-name", 0), ("good-evm-name", 2**53)):
        with pytest.raises(InvalidValue):
            create_evm_keyset(token, bad_name, chain_id, tmp_path)
    with pytest.raises(TokenRefused, match="0 keys"):
        token.attestation_public_key("good-evm-name-attest")


# The daemon.


class ThreeKeysets(SignerDaemon):
    """A daemon that serves BTC and two EVM networks."""

    def __init__(
        self, token: SoftHsmToken, records: list[KeysetRecord], files: Path, directory: Path
    ) -> None:
        btc, eth, xeth = records
        assert isinstance(btc, BitcoinKeysetRecord)
        assert isinstance(eth, EvmKeysetRecord)
        assert isinstance(xeth, EvmKeysetRecord)
        now = int(time.time())
        self.evm = EvmWorld(eth, xeth, now=now)
        self.btc = World(
            btc, now=now, officers=self.evm.officers, caller=self.evm.caller, stranger=self.evm.stranger
        )
        super().__init__(token, [BTC, ETH, XETH], files, self.evm.root, self.signed_bundle, directory)

    def signed_bundle(self, version: int) -> SignedBundle:
        bundle, btc = self.evm.bundle(version), self.btc.bundle(version)
        return self.evm.signed(
            msgspec.structs.replace(
                bundle,
                networks=bundle.networks + btc.networks,
                assets=bundle.assets + btc.assets,
                keysets=bundle.keysets + btc.keysets,
                caps=bundle.caps + btc.caps,
                breakers=bundle.breakers + btc.breakers,
                prices=bundle.prices + btc.prices,
                policy=bundle.policy,
            )
        )

    def draft(self, units: int = ETHER // 10, **changes: object) -> EvmDraft:
        draft = EvmDraft([self.evm.order(units)], keyset=ETH)
        return replace(draft, **changes)  # type: ignore[arg-type]

    def signed(self, draft: EvmDraft) -> SignedTx:
        """The draft's transaction with the daemon's signature."""
        (signature,) = self.client.sign(self.evm.request(draft)).signatures
        return self.evm.tx(draft).signed(bytes.fromhex(signature.signature))


@pytest.fixture(scope="session")
def three(softhsm: SoftHsmToken, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[KeysetRecord], Path]:
    """Key-sets of both families in the token, and the directory with their files."""
    directory = tmp_path_factory.mktemp("three")
    wanted: list[NewKeyset] = [
        NewBitcoinKeyset(BTC, "regtest"),
        NewEvmKeyset(ETH, EVM_CHAIN_ID),
        NewEvmKeyset(XETH, OTHER_EVM_CHAIN_ID),
    ]

    records, again = (
        make_keys(softhsm.module_path, softhsm.label, softhsm.user_pin, directory, wanted) for _ in range(2)
    )
    assert again == records
    return records, directory


@pytest.fixture
def daemon(
    softhsm: SoftHsmToken, three: tuple[list[KeysetRecord], Path], tmp_path: Path
) -> Iterator[ThreeKeysets]:
    made = ThreeKeysets(softhsm, *three, tmp_path)
    yield made
    made.close()


def test_one_daemon_serves_both_families_and_both_networks(daemon: ThreeKeysets) -> None:
    daemon.start()
    assert daemon.client.status().keysets == (BTC, ETH, XETH)
    btc = daemon.btc.request(Draft([daemon.btc.coin()], [daemon.btc.order()]))
    assert len(daemon.client.sign(btc).signatures) == 1
    assert daemon.signed(daemon.draft()).sender() == raw_address(daemon.evm.record.address)
    attested = daemon.client.attest(daemon.evm.attestation(5))
    verify_ed25519(daemon.evm.record.attestation_key, attested.attestation.digest(), attested.signature)
    # A request of one family under a key-set of the other is not understood.
    for keyset, chain in ((BTC, EVM_CHAIN), (ETH, btc.chain)):
        with pytest.raises(Refused, match="wrong-chain"):
            daemon.client.sign(msgspec.structs.replace(btc, keyset=keyset, chain=chain))
    assert daemon.end() == 0


def test_a_real_node_accepts_what_it_signs(daemon: ThreeKeysets, anvil: Anvil) -> None:
    daemon.start()
    key = daemon.evm.record.address
    anvil.fund(key, ETHER)
    before = anvil.balance_wei(EVM_DESTINATION)
    nonce = int(anvil.rpc("eth_getTransactionCount", key, "latest"), 16)
    signed = daemon.signed(daemon.draft(nonce=nonce))
    txid = anvil.send_raw("0x" + signed.encode().hex())
    anvil.mine()
    assert txid.removeprefix("0x") == signed.txid.hex
    receipt = anvil.receipt(txid)
    assert receipt is not None
    assert receipt["status"] == "0x1"
    assert anvil.rpc("eth_getTransactionByHash", txid)["from"] == key.lower()
    assert anvil.balance_wei(EVM_DESTINATION) == before + ETHER // 10


def test_fault_1_killed_after_the_record_it_gives_the_same_signature_for_ever(daemon: ThreeKeysets) -> None:
    daemon.start()
    request = daemon.evm.request(daemon.draft())
    answer = daemon.client.sign(request)
    for how in (signal.SIGKILL, signal.SIGTERM):
        daemon.end(how)
        daemon.start()
        assert daemon.client.sign(request) == answer
    assert daemon.client.status().signed == 1


def test_fault_30_a_token_that_goes_away_before_signing_gives_one_signature_when_it_is_back(
    daemon: ThreeKeysets,
) -> None:
    copy = daemon.with_a_token_of_its_own()
    daemon.start()
    draft = daemon.draft()
    request = daemon.evm.request(draft)
    (copy / "tokens").rename(copy / "away")
    with pytest.raises(SignerUnavailable):
        daemon.client.sign(request)
    # It was journaled before the token was asked, so it is bound to its nonce.
    assert daemon.client.status().signed == 1
    with pytest.raises(Refused, match="conflicting-version"):
        daemon.client.sign(daemon.evm.request(replace(draft, nonce=1)))
    (copy / "away").rename(copy / "tokens")

    def answers() -> bool:
        try:
            daemon.client.sign(request)
        except SignerUnavailable:
            return False
        return True

    wait_until(answers, timeout=20, what="the token to be back")
    answer = daemon.client.sign(request)
    daemon.end(signal.SIGKILL)
    daemon.start()
    assert daemon.client.sign(request) == answer
    assert daemon.client.status().signed == 1


def test_fault_30_a_token_pulled_out_while_eight_callers_sign_gives_each_transaction_one_signature(
    daemon: ThreeKeysets,
) -> None:
    """Callers ask again with the same request until they are answered, as workers do; the token comes and goes."""
    copy = daemon.with_a_token_of_its_own()
    daemon.start()
    drafts = [daemon.draft(ETHER // 1000 + nonce, nonce=nonce) for nonce in range(60)]
    requests = [daemon.evm.request(draft) for draft in drafts]
    lost: list[SignRequest] = []

    def ask(request: SignRequest) -> SignResponse:
        while True:
            try:
                return daemon.client.sign(request)
            except SignerUnavailable as error:
                if "does not answer" in str(error) or "no token" in str(error):
                    lost.append(request)

    def noticed(before: int) -> Callable[[], bool]:
        return lambda: len(lost) > before + 8 or all(work.done() for work in running)

    def answered(before: int) -> Callable[[], bool]:
        return lambda: sum(work.done() for work in running) > before or before == len(running)

    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(ask, request) for request in requests]
        for _ in range(2):
            before = len(lost)
            (copy / "tokens").rename(copy / "away")
            wait_until(noticed(before), timeout=30, what="callers to notice")
            (copy / "away").rename(copy / "tokens")
            wait_until(answered(sum(work.done() for work in running)), timeout=30, what="the token")
        answers = [work.result(timeout=60) for work in running]
    assert lost
    assert daemon.client.status().signed == len(requests)
    r_values = set()
    for draft, request, answer in zip(drafts, requests, answers, strict=True):
        (signature,) = answer.signatures
        signed = daemon.evm.tx(draft).signed(bytes.fromhex(signature.signature))
        assert signed.sender() == raw_address(daemon.evm.record.address)
        r_values.add(signed.r)
        assert ask(request) == answer
    assert len(r_values) == len(requests)
    daemon.end(signal.SIGKILL)
    daemon.start()
    assert [ask(request) for request in requests] == answers


def test_a_record_of_another_chain_id_stops_it(daemon: ThreeKeysets) -> None:
    path = daemon.stores / f"{ETH}.key.json"
    path.write_bytes(path.read_bytes().replace(b'"chain_id":31337', b'"chain_id":1'))
    assert "is not the one that token" in daemon.refuses_to_start()


def test_a_keyset_without_its_file_stops_it(daemon: ThreeKeysets) -> None:
    (daemon.stores / f"{ETH}.key.json").unlink()
    assert "create the key-set first, or restore the file" in daemon.refuses_to_start()


def test_the_record_of_another_token_stops_it(daemon: ThreeKeysets) -> None:
    shutil.copy(daemon.stores / f"{XETH}.key.json", daemon.stores / f"{ETH}.key.json")
    text = (daemon.stores / f"{ETH}.key.json").read_text().replace(XETH, ETH)
    (daemon.stores / f"{ETH}.key.json").write_text(text)
    assert "the token's keys are not the recorded ones" in daemon.refuses_to_start()


def test_nothing_secret_is_in_its_files_log_or_answers(daemon: ThreeKeysets) -> None:
    daemon.start()
    daemon.signed(daemon.draft())
    daemon.end()
    pin = daemon.token.user_pin().encode()
    for path in [p for p in daemon.directory.rglob("*") if p.is_file()]:
        assert pin not in path.read_bytes()
