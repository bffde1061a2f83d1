"""A running daemon, looked at from outside: its sockets, its users, its secrets, and what its calls say."""

from __future__ import annotations

import json
import os
import pwd
import re
import resource
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from types import ModuleType

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from ops.devnet.files import part_directory
from ops.devnet.process import wait_until
from ops.devnet.softhsm import SoftHsmToken
from policies.keys import sign_entry
from policies.statements import (
    ClockConfirmation,
    Freeze,
    SignedClockConfirmation,
    SignedFreeze,
    WhitelistEntry,
)
from signers.cli.root import main as key_command
from signers.client import SignerClient, TlsAddress, UnixAddress
from signers.config import read_config
from signers.hsm.pkcs11 import Token
from signers.keys.keyset import BitcoinKeysetRecord
from signers.keys.opening import open_keys
from signers.keys.sealed import open_keyset, read_sealed
from signers.ports import (
    AnnounceRequest,
    AttestRequest,
    LogRequest,
    OpenRequest,
    Refused,
    SignerUnavailable,
)
from signers.process.tls import client_context
from signers.wire import MAX_FRAME_BYTES, write_frame
from tests.fakes.certificates import make_certificate
from tests.fakes.signer_daemon import KEYSET, BitcoinDaemon
from tests.fakes.signing import CHAIN

only_root_can = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


class Doors:
    """A daemon on TLS with two clients."""

    def __init__(self, daemon: BitcoinDaemon, more: str = "") -> None:
        names = ("server", "good", "bad")
        self.server, self.good, self.bad = (make_certificate(daemon.directory, name) for name in names)
        daemon.settings["listen"] = (
            f'host = "127.0.0.1"\nport = 0\ncertificate = "{self.server[0]}"\n'
            f'private_key = "{self.server[1]}"\nclients = ["{self.good[0]}", "{self.bad[0]}"]\n{more}'
        )
        daemon.start()
        self.port = int(daemon.printed().rpartition("ready on 127.0.0.1:")[2].split()[0])

    def client(self, who: tuple[Path, Path]) -> SignerClient:
        return SignerClient(TlsAddress("127.0.0.1", self.port, *who, self.server[0]), timeout_s=30)


def pid_of(daemon: BitcoinDaemon) -> int:
    assert daemon.process is not None
    return daemon.process.pid


def sockets(pid: int) -> set[str]:
    """Inodes of all sockets of a process."""
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(entry)
        except OSError:
            continue
        if target.startswith("socket:["):
            found.add(target[8:-1])
    return found


def internet(pid: int) -> list[tuple[int, int, str]]:
    """Local port, remote port and state of every internet socket of a process; no UDP, raw or packet socket."""
    mine, found = sockets(pid), []
    for table in ("tcp", "tcp6", "udp", "udp6", "raw", "raw6", "packet", "netlink"):
        path = Path(f"/proc/{pid}/net/{table}")
        for line in path.read_text().splitlines()[1:] if path.exists() else ():
            fields = line.split()
            if not mine & set(fields[8:]):
                continue
            assert table.startswith("tcp"), line
            local, remote = (int(field.rpartition(":")[2], 16) for field in fields[1:3])
            found.append((local, remote, fields[3]))
    return found


LISTENING, ESTABLISHED = "0A", "01"


def test_it_says_when_its_certificates_expire(daemon: BitcoinDaemon) -> None:
    doors = Doors(daemon)
    client = doors.client(doors.good)
    families = {family.name: family for family in text_string_to_metric_families(client.metrics().text)}
    samples = families["strongroom_signer_certificate_expires_seconds"].samples
    assert {sample.labels["file"] for sample in samples} == {"server.crt", "good.crt", "bad.crt"}
    in_two_days = time.time() + 2 * 86_400
    assert all(abs(sample.value - in_two_days) < 3_600 for sample in samples)
    client.close()


def test_it_has_one_listener_and_never_a_connection_that_it_began(daemon: BitcoinDaemon) -> None:
    doors = Doors(daemon)
    pid = pid_of(daemon)
    client = doors.client(doors.good)
    seen: set[tuple[int, int, str]] = set()

    def watched() -> None:
        for found in internet(pid):
            assert found[0] == doors.port, found
            seen.add(found)

    with ThreadPoolExecutor(4) as pool:
        signing = [pool.submit(client.sign, daemon.request()) for _ in range(40)]
        while not all(future.done() for future in signing):
            watched()
        assert all(future.result().signatures for future in signing)
    client.attest(AttestRequest(chain=CHAIN, keyset=KEYSET, customer="alice", asset="BTC", branch=0, index=0))
    daemon.publish(2)
    wait_until(lambda: client.status().bundle_version == 2, timeout=20, what="version 2")
    watched()
    states = {state for _, _, state in seen}
    assert {LISTENING, ESTABLISHED} <= states
    assert len({found for found in seen if found[2] == LISTENING}) == 1
    client.close()


