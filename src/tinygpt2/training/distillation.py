"""Distillation: a student that learns from a mixture of a first model and an n-gram model."""

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from tinygpt2._internal.checks import check_bool, check_instance, check_path
from tinygpt2._internal.console import write_line
from tinygpt2.config import Distillation, TrainingConfig
from tinygpt2.data.batches import Batch
from tinygpt2.data.encoding import Encoded, ids_dtype
from tinygpt2.data.loader import without_noise
from tinygpt2.data.mixed import mix_sequences
from tinygpt2.data.token_file import TokenFile, write_token_file
from tinygpt2.data.token_header import Header
from tinygpt2.data.windows import TokenArray, parts_of
from tinygpt2.distributed.launch import ranks_here
from tinygpt2.generation.decoding import check_model
from tinygpt2.generation.sequences import sample_sequences
from tinygpt2.model.gpt2 import GPT2Model
from tinygpt2.model.mixture import Mixture
from tinygpt2.model.ngram import NGramModel
from tinygpt2.training.history import TrainingHistory
from tinygpt2.training.train import train

SAMPLED_TIMES = 5  # tokens to sample for each token of the text, unless a number is given


def distil(
    student: GPT2Model,
    first: GPT2Model | Sequence[GPT2Model],
    train_loader: DataLoader[Batch],
    val_loader: DataLoader[Batch] | None = None,
    config: TrainingConfig | None = None,
    *,
    distillation: Distillation | None = None,
    samples: str | os.PathLike[str] | None = None,
    device: torch.device | str | None = None,
    progress: bool = True,
    **options: Any,  # noqa: ANN401 - of train
) -> TrainingHistory:
    """Trains a new model on what a first one and an n-gram model of the same text know together; returns its history.

    A GPT-2 that was trained on a short text and the counts of its n-grams err in different ways, and their mixture is
    better than either (`mixture_of`). A student learns its probabilities, and so becomes better than the first model: a
    single GPT-2, as large and as fast as one trained on the text. It reads windows of the text and, mostly, sequences
    sampled from the mixture, whose number has no limit: on the text alone it would memorise which probabilities belong
    to which context. All that it learns comes from the training part of the text.

    Args:
        student: A new model, trained in place. It needs no dropout.
        first: The first model, trained on ``train_loader``, or several of one shape, which know more together.
        train_loader: Batches of the text, from `make_dataloader`. Noise on it is for the first model, and left out.
        val_loader: As in `train`.
        config: Configuration of the student's training. An epoch is a pass over the text and the sampled sequences
            that go with it, so ``max_steps`` is a better measure.
        distillation: Settings; ``Distillation()`` by default.
        samples: File of the sampled tokens. If it exists it is read, so that a run that resumes does not sample again;
            otherwise it is written.
        device: As in `train`.
        progress: Whether to show progress on stderr.
        **options: Other arguments of `train`, such as ``checkpoint_dir`` and ``keep_best``.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If the models have other vocabularies, the first cannot read the loader's windows, or the file of
            samples is of another text or shape.

    Other errors are those of `train`.

    Source: Hinton et al. 2015, arXiv 1503.02531; Kim and Rush 2016, arXiv 1606.07947, for learning from sampled text;
    Malagutti et al. 2024, arXiv 2403.17240, for n-gram smoothing of neural models.

    >>> from tinygpt2 import GPT2Config, TrainingConfig, make_dataloader, train
    >>> shape = GPT2Config(
    ...     vocab_size=4, context_length=8, n_layer=1, n_head=2, n_embd=8,
    ...     dropout=0.0,
    ... )
    >>> loader = make_dataloader([0, 1, 2, 3] * 50, batch_size=4, context_length=8)
    >>> quiet = {"device": "cpu", "progress": False}
    >>> first, student = GPT2Model(shape), GPT2Model(shape)
    >>> history = train(first, loader, **quiet)
    >>> steps = TrainingConfig(max_steps=20, learning_rate=1e-2)
    >>> history = distil(student, first, loader, config=steps, **quiet)
    >>> history.train_losses[-1] < history.train_losses[0]
    True
    """
    check_model(student)
    check_bool("progress", progress)
    distillation = Distillation() if distillation is None else distillation
    check_instance("distillation", distillation, Distillation, "a Distillation")
    config = TrainingConfig() if config is None else config
    check_instance("config", config, TrainingConfig, "a TrainingConfig")
    ranks, target = ranks_here(device)
    teacher = mixture_of(first, train_loader, distillation).to(target)
    path = None if samples is None else check_path("samples", samples)
    width = _parts(train_loader)[0].context_length + 1

    def sequences() -> Tensor:
        if path is not None and path.exists():
            return _read(TokenFile(path), width, student.config.vocab_size)
        sampled = _sampled(teacher, train_loader, distillation, config.seed, progress=progress)
        if path is not None:
            _write(path, sampled, student.config.vocab_size)
        return sampled

    with ranks.together():
        written = ranks.from_first(lambda: {"sequences": sequences()})["sequences"]
    loader = mix_sequences(train_loader, written, real_share=distillation.real_share)
    return train(student, loader, val_loader, config, teacher=teacher, device=device, progress=progress, **options)


