"""The offline signer's process gives up the network before it loads anything; what comes too late is said."""

from __future__ import annotations

import subprocess
import sys

import pytest

from signers.airgap.offline import NETWORK_MODULES, NetworkLoaded, seal


def outcome(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_process_that_has_the_network_already_cannot_be_sealed() -> None:
    with pytest.raises(NetworkLoaded, match="by its own command"):
        seal()


@pytest.mark.parametrize("name", NETWORK_MODULES)
def test_one_network_module_is_enough_to_be_too_late(name: str) -> None:
    program = f"""
import importlib
from signers.airgap.offline import NetworkLoaded, seal
try:
    importlib.import_module({name!r})
except ImportError:
    print("NetworkLoaded")  # not built for this platform
try:
    seal()
except NetworkLoaded as error:
    print(type(error).__name__)
"""
    assert outcome(program).startswith("NetworkLoaded")


@pytest.mark.parametrize(
    "attempt",
    [
        "import socket; socket.socket()",
        "import socket; socket.create_connection(('127.0.0.1', 9))",
        "from urllib.request import urlopen",
        "import http.client; http.client.HTTPConnection('127.0.0.1').connect()",
        "import asyncio; asyncio.run(asyncio.open_connection('127.0.0.1', 9))",
        "import ssl; ssl.create_default_context()",
        "import sys; del sys.modules['_socket'], sys.modules['socket']; import socket; socket.socket()",
        "import sys; del sys.modules['_socket']; import _socket; _socket.getaddrinfo('localhost', 80)",
        "import sys; del sys.modules['_socket']; import _socket; _socket.gethostbyname('localhost')",
        "import multiprocessing.connection as c; c.Listener(('127.0.0.1', 0))",
    ],
)
def test_nothing_meets_the_network_in_a_sealed_process(attempt: str) -> None:
    program = f"""
from signers.airgap.offline import seal
seal()
try:
    {attempt}
except BaseException as error:
    print("refused:", type(error).__name__)
"""
    assert outcome(program) in {
        f"refused: {name}" for name in ("NetworkRefused", "AttributeError", "ImportError")
    }


def test_again_changes_nothing_and_all_else_still_works() -> None:
    program = """
from signers.airgap.offline import seal
seal()
seal()
import pathlib, subprocess, tempfile
with tempfile.TemporaryDirectory() as folder:
    (pathlib.Path(folder) / "x").write_text("y")
    print((pathlib.Path(folder) / "x").read_text())
"""
    assert outcome(program) == "y"
