"""SUPERB's groups of tasks: the one definition that tables, figures and the page take their order and means from."""

from __future__ import annotations

GROUPS = {
    "content": ("asr", "pr", "ks", "qbe"),
    "semantics": ("ic", "sf"),
    "speaker": ("sid", "asv", "sd"),
    "paralinguistics": ("er",),
}
"""What tasks ask for, in the order of tables (Yang et al., "SUPERB", Interspeech 2021)."""

OWN_TASKS = ("asr", "pr", "ks", "ic", "sid", "asv", "er")
"""The tasks that this project has, in the order of the groups."""


def group_of(task: str) -> str:
    """The group of a task, empty where it has none."""
    return next((group for group, tasks in GROUPS.items() if task in tasks), "")


def own(group: str) -> tuple[str, ...]:
    """The tasks of a group that this project has."""
    return tuple(task for task in GROUPS[group] if task in OWN_TASKS)


def in_words() -> str:
    """The groups with the tasks that this project has: ``content: ASR, PR, KS; …``."""
    return "; ".join(f"{group}: {', '.join(task.upper() for task in own(group))}" for group in GROUPS)
