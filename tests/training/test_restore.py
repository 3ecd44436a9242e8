"""Restoring: resumed exactly, or refused with every difference and nothing touched on the disk."""

import errno
import json
import math
import pickle
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from typing_extensions import override

from tinygpt2 import (
    CharTokenizer,
    GPT2Config,
    GPT2Model,
    IncompatibleRunError,
    NextTokenLoss,
    Progress,
    TrainingConfig,
    TrainingHistory,
    TrainState,
    learning_rate_at,
    make_dataloader,
    make_optimizer,
    on_step,
    train,
    training_step,
)
from tinygpt2.data.loader import Loader
from tinygpt2.training.checkpoints.format import TrainingRecord
from tinygpt2.training.train import OptimizerFactory

TOKENS = [i * 7 % 50 for i in range(321)]
SHAPE = GPT2Config(vocab_size=50, context_length=8, n_layer=1, n_head=2, n_embd=16, dropout=0.2)
CONFIG = TrainingConfig(max_steps=8, learning_rate=1e-2, schedule="cosine", eval_every=3, eval_batches=2)


def loader(batch_size: int = 4) -> Loader:
    return make_dataloader(TOKENS, batch_size=batch_size, context_length=8, shuffle=True)


def new_model(cls: type[GPT2Model] = GPT2Model, dtype: torch.dtype = torch.float32) -> GPT2Model:
    torch.manual_seed(3)
    return cls(SHAPE).to(dtype)


def run(
    directory: Path | None,
    config: TrainingConfig = CONFIG,
    *,
    model: GPT2Model | None = None,
    optimizer: OptimizerFactory | None = None,
    data: Loader | None = None,
    stop: int | None = None,
    callbacks: Sequence[Callable[[TrainState], object]] = (),
    allow_changes: bool = False,
) -> tuple[GPT2Model, Optimizer, TrainingHistory]:
    model = new_model() if model is None else model
    states: list[TrainState] = []
    history = train(
        model,
        loader() if data is None else data,
        config=config,
        optimizer=optimizer,
        callbacks=[states.append, on_step(lambda s: s.stop() if s.step == stop else None), *callbacks],
        device="cpu",
        checkpoint_dir=directory,
        resume=directory is not None,
        allow_changes=allow_changes,
        progress=False,
    )
    return model, states[0].optimizer, history


