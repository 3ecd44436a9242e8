"""Configurations: what is accepted, what is refused and how, and what they turn into."""

import dataclasses
import json
import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tinygpt2 import GPT2Config, GPT2Model, TrainingConfig
from tinygpt2._internal.ranges import Int
from tinygpt2.config import MODEL_RANGES, PRESETS, TRAINING_RANGES
from tinygpt2.model.checks import number_of_weights

NAN, INF = float("nan"), float("inf")

# What each field refuses because of its type, then because of its value.
MODEL_FIELDS: list[tuple[str, list[Any], list[Any]]] = [
    ("vocab_size", [1.0, "1", None, True], [0, -1]),
    ("context_length", [16.0, None, False], [0, -1]),
    ("n_layer", [2.5, [2]], [0]),
    ("n_head", ["3", True], [0, 5]),
    ("n_embd", [24.0], [0, 769]),
    ("dropout", ["0.1", None, True], [1, 1.5, -0.1, NAN, INF]),
    ("qkv_bias", [1, None, "yes"], []),
    ("tie_weights", [0, None, "no"], []),
    ("n_inner", [2.5, "96"], [0]),
    ("activation_function", [], ["swish", "", None]),
    ("layer_norm_epsilon", ["1e-5", None], [0, -1e-5, NAN, INF]),
    ("scale_attn_weights", [1, None, "yes"], []),
    ("scale_attn_by_inverse_layer_idx", [0, None, "no"], []),
    ("initializer_range", ["0.02", None], [0, -0.02, NAN, INF]),
]
TRAINING_FIELDS: list[tuple[str, list[Any], list[Any]]] = [
    ("epochs", [1.0, None, True], [0, -1]),
    ("max_steps", [1.5, "9"], [0]),
    ("optimizer", [], ["sgd", "AdamW", "", None]),
    ("spelling", [1, None, "yes"], []),
    ("learning_rate", ["0.1", None, True], [0, -1e-4, NAN, INF]),
    ("min_learning_rate", ["0"], [-1e-9, 1.0, NAN]),
    ("schedule", [], ["exponential", "", None]),
    ("warmup_steps", [0.5, None], [-1]),
    ("weight_decay", [None, "0"], [-0.1, NAN, INF]),
    ("decay_all_parameters", [1, None, "no"], []),
    ("betas", [0.9, ("0.9", 0.95)], [(0.9,), (0.9, 0.95, 0.99), (0.9, 1.0), (-0.1, 0.9), (NAN, 0.9)]),
    ("ema_decay", [None, "0.9"], [-0.1, 1.0, NAN]),
    ("max_grad_norm", ["1"], [0, -1, NAN, INF]),
    ("gradient_accumulation_steps", [2.0, None], [0]),
    ("precision", [], ["fp16", "", None]),
    ("sharding", [], ["half", "", None]),
    ("compile", [1, "no"], []),
    ("eval_every", [0.5], [0]),
    ("eval_batches", ["5"], [0]),
    ("sample_prompt", [5, b"at"], []),
    ("sample_tokens", [None, 5.0], [0]),
    ("seed", [None, 0.0, True], [-1]),
]


def cases(which: int) -> list[Any]:
    return [
        pytest.param(cls, field[0], value, id=f"{field[0]}={value!r}")
        for cls, fields in ((GPT2Config, MODEL_FIELDS), (TrainingConfig, TRAINING_FIELDS))
        for field in fields
        for value in field[which]
    ]


@pytest.mark.parametrize(("cls", "name", "value"), cases(1))
def test_a_value_of_the_wrong_type_is_a_type_error(cls: type[Any], name: str, value: object) -> None:
    with pytest.raises(TypeError):
        cls(**{name: value})


@pytest.mark.parametrize(("cls", "name", "value"), cases(2))
def test_a_value_out_of_range_is_a_value_error_that_names_the_field_and_the_value(
    cls: type[Any], name: str, value: object
) -> None:
    with pytest.raises(ValueError, match=name) as caught:
        cls(**{name: value})
    culprits = [str(part) for part in value] if isinstance(value, tuple) else [str(value)]
    assert any(culprit in str(caught.value) for culprit in culprits)


@pytest.mark.parametrize(("cls", "fields"), [(GPT2Config, MODEL_FIELDS), (TrainingConfig, TRAINING_FIELDS)])
def test_the_tables_above_miss_no_field(cls: type[Any], fields: list[tuple[str, list[Any], list[Any]]]) -> None:
    assert [name for name, _, _ in fields] == [field.name for field in dataclasses.fields(cls)]


@pytest.mark.parametrize(("cls", "ranges"), [(GPT2Config, MODEL_RANGES), (TrainingConfig, TRAINING_RANGES)])
def test_every_field_has_a_range_which_its_default_is_in(cls: type[Any], ranges: Any) -> None:  # noqa: ANN401
    assert list(ranges) == [field.name for field in dataclasses.fields(cls)]
    for field in dataclasses.fields(cls):
        assert ranges[field.name].check(field.name, field.default) == field.default


