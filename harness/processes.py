"""What an interrupted run left behind: which process it was, and whether it still lives."""

from __future__ import annotations

import os


def alive(pid: int) -> bool:
    """Whether a process of this machine has that id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
