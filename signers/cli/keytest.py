"""`strongroom key test`: look for bias and repeats in a backend's signatures before it serves."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Final

import msgspec

from chains.errors import InvalidValue
from signers.config import read_config
from signers.keys.opening import Opened, open_untested
from signers.keytest.keytest import SIGNATURES, examine_keys, examine_nonces, throwaway_for
from signers.keytest.tested import backend_text, path_of_tested, write_tested

WRONG_INPUT: Final = 2


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What the test of a key-set has found."""

    keyset: str
    backend: str
    signatures: int
    """Nonces that were looked at."""
    found: tuple[str, ...]
    """What is wrong; empty if it may serve."""
    record: str | None
    """The file that lets it serve."""


def main(verb: str, arguments: list[str]) -> int:
    """Test key-sets; returns 0 if all may serve, 1 if one may not, 2 for wrong input."""
    options = _parser(verb).parse_args(arguments)
    config = read_config(options.config)
    unknown = sorted(set(options.keysets) - config.keys.keys())
    if unknown:
        print(f"strongroom key {verb}: {options.config} has no [keys.{unknown[0]}]", file=sys.stderr)
        return WRONG_INPUT
    opened = open_untested(config, lambda text: print(text, file=sys.stderr))
    results = []
    try:
        for keyset in options.keysets or sorted(config.keys):
            if not options.json:
                print(f"{keyset}: {options.signatures} signatures ...", flush=True)
            results.append(_tested(opened, keyset, Path(config.directory), options.signatures))
            if not options.json:
                print(_told(results[-1]), flush=True)
    except InvalidValue as error:
        print(f"strongroom key {verb}: {error}", file=sys.stderr)
        return WRONG_INPUT
    finally:
        opened.close()
    if options.json:
        print(msgspec.json.encode(results).decode())
    return 1 if any(result.found for result in results) else 0


def _parser(verb: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"strongroom key {verb}",
        description="Test the backends of a signer's keys: nonces of a key that is known to the test and is thrown "
        "away, and signatures and attestations of the real keys. A production signer starts only with keys that have "
        "passed, and again after each new version of its libraries or of the HSM's firmware.",
        epilog="Run it as the signer's user, in the signer's environment (e.g. SOFTHSM2_CONF). The signer may run "
        "meanwhile. What it signs is no transaction.",
    )
    parser.add_argument(
        "keysets", nargs="*", metavar="KEYSET", help="of the configuration; all if none is given"
    )
    parser.add_argument("--config", type=Path, required=True, help="the signer's TOML file")
    parser.add_argument(
        "--signatures",
        type=int,
        default=SIGNATURES,
        help=f"nonces to look at (default {SIGNATURES}); the more, the smaller the bias that is seen",
    )
    parser.add_argument("--json", action="store_true", help="print the results as one JSON document")
    return parser


def _tested(opened: Opened, keyset: str, directory: Path, signatures: int) -> Result:
    keys, token = opened.wallets[keyset].keys, opened.token_of(keyset)
    found = (*examine_nonces(throwaway_for(keys, token), signatures), *examine_keys(keys))
    record = None
    if found:
        path_of_tested(directory, keyset).unlink(
            missing_ok=True
        )  # what passed once and fails now is not to serve
    else:
        record = write_tested(directory, keys, token, signatures=signatures, now=int(time.time()))
    return Result(
        keyset=keyset,
        backend=backend_text(keys, token),
        signatures=signatures,
        found=found,
        record=None if record is None else str(record),
    )


def _told(result: Result) -> str:
    if not result.found:
        return f"{result.keyset}: passed [{result.backend}]; recorded in {result.record}"
    lines = "".join(f"\n  {text}" for text in result.found)
    return f"{result.keyset}: FAILED [{result.backend}]; it must not serve:{lines}"