@pytest.mark.parametrize("integer", [np.int64, np.uint8, np.int16, torch.tensor, np.array])
def test_integers_of_numpy_become_plain_ones(integer: Any) -> None:  # noqa: ANN401
    """A sweep over ``np.arange`` used to be told that its 2 was not an integer."""
    config = GPT2Config(n_layer=integer(2))
    assert type(config.n_layer) is int
    assert config == GPT2Config(n_layer=2)
    assert json.loads(json.dumps(dataclasses.asdict(config)))["n_layer"] == 2
    assert TrainingConfig(max_steps=integer(5), seed=integer(0)) == TrainingConfig(max_steps=5, seed=0)


@pytest.mark.parametrize("number", [np.float16, np.float32, np.float64, int, float])
def test_numbers_of_numpy_become_plain_ones(number: Any) -> None:  # noqa: ANN401
    config = TrainingConfig(learning_rate=number(1), betas=(number(0), number(0.5)), max_grad_norm=number(2))
    assert [type(value) for value in (config.learning_rate, *config.betas, config.max_grad_norm)] == [float] * 4
    assert type(GPT2Config(dropout=number(0)).dropout) is float
    json.dumps(dataclasses.asdict(config))


@pytest.mark.parametrize("value", [np.float64(2), np.True_, np.array([2]), np.array(True), torch.tensor(True), "2"])
def test_other_values_are_still_no_integers(value: object) -> None:
    with pytest.raises(TypeError, match="n_layer must be an integer"):
        GPT2Config(n_layer=value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [np.True_, np.float32("nan"), np.float32("inf"), 10**400])
def test_other_values_are_still_no_numbers(value: Any) -> None:  # noqa: ANN401
    with pytest.raises((TypeError, ValueError), match="weight_decay must be a"):
        TrainingConfig(weight_decay=value)


@pytest.mark.parametrize(("cls", "ranges"), [(GPT2Config, MODEL_RANGES), (TrainingConfig, TRAINING_RANGES)])
@pytest.mark.parametrize("value", [2**64, 10**30, 10**400, 10**5000], ids=["2**64", "10**30", "10**400", "10**5000"])
def test_every_integer_has_an_end_and_every_message_is_short(cls: type[Any], ranges: Any, value: int) -> None:  # noqa: ANN401
    names = [name for name, expected in ranges.items() if isinstance(getattr(expected, "inner", expected), Int)]
    assert len(names) == {GPT2Config: 6, TrainingConfig: 8}[cls]
    for name in names:
        with pytest.raises(ValueError, match=f"{name} must be at most [0-9]+, got") as caught:
            cls(**{name: value})
        assert len(str(caught.value)) < 150


def test_the_largest_shape_has_sizes_that_do_not_overflow() -> None:
    """So that whatever a file asks for, PyTorch can compute how large that is."""
    shape = {name: MODEL_RANGES[name].maximum for name in ("vocab_size", "context_length", "n_head", "n_embd")}  # type: ignore[attr-defined]
    config = GPT2Config(**shape, n_layer=1)
    with torch.device("meta"):
        assert GPT2Model(config).num_parameters() < 2**63
    most = {"n_layer": MODEL_RANGES["n_layer"].maximum}  # type: ignore[attr-defined]
    assert 8 * number_of_weights(GPT2Config(**shape, **most, tie_weights=False)) < 2**63, "also in float64"


@pytest.mark.parametrize("n_embd", [2**20 - 3, 10**15 + 37])
def test_a_width_without_divisors_is_told_at_once(n_embd: int) -> None:
    """The search for a number of heads that divides it used to take days."""
    with pytest.raises(ValueError, match="n_embd"):
        GPT2Config(n_embd=n_embd)


def test_a_seed_is_one_that_pytorch_takes() -> None:
    torch.Generator().manual_seed(TrainingConfig(seed=2**64 - 1).seed)
    with pytest.raises(ValueError, match="seed must be at most 18446744073709551615"):
        TrainingConfig(seed=2**64)


@pytest.mark.parametrize("config", [GPT2Config(), TrainingConfig()])
@pytest.mark.parametrize("name", ["_attn_implementation", "anything"])
def test_an_attribute_that_a_configuration_does_not_have_is_an_attribute_error(
    config: Any,  # noqa: ANN401
    name: str,
) -> None:
    """With slots it was a TypeError about ``super()``, which ended transformers' Trainer."""
    with pytest.raises(AttributeError):
        setattr(config, name, 1)
    with pytest.raises(AttributeError):
        delattr(config, name)
    assert not hasattr(config, name)