@only_root_can
def test_it_needs_no_network_at_all(daemon: BitcoinDaemon) -> None:
    """In a network namespace of its own, where there is none: it starts, signs, and ends."""
    daemon.command = ["unshare", "--net", *daemon.command]
    daemon.start()
    assert len(Path(f"/proc/{pid_of(daemon)}/net/dev").read_text().splitlines()) == 3
    assert daemon.client.sign(daemon.request()).signatures
    assert daemon.end() == 0


def keeper_of(daemon: BitcoinDaemon) -> int:
    pid = pid_of(daemon)
    (keeper,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(keeper)


def test_the_kernel_sees_to_it(daemon: BitcoinDaemon) -> None:
    """Seccomp 2: a filter of system calls; every thread has it. And no privileges can be gained any more."""
    daemon.start()
    daemon.client.status()
    tasks = [Path(f"/proc/{pid}/task") for pid in (pid_of(daemon), keeper_of(daemon))]
    assert len(list(tasks[0].iterdir())) > 3
    for task in (*tasks[0].iterdir(), *tasks[1].iterdir()):
        status = dict(
            line.split(":\t", 1) for line in (task / "status").read_text().splitlines() if ":\t" in line
        )
        assert (status["Seccomp"], status["NoNewPrivs"]) == ("2", "1")


def test_status_says_what_weakens_it(daemon: BitcoinDaemon) -> None:
    daemon.start()
    notes = " ".join(daemon.client.status().notes)
    assert "its mark is kept by its own user" in notes
    for note in daemon.client.status().notes:
        assert note in daemon.printed()
    assert ("it runs as root" in notes) == (os.geteuid() == 0)


def canaries(daemon: BitcoinDaemon) -> list[bytes]:
    """Every form of this signer's secrets that could turn up somewhere."""
    token = Token(daemon.token.module_path, daemon.token.label, daemon.token.user_pin)
    opened = open_keyset(token, read_sealed(daemon.stores / f"{KEYSET}.seed.json"))
    token.close()
    private: bytes = opened._secret
    return [daemon.token.user_pin().encode(), private, private.hex().encode(), b"tprv", b"xprv"]


def test_its_secrets_are_nowhere_to_be_seen(daemon: BitcoinDaemon) -> None:
    """Arguments, environment, open files, log, directory, replies good and bad, metrics, status and its own log."""
    daemon.start()
    secrets = canaries(daemon)
    said = [
        repr(daemon.client.sign(daemon.request())),
        repr(daemon.client.status()),
        daemon.client.metrics().text,
        repr(daemon.client.log(LogRequest(after=0))),
    ]
    for wrong in (daemon.request(locktime=5), msgspec.structs.replace(daemon.request(), transaction="AAAA")):
        with pytest.raises(Refused) as refused:
            daemon.client.sign(wrong)
        said.append(repr(refused.value))
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(daemon.directory / "s.sock"))
        write_frame(connection, b'{"v":1,"call":"sign","body":{"v":1,"keyset":"' + b"x" * 500 + b'"}}')
        said.append(repr(connection.recv(1 << 16)))
    proc = Path(f"/proc/{pid_of(daemon)}")
    seen = [text.encode() for text in said]
    seen += [(proc / name).read_bytes() for name in ("cmdline", "environ", "status", "maps")]
    keeper = keeper_of(daemon)
    seen += [Path(f"/proc/{keeper}/{name}").read_bytes() for name in ("cmdline", "environ")]
    daemon.end()
    seen += [path.read_bytes() for path in daemon.directory.rglob("*") if path.is_file()]
    for secret in secrets:
        assert not [text[:80] for text in seen if secret in text]


def _reprs(value: object, depth: int = 4) -> Iterator[str]:
    """What printing an object shows, and all objects that hang on it."""
    yield repr(value)
    if depth == 0 or isinstance(value, str | bytes | int | type | ModuleType):
        return
    held: list[object] = list(value.values()) if isinstance(value, dict) else []
    held += list(getattr(value, "__dict__", {}).values())
    for kind in type(value).__mro__:
        slots = getattr(kind, "__slots__", ())
        held += [getattr(value, name, None) for name in ((slots,) if isinstance(slots, str) else slots)]
    for inner in held:
        # What holds a secret holds it as bytes or text; whatever wraps these must not print them.
        if not isinstance(inner, bytes | str | bytearray):
            yield from _reprs(inner, depth - 1)