def mixture_of(
    first: GPT2Model | Sequence[GPT2Model], train_loader: DataLoader[Batch], distillation: Distillation | None = None
) -> Mixture:
    """Returns the mixture of models and of the n-gram model of the text that it was trained on.

    Args:
        first: The model, or several of one shape, which have equal weights.
        train_loader: Batches of the text, from `make_dataloader`.
        distillation: The order of the n-grams and their weight; ``Distillation()`` by default.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If an id of the text is outside the model's vocabulary.

    >>> from tinygpt2 import GPT2Config, evaluate, make_dataloader
    >>> loader = make_dataloader([0, 1, 2, 3] * 50, batch_size=4, context_length=8)
    >>> model = GPT2Model(GPT2Config(
    ...     vocab_size=4, context_length=8, n_layer=1, n_head=2, n_embd=8
    ... ))
    >>> mixture = mixture_of(model, loader)
    >>> evaluate(mixture, loader).loss < evaluate(model, loader).loss
    True
    """
    models = _models(first)
    distillation = Distillation() if distillation is None else distillation
    check_instance("distillation", distillation, Distillation, "a Distillation")
    texts = [part.tokens for part in _parts(train_loader)]
    counts = NGramModel(texts, models[0].config.vocab_size, order=distillation.order)
    share = (1 - distillation.ngram_weight) / len(models)
    return Mixture([*models, counts], [*[share] * len(models), distillation.ngram_weight])


def _models(first: object) -> list[GPT2Model]:
    """Returns the first models."""
    models: list[Any] = list(first) if isinstance(first, Sequence) else [first]
    if not models:
        raise ValueError("first must be a GPT2Model, or several, got an empty list")
    for i, model in enumerate(models):
        check_instance(f"first[{i}]" if isinstance(first, Sequence) else "first", model, GPT2Model, "a GPT2Model")
    return models


def _parts(loader: DataLoader[Batch]) -> list[Any]:
    """Returns the sequences of tokens of which a loader has windows."""
    parts = parts_of(getattr(without_noise(loader), "dataset", None))
    if not parts:
        raise TypeError("train_loader must be one that make_dataloader returned, without streaming=True")
    return parts


def _sampled(
    teacher: Mixture, loader: DataLoader[Batch], distillation: Distillation, seed: int, *, progress: bool
) -> Tensor:
    """Returns sequences that a teacher writes, (N, T + 1)."""
    parts = _parts(loader)
    texts: list[TokenArray] = [part.tokens for part in parts]
    text = np.concatenate(texts) if len(texts) > 1 else texts[0]
    length = parts[0].context_length + 1
    tokens = distillation.sampled_tokens or SAMPLED_TIMES * len(text)
    if progress:
        write_line(f"sampling {tokens:,} tokens from the mixture")
    return sample_sequences(
        teacher,
        text,
        count=math.ceil(tokens / length),
        length=length,
        prompt_tokens=min(distillation.prompt_tokens, length - 1),
        seed=seed,
    )


def _write(path: Any, sequences: Tensor, vocab_size: int) -> None:  # noqa: ANN401
    ids = np.ascontiguousarray(sequences.flatten().numpy().astype(ids_dtype(vocab_size)))
    write_token_file(
        path,
        [Encoded(ids, 0, 0)],
        lambda written: Header(
            tokens=written.tokens,
            n_vocab=vocab_size,
            sha256=written.sha256,
            bytes=0,  # they are no text
            documents=None,
            empty_documents=None,
            eot_token=None,
            tokenizer_sha256=None,
        ),
    )


def _read(file: TokenFile, width: int, vocab_size: int) -> Tensor:
    """Returns the sequences in a file, (N, width)."""
    file.verify()
    if file.n_vocab != vocab_size or len(file) % width:
        raise ValueError(
            f"{file.path} does not hold sequences of {width} tokens of a vocabulary of {vocab_size}: its samples are "
            "of another run; remove it, or pass another file"
        )
    return torch.from_numpy(file.tokens.astype(np.int64)).view(-1, width)
