"""The options that every function of generation takes, with their checks and defaults."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Required, TypedDict, TypeVar, cast

from torch import Generator

from tinygpt2._internal.checks import check_choice, check_int
from tinygpt2.generation.samplers import GreedySampler, Sampler

Overflow = Literal["slide", "restart"]

_GREEDY = GreedySampler()
_OVERFLOWS = ("slide", "restart")

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

    overflow: Literal["slide", "restart"]
    """What happens when a text outgrows the context length. With ``"slide"``, the default, each new token sees the last
    ``context_length`` tokens, which are all computed anew for it. With ``"restart"`` the model goes on from the newest
    half of them, which is computed once: a token then costs about as much as before, and sees between a half and all
    of them."""

    generator: Generator | None
    """Source of the sampler's randomness, on the model's device; PyTorch's global one if ``None``."""


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """The options of a generation, checked: those of `GenerationOptions`, and what not every function takes.

    Attributes:
        eos_id: Id that ends a row; ``None`` for no such id.
        n_vocab: Number of ids to choose from, where the model has more; ``None`` for all.
    """

    max_new_tokens: int
    sampler: Sampler = _GREEDY
    overflow: Overflow = "slide"
    generator: Generator | None = None
    eos_id: int | None = None
    n_vocab: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_new_tokens", check_int("max_new_tokens", self.max_new_tokens, minimum=0))
        check_choice("overflow", self.overflow, _OVERFLOWS)
        if self.eos_id is not None:
            object.__setattr__(self, "eos_id", check_int("eos_id", self.eos_id, minimum=0))

    @classmethod
    def of(cls, options: GenerationOptions, *, eos_id: int | None = None, n_vocab: int | None = None) -> "Decoding":
        """Returns the decoding that a caller's options describe.

        Raises:
            TypeError: If one is missing, unknown or of the wrong type.
            ValueError: If one is out of range.
        """
        if unknown := sorted(options.keys() - _SHARED):
            raise TypeError(f"unknown option {unknown[0]!r}; expected some of {', '.join(_SHARED)}")
        if "max_new_tokens" not in options:
            raise TypeError("max_new_tokens must be given: the maximum number of tokens to add")
        return cls(**options, eos_id=eos_id, n_vocab=n_vocab)


_SHARED = [name for name in inspect.signature(Decoding).parameters if name in GenerationOptions.__annotations__]


def takes_options(function: Function) -> Function:
    """Shows the options in the signature of a function that takes them as ``**options``, as if each were written."""
    signature, shared = inspect.signature(function), inspect.signature(Decoding).parameters
    own = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
    shown = signature.replace(parameters=[*own, *(shared[name] for name in _SHARED)])
    cast("Any", function).__signature__ = shown  # what inspect, and so help, reads
    return function
