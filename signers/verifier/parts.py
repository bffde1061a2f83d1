"""The verifier's parts put together, and what it does again and again. No sockets and no signals here."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Self

from chains.errors import InvalidValue, NodeUnavailable, Reorganised, StrongroomError
from policies.democlock import DemoClock, check_test_networks
from policies.keys import SigningKey
from signers.errors import BadConfiguration
from signers.ports import Metrics, Witness
from signers.verifier.audit import Auditor
from signers.verifier.bound import Binding, Record
from signers.verifier.bundles import Bundles
from signers.verifier.chains import OwnChain, open_chain
from signers.verifier.config import VerifierConfig
from signers.verifier.examine import Examiner
from signers.verifier.follow import Follower
from signers.verifier.logs import LogKeeper, MemberLogs, wall_clock
from signers.verifier.moves import Moves
from signers.verifier.payouts import Payouts
from signers.verifier.ports import AuditRequest, ChainStatus, Findings, VerifierStatus
from signers.verifier.resolve import Resolver
from signers.verifier.source import Ledger
from signers.verifier.state import STATE_FILE, State
from signers.verifier.verdicts import Verdicts

_log = logging.getLogger("strongroom.verifier")


def _trial_clock(path: Path, bundles: Bundles) -> Callable[[], int]:
    """A trial's clock, which its signers go by. Raises BadConfiguration: a network has money of some worth."""
    try:
        check_test_networks(bundles.present())
    except InvalidValue as error:
        raise BadConfiguration(f"demo_clock: {error}") from None
    clock = DemoClock(path)
    return lambda: int(clock())


