"""Units of work distributed over threads, each of which computes alone.

Torch's own threads synchronise after every operation, and each operation streams all data through memory. A thread that
processes whole units keeps its data in its own cache. Torch's threads keep spinning for milliseconds after an operation
and occupy the cores, so only work that takes longer is worth distributing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Unit = TypeVar("Unit")


def share(units: Iterable[Unit], prepare: Callable[[], Callable[[Unit], None]], threads: int) -> None:
    """Process all units on that many threads. With one thread or one unit, torch's own threads are used as usual.

    prepare: called in each thread; returns the function for that thread's units, which may hold buffers.
    """
    waiting = deque(units)
    helpers = min(threads, len(waiting)) - 1

    def take() -> None:
        work = prepare()
        while True:
            try:
                unit = waiting.popleft()
            except IndexError:
                return
            work(unit)

    @torch.no_grad()
    def help_out() -> None:
        torch.set_num_threads(1)
        take()

    if helpers < 1:
        take()
        return
    own = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        # Threads end with the call, so that copying a model or forking the process needs no care.
        with ThreadPoolExecutor(helpers, thread_name_prefix="spectral") as pool:
            shares = [pool.submit(help_out) for _ in range(helpers)]
            take()
            for each in shares:
                each.result()
    finally:
        # The setting belongs to a thread, but new threads inherit the latest setting of any thread.
        torch.set_num_threads(own)
