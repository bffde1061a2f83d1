"""Looks after the signers: whether a verifier tells them what became of what they signed, and how full windows are.

Every signature counts in a signer's windows until a verifier has resolved its transaction. So without a verifier hot
paying stops when the windows are full, some hours later. What signers say of it cannot be made up by the database.

Three alerts, each open as long as its trouble lasts: `verifier.away` (nobody asks a signer what is open; its subject
is the signer's first key-set), `verifier.silent` (something waits for a verifier's word for longer than finality
explains, and there was no word in all that time; its subject is the key-set) and `signer.window_filling`.

A `signer.refused` for reasons that pass by themselves is closed when they have. Others stay until a person closes them:
the online side asks for nothing that should be refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from chains.errors import StrongroomError
from custody.storage import alerts
from custody.storage.alerts import Severity
from custody.storage.db import Database, Tx
from policies.bundle import Bundle, NetworkEntry
from signers.ports import Signer, SignerStatus, Unresolved, WindowUse

AWAY: Final = "verifier.away"
SILENT: Final = "verifier.silent"
FILLING: Final = "signer.window_filling"
REFUSED: Final = "signer.refused"
"""Its subject is the key-set, a colon, and all codes with commas between. `sign` raises it."""
AWAY_SECONDS: Final = 300
"""A verifier asks every few seconds; one that reads old blocks for its first answer may take longer."""
FILLING_PERCENT: Final = 80
"""Of its cap: from here on a window is worth an alert ..."""
EASED_PERCENT: Final = 70
"""... and below here no more, so that it does not come and go with each payment."""
PASSING: Final = frozenset(
    {
        "window-cap",
        "fee-window",
        "value-cap",
        "order-too-young",
        "destination-too-young",
        "frozen",
        "policy-version",
    }
)
"""Codes of refusals that are no wonder, and over when the window, the age, the freeze or the bundle is another."""
PASSED_SECONDS: Final = 600
"""What is refused is built again every half minute: nothing refused for so long means that it is over."""
_BLOCK_SECONDS: Final = {"btc": 600, "evm": 12}
_FINALISED_SECONDS: Final = {"btc": 0, "evm": 1200}
"""How old the block is from which confirmations count: on EVM chains the newest finalised one."""
_TIMES_FINALITY: Final = 3
"""Blocks come late, and fees rise: so much longer than finality takes is silence."""


@dataclass(frozen=True, slots=True)
class Silence:
    """A key-set's transactions wait for a verifier, who says nothing."""

    keyset: str
    chain: str
    count: int
    oldest_seconds: int
    """How long the oldest waits."""
    heard_seconds: int | None
    """Since a verifier last told something new of this key-set; None: none ever did."""


@dataclass(slots=True)
class _Found:
    """One alert that should be open."""

    severity: Severity
    message: str
    data: dict[str, str | int | None]


@dataclass(slots=True)
class _Look:
    """What the signers said."""

    statuses: dict[str, SignerStatus] = field(default_factory=dict)
    """By key-set: its own signer's."""
    unanswered: set[str] = field(default_factory=set)
    """Key-sets whose signers did not answer: of them nothing is known, and nothing changes."""

    def signers(self) -> Iterator[tuple[str, SignerStatus]]:
        """Each signer once, under the first of its key-sets."""
        seen = set()
        for keyset, status in self.statuses.items():
            if status.journal not in seen:
                seen.add(status.journal)
                yield keyset, status


