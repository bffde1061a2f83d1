"""The clock of whoever types a command. It only dates what he says himself; the service has its own."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

from policies.democlock import DemoClock

VARIABLE: Final = "STRONGROOM_DEMO_CLOCK"
"""Names the file of a demonstration's clock (`policies.democlock`)."""


def present() -> float:
    """UNIX seconds: the machine's, or the demonstration's that this one's installation runs by."""
    path = os.environ.get(VARIABLE)
    return DemoClock(Path(path))() if path else time.time()
