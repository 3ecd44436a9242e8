"""The entry point ``tinygpt2``: its commands, exit codes and error messages."""

import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from tinygpt2.cli.signals import EXIT_FAILURE, STOPS, Received, exit_code, signal_of, signals_raise
from tinygpt2.errors import NonFiniteLossError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code.

    0 is success, 1 a failure (explained in one line on stderr), 2 incorrect usage, 130 an interruption by Ctrl-C, 143
    one by SIGTERM and 129 one by SIGHUP.

    Args:
        arguments: The words after the program's name; by default those that the process was started with. A program
            that passes its own keeps its streams and its signal handlers, and may call this in any thread.
    """
    ours = arguments is None
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        with signals_raise() as received:
            try:
                return _run(words, received, ours=ours)
            except Exception:
                received.check()  # an import that a signal interrupts may fail with any error
                raise
    except STOPS as stop:
        number = signal_of(stop)
        return _fail({"SIGINT": "interrupted", "SIGTERM": "terminated"}.get(number.name, "hung up"), exit_code(number))
    except BrokenPipeError:
        return _fail("nothing reads the output any more (broken pipe)")
    except Exception as error:
        if "--traceback" in words:
            raise
        return _fail(_describe(error))
    finally:
        _drop_unwritable_output(ours=ours)


def _run(words: Sequence[str], received: Received, *, ours: bool) -> int:
    """Runs the command that words name and returns its exit code, or that of incorrect usage or of help."""
    from tinygpt2.cli.commands import parsed  # not above, where Ctrl-C would show a traceback
    from tinygpt2.cli.hints import program

    if ours:
        _write_utf8()
    try:
        options = parsed(words, program() if ours else ["tinygpt2"])
    except SystemExit as end:
        code = int(end.code or 0)
    else:
        if options.command != "train" and os.environ.get("WORLD_SIZE", "1") not in {"", "1"}:
            return _refuse_others()
        with received.between_imports():
            import tinygpt2.cli.common  # noqa: F401 - all that takes seconds
        code = options.run(options)
    if sys.stdout is not None:
        sys.stdout.flush()
    return code


def _refuse_others() -> int:
    """Returns the exit code of one of several processes, of which the first says that they are too many.

    The others must not fail: torchrun would end the first, perhaps before it has said so.
    """
    if os.environ.get("RANK", "0") != "0":
        return 0
    return _fail("error: only 'tinygpt2 train' uses several processes; start this command without torchrun")


def _write_utf8() -> None:
    """Makes the process's own streams write UTF-8, whatever the locale."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # there may be none, or another program's
            stream.reconfigure(encoding="utf-8", errors="replace")


def _drop_unwritable_output(*, ours: bool) -> None:
    """Discards the output buffered for our streams if it cannot be written: Python would try again at exit."""
    for stream in (sys.stdout, sys.stderr):
        if stream is None:
            continue
        try:
            stream.flush()
        except (OSError, ValueError):  # the latter if it was closed
            if ours:
                with suppress(OSError, ValueError):
                    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _fail(message: str, code: int = EXIT_FAILURE) -> int:
    if sys.stderr is not None:
        with suppress(OSError, ValueError):  # the exit code still tells
            print(f"tinygpt2: {message}", file=sys.stderr)
    return code


def _describe(error: Exception) -> str:
    """Returns an error as one line, with the notes that were added to it."""
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    else:
        text = str(error)
    known = isinstance(error, ValueError | OSError | NonFiniteLossError | ImportError)
    text = "; ".join([text, *getattr(error, "__notes__", [])])
    text = " ".join(text.split())
    return f"error: {text}" if known else f"error: {type(error).__name__}: {text} (--traceback shows where)"
