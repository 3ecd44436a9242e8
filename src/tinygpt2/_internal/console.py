"""Lines for a person watching the terminal."""

import sys
from contextlib import suppress

from tqdm import tqdm


def write_line(line: str) -> None:
    """Writes a line to stderr, if the process has one, above the progress bar if there is one.

    A terminal that was closed, or a pipe that nobody reads, is no reason for a run to fail.
    """
    if sys.stderr is not None:  # as under pythonw and in some services, where tqdm would write to stdout
        with suppress(OSError):
            tqdm.write(line, file=sys.stderr)
            sys.stderr.flush()
