"""The verbs `key create`, `restore`, `backup` and `record`."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Literal

from chains.btc.network import NETWORKS
from chains.errors import InvalidValue
from signers.airgap.entropy import DICE_NEEDED, FACES, check_dice, entropy_of
from signers.airgap.errors import Declined
from signers.airgap.keyfile import About, seal
from signers.airgap.keys import HolderKey, entropy_of_words, words_of
from signers.airgap.opening import Opened, new_passphrase, opened
from signers.airgap.records import record_of
from signers.airgap.registered import BitcoinNetworkName
from signers.airgap.secret import Secret
from signers.airgap.shares import join, shares_needed, split
from signers.airgap.store import Home, write_whole
from signers.airgap.terminal import Screen

Backup = Literal["words", "shares"]

WORDS_ASKED: Final = 4
"""How many of the words are asked for again."""
_A_LINE: Final = 4
"""Words in a line of the screen."""


def create(
    home: Home,
    screen: Screen,
    *,
    name: str,
    organisation: str,
    network: BitcoinNetworkName,
    host: Callable[[int], bytes] = os.urandom,
) -> None:
    """Make a key of the machine's random numbers and the holder's dice; show its words once, and ask for some again.

    Raises:
        InvalidValue: there is a key of that name.
        Unsafe: the machine's random numbers are not random.
        Declined: the holder has gone.
    """
    _check_free(home, name)
    screen.show(
        [
            f"NEW KEY {name} for {organisation} ({network} network)",
            "",
            f"Take a die and roll it {DICE_NEEDED} times. Type what it shows, 1 to 6, as many in a",
            "line as you like. Your rolls are mixed with this machine's random numbers:",
            "whoever knows one of the two still knows nothing of your key.",
        ]
    )
    with entropy_of(_ask_dice(screen), host) as entropy:
        _show_words_once(screen, words_of(entropy))
        _finish(home, screen, entropy, name, organisation, network)


def restore(
    home: Home, screen: Screen, *, name: str, organisation: str, network: BitcoinNetworkName, backup: Backup
) -> None:
    """Make a key again, of its BIP39 words or of SLIP-39 shares.

    Args:
        home: where it goes.
        screen: where words are asked for.
        name: of the key.
        organisation: of the holder.
        network: of its Bitcoin account.
        backup: what the holder has of it.

    Raises:
        InvalidValue: there is a key of that name.
        Declined: the holder has gone.
    """
    _check_free(home, name)
    screen.show([f"RESTORE KEY {name} for {organisation} ({network} network)", ""])
    with (_ask_words if backup == "words" else _ask_shares)(screen) as entropy:
        _finish(home, screen, entropy, name, organisation, network)


def show_backup(home: Home, screen: Screen, *, wanted: str | None, shares: tuple[int, int] | None) -> None:
    """Show a key's words, or shares of it, one screen each. The only verb that shows what must be kept secret.

    Args:
        home: where the key is.
        screen: where they are shown.
        wanted: which key; None: the only one.
        shares: how many are needed, how many are made; None: the words.

    Raises:
        InvalidValue, Unsafe: like `opened` and `shares.split`.
        Declined: the holder does not want to.
    """
    with opened(home, wanted, screen) as key:
        screen.show(
            [
                "What comes next is the key itself. Whoever reads it can sign as you.",
                "Nobody else in the room, no camera, no telephone. Write on paper or steel.",
            ]
        )
        if screen.ask("Type  show  to go on:") != "show":
            raise Declined("nothing was shown")
        if shares is None:
            _show_secret(screen, f"THE WORDS OF KEY {key.name}", words_of(key.entropy))
            return
        for number, share in enumerate(split(key.entropy, *shares), 1):
            title = f"SHARE {number} of {shares[1]}, key {key.name}: any {shares[0]} give the key back"
            _show_secret(screen, title, share.split())


def record(home: Home, screen: Screen, *, wanted: str | None, to: Path | None) -> None:
    """Write a key's public record to a file and show it.

    Args:
        home: where the key is.
        screen: where it is shown.
        wanted: which key; None: the only one.
        to: the file; None: `NAME.record.json` in the present folder.

    Raises:
        InvalidValue, Unsafe: like `opened`; the file can't be written.
    """
    with opened(home, wanted, screen) as key:
        path = to or Path(f"{key.name}.record.json")
        write_whole(path, record_of(key.about, key.key).encode())
        screen.show(["", f"PUBLIC RECORD OF KEY {key.name} (no secret in it)", "", *record_lines(key)])
        screen.show(
            [
                "",
                f"Written to {path}.",
                "Carry it to those who write the bundle, and read them the fingerprint and the",
                "last letters of xpub and address by voice.",
            ]
        )


def record_lines(key: Opened) -> list[str]:
    """What the record says, for people."""
    return [
        f"name          {key.about.name}",
        f"organisation  {key.about.organisation}",
        f"fingerprint   {key.about.fingerprint}",
        f"Bitcoin       {key.about.network} network, account m/{key.key.origin_text[9:]}",
        f"  {key.key.xpub}",
        "Ethereum      owner address, m/44'/60'/0'/0/0",
        f"  {key.key.evm_address}",
    ]


def _check_free(home: Home, name: str) -> None:
    if name in home.names():
        raise InvalidValue(f"there is a key {name!r} already in {home.folder}: choose another name")


def _finish(
    home: Home, screen: Screen, entropy: Secret, name: str, organisation: str, network: BitcoinNetworkName
) -> None:
    with HolderKey(entropy, NETWORKS[network]) as key:
        about = About(
            name=name,
            organisation=organisation,
            network=network,
            made_at=int(time.time()),
            fingerprint=key.fingerprint.hex(),
            evm_address=key.evm_address,
        )
    with new_passphrase(screen) as passphrase:
        path = home.add(name, seal(entropy, about, passphrase))
    screen.show(
        [
            "",
            f"Done. Key {name} has the fingerprint {about.fingerprint}",
            f"and the Ethereum address {about.evm_address}.",
            f"It is kept, encrypted, in {path}.",
            "Next:  strongroom-airgap key record",
        ]
    )


def _ask_dice(screen: Screen) -> str:
    rolls = ""
    while True:
        typed = screen.ask(f"{len(rolls)} of {DICE_NEEDED} rolls:").replace(" ", "")
        if set(typed) - set(FACES):
            screen.show(["A die shows 1 to 6. That line was not taken."])
            continue
        rolls += typed
        if len(rolls) < DICE_NEEDED:
            continue
        try:
            check_dice(rolls)
        except InvalidValue as error:
            screen.show([f"{error}. Roll again, from the beginning:"])
            rolls = ""
            continue
        return rolls


def _show_words_once(screen: Screen, words: Sequence[str]) -> None:
    """Until the holder has written them down, which is seen by asking for some."""
    while True:
        _show_secret(screen, "WRITE THESE WORDS DOWN. They are your key, and are shown this once.", words)
        screen.show(["Now from your paper:"])
        if _knows(screen, words):
            screen.clear()
            screen.show(["Your paper is right."])
            return
        screen.show(["That is not the word. You see them again: compare your paper."])


def _knows(screen: Screen, words: Sequence[str]) -> bool:
    chosen = sorted(secrets.SystemRandom().sample(range(len(words)), WORDS_ASKED))
    return all(screen.ask(f"Word {at + 1}:").lower() == words[at] for at in chosen)


def _show_secret(screen: Screen, title: str, words: Sequence[str]) -> None:
    rows = [
        "  ".join(f"{at + 1:>3} {words[at]:<11}" for at in range(row, min(row + _A_LINE, len(words))))
        for row in range(0, len(words), _A_LINE)
    ]
    screen.clear()
    screen.show([title, "", *rows, ""])
    screen.ask("Written down? Enter takes it from the screen.")
    screen.clear()


def _ask_words(screen: Screen) -> Secret:
    screen.show(["Type the words, in their order. They are shown while you type."])
    while True:
        try:
            found = entropy_of_words(screen.ask("Words:"))
        except InvalidValue as error:
            screen.show([f"{error}."])
            continue
        screen.clear()
        return found


def _ask_shares(screen: Screen) -> Secret:
    screen.show(["Type the shares, one a line. They are shown while you type."])
    while True:
        try:
            shares = [screen.ask("Share 1:")]
            needed = shares_needed(shares[0])
            while len(shares) < needed:
                shares.append(_one_share(screen, f"Share {len(shares) + 1} of {needed}:"))
            found = join(shares)
        except InvalidValue as error:
            screen.show([f"{error}. From the beginning:"])
            continue
        screen.clear()
        return found


def _one_share(screen: Screen, question: str) -> str:
    while True:
        share = screen.ask(question)
        try:
            shares_needed(share)
        except InvalidValue as error:
            screen.show([f"{error}. The same share again:"])
            continue
        return share
