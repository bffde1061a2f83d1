"""The key ceremony on real SoftHSM tokens, rehearsed through the command: made, backed up, proven, opened."""

from __future__ import annotations

import base64
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from signers.ceremony.operators import create_operator_key
from signers.ceremony.proven import require_proven
from signers.ceremony.session import read_ceremony
from signers.errors import NotProven
from tests.support.ceremonies import (
    COSIGNER,
    DICE,
    EVM_KEY,
    HOLDERS,
    OPERATORS,
    PASSPHRASES,
    SAFE_OWNER,
    STEPS,
    TAPROOT,
    WALLET,
    Site,
    labels,
    recovered,
)

KINDS = pytest.mark.parametrize(
    "keyset", [WALLET, TAPROOT, COSIGNER, EVM_KEY, SAFE_OWNER], ids=lambda keyset: str(keyset["id"])
)
FAMILIES = pytest.mark.parametrize("keyset", [WALLET, EVM_KEY], ids=lambda keyset: str(keyset["id"]))


@KINDS
def test_a_rehearsal_makes_and_proves_a_key_set_of_each_kind(keyset: dict[str, Any], tmp_path: Path) -> None:
    site = Site(tmp_path, keyset)
    done = site.held()
    signed, proven = read_ceremony(site.directory, site.id)
    assert proven is not None
    assert proven == read_ceremony(site.backup, site.id)[1]
    record = signed.record
    assert [operator.name for operator in record.operators] == list(OPERATORS)
    assert [share.holder for share in record.backup.shares] == list(HOLDERS)
    assert (record.entropy.typed_characters, record.entropy.token_seeded) == (len(DICE), True)
    assert len(record.addresses) == {"btc-hd": 6, "btc-cosigner": 0}.get(keyset["kind"], 1)
    assert proven.proof.checked == HOLDERS
    assert len(proven.proof.holders) == record.backup.threshold == 2
    assert record.token.serial != proven.proof.token.serial
    # What is printed is in the backup; the proof's token has forgotten everything; the list of remains is gone.
    assert record.digest_hex() in done.stdout
    text = (site.backup / f"{site.id}.ceremony.txt").read_text()
    assert record.digest_hex() in text
    assert "PROVEN" in text
    assert labels(site.proof_token) == []
    assert len(labels(site.token)) == 2
    own = "key" if keyset["kind"] in ("evm-key", "safe-owner") else "seed"
    assert {path.name for path in site.directory.iterdir()} == {
        f"{site.id}.{part}.json" for part in (own, "ceremony", "proven")
    }
    files = [path for folder in (site.directory, site.backup) for path in folder.iterdir()]
    for path in (*files, *(site.share_file(holder) for holder in HOLDERS)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    with pytest.raises(NotProven, match="rehearsal"):
        require_proven(site.directory, record.keyset)


def test_again_changes_nothing(tmp_path: Path) -> None:
    site = Site(tmp_path, WALLET)
    site.held()
    before = snapshot(site)
    again = site.held()
    assert "is proven" in again.stdout
    assert snapshot(site) == before


@FAMILIES
def test_standard_tools_alone_restore_the_keys(keyset: dict[str, Any], tmp_path: Path) -> None:
    """As the record says: `shamir recover` on the command line, then bip_utils and embit, or OpenSSL's libraries."""
    site = Site(tmp_path, keyset, threshold=3, holders=("anna", "ben", "carl", "dora", "emil"))
    site.held()
    words = [site.words(holder) for holder in ("emil", "anna", "carl")]
    done = subprocess.run(
        [sys.executable, "-c", "from shamir_mnemonic.cli import cli; cli()", "recover"],
        input="\n".join(words) + "\n",
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )
    secret = done.stdout.strip().splitlines()[-1].split()[-1]
    assert len(bytes.fromhex(secret)) == 32
    record = site.record().record
    assert standard_tools(site, secret) == [one.address for one in record.addresses]


WALLET_BY_STANDARD_TOOLS = """
import sys, json
from bip_utils import Bip39MnemonicGenerator, Bip39SeedGenerator, Bip84, Bip84Coins, Bip44Changes
from embit import bip32, bip39, networks
from embit.descriptor import Descriptor
words = Bip39MnemonicGenerator().FromEntropy(bytes.fromhex(sys.stdin.readline().strip())).ToStr()
seed = Bip39SeedGenerator(words).Generate()
account = Bip84.FromSeed(seed, Bip84Coins.BITCOIN_REGTEST).Purpose().Coin().Account(0)
shown = [account.Change(branch).AddressIndex(index).PublicKey().ToAddress()
         for branch in (Bip44Changes.CHAIN_EXT, Bip44Changes.CHAIN_INT) for index in range(3)]
root = bip32.HDKey.from_seed(bip39.mnemonic_to_seed(words), version=networks.NETWORKS["regtest"]["xprv"])
key = root.derive("m/84h/1h/0h").to_base58()
described = Descriptor.from_string(f"wpkh({key}/<0;1>/*)")
assert shown == [described.derive(index, branch_index=branch).address(networks.NETWORKS["regtest"])
                 for branch in (0, 1) for index in range(3)]
assert not [name for name in sys.modules if name.split(".")[0] in ("signers", "chains", "policies", "ops", "custody")]
print(json.dumps(shown))
"""
EVM_KEY_BY_STANDARD_TOOLS = """
import sys, json, subprocess, tempfile
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap_with_padding
from cryptography.hazmat.primitives.serialization import load_der_private_key
from eth_account import Account
secret, wrapped = (bytes.fromhex(sys.stdin.readline().strip()) for _ in range(2))
key = load_der_private_key(aes_key_unwrap_with_padding(secret, wrapped), None)
number = key.private_numbers().private_value
with tempfile.TemporaryDirectory() as folder:
    paths = [f"{folder}/{name}" for name in ("wrapped.bin", "key.der")]
    open(paths[0], "wb").write(wrapped)
    subprocess.run(["openssl", "enc", "-d", "-id-aes256-wrap-pad", "-K", secret.hex(), "-iv", "A65959A6",
                    "-in", paths[0], "-out", paths[1]], check=True)
    printed = subprocess.run(["openssl", "ec", "-inform", "DER", "-in", paths[1], "-text", "-noout"],
                             check=True, capture_output=True, text=True).stdout
assert f"{number:064x}" in "".join(printed.split()).replace(":", "")
assert not [name for name in sys.modules if name.split(".")[0] in ("signers", "chains", "policies", "ops", "custody")]
print(json.dumps([Account.from_key(number.to_bytes(32, "big")).address]))
"""


def standard_tools(site: Site, secret: str) -> list[str]:
    """The addresses that other people's programs find in the backup."""
    program, wrapped = WALLET_BY_STANDARD_TOOLS, ""
    if site.keyset["kind"] == "evm-key":
        program = EVM_KEY_BY_STANDARD_TOOLS
        wrapped = json.loads((site.backup / f"{site.id}.wrapped.json").read_text())["wrapped"]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        input=f"{secret}\n{wrapped}\n",
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout)
    return found


