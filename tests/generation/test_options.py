"""The options that all functions of generation share."""

import inspect
from collections.abc import Callable

import pytest

from tinygpt2 import GenerationOptions, GreedySampler, generate, generate_text, stream, stream_text

DEFAULTS = {
    "max_new_tokens": inspect.Parameter.empty,
    "sampler": GreedySampler(),
    "min_new_tokens": 0,
    "max_time": None,
    "overflow": "slide",
    "generator": None,
}


@pytest.mark.parametrize("function", [generate, stream, generate_text, stream_text])
def test_every_function_shows_the_options_with_their_defaults(function: Callable[..., object]) -> None:
    """They are written once, and ``**options`` would tell a reader nothing."""
    parameters = inspect.signature(function).parameters
    assert {name: parameters[name].default for name in GenerationOptions.__annotations__} == DEFAULTS
    assert not any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    assert all(parameters[name].kind is inspect.Parameter.KEYWORD_ONLY for name in DEFAULTS)
