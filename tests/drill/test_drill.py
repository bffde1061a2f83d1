"""Leaving without us (`make drill`): everything is moved out with the recovery kit, the backups and standard tools.

Each test follows README.txt of the kit word by word, on computers that have nothing of ours. The money of each wallet
ends at a new address.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping

import pytest

from chains.btc.multisig import second_opinion
from chains.btc.network import NETWORKS
from chains.eth.forwarder import agreed_forwarder
from ops.stack.contracts import mined
from signers.airgap.keys import HolderKey, words_of
from signers.airgap.secret import Secret
from tests.drill.conftest import ADDRESSES, Left
from tests.support.drill import Computer
from tests.support.leaving import ETHER, entropy, mint, token_balance, words

COIN_SATS = 100_000_000
SENDER = HolderKey(Secret(bytes([99]) * 32), NETWORKS["regtest"])
"""Somebody who pays the gas. Types 24 words, as any wallet has them."""
PAYS_GAS = " ".join(words_of(Secret(bytes([99]) * 32))) + "\n"


def fund_bitcoin(left: Left, wallet: str) -> None:
    """Four coins of 1 BTC: first and last addresses, deposits and change."""
    descriptor = left.wallet(wallet)["descriptor"]
    funds = left.bitcoind.wallet("funds")
    for branch, index in ((0, 0), (0, ADDRESSES - 1), (1, 0), (1, ADDRESSES - 1)):
        funds.send(second_opinion(descriptor, branch, index, NETWORKS["regtest"]), COIN_SATS)
    funds.mine(1)


def holders_sign(left: Left, online: Computer, wallet: str, typed: Mapping[str, str]) -> Iterator[str]:
    """Each on a computer of his own, his signed file comes back, and then his name."""
    for name, backup in typed.items():
        holder = left.computer(name)
        online.carry("*.request.*", holder)
        text = backup
        if backup.startswith("shares of "):
            text = left.secret_of(backup[10:], holder)
            if left.backups.wrapped(backup[10:]).exists():
                shutil.copy(left.backups.wrapped(backup[10:]), holder.kit)
        said = holder.follow(f"sign {wallet}", f"{text}\n", HOLDER=name)
        assert f"This is the key of {name} (" in said or f"Signed by {name} (" in said
        holder.carry(f"{wallet}.signed-*", online)
        holder.close()
        yield name


def empty_bitcoin(left: Left, wallet: str, typed: Mapping[str, str]) -> None:
    """Fund a wallet, and follow README.txt until all of it is at a new address."""
    fund_bitcoin(left, wallet)
    funds, online = left.bitcoind.wallet("funds"), left.online()
    checked = online.follow("check kit")
    assert checked.count(": OK") == len(list(left.kit.iterdir())) - 1
    said = online.follow(f"find {wallet}")
    assert '"success": true' in said
    assert '"trusted": 4.00000000' in said
    # The three addresses that people compare, once in their file and once by bitcoind.
    readme = (online.kit / "README.txt").read_text()
    for at, address in enumerate(left.wallet(wallet)["first_addresses"]["receive"]):
        assert f"  0/{at} {address}" in readme
        assert address in said
    destination = funds.address()
    online.follow(f"build {wallet}", DESTINATION=destination, FEERATE="10")
    last = list(typed)[-1]
    for name in holders_sign(left, online, wallet, typed):
        said = online.follow(f"send {wallet}")
        assert ("NOT COMPLETE: " in said) is (name != last)
    funds.mine(1)
    left_over = online.run(f"bitcoin-cli -chain=regtest -rpcwallet=watch-{wallet} getbalances").stdout
    assert '"trusted": 0.00000000' in left_over
    (arrived,) = (each for each in funds.rpc("listunspent") if each["address"] == destination)
    assert 4 * COIN_SATS - 20_000 < arrived["amount"] * COIN_SATS < 4 * COIN_SATS


def test_three_of_five_holders_empty_the_cold_bitcoin_vault(left: Left) -> None:
    """Two with words, one with the 64 hex digits of joined SLIP-39 shares."""
    typed = {"holder-4": words(4), "holder-0": entropy(0).hex(), "holder-2": words(2).upper()}
    empty_bitcoin(left, "btc-cold", typed)


def test_two_ceremony_backups_empty_the_warm_bitcoin_vault_whose_third_is_lost(left: Left) -> None:
    empty_bitcoin(left, "btc-warm", {"a": "shares of btc-warm/a", "b": "shares of btc-warm/b"})


def test_the_ceremony_backup_empties_the_hot_bitcoin_wallet(left: Left) -> None:
    empty_bitcoin(left, "btc-hot", {"btc-hot": "shares of btc-hot"})


def fund_ethereum(left: Left, address: str) -> None:
    """Native money and both tokens."""
    node = left.anvil
    node.fund(SENDER.evm_address, ETHER)
    mined(node, node.send_eth(node.accounts()[0], address, 3 * ETHER))
    for token in (left.tokens.usdc, left.tokens.usdt):
        mint(node, token, address, 1_234_567)


def holdings(left: Left, address: str) -> tuple[int, int, int]:
    """Wei, and base units of both tokens."""
    usdc, usdt = (token_balance(left.anvil, token, address) for token in (left.tokens.usdc, left.tokens.usdt))
    return left.anvil.balance_wei(address), usdc, usdt


def new_address(left: Left) -> str:
    """One that has nothing yet."""
    return f"0x{len(left.computers) + 4_000_000_000_000_000_000:040d}"


def empty_safe(left: Left, wallet: str, typed: Mapping[str, str]) -> None:
    """Fund a Safe, and follow README.txt until all of it is at a new address."""
    safe, destination = left.wallet(wallet)["address"], new_address(left)
    fund_ethereum(left, safe)
    before = holdings(left, safe)
    online = left.online()
    said = online.follow(f"build {wallet}", RPC=left.anvil.rpc_url, DESTINATION=destination)
    assert f"1.234567 USDC to {destination}" in said
    assert f"3.000000000000000000 ETH to {destination}" in said
    last = list(typed)[-1]
    for number, name in enumerate(holders_sign(left, online, wallet, typed), 1):
        if name == last:
            online.follow(f"send {wallet}", PAYS_GAS, RPC=left.anvil.rpc_url)
        else:
            said = online.fails(f"send {wallet}", PAYS_GAS, RPC=left.anvil.rpc_url)
            assert (
                f"{number} of {len(typed)} owners have signed: {len(typed) - number} more are needed" in said
            )
    assert holdings(left, safe) == (0, 0, 0)
    assert holdings(left, destination) == before
    # Again changes nothing.
    again = online.follow(f"send {wallet}", PAYS_GAS, RPC=left.anvil.rpc_url)
    assert again.count("was carried out before") == 3
    assert holdings(left, destination) == before


def test_three_of_five_holders_empty_the_cold_safe(left: Left) -> None:
    empty_safe(left, "eth-cold", {"holder-3": words(3), "holder-1": entropy(1).hex(), "holder-4": words(4)})


def test_two_ceremony_backups_empty_the_warm_safe_whose_third_owner_is_lost(left: Left) -> None:
    empty_safe(left, "eth-warm", {"b": "shares of eth-warm/b", "a": "shares of eth-warm/a"})


def test_anybody_flushes_deposit_addresses_and_the_ceremony_backup_empties_the_hot_key(left: Left) -> None:
    wallet = left.wallet("eth-hot")
    for index in (0, 1, 17, ADDRESSES - 1):
        fund_ethereum(left, agreed_forwarder(wallet["factory"], wallet["forwarder"], index))
    online, destination = left.online(), new_address(left)
    said = online.follow("flush eth-hot", PAYS_GAS, RPC=left.anvil.rpc_url, COUNT=str(ADDRESSES))
    assert f"(number 17): 3.{'0' * 18} ETH" in said
    assert f"treasury {wallet['address']}" in said
    before = holdings(left, wallet["address"])
    assert before == (12 * ETHER, 4 * 1_234_567, 4 * 1_234_567)
    again = online.follow("flush eth-hot", RPC=left.anvil.rpc_url, COUNT=str(ADDRESSES))
    assert f"first {ADDRESSES} deposit addresses hold nothing" in again
    shutil.copy(left.backups.wrapped("eth-hot"), online.kit)
    secret = left.secret_of("eth-hot", left.computer("offline"))
    online.follow("pay eth-hot", f"{secret}\n", RPC=left.anvil.rpc_url, DESTINATION=destination)
    assert holdings(left, wallet["address"]) == (0, 0, 0)
    wei, *tokens = holdings(left, destination)
    assert tokens == list(before[1:])
    assert 12 * ETHER - ETHER // 100 < wei < 12 * ETHER


@pytest.mark.parametrize("module", ["custody", "signers", "chains", "policies", "ops"])
def test_nothing_of_ours_is_on_the_computers_of_the_drill(left: Left, module: str) -> None:
    done = left.computer("bare").run(f"python3 -c 'import {module}'")
    assert f"No module named '{module}'" in done.stdout
