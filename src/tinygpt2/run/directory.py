"""The file names in a run directory, and exclusive access to it.

A run directory has

- ``checkpoint-STEP``: everything that a run resumes from;
- ``best``: the model with the lowest validation loss, without the optimizer;
- ``seconds.json``: the time that the run had taken at some steps;
- ``snapshots/STEP.safetensors``: the weights after some steps, in a byte each;

and, from the command line,

- ``options.json``: the options that the run was started with;
- ``tinygpt2_tokenizer.json``, ``tokenizer.json`` and others: the tokenizer, for us and for other tools;
- ``config.json``, ``model.safetensors``: the trained model, once the run has ended: that of ``best``;
- ``history.json``, ``losses.png``: the losses and their plot;
- ``page.html``: a page in which the model works, if there was one made;
- ``report.json``: what the model's loss on held-out text is to be compared with;
- ``teacher-1``, ``teacher-2``, ...: run directories of the first models, if the model is a student of theirs;
- ``samples.tokens``: the sequences that they wrote for it.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path
from typing import Self

from tinygpt2._internal.directories import recover_directories
from tinygpt2._internal.files import make_directories, remove_abandoned, sync_directory
from tinygpt2.formats.huggingface import CONFIG_FILE
from tinygpt2.formats.weights import WEIGHTS_FILE
from tinygpt2.run.lock import is_locked, locked
from tinygpt2.tokenizers.storage import TOKENIZER_FILES
from tinygpt2.tokenizers.tokenizer_file import TOKENIZER_FILE

_BEST = "best"
_HISTORY = "history.json"
_PLOT = "losses.png"
_REPORT = "report.json"
_SECONDS = "seconds.json"
_OPTIONS = "options.json"
_TEACHER = "teacher"
_SAMPLES = "samples.tokens"
_PAGE = "page.html"
_SNAPSHOTS = "snapshots"

_CHECKPOINT = re.compile(r"checkpoint-(0|[1-9][0-9]*)")
_DIRECTORIES = rf"checkpoint-(?:0|[1-9][0-9]*)|{_BEST}"
_SNAPSHOT = re.compile(r"(?:0|[1-9][0-9]*)\.safetensors")
_FILES = (_HISTORY, _PLOT, _PAGE, _REPORT, _SAMPLES, _SECONDS, _OPTIONS, *TOKENIZER_FILES, CONFIG_FILE, WEIGHTS_FILE)


@dataclass(frozen=True)
class RunDirectory:
    """A run directory, which defines every name in it.

    Attributes:
        path: The path of the directory.
        made: The directories that `create` or `claim` created, innermost first.

    >>> RunDirectory(Path("runs/fox")).checkpoint(12).as_posix()
    'runs/fox/checkpoint-12'
    """

    path: Path
    made: tuple[Path, ...] = field(default=(), compare=False, repr=False)

    @classmethod
    def create(cls, parent: Path, name: str) -> Self:
        """Creates a new directory: ``name``, or ``name-2``, ``name-3``, ... if that exists.

        Two runs that are started simultaneously get different directories.
        """
        made = make_directories(parent)
        names = chain([name], (f"{name}-{i}" for i in count(2)))
        path = next(path for path in map(parent.joinpath, names) if _is_made(path))
        return cls(path, (path, *made))

    @classmethod
    def claim(cls, path: Path) -> Self:
        """Creates a directory, or uses an existing empty one.

        Raises:
            FileExistsError: If it is a file.
            ValueError: If it is not empty.
        """
        run = cls(path, make_directories(path))
        run.check_empty()
        return run

    def check_empty(self) -> None:
        """Raises ``ValueError`` if the directory is not empty."""
        if any(self.path.iterdir()):
            resume = ", resume the run in it (--resume)" if self.options.exists() else ""
            raise ValueError(f"{self.path} is not empty; choose another directory{resume}, or remove it")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes and threads out of the directory within the block; blocks can be nested.

        Raises:
            BlockingIOError: If another process or thread has locked the directory.
            FileNotFoundError: If there is no such directory.
        """
        with locked(self.path):
            yield

    def is_training(self) -> bool:
        """Returns whether a process or a thread is within `locked`, as far as can be known without waiting."""
        return is_locked(self.path)

    @contextmanager
    def discarded_on_failure(self) -> Iterator[None]:
        """Removes the directory if the block fails before anything was written."""
        try:
            yield
        except BaseException:
            self.discard_if_empty()
            raise

    def discard_if_empty(self) -> None:
        """Removes the directories that `create` or `claim` created, unless they are not empty."""
        with suppress(OSError):  # it is not empty
            for path in self.made:
                path.rmdir()

    def recover(self) -> None:
        """Cleans up after a process that was killed while writing. Call it only within `locked`."""
        recover_directories(self.path, _DIRECTORIES)
        for name in _FILES:
            remove_abandoned(self.path / name)
        directory = self.path / _SNAPSHOTS
        for abandoned in directory.glob(".*") if directory.is_dir() else ():
            if match := _SNAPSHOT.search(abandoned.name):
                remove_abandoned(directory / match[0])

    def checkpoint(self, step: int) -> Path:
        """Returns the path of a step's checkpoint."""
        return self.path / f"checkpoint-{step}"

    def checkpoints(self) -> list[Path]:
        """Returns the paths of the checkpoints, newest first, without reading them."""
        if not self.path.is_dir():
            return []
        return sorted(filter(self.is_checkpoint, self.path.iterdir()), key=self.step_of, reverse=True)

    def has_begun(self) -> bool:
        """Returns whether there is a checkpoint to resume from: of the run, or of its first teacher."""
        return bool(self.checkpoints() or self.teacher(1).checkpoints())

    def has_model(self) -> bool:
        """Returns whether it has the model of a run that has ended."""
        return self.config.exists() and self.weights.exists()

    def misnamed_checkpoints(self) -> list[Path]:
        """Returns what is not a checkpoint because of its name alone, such as ``checkpoint-0004``."""
        found = self.path.iterdir() if self.path.is_dir() else ()
        return [path for path in found if re.fullmatch(r"checkpoint-\d+", path.name) and not self.is_checkpoint(path)]

    @staticmethod
    def is_checkpoint(path: Path) -> bool:
        """Returns whether a path has the name of a checkpoint: a step in the digits 0 to 9, without leading zeros."""
        return bool(_CHECKPOINT.fullmatch(path.name))

    @staticmethod
    def step_of(checkpoint: Path) -> int:
        """Returns the step in the name of a checkpoint.

        Raises:
            ValueError: If it is not the name of a checkpoint.

        >>> RunDirectory.step_of(Path("runs/fox/checkpoint-12"))
        12
        """
        match = _CHECKPOINT.fullmatch(checkpoint.name)
        if match is None:
            raise ValueError(f"expected the name of a checkpoint, such as checkpoint-12, got {checkpoint.name!r}")
        return int(match[1])

    @property
    def best(self) -> Path:
        """The path of the model with the lowest validation loss."""
        return self.path / _BEST

    @property
    def history(self) -> Path:
        """The path of the losses."""
        return self.path / _HISTORY

    @property
    def plot(self) -> Path:
        """The path of the losses' plot."""
        return self.path / _PLOT

    @property
    def report(self) -> Path:
        """The path of what the model's loss on held-out text is to be compared with."""
        return self.path / _REPORT

    @property
    def seconds(self) -> Path:
        """The path of the time that the run had taken at some steps."""
        return self.path / _SECONDS

    @property
    def samples(self) -> Path:
        """The path of the sequences that teachers wrote."""
        return self.path / _SAMPLES

    @property
    def page(self) -> Path:
        """The path of the page in which the model works."""
        return self.path / _PAGE

    def snapshot(self, step: int) -> Path:
        """Returns the path of the weights after a step."""
        return self.path / _SNAPSHOTS / f"{step}.safetensors"

    def snapshots(self) -> list[Path]:
        """Returns the paths of the weights after some steps, in any order."""
        directory = self.path / _SNAPSHOTS
        found = directory.iterdir() if directory.is_dir() else ()
        return [path for path in found if _SNAPSHOT.fullmatch(path.name)]

    def teacher(self, number: int) -> Self:
        """Returns the run directory of one of the first models, counted from 1."""
        return type(self)(self.path / f"{_TEACHER}-{number}")

    @property
    def options(self) -> Path:
        """The path of the options that the run was started with."""
        return self.path / _OPTIONS

    @property
    def tokenizer(self) -> Path:
        """The path of the tokenizer."""
        return self.path / TOKENIZER_FILE

    @property
    def tokenizer_files(self) -> list[Path]:
        """The paths of all files that a tokenizer can have."""
        return [self.path / name for name in TOKENIZER_FILES]

    @property
    def config(self) -> Path:
        """The path of the trained model's configuration."""
        return self.path / CONFIG_FILE

    @property
    def weights(self) -> Path:
        """The path of the trained model's weights."""
        return self.path / WEIGHTS_FILE


def _is_made(path: Path) -> bool:
    """Creates a directory, or returns ``False`` if the path exists: of two processes, only one creates it."""
    try:
        path.mkdir()
    except FileExistsError:
        return False
    sync_directory(path.parent)
    return True
