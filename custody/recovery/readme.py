"""README.txt of the kit: numbered steps that a stranger follows with standard tools. Pure.

Its form is relied upon: each part begins with a line `[part wallet]`, and a command is a line that begins with
four spaces and `$ `; after a backslash it goes on in the next line. The drill
(`tests/drill`) runs the commands that stand here, and no others.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

Json = dict[str, Any]

_HEAD = """\
RECOVERY KIT
============

With this folder and the holders' backups, everything that this house holds can be moved to new
addresses. You need no program and no server of the house, and nobody's permission but the holders'.
Nothing here is secret, but it shows every address and so every payment: keep it among yourselves.

Made {made} from version {version} of the house's signed document
({digest}).
{expired}
WHAT IS HERE
  kit.json            every wallet, for programs (and for people who look closely)
  README.txt          this text
  policy.txt          the rules by which the house paid, in words
  bundle.json         the signed document that all of this was made of
  *.watch.json        what bitcoin-cli needs to find a wallet's coins
  words_to_key.py     from a backup to what bitcoin-cli needs to sign (Python only)
  wrapped_to_key.py   opens an Ethereum key wrapped at its ceremony (Python and openssl)
  safe_recover.py     empties Safes, keys and deposit addresses (Python with eth-account)
  bip39-english.txt   the 2048 words
  SHA256SUMS          to see that nobody has changed any of it

HOW TO READ THE STEPS
Lines that begin with "$" are typed without the "$", in a terminal that is in this folder. Lines such
as NAME=... are changed to your own values first. Type backups on computers that are NEVER online,
before and after: start one from a live system, without a network card. A file goes from one computer
to the other on a USB stick. Try each wallet with a small payment first if you can.

STEP 1: IS THE KIT WHOLE?
[check kit]
    $ sha256sum -c SHA256SUMS
Each line must say OK. Then compare the one number that this prints with the number on paper that was
written down when the kit was made (whoever keeps the paper: officers, notary, bank safe):
    $ sha256sum SHA256SUMS

STEP 2: WHO HAS WHAT?
For each wallet below so many of its keys are needed as it says. A backup is one of these:
  - 24 words (BIP39, no passphrase) on a holder's paper or steel.
  - SLIP-39 shares (20 or 33 words each), so many as each share says. Any tool for SLIP-39 joins them to
    64 hex digits. On a computer that is never online, with packages from the USB stick
    (pip download shamir-mnemonic click, then pip install --no-index --find-links . shamir-mnemonic click):
[join shares]
    $ shamir recover
    It asks for one share after the other, and prints: Your master secret is: 64 hex digits.
  - for Ethereum keys of a key ceremony: such shares, and the file WALLET.wrapped.json.
Which of these it is stands beside each key. The backup decides, not this text: the scripts take words
or 64 hex digits, and say whose key they are.

STEP 3: EACH WALLET, as follows. The order is yours; begin with what holds most.
"""

_BITCOIN = """\
[find {w}]  on an online computer with Bitcoin Core 28 (or Knots 28) or newer that is in sync, not pruned
    $ bitcoin-cli -chain={net} -named createwallet wallet_name=watch-{w} disable_private_keys=true blank=true
    $ bitcoin-cli -chain={net} -rpcclienttimeout=0 -rpcwallet=watch-{w} -stdin importdescriptors < {w}.watch.json
This reads the whole chain, which takes hours. It must say "success": true. Then compare three
addresses with those above, and see what the wallet holds:
    $ bitcoin-cli -chain={net} deriveaddresses '{receive}' '[0,2]'
    $ bitcoin-cli -chain={net} -rpcwallet=watch-{w} getbalances
If it holds less than you expect, more than {addresses} addresses were given out: raise "range" in
{w}.watch.json and "addresses" in kit.json, and import again.

[build {w}]  on the same computer: a payment of everything to a new address, in sat/vB as mempools ask
    $ DESTINATION=the-new-address
    $ FEERATE=10
    $ bitcoin-cli -chain={net} -rpcwallet=watch-{w} -named sendall \\
      recipients="[\\"$DESTINATION\\"]" \\
      fee_rate=$FEERATE options='{{"psbt":true,"add_to_wallet":false,"send_max":true}}' > {w}.request.json
    $ sed -n 's/.*"psbt": "\\(.*\\)".*/\\1/p' {w}.request.json > {w}.request.psbt
A wallet with more than about 1,000 coins is emptied in parts: give "inputs" in the options.

