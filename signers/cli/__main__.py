"""Runs as `python -m signers.cli` where the online service is not installed."""

import sys

from signers.cli.root import main

if __name__ == "__main__":
    sys.exit(main())
