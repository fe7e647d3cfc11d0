"""Results that others hand in: packing, verifying, exchange with other formats. See ``docs/leaderboard.md``."""
