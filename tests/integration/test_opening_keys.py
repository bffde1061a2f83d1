"""A signer's configuration opened for real: several tokens, keys under other labels, and nothing half open."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from ops.devnet.softhsm import SoftHsmToken
from signers.config import read_config
from signers.errors import SealBroken, SelfCheckFailed, TokenRefused
from signers.hsm.cryptoki import Library
from signers.hsm.pkcs11 import Token
from signers.keys.ecdsa import make_signing_key
from signers.keys.evm_keys import create_evm_keyset, create_safe_owner
from signers.keys.opening import Opened, open_keys
from signers.keys.sealed import create_cosigner, create_keyset
from signers.keys.software import (
    open_software_keys,
    software_bitcoin_file,
    software_evm_file,
    write_software_keys,
)
from signers.wallets import BitcoinVaultWallet, BitcoinWallet, EvmWallet, SafeWallet
from tests.fakes.own_token import OwnToken, own_store


class Site:
    """Two tokens in one library, and the files of key-sets in them."""

    def __init__(self, store: OwnToken, directory: Path) -> None:
        self.directory = directory
        self.tokens: dict[str, SoftHsmToken] = {"main": store.soft, "spare": store.another("spare")}
        self.uris = {
            "btc-hot": "sealed:token=main",
            "btc-warm": "sealed:token=spare",
            "eth-hot": "pkcs11:token=spare",
            "eth-warm": "pkcs11:token=main",
        }
        with closing(self.open("main")) as main, closing(self.open("spare")) as spare:
            create_keyset(main, "btc-hot", "regtest", directory)
            create_cosigner(spare, "btc-warm", "regtest", directory)
            create_evm_keyset(spare, "eth-hot", 31337, directory)
            create_safe_owner(main, "eth-warm", 31337, directory)

    def open(self, name: str) -> Token:
        soft = self.tokens[name]
        return Token(soft.module_path, soft.label, soft.user_pin)

    def opened(self) -> Opened:
        sections = "".join(
            f'[tokens.{name}]\nmodule = "{soft.module_path}"\nlabel = "{soft.label}"\npin_file = "{soft.pin_path}"\n'
            for name, soft in self.tokens.items()
        )
        sections += "".join(f'[keys.{keyset}]\nuri = "{uri}"\n' for keyset, uri in self.uris.items())
        path = self.directory / "signer.toml"
        path.write_text(
            f'environment = "trial"\ndirectory = "{self.directory}"\nmark_directory = "{self.directory}/mark"\n'
            f'bundle_path = "{self.directory}/bundle.json"\n{sections}[listen]\nunix = "{self.directory}/s"\n'
        )
        return open_keys(read_config(path), lambda _text: None)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    (tmp_path / "signer").mkdir()
    with own_store(tmp_path / "store") as store:
        yield Site(store, tmp_path / "signer")


def test_one_signer_has_keys_in_two_tokens_of_one_library(site: Site) -> None:
    opened = site.opened()
    assert {name: type(wallet) for name, wallet in opened.wallets.items()} == {
        "btc-hot": BitcoinWallet,
        "btc-warm": BitcoinVaultWallet,
        "eth-hot": EvmWallet,
        "eth-warm": SafeWallet,
    }
    assert opened.token_of("btc-hot") is opened.token_of("eth-warm") is opened.tokens["main"]
    assert opened.token_of("eth-hot") is opened.tokens["spare"]
    assert len(Library._present) == 1
    opened.close()
    assert Library._present == {}


def test_a_key_may_have_a_label_of_its_own(site: Site) -> None:
    with closing(site.open("spare")) as token:
        make_signing_key(token, "another key")
    site.uris["eth-hot"] = "pkcs11:token=spare;object=eth-hot-sign"
    site.opened().close()
    site.uris["eth-hot"] = "pkcs11:token=spare;object=another%20key"
    with pytest.raises(SealBroken, match="the token's keys are not the recorded ones"):
        site.opened()
    site.uris["eth-hot"] = "pkcs11:token=spare;object=nothing"
    with pytest.raises(TokenRefused, match="0 keys named 'nothing'"):
        site.opened()


def test_keys_in_the_other_token_are_not_found_in_this_one(site: Site) -> None:
    site.uris["btc-warm"] = "sealed:token=main"
    with pytest.raises(TokenRefused, match="0 keys named"):
        site.opened()


def test_what_fails_half_way_leaves_nothing_open(site: Site) -> None:
    wrong = site.directory / "wrong.pin"
    wrong.write_text("918273")
    wrong.chmod(0o600)

    class WrongPin(SoftHsmToken):
        pin_path = wrong

    soft = site.tokens["spare"]
    site.tokens["spare"] = WrongPin(soft.directory, soft.label)
    with pytest.raises(TokenRefused, match="refused the PIN"):
        site.opened()
    assert Library._present == {}


# Keys in a file.


def test_keys_in_a_file_open_and_attest_beside_tokens(site: Site) -> None:
    for name, file in (
        ("soft-btc", software_bitcoin_file("soft-btc", "regtest", "p2tr")),
        ("soft-eth", software_evm_file("soft-eth", 31337)),
    ):
        record = write_software_keys(site.directory / name, file)
        assert record == file.record
        site.uris[name] = f"software:file={site.directory}/{name}"
    opened = site.opened()
    assert opened.token_of("soft-btc") is None
    assert opened.wallets["soft-eth"].keys.record.id == "soft-eth"
    opened.close()


def test_a_file_of_keys_that_is_not_what_it_should_be_does_not_open(tmp_path: Path) -> None:
    file, other = software_evm_file("soft", 1), software_evm_file("soft", 1)
    path = tmp_path / "soft"
    write_software_keys(path, file)
    assert file.secret not in repr(file)
    assert file.attestation not in repr(open_software_keys(path, "soft"))
    with pytest.raises(FileExistsError):
        write_software_keys(path, other)
    with pytest.raises(SealBroken, match="is of key-set 'soft', not 'other'"):
        open_software_keys(path, "other")
    for changed in (
        {"secret": other.secret},
        {"attestation": other.attestation},
        {"secret": "00" * 32},
        {"secret": "ff" * 32},
    ):
        path.write_bytes(msgspec.json.encode(msgspec.structs.replace(file, **changed)))
        with pytest.raises(SealBroken) as broken:
            open_software_keys(path, "soft")
        assert file.secret not in str(broken.value)
    path.write_bytes(msgspec.json.encode(file))
    path.chmod(0o640)
    with pytest.raises(SealBroken, match="chmod 600"):
        open_software_keys(path, "soft")
    path.write_bytes(b"{}")
    with pytest.raises(SealBroken):
        open_software_keys(path, "soft")
    with pytest.raises(SealBroken, match="is missing"):
        open_software_keys(tmp_path / "nothing", "soft")


def test_a_backend_that_fails_its_self_check_does_not_open(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign = Library.sign

    def flipped(*arguments: object) -> bytes:
        made = sign(*arguments)  # type: ignore[arg-type]
        return made[:-1] + bytes([made[-1] ^ 1])

    monkeypatch.setattr(Library, "sign", flipped)
    with pytest.raises(SelfCheckFailed, match=r"does not work|does not verify|was not released"):
        site.opened()
    assert Library._present == {}