def test_what_holds_a_secret_does_not_print_it(daemon: BitcoinDaemon) -> None:
    """Everything that the daemon has open, as a debugger, a log or a traceback with values would show it."""
    daemon.run()
    daemon.close()
    secrets = canaries(daemon)[:3]
    opened = open_keys(read_config(daemon.directory / "signer.toml"), lambda _: None)
    try:
        shown = " ".join(_reprs(opened))
    finally:
        opened.close()
    for secret in secrets:
        assert str(secret)[2:-1] not in shown
        assert secret.hex() not in shown
    assert KEYSET in shown


SIGNER, KEEPER = "games", "nobody"


@pytest.fixture
def dropped(softhsm: SoftHsmToken, daemon_keys: tuple[BitcoinKeysetRecord, Path]) -> Iterator[BitcoinDaemon]:
    """A daemon whose files belong to two users without privileges, in a place that they reach."""
    directory = part_directory("strongroom-dropped-")
    directory.chmod(0o755)
    made = BitcoinDaemon(softhsm, *daemon_keys, directory)
    made.belongs_to(SIGNER, KEEPER)
    yield made
    made.close()
    shutil.rmtree(directory)


@only_root_can
def test_started_as_root_it_becomes_its_user_and_its_keeper_another(dropped: BitcoinDaemon) -> None:
    dropped.start()
    request = dropped.request()
    answer = dropped.client.sign(request)
    assert not [note for note in dropped.client.status().notes if "user" in note]
    proc = Path(f"/proc/{pid_of(dropped)}")
    for pid, user in ((pid_of(dropped), SIGNER), (keeper_of(dropped), KEEPER)):
        status = Path(f"/proc/{pid}/status").read_text()
        entry = pwd.getpwnam(user)
        assert re.search(r"^Uid:\t(.*)$", status, re.M)[1].split() == [str(entry.pw_uid)] * 4  # type: ignore[index]
        assert re.search(r"^Gid:\t(.*)$", status, re.M)[1].split() == [str(entry.pw_gid)] * 4  # type: ignore[index]
        groups = re.search(r"^Groups:\t(.*)$", status, re.M)[1].split()  # type: ignore[index]
        assert groups == [str(group) for group in os.getgrouplist(user, entry.pw_gid)]
        assert set(re.findall(r"^Cap(?:Inh|Prm|Eff|Amb):\t(\w+)$", status, re.M)) == {"0" * 16}
    (core,) = [line for line in (proc / "limits").read_text().splitlines() if line.startswith("Max core")]
    assert core.split()[4:6] == ["0", "0"]
    assert os.stat(proc / "mem").st_uid == 0
    assert dropped.end() == 0
    dropped.start()
    assert dropped.client.sign(request) == answer


@only_root_can
@pytest.mark.parametrize(
    ("place", "change", "said"),
    [
        ("signer", "chmod 755", "chmod 700"),
        ("signer/journal.sqlite", "chmod 644", "chmod 600"),
        ("signer/pinned.json", "chmod 640", "chmod 600"),
        (f"signer/{KEYSET}.seed.json", "chown", "belongs to user 12345"),
        ("signer", "chown", "belongs to user 12345"),
        ("mark", "chown", "chown and chmod"),
        ("mark/journal.mark", "chmod 666", "chown and chmod"),
        ("token/user.pin", "chmod 644", "chmod 600"),
        ("signer.toml", "chmod 666", "chmod go-w"),
    ],
)
def test_what_others_could_read_or_change_stops_it(
    dropped: BitcoinDaemon, place: str, change: str, said: str
) -> None:
    path = dropped.directory / place
    if place == "signer.toml":
        dropped.config_mode = 0o666
    elif change == "chown":
        os.chown(path, 12345, 12345)
    else:
        path.chmod(int(change.split()[1], 8))
    assert said in dropped.refuses_to_start()


@only_root_can
def test_in_production_it_neither_runs_as_root_nor_without_a_proven_ceremony(dropped: BitcoinDaemon) -> None:
    dropped.environment = "production"
    assert "has no proven ceremony" in dropped.refuses_to_start()
    dropped.settings["more"] = ""
    assert "write user and mark_user" in dropped.refuses_to_start()
    dropped.settings["more"] = f'user = "root"\nmark_user = "{KEEPER}"'
    assert "user 'root' is root" in dropped.refuses_to_start()
    dropped.settings["more"] = f'user = "{SIGNER}"\nmark_user = "root"'
    assert "user 'root' is root" in dropped.refuses_to_start()