[sign {w}]  {each}, on a computer that is never online, with this folder,
{w}.request.psbt, Bitcoin Core and Python
    $ HOLDER=your-name
    $ bitcoind -chain={net} -connect=0 -listen=0 -daemonwait
    $ bitcoin-cli -chain={net} -stdin decodepsbt < {w}.request.psbt
Look at "vout": it must pay to the address that you have agreed on, and to nobody else.
    $ bitcoin-cli -chain={net} -named createwallet wallet_name=sign-{w} blank=true
    $ python3 words_to_key.py {w} | bitcoin-cli -chain={net} -rpcwallet=sign-{w} -stdin importdescriptors
It asks for the backup, and says whose it is. It must say "success": true.
    $ bitcoin-cli -chain={net} -rpcwallet=sign-{w} -stdin walletprocesspsbt < {w}.request.psbt > {w}.signed.json
    $ sed -n 's/.*"psbt": "\\(.*\\)".*/\\1/p' {w}.signed.json > {w}.signed-$HOLDER.psbt
    $ bitcoin-cli -chain={net} stop
Carry {w}.signed-YOUR-NAME.psbt back, and destroy that computer's disk: it has your key now.

[send {w}]  on the online computer, with the signed files of {people}
    $ sed 's/.*/"&"/' {w}.signed-*.psbt | paste -s -d , - | sed 's/.*/[&]/' | \\
      bitcoin-cli -chain={net} -stdin combinepsbt > {w}.combined.psbt
    $ bitcoin-cli -chain={net} -stdin finalizepsbt < {w}.combined.psbt > {w}.final.json
    $ sed -n 's/.*"hex": "\\(.*\\)".*/\\1/p' {w}.final.json > {w}.final.hex
    $ test -s {w}.final.hex || \\
      echo "NOT COMPLETE: {threshold} of {count} keys must have signed {w}.request.psbt: have more holders sign it"
    $ test ! -s {w}.final.hex || bitcoin-cli -chain={net} -stdin sendrawtransaction < {w}.final.hex
It prints the transaction's id. Done when it has six confirmations.
"""

_SAFE = """\
[build {w}]  on an online computer, with the URL of any Ethereum node for chain id {chain_id}
    $ RPC=the-node's-URL
    $ DESTINATION=the-new-address
    $ python3 safe_recover.py build {w} --rpc "$RPC" --to "$DESTINATION" --out {w}.request.json

[sign {w}]  {each}, on a computer that is never online
    $ HOLDER=your-name
    $ {opened}python3 safe_recover.py sign {w}.request.json --out {w}.signed-$HOLDER.json
It shows what is paid to whom, and asks for the backup. Carry {w}.signed-YOUR-NAME.json back.

[send {w}]  on the online computer. It asks for the key (or words) of an address of
your own that pays the gas
    $ RPC=the-node's-URL
    $ python3 safe_recover.py send {w}.request.json {w}.signed-*.json --rpc "$RPC"
"""

_FLUSH = """\
[flush {w}]  empties the house's deposit addresses to their treasury. Anybody may: it asks for the key of
an address of your own that pays the gas. COUNT is how many addresses were given out, at most
    $ RPC=the-node's-URL
    $ COUNT={addresses}
    $ python3 safe_recover.py flush {w} --rpc "$RPC" --count $COUNT
"""

_KEY = """\
[pay {w}]  on a computer that you trust with the key for a minute, and throw away afterwards
    $ RPC=the-node's-URL
    $ DESTINATION=the-new-address
    $ python3 wrapped_to_key.py {w}.wrapped.json | python3 safe_recover.py pay {w} --rpc "$RPC" --to "$DESTINATION"
"""

_TAIL = """\
IF SOMETHING DOES NOT WORK
  "none of the 2048 words", "checksum is wrong"   a word was read wrong: compare with the paper; the
      first four letters of a word are enough to know it.
  "of none of the keys"                           it is the backup of something else, or shares of
      different backups were joined: all shares of one backup begin with the same two or three words.
  "NOT COMPLETE", "more are needed"               fewer holders than needed have signed, or one signed
      an older request: all sign the same file.
  A holder or a backup is gone for good           nothing is lost while as many are left as are needed.
