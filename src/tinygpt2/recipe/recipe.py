"""A recipe, as plain values."""

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from types import MappingProxyType
from typing import Any

from typing_extensions import override

from tinygpt2._internal.checks import check_instance
from tinygpt2._internal.ranges import Check, Int, Number, Text, check_fields
from tinygpt2.config import GPT2Config, TrainingConfig
from tinygpt2.data.noise import TextNoise
from tinygpt2.recipe.students import TEACHERS

_RANGES: Mapping[str, Check] = MappingProxyType(
    {
        "tokenizer": Text(),
        "batch_size": Int(),
        "teachers": TEACHERS,
        "minutes": Number(above_minimum=True),
        "speed": Number(above_minimum=True),
    }
)

_LINE = 100  # characters of its Python, from which on it is several lines


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The model and the training that `recommend` chose. Its ``repr`` is Python that makes an equal one.

    Attributes:
        tokenizer: A kind that `choose_tokenizer` knows. Of ``"bpe"``, ``model.vocab_size`` is the size to ask for; the
            size of any other kind follows from the text.
        model: Shape of the model.
        training: Configuration for `train`.
        batch_size: Windows in a batch, for `make_dataloader`.
        noise: Noise on the training text, likewise; ``None`` for none.
        teachers: Models to train first, with ``training`` and seeds of their own, of which the one to keep, without
            dropout, is then the student (`distil`); 0 for none.
        student: Configuration of the student's training; ``None`` without teachers.
        minutes: What the run is expected to take, with its preparation, evaluations and samples.
        speed: Speed of training in FLOP/s that was counted on.
        reasons: What was chosen and why, by what it is about. Not compared, and not in the ``repr``.

    Raises:
        TypeError: If a value is of the wrong type.
        ValueError: If a value is out of range.

    >>> recipe = recommend(
    ...     TextStatistics(bytes=100_000), minutes=2, speed=1e11, memory=2**32
    ... )
    >>> eval(repr(recipe)) == recipe
    True
    """

    tokenizer: str
    model: GPT2Config
    training: TrainingConfig
    batch_size: int
    noise: TextNoise | None = None
    teachers: int = 0
    student: TrainingConfig | None = None
    minutes: float
    speed: float
    reasons: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_instance("model", self.model, GPT2Config, "a GPT2Config")
        check_instance("training", self.training, TrainingConfig, "a TrainingConfig")
        if self.noise is not None:
            check_instance("noise", self.noise, TextNoise, "a TextNoise")
        if self.student is not None:
            check_instance("student", self.student, TrainingConfig, "a TrainingConfig")
        check_fields(self, _RANGES)

    def explain(self) -> str:
        """Returns a few lines with what was chosen, each with its reason."""
        width = max(map(len, self.reasons), default=0)
        return "\n".join(f"{name:{width}}  {reason}" for name, reason in self.reasons.items())

    @override
    def __repr__(self) -> str:
        return _python(self, "")


def _python(value: Any, indent: str) -> str:  # noqa: ANN401 - a dataclass, or a value in one
    """Returns the Python that makes a value: of dataclasses, the fields that have another value than the default."""
    if not hasattr(value, "__dataclass_fields__"):
        return repr(value)
    inner = f"{indent}    "
    parts = [f"{each.name}={_python(getattr(value, each.name), inner)}" for each in _changed(value)]
    name = type(value).__name__
    line = f"{name}({', '.join(parts)})"
    if len(indent) + len(line) <= _LINE and "\n" not in line:
        return line
    lines = "".join(f"{inner}{part},\n" for part in parts)
    return f"{name}(\n{lines}{indent})"


def _changed(value: Any) -> Iterator["Field[Any]"]:  # noqa: ANN401 - a dataclass
    return (
        each
        for each in fields(value)
        if each.repr and (each.default is MISSING or getattr(value, each.name) != each.default)
    )
