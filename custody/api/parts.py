"""Which parts of the service run: what `/readyz` and the status say of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from chains.errors import StrongroomError
from custody.api import gauges
from custody.api.services import ApiServices
from custody.signing.watch import AWAY_SECONDS, ago, silence, waiting
from custody.storage import heartbeats
from custody.storage.heartbeats import Heartbeat, Process
from policies.bundle import Bundle
from signers.ports import Signer, SignerStatus


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the service. Its detail may be shown to whoever asks: it quotes no error and no address."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Heard:
    """What the database says of the other processes."""

    chains: Mapping[str, gauges.ChainGauge]
    heartbeats: Sequence[Heartbeat]


def look(services: ApiServices) -> Sequence[Part]:
    """All parts, in an order that does not change."""
    found: list[Part] = []
    bundle = _bundle(services, found)
    try:
        with services.database.snapshot() as tx:
            heard = Heard({chain.chain: chain for chain in gauges.chains(tx)}, heartbeats.heard(tx))
    except StrongroomError:
        found.append(Part("database", False, "the database does not answer"))
    else:
        found.append(Part("database", True, "answers"))
        found += processes(heard, bundle, services.monitor_lag_seconds)
    if services.broker is not None:
        there = services.broker()
        found.append(Part("redis", there, "answers" if there else "redis does not answer"))
    if bundle is not None:
        found += _signers(services, bundle)
        found += vaults(services.members, bundle)
    return found


def processes(heard: Heard, bundle: Bundle | None, lag_seconds: int) -> Iterator[Part]:
    """Monitors and nodes of the bundle's networks, workers, and the beat."""
    monitors = {each.instance: each for each in heard.heartbeats if each.process is Process.MONITOR}
    for network in bundle.networks if bundle is not None else ():
        chain = network.chain
        yield _monitor(chain, heard.chains.get(chain), lag_seconds)
        yield _node(chain, monitors.get(chain), heard.chains.get(chain))
    yield _at_work("workers", [each for each in heard.heartbeats if each.process is Process.WORKER])
    yield _at_work("beat", [each for each in heard.heartbeats if each.process is Process.BEAT])


def _bundle(services: ApiServices, found: list[Part]) -> Bundle | None:
    try:
        bundle = services.bundle()
    except StrongroomError as error:
        found.append(Part("bundle", False, str(error)))
        return None
    found.append(Part("bundle", True, f"version {bundle.version}"))
    return bundle


def _monitor(chain: str, cursor: gauges.ChainGauge | None, lag_seconds: int) -> Part:
    name = f"monitor {chain}"
    if cursor is None:
        return Part(name, False, "no monitor has begun with this chain")
    if cursor.age_seconds > lag_seconds:
        return Part(name, False, f"the monitor was last heard of {cursor.age_seconds:.0f} s ago")
    return Part(name, True, f"at height {cursor.height}")


def _node(chain: str, monitor: Heartbeat | None, cursor: gauges.ChainGauge | None) -> Part:
    name = f"node {chain}"
    if monitor is None or not monitor.fresh:
        return Part(name, False, "no monitor says how it is")
    tip = monitor.detail.get("tip")
    if not isinstance(tip, int):
        return Part(name, False, "the monitor cannot read it")
    behind = 0 if cursor is None else max(0, tip - cursor.height)
    return Part(name, True, f"tip at height {tip}" + (f", we are {behind} blocks behind" if behind else ""))


def _at_work(name: str, beats: Sequence[Heartbeat]) -> Part:
    fresh = [each for each in beats if each.fresh]
    if fresh:
        return Part(name, True, f"{len(fresh)} at work" if len(fresh) > 1 else "at work")
    if beats:
        return Part(name, False, f"last heard of {min(each.age_seconds for each in beats):.0f} s ago")
    return Part(name, False, "never heard of, or not for an hour")


def _signers(services: ApiServices, bundle: Bundle) -> Iterable[Part]:
    """The hot key-sets' signers; and the verifier, which is seen by what it does there: it writes to no database."""
    statuses: dict[str, SignerStatus] = {}
    for keyset in bundle.keysets:
        if keyset.tier != "hot":
            continue
        name = f"signer {keyset.id}"
        try:
            status = services.signer(keyset.id).status()
        except StrongroomError as error:
            yield Part(name, False, f"{type(error).__name__}: the signer does not answer")
            continue
        statuses[keyset.id] = status
        same = status.bundle_version == bundle.version and keyset.id in status.keysets
        yield Part(name, same, f"bundle version {status.bundle_version}")
    yield _verifier(statuses, bundle, services.verifier_silent_seconds)


def vaults(members: Callable[[str], Mapping[str, Signer]], bundle: Bundle) -> Iterable[Part]:
    """The signers of vaults' members together, as one that is away stops nothing. Who signs offline is no part."""
    for vault in bundle.vaults:
        known = members(vault.id)
        if not known or vault.state != "active":
            continue
        away = sorted(name for name, signer in known.items() if not _at_bundle(signer, vault.id, bundle))
        here = len(known) - len(away)
        told = f"{here} of {len(known)} signers answer, {vault.threshold} sign"
        yield Part(
            f"signers {vault.id}",
            here >= vault.threshold,
            f"{told}; away: {', '.join(away)}" if away else told,
        )


def _at_bundle(signer: Signer, vault: str, bundle: Bundle) -> bool:
    """Whether a member's signer answers, has the vault's keys, and goes by this bundle."""
    try:
        status = signer.status()
    except StrongroomError:
        return False
    return status.bundle_version == bundle.version and vault in status.keysets


def _verifier(statuses: Mapping[str, SignerStatus], bundle: Bundle, patience: int | None) -> Part:
    name = "verifier"
    if not bundle.verifiers:
        return Part(name, False, "the bundle names none: what is signed counts for ever")
    if not statuses:
        return Part(name, False, "no signer says how it is")
    count = 0
    for keyset, status in statuses.items():
        silent = silence(status, bundle, keyset, patience)
        if silent is not None:
            oldest = f"the oldest of {silent.count} transactions was signed {ago(silent.oldest_seconds)}"
            return Part(name, False, f"says nothing of what {keyset} signed: {oldest}")
        if status.unasked_seconds > AWAY_SECONDS:
            return Part(
                name,
                False,
                f"last asked the signer of {keyset} {ago(status.unasked_seconds)}, or before that started",
            )
        waits = waiting(status, keyset)
        count += 0 if waits is None else waits.count
    return Part(name, True, f"transactions that wait for final blocks: {count}")
