"""The signer daemon as a process of its own, on a real SoftHSM token: started, killed, restored, misconfigured."""

from __future__ import annotations

import base64
import os
import resource
import signal
import socket
import sqlite3
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from chains.btc.psbt import InputSignature, finalize, parse_psbt
from chains.btc.tx import Transaction
from ops.devnet.bitcoind import Bitcoind
from ops.devnet.process import wait_until
from ops.devnet.softhsm import SoftHsmToken
from policies.canonical import verify_ed25519
from signers.client import SignerClient, TlsAddress
from signers.keys.keyset import BitcoinKeysetRecord
from signers.ports import AttestRequest, Refused, SignerUnavailable, SignRequest, SignResponse
from signers.setup import NewBitcoinKeyset, initialise, make_keys
from signers.wire import Call, write_frame
from tests.fakes.certificates import make_certificate
from tests.fakes.signer_daemon import KEYSET, BitcoinDaemon
from tests.fakes.signing import CHAIN, Coin, Draft, SoftKeys, World


def test_it_signs_attests_and_ends_cleanly(daemon: BitcoinDaemon) -> None:
    daemon.start()
    request = daemon.request()
    answer = daemon.client.sign(request)
    assert daemon.client.sign(request) == answer
    signed = daemon.client.attest(
        AttestRequest(chain=CHAIN, keyset=KEYSET, customer="alice", asset="BTC", branch=0, index=0)
    )
    verify_ed25519(daemon.world.record.attestation_key, signed.attestation.digest(), signed.signature)
    assert signed.attestation.address == daemon.world.account.address(0, 0)
    assert daemon.client.status().signed == 1
    assert daemon.end() == 0


def test_a_real_node_accepts_what_it_signs(daemon: BitcoinDaemon, bitcoind: Bitcoind) -> None:
    """Coins from the node, a payment signed by the daemon, and the node's own verification of the result."""
    daemon.start()
    world = daemon.world
    outside = bitcoind.wallet("signer-test")
    outside.fund()
    txid = outside.send(world.account.address(0, 9), 2_000_000)
    raw = bytes.fromhex(bitcoind.rpc("getrawtransaction", txid))
    outside.mine(1)
    draft = Draft([_coin_in(raw, world, 0, 9)], [world.order(700_000)])
    request = world.request(draft)
    signed = _finalised(request, daemon.client.sign(request))
    (verdict,) = bitcoind.rpc("testmempoolaccept", [signed.hex()])
    assert verdict["allowed"], verdict


def _coin_in(raw: bytes, world: World, branch: int, index: int) -> Coin:
    previous = Transaction.parse(raw)
    script = world.account.script(branch, index)
    vout = next(n for n, out in enumerate(previous.outputs) if out.script == script)
    return Coin(previous, vout, branch, index)


def _finalised(request: SignRequest, answer: SignResponse) -> bytes:
    psbt = parse_psbt(base64.b64decode(request.transaction))
    return finalize(
        psbt,
        [
            InputSignature(s.index, bytes.fromhex(s.pubkey), bytes.fromhex(s.signature))
            for s in answer.signatures
        ],
    )


def test_fault_1_killed_between_journal_and_reply_it_gives_the_same_signature_afterwards(
    daemon: BitcoinDaemon,
) -> None:
    """Four hundred inputs take a while to sign: the mark moves, and long before the reply the daemon is killed."""
    daemon.start()
    request = daemon.request(coins=400, fee_sats=50_000)
    mark = daemon.marks / "journal.mark"
    before = mark.read_bytes()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(str(daemon.directory / "s.sock"))
        call = Call(call="sign", body=msgspec.Raw(msgspec.json.encode(request)))
        write_frame(connection, msgspec.json.encode(call))
        wait_until(lambda: mark.read_bytes() != before, timeout=30, what="the journal to commit")
        daemon.end(signal.SIGKILL)
        assert connection.recv(1) == b""
    daemon.start()
    assert daemon.client.status().signed == 1
    answer = daemon.client.sign(request)
    assert len(answer.signatures) == 400
    assert daemon.client.status().signed == 1
    # And it is journaled: another transaction for the same intent is a double payment.
    again = msgspec.structs.replace(
        request,
        transaction=daemon.world.request(
            Draft([daemon.world.coin()], [request.evidence.orders[0].order])
        ).transaction,
    )
    with pytest.raises(Refused, match="conflicting-version"):
        daemon.client.sign(again)
    daemon.end(signal.SIGKILL)
    daemon.start()
    assert daemon.client.sign(request) == answer


