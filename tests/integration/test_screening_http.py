"""The HTTP provider against a real server in a process of its own: silent, slow, garbled, endless, moved, and gone."""

from __future__ import annotations

import datetime
import ipaddress
import json
import socket
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from custody.screening.http import REST_SECONDS, HttpProvider
from custody.screening.judging import Hit, Standing, Unknown, judge
from custody.screening.model import Finding, Subject, Word
from custody.screening.ports import Elsewhere, Screening, ScreeningUnavailable
from ops.devnet.process import ManagedProcess, free_port, release_port, wait_until
from tests.support.screening_server import GARBAGE

PROGRAM = Path(__file__).parents[1] / "support" / "screening_server.py"
HERE = Subject("bitcoin-regtest", "bcrt1qexample")
DEPOSIT = Subject(
    "bitcoin-regtest", "bcrt1qours", "ab" * 32, f"{'ab' * 32}:1", ("bcrt1qsource",), units=77_123
)


class Server:
    """The server's process, and what it was asked."""

    def __init__(self, directory: Path, *certificate: Path) -> None:
        self.port, self.log = free_port(), directory / "asked"
        argv = [sys.executable, str(PROGRAM), str(self.port), str(self.log), *map(str, certificate)]
        self.process = ManagedProcess("screening", argv, log_path=directory / "server.log")

    def start(self) -> None:
        self.process.start()
        wait_until(self._listens, timeout=20, what="the server")

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def url(self, path: str, scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{self.port}{path}"

    def asked(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    found = Server(tmp_path)
    found.start()
    yield found
    found.process.kill()
    release_port(found.port)


class Time:
    """The provider's clock, which the test turns."""

    def __init__(self) -> None:
        self.now = 1000.0  # seconds

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def provider(server: Server) -> Iterator[Callable[..., HttpProvider]]:
    made: list[HttpProvider] = []

    def make(path: str, **more: Any) -> HttpProvider:
        made.append(HttpProvider("kyt", server.url(path), **{"timeout_seconds": 1, **more}))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_it_says_clear_or_why_not_and_by_which_version(provider: Callable[..., HttpProvider]) -> None:
    assert provider("/clear").ask(HERE) == Word("kyt", "7")
    finding = Finding("kyt", "bcrt1qexample", "mixer", "kyt", "7")
    assert provider("/hit").ask(HERE) == Word("kyt", "7", (finding,))
    [about] = provider("/hit").ask(DEPOSIT).findings
    assert about.listed == f"{'ab' * 32}:1"


def test_it_is_told_addresses_and_txids_and_nothing_of_customers_or_amounts(
    server: Server, provider: Callable[..., HttpProvider]
) -> None:
    provider("/clear").ask(HERE)
    provider("/clear").ask(DEPOSIT)
    destination, deposit = server.asked()
    assert destination["body"] == {
        "kind": "destination",
        "chain": "bitcoin-regtest",
        "address": "bcrt1qexample",
    }
    assert deposit["body"] == {
        "kind": "deposit",
        "chain": "bitcoin-regtest",
        "address": "bcrt1qours",
        "txid": "ab" * 32,
        "output": f"{'ab' * 32}:1",
        "sources": ["bcrt1qsource"],
    }
    assert "authorization" not in {name.lower() for name in destination["headers"]}


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/silent", "no answer within 1 s"),
        ("/drips-head", "no answer within 1 s"),
        ("/drips-body", "no answer within 1 s"),
        ("/endless", "more than"),
        ("/moved", "status 302"),
        ("/broken", "status 500"),
        ("/drops", "Error"),
        *((path, "not one of the expected form") for path in GARBAGE),
    ],
)
def test_whatever_is_no_answer_makes_it_unavailable_and_nothing_clear(
    provider: Callable[..., HttpProvider], path: str, why: str
) -> None:
    bad = provider(path)
    with pytest.raises(ScreeningUnavailable, match=why):
        bad.ask(HERE)
    answer = Screening([Elsewhere("tests"), bad]).ask(HERE)
    assert isinstance(judge(Standing(), answer), Unknown)


def test_a_hit_of_one_counts_while_another_is_silent(provider: Callable[..., HttpProvider]) -> None:
    answer = Screening([provider("/broken"), provider("/hit")]).ask(HERE)
    assert isinstance(judge(Standing(), answer), Hit)


def test_answers_are_kept_as_long_as_configured_and_no_longer(
    server: Server, provider: Callable[..., HttpProvider]
) -> None:
    for path, kept in (("/clear", 10), ("/hit", 3)):
        clock = Time()
        one = provider(path, clock=clock, clear_seconds=10, hit_seconds=3)
        before = len(server.asked())
        one.ask(HERE)
        clock.now += kept - 0.5
        one.ask(HERE)
        assert len(server.asked()) - before == 1
        clock.now += 0.5
        one.ask(HERE)
        one.ask(DEPOSIT)
        assert len(server.asked()) - before == 3


