"""The kit itself, and whatever people may type or bring that is wrong: each is told in words, and nothing is signed."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from policies.bundle import Bundle
from signers.airgap.secret import Secret
from signers.airgap.shares import split
from tests.drill.conftest import run_kit, sign_into
from tests.support.airgap import cold_bundle
from tests.support.drill import Computer, make_programs
from tests.support.leaving import HOLDERS, entropy, words

SAFE_REQUEST: dict[str, Any] = {
    "type": "safe-recovery-request",
    "v": 1,
    "wallet": "eth-cold",
    "transactions": [{"to": "0x" + "7" * 40, "value": "5", "data": "0x", "nonce": 3}],
}


def cold_only(**changes: Any) -> Bundle:
    """A house whose only wallets are the five holders'."""
    made = cold_bundle(HOLDERS, **changes)
    cold = tuple(each for each in made.vaults if each.tier == "cold")
    return msgspec.structs.replace(made, vaults=cold, keysets=(), breakers=(), caps=())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("bad-input")
    sign_into(made, cold_only())
    done = run_kit(made)
    assert done.returncode == 0, done.stderr
    make_programs(made / "programs")
    return made


@pytest.fixture
def computer(folder: Path, tmp_path: Path) -> Iterator[Computer]:
    made = Computer(tmp_path, "offline", folder / "programs")
    made.bring(folder / "kit")
    (made.kit / "request.json").write_text(json.dumps(SAFE_REQUEST))
    yield made
    made.close()


def swapped(text: str) -> str:
    """The first two words that differ change places."""
    one, two, *rest = text.split()
    assert one != two
    return " ".join((two, one, *rest))


def share(number: int) -> str:
    """One SLIP-39 share of three of a holder's key."""
    return split(Secret(entropy(number)), 2, 3)[0]


def without_some(text: str) -> str:
    return " ".join(text.split()[:20])


BACKUPS: dict[str, tuple[Callable[[], str], str, str]] = {
    "nothing": (lambda: "", "nothing was typed", "nothing was typed"),
    "too few words": (
        lambda: " ".join(words(0).split()[:-1]),
        "23 words: a backup has 24",
        "do not fit together",
    ),
    "no such word": (lambda: words(0) + "x", "word 24 is none of the 2048 words", "do not fit together"),
    "words swapped": (lambda: swapped(words(2)), "do not fit together", "do not fit together"),
    "one share": (lambda: share(0), "one share of several (SLIP-39)", "one share of several (SLIP-39)"),
    "somebody else's": (lambda: words(77), "of none of the keys of btc-cold", "of none of the owners"),
    "a wrong secret": (lambda: "ab" * 32, "of none of the keys of btc-cold", "of none of the owners"),
    "half a secret": (lambda: "ab" * 16, "nor 64 hex digits", "nor 64 hex digits"),
    "no digits": (lambda: "zz" * 32, "nor 64 hex digits", "nor 64 hex digits"),
}


@pytest.mark.parametrize("name", list(BACKUPS))
def test_a_backup_that_is_wrong_is_told_in_words_and_gives_no_key(computer: Computer, name: str) -> None:
    typed, of_bitcoin, of_safe = BACKUPS[name]
    done = computer.run("python3 words_to_key.py btc-cold > import.json", f"{typed()}\n")
    assert done.returncode == 1
    assert of_bitcoin in done.stdout
    assert (computer.kit / "import.json").read_text() == ""
    done = computer.run("python3 safe_recover.py sign request.json --out signed.json", f"{typed()}\n")
    assert done.returncode == 1
    assert of_safe in done.stdout
    assert not (computer.kit / "signed.json").exists()
    assert "Traceback" not in done.stdout


def test_any_of_the_five_is_known_by_words_and_by_joined_shares_and_by_nothing_else(
    computer: Computer,
) -> None:
    descriptor = json.loads((computer.kit / "kit.json").read_text())["bitcoin"][0]["descriptor"]
    for number in range(5):
        found = set()
        for text in (words(number), entropy(number).hex()):
            done = computer.run("python3 words_to_key.py btc-cold 2> said", f"{text}\n")
            assert done.returncode == 0, (computer.kit / "said").read_text()
            assert f"key of holder-{number} (org-{number})" in (computer.kit / "said").read_text()
            found.add(done.stdout)
        assert len(found) == 1
        [line] = json.loads(found.pop())
        # Nothing else than this one key differs, and it is not the descriptor that everybody has.
        assert line["desc"].count("tprv") == 1
        assert line["desc"].count("tpub") == 4
        assert descriptor.count("tpub") == 5
    for number, text in enumerate((f" {words(0).upper()} ", entropy(1).hex())):
        done = computer.run("python3 safe_recover.py sign request.json --out signed.json", f"{text}\n")
        assert f"Signed by holder-{number} (org-{number})" in done.stdout


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data": "0x610b5925" + "0" * 64}, "something else than a payment"),
        ({"data": "0xa9059cbb" + "1" * 128}, "something else than a payment"),
        ({"to": "0x" + "9" * 40, "value": "0", "data": "0xa9059cbb" + "0" * 24 + "7" * 40 + "0" * 64}, "not in kit"),
        ({"value": "1", "data": "0xa9059cbb" + "0" * 24 + "7" * 40 + "0" * 64}, "something else than a payment"),
    ],
)  # fmt: skip
def test_a_request_that_is_no_payment_is_not_signed(
    computer: Computer, change: dict[str, str], said: str
) -> None:
    request = {**SAFE_REQUEST, "transactions": [{**SAFE_REQUEST["transactions"][0], **change}]}
    (computer.kit / "request.json").write_text(json.dumps(request))
    done = computer.run("python3 safe_recover.py sign request.json --out signed.json", words(0) + "\n")
    assert done.returncode == 1
    assert said in done.stdout
    assert not (computer.kit / "signed.json").exists()


