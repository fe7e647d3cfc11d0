"""Independent pieces of work on several threads, each computing with one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def side_by_side(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """``function`` of every item, in order, on as many threads as torch may use.

    Every piece is computed by a single thread, so that the results do not depend on how many there are. Autograd of
    CPU tensors runs in the thread that asks for gradients, so a piece may be a whole forward and backward pass.
    """
    threads = torch.get_num_threads()
    if len(items) < 2:
        return [function(item) for item in items]
    try:
        return list(_pool(threads).map(function, items))
    finally:
        torch.set_num_threads(threads)  # the workers' setting is also torch's default for threads to come


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "slimbench", torch.set_num_threads, (1,))
