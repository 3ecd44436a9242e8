"""The training loop, held against the plainest PyTorch."""

import functools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Never

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from tinygpt2 import (
    CharTokenizer,
    GPT2Config,
    GPT2Model,
    NonFiniteLossError,
    TrainingConfig,
    TrainingHistory,
    TrainState,
    evaluate,
    make_dataloader,
    train,
)
from tinygpt2._internal.devices import Compiled, choose_device
from tinygpt2.config import Sharding
from tinygpt2.data.batches import Batch
from tinygpt2.data.passes import Passes
from tinygpt2.training.train import _pays_to_compile

TOKENS = torch.arange(400).mul(7).remainder(61)


def fresh_model(dropout: float = 0.0, seed: int = 0) -> GPT2Model:
    """Returns a tiny model without the bias of queries, keys and values.

    The gradient of a key's bias is zero but for rounding (softmax does not see it), and AdamW makes whole steps of
    rounding errors: such weights cannot be compared.
    """
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=61, context_length=16, n_layer=2, n_head=2, n_embd=16, dropout=dropout, qkv_bias=False
    )
    return GPT2Model(config)


class Recorder:
    """Keeps what a callback sees at each event."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.losses: list[float] = []
        self.rates: list[float] = []

    def __call__(self, state: TrainState, /) -> None:
        self.events.append(state.event)
        if state.event == "step":
            self.losses.append(state.loss)
            self.rates.append(state.learning_rate)


def weights(model: GPT2Model) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def quick(model: GPT2Model, loader: object, config: TrainingConfig, **options: object) -> TrainingHistory:
    return train(model, loader, config=config, device="cpu", progress=False, **options)  # type: ignore[arg-type]


def plain_loop(
    model: GPT2Model,
    optimizer: torch.optim.Optimizer,
    epochs: int,
    batch_size: int,
    before_step: Callable[[int], None] = lambda _: None,
) -> list[float]:
    """Trains as a tutorial would, and returns the loss of each step."""
    loader = make_dataloader(TOKENS, batch_size=batch_size, context_length=16, shuffle=True)
    losses: list[float] = []
    for _ in range(epochs):
        model.train()
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
            loss.backward()  # type: ignore[no-untyped-call]
            before_step(len(losses) + 1)
            optimizer.step()
            losses.append(loss.item())
    return losses


def test_the_tutorials_loop_is_reproduced_step_for_step_with_options_alone() -> None:
    """AdamW over all parameters with PyTorch's own betas, constant rate, no clipping: ``train_model_simple``."""
    model = fresh_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.1)
    expected = plain_loop(model, optimizer, epochs=3, batch_size=2)

    ours, recorder = fresh_model(), Recorder()
    config = TrainingConfig(
        epochs=3,
        learning_rate=4e-3,
        weight_decay=0.1,
        betas=(0.9, 0.999),
        decay_all_parameters=True,
        max_grad_norm=None,
        eval_every=5,
        eval_batches=1,
    )
    loader = make_dataloader(TOKENS, batch_size=2, context_length=16, shuffle=True)
    quick(ours, loader, config, callbacks=[recorder])

    assert len(expected) == 36
    assert recorder.losses == pytest.approx(expected, rel=1e-6)
    assert torch.allclose(weights(ours), weights(model), rtol=1e-5, atol=1e-6)


