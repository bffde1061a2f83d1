"""Opening a key: which one is meant, its passphrase, and that the file says of it what the key itself says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from chains.btc.network import NETWORKS
from chains.errors import InvalidValue
from signers.airgap.errors import Unsafe
from signers.airgap.keyfile import About, unseal
from signers.airgap.keys import HolderKey
from signers.airgap.secret import Secret
from signers.airgap.store import Home, Kept
from signers.airgap.terminal import Screen

LEAST_CHARACTERS = 12
"""Of a passphrase. Whoever has the file can try for ever; each try takes 128 MiB and half a second."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A key that is open, and what is registered for it."""

    name: str
    about: About
    entropy: Secret
    key: HolderKey
    kept: Kept


@contextmanager
def opened(home: Home, wanted: str | None, screen: Screen) -> Iterator[Opened]:
    """Ask for the passphrase and open a key for as long as the `with` lasts.

    Raises:
        InvalidValue: no such key, or several and none was named.
        WrongPassphrase: or the file is damaged.
        Unsafe: the key is another one than its file says, or what is registered for it was changed.
    """
    name = home.only_name(wanted)
    file = home.keyfile(name)
    with screen.ask_secret(f"Passphrase of key {name}:") as passphrase:
        entropy = unseal(file, passphrase)
    about = file.about
    with entropy, HolderKey(entropy, NETWORKS[about.network]) as key:
        if (about.name, about.fingerprint, about.evm_address) != (
            name, key.fingerprint.hex(), key.evm_address,
        ):  # fmt: skip
            raise Unsafe(f"the file of key {name} holds another key than it says")
        yield Opened(name, about, entropy, key, home.kept(name, entropy))


def new_passphrase(screen: Screen) -> Secret:
    """Ask twice for a new passphrase, until both are the same and long enough."""
    screen.show(
        [
            "Choose a passphrase. It locks the key's file on this machine: without it the",
            "file is useless, and without your written words it is lost. Five or six",
            f"random words are good; {LEAST_CHARACTERS} characters are the least.",
        ]
    )
    while True:
        first = screen.ask_secret("Passphrase:")
        try:
            _check(first)
        except InvalidValue as error:
            screen.show([str(error)])
            first.wipe()
            continue
        with screen.ask_secret("The same again:") as second:
            if second.reveal() == first.reveal():
                return first
        first.wipe()
        screen.show(["Those were two different ones. Once more:"])


def _check(passphrase: Secret) -> None:
    text = passphrase.reveal()
    if len(text) < LEAST_CHARACTERS:
        raise InvalidValue(f"{len(text)} characters: {LEAST_CHARACTERS} are the least")
    if len(set(text)) < LEAST_CHARACTERS // 2:
        raise InvalidValue("hardly any different characters: choose another one")
