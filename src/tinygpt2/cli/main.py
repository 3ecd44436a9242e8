"""The entry point ``tinygpt2``: its commands, exit codes and error messages."""

import argparse
import io
import os
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from tinygpt2.cli.evaluate import add as add_evaluate
from tinygpt2.cli.generate import add as add_generate
from tinygpt2.cli.info import add as add_info
from tinygpt2.cli.plot import add as add_plot
from tinygpt2.cli.tokenize import add as add_tokenize
from tinygpt2.cli.train import EXIT_SIGNAL
from tinygpt2.cli.train import add as add_train
from tinygpt2.errors import NonFiniteLossError

EXIT_FAILURE = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code.

    0 is success, 1 a failure (explained in one line on stderr), 2 incorrect usage, 130 an interruption by Ctrl-C and
    143 one by SIGTERM.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not if a test or a notebook has replaced it
            stream.reconfigure(encoding="utf-8", errors="replace")
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _fail("interrupted", EXIT_SIGNAL + signal.SIGINT)
    except BrokenPipeError:
        _drop_unwritable_output()
        return _fail("nothing reads the output any more (broken pipe)")
    except Exception as error:
        _drop_unwritable_output()
        if options.traceback:
            raise
        return _fail(_describe(error))
    else:
        return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tinygpt2",
        description="Train a GPT-2 from scratch on your own text, and generate with it.",
        epilog="'tinygpt2 train' alone trains a small model on the built-in sample text. "
        "'tinygpt2 COMMAND --help' explains a command.",
    )
    parser.add_argument("--version", action="version", version=f"tinygpt2 {_version()}")
    parser.add_argument("--traceback", action="store_true", help="show where in the code a failure occurred")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (add_train, add_generate, add_evaluate, add_tokenize, add_plot, add_info):
        add(commands)
    return parser


def _version() -> str:
    try:
        return version("tinygpt2")
    except PackageNotFoundError:
        return "(not installed)"


def _drop_unwritable_output() -> None:
    """Discards the output buffered for stdout if it cannot be written: Python would try again at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str, code: int = EXIT_FAILURE) -> int:
    print(f"tinygpt2: {message}", file=sys.stderr)
    return code


def _describe(error: Exception) -> str:
    """Returns an error as one line."""
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        return f"error: {place}{error.strerror}"
    known = isinstance(error, ValueError | OSError | NonFiniteLossError | ImportError)
    text = " ".join(str(error).split())
    return f"error: {text}" if known else f"error: {type(error).__name__}: {text} (--traceback shows where)"