def test_groups_clipping_and_schedule_equal_a_plain_loop_step_for_step() -> None:
    model = fresh_model()
    matrices = [p for p in model.parameters() if p.dim() == 2]
    others = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.3}, {"params": others, "weight_decay": 0.0}], betas=(0.9, 0.95)
    )
    total, warmup, peak = 24, 6, 1e-2

    def clip_and_schedule(step: int) -> None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        cosine = 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))
        for group in optimizer.param_groups:
            group["lr"] = peak * (step / warmup if step <= warmup else cosine)

    expected = plain_loop(model, optimizer, epochs=2, batch_size=2, before_step=clip_and_schedule)

    ours, recorder = fresh_model(), Recorder()
    config = TrainingConfig(
        epochs=2, learning_rate=peak, schedule="cosine", warmup_steps=warmup, weight_decay=0.3, max_grad_norm=0.5
    )
    loader = make_dataloader(TOKENS, batch_size=2, context_length=16, shuffle=True)
    quick(ours, loader, config, callbacks=[recorder])

    assert len(expected) == total
    assert recorder.losses == pytest.approx(expected, rel=1e-6)
    assert torch.allclose(weights(ours), weights(model), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_accumulated_micro_batches_are_one_big_batch(batch_size: int) -> None:
    """Also where they differ in size and in the number of targets that count: a mean of means would be wrong."""
    tokens = TOKENS[: 16 * 6 + 1]
    batches = list(make_dataloader(tokens, batch_size=batch_size, context_length=16))
    batches[0][1][:, :11] = -100
    big = (torch.cat([inputs for inputs, _ in batches]), torch.cat([targets for _, targets in batches]))

    whole, whole_seen = fresh_model(), Recorder()
    quick(whole, [big], TrainingConfig(max_steps=4, learning_rate=1e-2), callbacks=[whole_seen])
    parts, parts_seen = fresh_model(), Recorder()
    accumulated = TrainingConfig(max_steps=4, learning_rate=1e-2, gradient_accumulation_steps=len(batches))
    quick(parts, batches, accumulated, callbacks=[parts_seen])

    assert parts_seen.losses == pytest.approx(whole_seen.losses, rel=1e-5)
    assert torch.allclose(weights(parts), weights(whole), rtol=1e-4, atol=1e-5)


def test_the_last_step_of_an_epoch_takes_what_is_left() -> None:
    loader = make_dataloader(TOKENS, batch_size=5, context_length=16)  # 24 windows: 5 batches
    recorder = Recorder()
    history = quick(
        fresh_model(), loader, TrainingConfig(epochs=2, gradient_accumulation_steps=2), callbacks=[recorder]
    )
    assert len(recorder.losses) == 2 * 3
    assert history.tokens_seen[-1] == 2 * 24 * 16
    assert history.epochs == [0.0, 1.0, 2.0]


def test_a_run_is_a_function_of_weights_data_and_configuration() -> None:
    def run(seed: int) -> tuple[list[float], Tensor]:
        model, recorder = fresh_model(dropout=0.3), Recorder()
        torch.rand(seed + 3)  # the caller's random state must not matter
        loader = make_dataloader(TOKENS, batch_size=4, context_length=16, shuffle=True)
        quick(model, loader, TrainingConfig(epochs=2, seed=seed), callbacks=[recorder])
        return recorder.losses, weights(model)

    first, second, other = run(0), run(0), run(1)
    assert first[0] == second[0]
    assert torch.equal(first[1], second[1])
    assert first[0] != other[0]


def test_evaluating_more_often_does_not_change_what_is_learned() -> None:
    results = []
    for eval_every in (1, 5, None):
        model = fresh_model(dropout=0.3)
        loader = make_dataloader(TOKENS, batch_size=4, context_length=16, shuffle=True)
        quick(model, loader, TrainingConfig(epochs=2, eval_every=eval_every), val_loader=loader)
        results.append(weights(model))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_dropout_masks_differ_between_steps_and_micro_batches() -> None:
    """With weights that do not move and equal batches, equal losses would betray a repeated mask."""
    model, recorder = fresh_model(dropout=0.5), Recorder()
    batch = next(iter(make_dataloader(TOKENS, batch_size=4, context_length=16)))
    quick(model, [batch] * 6, TrainingConfig(learning_rate=1e-30, weight_decay=0.0), callbacks=[recorder])
    assert len(set(recorder.losses)) == 6

    accumulated = Recorder()
    config = TrainingConfig(learning_rate=1e-30, weight_decay=0.0, gradient_accumulation_steps=2)
    quick(model, [batch] * 2, config, callbacks=[accumulated])
    assert accumulated.losses[0] != pytest.approx(recorder.losses[0], rel=1e-9)


def test_the_callers_random_state_and_the_models_mode_are_as_before() -> None:
    model = fresh_model(dropout=0.2)
    model.eval()
    model.h[1].train()
    modes = {name: module.training for name, module in model.named_modules()}
    before = torch.get_rng_state()
    loader = make_dataloader(TOKENS, batch_size=4, context_length=16, shuffle=True)
    quick(model, loader, TrainingConfig(), val_loader=loader)
    assert torch.equal(torch.get_rng_state(), before)
    assert {name: module.training for name, module in model.named_modules()} == modes


def test_history_holds_what_evaluate_gives() -> None:
    model = fresh_model()
    loader = make_dataloader(TOKENS[:300], batch_size=4, context_length=16, shuffle=True)
    val_loader = make_dataloader(TOKENS[300:], batch_size=4, context_length=16)
    untrained = evaluate(model, val_loader).loss
    config = TrainingConfig(epochs=3, eval_every=4, learning_rate=1e-2)
    history = quick(model, loader, config, val_loader=val_loader)
    assert history.steps == [0, 4, 8, 12, 15]
    assert history.epochs == [0, 16 / 18, 30 / 18, 44 / 18, 3]  # of 18 windows, in batches of 4
    assert history.learning_rates == [0.0, 1e-2, 1e-2, 1e-2, 1e-2]
    assert history.val_losses[0] == pytest.approx(untrained, rel=1e-6)
    assert history.val_losses[-1] == pytest.approx(evaluate(model, val_loader).loss, rel=1e-6)
    assert history.train_losses[-1] == pytest.approx(evaluate(model, loader).loss, rel=1e-6)
    assert history.train_losses[-1] < history.train_losses[0]


def test_max_steps_counts_and_epochs_do_not() -> None:
    loader = make_dataloader(TOKENS, batch_size=4, context_length=16)  # 6 batches
    recorder = Recorder()
    history = quick(fresh_model(), loader, TrainingConfig(epochs=1, max_steps=15), callbacks=[recorder])
    assert len(recorder.losses) == 15
    assert recorder.events.count("epoch") == 2
    assert history.epochs[-1] == 2.5


def test_events_come_in_order() -> None:
    loader = make_dataloader(TOKENS[:65], batch_size=2, context_length=16)  # 2 batches
    recorder = Recorder()
    quick(fresh_model(), loader, TrainingConfig(epochs=2), callbacks=[recorder])
    epoch = ["step", "step", "evaluation", "epoch"]
    assert recorder.events == ["start", "evaluation", *epoch, *epoch, "end"]


def test_a_callback_can_stop_the_run() -> None:
    def stop_at_third(state: TrainState) -> None:
        if state.step == 3:
            state.stop()

    loader = make_dataloader(TOKENS, batch_size=4, context_length=16)
    history = quick(fresh_model(), loader, TrainingConfig(epochs=5), callbacks=[stop_at_third])
    assert history.steps == [0, 3]


def test_what_a_callback_raises_comes_out_and_the_callers_state_is_restored() -> None:
    def fail(state: TrainState) -> None:
        if state.step == 2:
            raise LookupError

    model, before = fresh_model(), torch.get_rng_state()
    model.eval()
    with pytest.raises(LookupError):
        quick(model, make_dataloader(TOKENS, batch_size=4, context_length=16), TrainingConfig(), callbacks=[fail])
    assert not model.training
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("max_grad_norm", [1.0, None])
def test_a_loss_that_is_not_finite_stops_before_it_reaches_the_weights(max_grad_norm: float | None) -> None:
    model = fresh_model()
    seen: list[Tensor] = []

    def poison(state: TrainState) -> None:
        if state.event == "step":
            seen.append(weights(model))
        if state.event == "step" and state.step == 3:  # the next batch meets a weight that overflows
            with torch.no_grad():
                model.ln_f.weight[0] = 3e38

    loader = make_dataloader(TOKENS, batch_size=4, context_length=16)
    with pytest.raises(NonFiniteLossError, match=r"step 4 .*learning rate is too high .*after step 3") as info:
        quick(model, loader, TrainingConfig(max_grad_norm=max_grad_norm, eval_every=2), callbacks=[poison])
    assert info.value.step == 4
    assert info.value.history is not None
    assert info.value.history.steps == [0, 2]
    assert weights(model).isfinite().all()
    changed = weights(model) != seen[-1]
    assert changed.sum() == 1  # only what the test itself poisoned


def test_a_far_too_high_learning_rate_is_told() -> None:
    model = fresh_model()
    loader = make_dataloader(TOKENS, batch_size=4, context_length=16)
    config = TrainingConfig(epochs=50, learning_rate=1e30, max_grad_norm=None)
    with pytest.raises(NonFiniteLossError, match="gradients are not clipped"):
        quick(model, loader, config)
    assert weights(model).isfinite().all()


def test_frozen_parameters_stay() -> None:
    model = fresh_model()
    model.wte.requires_grad_(requires_grad=False)
    before = model.wte.weight.clone()
    attention = model.h[0].attn.c_attn.weight.clone()  # type: ignore[union-attr, operator]
    quick(model, make_dataloader(TOKENS, batch_size=4, context_length=16), TrainingConfig())
    assert torch.equal(model.wte.weight, before)
    assert not torch.equal(model.h[0].attn.c_attn.weight, attention)  # type: ignore[union-attr, arg-type]


def test_bf16_trains_close_to_fp32_and_leaves_the_weights_in_fp32() -> None:
    loader = make_dataloader(TOKENS, batch_size=4, context_length=16)
    config = TrainingConfig(epochs=3, learning_rate=1e-2)
    exact = quick(fresh_model(), loader, config)
    model = fresh_model()
    rough = quick(model, loader, replace(config, precision="bf16"))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert rough.train_losses != exact.train_losses
    assert rough.train_losses == pytest.approx(exact.train_losses, rel=0.02)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The .grad attribute")  # PyTorch's own
def test_a_compiled_run_is_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    # All that torch.compile does but for making code of the result, which would take a compiler and a minute.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    loader = make_dataloader(TOKENS[:250], batch_size=4, context_length=16)
    assert len(loader.dataset) % 4  # type: ignore[arg-type] # a short last batch: another shape
    config = TrainingConfig(epochs=2, learning_rate=1e-2)
    for precision in ("fp32", "bf16"):
        models = fresh_model(), fresh_model()
        plain = quick(models[0], loader, replace(config, precision=precision))
        compiled = quick(models[1], loader, replace(config, precision=precision, compile=True))
        assert compiled.train_losses == pytest.approx(plain.train_losses, rel=1e-5 if precision == "fp32" else 1e-2)
        if precision == "fp32":
            torch.testing.assert_close(weights(models[1]), weights(models[0]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("device", "steps", "sharding", "compiles"),
    [
        ("cuda", 500_000, "none", True),  # 10^17 operations are 224,000 steps of 600 tokens of 124M parameters
        ("cuda", 100_000, "none", False),
        ("cuda", 500_000, "full", False),
        ("cpu", 500_000, "none", False),
        ("mps", 500_000, "none", False),
    ],
)
def test_a_long_run_on_a_gpu_is_compiled(
    device: str, steps: int, sharding: Sharding, *, compiles: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GPT2Model, "device", torch.device(device))
    with torch.device("meta"):
        model = GPT2Model(GPT2Config(context_length=100))
    config = TrainingConfig(gradient_accumulation_steps=2, sharding=sharding)
    state = TrainState(model, torch.optim.SGD(model.parameters()), config, total_steps=steps, items_per_epoch=None)
    passes = Passes(make_dataloader(range(1000), batch_size=3, context_length=100), name="data", seed=0)
    assert _pays_to_compile(state, passes) is compiles


@pytest.mark.parametrize("late", [False, True])
def test_without_a_compiler_the_run_goes_on_with_a_warning(*, late: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> Never:
        raise RuntimeError("\nno working C++ compiler\nand much else")

    monkeypatch.setattr(torch, "compile", (lambda _: fails) if late else fails)
    loader = make_dataloader(TOKENS, batch_size=4, context_length=16)
    models = fresh_model(0.1), fresh_model(0.1)
    with pytest.warns(RuntimeWarning, match="not compiled.*no working C.. compiler$") as caught:
        quick(models[1], loader, TrainingConfig(compile=True))
    assert len(caught) == 1
    quick(models[0], loader, TrainingConfig())
    assert torch.equal(weights(models[1]), weights(models[0]))


def test_an_error_of_a_compiled_module_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fails(nn.Module):
        @override
        def forward(self) -> Never:
            raise KeyError("mine")

    monkeypatch.setattr(torch, "compile", lambda module: module)
    with pytest.raises(KeyError, match="mine"):
        Compiled(Fails())()


def test_a_batch_may_have_any_length_up_to_the_context() -> None:
    batches: list[Batch] = [(TOKENS[:n].unsqueeze(0), TOKENS[1 : n + 1].unsqueeze(0)) for n in (1, 7, 16)]
    assert quick(fresh_model(), batches, TrainingConfig()).tokens_seen[-1] == 24


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        ([], "train_loader has no batches"),
        ([(torch.zeros(1, 17, dtype=torch.int64),) * 2], "context_length is 16, but 17 tokens"),
        ([(torch.full((1, 4), 61),) * 2], "vocabulary has ids 0 to 60"),
        ([(torch.zeros(1, 4, dtype=torch.int64), torch.full((1, 4), -100))], "does not count"),
        ([(torch.zeros(1, 4), torch.zeros(1, 4))], "int64"),
    ],
)
def test_data_that_cannot_be_learned_is_refused(loader: list[Batch], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        quick(fresh_model(), loader, TrainingConfig())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"config": {"epochs": 2}}, r"config must be a TrainingConfig, got \{'epochs': 2\} \(dict\)"),
        ({"config": TrainingConfig}, "config must be a TrainingConfig, got <class"),
        ({"model": nn.Linear(2, 2)}, r"model must be a GPT2Model, got Linear\("),
        ({"model": GPT2Model}, "model must be a GPT2Model, got <class"),
        (
            {"train_loader": {"input_ids": TOKENS, "labels": TOKENS}},
            "train_loader must be an iterable of batches, got",
        ),
        ({"tokenizer": "gpt2"}, "tokenizer must be an object with n_vocab"),
        ({"resume": "no"}, r"resume must be True or False, got 'no' \(str\)"),
        ({"allow_changes": 0}, "allow_changes must be True or False, got 0"),
        ({"progress": None}, "progress must be True or False, got None"),
        ({"checkpoint_dir": ""}, "checkpoint_dir must be the path of a file or a directory, got ''"),
        ({"checkpoint_dir": 3}, "checkpoint_dir must be a path, .* got 3"),
    ],
)
def test_arguments_of_another_kind_are_refused_before_training(options: dict[str, Any], message: str) -> None:
    """A checkpoint directory of no name was the current one, and "no" was true."""
    model = fresh_model()
    before = weights(model)
    loader = make_dataloader(TOKENS, batch_size=4, context_length=16)
    given: dict[str, Any] = {"model": model, "train_loader": loader, "device": "cpu", "progress": False}
    with pytest.raises((TypeError, ValueError), match=message):
        train(**given | options)
    assert torch.equal(weights(model), before)


