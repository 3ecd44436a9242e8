"""Ctrl-C and SIGTERM, deferred to the next safe moment."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

STDERR = 2


@contextmanager
def deferred_signals(received: Callable[[], object], *, notice: str | None) -> Iterator[None]:
    """Calls ``received`` at the first Ctrl-C or SIGTERM, and lets the signal take effect at the end of the block.

    A second signal takes effect at once. An ignored signal stays ignored, and outside the main thread, where Python
    allows no handler, signals behave as usual.

    Args:
        received: Called in the signal handler, so it should do little.
        notice: Written to stderr at the first signal; ``None`` for nothing.
    """
    numbers: list[int] = []
    before: dict[signal.Signals, Any] = {}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def handle(number: int, _: FrameType | None) -> None:
        numbers.append(number)
        received()
        if len(numbers) > 1:
            restore()
            signal.raise_signal(number)
        elif notice is not None:
            with suppress(OSError):  # not with print, which the signal may have interrupted
                os.write(STDERR, f"{notice}\n".encode())

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        restore()
    if numbers:
        signal.raise_signal(numbers[0])
