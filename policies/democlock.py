"""A clock that a demonstration sets forward, so that a day passes at once. On test networks only.

It is the machine's clock and so many seconds, which a file says. Whoever uses it checks first that no network of the
bundle has money of any worth: where one has, nobody may make a day pass.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from chains.errors import InvalidValue
from policies.bundle import Bundle
from policies.bundle.networks import BitcoinNetwork

TEST_CHAIN_IDS: Final = frozenset({31337, 31338})
"""Those of local test nodes: anvil's own, and that of a trial's second network."""
MOST_SECONDS: Final = 366 * 24 * 3600


class DemoClock:
    """UNIX seconds, ahead of the machine's by what the file says. The file may be missing: then by nothing.

    Args:
        path: an integer from 0, of seconds. Its directory must be writable only by who runs the demonstration.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self) -> float:
        """The present. Raises InvalidValue if the file has anything else."""
        return time.time() + self.ahead()

    def ahead(self) -> int:
        """By how many seconds it is ahead."""
        try:
            text = self._path.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return 0
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidValue(f"demo clock {self._path}: {error}") from None
        if not text.isdecimal() or int(text) > MOST_SECONDS:
            raise InvalidValue(f"demo clock {self._path}: expected seconds from 0 to {MOST_SECONDS}")
        return int(text)

    def set_forward(self, seconds: int) -> None:
        """Let so many seconds pass at once. Time never goes back."""
        ahead = self.ahead() + seconds
        if seconds < 0 or ahead > MOST_SECONDS:
            raise InvalidValue(
                f"demo clock: {seconds} s forward; at most {MOST_SECONDS} s in all, never back"
            )
        new = self._path.with_suffix(".new")
        new.write_text(str(ahead), encoding="ascii")
        new.replace(self._path)


def check_test_networks(bundle: Bundle) -> None:
    """Raises InvalidValue unless every network is regtest or a local EVM test node."""
    for network in bundle.networks:
        test = (
            network.network == "regtest"
            if isinstance(network, BitcoinNetwork)
            else network.chain_id in TEST_CHAIN_IDS
        )
        if not test:
            raise InvalidValue(
                f"a demo clock is set, and {network.chain} is no local test network: remove the demo clock"
            )
