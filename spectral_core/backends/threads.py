"""Whole units of work shared out among threads, each computing alone.

Torch's own threads meet at the end of every operation, and stream each operation's data past each other. Threads that
take whole units keep theirs in their own caches. But torch's go on spinning for milliseconds after the operation before
and hold the cores meanwhile: work must be worth that wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Unit = TypeVar("Unit")


def share(units: Iterable[Unit], prepare: Callable[[], Callable[[Unit], None]], threads: int) -> None:
    """Do every unit on that many threads. One thread alone, or with one unit, has torch's own threads to help it.

    prepare: called in each thread, gives what that thread calls on its units, with buffers of its own.
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
        # Threads that live no longer than the call: nothing to copy with a model, nothing lost in a forked process.
        with ThreadPoolExecutor(helpers, thread_name_prefix="spectral") as pool:
            shares = [pool.submit(help_out) for _ in range(helpers)]
            take()
            for each in shares:
                each.result()
    finally:
        # The setting is each thread's own, but a thread that is new takes the last one made anywhere.
        torch.set_num_threads(own)
