"""Ctrl-C, SIGTERM and SIGHUP on the command line: what they raise, and the exit codes."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self


class TerminatedError(BaseException):
    """SIGTERM, as an exception."""


class HangupError(BaseException):
    """SIGHUP, as an exception: the terminal was closed."""


_RAISED: dict[int, type[BaseException]] = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: TerminatedError}
_USUAL: dict[signal.Signals, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
if sys.platform != "win32":
    _RAISED[signal.SIGHUP] = HangupError
    _USUAL[signal.SIGHUP] = signal.SIG_DFL

STOPS = tuple(_RAISED.values())
"""What the signals raise."""


def signal_of(stop: BaseException) -> signal.Signals:
    """Returns the signal that raised one of `STOPS`."""
    return signal.Signals(next(number for number, raised in _RAISED.items() if isinstance(stop, raised)))


EXIT_FAILURE = 1
"""The exit code of a command that failed."""


def exit_code(number: signal.Signals) -> int:
    """Returns the exit code of a program that a signal stopped, as shells have it."""
    return 128 + number


class Received:
    """The signal that was received last, if any."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.waiting = False

    def handle(self, number: int, _: FrameType | None) -> None:
        """Raises the exception of a signal, or remembers to."""
        self.number = number
        if not self.waiting:
            self.check()

    def check(self) -> None:
        """Raises the exception of a signal that was received, also if something has swallowed it."""
        if self.number is not None:
            raise _RAISED[self.number]

    @contextmanager
    def between_imports(self) -> Iterator[None]:
        """Lets a signal take effect only between the imports in the block: within one, C code may swallow it."""
        self.waiting = True
        sys.meta_path.insert(0, self)
        try:
            yield
        finally:
            sys.meta_path.remove(self)
            self.waiting = False
        self.check()

    def find_spec(self, *_: object) -> None:
        """Finds no module, but is asked for each."""
        self.check()


@contextmanager
def signals_raise() -> Iterator[Received]:
    """Makes SIGTERM and SIGHUP raise an exception within the block, as Ctrl-C does, and remembers the last.

    A signal that a program around this one handles or ignores stays as it is; and so do all outside the main thread,
    where Python allows no handler.
    """
    received = Received()
    ours = [number for number, handler in _USUAL.items() if signal.getsignal(number) == handler]
    if threading.current_thread() is not threading.main_thread():
        ours = []
    for number in ours:
        signal.signal(number, received.handle)
    try:
        yield received
    finally:
        for number in ours:
            signal.signal(number, _USUAL[number])


class CtrlC:
    """Ctrl-C within the block: an exception in the parts that expect one, at most one in each, and nothing elsewhere.

    So that somebody who presses it twice does not interrupt what deals with the first. Outside the main thread, which
    gets all signals, nothing changes.
    """

    def __init__(self) -> None:
        self._expected = False
        self._before: Any = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _handle(self, *_: object) -> None:
        if self._expected:
            self._expected = False
            raise KeyboardInterrupt

    @contextmanager
    def raises(self) -> Iterator[None]:
        """Expects ``KeyboardInterrupt`` within the block."""
        self._expected = True
        try:
            yield
        finally:
            self._expected = False
