"""A key holder at the terminal of an offline machine, and payments for holders to sign."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from chains.btc.codec import Reader, with_size
from chains.btc.multisig import Multisig, parse_multisig
from chains.btc.network import NETWORKS, BtcNetwork
from chains.btc.psbt import PsbtInput, build_psbt
from chains.btc.script import p2wpkh_script_from_hash
from chains.btc.tx import Outpoint, Transaction, TxIn, TxOut
from signers.airgap.keys import HolderKey
from signers.airgap.registered import FeeCaps, RegisteredMember, RegisteredVault
from signers.airgap.secret import Secret
from tests.support.terminal import TerminalSession

REGTEST = NETWORKS["regtest"]
PASSPHRASE = "correct horse battery staple"
DICE = "31425" * 4 + "416253" * 13 + "62"
"""100 rolls."""
STRANGER = p2wpkh_script_from_hash(b"\x07" * 20)

Answers = Sequence[tuple[str, Callable[[re.Match[str], str], str]]]


def holder_key(number: int, network: BtcNetwork = REGTEST) -> HolderKey:
    """The key of holder `number`, 0 and up; the same each time."""
    return HolderKey(Secret(bytes([number + 1]) * 32), network)


def vault_of(keys: Sequence[HolderKey], threshold: int, caps: FeeCaps | None = None) -> RegisteredVault:
    """The vault of these holders as each of them registers it."""
    members = tuple(
        RegisteredMember(
            id=f"holder-{at}", organisation=f"org-{at}", origin=key.origin_text, account=key.xpub
        )
        for at, key in enumerate(keys)
    )
    wallet = multisig(keys, threshold)
    return RegisteredVault(
        id="cold-btc",
        network="regtest",
        threshold=threshold,
        members=members,
        descriptor=wallet.descriptor,
        caps=caps,
    )


def multisig(keys: Sequence[HolderKey], threshold: int) -> Multisig:
    """The wallet of these holders."""
    return parse_multisig(threshold, [(key.origin_text, key.xpub) for key in keys], keys[0].network)


@dataclass
class Payment:
    """A payment from a vault, to be changed by tests before it is built."""

    wallet: Multisig
    coins: list[tuple[int, int, int]] = field(default_factory=lambda: [(200_000_000, 0, 0)])
    """Satoshis, branch and index of each coin."""
    pays: list[tuple[int, bytes]] = field(default_factory=lambda: [(50_000_000, STRANGER)])
    change: tuple[int, int, int] | None = (149_990_000, 1, 0)
    version: int = 2
    locktime: int = 0
    sequence: int = 0xFFFF_FFFD

    def build(self) -> bytes:
        """The PSBT."""
        inputs, txins = [], []
        for number, (units, branch, index) in enumerate(self.coins):
            previous = Transaction(
                2,
                (TxIn(Outpoint.parse(f"{number + 1:064x}:0")),),
                (TxOut(units, self.wallet.script(branch, index)),),
            )
            point = Outpoint(previous.txid, 0)
            txins.append(TxIn(point, self.sequence))
            inputs.append(
                PsbtInput(
                    point, self.sequence, previous.serialize(), behind=self.wallet.behind(branch, index)
                )
            )
        outputs = [TxOut(units, script) for units, script in self.pays]
        scripts = {}
        if self.change is not None:
            units, branch, index = self.change
            scripts[len(outputs)] = self.wallet.behind(branch, index)
            outputs.append(TxOut(units, self.wallet.script(branch, index)))
        tx = Transaction(self.version, tuple(txins), tuple(outputs), self.locktime)
        return build_psbt(tx, inputs, {}, bytes(4), scripts)


@dataclass
class Holder:
    """A person with a folder for keys, who runs the command and types."""

    name: str
    folder: Path
    words: list[str] = field(default_factory=list)
    """What was written down from the screen."""

    @property
    def home(self) -> Path:
        """Where the keys are."""
        return self.folder / "keys"

    def run(self, *arguments: str, answers: Answers = ()) -> tuple[int, str]:
        """Run a verb at a terminal of 24 lines; exit code and all that was shown."""
        common: Answers = (
            (r"type  rehearsal  to go on:", lambda *_: "rehearsal"),
            (r"Enter for more", lambda *_: ""),
            (r"Passphrase of key \S+:", lambda *_: PASSPHRASE),
        )
        session = TerminalSession(
            [sys.executable, "-m", "signers.airgap", "--home", str(self.home), *arguments],
            {"HOME": str(self.folder), "TERM": "xterm"},
            (*common, *answers),
        )
        code = session.run()
        return code, session.shown.replace("\r\n", "\n")

    def create(self) -> str:
        """Make a key; what was shown."""

        def word(found: re.Match[str], shown: str) -> str:
            self.words = written_words(shown)
            return self.words[int(found.group(1)) - 1]

        code, shown = self.run(
            "key", "create", self.name, "--organisation", "acme", "--network", "regtest",
            answers=(
                (r"of 100 rolls:", lambda *_: DICE),
                (r"Written down\?", lambda *_: ""),
                (r"Word (\d+):", word),
                (r"(Passphrase|The same again):", lambda *_: PASSPHRASE),
            ),
        )  # fmt: skip
        assert code == 0, shown
        return shown


def written_words(shown: str) -> list[str]:
    """The 24 words that the screen last numbered."""
    page = shown.rpartition("WRITE THESE WORDS DOWN")[2]
    found = {
        int(number): word for number, word in re.findall(r"(\d+) ([a-z]+)", page.partition("Written")[0])
    }
    return [found[number] for number in range(1, 25)]


def maps_of(raw: bytes) -> list[dict[bytes, bytes]]:
    """The maps of a PSBT: its head, each input's, each output's."""
    reader = Reader(raw)
    reader.take(5)
    maps: list[dict[bytes, bytes]] = []
    while reader.remaining:
        found: dict[bytes, bytes] = {}
        while key := reader.string(1000):
            found[key] = reader.string(10_000_000)
        maps.append(found)
    return maps


def psbt_of(maps: Sequence[dict[bytes, bytes]]) -> bytes:
    """A PSBT of these maps."""
    written = [
        b"".join(with_size(key) + with_size(value) for key, value in one.items()) + b"\x00" for one in maps
    ]
    return b"psbt\xff" + b"".join(written)


def version_2(raw: bytes) -> bytes:
    """The same payment as a PSBT of version 2 (BIP370), by embit."""
    from embit.psbt import PSBT

    psbt = PSBT.parse(raw)
    psbt.version = 2
    return bytes(psbt.serialize())
