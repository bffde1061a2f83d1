"""A hot key-set on Bitcoin is taken for compromised, and all it holds is moved to new keys: a rehearsal.

On a private network, with the commands that people would type: an officer freezes the key-set at the signer, a ceremony
makes the next one, the quorum signs the bundle that ends the old one, officers hand it to the signer. From then on the
old keys sign nothing but what brings all that they hold to the new ones, even while paying is halted.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import psycopg
from rich.console import Console

from ops.ceremonies.commands import key_command
from ops.ceremonies.newkeys import make_bitcoin_keyset
from ops.demo import arrivals
from ops.demo.record import Record, StepFailed, StepRecord, expect
from ops.demo.show import Show
from ops.demo.tour import Step
from ops.demo.tour import run as take_steps
from ops.demo.world import CONFIRMATIONS, World
from ops.devnet.errors import DevnetError
from ops.devnet.files import part_directory, write_private
from ops.stack import config
from ops.stack.command import end_on_sigterm
from ops.stack.names import BTC_KEYSET
from ops.stack.quorum import THRESHOLD
from ops.stack.stack import Stack
from policies.bundle import BitcoinKeyset
from signers.client import SignerClient, UnixAddress
from signers.ports import Refused, SignRequest

NEXT_KEYSET: Final = "btc-hot-2"
DEPOSIT_SATS, PAYMENT_SATS, LATE_SATS = 50_000_000, 2_000_000, 7_000_000
_START: Final = "Starting PostgreSQL, Redis, bitcoind, an HSM, and our processes"


@dataclass(slots=True)
class Incident:
    """What the rehearsal knows from step to step."""

    stack: Stack
    withdrawal: dict[str, Any] = field(default_factory=dict)
    """Ordered during the incident."""
    refused: SignRequest | None = None
    """What the worker asked for on its behalf, of the old keys."""

    @property
    def socket(self) -> str:
        """The signer's, for the commands of officers."""
        return str(self.stack.signer_socket)

    @property
    def officers(self) -> Path:
        """Where the officers' keys are; a real installation keeps them apart."""
        return self.stack.directory / "officers"

    def steps(self) -> list[tuple[str, str, Step]]:
        """Name, title, and what is done."""
        return [
            ("before", "An ordinary day: a deposit is credited, a payment settled", self.ordinary_day),
            ("freeze", "An officer freezes the key-set at the signer: nothing is signed", self.freeze),
            ("halt", "An operator halts all paying", self.halt),
            ("ceremony", "New keys: ceremony, backup, proof by a restore", self.ceremony),
            ("bundle", "The quorum ends the old keys; officers tell the signer themselves", self.bundle),
            ("rescue", "All they held goes to the new keys, while paying is halted", self.rescue),
            ("refused", "The old keys sign nothing else", self.nothing_else),
            ("after", "Paying goes on, with the new keys", self.paying_again),
            ("late", "A deposit to an old address follows", self.late_deposit),
            ("reconcile", "Ledger against chain, to the satoshi", self.reconcile),
        ]

    def ordinary_day(self, world: World) -> dict[str, Any]:
        """The service is up, alice has money, and is paid some of it."""
        arrivals.service(world)
        world.api.create_customer("alice")
        world.addresses["alice"] = arrivals.attested(world, "alice", world.btc.asset.id).address
        txid = world.pay("alice", DEPOSIT_SATS)
        world.await_pending(txid)
        world.mine(CONFIRMATIONS)
        world.await_deposit("alice", txid, "credited")
        world.btc.credit("alice", DEPOSIT_SATS)
        paid = self._paid(world, world.withdraw("alice", world.outside.address(), PAYMENT_SATS))
        return {"deposit": txid, "withdrawal": paid["id"], "txid": paid["confirmed_txid"]}

    def freeze(self, world: World) -> dict[str, Any]:
        """One officer is enough to stop; the signer needs no other word for it."""
        scope = f"wallet:{BTC_KEYSET}"
        olga = ("--officer", "olga", "--key", str(self.officers / "olga.pem"))
        why = ("--reason", "a stranger spent one of its coins")
        said = key_command(["freeze", scope, "--signer", self.socket, *olga, *why])
        world.note(_line_of(said, "frozen"))
        self.withdrawal = world.withdraw("alice", world.outside.address(), PAYMENT_SATS)
        seen = world.until(
            lambda: world.api.withdrawal(self.withdrawal["id"]),
            lambda entry: "frozen" in entry["reason"],
            "the signer to refuse a payment",
        )
        self.refused = self._asked()
        return {"scope": scope, "withdrawal": seen["id"], "reason": seen["reason"]}

    def halt(self, world: World) -> dict[str, Any]:
        """So that nothing is built any more, whatever is found next."""
        return {"said": self._operator("halt", "all", "--reason", "the hot keys may be stolen").strip()}

    def ceremony(self, world: World) -> dict[str, Any]:
        """Two operators, entropy of two sources, shares for three holders, and a restore that proves them."""
        entry = make_bitcoin_keyset(self.stack.directory, self.stack.token, NEXT_KEYSET)
        assert isinstance(entry, BitcoinKeyset)
        write_private(self._file("successor.json"), msgspec.json.encode(entry).decode())
        return {"keyset": entry.id, "origin": entry.origin, "account": entry.account}

    def bundle(self, world: World) -> dict[str, Any]:
        """Drafted, read and signed by officers, handed to the signer, then published for everybody else."""
        present, draft = self.stack.trust.bundle_path, self._file("next-bundle.json")
        files = (
            "--bundle",
            str(present),
            "--successor",
            str(self._file("successor.json")),
            "--out",
            str(draft),
        )
        drafted = key_command(["compromise", BTC_KEYSET, *files])
        world.note(_line_of(drafted, "key-set"))
        for officer in self.stack.trust.quorum.officers[:THRESHOLD]:
            key = ["--officer", officer.id, "--key", str(officer.key_file)]
            key_command(["sign", str(draft), "--present", str(present), *key, "--yes"])
        handed = key_command(["bundle", str(draft), "--signer", self.socket])
        world.note(_line_of(handed, "bundle"))
        write_private(present, draft.read_text())
        self.stack.reconfigure()
        world.bundle = self.stack.bundle
        return {"version": world.bundle.version, "digest": world.bundle.digest_hex()}

    def rescue(self, world: World) -> dict[str, Any]:
        """The workers move every coin; the signer derives the new address itself."""
        found = world.until(
            lambda: [each for each in world.api.sweeps() if each["kind"] == "rotation"],
            lambda each: each and each[0]["state"] == "broadcast",
            "the rescue to be broadcast",
        )
        world.await_pending(found[0]["txid"])
        world.mine(CONFIRMATIONS)
        done = world.until(
            lambda: [each for each in world.api.sweeps() if each["kind"] == "rotation"],
            lambda each: each and each[0]["state"] == "confirmed",
            "the rescue to be final",
        )
        held = {keyset: self._held(world, keyset) for keyset in (BTC_KEYSET, NEXT_KEYSET)}
        expect(held[BTC_KEYSET] == 0, "the node finds nothing of the old keys' any more", held=held)
        expect(held[NEXT_KEYSET] > 0, "the node finds it all at the new keys", held=held)
        world.btc.network_fees[done[0]["txid"]] = world.btc.read(done[0]["network_fee"]["amount"])
        expect(self._operator("halts").count("all"), "paying was halted all the time")
        return {"sweep": found[0]["id"], "txid": done[0]["txid"], "held_sats": held}

    def nothing_else(self, world: World) -> dict[str, Any]:
        """Whoever still can ask them gets what the bundle allows: nothing."""
        assert self.refused is not None
        client = SignerClient(UnixAddress(self.stack.signer_socket))
        try:
            client.sign(self.refused)
        except Refused as refused:
            codes = sorted({reason.code for reason in refused.reasons})
        else:
            raise StepFailed("the old keys signed a payment")
        finally:
            client.close()
        expect("key-state" in codes, "for the state of its keys", codes=codes)
        return {"codes": codes}

    def paying_again(self, world: World) -> dict[str, Any]:
        """What was ordered during the incident is paid once, by the new keys."""
        self._operator("lift", "all", "--reason", "the new keys hold everything")
        before = self._held(world, NEXT_KEYSET)
        paid = self._paid(world, self.withdrawal)
        after = self._held(world, NEXT_KEYSET)
        expect(after < before - PAYMENT_SATS, "out of the new keys' coins", before=before, after=after)
        return {"withdrawal": paid["id"], "txid": paid["confirmed_txid"], "held_sats": after}

    def late_deposit(self, world: World) -> dict[str, Any]:
        """Somebody has kept the old address: moved on, and credited once no thief can take it back."""
        txid = world.pay("alice", LATE_SATS)
        world.await_pending(txid)
        world.mine(CONFIRMATIONS)
        world.await_deposit("alice", txid, "held")
        rotations = world.until(
            lambda: [each for each in world.api.sweeps() if each["kind"] == "rotation"],
            lambda each: len(each) == 2 and {one["state"] for one in each} <= {"broadcast", "confirmed"},
            "a second rotation",
        )
        world.await_pending(*(each["txid"] for each in rotations if each["state"] == "broadcast"))
        world.mine(CONFIRMATIONS)
        done = world.until(
            lambda: [each for each in world.api.sweeps() if each["kind"] == "rotation"],
            lambda each: {one["state"] for one in each} == {"confirmed"},
            "it to be final",
        )
        for each in done:
            world.btc.network_fees[each["txid"]] = world.btc.read(each["network_fee"]["amount"])
        world.await_deposit("alice", txid, "credited")
        world.btc.credit("alice", LATE_SATS)
        expect(self._held(world, BTC_KEYSET) == 0, "nothing stays with the old keys")
        return {"deposit": txid, "sweeps": [each["id"] for each in rotations]}

    def reconcile(self, world: World) -> dict[str, Any]:
        """Our own books, the ledger and the node agree."""
        balances = world.expect_balances("alice")
        world.await_monitor()
        report = world.reconcile()
        expect(report["exit_code"] == 0, "reconcile finds no difference", report=report)
        held, owed = self._held(world, NEXT_KEYSET), world.btc.balances["alice"]
        fees = sum(world.btc.network_fees.values())
        expect(
            held == owed + world.btc.fees_earned - fees,
            "the node's coins are what is owed, plus fees earned, less fees paid",
            held=held,
            owed=owed,
        )
        return {"balances": balances, "held_sats": held, "network_fees_sats": fees}

    # ---------------------------------------------------------------------------------------------- inner

    def _file(self, name: str) -> Path:
        return self.stack.directory / name

    def _paid(self, world: World, withdrawal: dict[str, Any]) -> dict[str, Any]:
        sent = world.await_withdrawal(withdrawal["id"], "broadcast")
        world.await_pending(sent["txids"][-1])
        world.mine(CONFIRMATIONS)
        settled = world.await_withdrawal(withdrawal["id"], "settled")
        world.paid("alice", settled, settled["destination"], PAYMENT_SATS)
        return settled

    def _asked(self) -> SignRequest:
        """The last request that the worker made, from its own record."""
        with psycopg.connect(self.stack.postgres.owner_dsn()) as connection:
            row = connection.execute(
                "SELECT request FROM transaction_versions ORDER BY created_at DESC LIMIT 1"
            ).fetchone()
        assert row is not None
        return msgspec.json.decode(row[0], type=SignRequest)

    def _held(self, world: World, keyset: str) -> int:
        """Satoshis that the node finds for a key-set's keys, by its own scan."""
        entry = world.bundle.keyset(keyset)
        assert isinstance(entry, BitcoinKeyset)
        return world.node.scan_sats(
            [f"wpkh([{entry.origin}]{entry.account}/{branch}/*)" for branch in (0, 1)], 100
        )

    def _operator(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "ops.cli", "operator", *arguments],
            env={
                **os.environ,
                "STRONGROOM_OPERATOR_CONFIG": str(config.files(self.stack.directory)["worker"]),
                "STRONGROOM_OPERATOR": str(config.client_file(self.stack.directory, "operator")),
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        if done.returncode != 0:
            raise StepFailed(
                f"strongroom operator {arguments[0]} ended with {done.returncode}: {done.stderr}"
            )
        return done.stdout


def _line_of(said: str, begins: str) -> str:
    """The first line of what a command said that begins so."""
    lines = (line.strip() for line in said.splitlines())
    return next((line for line in lines if line.startswith(begins)), "")


def run(json_file: Path | None) -> int:
    """Rehearse; returns 0 only if every step held.

    Args:
        json_file: where the record goes.
    """
    console = Console()
    end_on_sigterm()
    directory = part_directory("strongroom-rehearsal-")
    record = Record()
    stack = Stack(directory, networks=())
    incident = Incident(stack)
    steps = incident.steps()
    try:
        with Show(console, [_START, *(title for _, title, _ in steps)]) as show:
            if _started(stack, show, record):
                with World.of(stack) as world:
                    take_steps(world, show, record, steps)
        if json_file is not None:
            record.write(json_file)
    finally:
        if record.ok:
            stack.remove()
        else:
            stack.down()
            console.print(f"data and logs are in {stack.directory}", highlight=False, soft_wrap=True)
    for step in record.steps:
        if "error" in step.detail:
            console.print(f"{step.title}: {step.detail['error']}", style="red", highlight=False, markup=False)
            break
    return 0 if record.ok else 1


def _started(stack: Stack, show: Show, record: Record) -> bool:
    step = StepRecord("start", _START)
    record.steps.append(step)
    show.begin(_START)
    stack.tell = show.note
    started = time.monotonic()
    try:
        stack.up()
        step.ok = True
    except DevnetError as error:
        step.detail["error"] = str(error)
    step.seconds = time.monotonic() - started
    show.end(step)
    return step.ok
