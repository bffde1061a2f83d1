"""`strongroom factory`: whom deposit addresses pay, and the three steps by which the cold Safe changes that.

Each step is an action of an operator. What it asks of the Safe's holders they get and bring back with `strongroom
cold`, like any other request; the gas payer sends it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer

from chains.errors import InvalidValue
from chains.eth.address import checksummed, raw_address
from chains.eth.factory import Proposal, Step
from custody.console.acting import CONFIG_VARIABLE, worker_settings
from custody.console.operator import acting
from custody.console.outcome import Exit, outcome, output
from custody.console.pinned import pinned_bundle
from custody.console.root import AsJson, app
from custody.nodes import open_node
from custody.ports import system_clock
from custody.reconcile.factories import CallSource, active_hot_key, factories, read_factory
from custody.signing.evm.administer import ask, plan
from custody.signing.evm.safe_site import SafeSite
from custody.wiring import Services, wire
from policies.bundle import Bundle, EvmKeyset

factory_app = typer.Typer(
    help="Whom deposit addresses of EVM chains pay, and how the cold Safe changes it."
    f" {CONFIG_VARIABLE} names the workers' settings file.",
    no_args_is_help=True,
)
app.add_typer(factory_app, name="factory")

_SHOWN: Final = ("keyset", "chain", "factory", "treasury", "paid", "admin", "proposed", "ok", "told")
Keyset = Annotated[str, typer.Argument(help="Id of the key-set whose deposit addresses they are.")]
Why = Annotated[str, typer.Option("--reason", help="Why; kept in the event feed.", prompt="Reason")]


@factory_app.command("show")
def show(
    keyset: Annotated[str | None, typer.Argument(help="Id of a key-set; all if not given.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Read from the chain whom each factory's forwarders pay, who may change that, and what is under way. Exit 1: it
    is not as it should be."""
    shown = output(as_json=as_json)
    with outcome(shown):
        settings = worker_settings()
        bundle = pinned_bundle(settings.bundle_path, settings.trust_root_path, now=system_clock())
        wanted = [each for each in bundle.keysets if isinstance(each, EvmKeyset)]
        if keyset is not None:
            wanted = [_keyset(bundle, keyset)]
        rows = []
        for each in wanted:
            if each.chain not in settings.nodes:
                raise InvalidValue(f"no node is configured for {each.chain}: add it to the settings' nodes")
            node = open_node(lambda: bundle, each.chain, settings.nodes[each.chain])
            try:
                assert isinstance(node, CallSource), "nodes of the EVM family simulate calls"
                rows.append(_told(bundle, each, node))
            finally:
                node.close()
    shown.many(rows, _SHOWN, none="The bundle has no factory.")
    if not all(row["ok"] for row in rows):
        raise typer.Exit(int(Exit.REFUSED))


@factory_app.command("propose")
def propose(keyset: Keyset, reason: Why, *, as_json: AsJson = False) -> None:
    """Ask holders to propose the active hot key as whom these deposit addresses pay; accept it 48 hours later."""
    _step(keyset, "propose", reason, as_json=as_json)


@factory_app.command("accept")
def accept(keyset: Keyset, reason: Why, *, as_json: AsJson = False) -> None:
    """Ask holders to accept what was proposed at least 48 hours ago: from then on these deposit addresses pay it."""
    _step(keyset, "accept", reason, as_json=as_json)


@factory_app.command("cancel")
def cancel(keyset: Keyset, reason: Why, *, as_json: AsJson = False) -> None:
    """Ask holders to take a proposal back."""
    _step(keyset, "cancel", reason, as_json=as_json)


def _step(name: str, step: Step, reason: str, *, as_json: bool) -> None:
    shown = output(as_json=as_json)
    with acting(shown) as at, wire(at.settings, pool_size=2) as services:
        if at.bundle is None:
            raise InvalidValue("no bundle can be believed: nothing can be asked for")
        keyset = _keyset(at.bundle, name)
        site = _admin(services, keyset)
        planned = plan(site, keyset, step, now=services.clock())
        said = {"keyset": keyset.id, "factory": keyset.factory, "chain": keyset.chain, "reason": reason}
        said["treasury"] = planned.treasury or "none"
        transaction = at.do(f"{step}-treasury", said, lambda tx: ask(tx, site, planned))
    told = f"{step} {planned.treasury or 'nobody any more'}: holders of {site.wallet.id} sign it"
    shown.line(
        {
            "transaction": str(transaction),
            "keyset": keyset.id,
            "factory": keyset.factory,
            "step": step,
            "treasury": planned.treasury,
            "vault": site.wallet.id,
        },
        f"{told}: see `strongroom cold list`",
    )


def _keyset(bundle: Bundle, name: str) -> EvmKeyset:
    known = {each.id: each for each in bundle.keysets if isinstance(each, EvmKeyset)}
    if name not in known:
        raise InvalidValue(f"the bundle has no EVM key-set {name!r}: it has {', '.join(known) or 'none'}")
    return known[name]


def _admin(services: Services, keyset: EvmKeyset) -> SafeSite:
    if keyset.admin is None:
        raise InvalidValue(
            f"the bundle names no Safe as the admin of {keyset.id}'s factory: its admin acts by itself"
        )
    for site in services.wallets():
        if isinstance(site, SafeSite) and site.wallet.id == keyset.admin:
            return site
    raise InvalidValue(f"{keyset.chain} has no node in the settings: nothing can be asked of {keyset.admin}")


def _told(bundle: Bundle, keyset: EvmKeyset, node: CallSource) -> Mapping[str, Any]:
    found = read_factory(raw_address(keyset.factory), node)
    told = [
        each.detail
        for each in factories(bundle, keyset.chain, node)
        if each.subject.split(":")[0] == keyset.id
    ]
    active = active_hot_key(bundle, keyset.chain)
    paid = None if found is None else checksummed(found.treasury)
    return {
        "keyset": keyset.id,
        "chain": keyset.chain,
        "factory": keyset.factory,
        "treasury": paid,
        "paid": next((e.id for e in bundle.keysets if isinstance(e, EvmKeyset) and e.address == paid), None),
        "active": None if active is None else active.id,
        "admin": None if found is None else checksummed(found.admin),
        "proposed": None if found is None else _proposal(found.proposed_treasury),
        "ok": not told,
        "told": told,
    }


def _proposal(proposal: Proposal | None) -> Mapping[str, str] | None:
    if proposal is None:
        return None
    return {
        "treasury": checksummed(proposal.candidate),
        "from": f"{datetime.fromtimestamp(proposal.not_before, UTC):%Y-%m-%dT%H:%M:%SZ}",
        "until": f"{datetime.fromtimestamp(proposal.not_after, UTC):%Y-%m-%dT%H:%M:%SZ}",
    }