def test_fault_36_a_journal_restored_from_an_old_copy_stops_it_with_a_clear_sentence(
    daemon: BitcoinDaemon,
) -> None:
    daemon.start()
    daemon.client.sign(daemon.request())
    daemon.end()
    old = {path.name: path.read_bytes() for path in daemon.stores.glob("journal.sqlite*")}
    daemon.start()
    daemon.client.sign(daemon.request())
    daemon.end()
    for path in daemon.stores.glob("journal.sqlite*"):
        path.unlink()
    for name, content in old.items():
        (daemon.stores / name).write_bytes(content)
        (daemon.stores / name).chmod(0o600)
    said = daemon.refuses_to_start()
    assert "the journal is older than its high-water mark" in said
    assert "This signer stops, as it can't know what it has signed" in said


def test_without_its_journal_it_does_not_start(daemon: BitcoinDaemon) -> None:
    for path in daemon.stores.glob("journal.sqlite*"):
        path.unlink()
    assert "is missing" in daemon.refuses_to_start()


def test_a_wrong_pin_stops_it_with_a_clear_sentence(daemon: BitcoinDaemon) -> None:
    wrong = daemon.directory / "wrong.pin"
    wrong.write_text("918273")
    wrong.chmod(0o600)
    daemon.settings["pin"] = f'pin_file = "{wrong}"'
    said = daemon.refuses_to_start()
    assert "refused the PIN" in said
    assert "918273" not in said
    assert "Traceback" not in said


def test_a_pin_file_that_others_can_read_stops_it(daemon: BitcoinDaemon) -> None:
    loose = daemon.directory / "loose.pin"
    loose.write_text(daemon.token.user_pin())
    loose.chmod(0o644)
    daemon.settings["pin"] = f'pin_file = "{loose}"'
    said = daemon.refuses_to_start()
    assert "chmod 600" in said
    assert daemon.token.user_pin() not in said


def test_the_pin_can_come_through_a_descriptor(daemon: BitcoinDaemon) -> None:
    descriptor = os.memfd_create("pin")
    os.write(descriptor, daemon.token.user_pin().encode())
    daemon.settings["pin"] = f"pin_fd = {descriptor}"
    daemon.start(pass_fds=(descriptor,))
    os.close(descriptor)
    assert daemon.client.status().keysets == (KEYSET,)


def test_an_unknown_token_stops_it(daemon: BitcoinDaemon) -> None:
    daemon.token = _Renamed(daemon.token)
    assert "no token labelled 'elsewhere'" in daemon.refuses_to_start()


class _Renamed(SoftHsmToken):
    def __init__(self, other: SoftHsmToken) -> None:
        self.directory, self.module_path, self.label = other.directory, other.module_path, "elsewhere"


def test_a_seed_of_another_name_does_not_open(daemon: BitcoinDaemon) -> None:
    path = daemon.stores / f"{KEYSET}.seed.json"
    sealed = msgspec.json.decode(path.read_bytes())
    for change in ({"origin": sealed["record"]["origin"].replace("/0'", "/1'")}, {"network": "signet"}):
        path.write_bytes(msgspec.json.encode(sealed | {"record": sealed["record"] | change}))
        assert "does not open under token" in daemon.refuses_to_start()
    flipped = sealed["sealed"][:20] + ("A" if sealed["sealed"][20] != "A" else "B") + sealed["sealed"][21:]
    path.write_bytes(msgspec.json.encode(sealed | {"sealed": flipped}))
    assert "does not open under token" in daemon.refuses_to_start()


def test_a_seed_that_names_another_account_does_not_open(daemon: BitcoinDaemon) -> None:
    path = daemon.stores / f"{KEYSET}.seed.json"
    sealed = msgspec.json.decode(path.read_bytes())
    other = SoftKeys.make(b"\x09" * 32).record.account
    path.write_bytes(msgspec.json.encode(sealed | {"record": sealed["record"] | {"account": other}}))
    assert "not the one its record describes" in daemon.refuses_to_start()


def test_a_bundle_of_nobody_stops_it(daemon: BitcoinDaemon) -> None:
    signed = daemon.world.signed(daemon.world.bundle(1), ["olga"])
    (daemon.directory / "bundle.json").write_bytes(signed.encode())
    assert "1 of 2 organisations have signed" in daemon.refuses_to_start()


def test_a_configuration_with_an_unknown_field_stops_it(daemon: BitcoinDaemon) -> None:
    daemon.settings["listen"] += "\nsurprise = 1"
    assert "surprise" in daemon.refuses_to_start()


