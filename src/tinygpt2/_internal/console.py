"""Lines for a person watching the terminal."""

import sys

from tqdm import tqdm


def write_line(line: str) -> None:
    """Writes a line to stderr, above the progress bar if there is one."""
    tqdm.write(line, file=sys.stderr)
    sys.stderr.flush()