def test_what_wraps_a_model_trains_as_the_model_does() -> None:
    loader = make_dataloader(TOKENS, batch_size=4, context_length=16)
    expected = quick(fresh_model(), loader, TrainingConfig())
    wrapped: Any = torch.compile(fresh_model(), backend="eager")
    assert quick(wrapped, loader, TrainingConfig()).val_losses == expected.val_losses


def test_an_empty_validation_loader_is_refused_before_training() -> None:
    model = fresh_model()
    before = weights(model)
    loader = make_dataloader(TOKENS, batch_size=4, context_length=16)
    with pytest.raises(ValueError, match="val_loader has no batches"):
        quick(model, loader, TrainingConfig(), val_loader=[])
    assert torch.equal(weights(model), before)


def test_a_sample_needs_the_tokenizer_of_the_data() -> None:
    loader = make_dataloader(TOKENS, batch_size=4, context_length=16)
    with pytest.raises(ValueError, match="pass tokenizer="):
        quick(fresh_model(), loader, TrainingConfig(sample_prompt="a"))


def test_samples_are_written_after_each_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = CharTokenizer("".join(map(chr, range(0x4E00, 0x4E00 + 60))))
    loader = make_dataloader(TOKENS, batch_size=4, context_length=16)
    config = TrainingConfig(epochs=3, sample_prompt="一", sample_tokens=5)
    quick(fresh_model(), loader, config, tokenizer=tokenizer)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("  sample: 一") for line in lines)


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "meta:x"])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"no device '{name}'.*available: .*cpu"):
        choose_device(name)
