"""One member of a vault of 2 of 3 lies, and the online side is in the same hands: it signs whatever it is asked, and
its log tells nothing of it. The two honest members never hear of each other. An order, or a refill, is paid once all
the same: the verifier names one transaction, to both of them.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chains.btc.psbt import InputSignature, finalize, parse_psbt
from chains.btc.tx import Transaction
from custody.signing.btc.finish import signatures_of
from custody.signing.recorded import shown
from ops.devnet.bitcoind import Bitcoind
from policies.intent import Intent, SignedOrder, SignedVerdict
from signers.errors import BadConfiguration
from signers.ports import Refused, SignerUnavailable, SignRequest, SignResponse, VerdictRequest
from signers.service import SignerService
from signers.verifier.bound import FORGOTTEN_SECONDS
from signers.verifier.paid import CLOCKS_APART_SECONDS
from signers.verifier.ports import VERDICT_SECONDS
from signers.wallets import BitcoinVaultWallet
from tests.fakes.approving import Desk
from tests.fakes.signing import Coin, Draft
from tests.fakes.vault_till import LARGE_SATS, VaultTill
from tests.fakes.verifying import Verifying, verifying

HONEST, OTHER = "c0", "c1"
FUNDED_SATS = 80_000_000


@pytest.fixture
def till(database: str, bitcoind: Bitcoind, tmp_path: Path) -> Iterator[VaultTill]:
    """Not checked in the end: one of its members lies."""
    opened = VaultTill(database, bitcoind, tmp_path)
    opened.customer("alice", 60_000_000)
    opened.fund_vault(FUNDED_SATS, FUNDED_SATS)
    yield opened
    opened.close()


@pytest.fixture
def verifier(till: VaultTill) -> Iterator[Verifying]:
    """The liar's journal is empty for ever: he signs beside it."""
    members = {name: each for name, each in till.members.items() if isinstance(each, SignerService)}
    with verifying(till, members=members) as opened:
        yield opened


class Attack:
    """An approved order that pays from one coin of the vault, and the same again from the other one."""

    def __init__(self, till: VaultTill, verifier: Verifying) -> None:
        self.till, self.verifier = till, verifier
        verifier.follow()
        desk = Desk(till)
        withdrawal = desk.request(LARGE_SATS)
        desk.approve(withdrawal, "ada", "ben")
        till.route()
        built = till.build_vault()
        assert built is not None
        [version] = till.transaction(built).versions
        self.first = shown(till.db, till.vault_site, version, int(time.time()))
        [self.order] = self.first.evidence.orders
        self.second = self.beside()

    @property
    def intent(self) -> Intent:
        [intent] = self.first.intents
        return intent

    def coins(self) -> list[Coin]:
        """What the vault has."""
        found = []
        script = self.till.world.wallet.script(1, 0)  # type: ignore[attr-defined]
        for row in self.till.query("SELECT txid, block_hash FROM receipts WHERE units = %s", FUNDED_SATS):
            raw = self.till.bitcoind.rpc("getrawtransaction", row["txid"], False, row["block_hash"])
            previous = Transaction.parse(bytes.fromhex(raw))
            vout = [output.script for output in previous.outputs].index(script)
            found.append(Coin(previous, vout, 1, 0))
        assert len(found) == 2
        return found

    def paying_from(self, coins: list[Coin], fee_sats: int = 2_000) -> SignRequest:
        """The order, with its approvals, paid from these coins."""
        world = self.till.world
        draft = Draft(coins, [self.order.order], fee_sats=fee_sats, change_index=1)
        raw = world.vault_psbt(draft, world.wallet)  # type: ignore[attr-defined]
        return msgspec.structs.replace(self.first, transaction=base64.b64encode(raw).decode())

    def beside(self) -> SignRequest:
        """From a coin that the first does not spend, so both could confirm."""
        used = set(parse_psbt(base64.b64decode(self.first.transaction)).tx.resources)
        free = [each for each in self.coins() if each.outpoint.resource not in used]
        return self.paying_from(free[:1])

    def verdict(self, request: SignRequest) -> SignedVerdict:
        return self.verifier.verifier.verdicts.verdict(asking(request, self.order))

    def refusal(self, request: SignRequest) -> set[str]:
        """Codes with which the verifier says nothing of a transaction."""
        try:
            self.verdict(request)
        except Refused as refused:
            return {reason.code for reason in refused.reasons}
        return set()

    def signs(self, member: str, request: SignRequest, verdict: SignedVerdict) -> set[str]:
        """Whether a member signs (nothing), or why not."""
        evidence = msgspec.structs.replace(request.evidence, verdicts=(verdict,))
        try:
            self.till.members[member].sign(msgspec.structs.replace(request, evidence=evidence))
        except Refused as refused:
            return {reason.code for reason in refused.reasons}
        return set()

    def later(self, seconds: int) -> None:
        begun = self.verifier.clock
        self.verifier.clock = lambda: begun() + seconds


