"""`strongroom key test` on real backends: good ones pass and may serve, bad ones are found and may not."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import coincurve
import msgspec
import PyKCS11
import pytest

from chains.errors import InvalidValue
from chains.secp256k1 import CURVE_ORDER
from signers.cli.root import main
from signers.config import SignerConfig, read_config
from signers.errors import BadConfiguration, NotTested
from signers.hsm.pkcs11 import Token
from signers.hsm.sessions import TokenIdentity
from signers.keys import opening
from signers.keys.evm_keys import create_evm_keyset
from signers.keys.keyset import EvmKeysetRecord
from signers.keys.opening import open_keys, open_untested
from signers.keys.sealed import create_keyset
from signers.keys.software import (
    SoftwareEvmKeys,
    SoftwareFile,
    software_bitcoin_file,
    software_evm_file,
    write_software_keys,
)
from signers.keytest import keytest
from signers.keytest.keytest import Throwaway, examine_keys, examine_nonces, throwaway_for
from signers.keytest.tested import path_of_tested, require_tested
from tests.fakes.own_token import own_store

FEW = 256
KEYSETS = ("eth-hot", "btc-hot", "btc-taproot", "soft-eth", "soft-btc", "soft-taproot")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Directory of a signer with all kinds of keys, and its configuration."""
    directory = tmp_path_factory.mktemp("signer")
    with own_store(tmp_path_factory.mktemp("token")) as store:
        soft = store.soft
        token = Token(soft.module_path, soft.label, soft.user_pin)
        create_evm_keyset(token, "eth-hot", 31337, directory)
        create_keyset(token, "btc-hot", "regtest", directory)
        create_keyset(token, "btc-taproot", "regtest", directory, script="p2tr")
        token.close()
        write_software_keys(directory / "soft-eth", software_evm_file("soft-eth", 31337))
        write_software_keys(directory / "soft-btc", software_bitcoin_file("soft-btc", "regtest", "p2wpkh"))
        write_software_keys(
            directory / "soft-taproot", software_bitcoin_file("soft-taproot", "regtest", "p2tr")
        )
        uris = {
            "eth-hot": "pkcs11:token=main",
            "btc-hot": "sealed:token=main",
            "btc-taproot": "sealed:token=main",
        }
        uris |= {name: f"software:file={directory}/{name}" for name in KEYSETS if name.startswith("soft")}
        sections = "".join(f'[keys.{name}]\nuri = "{uri}"\n' for name, uri in uris.items())
        (directory / "signer.toml").write_text(
            f'environment = "trial"\ndirectory = "{directory}"\nmark_directory = "{directory}/mark"\n'
            f'bundle_path = "{directory}/bundle.json"\n{sections}'
            f'[tokens.main]\nmodule = "{soft.module_path}"\nlabel = "own"\npin_file = "{soft.pin_path}"\n'
            f'[listen]\nunix = "{directory}/s.sock"\n'
        )
        yield directory


@pytest.fixture
def config(made: Path) -> SignerConfig:
    for record in made.glob("*.tested.json"):
        record.unlink()
    return read_config(made / "signer.toml")


def run(made: Path, *arguments: str) -> int:
    return main(["test", "--config", str(made / "signer.toml"), *arguments])


def quiet(_text: str) -> None:
    return None


