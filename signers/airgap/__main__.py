"""`python -m signers.airgap`: the same as `strongroom-airgap`."""

import sys

from signers.airgap.cli import main

sys.exit(main())
