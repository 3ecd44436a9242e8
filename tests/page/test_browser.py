"""The page in a headless browser, opened from a file: it works, loads nothing, and shows hostile text as text."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from tinygpt2 import (
    Baselines,
    CharTokenizer,
    GPT2Config,
    GPT2Model,
    TrainingHistory,
    add_special_tokens,
    generate,
    train_tokenizer,
)
from tinygpt2.model.rounding import restored_weights, rounded_weights
from tinygpt2.page.model_page import ModelPage, Past, page_of
from tinygpt2.run.report import Report
from tinygpt2.tokenizers.protocol import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from selenium.webdriver import Chrome

pytestmark = pytest.mark.enable_socket

HOSTILE = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"
TEXT = "The cat sat on the mat, and the cat saw the hat. " * 20 + HOSTILE * 3


# The text of the part on learning, once it has grown, and has not for a while.
SETTLED = """const text = document.getElementById("learned-text").textContent;
window.seen = window.seen?.text === text ? { text, times: window.seen.times + 1 } : { text, times: 0 };
return window.seen.times > 4 && text.length > 30 && text;"""


def model_for(tokenizer: Tokenizer) -> GPT2Model:
    shape = GPT2Config(vocab_size=tokenizer.n_vocab, context_length=48, n_layer=2, n_head=2, n_embd=16)
    model = GPT2Model(shape).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1).mul_(3)
    return model


def history() -> TrainingHistory:
    found = TrainingHistory()
    for step, loss in ((0, 4.0), (10, 3.0), (40, 2.5)):
        found.append(step=step, epoch=0.0, tokens_seen=0, train_loss=loss, val_loss=loss + 0.1, learning_rate=0.0)
    return found


def report() -> Report:
    against = Baselines(ngram=2.7, order=4, xz=2.9, untrained=3.6, bytes=100, training_bytes=9, training_bytes_in_all=9)
    return Report(step=40, bits_per_byte=2.5, standard_error=None, pretrained=None, held_out_bytes=100,
                  copied_share=0.1, generated_characters=50, baselines=against)  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return add_special_tokens(train_tokenizer(TEXT, 300), ["<script>"])


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> GPT2Model:
    torch.manual_seed(0)
    return model_for(tokenizer)


@pytest.fixture(scope="module")
def page(model: GPT2Model, tokenizer: Tokenizer) -> ModelPage:
    snapshots = {step: model_for(tokenizer).state_dict() for step in (0, 10, 40)}
    past = Past(history=history(), report=report(), snapshots=snapshots)
    return page_of(model, tokenizer, title=HOSTILE, prompt="The cat <script>", text=TEXT, past=past)


@pytest.fixture
def opened(browser: "Chrome", page: ModelPage, tmp_path: Path) -> "Iterator[Callable[..., Chrome]]":
    """Returns what opens the page in the browser, with a hash, a width, and colours; at the end nothing was wrong."""

    def show(fragment: str = "en", width: int = 1280, scheme: str = "light", content: ModelPage = page) -> "Chrome":
        content.save(tmp_path / "page.html")
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        browser.get("about:blank")
        browser.get(f"{(tmp_path / 'page.html').as_uri()}#{fragment}")
        until(browser, "return !document.getElementById('page').hidden")
        return browser

    yield show
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []  # type: ignore[no-untyped-call]
    assert browser.execute_script("return window.hacked") is None
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0


def until(browser: "Chrome", script: str, seconds: float = 60) -> Any:  # noqa: ANN401 - what the script returns
    """Returns what a script returns once that is true."""
    end = time.monotonic() + seconds
    while not (found := browser.execute_script(script)):
        assert time.monotonic() < end, script
        time.sleep(0.05)
    return found


def set_value(browser: "Chrome", identifier: str, value: object) -> None:
    browser.execute_script(
        "const field = document.getElementById(arguments[0]); field.value = arguments[1];"
        "for (const name of ['input', 'change']) field.dispatchEvent(new Event(name));",
        identifier,
        value,
    )


def written(browser: "Chrome") -> str:
    """Returns the text that the model has written, once it has stopped."""
    until(browser, "return /\\d/.test(document.getElementById('speed').textContent)")
    until(browser, "return !document.getElementById('go').textContent.match(/Stop|停/)")
    text: str = browser.execute_script("return document.getElementById('written').textContent")
    return text


def test_greedy_text_is_that_of_python_and_hostile_text_is_text(
    opened: "Callable[..., Chrome]", model: GPT2Model, tokenizer: Tokenizer
) -> None:
    browser = opened()
    written(browser)
    set_value(browser, "temperature-0", 0)
    browser.find_element("id", "again").click()
    text = written(browser)
    same = GPT2Model(model.config)
    same.load_state_dict(restored_weights(rounded_weights(model.state_dict())))
    prompt = tokenizer.encode_ordinary("The cat <script>")
    room = model.config.context_length - len(prompt)
    expected = generate(same.eval(), torch.tensor([prompt]), max_new_tokens=room, eos_id=tokenizer.eot_token)
    shown = tokenizer.decode(expected[0].tolist()).removesuffix("\ufffd").replace("<|endoftext|>", "end of text")
    assert text.startswith(shown)
    assert browser.title == HOSTILE
    assert HOSTILE in browser.find_element("css selector", "h1").text
    assert browser.execute_script("return document.querySelectorAll('#page script, #page img').length") == 0


def test_a_token_shows_its_alternatives_and_another_one_branches(opened: "Callable[..., Chrome]") -> None:
    browser = opened()
    written(browser)
    before = browser.execute_script("return [...document.querySelectorAll('.token')].map((each) => each.textContent)")
    browser.execute_script("document.querySelectorAll('.token')[3].focus()")
    browser.switch_to.active_element.send_keys("\ue012\ue012\ue014")  # left, left, right: the keyboard
    assert (
        browser.execute_script("return [...document.querySelectorAll('.token')].indexOf(document.activeElement)") == 2
    )
    browser.switch_to.active_element.send_keys("\ue007")  # Enter
    choice = until(browser, "return document.querySelector('#alternatives .bar')")
    label = choice.find_element("css selector", ".label").text
    choice.click()
    written(browser)
    after = browser.execute_script("return [...document.querySelectorAll('.token')].map((each) => each.textContent)")
    assert after[:2] == before[:2]
    assert after[2] != before[2]
    assert after[2].replace(" ", "·").strip() == label.strip() or after[2] in {"", "end of text"}


def test_the_dials_change_the_bars_and_a_bar_writes_its_token(opened: "Callable[..., Chrome]") -> None:
    browser = opened()
    written(browser)
    bars = "return [...document.querySelectorAll('#next-bars .bar .number')].map((each) => each.textContent)"
    until(browser, bars)
    set_value(browser, "topK-1", 0)  # the other copy of the dials
    assert browser.execute_script(bars)[:2] == ["100%", "0%"]
    assert browser.execute_script("return document.getElementById('topK-0').value") == "0"
    count = len(browser.find_elements("class name", "token"))
    browser.find_element("css selector", "#next-bars .bar").click()
    until(browser, f"return document.querySelectorAll('.token').length === {count + 1}")


def test_the_slider_moves_through_the_training(opened: "Callable[..., Chrome]") -> None:
    browser = opened()
    written(browser)
    texts = []
    for place, (step, loss) in enumerate([(0, "4.10"), (10, "3.10"), (40, "2.60")]):
        set_value(browser, "learned-step", place)
        now = f"step {step} of 40: {loss} nats per token on new text"
        until(browser, f"return document.getElementById('learned-now').textContent === '{now}'")
        texts.append(until(browser, SETTLED))
        until(browser, "return document.querySelectorAll('#learned-bars .bar').length === 5")
    assert len(set(texts)) == 3
    assert all(text.startswith("The cat <script>") for text in texts)


def test_what_was_copied_is_underlined(opened: "Callable[..., Chrome]", model: GPT2Model, tokenizer: Tokenizer) -> None:
    """The text of this page's training is what its model writes, so that all of it is copied."""
    browser = opened()
    written(browser)
    copied = browser.execute_script("return document.getElementById('knows-text').textContent")
    assert "in stretches of 20 characters or more" in browser.find_element("id", "knows-copies").text
    assert len(browser.find_elements("css selector", "#knows-bars .bar")) == 4
    browser = opened(content=page_of(model, tokenizer, title="", prompt="The cat <script>", text=f"And {copied}!"))
    written(browser)
    until(browser, "return document.querySelector('mark')")
    assert browser.find_element("tag name", "mark").get_property("textContent") == copied
    assert "100%" in browser.find_element("id", "knows-copies").text


