"""Ctrl-C, SIGTERM and SIGHUP, deferred to the next safe moment."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType
from typing import Any

STDERR = 2

_HANGUP: signal.Signals | None = getattr(signal, "SIGHUP", None)  # Windows has none
_SENT_TO_ALL = [signal.SIGINT, *([_HANGUP] if _HANGUP else [])]  # processes of a terminal, by it


@contextmanager
def deferred_signals(received: Callable[[], object], *, notice: str | None) -> Iterator[None]:
    """Calls ``received`` at the first Ctrl-C, SIGTERM or SIGHUP, which takes effect only at the end of the block.

    A second signal takes effect at once, except SIGHUP: a closed terminal and its shell each send one. An ignored
    signal stays ignored, and outside the main thread, where Python allows no handler, signals behave as usual. In a
    process forked within the block, such as a worker of a ``DataLoader``, Ctrl-C and SIGHUP, which a terminal sends to
    all of them, have no effect, and SIGTERM has its usual one.

    Args:
        received: Called in the signal handler, so it should do little.
        notice: Written to stderr at the first signal; ``None`` for nothing.
    """
    owner = os.getpid()
    numbers: list[int] = []
    before: dict[signal.Signals, Any] = {}

    def restore() -> None:
        with ExitStack() as stack:  # restores the other even if a signal takes effect as soon as one is restored
            for number, handler in before.items():
                stack.callback(signal.signal, number, handler)

    def handle(number: int, _: FrameType | None) -> None:
        is_owner = os.getpid() == owner
        if (not is_owner and number in _SENT_TO_ALL) or (numbers and number == _HANGUP):
            return
        numbers.append(number)
        if not is_owner or len(numbers) > 1:
            restore()
            signal.raise_signal(number)
            return
        received()
        if notice is not None:
            _write_notice(notice)

    if threading.current_thread() is threading.main_thread():
        found = {number: signal.getsignal(number) for number in (*_SENT_TO_ALL, signal.SIGTERM)}
        before = {number: handler for number, handler in found.items() if handler not in (signal.SIG_IGN, None)}
    try:
        for number in before:  # all known before the first is replaced: a signal may arrive between the two
            signal.signal(number, handle)
        yield
    finally:
        restore()
    if numbers:
        signal.raise_signal(numbers[0])


def _write_notice(notice: str) -> None:
    """Writes a line to stderr, if there is one, and not with print, which the signal may have interrupted."""
    if sys.stderr is not None and sys.__stderr__ is not None:  # else the descriptor may be that of another file
        with suppress(OSError):
            os.write(STDERR, f"{notice}\n".encode())
