"""The time that a run has taken, in a file beside its checkpoints.

It is not in them: equal runs write equal checkpoints, but do not take the same time.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path

from tinygpt2._internal.files import read_json, write_text
from tinygpt2._internal.ranges import Number

_LIMIT = 32 << 20  # bytes, as for the history

logger = logging.getLogger(__name__)


def write_seconds(path: Path, seconds: Mapping[int, float]) -> None:
    """Writes, atomically, the seconds that a run had taken at each of some steps."""
    write_text(path, json.dumps(seconds, indent=1) + "\n")


def read_seconds(path: Path) -> dict[int, float]:
    """Returns what `write_seconds` wrote; nothing for a run of an older version, or with a warning for a damaged file.

    Nothing that is learned depends on it, so it is no reason to refuse a run.
    """
    try:
        content = read_json(path, limit=_LIMIT)
        return {int(step): Number().check("seconds", seconds) for step, seconds in content.items()}
    except FileNotFoundError:
        return {}
    except (OSError, TypeError, ValueError) as error:
        logger.warning("cannot read how long the run has taken so far: %s", error)
        return {}
