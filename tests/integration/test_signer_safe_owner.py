"""An owner's key of a Safe in a real SoftHSM token, alone, behind the daemon, and as the Safe itself sees it."""

from __future__ import annotations

import signal
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from chains.eth.address import checksummed
from chains.eth.safe import join_signatures, owner_of
from ops.devnet.anvil import Anvil
from ops.devnet.softhsm import SoftHsmToken
from policies.bundle import SignedBundle
from signers.errors import SealBroken
from signers.hsm.pkcs11 import Token
from signers.keys.evm_keys import (
    TokenKeys,
    create_evm_keyset,
    create_gas_payer,
    create_safe_owner,
    key_path,
    read_key_file,
    signing_key_name,
)
from signers.keys.keyset import EvmKeysetRecord, GasPayerRecord, SafeOwnerRecord
from signers.keytest.selfcheck import check_evm_keys
from signers.ports import Refused
from signers.setup import NewSafeOwner, make_keys
from signers.wallets import GasPayerWallet, evm_wallet
from tests.fakes.evm_signing import ETHER, EVM_CHAIN_ID, EVM_DESTINATION, OTHER_EVM_CHAIN_ID
from tests.fakes.safe_signing import SAFE, VAULT, SafeDraft, SafeWorld, owner_keys
from tests.fakes.signer_daemon import SignerDaemon
from tests.support.evm import mined, succeeded
from tests.support.safe import deploy_safe


@pytest.fixture
def name() -> str:
    return f"s-{uuid.uuid4().hex[:12]}"


def test_a_key_is_made_for_an_owner_or_to_pay_and_no_file_makes_it_the_other(
    token: Token, name: str, tmp_path: Path
) -> None:
    record = create_safe_owner(token, name, EVM_CHAIN_ID, tmp_path)
    assert create_safe_owner(token, name, EVM_CHAIN_ID, tmp_path) == record
    with pytest.raises(SealBroken, match=r"is a safe-owner .* not a evm-key"):
        create_evm_keyset(token, name, EVM_CHAIN_ID, tmp_path)
    with pytest.raises(SealBroken, match="give the new key-set another name"):
        create_safe_owner(token, name, OTHER_EVM_CHAIN_ID, tmp_path)
    file = read_key_file(key_path(tmp_path, name))
    keys = TokenKeys(token, file, signing_key_name(name))
    assert isinstance(keys.record, SafeOwnerRecord)
    check_evm_keys(keys)
    fields = {field: getattr(record, field) for field in ("id", "chain_id", "address", "attestation_key")}
    edited = msgspec.structs.replace(file, record=EvmKeysetRecord(**fields))
    payer = msgspec.structs.replace(file, record=GasPayerRecord(**fields))
    for file in (edited, payer):
        with pytest.raises(SealBroken, match="not the one that token"):
            TokenKeys(token, file, signing_key_name(name))


def test_a_key_made_to_pay_gas_is_no_other_by_an_edited_file(token: Token, name: str, tmp_path: Path) -> None:
    (record,) = make_keys_of(token, name, tmp_path)
    file = read_key_file(key_path(tmp_path, name))
    keys = TokenKeys(token, file, signing_key_name(name))
    check_evm_keys(keys)
    assert isinstance(evm_wallet(keys), GasPayerWallet)
    with pytest.raises(SealBroken, match=r"is a gas-payer .* not a evm-key"):
        create_evm_keyset(token, name, EVM_CHAIN_ID, tmp_path)
    fields = {field: getattr(record, field) for field in ("id", "chain_id", "address", "attestation_key")}
    edited = msgspec.structs.replace(file, record=EvmKeysetRecord(**fields))
    with pytest.raises(SealBroken, match="not the one that token"):
        TokenKeys(token, edited, signing_key_name(name))


def make_keys_of(token: Token, name: str, directory: Path) -> list[GasPayerRecord]:
    """A gas payer's key, made twice: the same one."""
    made = [create_gas_payer(token, name, EVM_CHAIN_ID, directory) for _ in range(2)]
    assert made[0] == made[1]
    return made[:1]


class OwnerDaemon(SignerDaemon):
    """A daemon with one owner's key in the token; the keys of the other owners are soft."""

    def __init__(self, token: SoftHsmToken, record: SafeOwnerRecord, files: Path, directory: Path) -> None:
        owners = owner_keys()
        owners[0].record = record  # its key is in the token
        self.world = SafeWorld.make(SAFE, owners)
        self.world.now = int(time.time())
        super().__init__(token, [VAULT], files, self.world.root, self.signed_bundle, directory)

    def signed_bundle(self, version: int) -> SignedBundle:
        return self.world.signed(self.world.bundle(version))

    def signature(self, draft: SafeDraft) -> bytes:
        """The daemon's signature for a draft."""
        (one,) = self.client.sign(self.world.safe_request(draft)).signatures
        return bytes.fromhex(one.signature)


@pytest.fixture(scope="session")
def owner(softhsm: SoftHsmToken, tmp_path_factory: pytest.TempPathFactory) -> tuple[SafeOwnerRecord, Path]:
    """An owner's key in the token, and the directory with its record."""
    directory = tmp_path_factory.mktemp("owner")
    new = [NewSafeOwner(VAULT, EVM_CHAIN_ID)]
    (record,) = make_keys(softhsm.module_path, softhsm.label, softhsm.user_pin, directory, new)
    assert isinstance(record, SafeOwnerRecord)
    return record, directory


@pytest.fixture
def daemon(
    softhsm: SoftHsmToken, owner: tuple[SafeOwnerRecord, Path], tmp_path: Path
) -> Iterator[OwnerDaemon]:
    made = OwnerDaemon(softhsm, *owner, tmp_path)
    yield made
    made.close()


def test_fault_45_a_daemon_signs_what_the_screen_says_and_refuses_what_the_bytes_hide(
    daemon: OwnerDaemon,
) -> None:
    daemon.start()
    draft = daemon.world.safe_draft()
    message = daemon.world.message(draft)
    first = daemon.signature(draft)
    record = daemon.world.owners[0].record
    assert checksummed(owner_of(message.signing_hash, first)) == record.address
    for tx, code in (
        ({"operation": 1}, "delegate-call"),
        ({"to": bytes.fromhex(SAFE[2:]), "value_wei": 0}, "safe-administration"),
        ({"gas_price": 1}, "refund-fields"),
    ):
        with pytest.raises(Refused, match=code):
            daemon.signature(replace(daemon.world.safe_draft(nonce=1), tx=tx))
    # An HSM's signatures are random, but of one transaction there is one only, also after a crash.
    daemon.end(signal.SIGKILL)
    daemon.start()
    assert daemon.signature(draft) == first
    assert daemon.client.status().signed == 1


def test_the_hsms_signature_counts_for_a_real_safe(daemon: OwnerDaemon, anvil: Anvil) -> None:
    world = daemon.world
    safe = deploy_safe(anvil, anvil.accounts()[0], [key.record.address for key in world.owners], 2)
    anvil.fund(safe.address, 10 * ETHER)
    world.safe = safe.address
    daemon.publish(1)
    daemon.start()
    draft = world.safe_draft(3 * ETHER, safe=safe.address)
    message = world.message(draft)
    blob = join_signatures(message.signing_hash, [daemon.signature(draft), world.owner_signature(message, 2)])
    before = anvil.balance_wei(EVM_DESTINATION)
    sender = anvil.accounts()[1]
    txid = anvil.transact(sender, safe.address, message.tx.execution(blob), gas=300_000)
    assert succeeded(mined(anvil, txid))
    assert anvil.balance_wei(EVM_DESTINATION) - before == 3 * ETHER
