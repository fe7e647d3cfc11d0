"""``python -m harness`` is the same as the console script ``slimbench``."""

import sys

from harness.cli import main

sys.exit(main())
