"""The measurements at the end of a run, of which its report consists."""

import math
import time
import warnings
from itertools import takewhile

import numpy as np
import numpy.typing as npt
import torch

from tinygpt2._internal.random import mixed_seed
from tinygpt2._internal.texts import utf8_size
from tinygpt2.cli.inputs import Part, is_of_tokens
from tinygpt2.cli.report import STRETCH
from tinygpt2.cli.settings import default_sampler
from tinygpt2.errors import NonFiniteLossError
from tinygpt2.evaluation.baselines import baselines
from tinygpt2.evaluation.copies import copied_share
from tinygpt2.evaluation.loss import Evaluation
from tinygpt2.evaluation.passages import Passages
from tinygpt2.evaluation.scores import score_passages
from tinygpt2.evaluation.windows import Windows
from tinygpt2.generation.decoding import decode
from tinygpt2.generation.options import Decoding
from tinygpt2.losses import perplexity
from tinygpt2.model.gpt2 import GPT2Model
from tinygpt2.run.report import Report
from tinygpt2.tokenizers.foreign import as_tokenizer
from tinygpt2.tokenizers.protocol import Tokenizer, encoded
from tinygpt2.training.history import TrainingHistory

_Floats = npt.NDArray[np.float64]

_BATCH = 8  # windows, and texts that are generated together

# What bounds the time of a report to a few hundredths of the run's. Evaluating a token takes a third of the time of
# training on it, and twice that with windows that overlap by half; a token is two bytes or more, or the model is small.
_HELD_OUT = (32 << 10, 256 << 10)  # bytes, at least and at most
_HELD_OUT_PER_TOKEN = 0.1  # bytes for each token that the run has read
_TRAINING = (256 << 10, 4 << 20)  # bytes for the baselines
_TRAINING_PER_SECOND = 16 << 10  # bytes for each second of the run
_SEARCHED = 256 << 20  # characters of training text in which to look for copies, a few seconds
_TOKENS = 1000  # to generate
_GENERATING = (2.0, 0.02)  # seconds, and share of the run's: the longer of both

_PARTS = 20  # of the held-out text, whose spread gives the standard error


def measured(
    model: GPT2Model,
    tokenizer: Tokenizer,
    parts: tuple[Part, Part],
    history: TrainingHistory,
    *,
    prompt: str,
    seed: int,
    pretrained: GPT2Model | None = None,
) -> Report | None:
    """Returns the report on a run; ``None`` if its figures would not be comparable.

    They are not if the run has read tokens, not texts, or if the tokenizer does not keep the whole text.

    Args:
        model: The model handed over.
        tokenizer: Its tokenizer.
        parts: The texts to train on, and those held out.
        history: The evaluations of the run.
        prompt: What to continue for a sample; empty to begin new texts.
        seed: Seed of the sample.
        pretrained: The model that was fine-tuned, as it was before, if there is one.
    """
    training, held_out = parts
    if is_of_tokens(training) or is_of_tokens(held_out):
        return None
    seconds = history.seconds[-1] or 0.0
    source = _beginning(held_out, _bounded(_HELD_OUT, _HELD_OUT_PER_TOKEN * history.tokens_seen[-1]))
    found = _loss(model, tokenizer, source)
    if found is None:
        return None
    bits, error = found
    before = None if pretrained is None else _loss(pretrained, tokenizer, source)
    most = _bounded(_TRAINING, _TRAINING_PER_SECOND * seconds)
    texts = _sample(model, tokenizer, prompt, seed, max(_GENERATING[0], _GENERATING[1] * seconds))
    long_enough = any(len(text) >= STRETCH for text in texts) and sum(map(len, training)) <= _SEARCHED
    return Report(
        step=history.steps[-1],
        bits_per_byte=bits,
        standard_error=error,
        pretrained=before[0] if before else None,
        held_out_bytes=_size(held_out),
        copied_share=copied_share(texts, training, STRETCH) if long_enough else None,
        generated_characters=sum(map(len, texts)),
        baselines=baselines(training, source, tokenizer=tokenizer, most_bytes=most),
    )


