"""`python -m custody.workers worker|beat`."""

from __future__ import annotations

import sys

from custody.workers.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