def content(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def weights(model: nn.Module) -> Tensor:
    return torch.cat([weight.detach().flatten().double() for weight in model.state_dict().values()])


def refused(directory: Path, **options: Any) -> tuple[str, ...]:  # noqa: ANN401 - any of run's
    """Returns all differences for which a resumed run was refused, having touched nothing."""
    before = content(directory)
    with pytest.raises(IncompatibleRunError) as caught:
        run(directory, **options)
    assert content(directory) == before
    assert {path.name for path in directory.iterdir()} == {name.split("/")[0] for name in before}
    return caught.value.differences


def assert_resumes_exactly(tmp_path: Path, make: Callable[[], dict[str, Any]], stops: Sequence[int] = (2, 5)) -> None:
    """Asserts that weights, optimizer and history of a stopped run are those of one that was not, bit for bit."""
    model, optimizer, history = run(tmp_path / "whole", **make())
    for stop in stops:
        run(tmp_path / "broken", stop=stop, **make())
    again, resumed, same = run(tmp_path / "broken", **make())
    assert torch.equal(weights(again), weights(model))
    assert same == history
    assert [list(values) for values in resumed.state.values()] == [list(values) for values in optimizer.state.values()]
    for first, second in zip(optimizer.state.values(), resumed.state.values(), strict=True):
        for key, value in first.items():
            if isinstance(value, Tensor):
                assert value.dtype == second[key].dtype
                assert torch.equal(value, second[key])
            else:
                assert value == second[key]
    groups = [
        [{key: value for key, value in group.items() if key != "params"} for group in each.param_groups]
        for each in (optimizer, resumed)
    ]
    assert str(groups[0]) == str(groups[1])
    last = f"checkpoint-{history.steps[-1]}"
    assert content(tmp_path / "whole" / last) == content(tmp_path / "broken" / last)


# --- models ---


class WithUnused(GPT2Model):
    """A subclass with a parameter that never has a gradient, a mask that is not finite, and a head of its own."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__(config)
        self.unused = nn.Parameter(torch.ones(3))
        self.register_buffer("mask", torch.full((2, 2), -torch.inf).triu(1))
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.h[0].attn.register_buffer("bias", torch.ones(2, 2).tril())  # type: ignore[union-attr]


def frozen() -> GPT2Model:
    model = new_model()
    model.wte.requires_grad_(requires_grad=False)
    return model


@pytest.mark.parametrize(
    "make",
    [
        frozen,
        lambda: new_model(WithUnused),
        lambda: new_model(dtype=torch.bfloat16),
        lambda: new_model(dtype=torch.float64),
    ],
    ids=["frozen", "unused", "bf16", "fp64"],
)
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_any_model_resumes_exactly(
    tmp_path: Path, make: Callable[[], GPT2Model], optimizer: Literal["adamw", "muon"]
) -> None:
    """A mask of minus infinity made every checkpoint "damaged"; what GPT-2 does not have was not read back."""
    assert_resumes_exactly(tmp_path, lambda: {"model": make(), "config": replace(CONFIG, optimizer=optimizer)})


def test_other_frozen_parameters_are_refused_by_name(tmp_path: Path) -> None:
    """The checkpoint was called damaged and renamed, and the run began again at step 0."""
    run(tmp_path, model=frozen(), stop=3)
    assert refused(tmp_path) == ("wte.weight was not trained and is",)
    assert refused(tmp_path, allow_changes=True) == ("wte.weight was not trained and is",)
    model = frozen()
    model.wpe.requires_grad_(requires_grad=False)
    assert refused(tmp_path, model=model) == ("wpe.weight was trained and is not",)


def test_frozen_parameters_that_an_optimizer_has_all_the_same_are_compared_too(tmp_path: Path) -> None:
    def sgd(model: nn.Module, config: TrainingConfig) -> Optimizer:
        return torch.optim.SGD(model.parameters(), lr=config.learning_rate)

    run(tmp_path, model=frozen(), optimizer=sgd, stop=3)
    assert refused(tmp_path, optimizer=sgd) == ("wte.weight was frozen and is not",)


def test_another_dtype_is_refused_with_every_weight(tmp_path: Path) -> None:
    run(tmp_path, stop=3)
    for dtype in (torch.bfloat16, torch.float64):
        differences = refused(tmp_path, model=new_model(dtype=dtype))
        assert len(differences) == len(new_model().state_dict())
        assert f"wte.weight was float32 (50, 16) and is {str(dtype).removeprefix('torch.')} (50, 16)" in differences


def test_shape_dtype_optimizer_and_data_are_all_named_at_once(tmp_path: Path) -> None:
    run(tmp_path, stop=3)
    model = GPT2Model(replace(SHAPE, n_embd=32)).double()
    differences = refused(
        tmp_path,
        config=replace(CONFIG, seed=1),
        model=model,
        optimizer=lambda model, _: torch.optim.SGD(model.parameters()),
        data=loader(2),
    )
    for part in (
        "n_embd was 16 and is 32",
        "wte.weight was float32 and is float64",
        "the optimizer was torch.optim.adamw.AdamW and is torch.optim.sgd.SGD",
        "the seed was 0 and is 1",
        "batch_size was 4 and is 2",
    ):
        assert any(part in difference for difference in differences), part


# --- optimizers ---


def bare(cls: type[Optimizer], **options: Any) -> OptimizerFactory:  # noqa: ANN401 - any of the class
    return lambda model, config: cls(model.parameters(), lr=config.learning_rate, **options)  # type: ignore[call-arg]


def muon(model: nn.Module, config: TrainingConfig) -> Optimizer:
    return torch.optim.Muon([p for p in model.parameters() if p.dim() == 2], lr=config.learning_rate)


class Counting(torch.optim.SGD):
    """Has a number and a tensor among its options, and a number in its state, as some research optimizers do."""

    @override
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            group["calls"] = group.get("calls", 0) + 1
            group["scale"] = group.get("scale", torch.ones(())) * 0.9
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad.mul_(group["scale"] / group["calls"])
                    self.state[parameter]["seen"] = self.state[parameter].get("seen", 0) + 1
        super().step()


OPTIMIZERS: dict[str, OptimizerFactory] = {
    "AdamW": make_optimizer,
    "Muon and AdamW": lambda model, config: make_optimizer(model, replace(config, optimizer="muon")),
    "AdamW with spelling": lambda model, config: make_optimizer(
        model, replace(config, spelling=True), CharTokenizer("".join(map(chr, range(32, 81))))
    ),
    "SGD": bare(torch.optim.SGD, momentum=0.9),
    "PyTorch's Muon": muon,
    "Adagrad": bare(torch.optim.Adagrad),
    "Adam with amsgrad": bare(torch.optim.Adam, amsgrad=True),
    "RMSprop": bare(torch.optim.RMSprop, centered=True, momentum=0.5),
    "Adafactor": bare(torch.optim.Adafactor),
    "rates as tensors": lambda model, _: torch.optim.AdamW(model.parameters(), lr=torch.tensor(1e-2)),
    "Counting": bare(Counting),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_any_optimizer_resumes_exactly(tmp_path: Path, name: str, dtype: torch.dtype) -> None:
    """With Muon, which has the matrices alone, the gradients of the others were summed up from step to step."""
    assert_resumes_exactly(tmp_path, lambda: {"model": new_model(dtype=dtype), "optimizer": OPTIMIZERS[name]})


def test_gradients_that_no_optimizer_clears_do_not_add_up() -> None:
    """The norm, and with it the clipping, was that of all steps together."""
    batch = torch.randint(50, (2, 8)), torch.randint(50, (2, 8))
    objective = NextTokenLoss(new_model().eval())
    optimizer = torch.optim.SGD([next(objective.parameters())], lr=0.0)
    assert len({training_step(objective, optimizer, [batch]).grad_norm for _ in range(3)}) == 1


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_another_optimizer_is_refused(tmp_path: Path, name: str) -> None:
    run(tmp_path, optimizer=OPTIMIZERS[name], stop=3)
    other = bare(torch.optim.NAdam)
    for allow_changes in (False, True):
        differences = refused(tmp_path, optimizer=other, allow_changes=allow_changes)
        assert any("and is torch.optim.nadam.NAdam" in difference for difference in differences)


def test_another_optimizer_of_the_configuration_is_refused_once(tmp_path: Path) -> None:
    run(tmp_path, stop=3)
    assert refused(tmp_path, config=replace(CONFIG, optimizer="muon")) == (
        "the optimizer was torch.optim.adamw.AdamW and is tinygpt2.training.muon.Muon",
        "the optimizer's groups had other parameters or another order",
    )


def test_other_groups_are_refused_and_so_are_options_that_need_another_state(tmp_path: Path) -> None:
    """Adam with amsgrad only from now on was a KeyError in the first step."""
    run(tmp_path, optimizer=bare(torch.optim.Adam), stop=3)
    differences = refused(tmp_path, optimizer=bare(torch.optim.Adam, amsgrad=True), allow_changes=True)
    assert differences == ("the optimizer's group 0's amsgrad was False and is True",)

    def in_two(model: nn.Module, config: TrainingConfig) -> Optimizer:
        groups = [{"params": [p for p in model.parameters() if (p.dim() == 1) is vector]} for vector in (True, False)]
        return torch.optim.Adam(groups, lr=config.learning_rate)

    assert refused(tmp_path, optimizer=in_two, allow_changes=True) == (
        "the optimizer's groups had other parameters or another order",
    )


def test_a_group_that_a_callback_added_is_refused_and_not_called_damaged(tmp_path: Path) -> None:
    def only_matrices(model: nn.Module, config: TrainingConfig) -> Optimizer:
        return torch.optim.SGD([p for p in model.parameters() if p.dim() == 2], lr=config.learning_rate)

    def add(state: TrainState) -> None:
        if state.step == 2:
            vectors = [p for p in state.model.parameters() if p.dim() == 1]
            state.optimizer.add_param_group({"params": vectors, "initial_lr": 1e-3})

    run(tmp_path, optimizer=only_matrices, stop=4, callbacks=[on_step(add)._call])  # type: ignore[attr-defined]
    assert "ln_f.weight was trained and is not" in refused(tmp_path, optimizer=only_matrices)


def test_options_may_change_if_that_is_allowed_and_then_the_new_ones_hold(tmp_path: Path) -> None:
    run(tmp_path, optimizer=make_optimizer, stop=3)
    changed = replace(CONFIG, learning_rate=5e-3, weight_decay=0.3)
    assert refused(tmp_path, config=changed) == (
        "the learning_rate was 0.01 and is 0.005",
        "the weight_decay was 0.1 and is 0.3",
    )
    _, optimizer, history = run(tmp_path, changed, allow_changes=True)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.0]
    assert [group["initial_lr"] for group in optimizer.param_groups] == [5e-3, 5e-3]
    assert history.learning_rates[-1] == learning_rate_at(8, 8, changed)


def test_a_rate_that_a_callback_changed_is_kept_unless_the_option_changed(tmp_path: Path) -> None:
    def halve(state: TrainState) -> None:
        if state.event == "step" and state.step == 2:
            for group in state.optimizer.param_groups:
                group["initial_lr"] /= 2

    run(tmp_path, stop=3, callbacks=[halve])
    _, optimizer, _ = run(tmp_path, stop=5)
    assert optimizer.param_groups[0]["initial_lr"] == 5e-3
    run(tmp_path, replace(CONFIG, weight_decay=0.3), stop=6, allow_changes=True)
    _, optimizer, _ = run(tmp_path, replace(CONFIG, weight_decay=0.3), stop=7)
    assert optimizer.param_groups[0]["initial_lr"] == 5e-3
    _, optimizer, _ = run(tmp_path, replace(CONFIG, weight_decay=0.3, learning_rate=0.02), allow_changes=True)
    assert optimizer.param_groups[0]["initial_lr"] == 0.02


def test_what_is_no_optimizer_or_not_the_models_is_told() -> None:
    with pytest.raises(TypeError, match=r"should return a torch\.optim\.Optimizer, but returned int"):
        run(None, optimizer=lambda *_: 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"function of \(model, config\).* is a AdamW; pass for instance lambda"):
        run(None, optimizer=make_optimizer(new_model(), CONFIG))  # type: ignore[arg-type]
    others: list[Any] = [torch.optim.AdamW, lambda: None, int]
    for wrong in others:
        with pytest.raises(TypeError, match=r"function of \(model, config\).* raised: .*; pass for instance lambda"):
            run(None, optimizer=wrong)
    falsy: list[Any] = [0, "", [], {}]
    for wrong in falsy:  # they were taken for none
        with pytest.raises(TypeError, match=r"function of \(model, config\).* is a "):
            run(None, optimizer=wrong)
    with pytest.raises(ValueError, match=r"parameters that are not the model's; create it from model\.parameters"):
        run(None, optimizer=lambda *_: torch.optim.SGD(new_model().parameters()))


def test_a_state_that_no_file_holds_is_told(tmp_path: Path) -> None:
    class Listing(torch.optim.SGD):
        @override
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            super().step()
            for parameter in self.param_groups[0]["params"]:
                self.state[parameter]["past"] = [parameter]

    with pytest.raises(TypeError, match=r"past in the optimizer's state of wte\.weight is a list, which a checkpoint"):
        run(tmp_path, optimizer=bare(Listing))


# --- rates ---


def test_rates_of_layers_keep_their_ratio_under_a_cosine() -> None:
    def layered(model: nn.Module, config: TrainingConfig) -> Optimizer:
        groups = [
            {"params": [parameter], "lr": config.learning_rate / 2**i} for i, parameter in enumerate(model.parameters())
        ]
        return torch.optim.SGD(groups)

    seen: list[list[float]] = []
    run(None, optimizer=layered, callbacks=[
        lambda s: seen.append([g["lr"] for g in s.optimizer.param_groups]) if s.event == "step" else None
    ])  # fmt: skip
    for step, rates in enumerate(seen, 1):
        assert rates[0] == pytest.approx(learning_rate_at(step, 8, CONFIG))
        assert rates == pytest.approx([rates[0] / 2**i for i in range(len(rates))])


def test_a_callback_that_sets_all_initial_rates_to_zero_stops_all_learning() -> None:
    def stand_still(state: TrainState) -> None:
        for group in state.optimizer.param_groups:
            group["initial_lr"] = 0.0

    model, _, history = run(None, callbacks=[stand_still])
    assert torch.equal(weights(model), weights(new_model()))
    assert set(history.learning_rates) == {0.0}


# --- progress ---


@pytest.mark.parametrize("name", ["step", "epoch", "items", "tokens_seen", "loss", "grad_norm", "learning_rate"])
@pytest.mark.parametrize("value", [None, True, "1", [], {}, -1, 10**400, float("inf"), 1.5, 3], ids="{!r:.9}".format)
def test_progress_of_a_wrong_type_is_refused(name: str, value: object) -> None:
    good = {"step": 1, "epoch": 0, "items": 4, "tokens_seen": 32, "loss": 1.0, "grad_norm": 0.1, "learning_rate": 0.1}
    counts = ("step", "epoch", "items", "tokens_seen")
    if (value == 3 and name in counts) or (value == 1.5 and name not in counts):
        assert Progress.from_dict(good | {name: value}) == Progress(**(good | {name: value}))  # type: ignore[arg-type]
    else:
        with pytest.raises(ValueError, match=rf"^{name} is .*not a (count|number)"):
            Progress.from_dict(good | {name: value})


@pytest.mark.parametrize(
    ("option", "value"),
    [("betas", None), ("betas", [0.9]), ("betas", [0.9, "0.95"]), ("betas", 0.9), ("weight_decay", "0.1"),
     ("weight_decay", None), ("weight_decay", True), ("weight_decay", [0.1]), ("eps", {}), ("amsgrad", [])],
)  # fmt: skip
def test_an_option_of_the_optimizer_that_became_another_kind_of_value_is_damage(
    tmp_path: Path, option: str, value: object
) -> None:
    """It used to fail while the run was being restored, or at its next step."""
    run(tmp_path)
    (path, *_) = sorted(tmp_path.glob("checkpoint-*"))
    content = json.loads((path / "training.json").read_text(encoding="utf-8"))
    TrainingRecord.from_json(content)
    content["optimizer"]["options"][0][option] = value
    with pytest.raises(ValueError, match=r"the parts of the optimizer in training\.json do not match"):
        TrainingRecord.from_json(content)


@pytest.mark.parametrize("rate", [-0.1, float("nan")])
def test_a_learning_rate_is_at_least_zero(rate: float) -> None:
    good = asdict(Progress(learning_rate=0.0))
    assert math.isnan(Progress.from_dict(good).loss)
    with pytest.raises(ValueError, match=r"learning_rate is .*, which is not a rate"):
        Progress.from_dict(good | {"learning_rate": rate})


@pytest.mark.parametrize("wrong", [None, [], 7, "x", {}, {"step": 1}])
def test_progress_is_all_of_its_fields(wrong: object) -> None:
    with pytest.raises(ValueError, match="expected an object with step, epoch, items"):
        Progress.from_dict(wrong)
    with pytest.raises(ValueError, match="expected an object with step, epoch, items"):
        Progress.from_dict({**json.loads(json.dumps(vars(Progress()))), "more": 1})


def test_a_checkpoint_that_may_not_be_read_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older one was taken, and the newest renamed."""
    run(tmp_path, stop=3)
    before = content(tmp_path)

    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("tinygpt2.formats.manifest.digest_file", refuse)
    with pytest.raises(PermissionError):
        run(tmp_path)
    assert content(tmp_path) == before


def test_the_error_goes_through_a_process_boundary_whole() -> None:
    """Unpickling it was a TypeError, at which a pool of processes hangs."""
    error = IncompatibleRunError("checkpoint-3", [f"the {i}th" for i in range(20)], fix="Begin anew")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert (str(again), again.differences) == (str(error), error.differences)
    assert "and 8 more differences" in str(error)
    assert len(error.differences) == 20


# --- the same place in the data ---


@pytest.mark.parametrize(("first", "second", "stop"), [(2, 8, 15), (8, 2, 4), (4, 7, 6), (7, 4, 5)])
@pytest.mark.parametrize("drop_last", [False, True])
def test_another_batch_size_goes_on_at_the_same_place(
    tmp_path: Path, first: int, second: int, stop: int, drop_last: bool
) -> None:
    """Progress was counted in steps of the new size: 2 to 8 ended early as finished, and epochs ran backwards."""

    def data(batch_size: int) -> Loader:
        return make_dataloader(TOKENS, batch_size=batch_size, context_length=8, shuffle=True, drop_last=drop_last)

    config = TrainingConfig(epochs=2, eval_every=1, eval_batches=1)
    run(tmp_path, config, data=data(first), stop=stop)
    _, _, history = run(tmp_path, config, data=data(second), allow_changes=True)
    assert history.epochs == sorted(history.epochs)
    assert history.epochs[-1] == 2
    lost = 2 * max(first, second) * 8 if drop_last else 0
    assert 2 * 320 - lost <= history.tokens_seen[-1] <= 2 * 320


PARTS = [
    ("batch size", [{"batch_size": size} for size in (2, 3, 8, 1, 5, 40, 4)]),
    ("context length", [{"context_length": length} for length in (8, 4, 6, 3, 8)]),
    ("stride", [{"stride": stride} for stride in (8, 2, 16, 5)]),
    ("accumulation", [{"accumulated": n} for n in (1, 4, 2, 1, 3)]),
    ("all", [{"batch_size": 2, "accumulated": 3}, {"context_length": 4}, {"stride": 3, "batch_size": 7}, {}]),
]


@pytest.mark.parametrize("parts", [parts for _, parts in PARTS], ids=[name for name, _ in PARTS])
@pytest.mark.parametrize("drop_last", [False, True])
def test_progress_counts_data_whatever_changes_however_often(
    tmp_path: Path, parts: list[dict[str, int]], drop_last: bool
) -> None:
    """With windows of another length, the position was counted in windows of the old one."""
    read: list[float] = []  # passes that the sequences read make up
    at = [0.0]

    def count(state: TrainState) -> None:
        assert state.items_per_epoch is not None
        if state.event == "start":
            assert abs(state.epochs - at[0]) <= 1 / state.items_per_epoch  # at most one is left out
        if state.event == "step":
            at[0] = state.epochs
            read.append(at[0])

    for i, part in enumerate(parts):
        options: dict[str, Any] = {"batch_size": 4, "context_length": 8} | part
        options.pop("accumulated", None)
        config = TrainingConfig(
            epochs=6, eval_every=1, eval_batches=1, gradient_accumulation_steps=part.get("accumulated", 1)
        )
        data = make_dataloader(TOKENS, shuffle=True, drop_last=drop_last, **options)
        last = i == len(parts) - 1
        made: list[int] = []

        def stop(state: TrainState, made: list[int] = made, last: bool = last) -> None:
            if state.event == "step":
                made.append(state.step)
                if len(made) == 3 and not last:
                    state.stop()

        _, _, history = run(tmp_path, config, data=data, callbacks=[count, stop], allow_changes=i > 0)
    assert history.epochs == sorted(history.epochs)
    assert history.epochs[-1] == 6
    assert read == sorted(read)
    assert history.steps[-1] == len(read)


def test_the_position_is_that_of_the_data_in_windows_of_another_length(tmp_path: Path) -> None:
    def data(context_length: int) -> Loader:
        return make_dataloader(TOKENS, batch_size=4, context_length=context_length)

    config = TrainingConfig(epochs=1, eval_every=100, eval_batches=1)
    run(tmp_path, config, data=data(8), stop=5)  # 20 of 40 windows
    seen: list[tuple[float, int]] = []
    _, _, history = run(
        tmp_path, config, data=data(4), allow_changes=True,
        callbacks=[on_step(lambda s: seen.append((s.epochs, s.total_steps))).on_step],
    )  # fmt: skip
    assert seen[0] == (0.5 + 4 / 80, 5 + 10)
    assert (history.steps[-1], history.epochs[-1], history.tokens_seen[-1]) == (15, 1, 320)


def test_a_resumed_cosine_is_as_long_with_batches_of_many_sizes(tmp_path: Path) -> None:
    """The steps that were left were guessed from the size of the first batch."""
    ids = torch.tensor(TOKENS)
    sizes = (1, 5, 2, 9, 3, 3)
    batches = [(ids[: 8 * n].view(n, 8), ids[1 : 8 * n + 1].view(n, 8)) for n in sizes]
    config = replace(CONFIG, max_steps=None, epochs=2, eval_every=None, gradient_accumulation_steps=2)
    assert_resumes_exactly(tmp_path, lambda: {"data": batches, "config": config})
    _, _, history = run(None, config, data=batches)
    assert history.epochs == [0, 1, 2]


def test_an_interrupted_evaluation_does_not_forget_where_the_data_were(tmp_path: Path) -> None:
    """The checkpoint that is written after it had no hash of the last batch, and was refused from then on."""
    rows = torch.tensor(TOKENS[:81]).unfold(0, 9, 8)
    batches = [(row[None, :-1], row[None, 1:]) for row in rows]

    def crash(event: str, step: int) -> Callable[[TrainState], None]:
        def callback(state: TrainState) -> None:
            if state.event == event and state.step == step:
                raise RuntimeError(event)

        return callback

    with pytest.raises(RuntimeError, match="step"):  # saved before the evaluation that is due
        run(tmp_path, data=batches, callbacks=[crash("step", 3)])
    with pytest.raises(RuntimeError, match="evaluation"):  # saved with it, before a further batch was read
        run(tmp_path, data=batches, callbacks=[crash("evaluation", 3)])
    model, _, _ = run(tmp_path, data=batches)
    assert torch.equal(weights(model), weights(run(None, data=batches)[0]))
