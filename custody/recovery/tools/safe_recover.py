#!/usr/bin/env python3
"""Empties Safes, keys and deposit addresses on Ethereum. Needs Python 3.9, this folder and `pip install eth-account`.

    build WALLET --rpc URL --to ADDRESS --out FILE     online: what a Safe is to pay: all that it holds
    sign FILE --out FILE                               offline, each owner: asks for the backup
    send FILE SIGNED... --rpc URL                      online: asks for a key that pays the gas
    pay WALLET --rpc URL --to ADDRESS                  an ordinary key: asks for it, pays all that it holds
    flush WALLET --rpc URL --count N                   deposit addresses to their treasury: asks for a key for the gas

Again changes nothing: what has been paid is not paid twice, as each payment of a Safe has its own number (nonce).
Sources: Safe.sol 1.4.1, EIP-712, EIP-1559, EIP-1014 (addresses of deposits).
"""

import argparse
import json
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from eth_account import Account
from eth_account.hdaccount.mnemonic import Mnemonic
from eth_account.messages import encode_typed_data
from eth_utils.address import is_checksum_address, to_checksum_address
from eth_utils.crypto import keccak

Json = dict[str, Any]

HERE = Path(__file__).resolve().parent
NOBODY = "0x" + "00" * 20
TRANSFER = keccak(b"transfer(address,uint256)")[:4].hex()
EXECUTE = keccak(
    b"execTransaction(address,uint256,bytes,uint8,uint256,uint256,uint256,address,address,bytes)"
)[:4].hex()
FLUSH = keccak(b"flush(bytes32[],address[])")[:4].hex()
FIELDS = [
    ("address", "to"),
    ("uint256", "value"),
    ("bytes", "data"),
    ("uint8", "operation"),
    ("uint256", "safeTxGas"),
    ("uint256", "baseGas"),
    ("uint256", "gasPrice"),
    ("address", "gasToken"),
    ("address", "refundReceiver"),
    ("uint256", "nonce"),
]
DOMAIN = [("uint256", "chainId"), ("address", "verifyingContract")]
AT_ONCE = 50
"""Deposit addresses in one flush."""
WAIT_SECONDS = 600


def stop(sentence: str) -> NoReturn:
    """Ends with a sentence for people."""
    sys.exit("safe_recover: " + sentence)


def say(sentence: str) -> None:
    """For people; what programs read goes to files."""
    print(sentence, file=sys.stderr, flush=True)


# What a person types.


def ask(what: str) -> str:
    """One line. Of a pipe nothing is asked: who stands before it in the pipe asks."""
    if sys.stdin.isatty():
        say(what)
    text = sys.stdin.readline().strip()
    if not text:
        stop("nothing was typed")
    return text


def keys_in(text: str) -> Iterator[Any]:
    """The keys that a backup can mean: of words the key at m/44'/60'/0'/0/0; of digits also themselves."""
    Account.enable_unaudited_hdwallet_features()
    if " " not in text:
        try:
            raw = bytes.fromhex(text[2:] if text.startswith("0x") else text)
        except ValueError:
            raw = b""
        if len(raw) != 32:
            stop("this is neither words with spaces between them nor 64 hex digits")
        yield Account.from_key(raw)
        text = Mnemonic().to_mnemonic(raw)
    elif len(text.split()) in (20, 33):
        stop(
            "this is one share of several (SLIP-39): join them with `shamir recover`, and type the 64 hex digits"
        )
    try:
        yield Account.from_mnemonic(" ".join(text.lower().split()), account_path="m/44'/60'/0'/0/0")
    except Exception:  # noqa: BLE001 - whatever the library says of it
        stop("these words do not fit together: one is wrong or missing, or two changed places")


def gas_payer() -> Any:
    """A key of the person's own."""
    return next(
        keys_in(ask("Type the key (64 hex digits, or words) of an address of yours that pays the gas:"))
    )


# What a node says.


