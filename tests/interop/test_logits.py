"""Samplers and transformers' logits processors in each other's place."""

import math

import pytest
import torch
from torch import Tensor

from tinygpt2 import (
    CharTokenizer,
    GPT2Config,
    GPT2Model,
    GreedySampler,
    MultinomialSampler,
    ProcessorSampler,
    SamplerProcessor,
    TopKSampler,
    generate,
    generate_text,
)

transformers = pytest.importorskip("transformers")

SHAPE = GPT2Config(vocab_size=61, context_length=32, n_layer=2, n_head=3, n_embd=24, dropout=0.0)


@pytest.fixture
def ours() -> GPT2Model:
    model = GPT2Model(SHAPE).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("RepetitionPenaltyLogitsProcessor", {"penalty": 1.7}),
        ("NoRepeatNGramLogitsProcessor", {"ngram_size": 2}),
        ("TopPLogitsWarper", {"top_p": 0.7}),
    ],
)
def test_a_processor_gives_the_text_that_it_gives_there(
    ours: GPT2Model, name: str, arguments: dict[str, float], tmp_path: object
) -> None:
    """Those that read the text so far, too, which they get as ``tokens``."""
    ours.save_pretrained(str(tmp_path))
    theirs = transformers.GPT2LMHeadModel.from_pretrained(str(tmp_path), local_files_only=True).eval()
    processor = getattr(transformers, name)(**arguments)
    tokens = torch.arange(10).view(2, 5)
    expected = theirs.generate(
        tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=25, do_sample=False, pad_token_id=0,
        eos_token_id=None, logits_processor=[processor],
    )  # fmt: skip
    sampler = ProcessorSampler(transformers.LogitsProcessorList([processor]), then=GreedySampler())
    assert torch.equal(generate(ours, tokens, max_new_tokens=25, sampler=sampler), expected)
    assert torch.equal(
        generate(ours, tokens, max_new_tokens=25, sampler=ProcessorSampler(processor, then=GreedySampler())), expected
    )


def test_a_sampler_gives_the_text_that_it_gives_here(ours: GPT2Model, tmp_path: object) -> None:
    ours.save_pretrained(str(tmp_path))
    theirs = transformers.GPT2LMHeadModel.from_pretrained(str(tmp_path), local_files_only=True).eval()
    tokens = torch.arange(10).view(2, 5)
    sampler = TopKSampler(5)
    for sampling in (False, True):
        processor = SamplerProcessor(sampler, torch.Generator().manual_seed(3))
        found = theirs.generate(
            tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=20, do_sample=sampling, pad_token_id=0,
            eos_token_id=None, logits_processor=[processor],
        )  # fmt: skip
        expected = generate(
            ours, tokens, max_new_tokens=20, sampler=sampler, generator=torch.Generator().manual_seed(3)
        )
        assert torch.equal(found, expected)


def test_a_processor_sees_no_padding() -> None:
    """Transformers' penalties count whatever a row begins with, so that a row depended on the longest of its batch."""
    letters = CharTokenizer("abcdefghij")
    shape = GPT2Config(vocab_size=letters.n_vocab, context_length=32, n_layer=1, n_head=1, n_embd=8, dropout=0.0)
    model = GPT2Model(shape).double()
    processor = transformers.RepetitionPenaltyLogitsProcessor(30.0)
    sampler = ProcessorSampler(processor, then=GreedySampler())
    prompts = ["abcdefgh", "", "jj"]
    alone = [generate_text(model, letters, prompt, max_new_tokens=9, sampler=sampler) for prompt in prompts]
    assert generate_text(model, letters, prompts, max_new_tokens=9, sampler=sampler) == alone


def test_what_a_processor_changes_in_place_is_a_copy() -> None:
    def first_alone(_: Tensor, logits: Tensor) -> Tensor:
        logits[:, 1:] = -math.inf
        return logits

    logits = torch.randn(2, 5)
    before = logits.clone()
    sampler = ProcessorSampler(first_alone, then=MultinomialSampler())
    assert sampler(logits, tokens=torch.zeros(2, 1, dtype=torch.int64)).tolist() == [0, 0]
    assert torch.equal(logits, before)


def test_what_cannot_work_is_told() -> None:
    with pytest.raises(TypeError, match="processor must be callable, a function or an object, got 3"):
        ProcessorSampler(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected a sampler"):
        ProcessorSampler(lambda _, logits: logits, then=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected a sampler"):
        SamplerProcessor(GreedySampler)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"generator must be a torch\.Generator"):
        SamplerProcessor(GreedySampler(), 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="tokens must be the text so far, which a logits processor reads, got None"):
        ProcessorSampler(lambda _, logits: logits)(torch.zeros(1, 3))
