"""`python -m custody.reconcile`."""

import sys

from custody.reconcile.command import main

sys.exit(main())
