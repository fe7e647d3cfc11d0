"""Downstream tasks, their corpora, and the suites that say which corpus serves which task at which budget."""

from pathlib import Path

SUITES = Path(__file__).parent / "suites"
"""Folder of the built-in suites, one YAML file per suite."""
