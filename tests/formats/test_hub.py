"""Models of the Hub by name, from a cache without a network."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tinygpt2 import CharTokenizer, GPT2Config, GPT2Model, load_tokenizer, save_tokenizer

TINY = GPT2Config(vocab_size=61, context_length=16, n_layer=2, n_head=3, n_embd=24)
TOKENS = torch.arange(32).view(2, 16)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A directory with a model."""
    GPT2Model(TINY).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def cached(saved: Path, add_to_hub: Callable[..., Path]) -> Path:
    """A model in the cache, and another version of it."""
    snapshot = add_to_hub("somebody/some-gpt2", saved)
    other = add_to_hub("somebody/some-gpt2", saved, "v1") / "config.json"
    dropouts = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.5)
    other.write_text(json.dumps(json.loads(other.read_text(encoding="utf-8")) | dropouts), encoding="utf-8")
    return snapshot


def test_a_name_is_looked_for_in_the_cache(saved: Path, cached: Path) -> None:
    model = GPT2Model.from_pretrained("somebody/some-gpt2")
    assert torch.equal(model(TOKENS), GPT2Model.from_pretrained(saved)(TOKENS))
    assert GPT2Model.from_pretrained("somebody/some-gpt2", revision="v1").config.dropout == 0.5
    save_tokenizer(CharTokenizer("".join(map(chr, range(65, 125)))), cached)
    assert load_tokenizer("somebody/some-gpt2").n_vocab == 61


def test_pickled_weights_in_the_cache_are_read(saved: Path, cached: Path) -> None:
    weights = {name: weight.clone() for name, weight in load_file(cached / "model.safetensors").items()}
    (cached / "model.safetensors").unlink()
    torch.save(weights, cached / "pytorch_model.bin")
    assert torch.equal(
        GPT2Model.from_pretrained("somebody/some-gpt2")(TOKENS), GPT2Model.from_pretrained(saved)(TOKENS)
    )


@pytest.mark.usefixtures("cached")
@pytest.mark.parametrize(("name", "revision"), [("somebody/other", None), ("somebody/some-gpt2", "v2"), ("gpt2", None)])
def test_a_name_that_is_not_in_the_cache_is_told_without_a_network(name: str, revision: str | None) -> None:
    with pytest.raises(
        FileNotFoundError, match=f"{name} is neither a directory here nor in the cache of huggingface_hub"
    ):
        GPT2Model.from_pretrained(name, revision=revision)
    with pytest.raises(FileNotFoundError, match=r"cannot be downloaded: .*; check the name"):
        load_tokenizer(name, revision=revision)


def test_a_directory_is_not_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is asked of the Hub about paths, even mistaken ones."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for path in ("runs/gpt2", "./somebody/gpt2", "run", "a/b/c", "/somebody/gpt2", "../gpt2"):
        with pytest.raises(FileNotFoundError, match=r"does not exist; expected a directory"):
            GPT2Model.from_pretrained(path)
    with pytest.raises(ValueError, match="revision is of a model of the Hub, but runs is a path"):
        GPT2Model.from_pretrained("runs", revision="main")


def test_without_huggingface_hub_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"pip install 'tinygpt2\[hub\]'"):
        GPT2Model.from_pretrained("somebody/some-gpt2")