"""


def text(kit: Json, *, expired: bool) -> str:
    """README.txt, with the names and commands of this kit's wallets.

    Args:
        kit: from `describe.described`.
        expired: the bundle was no longer valid when the kit was made.
    """
    bundle = kit["bundle"]
    head = _HEAD.format(
        made=_day(kit["made_at"]),
        version=bundle["version"],
        digest=bundle["digest"],
        expired=(
            f"THAT DOCUMENT HAD EXPIRED {_day(bundle['expires_at'])}: wallets made later are not here.\n"
            if expired
            else ""
        ),
    )
    parts = [head, *_bitcoin(kit), *_ethereum(kit), _TAIL]
    return "\n".join(part.rstrip() + "\n" for part in parts)


def _bitcoin(kit: Json) -> Iterator[str]:
    for wallet in kit["bitcoin"]:
        count, threshold = len(wallet["keys"]), wallet["threshold"]
        yield "\n".join(
            [
                *_title(wallet, f"BITCOIN, network {wallet['network']}", threshold, count),
                *(
                    line
                    for key in wallet["keys"]
                    for line in (
                        f"  {key['id']} of {key['organisation']}: fingerprint {key['fingerprint']}, path {key['path']}",
                        f"      backup: {key['backup']}",
                    )
                ),
                "Descriptor (this line and enough keys are the wallet):",
                f"  {wallet['descriptor']}",
                "First addresses, to compare:",
                *(f"  0/{at} {each}" for at, each in enumerate(wallet["first_addresses"]["receive"])),
                *(f"  1/{at} {each} (change)" for at, each in enumerate(wallet["first_addresses"]["change"])),
                "",
                _BITCOIN.format(
                    w=wallet["wallet"],
                    net=wallet["network"],
                    receive=wallet["receive_descriptor"],
                    addresses=kit["addresses"],
                    people=_people(threshold, count),
                    each=_each(threshold, count),
                    threshold=threshold,
                    count=count,
                ),
            ]
        )


def _ethereum(kit: Json) -> Iterator[str]:
    if kit["ethereum"]:
        yield (
            "ETHEREUM: what follows needs Python with eth-account, on both computers:\n"
            "    pip install eth-account     (bring the packages to the offline one on the USB stick)"
        )
    for wallet in kit["ethereum"]:
        yield "\n".join(_one_ethereum(kit, wallet))


def _one_ethereum(kit: Json, wallet: Json) -> list[str]:
    name = wallet["wallet"]
    place = f"ETHEREUM, {wallet['chain']} (chain id {wallet['chain_id']})"
    tokens = [
        f"  {each['asset']}: {each['contract'] or 'native'}, {each['decimals']} decimals"
        for each in kit["assets"]
        if each["chain"] == wallet["chain"]
    ]
    if wallet["kind"] == "safe":
        count, threshold = len(wallet["owners"]), wallet["threshold"]
        held = any(owner["path"] for owner in wallet["owners"])
        return [
            *_title(wallet, place, threshold, count),
            f"Safe {wallet['address']}, version {wallet['version']}, owners:",
            *(
                line
                for owner in wallet["owners"]
                for line in (
                    f"  {owner['id']} of {owner['organisation']}: {owner['address']}"
                    + (f", path {owner['path']}" if owner["path"] else ""),
                    f"      backup: {owner['backup']}",
                )
            ),
            "It may hold:",
            *tokens,
            "",
            _SAFE.format(
                w=name,
                chain_id=wallet["chain_id"],
                people=_people(threshold, count),
                each=_each(threshold, count),
                opened="" if held else f"python3 wrapped_to_key.py {name}.wrapped.json | ",
            ),
        ]
    said = [
        *_title(wallet, place, 1, 1),
        f"Key of {wallet['address']}",
        f"      backup: {wallet['backup']}",
        "It may hold:",
        *tokens,
        "",
    ]
    if wallet["kind"] == "key":
        said += [
            f"Deposit addresses are contracts of the factory {wallet['factory']}: number n has the salt n",
            f"(32 bytes) and the init code hash {wallet['forwarder']} (EIP-1014). Anybody may call its",
            "flush(bytes32[] salts, address[] tokens); all goes to treasury(), as the factory says it.",
            *(f"  {at} {each}" for at, each in enumerate(wallet["first_addresses"])),
            "",
            _FLUSH.format(w=name, addresses=kit["addresses"]),
        ]
    return [*said, _KEY.format(w=name)]


def _title(wallet: Json, place: str, threshold: int, count: int) -> list[str]:
    title = f"WALLET {wallet['wallet']}: {place}, tier {wallet['tier']}, {wallet['state']}"
    keys = "its one key" if count == 1 else f"any {threshold} of these {count} keys"
    return ["-" * 98, title, "-" * 98, f"Needs {keys}:"]


def _people(threshold: int, count: int) -> str:
    return "the one who has the backup" if count == 1 else f"any {threshold} holders"


def _each(threshold: int, count: int) -> str:
    return _people(threshold, count) if count == 1 else f"each of {_people(threshold, count)} for himself"


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
