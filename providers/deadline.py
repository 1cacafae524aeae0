"""A deadline for foreign code that computes in Python, such as a chat template: its thread is interrupted from outside.

CPython can raise an exception in another thread (`PyThreadState_SetAsyncExc` of its C API), at its next bytecode.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Iterator


class TooSlow(Exception):
    """The deadline has passed."""


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise TooSlow in the block after `seconds`, wherever in Python code it is then; never after the block."""
    thread, lock = threading.get_ident(), threading.Lock()
    ended = fired = False

    def interrupt() -> None:
        nonlocal fired
        with lock:
            if not ended:
                fired = True
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(TooSlow))

    timer = threading.Timer(seconds, interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        with lock:
            ended = True
        timer.cancel()
        if fired:  # It may come a moment later than the block's end, and must not come after this one's.
            with contextlib.suppress(TooSlow):
                for _ in range(1_000_000):
                    pass
