"""Lines for a person who watches."""

import sys

from tqdm import tqdm


def write_line(line: str) -> None:
    """Writes a line to stderr, above the progress bar where there is one."""
    tqdm.write(line, file=sys.stderr)
    sys.stderr.flush()
