"""Says what became of what signers have signed, from the own node only, at finality depth, and tells them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Final, Literal

from policies.bundle import Bundle
from policies.keys import SigningKey, sign_resolution
from policies.statements import Resolution, SignedResolution
from signers.ports import OpenRequest, OpenTransaction, ResolveRequest, Witness
from signers.verifier.follow import Follower
from signers.verifier.logs import LogKeeper
from signers.verifier.state import State

_PAGE: Final = 1_000
Outcome = Literal["confirmed", "dead"]
_Decided = tuple[str, Outcome, int, str]
"""By which resource, what, and height and hash of the block that proves it."""


class Resolver:
    """Decides about open transactions.

    Args:
        name: of this verifier in the bundle.
        key: signs its words.
        state: remembers what was decided.
        followers: by chain; transactions of other chains stay open.
        logs: copies of the signers' logs.
        bundle: the one in force.
    """

    def __init__(
        self,
        name: str,
        key: SigningKey,
        state: State,
        followers: Mapping[str, Follower],
        logs: LogKeeper,
        bundle: Callable[[], Bundle],
    ) -> None:
        self._name, self._key, self._state = name, key, state
        self._followers, self._logs, self._bundle = followers, logs, bundle

    def serve(self, signer: Witness) -> int:
        """Tell a signer all that can be told now; returns how much of it was new. Again changes nothing.

        What is not resolved is watched from now on. A chain whose node does not answer is left out.

        Raises:
            SignerUnavailable: it may have taken some; again is safe.
            Refused: it does not believe this verifier.
            NodeUnavailable: of one chain, after everything about the others was told.
        """
        found: list[SignedResolution] = []
        waiting: dict[str, list[str]] = {}
        for each in _open(signer):
            decided = self._decide(each)
            if decided is not None:
                found.append(sign_resolution(decided, self._key))
            elif each.chain in self._followers:
                waiting.setdefault(each.chain, []).extend(each.resources)
        accepted = 0
        for at in range(0, len(found), _PAGE):
            accepted += signer.resolve(ResolveRequest(resolutions=tuple(found[at : at + _PAGE]))).accepted
        failure: Exception | None = None
        for chain, resources in waiting.items():
            try:
                self._followers[chain].watch(resources, partial(self._logs.signed_at, chain))
            except Exception as error:  # noqa: BLE001 - the others are watched before it is raised
                failure = error
        if failure is not None:
            raise failure
        return accepted

    def fate(self, each: OpenTransaction) -> Outcome | None:
        """What is decided about a transaction that perhaps nobody has signed; None: nothing yet, it is watched.

        Raises:
            NodeUnavailable, Reorganised: the node cannot tell now.
        """
        decided = self._decide(each)
        if decided is None and each.chain in self._followers:
            self._followers[each.chain].watch(each.resources, partial(self._logs.signed_at, each.chain))
        return None if decided is None else decided.outcome

    def outcome(self, chain: str, content: str) -> Outcome | None:
        """What this verifier has said of a transaction; None if nothing yet."""
        row = self._state.row(
            "SELECT outcome FROM resolutions WHERE chain = ? AND content = ?", chain, content
        )
        return None if row is None else row[0]

    def _decide(self, each: OpenTransaction) -> Resolution | None:
        follower = self._followers.get(each.chain)
        if follower is None:
            return None
        kept = self._kept(each)
        decided = kept or self._judge(follower, each)
        if decided is None:
            return None
        resource, outcome, height, block = decided
        if kept is None:
            with self._state.change():
                self._state.write(
                    "INSERT OR IGNORE INTO resolutions VALUES (?, ?, ?, ?, ?, ?)",
                    each.chain,
                    each.content,
                    resource,
                    outcome,
                    height,
                    block,
                )
                follower.forget(each.resources)
        return Resolution(
            v=1,
            verifier=self._name,
            chain=each.chain,
            content=each.content,
            resource=resource,
            outcome=outcome,
            block=block,
            height=height,
        )

    def _kept(self, each: OpenTransaction) -> _Decided | None:
        """What was decided before. Of this transaction: on EVM chains two senders can sign the same bytes."""
        rows: list[_Decided] = self._state.rows(
            "SELECT resource, outcome, height, hash FROM resolutions WHERE chain = ? AND content = ?",
            each.chain,
            each.content,
        )
        return next((row for row in rows if row[0] in each.resources), None)

    def _judge(self, follower: Follower, each: OpenTransaction) -> _Decided | None:
        """What is decided by what is final now; None while nothing is."""
        position = follower.position()
        if position is None:
            return None
        needed = self._bundle().network(each.chain).settle_blocks
        uses = [(resource, follower.use_of(resource)) for resource in each.resources]
        final = [(r, u) for r, u in uses if u is not None and position.depth(u.block.height) >= needed]
        for resource, use in final:
            if use.content == each.content:
                outcome: Outcome = "confirmed" if use.succeeded else "dead"
                return resource, outcome, use.block.height, use.block.hash
        if final:
            resource, use = final[0]
            return resource, "dead", use.block.height, use.block.hash
        return self._orphan(each)

    def _orphan(self, each: OpenTransaction) -> _Decided | None:
        """What spends an output of a transaction that is dead can never be mined either."""
        for resource in each.resources:
            row = self._state.row(
                "SELECT height, hash FROM resolutions WHERE chain = ? AND content = ? AND outcome = 'dead'",
                each.chain,
                resource.partition(":")[0],
            )
            if row is not None:
                return resource, "dead", row[0], row[1]
        return None


def _open(signer: Witness) -> Iterator[OpenTransaction]:
    after: tuple[str, str] | None = None
    while True:
        page: Sequence[OpenTransaction] = signer.open(OpenRequest(after=after)).transactions
        yield from page
        if len(page) < _PAGE:
            return
        after = (page[-1].chain, page[-1].content)
