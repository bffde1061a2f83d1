"""Types that threads decode must be prepared beforehand: msgspec crashes the process when threads race for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

_RACE = """
import sys, threading
sys.setswitchinterval(1e-6)
{imports}
gate = threading.Barrier(8)
def read():
    gate.wait()
    try:
        {read}
    except ValueError:
        pass
threads = [threading.Thread(target=read) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


@pytest.mark.parametrize(
    ("imports", "read"),
    [
        ("from policies.intent import Order", "Order.from_json(b'{}')"),
        ("from policies.intent import Intent", "Intent.from_object({})"),
        (
            "from signers.ports import SignRequest; import msgspec",
            "msgspec.json.decode(b'{}', type=SignRequest)",
        ),
        (
            "from policies.bundle import SignedBundle; import msgspec",
            "msgspec.json.decode(b'{}', type=SignedBundle)",
        ),
    ],
)
def test_the_first_decoding_can_happen_in_eight_threads_at_once(imports: str, read: str) -> None:
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", _RACE.format(imports=imports, read=read)], check=False)
        assert done.returncode == 0
