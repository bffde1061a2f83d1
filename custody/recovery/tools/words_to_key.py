#!/usr/bin/env python3
"""Turns a holder's backup into what bitcoin-cli needs to sign. Needs nothing but Python 3.9 and this folder.

    python3 words_to_key.py WALLET | bitcoin-cli ... -stdin importdescriptors

It asks for the backup: BIP39 words, or 64 hex digits as `shamir recover` prints them. It finds whose backup that is,
and writes the wallet's descriptor with this one private key in it. USE IT ON A COMPUTER THAT IS NEVER ONLINE.

Sources: BIP39 (words), BIP32 (keys), BIP380 (checksum of descriptors). The arithmetic is slow and plain on purpose:
each line can be compared with the standard.
"""

import argparse
import hashlib
import hmac
import json
import sys
import unicodedata
from pathlib import Path
from typing import Any, NoReturn

HERE = Path(__file__).resolve().parent
BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
PRIVATE_VERSION = {"0488b21e": "0488ade4", "043587cf": "04358394"}  # xpub: xprv, tpub: tprv

# The curve secp256k1 (SEC 2): y^2 = x^3 + 7 modulo P, a base point of order N.
P = 2**256 - 2**32 - 977
N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
BASE = (
    0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798,
    0x483ADA7726A3C4655DA4FBFC0E1108A8FD17B448A68554199C47D08FFB10D4B8,
)


def stop(sentence: str) -> NoReturn:
    """Ends with a sentence for people."""
    sys.exit("words_to_key: " + sentence)


