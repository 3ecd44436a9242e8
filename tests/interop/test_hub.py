"""Uploads to the Hub, against a stand-in for it, and model cards."""

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tinygpt2 import CharTokenizer, GPT2Config, GPT2Model, model_card, push_to_hub
from tinygpt2.cli.main import main

huggingface_hub = pytest.importorskip("huggingface_hub")

SHAPE = GPT2Config(vocab_size=27, context_length=16, n_layer=1, n_head=2, n_embd=16)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run of the command line."""
    directory = tmp_path_factory.mktemp("runs")
    text = directory / "private-letters.txt"
    text.write_text("The quick brown fox jumps over the lazy dog. " * 60, encoding="utf-8")
    words = ["--max-steps", "3", "--tokenizer", "char", "--n-layer", "1", "--n-embd", "16", "--n-head", "2", "--quiet"]
    assert main(["train", str(text), "--out", str(directory / "fox"), "--device", "cpu", *words]) == 0
    return directory / "fox"


class StandIn:
    """What is asked of the Hub."""

    def __init__(self, error: Exception | None = None) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.error = error

    def __call__(self, token: str | None = None) -> "StandIn":
        self.calls.append(("token", token))
        return self

    def create_repo(self, name: str, **options: Any) -> None:  # noqa: ANN401
        self.calls.append((name, options))

    def create_commit(self, name: str, operations: list[Any], commit_message: str) -> SimpleNamespace:
        if self.error:
            raise self.error
        self.calls.append((name, {each.path_in_repo: each.path_or_fileobj for each in operations}))
        return SimpleNamespace(commit_url=f"https://huggingface.co/{name}/commit/1", message=commit_message)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    stand_in = StandIn()
    monkeypatch.setattr(huggingface_hub, "HfApi", stand_in)
    return stand_in


def test_a_run_is_uploaded_with_a_card_and_without_texts(run: Path, hub: StandIn) -> None:
    address = push_to_hub(run, "somebody/fox", private=True, token="t")  # noqa: S106
    assert address == "https://huggingface.co/somebody/fox/commit/1"
    assert hub.calls[:2] == [("token", "t"), ("somebody/fox", {"private": True, "exist_ok": True})]
    files = hub.calls[2][1]
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json", "tinygpt2_tokenizer.json"} <= set(files)
    assert {"history.json", "report.json"} <= set(files)
    assert not {name for name in files if "options" in name or "checkpoint" in name or "letters" in name}
    card = files["README.md"].decode()
    assert card == model_card(run, "somebody/fox")
    assert "private-letters" not in card


def test_a_card_has_the_figures_of_the_report(run: Path) -> None:
    card = model_card(run)
    assert card.startswith("---\nlibrary_name: tinygpt2\n")
    assert "\n# fox\n" in card
    assert "| this model | " in card
    assert "| byte n-gram, 4 bytes of context | " in card
    assert "trained from scratch" in card
    assert "3 steps" in card
    assert "| `n_embd`" not in card
    assert "| `learning_rate` | " in card
    assert 'GPT2Model.from_pretrained("fox")' in card


def test_a_model_without_a_run_has_a_card_without_figures(tmp_path: Path) -> None:
    GPT2Model(SHAPE).save_pretrained(tmp_path, tokenizer=CharTokenizer("abcdefghijklmnopqrstuvwxyz"))
    card = model_card(tmp_path, "somebody/letters")
    assert "Bits per byte" not in card
    assert "## Use" in card


def test_a_card_of_ones_own_and_shards_are_uploaded(run: Path, hub: StandIn, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "fox")
    (tmp_path / "fox" / "README.md").write_text("My fox.", encoding="utf-8")
    GPT2Model.from_pretrained(run).save_pretrained(tmp_path / "fox", max_shard_size=2000)
    push_to_hub(tmp_path / "fox", "somebody/fox")
    files = hub.calls[2][1]
    assert files["README.md"] == b"My fox."
    assert "model.safetensors.index.json" in files
    assert "model.safetensors" not in files


def test_what_cannot_be_uploaded_is_told(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no model in .*: it has no config\.json"):
        push_to_hub(tmp_path, "somebody/fox")
    with pytest.raises(ValueError, match="repo_id must have an owner, such as 'somebody/my-gpt2', got 'fox'"):
        push_to_hub(run, "fox")
    monkeypatch.setattr(huggingface_hub, "HfApi", StandIn(RuntimeError("401 Client Error.\nmore")))
    with pytest.raises(
        OSError, match=r"cannot upload to somebody/fox: 401 Client Error; check the name.*hf auth login"
    ):
        push_to_hub(run, "somebody/fox")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(
        ImportError, match=r"uploading to somebody/fox needs huggingface_hub: pip install 'tinygpt2\[hub\]'"
    ):
        push_to_hub(run, "somebody/fox")