@pytest.mark.parametrize(
    "accepted",
    [
        {"dropout": 0},
        {"dropout": 0.999},
        {"vocab_size": 1, "context_length": 1, "n_layer": 1, "n_head": 1, "n_embd": 1},
        {"n_head": 768},
    ],
)
def test_a_model_accepts_the_ends_of_the_ranges(accepted: dict[str, Any]) -> None:
    config = GPT2Config(**accepted)
    assert dataclasses.asdict(config) == dataclasses.asdict(GPT2Config()) | accepted


@pytest.mark.parametrize(
    "accepted",
    [
        {"learning_rate": 1, "min_learning_rate": 1},
        {"min_learning_rate": 0},
        {"betas": (0, 0)},
        {"weight_decay": 0},
        {"max_grad_norm": None, "max_steps": None, "eval_every": None, "eval_batches": None, "sample_prompt": None},
        {"warmup_steps": 0, "seed": 0, "sample_prompt": ""},
    ],
)
def test_training_accepts_the_ends_of_the_ranges(accepted: dict[str, Any]) -> None:
    config = TrainingConfig(**accepted)
    assert dataclasses.asdict(config) == dataclasses.asdict(TrainingConfig()) | accepted


@pytest.mark.parametrize("config", [GPT2Config(), TrainingConfig()])
def test_a_configuration_is_frozen_hashable_and_has_keyword_arguments_only(config: Any) -> None:  # noqa: ANN401
    name = dataclasses.fields(config)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config, name, 1)
    with pytest.raises(TypeError):
        type(config)(1)
    with pytest.raises(TypeError):
        type(config)(n_heads=1)
    assert hash(config) == hash(dataclasses.replace(config))


@pytest.mark.parametrize(
    "config",
    [
        GPT2Config.preset("gpt2-nano", vocab_size=61, dropout=0.25, tie_weights=False),
        TrainingConfig(betas=(0.8, 0.9), max_steps=7, sample_prompt="第一次世界大战", max_grad_norm=None),
    ],
)
def test_a_configuration_goes_through_json_unchanged(config: Any) -> None:  # noqa: ANN401
    content = json.loads(json.dumps(dataclasses.asdict(config)))
    assert type(config)(**content) == config


@given(n_embd=st.integers(1, 2000), n_head=st.integers(1, 3000))
def test_heads_must_divide_the_width_and_the_error_names_the_nearest_that_does(n_embd: int, n_head: int) -> None:
    if n_embd % n_head == 0:
        config = GPT2Config(n_embd=n_embd, n_head=n_head)
    else:
        with pytest.raises(ValueError, match=f"n_embd \\({n_embd}\\).* n_head \\({n_head}\\)") as caught:
            GPT2Config(n_embd=n_embd, n_head=n_head)
        suggested = re.search(r"n_head=(\d+)", str(caught.value))
        assert suggested
        config = GPT2Config(n_embd=n_embd, n_head=int(suggested[1]))
        nearest = min(abs(divisor - n_head) for divisor in range(1, n_embd + 1) if n_embd % divisor == 0)
        assert abs(config.n_head - n_head) == nearest
    assert config.head_width * config.n_head == n_embd


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("gpt2", 124_439_808), ("gpt2-medium", 354_823_168), ("gpt2-large", 774_030_080), ("gpt2-xl", 1_557_611_200)],
)
def test_the_presets_have_as_many_parameters_as_the_models_that_openai_published(name: str, parameters: int) -> None:
    config = GPT2Config.preset(name)
    width = config.n_embd
    embeddings = (config.vocab_size + config.context_length) * width
    block = (4 + 8) * width**2 + (3 + 1 + 4 + 1 + 4) * width  # attention and MLP; biases and two layer norms
    assert embeddings + config.n_layer * block + 2 * width == parameters


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_takes_overrides_and_leaves_the_next_one_alone(name: str) -> None:
    before = GPT2Config.preset(name)
    changed = GPT2Config.preset(name, context_length=7, n_layer=1)
    assert (changed.context_length, changed.n_layer, changed.n_embd) == (7, 1, before.n_embd)
    assert GPT2Config.preset(name) == before


def test_the_default_is_the_preset_gpt2() -> None:
    assert GPT2Config() == GPT2Config.preset("gpt2")


def test_an_unknown_preset_is_told_the_known_ones() -> None:
    with pytest.raises(ValueError, match="gpt2-huge") as caught:
        GPT2Config.preset("gpt2-huge")
    assert all(name in str(caught.value) for name in PRESETS)


def test_a_wrong_override_of_a_preset_is_refused() -> None:
    with pytest.raises(ValueError, match="context_length"):
        GPT2Config.preset("gpt2", context_length=0)
    with pytest.raises(TypeError):
        GPT2Config.preset("gpt2", contextlength=128)
