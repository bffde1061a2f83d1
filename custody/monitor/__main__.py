"""`python -m custody.monitor`."""

import sys

from custody.monitor.process import main

sys.exit(main())
