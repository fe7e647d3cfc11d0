"""The 32 utterances on which SUPERB counts MACs: LibriSpeech test-clean, every 82nd by length, one at a time.

Source: the profiling tool of the SLT 2022 SUPERB challenge (github.com/B06901052/DeepSpeed, branch superb-challenge,
``testing/s3prl_profiling_test.py`` and README), which the SUPERB leaderboard uses. Only the lengths matter here.
"""

from __future__ import annotations

from collections.abc import Mapping

BUCKETS: Mapping[str, tuple[int, ...]] = {
    "short": (20_560, 34_560, 38_480, 42_560, 45_600, 48_720, 52_000, 55_120),
    "medium": (59_120, 62_720, 66_400, 71_200, 75_200, 78_640, 82_800, 87_520),
    "long": (92_720, 98_560, 104_400, 111_120, 118_480, 125_040, 132_720, 142_640),
    "longer": (154_000, 166_720, 180_880, 197_920, 217_920, 239_280, 268_160, 326_000),
}
"""Lengths in samples at 16 kHz, in the four buckets of the leaderboard; 224.86 s in all."""
