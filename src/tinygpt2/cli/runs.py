"""The runs that a person may have meant."""

import difflib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tinygpt2.run.directory import RunDirectory

RUNS = Path("runs")
"""Where runs are, unless --out is given."""

_NAMED = 5  # runs in a message
_ENTRIES = 1000  # in a directory; in a larger one, no runs are looked for


def runs_in(directory: Path) -> list[RunDirectory]:
    """Returns the runs and other models that a directory holds, newest first."""
    try:
        with os.scandir(directory) as entries:
            paths = [directory / entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    except OSError:
        return []
    found = [run for run in map(RunDirectory, paths) if _is_run(run)] if len(paths) <= _ENTRIES else []
    return sorted(found, key=lambda run: os.path.getmtime(run.path), reverse=True)  # noqa: PTH204 - of a name that exists


def newest_to_resume() -> RunDirectory | None:
    """Returns the newest of the runs in ``runs`` that can be resumed."""
    return next((run for run in runs_in(RUNS) if run.options.exists() and run.has_begun()), None)


def similar(path: Path) -> Path | None:
    """Returns the run that has a similar name to one that is not there: beside it, or in ``runs``."""
    places = {run.path.name: run.path for directory in (RUNS, path.parent) for run in runs_in(directory)}
    return next((places[name] for name in difflib.get_close_matches(path.name, places, n=1)), None)


@contextmanager
def suggesting_runs(path: Path) -> Iterator[None]:
    """Names the runs that may have been meant, if reading a directory in the block fails because it is none.

    Raises:
        FileNotFoundError: In place of the error of the block.
    """
    try:
        yield
    except (FileNotFoundError, ImportError, ValueError) as error:
        if advice := _advice(path):
            raise FileNotFoundError(f"{path} {advice}") from error
        raise


def _advice(path: Path) -> str | None:
    if path.is_dir():
        runs = [] if _is_run(RunDirectory(path)) else runs_in(path)
        return f"is not a run directory; it holds runs: {_listed(runs)}; pass one of them" if runs else None
    if os.path.lexists(path):
        return None
    if meant := similar(path):
        return f"does not exist; did you mean {meant}?"
    runs = runs_in(RUNS)
    return f"does not exist; in {RUNS} there are {_listed(runs)}" if runs else None


def _is_run(run: RunDirectory) -> bool:
    try:
        return any(path.exists() for path in (run.options, run.config, run.tokenizer)) or bool(run.checkpoints())
    except OSError:  # it may not be read
        return False


def _listed(runs: Sequence[RunDirectory]) -> str:
    more = f" and {len(runs) - _NAMED:,} more" if len(runs) > _NAMED else ""
    return f"{', '.join(str(run.path) for run in runs[:_NAMED])}{more}"
