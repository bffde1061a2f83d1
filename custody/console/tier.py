"""The verbs `strongroom tier` and `strongroom refill list|show`: what tiers hold and should hold, and what moves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from custody.console.outcome import Form, Output, output
from custody.console.root import AsJson, IdArgument, StateOption, app, connected, refills, uuid_text

Json = dict[str, Any]

_REFILL = ("id", "asset", "amount", "source", "target", "why", "state", "reason", "created_at")
_WHOLE = (
    "id", "asset", "amount", "source", "target", "destination", "why", "about", "proposed_by", "state", "reason",
    "policy_version", "transaction", "created_at", "updated_at",
)  # fmt: skip


@app.command("tier")
def show_tiers(
    *,
    history: Annotated[
        bool, typer.Option("--history", help="What each held on the last days, and what moved.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what each tier holds and should hold, what it may pay, when hot runs dry, and what moves between tiers."""
    shown = output(as_json=as_json)
    with connected(shown) as client:
        found = client.get("/v1/tiers")
        if shown.form is Form.PROGRAMS:
            shown.one(found, ())
            return
        shown.many(
            [_tier(each) for each in found["items"]],
            (
                "tier",
                "asset",
                "holds",
                "share",
                "at most",
                "refilled below",
                "excess",
                "waited for",
                "free",
                "dry in",
                "proven",
            ),
            none="The bundle has neither caps nor vaults: nothing may be paid.",
        )
        _table(shown, "Together", found["together"], _together)
        _table(shown, "What each pays", [each for each in found["items"] if each["payment_below"]], _pays)
        _table(shown, "Under way", found["refills"], _under_way)
        if history:
            days = [{**day, "of": each} for each in found["items"] for day in each["history"]]
            _table(shown, "At the end of each day (UTC)", days, _day)
            moved = list(client.items("/v1/refills", {}))
            _table(shown, "All that moved, or was to", moved, _under_way)


@refills.command("list")
def list_refills(state: StateOption = None, *, as_json: AsJson = False) -> None:
    """List refills, oldest first."""
    shown = output(as_json=as_json)
    with connected(shown) as client:
        shown.many(client.items("/v1/refills", {"state": state}), _REFILL, none="There are no refills.")


@refills.command("show")
def show_refill(refill: IdArgument, *, as_json: AsJson = False) -> None:
    """Show a refill, and what happened to it."""
    shown = output(as_json=as_json)
    with connected(shown) as client:
        found = client.get(f"/v1/refills/{uuid_text(refill)}")
        shown.one(found, _WHOLE)
        if shown.form is Form.PEOPLE:
            _table(shown, "History", found["history"], _event)


def _tier(each: Json) -> Json:
    return {
        "tier": each["tier"],
        "asset": each["asset"],
        "holds": each["holds"],
        "share": "" if each["share"] is None else f"{each['share']} %",
        "at most": each["holding_cap"] or "no limit",
        "refilled below": each["refill_below"] or "",
        "excess": each["excess"],
        "waited for": each["waited_for"],
        "free": each["free"],
        "dry in": _dry(each["dry_in_seconds"]),
        "proven": {None: "", True: "yes", False: "NOT PROVEN: see `strongroom cold prove`"}[each["proven"]],
    }


def _dry(seconds: int | None) -> str:
    if seconds is None:
        return ""
    hours = seconds // 3600
    return f"{hours // 24} d {hours % 24} h" if hours >= 24 else f"{hours} h {seconds % 3600 // 60} min"


def _together(each: Json) -> Json:
    return {
        "tiers": " and ".join(each["tiers"]),
        "asset": each["asset"],
        "hold": each["holds"],
        "at most": each["holding_cap"],
    }


def _pays(each: Json) -> Json:
    return {
        "tier": each["tier"],
        "asset": each["asset"],
        "payments below": each["payment_below"],
        "in a window": each["window_cap"],
        "of": f"{each['window_seconds']} s",
        "wallet": each["keyset"] or "none",
    }


def _under_way(each: Json) -> Json:
    return {
        "id": each["id"],
        "moves": f"{each['amount']} {each['asset']}",
        "from": each["source"],
        "to": each["target"],
        "is": each["state"],
        "why": each["reason"] or each["about"],
    }


def _day(each: Json) -> Json:
    held = each["of"]
    return {"day": each["day"], "tier": held["tier"], "asset": held["asset"], "held": each["holds"]}


def _event(each: Json) -> Json:
    return {
        "at": each["at"],
        "event": each["event"],
        "then": each["state"],
        "why": each["detail"].get("reason", ""),
    }


def _table(shown: Output, title: str, rows: Sequence[Json], render: Callable[[Json], Json]) -> None:
    if rows:
        typer.echo(f"\n{title}")
        rendered = [render(row) for row in rows]
        shown.many(rendered, list(rendered[0]), none="")
