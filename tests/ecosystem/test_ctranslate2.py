"""CTranslate2: its converter on a directory as written, and greedy text in fp32 and int8."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tinygpt2 import GPT2Model, Tokenizer, generate

ctranslate2 = pytest.importorskip("ctranslate2", minversion="4.5")
pytest.importorskip("transformers")

pytestmark = pytest.mark.ecosystem


def converted(directory: Path, out: Path, quantization: str) -> Any:  # noqa: ANN401
    ctranslate2.converters.TransformersConverter(str(directory)).convert(str(out), quantization=quantization)
    return ctranslate2.Generator(str(out), device="cpu", compute_type=quantization, intra_threads=1)


def tokens_of(generator: Any, prompt: list[str], n: int) -> list[str]:  # noqa: ANN401
    """Continues a prompt greedily, whatever it says of an end."""
    (result,) = generator.generate_batch(
        [prompt], max_length=n, sampling_topk=1, include_prompt_in_result=False, min_length=n
    )
    found: list[str] = result.sequences[0]
    return found


@pytest.mark.parametrize("quantization", ["float32", "int8"])
def test_the_logits_of_a_directory_as_written(
    directory: Path, ids: Tensor, tmp_path: Path, near: Callable[..., None], quantization: str
) -> None:
    """It failed for want of a tokenizer's files."""
    generator = converted(directory, tmp_path / "converted", quantization)
    names = spellings(directory)
    logits = generator.forward_batch([[names[i] for i in row] for row in ids.tolist()])
    model = GPT2Model.from_pretrained(directory)
    with torch.no_grad():
        near(np.array(logits), model(ids), {"float32": 1e-4, "int8": 2.0}[quantization])


def test_the_greedy_text_of_a_directory_as_written(directory: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    generator = converted(directory, tmp_path / "converted", "float32")
    names = spellings(directory)
    prompt = tokenizer.encode_ordinary("In the summer of")
    expected = generate(GPT2Model.from_pretrained(directory), torch.tensor([prompt]), max_new_tokens=20)
    found = tokens_of(generator, [names[i] for i in prompt], 20)
    assert found == [names[i] for i in expected[0, len(prompt) :].tolist()]


def spellings(directory: Path) -> list[str]:
    """Returns the tokens as transformers spells them, which is how CTranslate2 takes them."""
    theirs = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(directory)
    names: list[str] = theirs.convert_ids_to_tokens(list(range(len(theirs))))
    return names
