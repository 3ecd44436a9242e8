"""AdamW by the book, the groups it decays, and the learning rate of each step."""

import copy
import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tinygpt2 import GPT2Model, TrainingConfig, learning_rate_at, make_optimizer


def set_gradients(model: nn.Module, seed: int, *, scale: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = scale * torch.randn(parameter.shape, generator=generator)


def group_of(optimizer: torch.optim.Optimizer) -> dict[Tensor, dict[str, Any]]:
    return {parameter: group for group in optimizer.param_groups for parameter in group["params"]}


# --- AdamW ---


def test_fused_adamw_is_adamw(model: GPT2Model) -> None:
    config = TrainingConfig(learning_rate=3e-3, weight_decay=0.2, betas=(0.8, 0.97))
    plain = copy.deepcopy(model)
    groups = [
        {"params": [p for p in plain.parameters() if p.dim() >= 2], "weight_decay": 0.2},
        {"params": [p for p in plain.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    reference = torch.optim.AdamW(groups, lr=3e-3, betas=(0.8, 0.97), foreach=False, fused=False)
    optimizer = make_optimizer(model, config)
    for step in range(6):
        for module, each in ((model, optimizer), (plain, reference)):
            set_gradients(module, step, scale=10.0 ** -(step % 3))
            each.step()
        for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_a_step_is_the_papers_formula() -> None:
    """Loshchilov and Hutter 2019, algorithm 2: the decay acts on the weight, not through the moments."""
    model = nn.Linear(5, 3, bias=False).double()
    optimizer = make_optimizer(model, TrainingConfig(learning_rate=0.01, weight_decay=0.3, betas=(0.9, 0.95)))
    weight = model.weight.detach().clone()
    first, second = torch.zeros_like(weight), torch.zeros_like(weight)
    for step in range(1, 5):
        gradient = torch.randn_like(weight)
        model.weight.grad = gradient.clone()
        optimizer.step()
        first = 0.9 * first + 0.1 * gradient
        second = 0.95 * second + 0.05 * gradient**2
        update = (first / (1 - 0.9**step)) / ((second / (1 - 0.95**step)).sqrt() + 1e-8)
        weight = weight - 0.01 * 0.3 * weight - 0.01 * update
        torch.testing.assert_close(model.weight.detach(), weight)


def test_the_kernel_is_the_fused_one_and_the_settings_are_the_configurations(model: GPT2Model) -> None:
    optimizer = make_optimizer(model, TrainingConfig(learning_rate=0.02, betas=(0.5, 0.75)))
    assert type(optimizer) is torch.optim.AdamW
    for group in optimizer.param_groups:
        assert (group["fused"], group["lr"], group["betas"]) == (True, 0.02, (0.5, 0.75))


# --- groups ---


@pytest.mark.parametrize("everything", [False, True])
def test_matrices_decay_and_vectors_only_if_asked(model: GPT2Model, everything: bool) -> None:
    config = TrainingConfig(weight_decay=0.3, decay_all_parameters=everything)
    groups = group_of(make_optimizer(model, config))
    names = dict(model.named_parameters())
    assert set(groups) == set(names.values())
    decaying = {name for name, parameter in names.items() if groups[parameter]["weight_decay"] == 0.3}
    resting = {name for name, parameter in names.items() if groups[parameter]["weight_decay"] == 0}
    assert decaying | resting == set(names)
    vectors = {name for name in names if "ln_" in name or name.endswith(".bias")}
    assert resting == (set() if everything else vectors)
    assert {"wte.weight", "wpe.weight"} <= decaying


def test_with_no_gradient_matrices_shrink_by_rate_times_decay_and_vectors_stay() -> None:
    model = nn.Linear(4, 3)
    optimizer = make_optimizer(model, TrainingConfig(learning_rate=0.1, weight_decay=0.5))
    weight, bias = model.weight.detach().clone(), model.bias.detach().clone()
    for _ in range(3):
        set_gradients(model, 0, scale=0.0)
        optimizer.step()
    torch.testing.assert_close(model.weight.detach(), weight * (1 - 0.1 * 0.5) ** 3)
    assert torch.equal(model.bias.detach(), bias)


def test_frozen_parameters_are_left_out() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[0].requires_grad_(requires_grad=False)
    assert set(group_of(make_optimizer(model, TrainingConfig()))) == set(model[1].parameters())


@pytest.mark.parametrize("everything", [False, True])
def test_there_is_no_group_without_parameters(everything: bool) -> None:
    for model in (nn.Linear(3, 2, bias=False), nn.LayerNorm(3)):
        optimizer = make_optimizer(model, TrainingConfig(decay_all_parameters=everything))
        assert [len(group["params"]) for group in optimizer.param_groups] == [len(list(model.parameters()))]


@pytest.mark.parametrize("model", [nn.Linear(3, 2).requires_grad_(requires_grad=False), nn.GELU()])
def test_a_model_with_nothing_to_train_is_refused(model: nn.Module) -> None:
    with pytest.raises(ValueError, match="no trainable parameter"):
        make_optimizer(model, TrainingConfig())


@pytest.mark.parametrize(
    ("model", "config", "name"),
    [(None, TrainingConfig(), "model"), (nn.Linear, TrainingConfig(), "model"), (nn.Linear(3, 2), None, "config")],
)
def test_what_is_no_model_or_config_is_told(model: Any, config: Any, name: str) -> None:  # noqa: ANN401
    with pytest.raises(TypeError, match=f"{name} must be a .*, got .* \\(\\w+\\)"):
        make_optimizer(model, config)


# --- learning rates ---

ROUNDING = 1 + 1e-12


@st.composite
def schedules(draw: st.DrawFn) -> tuple[TrainingConfig, int]:
    """Draws a configuration and a number of steps, which the warm-up may fill or exceed."""
    peak = draw(st.floats(1e-6, 10))
    floor = draw(st.none() | st.floats(0, 1).map(lambda share: share * peak))
    config = TrainingConfig(
        learning_rate=peak,
        min_learning_rate=floor,
        schedule=draw(st.sampled_from(["constant", "cosine", "linear"])),
        warmup_steps=draw(st.integers(0, 12)),
    )
    return config, draw(st.integers(1, 30))


@given(schedule=schedules())
def test_the_rate_rises_in_equal_steps_from_nothing_then_never_rises_again(
    schedule: tuple[TrainingConfig, int],
) -> None:
    config, total = schedule
    rates = [learning_rate_at(step, total, config) for step in range(1, total + 1)]
    assert min(rates) >= 0
    assert max(rates) <= config.learning_rate * ROUNDING
    warmup = min(config.warmup_steps, total)
    expected = [config.learning_rate * step / config.warmup_steps for step in range(1, warmup + 1)]
    assert rates[:warmup] == pytest.approx(expected)
    after = rates[max(config.warmup_steps - 1, 0) :]
    assert all(later <= earlier * ROUNDING for earlier, later in pairwise(after))


@given(schedule=schedules())
def test_a_constant_rate_is_the_highest_after_the_warm_up(schedule: tuple[TrainingConfig, int]) -> None:
    config, total = replace(schedule[0], schedule="constant"), schedule[1]
    rates = [learning_rate_at(step, total, config) for step in range(max(config.warmup_steps, 1), total + 1)]
    assert rates == pytest.approx([config.learning_rate] * len(rates), rel=1e-12)


@given(schedule=schedules())
def test_a_cosine_ends_at_the_lowest_rate_and_is_halfway_at_half_time(schedule: tuple[TrainingConfig, int]) -> None:
    config, total = replace(schedule[0], schedule="cosine"), schedule[1]
    floor = config.learning_rate / 10 if config.min_learning_rate is None else config.min_learning_rate
    if total > config.warmup_steps:
        assert learning_rate_at(total, total, config) == pytest.approx(floor, abs=1e-12)
    length = 2 * total  # even, so that there is a middle
    middle = learning_rate_at(config.warmup_steps + total, config.warmup_steps + length, config)
    assert middle == pytest.approx((config.learning_rate + floor) / 2)
    early = learning_rate_at(config.warmup_steps + 1, config.warmup_steps + length, config)
    expected = floor + (config.learning_rate - floor) * math.cos(math.pi / (2 * length)) ** 2
    assert early == pytest.approx(expected)


@given(schedule=schedules())
def test_a_line_falls_in_equal_steps_to_the_lowest_rate_or_to_zero(schedule: tuple[TrainingConfig, int]) -> None:
    config, length = replace(schedule[0], schedule="linear"), schedule[1]
    floor = config.min_learning_rate or 0.0
    for step in range(1, length + 1):
        expected = config.learning_rate + (floor - config.learning_rate) * step / length
        found = learning_rate_at(config.warmup_steps + step, config.warmup_steps + length, config)
        assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("step", "total", "error", "message"),
    [
        (0, 9, ValueError, "step must be at least 1, got 0"),
        (1, 0, ValueError, "total_steps must be at least 1, got 0"),
        (1.5, 9, TypeError, r"step must be an integer, got 1\.5"),
        ("1", 9, TypeError, "step must be an integer, got '1'"),
        (1, None, TypeError, "total_steps must be an integer, got None"),
    ],
)
def test_steps_are_counted_from_one(step: Any, total: Any, error: type[Exception], message: str) -> None:  # noqa: ANN401
    with pytest.raises(error, match=message):
        learning_rate_at(step, total, TrainingConfig(warmup_steps=0))
    with pytest.raises(TypeError, match="config must be a TrainingConfig, got None"):
        learning_rate_at(1, 1, None)  # type: ignore[arg-type]


def test_the_last_step_of_the_warm_up_has_the_highest_rate() -> None:
    config = TrainingConfig(learning_rate=0.5, schedule="cosine", warmup_steps=10)
    rates = [learning_rate_at(step, 50, config) for step in range(1, 51)]
    assert rates.index(max(rates)) == 9
    assert rates[9] == 0.5
    assert learning_rate_at(10, 10, config) == 0.5
