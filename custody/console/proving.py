"""`strongroom cold prove`: a cold vault is tried out before real money goes to it, step by step, and recorded."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from chains.btc.node import BitcoinNode
from chains.errors import InvalidValue
from custody.console.acting import Session
from custody.console.cold import cold_app
from custody.console.operator import acting, utc_text
from custody.console.outcome import Exit, Form, output
from custody.console.root import AsJson
from custody.console.safes import read_safe
from custody.nodes import open_node
from custody.signing.cold import proofs, proving
from custody.signing.cold.proving import Moved, Step
from policies.bundle import BitcoinVault, Bundle, EvmVault, Vault

_SHOWN: Final = ("step", "done", "told")
Readings = Annotated[
    list[str] | None,
    typer.Option(
        "--read",
        help="HOLDER=LETTERS: the last twelve letters of the vault's first address (a Safe's: of its address), as a"
        " holder reads them to you from the offline machine; again for more.",
    ),
]


@cold_app.command("prove")
def prove(
    vault: Annotated[str, typer.Argument(help="Id of the vault in the bundle.")],
    read: Readings = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Try a cold vault out before real money: what is done, what to do next; recorded when all is. Exit 1: not yet."""
    shown = output(as_json=as_json)
    with acting(shown) as at:
        if at.bundle is None:
            raise InvalidValue("no bundle can be believed: nothing can be proven")
        entry = proofs.cold_vault(at.bundle.wallet(vault))
        if entry is None:
            raise InvalidValue(f"{vault} is no vault of the cold tier")
        with at.database.snapshot() as tx:
            known, found = proofs.find(tx, entry), proving.moved(tx, at.bundle, entry)
        if known is None:
            steps = _steps(at, at.bundle, entry, _readings(read or []), found)
            done = all(step.done for step in steps)
            if done:
                _record(at, entry, found, steps)
        else:
            steps = tuple(Step(name, done=True, told=told) for name, told in known.told)
            done = True
    rows = [{"step": step.name, "done": step.done, "told": step.told} for step in steps]
    if shown.form is Form.PROGRAMS:
        shown.one({"vault": vault, "proven": done, "steps": rows}, ())
    else:
        shown.many(rows, _SHOWN, none="")
        since = "" if known is None else f" since {utc_text(known.proven_at)}"
        typer.echo(f"{vault} is proven{since}." if done else f"{vault} is NOT proven yet.")
    if not done:
        raise typer.Exit(int(Exit.REFUSED))


def _steps(
    at: Session, bundle: Bundle, vault: Vault, readings: dict[str, str], found: Moved
) -> tuple[Step, ...]:
    small = bundle.told(
        bundle.network(vault.chain).native_asset,
        proofs.small_units(bundle, bundle.network(vault.chain).native_asset),
    )
    if isinstance(vault, EvmVault):
        report, _ = read_safe(at.settings, bundle, vault)
        return proving.safe_steps(vault, readings, found, report, small=small)
    if vault.chain not in at.settings.nodes:
        raise InvalidValue(f"no node is configured for {vault.chain}: add it to the settings' nodes")
    node = open_node(lambda: bundle, vault.chain, at.settings.nodes[vault.chain])
    assert isinstance(vault, BitcoinVault)
    assert isinstance(node, BitcoinNode), (
        "a Bitcoin vault's network is of that family, or the bundle is refused"
    )
    try:
        return proving.bitcoin_steps(bundle, vault, readings, found, node, small=small)
    finally:
        node.close()


def _record(at: Session, vault: Vault, found: Moved, steps: tuple[Step, ...]) -> None:
    payment = proving.transaction_of(found)
    told = [(step.name, step.told) for step in steps]
    at.do(
        "cold-prove",
        {"wallet": vault.id, "digest": proofs.digest_of(vault), "transaction": str(payment)},
        lambda tx: proofs.keep(tx, vault, payment, told),
    )


def _readings(given: list[str]) -> dict[str, str]:
    """Holder and letters. Raises InvalidValue."""
    found = {}
    for each in given:
        who, equals, letters = each.partition("=")
        if not (who and equals and len(letters.strip()) == proving.LETTERS):
            raise InvalidValue(f"{each!r}: expected HOLDER=LETTERS, with the last {proving.LETTERS} letters")
        found[who.strip()] = letters.strip()
    return found