def test_all_backends_pass_for_real_and_may_serve(
    made: Path, config: SignerConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(made) == 0
    told = capsys.readouterr().out
    for name in KEYSETS:
        assert f"{name}: passed [" in told
        assert path_of_tested(made, name).stat().st_mode & 0o777 == 0o600
    opened = open_untested(config, quiet)
    try:
        for name, wallet in opened.wallets.items():
            require_tested(made, wallet.keys, opened.token_of(name))
    finally:
        opened.close()
    warned: list[str] = []
    open_keys(config, warned.append).close()
    assert all("in the file" in text for text in warned)  # the software keys; nothing of tests


def test_a_program_can_read_the_results(
    made: Path, config: SignerConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(made, "--json", "--signatures", str(FEW), "btc-hot") == 0
    (result,) = msgspec.json.decode(capsys.readouterr().out)
    assert (result["keyset"], result["found"], result["signatures"]) == ("btc-hot", [], FEW)
    assert "SoftHSM" in result["backend"]
    assert "coincurve" in result["backend"]
    assert not path_of_tested(made, "eth-hot").exists()


def test_what_was_not_asked_right_is_said(
    made: Path, config: SignerConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(made, "nothing") == 2
    assert "has no [keys.nothing]" in capsys.readouterr().err
    assert run(made, "--signatures", "10", "btc-hot") == 2
    assert "at least 256" in capsys.readouterr().err


# Bad signers.


def with_nonces(key: Throwaway, nonces: Callable[[int], int]) -> Throwaway:
    """The same key, with the nonces of a bad signer (its argument counts them)."""

    def sign(digests: Sequence[bytes]) -> list[bytes]:
        return [ecdsa(key.secret, digest, nonces(number)) for number, digest in enumerate(digests)]

    return replace(key, sign=sign, again=None)


def ecdsa(secret: int, digest: bytes, nonce: int) -> bytes:
    point = coincurve.PrivateKey.from_int(nonce).public_key.format()
    r = int.from_bytes(point[1:], "big") % CURVE_ORDER
    s = pow(nonce, -1, CURVE_ORDER) * (int.from_bytes(digest, "big") + r * secret) % CURVE_ORDER
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def good_nonce() -> int:
    return secrets.randbelow(CURVE_ORDER - 1) + 1


def once_repeated(count: int) -> Callable[[int], int]:
    nonces = [good_nonce() for _ in range(count)]
    nonces[-1] = nonces[0]
    return nonces.__getitem__


START = good_nonce() >> 1


@pytest.mark.parametrize(
    "nonces",
    [
        lambda _: good_nonce() >> 4,
        lambda _: (good_nonce() & ~0xF) or 16,
        lambda number: START + number,
        once_repeated(1024),
    ],
    ids=["the top 4 bits of k are zero", "the bottom 4 bits of k are zero", "k is a counter", "one k twice"],
)
def test_a_biased_signer_is_caught(nonces: Callable[[int], int]) -> None:
    key = Throwaway(good_nonce(), lambda _: [], "raw")
    assert examine_nonces(with_nonces(key, nonces), 1024)
    assert examine_nonces(with_nonces(key, lambda _: good_nonce()), 1024) == ()


def test_a_biased_token_is_caught_before_it_serves_and_stops_what_once_passed(
    made: Path,
    config: SignerConfig,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(made, "--signatures", str(FEW), "eth-hot") == 0
    assert path_of_tested(made, "eth-hot").exists()

    def biased(_token: Token, secret: bytes, digests: Sequence[bytes]) -> list[bytes]:
        number = int.from_bytes(secret, "big")
        return [ecdsa(number, digest, good_nonce() >> 4) for digest in digests]

    monkeypatch.setattr(keytest, "sign_with_throwaway", biased)
    assert run(made, "--signatures", str(FEW), "eth-hot", "btc-hot") == 1
    told = capsys.readouterr().out
    assert "eth-hot: FAILED" in told
    assert "bit 255 of k is 1 in 0 of 256" in told
    assert "btc-hot: passed" in told
    assert not path_of_tested(made, "eth-hot").exists()


def test_signatures_of_another_key_or_none_at_all_are_found() -> None:
    key = Throwaway(good_nonce(), lambda _: [], "raw")
    other = with_nonces(replace(key, secret=good_nonce()), lambda _: good_nonce())
    (found,) = examine_nonces(replace(other, secret=key.secret), FEW)
    assert "not of the key" in found
    for nothing in (b"", bytes(64), b"\x01" * 63):
        (found,) = examine_nonces(replace(key, sign=partial(_repeated, nothing)), FEW)
        assert found == "a signature that is none"


def _repeated(signature: bytes, digests: Sequence[bytes]) -> list[bytes]:
    return [signature] * len(digests)


def test_deterministic_backends_are_compared_with_another_library() -> None:
    key = Throwaway(good_nonce(), lambda _: [], "raw")
    random = replace(with_nonces(key, lambda _: good_nonce()), again=lambda _: b"another")
    assert examine_nonces(random, FEW) == (
        "signatures are not the deterministic ones that another library makes",
    )


class Faulty(SoftwareEvmKeys):
    """Software keys whose real signatures are made by a function of their number and digest."""

    def __init__(self, change: Callable[[int, bytes], bytes], file: SoftwareFile) -> None:
        assert isinstance(file.record, EvmKeysetRecord)
        super().__init__(file.record, file)
        self.change, self.count = change, 0

    def sign(self, branch: int, index: int, digest: bytes) -> tuple[bytes, bytes]:
        self.count += 1
        return self.pubkey, self.change(self.count, digest)


def test_repeats_on_real_keys_are_found() -> None:
    file = software_evm_file("soft", 1)
    secret = int(file.secret, 16)
    leaks = "one r for different digests or keys: this gives the key away"
    assert leaks in examine_keys(Faulty(lambda _, digest: ecdsa(secret, digest, 4711), file))
    once = Faulty(lambda n, digest: ecdsa(secret, digest, 4711 if n in (3, 90) else good_nonce()), file)
    assert leaks in examine_keys(once)
    random = Faulty(lambda _, digest: ecdsa(secret, digest, good_nonce()), file)
    assert examine_keys(random) == ("the same digest gets another signature again",)
    assert examine_keys(Faulty(lambda _n, _digest: b"none", file)) == ("a signature that is none",)


def test_a_wrong_attestation_is_found(
    made: Path, config: SignerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_untested(config, quiet)
    try:
        for name in ("eth-hot", "btc-hot"):
            keys = opened.wallets[name].keys
            right = type(keys).attest
            monkeypatch.setattr(
                type(keys), "attest", lambda self, digest, right=right: flipped(right(self, digest))
            )
            assert examine_keys(keys) == ("an attestation does not verify",)
    finally:
        opened.close()


def flipped(signature: bytes) -> bytes:
    return signature[:-1] + bytes([signature[-1] ^ 1])


# What the record is good for.


def test_a_trial_warns_of_untested_keys_and_production_does_not_start(
    made: Path, config: SignerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    warned: list[str] = []
    open_keys(config, warned.append).close()
    assert [text for text in warned if "were never tested" in text and "eth-hot" in text]
    monkeypatch.setattr(opening, "require_proven", lambda _directory, _record: None)
    production = msgspec.structs.replace(
        config,
        environment="production",
        keys={name: section for name, section in config.keys.items() if not name.startswith("soft")},
    )
    with pytest.raises(NotTested, match=r"were never tested.*run `strongroom key test`"):
        open_keys(production, quiet)
    assert run(made, "--signatures", str(FEW), "eth-hot", "btc-hot", "btc-taproot") == 0
    open_keys(production, quiet).close()


def test_production_opens_no_keys_in_a_file_even_if_its_configuration_says_so(config: SignerConfig) -> None:
    with pytest.raises(BadConfiguration, match="key in a file is not used in production"):
        open_untested(msgspec.structs.replace(config, environment="production"), quiet)


def test_a_record_is_stale_when_library_firmware_token_or_keys_change(
    made: Path, config: SignerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(made, "--signatures", str(FEW), "eth-hot", "btc-hot") == 0
    opened = open_untested(config, quiet)
    try:
        keys, token = opened.wallets["eth-hot"].keys, opened.tokens["main"]
        require_tested(made, keys, token)
        real = token.identity()
        for change in ("module", "library", "model", "firmware", "serial"):
            other: TokenIdentity = replace(real, **{change: "another"})
            monkeypatch.setattr(Token, "identity", lambda _self, other=other: other)
            with pytest.raises(NotTested, match="tested was"):
                require_tested(made, keys, token)
        monkeypatch.setattr(Token, "identity", lambda _self: real)
        monkeypatch.setattr("importlib.metadata.version", lambda _name: "999")
        require_tested(made, keys, token)  # whose signatures the token makes, not this library
        with pytest.raises(NotTested, match="coincurve 999"):
            require_tested(made, opened.wallets["btc-hot"].keys, token)
    finally:
        opened.close()


def test_a_record_that_was_edited_or_is_of_other_keys_is_no_record(made: Path, config: SignerConfig) -> None:
    assert run(made, "--signatures", str(FEW), "eth-hot", "btc-hot") == 0
    opened = open_untested(config, quiet)
    path = path_of_tested(made, "eth-hot")
    good = path.read_bytes()
    try:
        keys, token = opened.wallets["eth-hot"].keys, opened.tokens["main"]
        for content in (
            good.replace(b'"signatures":256', b'"signatures":999999'),
            path_of_tested(made, "btc-hot").read_bytes(),
            good[:-5],
            b"",
        ):
            assert content != good
            path.write_bytes(content)
            with pytest.raises(NotTested):
                require_tested(made, keys, token)
        path.write_bytes(good)
        require_tested(made, keys, token)
    finally:
        opened.close()


def test_the_record_belongs_to_whom_the_signers_directory_belongs(made: Path, config: SignerConfig) -> None:
    if os.geteuid() == 0:
        os.chown(made, 65534, 65534)
    assert run(made, "--signatures", str(FEW), "btc-hot") == 0
    assert path_of_tested(made, "btc-hot").stat().st_uid == made.stat().st_uid


def test_the_throwaway_key_is_gone_afterwards_and_shows_nothing(made: Path, config: SignerConfig) -> None:
    opened = open_untested(config, quiet)
    try:
        token = opened.tokens["main"]
        before = token.call(lambda session: len(session.findObjects([])))
        key = throwaway_for(opened.wallets["eth-hot"].keys, token)
        key.sign([bytes(32)])
        assert token.call(lambda session: len(session.findObjects([]))) == before
        assert str(key.secret) not in repr(key)
        with pytest.raises(InvalidValue, match="at least 256"):
            examine_nonces(key, 255)
    finally:
        opened.close()


def test_a_token_that_takes_no_key_from_outside_is_said_to_be_untestable(
    made: Path,
    config: SignerConfig,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refused(_session: object, _template: object) -> object:
        raise PyKCS11.PyKCS11Error(PyKCS11.CKR_FUNCTION_NOT_SUPPORTED)

    monkeypatch.setattr(PyKCS11.Session, "createObject", refused)
    assert run(made, "--signatures", str(FEW), "eth-hot") == 1
    assert "refused" in capsys.readouterr().err
    assert not path_of_tested(made, "eth-hot").exists()