def asking(request: SignRequest, order: SignedOrder | None) -> VerdictRequest:
    tx = parse_psbt(base64.b64decode(request.transaction)).tx
    [intent] = request.intents
    return VerdictRequest(
        intent=intent, order=order, content=tx.txid.hex, resources=tuple(sorted(tx.resources))
    )


@pytest.fixture
def attack(till: VaultTill, verifier: Verifying) -> Attack:
    return Attack(till, verifier)


def test_two_honest_members_sign_no_two_transactions_that_could_both_pay_an_order(attack: Attack) -> None:
    assert attack.signs(HONEST, attack.first, attack.verdict(attack.first)) == set()
    assert attack.refusal(attack.second) == {"order-bound"}
    assert attack.refusal(attack.first) == set(), "the same one as often as it is asked for"


def test_a_verdict_on_one_transaction_is_good_for_no_other(attack: Attack) -> None:
    verdict = attack.verdict(attack.first)
    assert attack.signs(OTHER, attack.second, verdict) == {"verdict-elsewhere", "no-verdict"}


def test_a_verdict_with_invented_resources_is_good_for_nothing(attack: Attack) -> None:
    """The verifier does not decode what it is asked about; members compare with what they read."""
    verdict = attack.verdict(attack.first)
    assert attack.signs(HONEST, attack.first, verdict) == set()
    lie = msgspec.structs.replace(
        asking(attack.second, attack.order), resources=asking(attack.first, attack.order).resources
    )
    given = attack.verifier.verifier.verdicts.verdict(lie)
    assert attack.signs(OTHER, attack.second, given) == {"verdict-elsewhere", "no-verdict"}


def test_a_verdict_that_names_no_transaction_is_for_people_only(attack: Attack) -> None:
    given = attack.verifier.verifier.verdicts.verdict(
        VerdictRequest(intent=attack.intent, order=attack.order)
    )
    assert attack.signs(HONEST, attack.first, given) == {"verdict-elsewhere", "no-verdict"}


def test_a_member_takes_a_replacement_of_its_own_with_a_verdict_only(attack: Attack) -> None:
    """Else the first member would go from what the second knows to what it does not."""
    till_coins = [attack.paying_from(attack.coins(), fee) for fee in (2_000, 4_000)]
    both, dearer = till_coins
    verdict = attack.verdict(both)
    assert attack.signs(HONEST, both, verdict) == set()
    assert attack.signs(HONEST, attack.second, verdict) == {"verdict-elsewhere", "no-verdict"}
    assert attack.signs(HONEST, dearer, attack.verdict(dearer)) == set(), "a fee bump, and its verdict"


def test_every_earlier_transaction_counts_not_the_last_one_only(attack: Attack) -> None:
    both = attack.paying_from(attack.coins())
    assert attack.refusal(attack.first) == set()
    assert attack.refusal(both) == set()
    assert attack.refusal(attack.second) == {"order-bound"}, (
        "it conflicts with the second, not with the first"
    )


def test_what_nobody_has_signed_is_forgotten_once_no_verdict_on_it_is_good_any_more(attack: Attack) -> None:
    attack.verdict(attack.first)
    attack.later(VERDICT_SECONDS + CLOCKS_APART_SECONDS - 60)
    assert attack.refusal(attack.second) == {"order-bound"}
    attack.later(120)
    assert attack.refusal(attack.second) == set()


def test_what_an_honest_member_has_signed_binds_until_it_is_dead_on_the_verifiers_own_node(
    attack: Attack,
) -> None:
    assert attack.signs(HONEST, attack.first, attack.verdict(attack.first)) == set()
    attack.later(VERDICT_SECONDS + CLOCKS_APART_SECONDS + 60)
    assert attack.refusal(attack.second) == {"order-bound"}
    spend_past_all(attack)
    attack.till.mine(1)
    attack.verifier.look()
    assert attack.refusal(attack.second) == {"order-bound"}, "not deep enough"
    attack.till.mine(5)
    attack.verifier.look()
    assert attack.refusal(attack.second) == set()


