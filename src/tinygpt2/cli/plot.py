"""The command ``tinygpt2 plot``."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tinygpt2.cli.options import Commands, add_command, add_option

if TYPE_CHECKING:
    from tinygpt2.training.history import TrainingHistory


def add(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(commands, "plot", plot_command, "plot the losses of a run")
    parser.add_argument("directory", metavar="DIR", help="run directory")
    add_option(parser, "--out", "image file to write, .png, .svg or .pdf (default: DIR/losses.png)", metavar="FILE")


def plot_command(options: argparse.Namespace) -> int:
    """Plots a run's losses."""
    from tinygpt2._internal.files import is_stream
    from tinygpt2.cli.common import plot_history, read_model
    from tinygpt2.cli.report import baselines_in
    from tinygpt2.run.directory import RunDirectory

    run = RunDirectory(Path(options.directory))
    history = read_model(options.directory, _history, options.program, last=True)
    path = run.plot if options.out is None else Path(options.out)
    plot_history(history, path, baselines_in(run.path))
    if not is_stream(path):  # which may be where this would go, too
        print(path)
    return 0


def _history(directory: Path) -> "TrainingHistory":
    from tinygpt2.cli.common import history_in
    from tinygpt2.run.directory import RunDirectory

    history = history_in(directory)
    if history is None:
        raise ValueError(f"{directory} has no {RunDirectory(directory).history.name}: it is not a run directory")
    return history