def test_after_a_failure_it_rests_and_then_asks_again(
    server: Server, provider: Callable[..., HttpProvider]
) -> None:
    clock = Time()
    one = provider("/broken", clock=clock)
    for _ in range(3):
        with pytest.raises(ScreeningUnavailable, match="500"):
            one.ask(HERE)
    assert len(server.asked()) == 1
    clock.now += REST_SECONDS
    with pytest.raises(ScreeningUnavailable):
        one.ask(HERE)
    assert len(server.asked()) == 2


def test_many_ask_at_once(server: Server, provider: Callable[..., HttpProvider]) -> None:
    one = provider("/clear", timeout_seconds=20)
    subjects = [Subject("c", f"address-{n}") for n in range(40)]
    with ThreadPoolExecutor(16) as pool:
        assert [word.version for word in pool.map(one.ask, subjects)] == ["7"] * 40
    assert {each["body"]["address"] for each in server.asked()} == {each.address for each in subjects}


def test_the_token_comes_from_its_file_each_time_and_is_in_no_error(
    server: Server, provider: Callable[..., HttpProvider], tmp_path: Path
) -> None:
    path = tmp_path / "token"
    path.write_text("first-secret\n")
    one = provider("/clear", token_path=path, clear_seconds=0)
    one.ask(HERE)
    path.write_text("second-secret")
    one.ask(HERE)
    assert [each["headers"]["authorization"] for each in server.asked()] == [
        "Bearer first-secret",
        "Bearer second-secret",
    ]
    with pytest.raises(ScreeningUnavailable) as caught:
        provider("/broken", token_path=path).ask(HERE)
    assert "second-secret" not in str(caught.value)
    path.write_bytes("schlüssel".encode())
    with pytest.raises(ScreeningUnavailable, match="holds no token"):
        provider("/clear", token_path=path).ask(HERE)
    path.write_text("two\nlines")
    with pytest.raises(ScreeningUnavailable, match="holds no token"):
        provider("/clear", token_path=path).ask(HERE)
    path.unlink()
    with pytest.raises(ScreeningUnavailable):
        provider("/clear", token_path=path).ask(HERE)


def test_a_server_that_goes_away_and_comes_back_is_asked_again(
    server: Server, provider: Callable[..., HttpProvider]
) -> None:
    clock = Time()
    one = provider("/clear", clock=clock, clear_seconds=0)
    one.ask(HERE)
    server.process.kill()
    with pytest.raises(ScreeningUnavailable):
        one.ask(HERE)
    server.start()
    clock.now += REST_SECONDS
    assert one.ask(HERE) == Word("kyt", "7")


def test_certificates_that_cannot_be_read_make_it_unavailable(
    provider: Callable[..., HttpProvider], tmp_path: Path
) -> None:
    broken = tmp_path / "ca.pem"
    broken.write_text("no certificate")
    for _ in range(2):
        with pytest.raises(ScreeningUnavailable):
            provider("/clear", ca_path=broken).ask(HERE)


def _certificate(directory: Path, name: str) -> tuple[Path, Path]:
    """A self-signed one for this name or address."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    other: x509.GeneralName = (
        x509.IPAddress(ipaddress.ip_address(name)) if name[0].isdigit() else x509.DNSName(name)
    )
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([other]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = directory / f"{name}.crt", directory / f"{name}.key"
    paths[0].write_bytes(made.public_bytes(Encoding.PEM))
    paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return paths


@pytest.mark.parametrize(
    ("name", "trusted", "answers"),
    [
        ("127.0.0.1", "its own", True),
        ("127.0.0.1", "the system's", False),
        ("other.example", "its own", False),
    ],
)
def test_only_a_certificate_that_is_trusted_and_names_the_host_is_believed(
    tmp_path: Path, name: str, trusted: str, answers: bool
) -> None:
    certificate = _certificate(tmp_path, name)
    server = Server(tmp_path, *certificate)
    server.start()
    one = HttpProvider(
        "kyt",
        server.url("/clear", "https"),
        ca_path=certificate[0] if trusted == "its own" else None,
        timeout_seconds=10,
    )
    try:
        if answers:
            assert one.ask(HERE) == Word("kyt", "7")
        else:
            with pytest.raises(ScreeningUnavailable, match="certificate verify failed"):
                one.ask(HERE)
            assert server.asked() == []
    finally:
        one.close()
        server.process.kill()
        release_port(server.port)