def test_every_call_is_answered(daemon: BitcoinDaemon) -> None:
    daemon.start()
    world, client = daemon.world, daemon.client
    order = daemon.request().evidence.orders[0]
    (sighting,) = client.announce(AnnounceRequest(orders=(order,))).sightings
    assert sighting.order == order.order.id
    entry = WhitelistEntry(
        v=1,
        id=order.order.id,
        caller=order.order.caller,
        owner="alice",
        chain=CHAIN,
        address=order.order.destination,
        issued_at=world.now,
    )
    (listed,) = client.announce(AnnounceRequest(entries=(sign_entry(entry, world.caller),))).entries
    assert (listed.entry, listed.destination_since) == (entry.id, sighting.destination_since)
    client.sign(daemon.request())
    (waiting,) = client.open(OpenRequest()).transactions
    assert waiting.chain == CHAIN
    page = client.log(LogRequest(after=0))
    assert [entry.number for entry in page.entries] == list(range(1, len(page.entries) + 1))
    status = client.status()
    assert page.head.journal == status.journal
    freeze = Freeze(v=1, officer="olga", scope="all", bundle_version=1, reason="a drill", issued_at=world.now)
    officer = world.officers["olga"]
    signed = SignedFreeze(freeze, officer.sign(freeze))
    assert client.freeze(signed).frozen == ("all",)
    with pytest.raises(Refused, match="frozen"):
        client.sign(daemon.request())
    assert client.deliver(daemon.signed_bundle(2)).frozen == ()
    confirmation = ClockConfirmation(v=1, officer="olga", journal="00" * 32, at=world.now)
    with pytest.raises(Refused, match="clock-journal"):
        client.confirm_clock(SignedClockConfirmation(confirmation, officer.sign(confirmation)))


def test_its_metrics_are_what_prometheus_reads(daemon: BitcoinDaemon) -> None:
    daemon.start()
    daemon.client.sign(daemon.request())
    families = {
        family.name: family for family in text_string_to_metric_families(daemon.client.metrics().text)
    }
    signatures = families["strongroom_signer_signatures"].samples[0]
    assert (signatures.value, signatures.labels) == (1, {"chain": CHAIN, "keyset": KEYSET})
    assert families["strongroom_signer_journal_commit_seconds"].samples
    assert families["strongroom_signer_bundle_version"].samples[0].value == 1


def test_its_log_is_on_the_disk_and_whole_after_a_kill(daemon: BitcoinDaemon, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    daemon.settings["more"] = f'log_directory = "{elsewhere}"'
    daemon.start()
    for _ in range(3):
        daemon.client.sign(daemon.request())
    path = elsewhere / "log.jsonl"
    wait_until(
        lambda: path.read_bytes().count(b'"transaction"') == 3, timeout=20, what="the log to be written"
    )
    daemon.end(signal.SIGKILL)
    daemon.start()
    daemon.client.sign(daemon.request())
    assert daemon.end() == 0
    root = daemon.stores / "pinned.json"
    arguments = [str(path), "--bundle", str(daemon.directory / "bundle.json"), "--root", str(root)]
    assert key_command(["log", *arguments]) == 0
    last = json.loads(path.read_bytes().splitlines()[-1])
    assert last["head"]["number"] == json.loads(path.read_bytes().splitlines()[-2])["number"]


def test_a_keeper_that_dies_ends_the_signer_and_nothing_is_forgotten(daemon: BitcoinDaemon) -> None:
    daemon.start()
    request = daemon.request()
    answer = daemon.client.sign(request)
    os.kill(keeper_of(daemon), signal.SIGKILL)
    with pytest.raises(SignerUnavailable):
        daemon.client.sign(daemon.request())
    assert daemon.process is not None
    assert daemon.process.wait(30) == 1
    assert "the keeper of the mark" in daemon.printed()
    daemon.start()
    assert daemon.client.sign(request) == answer


def test_a_signer_that_stood_still_for_a_while_goes_on(daemon: BitcoinDaemon) -> None:
    """SIGSTOP: whoever asks meanwhile learns nothing, asks again, and gets the one answer that there is."""
    daemon.start()
    hasty = SignerClient(UnixAddress(daemon.directory / "s.sock"), timeout_s=1)
    request = daemon.request()
    os.kill(pid_of(daemon), signal.SIGSTOP)
    with pytest.raises(SignerUnavailable):
        hasty.sign(request)
    os.kill(pid_of(daemon), signal.SIGCONT)
    answer = daemon.client.sign(request)
    assert hasty.sign(request) == answer
    assert daemon.client.status().signed == 1
    hasty.close()


def test_out_of_descriptors_it_serves_whom_it_serves_and_later_the_others(daemon: BitcoinDaemon) -> None:
    doors = Doors(daemon)
    good = doors.client(doors.good)
    good.sign(daemon.request())
    pid = pid_of(daemon)
    most = len(os.listdir(f"/proc/{pid}/fd")) + 8
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, most))
    with ExitStack() as held:
        for _ in range(60):
            held.enter_context(socket.create_connection(("127.0.0.1", doors.port), timeout=5))
        wait_until(
            lambda: "a connection could not be accepted" in daemon.printed(),
            timeout=30,
            what="its descriptors to run out",
        )
        assert good.sign(daemon.request()).signatures
    fresh = doors.client(doors.good)
    wait_until(lambda: _answers(fresh), timeout=30, what="a place for another connection")
    fresh.close()
    good.close()


