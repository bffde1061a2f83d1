"""`strongroom status` in words: what runs, how far each chain is, what waits and why, what somebody should look at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import typer

from custody.console.client import ApiClient
from custody.console.outcome import Exit, Form, Output
from custody.web.client import ApiRefused, ApiUnavailable

Json = Mapping[str, Any]
_WORDS: Final = {
    "seen": "seen, in no block yet",
    "confirming": "confirming",
    "held": "held by screening",
    "requested": "requested",
    "screening": "being decided",
    "awaiting_approval": "waiting for approval",
    "cooling": "waiting out their delay",
    "queued": "in the queue",
    "building": "being built",
    "signing": "being signed",
    "broadcast": "sent, in no final block yet",
    "planned": "planned",
    "built": "not signed yet",
    "contested": "overtaken by a rescue, or by a stranger's transaction",
}


def show(client: ApiClient, shown: Output) -> Exit:
    """Print the status; returns OK, REFUSED if somebody should look, or UNAVAILABLE if a part is missing.

    Raises:
        ApiUnavailable: there is no API that answers.
    """
    try:
        answer = client.status()
    except ApiRefused as error:
        if error.status != 403:
            raise
        return _parts_only(client, shown, "this caller may see no more (it lacks the scope events:read)")
    except ApiUnavailable as error:
        if not error.problem:
            raise
        return _parts_only(client, shown, "the API cannot say more now")
    if shown.form is Form.PROGRAMS:
        shown.one(answer, ())
    else:
        _tell(answer, shown)
    if not answer["ready"]:
        return Exit.UNAVAILABLE
    return Exit.REFUSED if answer["attention"] else Exit.OK


def _parts_only(client: ApiClient, shown: Output, why: str) -> Exit:
    answer = client.ready()
    if shown.form is Form.PROGRAMS:
        shown.one(answer, ())
    else:
        parts = [{"name": name, **part} for name, part in answer["parts"].items()]
        typer.echo(f"{_running(parts)} Of the rest: {why}.")
        _table(shown, "", parts, _part)
    return Exit.OK if answer["ready"] else Exit.UNAVAILABLE


def _tell(answer: Json, shown: Output) -> None:
    now = datetime.fromisoformat(answer["at"])
    typer.echo(_running(answer["parts"]))
    for sentence in _troubles(answer):
        typer.echo(sentence)
    _table(shown, "What runs", answer["parts"], _part)
    _table(shown, "Chains", answer["chains"], _chain)
    waiting = [{"what": what, **each} for what in ("deposits", "withdrawals") for each in answer[what]]
    _table(shown, "Money that waits", waiting, lambda each: _waiting(each, now))
    under_way = [{"what": what, **each} for what in ("sweeps", "transactions") for each in answer[what]]
    _table(shown, "Under way on the chains", under_way, lambda each: _under_way(each, now))
    _table(shown, "Tiers", answer["tiers"], _tier)
    _table(shown, "Open alerts", answer["alerts"], lambda each: _alert(each, now))
    if not waiting and not under_way:
        typer.echo("\nNothing waits.")


def _running(parts: Sequence[Json]) -> str:
    missing = [part["name"] for part in parts if not part["ok"]]
    if not missing:
        return "Everything runs."
    return f"{len(missing)} of {len(parts)} parts {'is' if len(missing) == 1 else 'are'} missing: {', '.join(missing)}"


def _troubles(answer: Json) -> Iterator[str]:
    for halt in answer["halts"]:
        scope, _, asset = halt["scope"].partition(":")
        where = f"for {asset}" if asset else "everywhere" if scope == "all" else f"on {scope}"
        yield f"Paying is HALTED {where}: {halt['reason']}"
    for chain in answer["chains"]:
        if chain["behind_blocks"]:
            yield f"{chain['chain']} is {chain['behind_blocks']} blocks behind its node."
    critical = sum(alert["severity"] == "critical" for alert in answer["alerts"])
    if critical:
        yield f"{critical} critical {'alert is' if critical == 1 else 'alerts are'} open."
    for tier in answer["tiers"]:
        if tier["excess"].strip("0."):
            yield f"The {tier['tier']} tier holds {tier['excess']} {tier['asset']} more than it should."


def _part(part: Json) -> Json:
    return {"part": part["name"], "runs": "yes" if part["ok"] else "NO", "detail": part["detail"]}


def _chain(chain: Json) -> Json:
    behind = chain["behind_blocks"]
    return {
        "chain": chain["chain"],
        "read up to": chain["height"],
        "node's tip": chain["node_tip"],
        "behind": "?" if behind is None else "no" if behind == 0 else f"{behind} blocks",
        "final up to": chain["final_height"],
        "heard of": None if chain["heard_seconds"] is None else f"{chain['heard_seconds']} s ago",
        "note": "; ".join(
            note
            for note in (chain["trouble"], chain["halted"] and f"paying is halted: {chain['halted']}")
            if note
        ),
    }


def _waiting(each: Json, now: datetime) -> Json:
    return {
        "what": f"{each['count']} {each['what'] if each['count'] != 1 else each['what'].removesuffix('s')}",
        "amount": f"{each['amount']} {each['asset']}",
        "state": _WORDS.get(each["state"], each["state"]),
        "for": _age(each["oldest_at"], now),
        "because": [
            reason["reason"] if reason["count"] == each["count"] else f"{reason['count']}: {reason['reason']}"
            for reason in each["reasons"]
        ],
    }


def _under_way(each: Json, now: datetime) -> Json:
    what = each["what"] if each["count"] != 1 else each["what"].removesuffix("s")
    said = each["kind"] == each["what"].removesuffix("s")
    return {
        "what": f"{each['count']} {what if said else each['kind'] + ' ' + what}",
        "chain": each["chain"],
        "state": _WORDS.get(each["state"], each["state"]),
        "for": _age(each["oldest_at"], now),
    }


def _tier(tier: Json) -> Json:
    asset = tier["asset"]
    return {
        "tier": tier["tier"],
        "holds": f"{tier['holds']} {asset}",
        "should hold at most": f"{tier['holding_cap']} {asset}" if tier["holding_cap"] else "no limit",
        "pays at once below": f"{tier['payment_below']} {asset}",
    }


def _alert(alert: Json, now: datetime) -> Json:
    return {
        "severity": alert["severity"],
        "type": alert["type"],
        "message": alert["message"],
        "since": f"{_age(alert['at'], now)} ago",
    }


def _age(since: str, now: datetime) -> str:
    seconds = max(0, int((now - datetime.fromisoformat(since)).total_seconds()))
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def _table(shown: Output, title: str, rows: Sequence[Json], render: Any) -> None:
    if rows:
        typer.echo(f"\n{title}" if title else "")
        rendered = [render(row) for row in rows]
        shown.many(rendered, list(rendered[0]), none="")
