"""The symbols that ASR spells texts with, SUPERB's 32 in its order (s3prl ``downstream/asr``)."""

from __future__ import annotations

SYMBOLS = ("<s>", "<pad>", "</s>", "<unk>", *"|ETAONIHSRDLUMCWFGYPBVK'XJQZ")
"""SUPERB's 32 outputs in its order; ``<s>`` is the CTC blank."""
BORDER = "|"
"""Between words, and after the last."""
END = 2
SPECIAL = 4
"""Number of symbols that no text is spelled with."""
