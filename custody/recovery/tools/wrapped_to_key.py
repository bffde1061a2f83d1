#!/usr/bin/env python3
"""Opens an Ethereum key that was wrapped at its key ceremony. Needs Python 3.9 and openssl.

    python3 wrapped_to_key.py WALLET.wrapped.json | python3 safe_recover.py ...

It asks for the 64 hex digits that `shamir recover` prints for the holders' shares, and writes the private key as 64
hex digits. USE IT ON A COMPUTER THAT IS NEVER ONLINE: openssl takes the digits as an argument, so other users of the
same computer could see them.

Sources: RFC 5649 (AES key wrap with padding), RFC 5958 (PKCS #8), RFC 5915 (the key inside).
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn


def stop(sentence: str) -> NoReturn:
    """Ends with a sentence for people."""
    sys.exit("wrapped_to_key: " + sentence)


def unwrap(secret: bytes, wrapped: bytes) -> bytes:
    """The private key (32 bytes) that openssl finds."""
    with tempfile.TemporaryDirectory() as folder:
        closed = Path(folder, "wrapped")
        closed.write_bytes(wrapped)
        # The initial value is that of RFC 5649; the result never touches a disk.
        command = [
            "openssl",
            "enc",
            "-d",
            "-id-aes256-wrap-pad",
            "-K",
            secret.hex(),
            "-iv",
            "A65959A6",
            "-in",
        ]
        done = subprocess.run([*command, str(closed)], capture_output=True, check=False)
    # An ECPrivateKey begins with version 1 and an octet string of 32 bytes.
    at = done.stdout.find(b"\x02\x01\x01\x04\x20")
    if done.returncode != 0 or at < 0:
        stop("the key does not open: the shares are of another backup, or too few, or the file is damaged")
    return done.stdout[at + 5 : at + 37]


def main() -> None:
    """Ask for the recovery secret, write the key."""
    if len(sys.argv) != 2:
        stop("name one file: WALLET.wrapped.json, as the ceremony left it beside the record")
    try:
        wrapped = bytes.fromhex(json.loads(Path(sys.argv[1]).read_text())["wrapped"])
    except (OSError, ValueError, KeyError) as error:
        stop(sys.argv[1] + " is not such a file: " + str(error))
    print("Type the 64 hex digits that `shamir recover` printed, then Enter:", file=sys.stderr)
    try:
        secret = bytes.fromhex(sys.stdin.readline().strip())
    except ValueError:
        secret = b""
    if len(secret) != 32:
        stop("these are not 64 hex digits")
    print(unwrap(secret, wrapped).hex())


if __name__ == "__main__":
    main()
