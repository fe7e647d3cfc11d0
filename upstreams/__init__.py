"""Upstreams: cards, adapters to other people's models, compressed students and the lab that trains them."""

from pathlib import Path

CARDS = Path(__file__).parent / "cards"
"""Folder of the built-in cards, one YAML file per upstream."""
