"""`strongroom safe`: the bundle's Safes, read back from the chain before anybody funds them, and whenever asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from chains.errors import InvalidValue
from chains.eth.address import checksummed, raw_address
from chains.eth.node import EvmNode
from chains.eth.safe_report import SafeReport, objections
from chains.types import BlockRef
from custody.config import Settings
from custody.console.acting import CONFIG_VARIABLE, worker_settings
from custody.console.outcome import Exit, outcome, output
from custody.console.pinned import pinned_bundle
from custody.console.root import AsJson, app
from custody.nodes import open_node
from custody.ports import system_clock
from policies.bundle import Bundle, EvmVault

safe_app = typer.Typer(
    help=f"Safes: are they on the chain what the bundle says? {CONFIG_VARIABLE} names the workers' settings file.",
    no_args_is_help=True,
)
app.add_typer(safe_app, name="safe")

_SHOWN = (
    "vault", "chain", "address", "block", "ok", "objections", "version", "owners", "threshold", "modules", "guard",
    "fallback_handler", "nonce",
)  # fmt: skip


@safe_app.callback()
def _group() -> None:
    """Keeps `check` a verb of its own."""


@safe_app.command("check")
def check(
    vault: Annotated[
        str | None, typer.Argument(help="Id of the vault in the bundle; all that are Safes if not given.")
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Read owners, threshold, code and all that could act in a Safe's name back from the chain. Exit 1: it differs."""
    shown = output(as_json=as_json)
    with outcome(shown):
        settings = worker_settings()
        bundle = pinned_bundle(settings.bundle_path, settings.trust_root_path, now=system_clock())
        found = [_told(each, *read_safe(settings, bundle, each)) for each in wanted(bundle, vault)]
    shown.many(found, _SHOWN, none="The bundle has no Safe.")
    if not all(each["ok"] for each in found):
        raise typer.Exit(int(Exit.REFUSED))


def wanted(bundle: Bundle, vault: str | None) -> list[EvmVault]:
    """The Safes to look at: one, or all of the bundle. Raises InvalidValue: there is no such Safe."""
    safes = [each for each in bundle.vaults if isinstance(each, EvmVault)]
    if vault is None:
        return safes
    found = [each for each in safes if each.id == vault]
    if not found:
        known = ", ".join(each.id for each in safes) or "none"
        raise InvalidValue(f"the bundle has no Safe {vault!r}: it has {known}")
    return found


def read_safe(settings: Settings, bundle: Bundle, vault: EvmVault) -> tuple[SafeReport, BlockRef]:
    """What a Safe's chain says of it, and at which block. Raises InvalidValue, NodeUnavailable."""
    if vault.chain not in settings.nodes:
        raise InvalidValue(f"no node is configured for {vault.chain}: add it to the settings' nodes")
    node = open_node(lambda: bundle, vault.chain, settings.nodes[vault.chain])
    assert isinstance(node, EvmNode), "a Safe's network is of the EVM family, or the bundle is refused"
    try:
        at = node.tip()
        return node.safes.inspect(raw_address(vault.address), at), at
    finally:
        node.close()


def _told(vault: EvmVault, report: SafeReport, at: BlockRef) -> Mapping[str, Any]:
    found = objections(report, [raw_address(owner.address) for owner in vault.owners], vault.threshold)
    names = {raw_address(owner.address): owner.id for owner in vault.owners}
    return {
        "vault": vault.id,
        "chain": vault.chain,
        "address": vault.address,
        "block": str(at),
        "ok": not found,
        "objections": found,
        "version": report.version,
        "owners": [f"{checksummed(each)} {names.get(each, 'unknown')}" for each in report.owners],
        "threshold": report.threshold,
        "modules": [checksummed(each) for each in report.modules],
        "guard": None if report.guard is None else checksummed(report.guard),
        "fallback_handler": None if report.fallback_handler is None else checksummed(report.fallback_handler),
        "nonce": report.nonce,
    }