def _bounded(limits: tuple[int, int], value: float) -> int:
    return int(min(max(value, limits[0]), limits[1]))


def _size(part: str | list[str]) -> int:
    """Returns the bytes of a text; of documents with an end each."""
    return utf8_size(part) if isinstance(part, str) else sum(utf8_size(text) + 1 for text in part)


def _beginning(part: str | list[str], most: int) -> str | list[str]:
    """Returns the beginning of a text, or the first of documents, of at most this many bytes; at least one of these."""
    if isinstance(part, str):
        return part[:most].encode()[:most].decode(errors="ignore")
    kept: list[str] = []
    for text in part:
        most -= utf8_size(text) + 1
        if kept and most < 0:
            break
        kept.append(text)
    return kept


def _loss(model: GPT2Model, tokenizer: Tokenizer, source: str | list[str]) -> tuple[float, float | None] | None:
    """Returns the bits per byte of `evaluate_text`, with windows that overlap by half, and their standard error.

    Returns ``None`` if they cannot be compared with others.
    """
    passages = Passages(as_tokenizer(tokenizer, ends=not isinstance(source, str)), source)
    windows = Windows(model, max(1, model.config.context_length // 2), _BATCH)
    nats, sizes = [], []
    try:
        for _, each in score_passages(model, passages, windows):
            nats.append(-each.log_probability)
            sizes.append(math.nan if each.start is None or each.end is None else each.end - each.start)
        loss = math.fsum(nats) / len(nats)
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            result = passages.completed(Evaluation(loss=loss, perplexity=perplexity(loss), tokens=len(nats)))
    except (NonFiniteLossError, UserWarning):
        return None
    bits = result.bits_per_byte
    if bits is None or not math.isfinite(bits):
        return None
    return bits, standard_error(np.array(nats) / math.log(2), np.array(sizes))


def standard_error(bits: _Floats, sizes: _Floats) -> float | None:
    """Returns the standard error of the bits per byte of a text.

    It is that of a ratio of sums over a few consecutive parts, as tokens near each other are alike.

    Args:
        bits: (N,) bits of each token.
        sizes: (N,) its bytes; NaN if they are not known.

    Returns:
        ``None`` if there are fewer tokens than parts, or their bytes are not known.
    """
    if len(bits) < _PARTS or np.isnan(sizes).any():
        return None
    begins = np.arange(_PARTS) * len(bits) // _PARTS
    rest = np.add.reduceat(bits - sizes * bits.sum() / sizes.sum(), begins)
    return float(math.sqrt(_PARTS / (_PARTS - 1) * (rest**2).sum()) / sizes.sum())


def _sample(model: GPT2Model, tokenizer: Tokenizer, prompt: str, seed: int, seconds: float) -> list[str]:
    """Returns texts as `tinygpt2 generate` writes them, without the prompt, and stops when the time is over."""
    try:
        known = as_tokenizer(tokenizer, ends=True)
    except ValueError:  # then nor can that
        return []
    given = encoded(known, prompt) or [known.eot_token]
    generator = torch.Generator(model.device).manual_seed(mixed_seed(seed))
    decoding = Decoding(
        max_new_tokens=_TOKENS // _BATCH,
        sampler=default_sampler(),
        ends=(known.eot_token,),
        generator=generator,
        n_vocab=known.n_vocab,
    )
    columns: list[list[int]] = []
    over = time.monotonic() + seconds
    for step in decode(model, torch.tensor([given] * _BATCH, device=model.device), decoding):
        columns.append(step.ids.tolist())
        if time.monotonic() > over:
            break
    rows = ([ids[i] for ids in columns] for i in range(_BATCH))
    return [known.decode(list(takewhile(known.eot_token.__ne__, row))) for row in rows]
