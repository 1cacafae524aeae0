"""Work that computes with every core, on a thread that ends with it.

GNU's OpenMP gives each thread that ever began parallel work a team of its own, and once the teams are more than the
processors, idle ones sleep between any two operations: all that any thread computes takes 1.4 times as long, as long as
the thread lives. So what is computed now and then has no thread of a pool, which would stay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

NAME = "computing"
Result = TypeVar("Result")


async def on_own_thread(act: Callable[[], Result]) -> Result:
    """Return what `act` returns, called on a thread of its own. Raises what it raises."""
    thread = ThreadPoolExecutor(1, thread_name_prefix=NAME)
    try:
        return await asyncio.get_running_loop().run_in_executor(thread, act)
    finally:
        thread.shutdown(wait=False)
