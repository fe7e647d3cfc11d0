"""These tests use the invented records of the leaderboards' tests, and the tones and the toy upstream of harness."""

import sys
from pathlib import Path

TESTS = Path(__file__).parents[2]
for folder in ("leaderboards", "harness"):
    sys.path.insert(0, str(TESTS / folder))
