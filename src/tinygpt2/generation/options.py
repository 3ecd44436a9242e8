"""The options that every function of generation takes, with their checks and defaults."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Required, TypedDict, TypeVar, cast

from torch import Generator, device

from tinygpt2._internal.checks import (
    LARGEST_INT,
    can_be_iterated,
    check_choice,
    check_instance,
    check_int,
    check_number,
)
from tinygpt2.generation.samplers.checks import check_generator
from tinygpt2.generation.samplers.draws import GreedySampler
from tinygpt2.generation.samplers.protocol import Sampler

Overflow = Literal["slide", "restart"]

_GREEDY = GreedySampler()
_OVERFLOWS = ("slide", "restart")
_MOST_SAMPLES = 2**16  # of one prompt; memory ends before

Function = TypeVar("Function", bound=Callable[..., Any])


class GenerationOptions(TypedDict, total=False):
    """The options that `generate`, `stream`, `generate_text` and `stream_text` share, for instance to keep in a dict.

    All but ``max_new_tokens`` may be left out.

    >>> from tinygpt2 import TopKSampler
    >>> options: GenerationOptions = {
    ...     "max_new_tokens": 100, "sampler": TopKSampler(50)
    ... }
    """

    max_new_tokens: Required[int]
    """Maximum number of tokens to add to each row."""

    sampler: Sampler
    """Chooses each token; by default the most probable one."""

    min_new_tokens: int
    """Number of tokens before which no end can be chosen; 0 by default. A stop string ends a text all the same."""

    max_time: float | None
    """Seconds, from the first token's beginning, after which no further token is begun; ``None``, the default, for no
    such limit."""

    overflow: Literal["slide", "restart"]
    """What happens when a text outgrows the context length. With ``"slide"``, the default, each new token sees the last
    ``context_length`` tokens, which are all computed anew for it. With ``"restart"`` the model goes on from the newest
    half of them, which is computed once: a token then costs about as much as before, and sees between a half and all
    of them."""

    generator: Generator | Sequence[Generator] | None
    """Source of the sampler's randomness, on the model's device; PyTorch's global one if ``None``. A list has one for
    each row: the sampler is then called row by row, and what is drawn for a row does not depend on the others."""


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """The options of a generation, checked: those of `GenerationOptions`, and what not every function takes.

    Attributes:
        ends: Ids that end a row.
        n_vocab: Number of ids to choose from, where the model has more; ``None`` for all.
    """

    max_new_tokens: int
    sampler: Sampler = _GREEDY
    min_new_tokens: int = 0
    max_time: float | None = None
    overflow: Overflow = "slide"
    generator: Generator | Sequence[Generator] | None = None
    ends: tuple[int, ...] = ()
    n_vocab: int | None = None

    def __post_init__(self) -> None:
        most = check_int("max_new_tokens", self.max_new_tokens, minimum=0)
        least = check_int("min_new_tokens", self.min_new_tokens, minimum=0)
        if least > most:
            raise ValueError(f"min_new_tokens must be at most max_new_tokens={most}, got {least}")
        object.__setattr__(self, "max_new_tokens", most)
        object.__setattr__(self, "min_new_tokens", least)
        if self.max_time is not None:
            object.__setattr__(self, "max_time", check_number("max_time", self.max_time, above_minimum=True))
        check_choice("overflow", self.overflow, _OVERFLOWS)

    def generators(self, rows: int, where: device) -> tuple[Generator | None, list[Generator]]:
        """Returns the generator that all rows share, or each row's own if they do not.

        Raises:
            TypeError: If the generator is anything else.
            ValueError: If there are not as many generators as rows, or one is on another device, or there twice.
        """
        if not isinstance(self.generator, list | tuple):
            shared = cast("Generator | None", self.generator)
            check_generator(shared, where)
            return shared, []
        several: list[Any] = list(self.generator)
        for each in several:
            check_instance("each generator", each, Generator, "a torch.Generator")
            check_generator(each, where)
        if len(several) != rows or len(set(map(id, several))) != rows:
            raise ValueError(
                f"generator must be a torch.Generator for all rows, or a list of {rows}, a different one for each row; "
                f"got a list of {len(several)} with {len(set(map(id, several)))} different ones"
            )
        return None, several

    @classmethod
    def of(cls, options: GenerationOptions, *, ends: tuple[int, ...], n_vocab: int | None = None) -> "Decoding":
        """Returns the decoding that a caller's options describe.

        Raises:
            TypeError: If one is missing, unknown or of the wrong type.
            ValueError: If one is out of range.
        """
        if unknown := sorted(options.keys() - _SHARED):
            raise TypeError(f"unknown option {unknown[0]!r}; expected some of {', '.join(_SHARED)}")
        if "max_new_tokens" not in options:
            raise TypeError("max_new_tokens must be given: the maximum number of tokens to add")
        return cls(**options, ends=ends, n_vocab=n_vocab)


_SHARED = [name for name in inspect.signature(Decoding).parameters if name in GenerationOptions.__annotations__]


def end_ids(eos_id: object, *, maximum: int = LARGEST_INT) -> tuple[int, ...]:
    """Returns the ids that end a row: none, one or several."""
    if eos_id is None:
        return ()
    several: Any = eos_id if can_be_iterated(eos_id) and not isinstance(eos_id, str | bytes | Mapping) else [eos_id]
    return tuple(check_int("eos_id", each, minimum=0, maximum=maximum) for each in several)


def check_samples(name: str, count: object) -> int:
    """Returns a number of continuations of a prompt."""
    return check_int(name, count, maximum=_MOST_SAMPLES)


def takes_options(function: Function) -> Function:
    """Shows the options in the signature of a function that takes them as ``**options``, as if each were written."""
    signature, shared = inspect.signature(function), inspect.signature(Decoding).parameters
    own = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
    shown = signature.replace(parameters=[*own, *(shared[name] for name in _SHARED)])
    cast("Any", function).__signature__ = shown  # what inspect, and so help, reads
    return function
