"""What the holder is told of the machine, and what the process gives up before it holds a key."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from signers.airgap.protect import networks_up, swap_in_use

CARDS = """Inter-|   Receive                            |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes
    lo:       0       0    0    0
  eth0: 1234567    1234    0    0
 wlan0:       0       0    0    0
"""


def test_a_card_that_is_on_is_named_and_one_that_is_off_is_not(tmp_path: Path) -> None:
    cards = tmp_path / "dev"
    cards.write_text(CARDS)
    for name, state in (("lo", "unknown"), ("eth0", "up"), ("wlan0", "down")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "operstate").write_text(state + "\n")
    assert networks_up(cards, tmp_path) == ("eth0",)
    (tmp_path / "wlan0/operstate").write_text("dormant\n")
    assert networks_up(cards, tmp_path) == ("eth0", "wlan0")
    assert networks_up(tmp_path / "none", tmp_path) == ()


def test_swap_is_seen(tmp_path: Path) -> None:
    table = tmp_path / "swaps"
    table.write_text("Filename Type Size Used Priority\n")
    assert not swap_in_use(table)
    table.write_text("Filename Type Size Used Priority\n/swapfile file 1 0 -2\n")
    assert swap_in_use(table)


def test_the_process_writes_no_core_and_lets_no_debugger_in() -> None:
    program = (
        "import ctypes, os, resource\n"
        "from signers.airgap.protect import protect_process\n"
        "protect_process(); protect_process()\n"
        "libc = ctypes.CDLL(None)\n"
        "print(resource.getrlimit(resource.RLIMIT_CORE), libc.prctl(3), libc.prctl(39, 0, 0, 0, 0), oct(os.umask(0)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "(0, 0) 0 1 0o77"


def test_a_process_that_gave_up_the_network_opens_no_socket_even_in_c() -> None:
    program = (
        "from signers.airgap.offline import seal\n"
        "seal()\n"
        "import importlib.util, importlib.machinery, sys\n"
        "import socket\n"
        "assert not hasattr(socket, 'socket')\n"
        "del sys.modules['_socket']\n"
        "import _socket\n"
        "try:\n"
        "    _socket.socket()\n"
        "except Exception as error:\n"
        "    print(type(error).__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "NetworkRefused"
