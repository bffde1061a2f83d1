"""The daemon's configuration: each mistake stops the start with a sentence that says what to write."""

from __future__ import annotations

from pathlib import Path

import pytest

from signers.config import pin_reader, read_config
from signers.errors import BadConfiguration

GOOD = """
environment = "trial"
directory = "/srv/signer"
mark_directory = "/srv/mark"
bundle_path = "/srv/bundle.json"
[tokens.main]
module = "/usr/lib/softhsm/libsofthsm2.so"
label = "strongroom"
pin_file = "/srv/pin"
[keys.btc-hot]
uri = "sealed:token=main"
[listen]
unix = "/srv/signer.sock"
"""
PRODUCTION = GOOD.replace('"trial"', '"production"\nuser = "signer"\nmark_user = "mark"')
TLS = """host = "127.0.0.1"
port = 7000
certificate = "a"
private_key = "b"
clients = ["c"]"""


def read(tmp_path: Path, text: str) -> object:
    path = tmp_path / "signer.toml"
    path.write_text(text)
    return read_config(path)


def test_production_asks_for_two_users(tmp_path: Path) -> None:
    for line in ('user = "signer"\n', 'mark_user = "mark"\n'):
        with pytest.raises(BadConfiguration, match="write user and mark_user"):
            read(tmp_path, PRODUCTION.replace(line, "", 1))
    with pytest.raises(BadConfiguration, match="mark_user must be another user"):
        read(tmp_path, PRODUCTION.replace('"mark"', '"signer"'))


def test_rates_are_by_call(tmp_path: Path) -> None:
    read(tmp_path, GOOD + "[listen.rates.sign]\nper_second = 5\nburst = 9\n")
    for wrong in ("rates.export]", "rates.sign]\nper_second = 0"):
        with pytest.raises(BadConfiguration, match="rates"):
            read(tmp_path, GOOD + f"[listen.{wrong}\nburst = 9\n")


def test_a_good_configuration_is_read(tmp_path: Path) -> None:
    path = tmp_path / "signer.toml"
    path.write_text(GOOD)
    config = read_config(path)
    assert config.journal_path == Path("/srv/signer/journal.sqlite")
    assert config.mark_path == Path("/srv/mark/journal.mark")
    assert config.listen.max_connections == 64
    read(tmp_path, GOOD.replace('unix = "/srv/signer.sock"', TLS))


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ('environment = "trial"', "", "environment"),
        ('environment = "trial"', 'environment = "test"', "environment"),
        ('environment = "trial"', 'environment = "trial"\nsurprise = 1', "surprise"),
        ('[keys.btc-hot]\nuri = "sealed:token=main"\n', "[keys]\n", "keys"),
        ("[keys.btc-hot]", '[keys."../x"]', "keys"),
        ('uri = "sealed:token=main"', "", "uri"),
        ('uri = "sealed:token=main"', 'uri = "sealed:token=main;object=x"', "of the names token"),
        ('uri = "sealed:token=main"', 'uri = "sealed:token=other"', r"\[tokens.other\]"),
        ('uri = "sealed:token=main"', 'uri = "pkcs11:object=a"', "needs the attribute token"),
        ("[keys.btc-hot]", '[tokens.b]\nmodule = "x"\nlabel = "y"\n[keys.btc-hot]', r"\[tokens.b\]"),
        (
            "[keys.btc-hot]",
            '[tokens.b]\nmodule = "/usr/lib/softhsm/libsofthsm2.so"\nlabel = "strongroom"\npin_fd = 3\n[keys.btc-hot]',
            "the same token",
        ),
        ('"/srv/mark"', '"/srv/signer"', "another directory"),
        ('"/srv/mark"', '"/srv/mark/../signer/"', "another directory"),
        ('pin_file = "/srv/pin"', "", "pin_file"),
        ('pin_file = "/srv/pin"', 'pin_file = "/srv/pin"\npin_fd = 3', "exactly one"),
        ('pin_file = "/srv/pin"', "pin_fd = 0", "pin_fd"),
        ('pin_file = "/srv/pin"', 'pin = "1234"', "pin"),
        ('label = "strongroom"', 'label = ""', "label"),
        ('unix = "/srv/signer.sock"', "", "listen.unix"),
        ('unix = "/srv/signer.sock"', 'unix = "/s"\nport = 7000', "not both"),
        ('unix = "/srv/signer.sock"', TLS.replace('clients = ["c"]', ""), "clients"),
        ('unix = "/srv/signer.sock"', TLS.replace('certificate = "a"', ""), "certificate"),
        ('unix = "/srv/signer.sock"', TLS.replace("7000", "70000"), "port"),
        ("[tokens.main]", "[tokens.main", "signer.toml"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, before: str, after: str, said: str) -> None:
    assert before in GOOD
    with pytest.raises(BadConfiguration, match=said):
        read(tmp_path, GOOD.replace(before, after))


def test_production_refuses_keys_in_a_file(tmp_path: Path) -> None:
    software = GOOD.replace("sealed:token=main", "software:file=/srv/key.json")
    read(tmp_path, software)
    with pytest.raises(BadConfiguration, match=r"\[keys.btc-hot\] is a key in a file"):
        read(tmp_path, software.replace('"trial"', '"production"'))
    read(tmp_path, PRODUCTION)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadConfiguration, match="No such file"):
        read_config(tmp_path / "nothing.toml")


def test_the_pin_is_read_when_it_is_asked_for_and_never_said(tmp_path: Path) -> None:
    pin = tmp_path / "pin"
    pin.write_text("246810\n")
    pin.chmod(0o600)
    path = tmp_path / "signer.toml"
    path.write_text(GOOD.replace("/srv/pin", str(pin)))
    ask = pin_reader(read_config(path).tokens["main"])
    assert ask() == "246810"
    pin.write_text("135791")
    assert ask() == "135791"
    pin.chmod(0o640)
    with pytest.raises(BadConfiguration, match="chmod 600") as error:
        ask()
    assert "135791" not in str(error.value)
    pin.chmod(0o600)
    for content in ("", " \n", "x" * 300):
        pin.write_text(content)
        with pytest.raises(BadConfiguration, match="expected the token's user PIN"):
            ask()
    pin.unlink()
    with pytest.raises(BadConfiguration, match="No such file"):
        ask()