def spend_past_all(attack: Attack) -> None:
    """The first one's coin goes elsewhere, with the keys of two members."""
    till = attack.till
    used = set(parse_psbt(base64.b64decode(attack.first.transaction)).tx.resources)
    coins = [each for each in attack.coins() if each.outpoint.resource in used]
    world = till.world
    draft = Draft(coins, [], outputs=[], change_index=5)
    raw = world.vault_psbt(draft, world.wallet)  # type: ignore[attr-defined]
    request = msgspec.structs.replace(attack.first, transaction=base64.b64encode(raw).decode())
    signatures: list[InputSignature] = []
    for cosigner in till.cosigners[:2]:
        wallet = BitcoinVaultWallet(cosigner)
        response = SignResponse(signatures=wallet.sign(wallet.rules.read(request), NotKept()))
        signatures += signatures_of(response)
    till.bitcoind.rpc("sendrawtransaction", finalize(parse_psbt(raw), signatures).hex())


class NotKept:
    """What a wallet that signs past its journal keeps."""

    before: str | None = None

    def keep(self, signature: str) -> str:
        return signature


def test_a_member_that_hides_binds_as_well(attack: Attack) -> None:
    """The honest one that has signed is kept from telling: then nothing is known of what it has signed."""
    assert attack.signs(HONEST, attack.first, attack.verdict(attack.first)) == set()
    attack.verifier.signers[HONEST] = Away()
    attack.verifier.restart()
    attack.later(VERDICT_SECONDS + CLOCKS_APART_SECONDS + 60)
    assert attack.refusal(attack.second) == {"order-bound"}


class Away:
    """A signer whose network is cut."""

    def __getattr__(self, name: str) -> Any:
        def away(*_: object) -> None:
            raise SignerUnavailable("away")

        return away


def test_an_old_copy_of_the_verifiers_memory_does_not_start(attack: Attack) -> None:
    verifier = attack.verifier
    verifier.close()
    copy = (verifier.directory / "state.sqlite").read_bytes()
    verifier.open()
    assert attack.refusal(attack.first) == set()
    verifier.close()
    for each in verifier.directory.glob("state.sqlite*"):
        each.unlink()
    (verifier.directory / "state.sqlite").write_bytes(copy)
    with pytest.raises(BadConfiguration, match="restored from an old copy"):
        verifier.open()


def test_a_new_memory_gives_no_verdict_until_what_was_forgotten_can_be_told_by_logs(attack: Attack) -> None:
    verifier = attack.verifier
    assert attack.signs(HONEST, attack.first, attack.verdict(attack.first)) == set()
    verifier.close()
    for each in verifier.directory.glob("state.sqlite*"):
        each.unlink()
    verifier.mark_path.unlink()
    verifier.open()
    verifier.follow()
    assert attack.refusal(attack.second) == {"memory-young", "order-bound"}
    attack.later(FORGOTTEN_SECONDS + 1)
    assert attack.refusal(attack.second) == {"order-bound"}, "a member's log tells of it"
    assert attack.refusal(attack.first) == set()
    witness = verifier.signers[HONEST]
    verifier.signers[HONEST] = Away()
    verifier.restart()
    assert "signer-silent" in attack.refusal(attack.second)
    verifier.signers[HONEST] = witness
    verifier.restart()
    assert attack.refusal(attack.first) == set()


def test_after_a_change_of_verifiers_the_new_one_waits_as_if_it_had_forgotten(attack: Attack) -> None:
    """Others may have given verdicts until then."""
    till, verifier = attack.till, attack.verifier
    assert attack.refusal(attack.first) == set()
    world = till.world
    other = world.verifier_entry(id="walt", key=world.caller.public_hex)
    till.adopt(2, verifiers=(world.verifier_entry(), other))
    verifier.verifier.bundles.refresh(lambda *_: None)
    assert attack.refusal(attack.first) == {"memory-young"}


def test_of_two_verifiers_one_is_not_enough(attack: Attack) -> None:
    """Each knows its own verdicts only: any two groups of more than half have one in common."""
    till = attack.till
    world = till.world
    other = world.verifier_entry(id="walt", key=world.caller.public_hex)
    verdict = attack.verdict(attack.first)
    till.adopt(2, verifiers=(world.verifier_entry(), other))
    till.members[HONEST]._trust.refresh(print)  # type: ignore[attr-defined]
    assert "no-verdict" in attack.signs(HONEST, attack.first, verdict)
