"""Distillation from a mixture of a first model and an n-gram model."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from tinygpt2 import (
    Distillation,
    GPT2Config,
    GPT2Model,
    IncompatibleRunError,
    NGramModel,
    TrainingConfig,
    TrainingHistory,
    distil,
    evaluate,
    make_dataloader,
    mixture_of,
    newest_checkpoint,
    on_step,
    train,
)
from tinygpt2.data.batches import Batch

V = 20
SHAPE = GPT2Config(vocab_size=V, context_length=16, n_layer=1, n_head=2, n_embd=16, dropout=0.0)
QUIET: dict[str, Any] = {"device": "cpu", "progress": False}
CONFIG = TrainingConfig(max_steps=12, learning_rate=1e-2, eval_every=4)


def language(length: int, seed: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Returns a text of a random language, in which a token depends on the two before it."""
    follows = np.random.default_rng(0).dirichlet(np.full(V, 0.1), (V, V))
    generator = np.random.default_rng(seed)
    tokens = [0, 1]
    while len(tokens) < length:
        tokens.append(generator.choice(V, p=follows[tokens[-2], tokens[-1]]))
    return np.array(tokens)


def loader(length: int = 700, seed: int = 1) -> DataLoader[Batch]:
    return make_dataloader(language(length, seed), batch_size=8, context_length=16, shuffle=True)


def model(seed: int = 0) -> GPT2Model:
    torch.manual_seed(seed)
    return GPT2Model(SHAPE)


def weights(of: GPT2Model) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in of.state_dict().items()}


@pytest.mark.parametrize("seed", range(2))
def test_the_student_is_better_than_the_first_model(seed: int) -> None:
    text, held_out = loader(1500), loader(1000, seed=2)
    first, student = model(seed), model(seed + 10)
    config = TrainingConfig(max_steps=150, learning_rate=2e-2, schedule="linear", eval_every=50, seed=seed)
    train(first, text, held_out, config, keep_best=True, **QUIET)
    distil(student, first, text, held_out, config, distillation=Distillation(ngram_weight=0.5), **QUIET)
    mixture = mixture_of(first, text, Distillation(ngram_weight=0.5))
    losses = {each: evaluate(each, held_out).loss for each in (first, student, mixture)}
    assert losses[mixture] < losses[first] - 0.05
    assert losses[student] < losses[first] - 0.04


def test_it_learns_what_its_parts_are_told(tmp_path: Path) -> None:
    samples = tmp_path / "samples.tokens"
    settings = Distillation(order=2, ngram_weight=0.25, sampled_tokens=170, real_share=0.5, prompt_tokens=3)
    history = distil(model(1), model(), loader(), config=CONFIG, distillation=settings, samples=samples, **QUIET)
    assert history.steps == [0, 4, 8, 12]
    mixture = mixture_of(model(), loader(), settings)
    assert mixture.weights.tolist() == [0.75, 0.25]
    assert isinstance(mixture.models[1], NGramModel)
    assert mixture.models[1].order == 2
    before = samples.read_bytes()
    again = distil(model(1), model(), loader(), config=CONFIG, distillation=settings, samples=samples, **QUIET)
    assert again == history
    assert samples.read_bytes() == before
    samples.unlink()
    assert distil(model(1), model(), loader(), config=CONFIG, distillation=settings, **QUIET) == history


def interrupted(directory: Path, **options: Any) -> TrainingHistory:  # noqa: ANN401 - of train
    """Trains a student until step 5, as if a signal ended it there."""

    def stop(state: Any) -> None:  # noqa: ANN401
        if state.step == 5:
            state.interrupt()

    return distil(
        model(1), model(), loader(), loader(300, seed=2), CONFIG, samples=directory / "samples.tokens",
        checkpoint_dir=directory, callbacks=[on_step(stop)], **options, **QUIET,
    )  # fmt: skip


