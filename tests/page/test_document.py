"""The page as a file: one that loads nothing, and in which no text of others is HTML or code."""

import base64
import hashlib
import json
import re
import zlib
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

from tinygpt2 import (
    CharTokenizer,
    GPT2Config,
    GPT2Model,
    ModelPage,
    TrainingHistory,
    add_special_tokens,
    gpt2_tokenizer,
    quantize,
    show,
)
from tinygpt2.model.int8 import Int8Linear
from tinygpt2.model.rounding import rounded_weights
from tinygpt2.page import model_page as module
from tinygpt2.page.bundle import bundle, source
from tinygpt2.page.weights import plain_weights

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>&lt;\u2028'\"`${alert(1)}"
SHAPE = GPT2Config(vocab_size=90, context_length=8, n_layer=1, n_head=2, n_embd=8)


class Elements(HTMLParser):
    """The elements of a page, with their attributes and the text in each script and style."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.contents: list[tuple[str, dict[str, str | None], str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        tag, attributes = self.found[-1] if self.found else ("", {})
        if tag in {"script", "style"} and data.strip():
            self.contents.append((tag, attributes, data))


@pytest.fixture
def page() -> str:
    tokenizer = CharTokenizer.from_text(HOSTILE + "abc", byte_fallback=False)
    history = TrainingHistory()
    history.append(step=0, epoch=0.0, tokens_seen=0, train_loss=4.0, val_loss=4.1, learning_rate=0.0)
    model = GPT2Model(SHAPE)
    return show(model, tokenizer, title=HOSTILE, prompt=HOSTILE[:20], text=HOSTILE * 3, history=history).html


def data_of(page: str) -> dict[str, Any]:
    """Returns the data in a page."""
    (packed,) = re.findall(r'<script type="text/plain" id="data">([\w+/=]*)</script>', page)
    content: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(packed), wbits=-15))
    return content


def test_nothing_is_loaded_from_anywhere(page: str) -> None:
    for tag, attributes in Elements(page).found:
        assert tag not in {"link", "img", "iframe", "object", "embed", "base", "form", "a"}
        assert not attributes.keys() & {"src", "href", "srcset", "action", "style"}
        assert not [name for name in attributes if name.startswith("on")]
    assert not re.findall(r"\b(?:fetch|XMLHttpRequest|WebSocket|importScripts|eval|sendBeacon)\b", page)
    assert set(re.findall(r"\w+://[^\s\"'`)]*", page)) == {"http://www.w3.org/2000/svg"}


def test_the_policy_allows_the_pages_own_script_and_style_and_nothing_else(page: str) -> None:
    elements = Elements(page)
    (policy,) = [a["content"] for tag, a in elements.found if a.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in str(policy).split(";"))
    assert rules.pop("default-src") == "'none'"
    assert rules.pop("worker-src") == "blob:"
    for tag, rule in (("script", "script-src"), ("style", "style-src")):
        (run,) = [text for found, a, text in elements.contents if found == tag and a.get("type") != "text/plain"]
        digest = base64.b64encode(hashlib.sha256(run.encode()).digest()).decode()
        assert rules.pop(rule) == f"'sha256-{digest}'"
    assert rules == {
        "base-uri": "'none'",
        "form-action": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "worker",
    }


def test_a_hostile_text_is_nowhere_in_the_html(page: str) -> None:
    assert "alert(" not in page
    assert page.count("<script") == page.count("</script>") == 5  # data, weights, text, worker, page
    data = data_of(page)
    assert data["title"] == HOSTILE
    assert "<" in data["tokenizer"]["characters"]


def test_the_scripts_make_no_html_of_strings() -> None:
    for name in ("main", "worker"):
        code = bundle(name)
        assert not re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|srcdoc", code)
        assert "</script" not in code
        assert not re.findall(r"^(?:import|export)\b", code, re.MULTILINE)


def test_the_words_of_both_languages_have_the_same_names_and_values() -> None:
    english, chinese = (json.loads(source(f"words.{language}.json")) for language in ("en", "zh"))
    assert english.keys() == chinese.keys()
    for name, words in english.items():
        assert set(re.findall(r"\{\w+\}", words)) == set(re.findall(r"\{\w+\}", chinese[name])), name
        assert words.strip()
    used = source("page.html") + "".join(
        path.read_text(encoding="utf-8") for path in Path(module.__file__).parent.glob("web/*.js")
    )
    for name in english:
        stem = name.rpartition(".")[0]
        assert (
            f'"{name}"' in used
            or f"{stem}.${{" in used
            or f"{name.removesuffix('.hint')}" in {"dials.temperature", "dials.topK", "dials.topP", "dials.seed"}
        ), name


def test_a_page_says_how_large_it_would_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_BYTES", 1000)
    with pytest.raises(
        ValueError, match=r"the page would have 0 MB, with the model's 1,\d+ parameters, and at most 0 MB"
    ):
        show(GPT2Model(SHAPE), CharTokenizer("ab"))
    monkeypatch.setattr(module, "_MOST_BYTES", 20_000)
    with pytest.raises(ValueError, match="take a smaller model"):
        show(GPT2Model(SHAPE), CharTokenizer("ab"))


def test_a_large_model_is_refused_before_its_weights_are_packed() -> None:
    with torch.device("meta"):
        model = GPT2Model(GPT2Config())
    with pytest.raises(
        ValueError, match="would have 149 MB, with the model's 124,439,808 parameters, and at most 67 MB"
    ):
        show(model, gpt2_tokenizer())


def test_a_tokenizer_with_more_ids_than_the_model_is_refused() -> None:
    with pytest.raises(ValueError, match="the tokenizer has 50,258 ids, but the model only 90"):
        show(GPT2Model(SHAPE), add_special_tokens(gpt2_tokenizer(), ["<x>"]))


def test_a_vocabulary_smaller_than_the_models_is_all_that_the_page_chooses_from() -> None:
    data = data_of(show(GPT2Model(SHAPE), CharTokenizer("ab")).html)
    assert data["config"]["vocabulary"] == 3
    assert data["shapes"][0] == ["wte.weight", 3, 8]


def test_a_model_with_weights_of_8_bits_has_the_page_of_its_weights() -> None:
    """They are integers already, so they stay the same."""
    model, tokenizer = quantize(GPT2Model(SHAPE)), CharTokenizer("ab")
    found = data_of(show(model, tokenizer).html)
    assert found["parameters"] == GPT2Model(SHAPE).num_parameters()
    again = rounded_weights(plain_weights(model))
    for name, layer in model.named_modules():
        if isinstance(layer, Int8Linear):
            assert torch.equal(again[f"{name}.weight"], layer.weight)


def test_a_model_with_an_adapters_weights_is_refused() -> None:
    model = GPT2Model(SHAPE)
    model.extra = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"not those of its class.*: extra\.bias, extra\.weight"):
        show(model, CharTokenizer("ab"))


def test_a_notebook_shows_the_page_in_a_frame_without_rights(page: str, tmp_path: Path) -> None:
    shown = ModelPage(page)
    frame = shown._repr_html_()
    ((tag, attributes),) = Elements(frame).found
    assert (tag, attributes["sandbox"]) == ("iframe", "allow-scripts")
    assert attributes["srcdoc"] == page
    assert unescape(frame).count(page) == 1
    shown.save(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_bytes() == page.encode()
    assert repr(shown) == "ModelPage()"


def test_the_losses_are_in_bits_per_byte_if_they_are_known() -> None:
    history = TrainingHistory()
    for step, loss in ((0, 4.0), (3, float("nan")), (7, 3.0)):
        history.append(step=step, epoch=0.0, tokens_seen=0, train_loss=loss, val_loss=None, learning_rate=0.0)
    tokenizer = CharTokenizer("ab")
    found = data_of(show(GPT2Model(SHAPE), tokenizer, history=history).html)["history"]
    assert found == {"unit": "nats", "steps": [0, 7], "training": [4.0, 3.0], "validation": None}
    history.train_bits_per_byte = [2.0, 1.9, 1.5]
    found = data_of(show(GPT2Model(SHAPE), tokenizer, history=history).html)["history"]
    assert found == {"unit": "bits", "steps": [0, 7], "training": [2.0, 1.5], "validation": None}