def entropy_of_words(text: str, wordlist: list[str]) -> bytes:
    """The entropy of BIP39 words, whose checksum must be right."""
    words = unicodedata.normalize("NFKD", text).lower().split()
    if len(words) in (20, 33):
        stop(
            str(len(words))
            + " words: this is one share of several (SLIP-39). Join as many shares as are needed with "
            "`shamir recover` first, and give me the 64 hex digits that it prints."
        )
    for at, word in enumerate(words, 1):
        if word not in wordlist:
            stop("word " + str(at) + " is none of the 2048 words of BIP39: look at the paper again")
    if len(words) not in (12, 15, 18, 21, 24):
        stop(
            str(len(words))
            + " words: a backup has 24 (12, 15, 18 and 21 exist too); some are missing or too many"
        )
    bits = "".join(format(wordlist.index(word), "011b") for word in words)
    size = len(bits) * 32 // 33
    entropy = int(bits[:size], 2).to_bytes(size // 8, "big")
    check = format(hashlib.sha256(entropy).digest()[0], "08b")[: len(bits) - size]
    if check != bits[size:]:
        stop("the words do not fit together (their checksum is wrong): one is wrong, or two changed places")
    return entropy


def words_of_entropy(entropy: bytes, wordlist: list[str]) -> str:
    """The BIP39 words of 16 to 32 bytes."""
    size = len(entropy) * 8
    check = format(hashlib.sha256(entropy).digest()[0], "08b")[: size // 32]
    bits = format(int.from_bytes(entropy, "big"), "0" + str(size) + "b") + check
    return " ".join(wordlist[int(bits[at : at + 11], 2)] for at in range(0, len(bits), 11))


def entropy_of_backup(text: str, wordlist: list[str]) -> bytes:
    """The entropy of what a person typed: words, or hex digits."""
    text = text.strip()
    if not text:
        stop("nothing was typed")
    if " " not in text and "\t" not in text:
        try:
            found = bytes.fromhex(text)
        except ValueError:
            found = b""
        if len(found) != 32:
            stop("this is neither words with spaces between them nor 64 hex digits")
        return found
    return entropy_of_words(text, wordlist)


def account_key(entropy: bytes, path: str, wordlist: list[str]) -> tuple[int, bytes]:
    """Private key and chain code of an account such as m/48'/0'/0'/2'. All its steps are hardened."""
    words = words_of_entropy(entropy, wordlist)
    seed = hashlib.pbkdf2_hmac("sha512", words.encode(), b"mnemonic", 2048)
    node = hmac.new(b"Bitcoin seed", seed, hashlib.sha512).digest()
    key, chain = int.from_bytes(node[:32], "big"), node[32:]
    for step in path.split("/")[1:]:
        number = int(step.rstrip("'h")) + 2**31
        node = hmac.new(
            chain, b"\x00" + key.to_bytes(32, "big") + number.to_bytes(4, "big"), hashlib.sha512
        ).digest()
        key, chain = (int.from_bytes(node[:32], "big") + key) % N, node[32:]
    return key, chain


def public_key(key: int) -> bytes:
    """The compressed public key (33 bytes) of a private key."""
    point, adding = None, BASE
    while key:
        if key & 1:
            point = adding if point is None else add(point, adding)
        adding = add(adding, adding)
        key >>= 1
    assert point is not None
    return bytes([2 + (point[1] & 1)]) + point[0].to_bytes(32, "big")


def add(one: tuple[int, int], two: tuple[int, int]) -> tuple[int, int]:
    """The sum of two points. Never asked for a point and its negative here."""
    if one == two:
        slope = 3 * one[0] * one[0] * pow(2 * one[1], P - 2, P)
    else:
        slope = (two[1] - one[1]) * pow(two[0] - one[0], P - 2, P)
    x = (slope * slope - one[0] - two[0]) % P
    return x, (slope * (one[0] - x) - one[1]) % P


def base58_decode(text: str) -> bytes:
    """The 78 bytes of an extended key."""
    number = 0
    for character in text:
        number = number * 58 + BASE58.index(character)
    raw = number.to_bytes(82, "big")
    if hashlib.sha256(hashlib.sha256(raw[:78]).digest()).digest()[:4] != raw[78:]:
        stop("a public key in kit.json is damaged: its checksum is wrong")
    return raw[:78]


def base58_encode(payload: bytes) -> str:
    """An extended key as text."""
    raw = payload + hashlib.sha256(hashlib.sha256(payload).digest()).digest()[:4]
    number, text = int.from_bytes(raw, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = BASE58[digit] + text
    return text


def with_checksum(text: str) -> str:
    """A descriptor with its checksum (BIP380)."""
    order = (
        "0123456789()[],'/*abcdefgh@:$%{}IJKLMNOPQRSTUVWXYZ&+-.;<=>?!^_|~ijklmnopqrstuvwxyzABCDEFGH`#\"\\ "
    )
    letters = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
    generator = (0xF5DEE51989, 0xA9FDCA3312, 0x1BAB10E32D, 0x3706B1677A, 0x644D626FFD)
    symbols: list[int] = []
    groups: list[int] = []
    for character in text:
        place = order.index(character)
        symbols.append(place & 31)
        groups.append(place >> 5)
        if len(groups) == 3:
            symbols.append(groups[0] * 9 + groups[1] * 3 + groups[2])
            groups = []
    if groups:
        symbols.append(groups[0] if len(groups) == 1 else groups[0] * 3 + groups[1])
    check = 1
    for symbol in symbols + [0] * 8:
        top = check >> 35
        check = (check & 0x7FFFFFFFF) << 5 ^ symbol
        for bit, value in enumerate(generator):
            check ^= value if top >> bit & 1 else 0
    check ^= 1
    return text + "#" + "".join(letters[check >> 5 * (7 - at) & 31] for at in range(8))


def private_descriptor(
    wallet: dict[str, Any], entropy: bytes, wordlist: list[str]
) -> tuple[str, dict[str, Any]]:
    """The wallet's descriptor with the private key of this backup in it, and whose key that is."""
    for member in wallet["keys"]:
        key, chain = account_key(entropy, member["path"], wordlist)
        public = base58_decode(member["account"])
        if public[13:45] == chain and public[45:] == public_key(key):
            version = bytes.fromhex(PRIVATE_VERSION[public[:4].hex()])
            private = base58_encode(version + public[4:45] + b"\x00" + key.to_bytes(32, "big"))
            text = wallet["descriptor"].partition("#")[0].replace(member["account"], private)
            return with_checksum(text), member
    names = ", ".join(member["id"] for member in wallet["keys"])
    stop(
        "this backup is complete, but of none of the keys of " + wallet["wallet"] + " (" + names + "). "
        "Is it the backup of another wallet, or were shares of different backups joined?"
    )


def main() -> None:
    """Ask for a backup, write the line for bitcoin-cli."""
    parser = argparse.ArgumentParser(
        description="From a backup to what `bitcoin-cli importdescriptors` takes."
    )
    parser.add_argument("wallet", help="name of the Bitcoin wallet in kit.json")
    name = parser.parse_args().wallet
    kit = json.loads((HERE / "kit.json").read_text())
    wordlist = (HERE / "bip39-english.txt").read_text().split()
    if len(wordlist) != 2048:
        stop("bip39-english.txt is damaged: it has not 2048 words")
    wallets = {each["wallet"]: each for each in kit["bitcoin"]}
    if name not in wallets:
        stop(
            "there is no Bitcoin wallet "
            + repr(name)
            + " in kit.json: it has "
            + (", ".join(wallets) or "none")
        )
    print("Type the backup (BIP39 words in one line, or 64 hex digits), then Enter:", file=sys.stderr)
    text, member = private_descriptor(
        wallets[name], entropy_of_backup(sys.stdin.readline(), wordlist), wordlist
    )
    print("This is the key of " + member["id"] + " (" + member["organisation"] + ").", file=sys.stderr)
    wanted = {"desc": text, "active": True, "timestamp": "now", "range": [0, kit["addresses"] - 1]}
    print(json.dumps([wanted]))


if __name__ == "__main__":
    main()