def test_a_resumed_run_has_the_same_bits(tmp_path: Path) -> None:
    whole = model(1)
    expected = distil(whole, model(), loader(), loader(300, seed=2), CONFIG, **QUIET)
    interrupted(tmp_path)
    assert newest_checkpoint(tmp_path).name == "checkpoint-5"
    resumed = model(2)
    history = distil(
        resumed, model(), loader(), loader(300, seed=2), CONFIG, samples=tmp_path / "samples.tokens",
        checkpoint_dir=tmp_path, resume=True, **QUIET,
    )  # fmt: skip
    assert history == expected
    for name, tensor in resumed.state_dict().items():
        assert torch.equal(tensor, whole.state_dict()[name])


def test_another_teacher_is_another_run(tmp_path: Path) -> None:
    interrupted(tmp_path)
    options: dict[str, Any] = {"checkpoint_dir": tmp_path, "resume": True, **QUIET}
    samples = tmp_path / "samples.tokens"
    with pytest.raises(IncompatibleRunError, match="there was another teacher"):
        distil(model(1), model(3), loader(), loader(300, seed=2), CONFIG, samples=samples, **options)
    other = Distillation(ngram_weight=0.4)
    with pytest.raises(IncompatibleRunError, match="there was another teacher"):
        distil(model(1), model(), loader(), loader(300, seed=2), CONFIG, samples=samples, distillation=other, **options)
    with pytest.raises(IncompatibleRunError, match="there was a teacher and now there is none"):
        train(model(1), loader(), loader(300, seed=2), CONFIG, **options)
    samples.unlink()
    other = Distillation(sampled_tokens=340)
    with pytest.raises(IncompatibleRunError, match="sampled_sha256"):
        distil(model(1), model(), loader(), loader(300, seed=2), CONFIG, samples=samples, distillation=other, **options)


def test_a_run_without_teacher_gets_none(tmp_path: Path) -> None:
    train(model(), loader(), config=CONFIG, checkpoint_dir=tmp_path, **QUIET)
    content = (newest_checkpoint(tmp_path) / "training.json").read_text()
    assert "teacher" not in content
    with pytest.raises(IncompatibleRunError, match="there was no teacher and now there is one"):
        train(model(), loader(), config=CONFIG, teacher=model(1), checkpoint_dir=tmp_path, resume=True, **QUIET)


def test_any_model_can_be_the_teacher_of_train() -> None:
    teacher = model(1)
    before = weights(teacher)
    student = model()
    history = train(student, loader(), config=CONFIG, teacher=teacher, **QUIET)
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())
    assert history.train_losses[0] == evaluate(model(), loader()).loss


def test_wrong_arguments(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"teacher must be a torch.nn.Module, such as a Mixture"):
        train(model(), loader(), teacher="best", **QUIET)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="first must be a GPT2Model"):
        distil(model(), 3, loader(), **QUIET)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="distillation must be a Distillation"):
        distil(model(), model(), loader(), distillation=3, **QUIET)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="train_loader must be one that make_dataloader returned"):
        distil(model(), model(), list(loader()), **QUIET)  # type: ignore[arg-type]
    samples = tmp_path / "samples.tokens"
    distil(model(1), model(), loader(), config=CONFIG, samples=samples, **QUIET)
    short = make_dataloader(language(300, 1), batch_size=8, context_length=15)
    with pytest.raises(ValueError, match=r"samples.tokens does not hold sequences of 16 tokens"):
        distil(model(1), model(), short, config=CONFIG, samples=samples, **QUIET)
    with pytest.raises(ValueError, match="real_share must be"):
        Distillation(real_share=0)
    first = GPT2Model(GPT2Config(vocab_size=30, context_length=16, n_layer=1, n_head=2, n_embd=16))
    with pytest.raises(ValueError, match="the teacher has a vocabulary of 30 tokens and the model one of 20"):
        distil(model(1), first, loader(), config=CONFIG, **QUIET)