class Node:
    """An Ethereum node."""

    def __init__(self, url: str, chain_id: int) -> None:
        self.url = url
        found = int(self("eth_chainId"), 16)
        if found != chain_id:
            stop(f"this node is of chain {found}, the wallet of chain {chain_id}")

    def __call__(self, method: str, *params: Any) -> Any:
        """What it answers; stops if it refuses."""
        found = self.ask(method, *params)
        if "error" in found:
            stop(f"the node refuses {method}: {found['error'].get('message')}")
        return found["result"]

    def ask(self, method: str, *params: Any) -> Json:
        """Result or error, by JSON-RPC."""
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}).encode()
        asked = urllib.request.Request(self.url, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(asked, timeout=60) as answer:
                found: Json = json.load(answer)
                return found
        except (OSError, ValueError) as error:
            stop(f"the node at {self.url} does not answer: {error}")

    def moves(self, contract: str, holder: str, data: str) -> bool:
        """Whether a token would let its holder pay: one may be paused, or have a black list."""
        return "error" not in self.ask("eth_call", {"from": holder, "to": contract, "data": data}, "latest")

    def has_owner(self, safe: Json, owner: str) -> bool:
        """Whether the Safe on the chain has this owner."""
        return bool(self.number(safe["address"], "0x2f54bf6e" + owner[2:].lower().rjust(64, "0")))

    def number(self, to: str, data: str) -> int:
        """A number that a contract tells."""
        found = self("eth_call", {"to": to, "data": data}, "latest")
        if len(found) < 66:
            stop("there is no such contract at " + to)
        return int(found[:66], 16)

    def holds(self, contract: Any, address: str) -> int:
        """Base units that an address has of a token, or of native money (None)."""
        if contract is None:
            return int(self("eth_getBalance", address, "latest"), 16)
        return self.number(contract, "0x70a08231" + address[2:].lower().rjust(64, "0"))

    def send(self, key: Any, to: str, value: int, data: str) -> None:
        """Sign, send, and wait until it is in a block. `value` below 0: all that is left."""
        price = self.price()
        call = {"from": key.address, "to": to, "value": hex(max(value, 0)), "data": data}
        gas = int(self("eth_estimateGas", call), 16)
        gas = gas if data == "0x" else gas * 5 // 4
        balance = self.holds(None, key.address)
        value = balance - gas * price if value < 0 else value
        if value < 0 or balance < value + gas * price:
            stop(f"{key.address} has {balance} wei: too little for gas of {gas * price} wei")
        raw = key.sign_transaction(
            {
                "type": 2,
                "chainId": int(self("eth_chainId"), 16),
                "nonce": int(self("eth_getTransactionCount", key.address, "pending"), 16),
                "to": to_checksum_address(to),
                "value": value,
                "data": data,
                "gas": gas,
                # Both the same: so the fee is known to the wei, and all that is left can leave.
                "maxFeePerGas": price,
                "maxPriorityFeePerGas": price,
            }
        ).raw_transaction
        txid = self("eth_sendRawTransaction", "0x" + bytes(raw).hex())
        say("  sent: " + txid)
        self.wait(txid)

    def price(self) -> int:
        """Wei per gas."""
        base = int(self("eth_getBlockByNumber", "latest", False)["baseFeePerGas"], 16)
        return base * 5 // 4 + int(self("eth_maxPriorityFeePerGas"), 16)

    def wait(self, txid: str) -> None:
        """Until it is in a block, and did not fail."""
        end = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < end:
            receipt = self("eth_getTransactionReceipt", txid)
            if receipt is not None:
                if int(receipt["status"], 16) != 1:
                    stop(f"{txid} is in a block, but FAILED: nothing was paid by it")
                say(f"  in block {int(receipt['blockNumber'], 16)}")
                return
            time.sleep(1)
        stop(f"{txid} is in no block yet: run the same command again later")


# What is signed.


def told(kit: Json, chain: str, contract: Any, units: int) -> str:
    """An amount for people."""
    for each in kit["assets"]:
        if each["chain"] == chain and (each["contract"] or "").lower() == (contract or "").lower():
            whole, part = divmod(units, 10 ** each["decimals"])
            return f"{whole}.{part:0{each['decimals']}d} {each['asset']}"
    stop(f"the token {contract} is not in kit.json: it is not paid")


def transfer(to: str, units: int) -> str:
    """Calldata of a token's transfer."""
    return "0x" + TRANSFER + word(int(to, 16)) + word(units)


def meaning(kit: Json, safe: Json, tx: Json) -> tuple[str, str]:
    """What a transaction pays and to whom, from its own bytes. Stops at anything else than a payment."""
    data = tx["data"]
    if data == "0x":
        return told(kit, safe["chain"], None, int(tx["value"])), to_checksum_address(tx["to"])
    if int(tx["value"]) == 0 and data[2:10] == TRANSFER and len(data) == 138 and data[10:34] == "0" * 24:
        return told(kit, safe["chain"], tx["to"], int(data[74:], 16)), to_checksum_address("0x" + data[34:74])
    stop("this request does something else than a payment: do not sign it")


def typed(safe: Json, tx: Json) -> Any:
    """EIP-712 of one transaction. All that has to do with refunds and delegated calls is zero, always."""
    message = {
        "to": tx["to"],
        "value": int(tx["value"]),
        "data": bytes.fromhex(tx["data"][2:]),
        "operation": 0,
        "safeTxGas": 0,
        "baseGas": 0,
        "gasPrice": 0,
        "gasToken": NOBODY,
        "refundReceiver": NOBODY,
        "nonce": int(tx["nonce"]),
    }
    return encode_typed_data(
        full_message={
            "types": {
                "EIP712Domain": [{"type": kind, "name": name} for kind, name in DOMAIN],
                "SafeTx": [{"type": kind, "name": name} for kind, name in FIELDS],
            },
            "primaryType": "SafeTx",
            "domain": {"chainId": safe["chain_id"], "verifyingContract": safe["address"]},
            "message": message,
        }
    )


def hash_of(safe: Json, tx: Json) -> str:
    """The safeTxHash."""
    found = typed(safe, tx)
    return "0x" + bytes(keccak(b"\x19" + found.version + found.header + found.body)).hex()


def word(number: int) -> str:
    """A number as 64 hex digits."""
    return format(number, "064x")


def packed(data: str) -> str:
    """Bytes as ABI has them: their length, themselves, zeros."""
    return word(len(data) // 2) + data + "0" * (-len(data) % 64)


def execution(tx: Json, signatures: list[str]) -> str:
    """Calldata of execTransaction."""
    data = packed(tx["data"][2:])
    head = [int(tx["to"], 16), int(tx["value"]), 320, 0, 0, 0, 0, 0, 0, 320 + len(data) // 2]
    return "0x" + EXECUTE + "".join(map(word, head)) + data + packed("".join(signatures))


# The files.


def read(path: Any) -> Json:
    """A JSON file."""
    try:
        found = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        stop(f"{path}: {error}")
    if not isinstance(found, dict):
        stop(f"{path} is no file of this program")
    return found


def wallet_of(kit: Json, name: str, kinds: tuple[str, ...]) -> Json:
    """A wallet of the kit."""
    known: list[Json] = [each for each in kit["ethereum"] if each["kind"] in kinds]
    for each in known:
        if each["wallet"] == name:
            return each
    names = ", ".join(each["wallet"] for each in known)
    stop(f"kit.json has no such wallet as {name!r}, but {names}")


def destination(text: str) -> str:
    """An address, with its checksum where it has capitals."""
    small = text.lower()
    if re.fullmatch("0x[0-9a-f]{40}", small) is None or (text != small and not is_checksum_address(text)):
        stop(f"the address {text} is written wrong: expected 0x and 40 digits, capitals as they were")
    return to_checksum_address(small)


def request_of(kit: Json, path: str) -> tuple[Json, list[Json]]:
    """The Safe of a request, as the kit knows it, and its transactions."""
    found = read(path)
    if found.get("type") != "safe-recovery-request":
        stop(f"{path} is no request: make one with `build`")
    return wallet_of(kit, found["wallet"], ("safe",)), found["transactions"]


def payments(kit: Json, node: Node, safe: Json, to: str) -> Iterator[Json]:
    """All that a Safe holds, native money first: nothing else can hold that up."""
    for each in sorted(kit["assets"], key=lambda asset: asset["contract"] is not None):
        units = node.holds(each["contract"], safe["address"]) if each["chain"] == safe["chain"] else 0
        if units == 0:
            continue
        if each["contract"] is None:
            yield {"to": to, "value": str(units), "data": "0x"}
        elif node.moves(each["contract"], safe["address"], transfer(to, units)):
            yield {"to": to_checksum_address(each["contract"]), "value": "0", "data": transfer(to, units)}
        else:
            say(f"LEFT OUT: {each['asset']} does not let the Safe pay now; build again later for it")


def build(kit: Json, given: Any) -> None:
    """Write what a Safe is to pay."""
    safe, to = wallet_of(kit, given.wallet, ("safe",)), destination(given.to)
    node = Node(given.rpc, safe["chain_id"])
    threshold, nonce = node.number(safe["address"], "0xe75235b8"), node.number(safe["address"], "0xaffed0e0")
    if threshold != safe["threshold"]:
        say(f"NOTE: on the chain {threshold} owners must sign, the kit says {safe['threshold']}")
    for owner in safe["owners"]:
        if not node.has_owner(safe, owner["address"]):
            say(f"NOTE: {owner['id']} is no owner of the Safe any more")
    transactions = [{**tx, "nonce": nonce + at} for at, tx in enumerate(payments(kit, node, safe, to))]
    if not transactions:
        stop(f"the Safe {safe['address']} holds nothing of what kit.json lists that could be paid")
    for tx in transactions:
        say(f"nonce {tx['nonce']}: {' to '.join(meaning(kit, safe, tx))}")
    request = {
        "type": "safe-recovery-request",
        "v": 1,
        "wallet": safe["wallet"],
        "transactions": transactions,
    }
    Path(given.out).write_text(json.dumps(request, indent=2) + "\n")
    say(f"Written to {given.out}: {threshold} owners sign it.")


def sign(kit: Json, given: Any) -> None:
    """Sign a request as one owner."""
    safe, transactions = request_of(kit, given.request)
    say(f"SAFE {safe['wallet']}, {safe['address']} on chain {safe['chain_id']} pays")
    for tx in transactions:
        say(f"  {' to '.join(meaning(kit, safe, tx))}   (nonce {tx['nonce']})")
        say(f"      hash {hash_of(safe, tx)}")
    say("If this is not what you have agreed on, end here (Ctrl-C).")
    owners = {each["address"].lower(): each for each in safe["owners"]}
    text = ask("Type your backup (words in one line, or 64 hex digits), then Enter:")
    keys = [key for key in keys_in(text) if key.address.lower() in owners]
    if not keys:
        names = ", ".join(each["id"] for each in safe["owners"])
        stop(
            f"this backup is of none of the owners ({names}). Is it of another wallet, or were shares of "
            "different backups joined?"
        )
    owner = owners[keys[0].address.lower()]
    signatures = [
        {"hash": hash_of(safe, tx), "signature": bytes(keys[0].sign_message(typed(safe, tx)).signature).hex()}
        for tx in transactions
    ]
    signed = {"type": "safe-recovery-signature", "v": 1, "owner": owner["address"], "signatures": signatures}
    Path(given.out).write_text(json.dumps(signed, indent=2) + "\n")
    say(f"Signed by {owner['id']} ({owner['organisation']}). Carry back: {given.out}")


def send(kit: Json, given: Any) -> None:
    """Carry a request out that enough owners have signed."""
    safe, transactions = request_of(kit, given.request)
    node = Node(given.rpc, safe["chain_id"])
    threshold = node.number(safe["address"], "0xe75235b8")
    signed = {tx["nonce"]: signatures_for(node, safe, tx, given.signed) for tx in transactions}
    fewest = min(len(each) for each in signed.values())
    if fewest < threshold:
        stop(f"{fewest} of {threshold} owners have signed: {threshold - fewest} more are needed")
    payer = gas_payer()
    for tx in transactions:
        paid, to = meaning(kit, safe, tx)
        nonce = node.number(safe["address"], "0xaffed0e0")
        if nonce > tx["nonce"]:
            say(f"{paid} to {to}: was carried out before (nonce {tx['nonce']} is used)")
            continue
        if nonce < tx["nonce"]:
            stop(f"the Safe waits for nonce {nonce} first: build a new request")
        say(f"{paid} to {to}")
        ordered = [signed[tx["nonce"]][owner] for owner in sorted(signed[tx["nonce"]])][:threshold]
        node.send(payer, safe["address"], 0, execution(tx, ordered))
    say("Done.")


def signatures_for(node: Node, safe: Json, tx: Json, paths: list[str]) -> dict[str, str]:
    """Signatures of one transaction by owner, each looked at: whose it is, and whether the Safe has this owner."""
    digest = hash_of(safe, tx)
    found: dict[str, str] = {}
    for path in paths:
        file = read(path)
        if file.get("type") != "safe-recovery-signature":
            stop(f"{path} is no signed file: make one with `sign`")
        given = [each["signature"] for each in file["signatures"] if each["hash"] == digest]
        if not given:
            say(f"LEFT OUT: {path} is a signature of another request")
            continue
        try:
            owner = Account.recover_message(typed(safe, tx), signature=bytes.fromhex(given[0])).lower()
        except Exception:  # noqa: BLE001 - whatever the library says of it
            owner = ""
        if owner != file["owner"].lower() or not node.has_owner(safe, owner):
            say(f"LEFT OUT: the signature in {path} is of no owner of the Safe")
            continue
        found[owner] = given[0]
    return found


def pay(kit: Json, given: Any) -> None:
    """Pay all that an ordinary key holds."""
    wallet, to = wallet_of(kit, given.wallet, ("key", "gas-payer")), destination(given.to)
    node = Node(given.rpc, wallet["chain_id"])
    text = ask("Type the key (64 hex digits), then Enter:")
    found = [key for key in keys_in(text) if key.address.lower() == wallet["address"].lower()]
    if not found:
        stop(f"this is not the key of {wallet['wallet']}, whose address is {wallet['address']}")
    for each in sorted(kit["assets"], key=lambda asset: asset["contract"] is None):
        units = node.holds(each["contract"], wallet["address"]) if each["chain"] == wallet["chain"] else 0
        if units == 0:
            continue
        if each["contract"] is None:
            say(f"all native money to {to}")
            node.send(found[0], to, -1, "0x")
        elif node.moves(each["contract"], wallet["address"], transfer(to, units)):
            say(f"{told(kit, wallet['chain'], each['contract'], units)} to {to}")
            node.send(found[0], each["contract"], 0, transfer(to, units))
        else:
            say(f"LEFT OUT: {each['asset']} does not let this key pay now; try again later")
    say("Done.")


def flush(kit: Json, given: Any) -> None:
    """Send what deposit addresses hold to their treasury."""
    wallet = wallet_of(kit, given.wallet, ("key",))
    node = Node(given.rpc, wallet["chain_id"])
    assets = [each for each in kit["assets"] if each["chain"] == wallet["chain"]]
    full: list[int] = []
    tokens: list[str] = []
    for index in range(given.count):
        preimage = "ff" + wallet["factory"][2:] + word(index) + wallet["forwarder"]
        address = to_checksum_address(keccak(bytes.fromhex(preimage))[12:])
        for each in assets:
            contract = each["contract"]
            units = node.holds(contract, address)
            if not units:
                continue
            say(f"{address} (number {index}): {told(kit, wallet['chain'], contract, units)}")
            full += [index] if index not in full else []
            tokens += [contract] if contract and contract not in tokens else []
    if not full:
        say(f"The first {given.count} deposit addresses hold nothing.")
        return
    payer = gas_payer()
    for at in range(0, len(full), AT_ONCE):
        salts = full[at : at + AT_ONCE]
        head = [64, 64 + 32 * (1 + len(salts)), len(salts), *salts, len(tokens)]
        data = "0x" + FLUSH + "".join(map(word, [*head, *(int(each, 16) for each in tokens)]))
        node.send(payer, wallet["factory"], 0, data)
    treasury = word(node.number(wallet["factory"], "0x61d027b3"))
    say(f"Done: all went to the treasury {to_checksum_address('0x' + treasury[24:])}")


def main() -> None:
    """Read the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    options: dict[str, tuple[Callable[[Json, Any], None], list[str]]] = {
        "build": (build, ["wallet", "--rpc", "--to", "--out"]),
        "sign": (sign, ["request", "--out"]),
        "send": (send, ["request", "signed", "--rpc"]),
        "pay": (pay, ["wallet", "--rpc", "--to"]),
        "flush": (flush, ["wallet", "--rpc", "--count"]),
    }
    for name, (_, arguments) in options.items():
        verb = verbs.add_parser(name)
        for each in arguments:
            if each == "signed":
                verb.add_argument(each, nargs="+")
            elif each == "--count":
                verb.add_argument(each, type=int, required=True)
            elif each.startswith("--"):
                verb.add_argument(each, required=True)
            else:
                verb.add_argument(each)
    given = parser.parse_args()
    options[given.verb][0](read(HERE / "kit.json"), given)


if __name__ == "__main__":
    main()
