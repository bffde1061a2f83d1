"""A verifier beside a till: its own connections to node and database, and the till's own signer to talk to."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from chains.btc.network import NETWORKS
from chains.btc.node import BitcoinNode
from chains.eth.network import EthNetwork
from chains.eth.node import EvmNode
from policies.intent import Intent, SignedOrder, SignedVerdict
from signers.ports import Refused, VerdictRequest, Witness
from signers.service import SignerService
from signers.trust.witness import JournalWitness
from signers.verifier.audit import Audit
from signers.verifier.bundles import Bundles
from signers.verifier.chains import BitcoinChain, EvmChain, OwnChain
from signers.verifier.parts import Verifier
from signers.verifier.source import Ledger
from signers.verifier.state import State
from tests.fakes.api import as_role
from tests.fakes.evm_signing import EVM_CHAIN
from tests.fakes.evm_till import EvmTill
from tests.fakes.signing import CHAIN, VERIFIER, payment_intent
from tests.fakes.till import Till

__all__ = ["Verifying", "own_chain", "verifying"]


class Verifying:
    """The verifier of a till, driven by the test.

    Args:
        till: the installation.
        directory: of its files.
        chain: its own node.
        witness: the signer, if it is not the till's own.
        members: signers of vaults' members, in the test's process.
    """

    def __init__(
        self,
        till: Till | EvmTill,
        directory: Path,
        chain: OwnChain,
        witness: Witness | None = None,
        members: Mapping[str, SignerService] | None = None,
    ) -> None:
        self.till, self.directory, self.chain = till, directory, chain
        self.witness: Witness = witness or JournalWitness(
            till._wallets(), till.trust, till.journal, till.clock
        )
        self.signers: dict[str, Witness] = {"hot": self.witness}
        self.log_keys: dict[str, str] = {}
        self.member_of: dict[str, tuple[str, ...]] = {}
        for name, member in (members or {}).items():
            self._add(name, member)
        self.clock: Callable[[], int] = lambda: int(time.time())
        self.mark_path = directory.with_name(f"{directory.name}.mark")
        directory.mkdir(exist_ok=True)
        (directory / "root.json").write_bytes(msgspec.json.encode(till.house.root))
        self.open()

    def _add(self, name: str, member: SignerService) -> None:
        wallets = member._wallets
        [(vault, wallet)] = wallets.items()
        self.signers[name] = JournalWitness(wallets, member._trust, member._journal, member._clock)
        self.log_keys[name] = wallet.keys.record.attestation_key
        self.member_of[name] = (vault,)

    def open(self) -> None:
        self.state = State(self.directory / "state.sqlite")
        bundles = Bundles(
            self.state, self.directory / "root.json", self.till.bundle_path, lambda: self.clock()
        )
        self.verifier = Verifier(
            VERIFIER,
            self.till.house.verifier,
            self.state,
            bundles,
            Ledger(as_role(self.till.dsn, "strongroom_read")),
            {self.chain: 0},
            self.signers | {"hot": self.witness},
            lambda: self.clock(),
            self.log_keys,
            self.member_of,
            mark_path=self.mark_path,
        )

    def restart(self) -> None:
        """As after a kill: what is not in the file is gone."""
        self.close()
        self.open()

    def close(self) -> None:
        self.verifier.close()

    def follow(self) -> None:
        self.verifier.followers[self.chain.name].catch_up()

    def look(self) -> int:
        """Everything once: logs, chains, resolutions; returns how many of these were new."""
        signers = list((self.signers | {"hot": self.witness}).items())
        for name, signer in signers:
            self.verifier.logs.read(name, signer, self.verifier.bundles.present())
        told = sum(self.verifier.resolver.serve(signer) for _, signer in signers)
        self.follow()
        return told + sum(self.verifier.resolver.serve(signer) for _, signer in signers)

    def audit(self) -> Audit:
        self.look()
        return self.verifier.auditor.everything()

    def kinds(self) -> set[str]:
        """Kinds of what an audit finds."""
        return {each.kind for each in self.audit().findings}

    def verdict(self, signed: SignedOrder, **changes: Any) -> SignedVerdict:
        intent = self.intent(signed, **changes)
        return self.verifier.verdicts.verdict(VerdictRequest(intent=intent, order=signed))

    def intent(self, signed: SignedOrder, **changes: Any) -> Intent:
        keyset = self.till.bundle.keysets[0].id
        return payment_intent(keyset, signed.order, **changes)

    def refusal(self, signed: SignedOrder) -> set[str]:
        """Codes with which a verdict is refused."""
        try:
            self.verdict(signed)
        except Refused as refused:
            return {reason.code for reason in refused.reasons}
        return set()


def own_chain(till: Till | EvmTill, rpc_url: str | None = None, rest_url: str | None = None) -> OwnChain:
    """A connection of the verifier's own to the till's node, or to another one."""
    if isinstance(till, Till):
        node = till.bitcoind
        return BitcoinChain(
            BitcoinNode(
                CHAIN, NETWORKS["regtest"], rpc_url or node.rpc_url, rest_url or node.rest_url, timeout_s=5
            )
        )
    network = EthNetwork(till.anvil.chain_id, till.anvil.block_hash(0)[2:], till.outside.mode)
    evm = EvmNode(EVM_CHAIN, network, rpc_url or till.anvil.rpc_url, tokens=lambda: till.tokens, timeout_s=5)
    return EvmChain(evm, lambda: till.bundle)


@contextmanager
def verifying(
    till: Till | EvmTill,
    directory: Path | None = None,
    witness: Witness | None = None,
    chain: OwnChain | None = None,
    members: Mapping[str, SignerService] | None = None,
) -> Iterator[Verifying]:
    """A verifier that has followed its chain, closed in the end."""
    opened = Verifying(
        till,
        directory or till.directory / f"verifier-{os.urandom(4).hex()}",
        chain or own_chain(till),
        witness,
        members,
    )
    try:
        opened.follow()
        yield opened
    finally:
        opened.close()
