"""A key holder at the terminal of an offline machine, and payments for holders to sign."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from chains.btc.codec import Reader, with_size
from chains.btc.multisig import Multisig, parse_multisig
from chains.btc.network import NETWORKS, BtcNetwork
from chains.btc.psbt import PsbtInput, build_psbt
from chains.btc.script import p2wpkh_script_from_hash
from chains.btc.tx import Outpoint, Transaction, TxIn, TxOut
from policies.bundle import Bundle, Cosigner, Owner, TrustRoot
from policies.keys import SigningKey, sign_bundle
from signers.airgap.keys import HolderKey
from signers.airgap.registered import FeeCaps, RegisteredMember, RegisteredVault
from signers.airgap.secret import Secret
from tests.fakes import house
from tests.support.terminal import TerminalSession

REGTEST = NETWORKS["regtest"]
PASSPHRASE = "correct horse battery staple"
DICE = "31425" * 4 + "416253" * 13 + "62"
"""100 rolls."""
SAFE_ADDRESS = "0x" + "1234" * 10
"""Digits only, so that it is its own checksum form."""
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
    command: tuple[str, ...] = (sys.executable, "-m", "signers.airgap")

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
            [*self.command, "--home", str(self.home), *arguments],
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


def cold_bundle(keys: Sequence[HolderKey], version: int = 7, **changes: Any) -> Bundle:
    """A house's bundle whose cold wallets, `btc-cold` and `eth-cold`, are 3-of-5 of these five holders."""
    made = house.bundle(version=version, issued_at=int(time.time()), expires_at=int(time.time()) + 86_400)
    cosigners = tuple(
        Cosigner(id=f"holder-{at}", organisation=f"org-{at}", account=key.xpub, origin=key.origin_text)
        for at, key in enumerate(keys)
    )
    owners = tuple(
        Owner(id=f"holder-{at}", organisation=f"org-{at}", address=key.evm_address)
        for at, key in enumerate(keys)
    )
    network = keys[0].network.name
    entries: dict[str, Any] = {
        "btc-cold": {"cosigners": cosigners, "descriptor": multisig(keys, 3).descriptor},
        "eth-cold": {"owners": owners, "address": SAFE_ADDRESS},
    }
    vaults = tuple(msgspec.structs.replace(vault, **entries.get(vault.id, {})) for vault in made.vaults)
    networks = tuple(
        msgspec.structs.replace(n, network=network, fee_cap="100000", feerate_cap=500_000)
        if n.family == "btc"
        else n
        for n in made.networks
    )
    return msgspec.structs.replace(made, **({"vaults": vaults, "networks": networks} | changes))


@dataclass(frozen=True)
class Quorum:
    """Officers who sign bundles: two of three."""

    officers: dict[str, SigningKey] = field(
        default_factory=lambda: {name: SigningKey.generate() for name in ("olga", "felix", "rosa")}
    )

    @property
    def root(self) -> TrustRoot:
        """What holders pin."""
        return TrustRoot(
            threshold=2,
            keys={name: key.public_hex for name, key in self.officers.items()},
            organisations={name: f"office-{name}" for name in self.officers},
            minimum_version=1,
        )

    def signed(self, bundle: Bundle, names: Sequence[str] = ("olga", "felix")) -> bytes:
        """The bundle's file."""
        return sign_bundle(bundle, {name: self.officers[name] for name in names}).encode()
