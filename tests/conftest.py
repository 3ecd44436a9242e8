"""What all tests share."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import settings

from tinygpt2 import GPT2Config, GPT2Model

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

# Tiny operations on several threads are slow, and on a busy machine very slow. Subprocesses inherit the variable.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"

# Tests send all, to this process and to others, which inherit an ignored signal: it is ignored where the suite runs in
# the background of a script, under nohup, or in some services.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# The first example of a test may compile or allocate; a shared machine may pause. Neither is a bug.
settings.register_profile("quick", deadline=None, max_examples=20)
settings.register_profile("thorough", deadline=None, max_examples=500)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Makes the weights of tiny models the same in every run."""
    torch.manual_seed(0)


@pytest.fixture
def config() -> GPT2Config:
    """A shape small enough to run in a millisecond, in which no two sizes are equal."""
    return GPT2Config(vocab_size=61, context_length=16, n_layer=2, n_head=3, n_embd=24)


@pytest.fixture
def model(config: GPT2Config) -> GPT2Model:
    """A model of that shape whose weights are large enough that its logits differ clearly, in evaluation mode."""
    model = GPT2Model(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5)
    return model.eval()


@pytest.fixture
def add_to_hub(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Copies a directory into a cache of the Hub, under a name, and returns the copy; there is no network."""
    cache = tmp_path_factory.mktemp("hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def add(name: str, directory: Path, revision: str = "main") -> Path:
        repository = cache / f"models--{name.replace('/', '--')}"
        commit = revision.encode().hex().ljust(40, "0")
        (repository / "refs").mkdir(parents=True, exist_ok=True)
        (repository / "refs" / revision).write_text(commit, encoding="utf-8")
        return Path(shutil.copytree(directory, repository / "snapshots" / commit))

    return add


@pytest.fixture(scope="module")
def browser() -> "Iterator[Chrome]":
    """Yields a headless Chromium or Chrome. Without one the test is skipped, unless REQUIRE_BROWSER is set.

    The test needs sockets: ``pytest.mark.enable_socket``.
    """
    binary = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        if os.environ.get("REQUIRE_BROWSER"):
            pytest.fail("there is no Chromium with its driver, and REQUIRE_BROWSER is set")
        pytest.skip("needs Chromium or Chrome, and chromedriver")
    selenium = pytest.importorskip("selenium.webdriver")
    service = pytest.importorskip("selenium.webdriver.chrome.service")
    options = selenium.ChromeOptions()
    options.binary_location = binary
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync",
                 "disable-background-networking", "disable-component-update"):  # fmt: skip
        options.add_argument(f"--{flag}")
    chromium = selenium.Chrome(options=options, service=service.Service(driver))
    yield chromium
    chromium.quit()