@FAMILIES
def test_no_secret_is_anywhere_but_with_its_holder(keyset: dict[str, Any], tmp_path: Path) -> None:
    """Seed, wrapping key, wrapped key, shares, passphrases and dice: in no file, output, argument or environment."""
    site = Site(tmp_path, keyset)
    seen = list(watched(site))
    secret = recovered([site.words(holder) for holder in HOLDERS[:2]])
    canaries = forms_of(secret, site)
    assert len(canaries) > 20
    given_away = {site.answers, *(site.key_file(name) for name in OPERATORS)}
    holders = {site.share_file(holder) for holder in HOLDERS}
    for path in site.root.rglob("*"):
        if path.is_file() and path not in given_away | holders:
            seen.append((str(path), path.read_bytes()))
    found = [(where, name) for where, text in seen for name, canary in canaries.items() if canary in text]
    assert found == []
    # The search itself works: each holder has one share, and nobody another one's.
    for holder in HOLDERS:
        has = {name for name, canary in canaries.items() if canary in site.share_file(holder).read_bytes()}
        assert has == {f"share of {holder}", *(f"words of {holder}",)}


def watched(site: Site) -> Iterator[tuple[str, bytes]]:
    """Hold the ceremony; what it prints, and arguments and environments of all its processes meanwhile."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "signers.cli",
            "ceremony",
            "run",
            str(site.plan),
            "--answers",
            str(site.answers),
        ],
        env={**os.environ, **site.token.env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    known: dict[tuple[str, bytes], None] = {}
    provers = 0
    while process.poll() is None:
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                command = (folder / "cmdline").read_bytes()
                if b"signers" in command and f"{site.root}".encode() in (folder / "environ").read_bytes():
                    provers += b"signers.ceremony.prover" in command
                    for name in ("cmdline", "environ"):
                        known[name, (folder / name).read_bytes()] = None
            except OSError:
                continue
    assert process.stdout is not None
    output = process.stdout.read()
    process.stdout.close()
    assert process.returncode == 0, output.decode()
    assert len(known) >= 4
    assert provers
    yield "output", output
    yield from known


def forms_of(secret: bytes, site: Site) -> dict[str, bytes]:
    """Whatever a secret may look like."""
    from bip_utils import Bip39MnemonicGenerator, Bip39SeedGenerator

    from signers.ceremony.restoring import attestation_secret

    words = Bip39MnemonicGenerator().FromEntropy(secret).ToStr()
    secrets = {
        "recovery secret": secret,
        "attestation key": attestation_secret(secret, site.id),
        "seed": bytes(Bip39SeedGenerator(words).Generate()),
    }
    wrapped = site.backup / f"{site.id}.wrapped.json"
    if wrapped.exists():
        from cryptography.hazmat.primitives.keywrap import aes_key_unwrap_with_padding

        pkcs8 = aes_key_unwrap_with_padding(secret, bytes.fromhex(json.loads(wrapped.read_text())["wrapped"]))
        secrets |= {"PKCS#8": pkcs8, "EVM key": pkcs8[-32:]}
    forms = {"words": words.encode(), "half of the words": " ".join(words.split()[:12]).encode()}
    for name, value in secrets.items():
        forms |= {
            name: value,
            f"{name} in hex": value.hex().encode(),
            f"{name} in HEX": value.hex().upper().encode(),
            f"{name} in base64": base64.b64encode(value).rstrip(b"="),
            f"{name} in URL's base64": base64.urlsafe_b64encode(value).rstrip(b"="),
            f"{name} as a number": str(int.from_bytes(value, "big")).encode(),
            f"{name} as a list": str(list(value)).strip("[]").encode(),
        }
    for holder in HOLDERS:
        share = site.words(holder)
        forms |= {
            f"share of {holder}": share.encode(),
            f"words of {holder}": " ".join(share.split()[8:16]).encode(),
        }
    forms |= {f"passphrase of {name}": value.encode() for name, value in PASSPHRASES.items()}
    return forms | {"dice": DICE.encode()}


def test_whoever_of_the_two_declines_a_step_nothing_is_made_or_proven(tmp_path: Path) -> None:
    site = Site(tmp_path, EVM_KEY)
    for number, step in enumerate(step for step in STEPS if step not in ("remove", "restore")):
        name, other = OPERATORS[number % 2], OPERATORS[1 - number % 2]
        site.write_answers(confirm={other: list(STEPS), name: [one for one in STEPS if one != step]})
        done = site.held(check=False)
        assert done.returncode == 1
        assert f"{name} did not confirm the step {step!r}" in done.stderr
        assert_only_this_is_there(site, made=step in ("proof", "activation"))
    site.write_answers()
    site.held()
    assert site.proven().proof.proven


def assert_only_this_is_there(site: Site, *, made: bool) -> None:
    """A key-set without a proof, or nothing at all."""
    assert labels(site.proof_token) == []
    files = {
        path.name for folder in (site.directory, site.backup) if folder.exists() for path in folder.iterdir()
    }
    shares = [holder for holder in HOLDERS if site.share_file(holder).exists()]
    if made:
        assert files == {
            f"{site.id}.{p}" for p in ("key.json", "ceremony.json", "ceremony.txt", "wrapped.json")
        }
        assert (len(labels(site.token)), shares) == (2, list(HOLDERS))
    else:
        assert (files, labels(site.token), shares) == (set(), [], [])


def test_wrong_passphrases_and_one_operator_with_both_keys_hold_no_ceremony(tmp_path: Path) -> None:
    site = Site(tmp_path, WALLET)
    site.write_answers(passphrases={**PASSPHRASES, "otto": "another passphrase"})
    done = site.held(check=False)
    assert done.returncode == 1
    assert "otto's key file" in done.stderr
    site.write_answers(passphrases=dict.fromkeys(OPERATORS, PASSPHRASES["olga"]))
    site.key_file("otto").write_bytes(site.key_file("olga").read_bytes())
    done = site.held(check=False)
    assert "one and the same" in done.stderr
    plain = subprocess.run(
        ["openssl", "genpkey", "-algorithm", "ed25519"], capture_output=True, check=True
    ).stdout
    site.key_file("otto").write_bytes(plain)
    done = site.held(check=False)
    assert "not under a passphrase" in done.stderr
    assert_only_this_is_there(site, made=False)


def test_shares_that_are_missing_wrong_or_mixed_prove_nothing(tmp_path: Path) -> None:
    site, other = Site(tmp_path / "one", WALLET), Site(tmp_path / "other", WALLET)
    other.held()
    site.write_answers(confirm={name: [step for step in STEPS if step != "proof"] for name in OPERATORS})
    assert site.held(check=False).returncode == 1
    shares = {name: str(site.share_file(name)) for name in HOLDERS}
    damaged = tmp_path / "damaged"
    damaged.write_text(site.share_file("anna").read_text().replace("SHARE: ", "SHARE: academic "))
    for given, said in (
        ({"anna": shares["anna"]}, "1 shares: 2 are needed"),
        ({}, "0 shares: 2 are needed"),
        ({**shares, "ben": str(other.share_file("ben"))}, "ben gave share 2"),
        ({**shares, "ben": shares["anna"]}, "ben gave share 1"),
        ({**shares, "ben": str(damaged)}, "no SLIP-39 share"),
        ({**shares, "ben": str(site.plan)}, "no recovery share"),
        ({**shares, "ben": str(tmp_path / "nothing")}, "No such file"),
    ):
        site.write_answers(shares=given)
        done = site.held(check=False)
        assert done.returncode == 1
        assert said in done.stderr
        assert not (site.directory / f"{site.id}.proven.json").exists()
        assert labels(site.proof_token) == []
    site.write_answers()
    site.held()
    assert site.proven().proof.proven


def test_a_proof_needs_another_and_a_fresh_token(tmp_path: Path) -> None:
    site, other = Site(tmp_path / "one", EVM_KEY), Site(tmp_path / "other", WALLET)
    other.held()
    plan = site.plan_object()
    site.write_plan(proof_token={**plan["proof_token"], "label": "main"})
    assert "another token" in site.held(check=False).stderr
    # The other site's own token is used already, and must not be touched.
    theirs = other.plan_object()["token"] | {
        "settings": other.token.env,
        "module": "/./" + plan["token"]["module"],
    }
    site.write_plan(proof_token=theirs)
    assert "not fresh, it has keys named btc-hot-attest, btc-hot-seal" in site.held(check=False).stderr
    assert len(labels(other.token)) == 2
    # The same token by another path of its library is still the same token.
    own = plan["token"] | {"settings": site.token.env, "module": "/./" + plan["token"]["module"]}
    site.write_plan(proof_token=own)
    for command in ("run", "remove"):
        assert "the key-set's own" in site.held(command, check=False).stderr
    assert len(labels(site.token)) == 2
    site.write_plan()
    site.held()
    assert site.proven().proof.proven


def test_a_damaged_wrapped_key_or_record_proves_nothing(tmp_path: Path) -> None:
    site = Site(tmp_path, EVM_KEY)
    site.write_answers(confirm={name: [step for step in STEPS if step != "proof"] for name in OPERATORS})
    site.held(check=False)
    site.write_answers()
    path = site.backup / f"{site.id}.wrapped.json"
    good = path.read_bytes()
    file = json.loads(good)
    file["wrapped"] = ("0" if file["wrapped"][0] != "0" else "1") + file["wrapped"][1:]
    path.write_text(json.dumps(file))
    assert "not the one of the ceremony's record" in site.held(check=False).stderr
    path.write_bytes(good)
    record = site.backup / f"{site.id}.ceremony.json"
    kept = record.read_bytes()
    record.write_bytes(kept.replace(b'"threshold":2', b'"threshold":3'))
    assert "signature" in site.held(check=False).stderr
    record.write_bytes(kept)
    site.held()


def test_other_operators_do_not_prove_what_these_have_made(tmp_path: Path) -> None:
    site = Site(tmp_path, WALLET)
    site.write_answers(confirm={name: [step for step in STEPS if step != "proof"] for name in OPERATORS})
    site.held(check=False)
    site.write_answers()
    site.key_file("otto").unlink()
    create_operator_key(site.key_file("otto"), PASSPHRASES["otto"])
    assert "other operators" in site.held(check=False).stderr


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    site = Site(tmp_path, WALLET)
    site.share_file("ben").write_text("a holiday picture")
    assert "nothing is overwritten" in site.held(check=False).stderr
    assert site.share_file("ben").read_text() == "a holiday picture"
    site.share_file("ben").unlink()
    site.held()
    for name in ("seed", "ceremony", "proven"):
        (site.directory / f"{site.id}.{name}.json").unlink()
    before = snapshot(site)
    done = site.held(check=False)
    assert "has keys named btc-hot-attest, btc-hot-seal already" in done.stderr
    assert snapshot(site) == before


def test_a_file_of_answers_speaks_for_nobody_in_production(tmp_path: Path) -> None:
    site = Site(tmp_path, WALLET, environment="production")
    done = site.held(check=False)
    assert (done.returncode, "rehearsals" in done.stderr) == (2, True)
    site = Site(tmp_path / "open", WALLET)
    site.answers.chmod(0o644)
    assert "open to other users" in site.held(check=False).stderr


def snapshot(site: Site) -> dict[str, bytes]:
    """All files but those that PKCS#11 touches when it looks."""
    folders = (site.directory, site.backup, *(site.root / holder for holder in site.holders))
    files = {str(p): p.read_bytes() for f in folders if f.exists() for p in f.iterdir()}
    return files | {"labels": "\n".join(labels(site.token)).encode()}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_writes_belongs_to_the_signer_s_user(tmp_path: Path) -> None:
    site = Site(tmp_path, WALLET)
    site.directory.mkdir(mode=0o700)
    os.chown(site.directory, 12345, 12346)
    site.held()
    assert {(p.stat().st_uid, p.stat().st_gid) for p in site.directory.iterdir()} == {(12345, 12346)}