def test_a_changed_file_of_the_kit_is_found_by_step_1(folder: Path, computer: Computer) -> None:
    assert computer.follow("check kit").count(": OK") == len(list((folder / "kit").iterdir())) - 1
    for name in ("kit.json", "words_to_key.py", "bip39-english.txt", "btc-cold.watch.json"):
        path = computer.kit / name
        before = path.read_text()
        path.write_text(before.replace("a", "b", 1))
        done = computer.fails("check kit")
        assert f"{name}: FAILED" in done
        path.write_text(before)


def test_the_wrong_file_or_wallet_is_told_in_words(computer: Computer) -> None:
    for command, said in (
        (
            "python3 words_to_key.py btc-hot",
            "there is no Bitcoin wallet 'btc-hot' in kit.json: it has btc-cold",
        ),
        ("python3 safe_recover.py sign kit.json --out x", "kit.json is no request"),
        ("python3 safe_recover.py sign nothing.json --out x", "No such file"),
        ("python3 wrapped_to_key.py kit.json", "is not such a file"),
        (
            "python3 safe_recover.py build eth-cold --rpc http://127.0.0.1:9 --to 0x12 --out x",
            "is written wrong",
        ),
        (
            "python3 safe_recover.py build eth-cold --rpc http://127.0.0.1:9 --to 0x" + "7" * 40 + " --out x",
            "does not answer",
        ),
    ):
        done = computer.run(command, words(0) + "\n")
        assert done.returncode == 1, command
        assert said in done.stdout
        assert "Traceback" not in done.stdout


def test_a_wrapped_key_with_the_wrong_secret_stays_closed(computer: Computer) -> None:
    (computer.kit / "x.wrapped.json").write_text(json.dumps({"wrapped": "ab" * 48}))
    for typed, said in (("cd" * 32, "the key does not open"), ("cd", "not 64 hex digits")):
        done = computer.run("python3 wrapped_to_key.py x.wrapped.json", f"{typed}\n")
        assert done.returncode == 1
        assert said in done.stdout


def test_the_kit_holds_no_secret(folder: Path) -> None:
    texts = {path.name: path.read_bytes() for path in (folder / "kit").iterdir()}
    found = [(name, what) for name, text in texts.items() for what, secret in secrets() if secret in text]
    assert found == []
    every = b"".join(texts.values())
    assert b"tprv" not in every.replace(b"xprv, tpub: tprv", b"")
    # The search finds what is there: what is public of each holder is in the kit.
    for key in HOLDERS:
        assert key.xpub.encode() in texts["kit.json"]
        assert key.evm_address.encode() in texts["README.txt"]


def secrets() -> Iterator[tuple[str, bytes]]:
    """Whatever each holder's secrets may look like."""
    for number in range(len(HOLDERS)):
        raw = entropy(number)
        some = words(number).split()
        yield f"entropy {number}", raw.hex().encode()
        yield f"entropy {number} raw", raw
        yield f"entropy {number} base64", base64.b64encode(raw).rstrip(b"=")
        # The list of words has each word, one a line: three in a row are a secret's.
        for separator in (" ", "\n"):
            yield f"words {number}", separator.join(some[-4:]).encode()


def test_a_kit_is_not_written_over_another_and_again_is_the_same(folder: Path, tmp_path: Path) -> None:
    again = run_kit(folder)
    assert again.returncode == 2
    assert "is not empty" in again.stderr
    twice = run_kit(folder, "--out", str(tmp_path / "kit"), "--json")
    told = json.loads(twice.stdout)
    assert told["bitcoin"] == ["btc-cold"]
    assert told["ethereum"] == ["eth-cold"]
    assert len(told["fingerprint"]) == 64
    for path in (folder / "kit").iterdir():
        if path.name not in ("kit.json", "SHA256SUMS"):
            assert path.read_bytes() == (tmp_path / "kit" / path.name).read_bytes()
        assert (tmp_path / "kit" / path.name).stat().st_mode & 0o077 == 0


def test_a_bundle_without_its_quorum_gives_no_kit_and_an_expired_one_says_so(tmp_path: Path) -> None:
    made = cold_only(version=7)
    expired = msgspec.structs.replace(made, issued_at=1_700_000_000, expires_at=1_700_000_100)
    sign_into(tmp_path, expired)
    done = run_kit(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "HAS EXPIRED" in done.stderr
    assert "THAT DOCUMENT HAD EXPIRED 2023-11-14" in (tmp_path / "kit" / "README.txt").read_text()
    other = tmp_path / "other"
    other.mkdir()
    sign_into(other, made)
    (other / "bundle.json").write_bytes((tmp_path / "bundle.json").read_bytes())
    done = run_kit(other)
    assert done.returncode == 1
    assert not (other / "kit").exists()


def test_the_arithmetic_of_the_plain_script_is_that_of_libsecp256k1(folder: Path) -> None:
    """Known keys at every edge, and some at random, in the script's own process."""
    import importlib.util

    import coincurve

    spec = importlib.util.spec_from_file_location("words_to_key", folder / "kit" / "words_to_key.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    some = [random.Random(7).randrange(1, script.N) for _ in range(40)]
    for number in (1, 2, 3, script.N - 1, script.N - 2, script.N // 2, 2**255, *some):
        due = coincurve.PublicKey.from_valid_secret(number.to_bytes(32, "big")).format()
        assert script.public_key(number) == due
