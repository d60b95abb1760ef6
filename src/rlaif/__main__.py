"""`python -m rlaif`: the same as `rlaif`."""

import sys

from rlaif.cli.main import main

sys.exit(main())