def test_a_new_bundle_is_adopted_while_it_runs_and_on_sighup_and_an_old_one_never(
    daemon: BitcoinDaemon,
) -> None:
    daemon.start()
    daemon.publish(2)
    wait_until(lambda: daemon.client.status().bundle_version == 2, timeout=20, what="version 2")
    daemon.publish(3)
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGHUP)
    wait_until(lambda: daemon.client.status().bundle_version == 3, timeout=20, what="version 3")
    daemon.publish(1)
    wait_until(lambda: "version 1 is older than 3" in daemon.printed(), timeout=20, what="a word about it")
    assert daemon.client.status().bundle_version == 3
    daemon.end(signal.SIGKILL)
    said = daemon.printed().count("version 1 is older than 3")
    daemon.start()
    assert daemon.printed().count("version 1 is older than 3") > said
    assert daemon.client.status().bundle_version == 3


def test_a_second_daemon_on_the_same_journal_does_not_start(daemon: BitcoinDaemon) -> None:
    daemon.start()
    first = daemon.process
    assert "is another signer running?" in daemon.refuses_to_start()
    daemon.process = first
    assert daemon.client.status().signed == 0


def test_it_leaves_no_core_and_lets_nobody_look_into_its_memory(daemon: BitcoinDaemon) -> None:
    daemon.start()
    assert daemon.process is not None
    limits = Path(f"/proc/{daemon.process.pid}/limits").read_text()
    (core,) = [line for line in limits.splitlines() if line.startswith("Max core file size")]
    assert core.split()[4:6] == ["0", "0"]
    # A process that is not dumpable belongs to root in /proc, so its own user can't attach to it.
    assert os.stat(f"/proc/{daemon.process.pid}/mem").st_uid == 0
    daemon.end(signal.SIGABRT)  # SIGQUIT is ignored by what a shell runs in the background
    assert not list(daemon.directory.rglob("core*"))


def test_fault_30_a_token_that_goes_away_is_transient_and_comes_back(daemon: BitcoinDaemon) -> None:
    """Its own copy of the token's store is moved away under the running daemon, then put back."""
    copy = daemon.with_a_token_of_its_own()
    daemon.start()
    request = AttestRequest(chain=CHAIN, keyset=KEYSET, customer="alice", asset="BTC", branch=0, index=4)
    first = daemon.client.attest(request)
    (copy / "tokens").rename(copy / "away")
    with pytest.raises(SignerUnavailable):
        daemon.client.attest(request)
    (copy / "away").rename(copy / "tokens")
    wait_until(
        lambda: _answers(lambda: daemon.client.attest(request)), timeout=20, what="the token to be back"
    )
    assert daemon.client.attest(request) == first


def _answers(call: Callable[[], object]) -> bool:
    try:
        call()
    except SignerUnavailable:
        return False
    return True


def test_it_serves_pinned_tls_clients(daemon: BitcoinDaemon) -> None:
    server = make_certificate(daemon.directory, "signer")
    worker = make_certificate(daemon.directory, "worker")
    daemon.settings["listen"] = (
        f'host = "127.0.0.1"\nport = 0\ncertificate = "{server[0]}"\nprivate_key = "{server[1]}"\n'
        f'clients = ["{worker[0]}"]'
    )
    daemon.start()
    port = int(daemon.printed().rpartition("ready on 127.0.0.1:")[2].split()[0])
    client = SignerClient(TlsAddress("127.0.0.1", port, *worker, server[0]))
    assert client.status().keysets == (KEYSET,)
    client.close()


def test_fault_40_a_journal_that_can_not_be_written_fails_closed(daemon: BitcoinDaemon) -> None:
    """The journal's file may not grow any more (RLIMIT_FSIZE stands in for a full disk)."""
    daemon.start()
    assert daemon.process is not None
    good = daemon.request()
    answer = daemon.client.sign(good)
    size = sum(path.stat().st_size for path in daemon.stores.glob("journal.sqlite-wal"))
    resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, (size, size))
    with pytest.raises(SignerUnavailable):
        daemon.client.sign(daemon.request())
    assert daemon.process.wait(30) == 1
    assert "the journal failed" in daemon.printed()
    daemon.start()
    assert daemon.client.sign(good) == answer
    assert daemon.client.status().signed == 1


def test_making_keys_again_returns_the_same_keys(
    softhsm: SoftHsmToken, daemon_keys: tuple[BitcoinKeysetRecord, Path], daemon: BitcoinDaemon
) -> None:
    record, directory = daemon_keys
    again = make_keys(
        softhsm.module_path, softhsm.label, softhsm.user_pin, directory, [NewBitcoinKeyset(KEYSET, "regtest")]
    )
    assert again == [record]
    before = (daemon.stores / "journal.sqlite").read_bytes()
    initialise(daemon.stores, daemon.marks, daemon.world.root)
    assert (daemon.stores / "journal.sqlite").read_bytes() == before
    with sqlite3.connect(daemon.stores / "journal.sqlite") as sql:
        assert sql.execute("SELECT count(*) FROM batches").fetchone() == (1,)
    sql.close()