@pytest.mark.parametrize("width", [360, 1440])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_both_languages_fit_every_screen_and_can_be_switched(
    opened: "Callable[..., Chrome]", language: str, width: int
) -> None:
    browser = opened(language, width, "dark")
    written(browser)
    other = {"en": "zh", "zh": "en"}[language]
    for name in (language, other):
        assert browser.execute_script("return document.documentElement.lang").startswith(name)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        empty = (
            "return [...document.querySelectorAll('h1, h2, h3, label, button')].filter((e) => !e.textContent).length"
        )
        assert browser.execute_script(empty) == 0
        browser.find_element("id", "language").click()


def test_a_notebook_shows_it_in_a_frame(browser: "Chrome", page: ModelPage, tmp_path: Path) -> None:
    """The frame has no rights but to run scripts, and a notebook's output is an HTML of its own."""
    (tmp_path / "notebook.html").write_text(f"<!doctype html><h1>Notebook</h1>{page._repr_html_()}", encoding="utf-8")
    browser.get((tmp_path / "notebook.html").as_uri())
    browser.switch_to.frame(browser.find_element("tag name", "iframe"))
    until(browser, "return document.querySelectorAll('.token').length > 5")
    assert browser.find_element("css selector", "h1").text.endswith(HOSTILE)
    browser.switch_to.default_content()
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []  # type: ignore[no-untyped-call]


def test_a_character_that_the_model_does_not_know_is_named(opened: "Callable[..., Chrome]") -> None:
    tokenizer = CharTokenizer("ab <>")
    browser = opened(content=page_of(model_for(tokenizer), tokenizer, title="", prompt="a <b>", text=None))
    written(browser)
    set_value(browser, "beginning", "ab<i>x</i>")
    assert "“i”" in browser.find_element("id", "beginning-error").text
    assert not browser.find_element("id", "go").is_enabled()
    set_value(browser, "beginning", "")
    assert browser.find_element("id", "beginning-error").text == ""
    browser.find_element("id", "go").click()
    assert written(browser)
