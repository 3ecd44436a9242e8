"""Lines for a person watching the terminal."""

import sys

from tqdm import tqdm


def write_line(line: str) -> None:
    """Writes a line to stderr, if the process has one, above the progress bar if there is one."""
    if sys.stderr is not None:  # as under pythonw and in some services, where tqdm would write to stdout
        tqdm.write(line, file=sys.stderr)
        sys.stderr.flush()
