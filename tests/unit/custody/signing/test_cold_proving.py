"""What speaks against a cold vault when it is tried out: another program's addresses, other keys in a block, letters
that holders read otherwise, a Safe that is not the bundle's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest

from chains.btc.multisig import Multisig
from chains.btc.tx import Outpoint, Transaction, TxIn, TxOut, with_witnesses
from chains.errors import InvalidValue
from chains.eth.address import raw_address
from chains.eth.safe_report import PROXY_CODE, SINGLETON_CODE, VERSION, SafeReport
from chains.types import TxId
from custody.signing.cold import proving
from custody.signing.cold.proving import LETTERS, Moved
from custody.signing.lifecycle import TransactionState
from custody.signing.model import OurTransaction
from policies.bundle import BitcoinVault, EvmVault
from tests.support.airgap import cold_bundle, holder_key, multisig

KEYS = tuple(holder_key(number) for number in range(5))
WALLET = multisig(KEYS, 3)
BUNDLE = cold_bundle(KEYS)
HOLDERS = ("holder-0", "holder-2", "holder-4")
READ = dict.fromkeys(HOLDERS, WALLET.address(0, 0)[-LETTERS:])


@dataclass
class Node:
    """A node with one payment of a wallet in a block."""

    derives: Multisig = WALLET
    spends: Multisig = WALLET
    signatures: int = 3
    at: int = 2

    def derive_addresses(self, descriptor: str, count: int) -> tuple[str, ...]:
        branch = int(descriptor.partition("/*")[0][-1])
        return tuple(self.derives.address(branch, index) for index in range(count))

    def mined(self, txid: TxId, block_hash: str) -> tuple[Transaction, tuple[TxOut, ...]]:
        spent = TxOut(50_000, self.spends.script(0, self.at))
        script = self.spends.witness_script(0, self.at).serialize()
        tx = Transaction(2, (TxIn(Outpoint(TxId("11" * 32), 0)),), (TxOut(40_000, spent.script),), 0)
        return with_witnesses(tx, [(b"", *[b"\x30"] * self.signatures, script)]), (spent,)


def vault(kind: type[Any]) -> Any:
    return next(each for each in BUNDLE.vaults if isinstance(each, kind) and each.tier == "cold")


def out() -> OurTransaction:
    return OurTransaction(
        id=UUID(int=1),
        chain="bitcoin",
        keyset="btc-cold",
        kind="refill",
        state=TransactionState.FINAL,
        confirmed_txid="22" * 32,
        height=7,
        block_hash="33" * 32,
        change_index=None,
        finalisations=1,
        last_error="",
        versions=(),
    )


def wrong(node: Node, readings: dict[str, str], found: Moved | None = None) -> list[str]:
    """The steps that are not done."""
    found = found or Moved("0.001 BTC", out(), HOLDERS)
    bitcoin: BitcoinVault = vault(BitcoinVault)
    steps = proving.bitcoin_steps(BUNDLE, bitcoin, readings, found, node, small="0.001 BTC")
    return [step.name for step in steps if not step.done]


def test_a_vault_that_all_programs_and_the_chain_know_alike_is_proven() -> None:
    assert wrong(Node(), READ) == []
    assert wrong(Node(), {who: letters.upper() for who, letters in READ.items()}) == []


@pytest.mark.parametrize(
    ("node", "step"),
    [
        (Node(derives=multisig(KEYS, 2)), "addresses in three programs"),
        (Node(spends=multisig(KEYS, 2)), "keys and threshold on the chain"),
        (Node(spends=multisig(KEYS[:4], 3)), "keys and threshold on the chain"),
        (Node(signatures=2), "keys and threshold on the chain"),
        (Node(at=2_000), "keys and threshold on the chain"),
    ],
    ids=["derives another", "another threshold", "other keys", "too few signatures", "out of reach"],
)
def test_whatever_differs_is_told_and_nothing_is_proven(node: Node, step: str) -> None:
    assert wrong(node, READ) == [step]


def test_as_many_holders_as_sign_must_have_read_the_same_address() -> None:
    step = "address read by holders"
    assert wrong(Node(), dict(list(READ.items())[:2])) == [step]
    assert wrong(Node(), READ | {"holder-1": WALLET.address(0, 1)[-LETTERS:]}) == [step]
    with pytest.raises(InvalidValue, match="no holder 'mallory'"):
        wrong(Node(), READ | {"mallory": READ["holder-0"]})


def test_the_payment_out_counts_with_the_signatures_of_enough_holders_only() -> None:
    assert wrong(Node(), READ, Moved("0.001 BTC", out(), HOLDERS[:2])) == ["payment out, signed offline"]
    nothing = ["payment in", "payment out, signed offline", "keys and threshold on the chain"]
    assert wrong(Node(), READ, Moved("", None, ())) == nothing


def report(**changes: Any) -> SafeReport:
    """What a chain says of the cold Safe."""
    safe: EvmVault = vault(EvmVault)
    said: dict[str, Any] = {
        "safe": raw_address(safe.address),
        "code_hash": PROXY_CODE,
        "singleton": bytes(20),
        "singleton_code_hash": SINGLETON_CODE,
        "version": VERSION,
        "owners": tuple(raw_address(owner.address) for owner in safe.owners),
        "threshold": safe.threshold,
        "modules": (),
        "guard": None,
        "fallback_handler": None,
        "nonce": 1,
    }
    return SafeReport(**(said | changes))


def test_a_safe_is_read_back_from_its_chain() -> None:
    safe: EvmVault = vault(EvmVault)
    readings = dict.fromkeys(HOLDERS, safe.address[-LETTERS:])
    found = Moved("0.01 ETH", out(), HOLDERS)
    for said, left in (
        (report(), []),
        (report(threshold=2), ["owners and threshold on the chain"]),
        (report(modules=(b"\x01" * 20,)), ["owners and threshold on the chain"]),
    ):
        steps = proving.safe_steps(safe, readings, found, said, small="0.01 ETH")
        assert [step.name for step in steps if not step.done] == left