def patience_seconds(bundle: Bundle, chain: str, configured: int | None) -> int:
    """How long a transaction of a chain may wait for a verifier's word before that is silence.

    Args:
        bundle: the one in force.
        chain: of the bundle.
        configured: what the operator wants; None: three times what finality takes.

    Returns:
        Seconds; never more than half of the bundle's shortest window.
    """
    wanted = _TIMES_FINALITY * _finality_seconds(bundle.network(chain)) if configured is None else configured
    windows = [
        *(cap.window_seconds for cap in bundle.caps),
        *(network.fee_window_seconds for network in bundle.networks),
        *(breaker.window_seconds for breaker in bundle.breakers),
    ]
    return min(wanted, min(windows) // 2)


def silence(status: SignerStatus, bundle: Bundle, keyset: str, configured: int | None) -> Silence | None:
    """Whether what a key-set signed waits for a verifier that says nothing; None: no.

    Args:
        status: of the key-set's signer, whose own times are compared with each other.
        bundle: the one in force.
        keyset: of the bundle.
        configured: see `patience_seconds`.
    """
    chain = bundle.keyset(keyset).chain
    waits = waiting(status, keyset)
    if waits is None or waits.oldest_at is None:
        return None
    # A verifier that speaks of others is at work: what it says nothing of has no final block yet.
    last_word = max(waits.oldest_at, waits.resolved_at or 0)
    if status.at - last_word <= patience_seconds(bundle, chain, configured):
        return None
    heard = None if waits.resolved_at is None else status.at - waits.resolved_at
    return Silence(keyset, chain, waits.count, status.at - waits.oldest_at, heard)


def waiting(status: SignerStatus, keyset: str) -> Unresolved | None:
    """What a signer says of a key-set's transactions that wait for a verifier; None: it never signed anything."""
    return next((each for each in status.unresolved if each.keyset == keyset), None)


def watch_signers(
    db: Database,
    bundle: Bundle,
    signers: Mapping[str, Signer],
    patience: int | None = None,
) -> int:
    """Ask every hot key-set's signer how it is; raise and close alerts. Returns how many troubles last.

    Args:
        db: where alerts are.
        bundle: the one in force.
        signers: by key-set.
        patience: see `patience_seconds`.

    Raises:
        DatabaseUnavailable: nothing was noted; the next call does it.
    """
    look = _ask(bundle, signers)
    with db.transaction() as tx:
        found = {
            SILENT: _silent(look, bundle, patience),
            AWAY: _away(look),
            FILLING: _filling(look, bundle, _open(tx, FILLING)),
        }
        for type, each in found.items():
            _settle(tx, type, each, look.unanswered)
        _close_refusals(tx)
    return sum(len(each) for each in found.values())


def ago(seconds: int) -> str:
    """So long before now, in words."""
    if seconds < 120:
        return f"{seconds} s ago"
    if seconds < 7200:
        return f"{seconds // 60} min ago"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min ago"


def _finality_seconds(network: NetworkEntry) -> int:
    return _FINALISED_SECONDS[network.family] + network.settle_blocks * _BLOCK_SECONDS[network.family]


def _ask(bundle: Bundle, signers: Mapping[str, Signer]) -> _Look:
    look = _Look()
    for entry in bundle.keysets:
        signer = signers.get(entry.id)
        if entry.tier != "hot" or signer is None:
            continue
        try:
            look.statuses[entry.id] = signer.status()
        except StrongroomError:
            look.unanswered.add(entry.id)
    return look


def _silent(look: _Look, bundle: Bundle, patience: int | None) -> dict[str, _Found]:
    found = {}
    for keyset, status in look.statuses.items():
        told = silence(status, bundle, keyset, patience)
        if told is None:
            continue
        heard = (
            "it never had one" if told.heard_seconds is None else f"the last came {ago(told.heard_seconds)}"
        )
        found[keyset] = _Found(
            Severity.CRITICAL,
            f"{told.count} transactions that {keyset} signed wait for a verifier's word, the oldest was signed"
            f" {ago(told.oldest_seconds)}; {heard}. Until there is one, all of it counts in the signer's windows, and"
            " when these are full nothing more is paid. See that a verifier runs (strongroom verifier), and that it"
            " reaches this signer and its own nodes: its status and heartbeat.json say it. If it does, the"
            " transactions are in no final block: look for stuck ones",
            {
                "keyset": keyset,
                "chain": told.chain,
                "count": told.count,
                "oldest_seconds": told.oldest_seconds,
                "heard_seconds": told.heard_seconds,
            },
        )
    return found


def _away(look: _Look) -> dict[str, _Found]:
    return {
        keyset: _Found(
            Severity.WARNING,
            f"the last time that a verifier asked the signer of {', '.join(status.keysets)} what is open there was"
            f" {ago(status.unasked_seconds)}, or before it started; one asks every few seconds. Until it is back, what"
            " is signed counts in the signer's windows: see that a verifier runs (strongroom verifier) and that it"
            " reaches this signer",
            {"keyset": keyset, "unasked_seconds": status.unasked_seconds},
        )
        for keyset, status in look.signers()
        if status.unasked_seconds > AWAY_SECONDS
    }


def _filling(look: _Look, bundle: Bundle, open_before: set[str]) -> dict[str, _Found]:
    found = {}
    for keyset, status in look.signers():
        for use in status.windows:
            subject = f"{keyset}:{use.kind}:{use.scope}"
            least = EASED_PERCENT if subject in open_before else FILLING_PERCENT
            units, cap = int(use.units), int(use.cap)
            if units and units * 100 >= cap * least:
                found[subject] = _window(keyset, use, bundle)
    return found


def _window(keyset: str, use: WindowUse, bundle: Bundle) -> _Found:
    units, cap = int(use.units), int(use.cap)
    share = f" ({100 * units // cap} %)" if cap else ""
    amounts = [_told(bundle, use.unit, each) for each in (units, cap)]
    return _Found(
        Severity.WARNING,
        f"the window of {use.kind} for {use.scope} holds {amounts[0]} of {amounts[1]}{share} at the signer of {keyset};"
        f" when it is full, nothing more that counts there is signed. What is in it leaves {use.seconds} s after a"
        " verifier has told what became of it. If this is ordinary business, have the quorum sign a bundle with a"
        " higher cap; if not, look at what is being paid, and freeze",
        {
            "keyset": keyset,
            "kind": use.kind,
            "scope": use.scope,
            "unit": use.unit,
            "units": use.units,
            "cap_units": use.cap,
            "window_seconds": use.seconds,
        },
    )


def _told(bundle: Bundle, unit: str, units: int) -> str:
    return f"{units} {unit}" if unit == bundle.unit else bundle.told(unit, units)


def _open(tx: Tx, type: str) -> set[str]:
    return {alert.subject for alert in alerts.open_alerts(tx) if alert.type == type}


def _settle(tx: Tx, type: str, found: Mapping[str, _Found], unanswered: set[str]) -> None:
    """Open what was found, close what is over."""
    for subject in _open(tx, type) - found.keys():
        if subject.partition(":")[0] not in unanswered:
            alerts.resolve_alert(tx, type, subject)
    for subject, each in found.items():
        alerts.raise_alert(tx, each.severity, type, subject, each.message, each.data)


def _close_refusals(tx: Tx) -> None:
    for alert in alerts.open_alerts(tx):
        if alert.type != REFUSED:
            continue
        keyset, _, codes = alert.subject.partition(":")
        if not PASSING.issuperset(codes.split(",")):
            continue
        over = tx.one(
            "SELECT %(raised)s < now() - %(passed)s * interval '1 second' AND NOT EXISTS ("
            " SELECT 1 FROM transaction_versions v JOIN transactions t ON t.id = v.transaction_id"
            " WHERE v.state = 'refused' AND v.created_at > now() - %(passed)s * interval '1 second'"
            " AND t.keyset = %(keyset)s) AS over",
            {"raised": alert.at, "passed": PASSED_SECONDS, "keyset": keyset},
        )
        if over["over"]:
            alerts.resolve_alert(tx, REFUSED, alert.subject)