class Verifier:
    """Everything together. Methods may be called from many threads.

    Args:
        name: in the bundle.
        key: its Ed25519 key.
        state: its file.
        bundles: whom to believe.
        ledger: the database.
        chains: the own nodes; each with the height below which nothing is sought.
        signers: by name.
        now: tells the time, UNIX seconds.
        log_keys: see `LogKeeper`.
        member_of: see `signers.verifier.logs.untold`.
        mark_path: see `signers.verifier.bound.Record`.

    Raises:
        BadConfiguration: the state is an older copy than its mark.
    """

    def __init__(
        self,
        name: str,
        key: SigningKey,
        state: State,
        bundles: Bundles,
        ledger: Ledger,
        chains: Mapping[OwnChain, int],
        signers: Mapping[str, Witness],
        now: Callable[[], int] = wall_clock,
        log_keys: Mapping[str, str] | None = None,
        member_of: Mapping[str, Collection[str]] | None = None,
        *,
        mark_path: Path,
    ) -> None:
        self.name, self._state, self.bundles = name, state, bundles
        self.signers = dict(signers)
        self.followers = {chain.name: Follower(state, chain, lowest) for chain, lowest in chains.items()}
        self.logs = LogKeeper(state, log_keys, now)
        self.resolver = Resolver(name, key, state, self.followers, self.logs, bundles.present)
        self.payouts = Payouts(state, bundles, self.followers)
        members = MemberLogs(state, self.logs, member_of or {})
        self.examiner = Examiner(state, bundles, self.followers, self.payouts, members)
        moves = Moves(state, bundles, self.payouts)
        self.auditor = Auditor(state, bundles, ledger, self.examiner, moves, self.logs, signers, now)
        binding = self._binding = Binding(state, Record(state, mark_path), self.resolver, members)
        self.verdicts = Verdicts(
            name,
            key,
            state,
            bundles,
            ledger,
            self.examiner,
            self.logs,
            signers,
            now,
            member_of or {},
            binding,
        )
        self._now = now
        self._troubles: dict[str, str] = {}
        self._lock = threading.Lock()
        self._round_at = 0

    @classmethod
    def open(cls, config: VerifierConfig) -> Self:
        """All parts as the configuration says; nothing is asked of nodes, signers or the database yet.

        Raises:
            BadConfiguration: a part cannot be made; says which and why.
            UnusableKey: the key's file is missing, malformed, or open to other users.
            UntrustedBundle, InvalidValue: there is no bundle to believe, or it lacks a network that has a node here.
        """
        directory = Path(config.directory)
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = SigningKey.load(Path(config.key_file))
        signers = {name: section.client() for name, section in config.signers.items()}
        state = State(directory / STATE_FILE)
        bundles = Bundles(state, Path(config.trust_root_path), Path(config.bundle_path), wall_clock)
        chains = {
            open_chain(
                bundles.present, chain, rpc_url=node.rpc_url, rest_url=node.rest_url
            ): node.lowest_height
            for chain, node in config.nodes.items()
        }
        log_keys = {name: each.log_key for name, each in config.signers.items() if each.log_key is not None}
        ledger = Ledger(config.database_url)
        member_of = {name: each.member_of for name, each in config.signers.items() if each.member_of}
        parts = (state, bundles, ledger, chains, signers)
        now = wall_clock if config.demo_clock is None else _trial_clock(Path(config.demo_clock), bundles)
        mark_path = Path(config.mark_path)
        mark_path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return cls(config.name, key, *parts, now, log_keys=log_keys, member_of=member_of, mark_path=mark_path)

    def close(self) -> None:
        """Closes the state's file and its mark."""
        self._binding.close()
        self._state.close()

    # ------------------------------------------------------------------------------ what is done again and again

    def follow(self, chain: str) -> bool:
        """Read a part of what is new on a chain; returns whether there may be more. A node's troubles are noted."""
        try:
            more = self.followers[chain].step()
        except (NodeUnavailable, Reorganised) as error:
            self._note(f"chain:{chain}", str(error))
            return False
        except StrongroomError as error:
            self._note(f"chain:{chain}", f"{type(error).__name__}: {error}")
            return False
        self._note(f"chain:{chain}", "")
        return more

    def attend(self, signer: str) -> None:
        """Read a signer's log and resolve what is open there. Its troubles are noted, and its node's."""
        try:
            self.logs.read(signer, self.signers[signer], self.bundles.present())
            self._binding.learn(self.bundles.present(), now=self._now())
            self.resolver.serve(self.signers[signer])
        except StrongroomError as error:
            self._note(f"signer:{signer}", f"{type(error).__name__}: {error}")
        else:
            self._note(f"signer:{signer}", "")

    def audit_round(self, pause: Callable[[], None] = lambda: None) -> None:
        """Audit everybody, and record it. The database's troubles are noted."""
        try:
            before = set(self.auditor.standing())
            found = self.auditor.everything(pause)
        except StrongroomError as error:
            self._note("audit", f"{type(error).__name__}: {error}")
            return
        for finding in set(found.findings) - before:
            _log.error("%s", finding)
        self._note("audit", "")
        with self._lock:
            self._round_at = self._now()

    # ------------------------------------------------------------------------------------------------- what is asked

    def audit(self, request: AuditRequest) -> Findings:
        """See `AuditRequest`. Raises LedgerUnavailable."""
        if request.customer is None:
            return Findings(findings=(*self.logs.broken(), *self.auditor.standing()))
        found = self.auditor.customer(request.customer)
        return Findings(findings=found.findings, unknowns=found.unknowns)

    def status(self) -> VerifierStatus:
        """What it says of itself."""
        with self._lock:
            troubles, round_at = dict(self._troubles), self._round_at
        chains = []
        for name, follower in self.followers.items():
            position = follower.position()
            height, anchor = (-1, -1) if position is None else (position.block.height, position.anchor)
            chains.append(
                ChainStatus(
                    chain=name, height=height, anchor=anchor, trouble=troubles.get(f"chain:{name}", "")
                )
            )
        return VerifierStatus(
            name=self.name,
            bundle_version=self.bundles.present().version,
            chains=tuple(chains),
            signers={name: troubles.get(f"signer:{name}", "") for name in self.signers},
            standing=len(self.auditor.standing()),
            round_at=round_at,
            audit=troubles.get("audit", ""),
        )

    def metrics(self) -> Metrics:
        """The same in Prometheus' text format."""
        status = self.status()
        lines = [
            f"strongroom_verifier_findings {status.standing}",
            f"strongroom_verifier_round_timestamp_seconds {status.round_at}",
            f"strongroom_verifier_round_trouble {int(bool(status.audit))}",
            f"strongroom_verifier_bundle_version {status.bundle_version}",
        ]
        for chain in status.chains:
            label = f'{{chain="{chain.chain}"}}'
            lines.append(f"strongroom_verifier_height{label} {chain.height}")
            lines.append(f"strongroom_verifier_anchor{label} {chain.anchor}")
            lines.append(f"strongroom_verifier_chain_trouble{label} {int(bool(chain.trouble))}")
        for name, trouble in status.signers.items():
            lines.append(f'strongroom_verifier_signer_trouble{{signer="{name}"}} {int(bool(trouble))}')
        return Metrics(text="\n".join(lines) + "\n")

    def _note(self, what: str, trouble: str) -> None:
        with self._lock:
            before, self._troubles[what] = self._troubles.get(what, ""), trouble
        if trouble != before:
            _log.warning("%s: %s", what, trouble or "well again")
