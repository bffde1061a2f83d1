"""`strongroom up`: the whole stack in the foreground."""

from __future__ import annotations

import shutil
import signal
import sys
from pathlib import Path

from rich.console import Console
from rich.panel import Panel

from ops.devnet.errors import DevnetError
from ops.stack.stack import Stack
from ops.stack.supervise import Supervisor


def run(data: Path, *, port: int) -> None:
    """Runs the stack until Ctrl-C or SIGTERM; processes that end are started again.

    Args:
        data: data directory.
        port: of the API on 127.0.0.1; 0 takes a free one.
    """
    console = Console()
    end_on_sigterm()
    stack = Stack(data, api_port=port, tell=lambda text: console.print(text, highlight=False))
    try:
        with stack:
            console.print(
                Panel(hints(stack), title="Strongroom is up until Ctrl-C", border_style="cyan", expand=False)
            )
            supervisor = Supervisor(stack.processes, console.print)
            supervisor.start()
            try:
                signal.pause()
            finally:
                supervisor.stop()
                signal.signal(signal.SIGINT, signal.SIG_IGN)
    except KeyboardInterrupt:
        console.print("stopped; the data stay in " + str(stack.directory), highlight=False)
    except DevnetError as error:
        console.print(str(error), style="red", highlight=False, markup=False)
        sys.exit(1)


def end_on_sigterm() -> None:
    """Lets SIGTERM do what Ctrl-C does, so that nothing is left running either way."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    # A shell starts background jobs with SIGINT ignored; then `kill -INT` would do nothing.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def hints(stack: Stack) -> str:
    """What to type next; every line works when pasted."""
    program = shutil.which("strongroom") or str(Path(sys.executable).with_name("strongroom"))
    cli = f"{stack.directory}/bitcoin-cli"
    lines = [
        f"API      {stack.api_url}   (also /openapi.json, /readyz, /metrics)",
        f"data     {stack.directory}   (logs: {stack.directory}/logs)",
        "",
        "as the exchange, in another terminal:",
        f"  export STRONGROOM_CLIENT={stack.directory}/clients/exchange.toml",
        f"  {program} status",
        f"  {program} customer create dave",
        f"  {program} address new --customer dave",
        f"  {program} account balances alice",
        f"  {program} deposit list",
        f"  {program} withdrawal list",
        f"  {program} event follow --once",
        "",
        "as an operator:",
        f"  STRONGROOM_CONFIG={stack.directory}/config/reconcile.toml {program} reconcile",
        "",
        "as the outside world (pay an address, mine a block):",
        f"  {cli} -rpcwallet=outside sendtoaddress ADDRESS 0.1",
        f"  {cli} -rpcwallet=miner -generate 6",
    ]
    return "\n".join(lines)
