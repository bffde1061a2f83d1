"""`strongroom up`: the whole stack in the foreground."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Final

from rich.console import Console

from chains.btc.multisig import agreed_multisig_address, parse_multisig
from chains.btc.network import NETWORKS
from ops.devnet.errors import DevnetError
from ops.devnet.external import VARIABLE
from ops.stack.config import shell_file
from ops.stack.listing import BTC_SATS
from ops.stack.names import BTC_COLD, BTC_WARM
from ops.stack.networks import GAS_MONEY_WEI, TrialNetwork
from ops.stack.stack import Stack
from ops.stack.supervise import Supervisor
from policies.bundle import BitcoinVault, Bundle, EvmKeyset, EvmVault, GasPayer

TIERS_BEGIN_SATS: Final = {BTC_WARM: 5 * BTC_SATS, BTC_COLD: 40 * BTC_SATS}
"""What operators send to the vaults of `strongroom up`."""
SAFES_BEGIN: Final = {"warm": 20, "cold": 300}
"""Whole ether that they send to the Safes."""


def run(data: Path, *, port: int) -> None:
    """Runs the stack until Ctrl-C or SIGTERM; processes that end are started again.

    Args:
        data: data directory.
        port: of the API on 127.0.0.1; 0 takes a free one.
    """
    console = Console()
    end_on_sigterm()
    try:
        stack = Stack(
            data,
            api_port=port,
            database_url=os.environ.get(VARIABLE),
            tell=lambda text: console.print(text, highlight=False),
        )
        with stack:
            outside_world(stack)
            show_hints(stack, console, title="Strongroom is up until Ctrl-C")
            supervisor = Supervisor(stack.processes, console.print)
            supervisor.start()
            try:
                signal.pause()
            finally:
                supervisor.stop()
                signal.signal(signal.SIGINT, signal.SIG_IGN)
    except KeyboardInterrupt:
        console.print(f"stopped; the data stay in {data.absolute()}", highlight=False)
    except (DevnetError, OSError) as error:
        console.print(str(error), style="red", highlight=False, markup=False)
        sys.exit(1)


def outside_world(stack: Stack) -> None:
    """Wallets for people to play with: `outside` with coins to spend, and `miner`; gas for the keys that send; and what
    the tiers begin with, of which the treasury will want some in hot."""
    outside, miner = stack.node.wallet("outside"), stack.node.wallet("miner")
    if outside.balance_sats() == 0:
        outside.fund()
        outside.mine(1)
        miner.mine(100)
        outside.send_many(
            {first_address(stack.bundle, name): sats for name, sats in TIERS_BEGIN_SATS.items()}
        )
        miner.mine(6)
    for network, node in stack.chains.items():
        giver = node.accounts()[1]
        for address, wei in _first_ether(stack.bundle, network).items():
            if node.balance_wei(address) == 0:
                node.send_eth(giver, address, wei)
                node.mine()
        node.finalize()


def first_address(bundle: Bundle, vault: str) -> str:
    """Where operators send what a Bitcoin vault begins with: the first address of its own branch."""
    found = bundle.wallet(vault)
    assert isinstance(found, BitcoinVault)
    members = [(each.origin, each.account) for each in found.cosigners]
    return agreed_multisig_address(parse_multisig(found.threshold, members, NETWORKS["regtest"]), 1, 0)


def _first_ether(bundle: Bundle, network: TrialNetwork) -> dict[str, int]:
    """By address, what keys that send and Safes begin with."""
    found: dict[str, int] = {}
    for wallet in bundle.wallets:
        if wallet.chain != network.chain or not isinstance(wallet, EvmKeyset | EvmVault | GasPayer):
            continue
        found[wallet.address] = GAS_MONEY_WEI * SAFES_BEGIN.get(wallet.tier, 1)
    return found


def end_on_sigterm() -> None:
    """Lets SIGTERM do what Ctrl-C does, so that nothing is left running either way."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    # A shell starts background jobs with SIGINT ignored; then `kill -INT` would do nothing.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def show_hints(stack: Stack, console: Console, *, title: str) -> None:
    """Says what to type next; every line works when it is pasted into another terminal."""
    console.print()
    console.rule(title, style="cyan")
    lines = f"""\
  API    {stack.api_url}   (/openapi.json, /readyz, /metrics)
  trading core {stack.trading_url}   (/openapi.json, /readyz)
  data   {stack.directory}   (logs in {stack.directory}/logs)

In another terminal:
  . {shell_file(stack.directory)}
  strongroom status
  strongroom customer create dave
  strongroom address new --customer dave
  strongroom deposit list
  strongroom withdrawal list
  strongroom event follow --once
  strongroom reconcile
  strongroom operator halts

Play the outside world there: pay an address, mine six blocks, get an address to withdraw to.
  bitcoin-cli -rpcwallet=outside sendtoaddress ADDRESS 0.5
  bitcoin-cli -rpcwallet=miner -generate 6      # again later, to settle what was withdrawn
  strongroom withdrawal create --customer dave --amount 0.01 --to $(bitcoin-cli -rpcwallet=outside getnewaddress)

The same on Ethereum, with one address for ETH and USDX (or on a second network: XETH).
  strongroom address new --customer dave --asset ETH
  eth send ADDRESS 1.5
  eth send ADDRESS 250 USDX
  strongroom sweep list         # broadcast after a few seconds
  eth mine                      # now it is in the hot wallet, which can pay
  strongroom withdrawal create --customer dave --asset USDX --amount 20 --to $(eth address)
  strongroom withdrawal list    # broadcast after a few seconds
  eth mine                      # settled

Two treasurers (ada, ben, cleo or dora) approve what is large for the hot wallet.
  strongroom withdrawal create --customer dave --amount 0.06 --to $(bitcoin-cli -rpcwallet=outside getnewaddress)
  strongroom approve            # what waits
  strongroom approve ID --approver ada --key {stack.directory}/officers/approvers/ada.pem
  strongroom approve ID --approver cleo --key {stack.directory}/officers/approvers/cleo.pem

From 0.1 BTC on warm pays: two treasurers approve, and two of three signers sign (berlin, lisbon, oslo). From 10 BTC on
cold pays: three approve, and three of five holders sign offline. Refills between tiers are approved like payments.
  strongroom withdrawal create --customer dave --amount 0.2 --to $(bitcoin-cli -rpcwallet=outside getnewaddress)
  strongroom tier               # what each tier holds and should hold, and what moves
  strongroom refill list        # what the treasury proposes
  strongroom cold list          # what holders are to sign: cold export, strongroom-airgap sign, cold import
  strongroom-airgap --home {stack.directory}/holders/ines/home key record
  cat {stack.directory}/holders/ines/passphrase   # of her key; only a trial has it in a file

As an officer, at the signer itself.
  strongroom key status --signer $STRONGROOM_SIGNER
  strongroom key freeze asset:USDX --signer $STRONGROOM_SIGNER --officer olga --key {stack.directory}/officers/olga.pem
"""
    console.print(lines, highlight=False, markup=False, soft_wrap=True)