def test_a_flood_of_one_client_leaves_another_served_and_the_memory_bounded(daemon: BitcoinDaemon) -> None:
    """Half frames of 16 MiB, floods of small calls, connections without end: a second client signs meanwhile."""
    doors = Doors(daemon, "max_connections = 12\n[listen.rates.status]\nper_second = 20\nburst = 40")
    good, bad = doors.client(doors.good), doors.client(doors.bad)
    good.sign(daemon.request())
    before = _resident(pid_of(daemon))
    flood = Flood(doors)
    try:
        flood.start()
        wait_until(lambda: flood.begun >= 60, timeout=60, what="the flood to be on its way")
        most = 0
        for _ in range(10):
            assert good.sign(daemon.request()).signatures
            most = max(most, _resident(pid_of(daemon)))
        fresh = doors.client(doors.good)
        assert fresh.sign(daemon.request()).signatures
        fresh.close()
        # Frames of one client under way (64 MiB), each in one more piece while it is read, and the threads.
        assert most - before < 128 << 20
    finally:
        flood.end()
    wait_until(lambda: _answers(bad), timeout=20, what="the bad client's bucket to fill again")
    assert good.status().signed == 12
    good.close()
    bad.close()


def _answers(client: SignerClient) -> bool:
    try:
        client.status()
    except SignerUnavailable:
        return False
    return True


def _resident(pid: int) -> int:
    (line,) = [
        line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")
    ]
    return int(line.split()[1]) * 1024


class Flood:
    """What a client that has gone bad sends, from a few threads, until it is ended."""

    def __init__(self, doors: Doors) -> None:
        self._doors, self._over = doors, False
        self.begun = 0
        self._pool = ThreadPoolExecutor(6)

    def start(self) -> None:
        for work in (
            self._half_frames,
            self._half_frames,
            self._calls,
            self._strangers,
            self._huge,
            self._huge,
        ):
            self._pool.submit(self._again, work)

    def end(self) -> None:
        self._over = True
        self._pool.shutdown()

    def _again(self, work: Callable[[], None]) -> None:
        while not self._over:
            self.begun += 1
            try:
                work()
            except (OSError, SignerUnavailable):
                continue

    def _connection(self, held: ExitStack) -> socket.socket:
        plain = held.enter_context(socket.create_connection(("127.0.0.1", self._doors.port), timeout=5))
        context = client_context(*self._doors.bad, self._doors.server[0])
        return held.enter_context(context.wrap_socket(plain))

    def _half_frames(self) -> None:
        with ExitStack() as held:
            for connection in [self._connection(held) for _ in range(6)]:
                connection.sendall(b"\x00\x00\x20\x00{")

    def _huge(self) -> None:
        with ExitStack() as held:
            connection = self._connection(held)
            connection.settimeout(2)
            connection.sendall(MAX_FRAME_BYTES.to_bytes(4, "big"))
            for _ in range(MAX_FRAME_BYTES // (1 << 20) - 1):
                connection.sendall(b"[" * (1 << 20))

    def _calls(self) -> None:
        with closing(self._doors.client(self._doors.bad)) as client:
            for _ in range(50):
                client.status()

    def _strangers(self) -> None:
        with ExitStack() as held:
            for _ in range(30):
                held.enter_context(socket.create_connection(("127.0.0.1", self._doors.port), timeout=5))
