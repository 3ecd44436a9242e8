"""Web servers: one model, several threads at once."""

import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import torch

from tinygpt2 import GPT2Model, MultinomialSampler, Tokenizer, TopKSampler, generate_text, stream_text

pytestmark = pytest.mark.ecosystem

PROMPTS = [f"In the {word} of 19{n}" for n, word in enumerate(["summer", "winter", "spring", "end", "war"] * 6, 10)]
THREADS = 6


@pytest.fixture
def model(new_model: Callable[..., GPT2Model]) -> GPT2Model:
    """A model that was left in training mode, whose dropout would change the texts."""
    return new_model(dropout=0.5).train()


def expected_of(model: GPT2Model, tokenizer: Tokenizer) -> list[str]:
    return [generate_text(model, tokenizer, prompt, max_new_tokens=12) for prompt in PROMPTS]


def test_starlette_answers_six_requests_at_once(model: GPT2Model, tokenizer: Tokenizer) -> None:
    """11 of 30 texts were wrong: the first thread to end set the model back to training for the others."""
    pytest.importorskip("starlette", minversion="0.40")
    client_of = pytest.importorskip("starlette.testclient").TestClient
    applications, responses, routing = (
        pytest.importorskip(f"starlette.{name}") for name in ("applications", "responses", "routing")
    )
    at_once = threading.Barrier(THREADS, timeout=60)

    def whole(request: Any) -> Any:  # noqa: ANN401
        at_once.wait()
        return responses.PlainTextResponse(
            generate_text(model, tokenizer, request.query_params["prompt"], max_new_tokens=12)
        )

    def streamed(request: Any) -> Any:  # noqa: ANN401
        at_once.wait()
        pieces = stream_text(model, tokenizer, request.query_params["prompt"], max_new_tokens=12)
        return responses.StreamingResponse(pieces, media_type="text/plain")

    routes = [routing.Route("/whole", whole), routing.Route("/streamed", streamed)]
    app = applications.Starlette(routes=routes)
    expected = expected_of(model, tokenizer)
    with client_of(app) as client, ThreadPoolExecutor(THREADS) as pool:
        for path in ("/whole", "/streamed"):
            answers = pool.map(lambda prompt, path=path: client.get(path, params={"prompt": prompt}).text, PROMPTS)
            found = list(answers)
            begun = [text if path == "/whole" else prompt + text for prompt, text in zip(PROMPTS, found, strict=True)]
            assert begun == expected
    assert model.training


@pytest.mark.enable_socket
def test_gradio_streams_to_six_users_at_once(
    model: GPT2Model, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A function of a prompt that yields longer and longer texts is an interface."""
    gradio: Any = pytest.importorskip("gradio", minversion="5")
    client_of = pytest.importorskip("gradio_client").Client
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")

    def write(prompt: str) -> Iterator[str]:
        text = prompt
        for piece in stream_text(model, tokenizer, prompt, max_new_tokens=12):
            text += piece
            yield text

    expected = expected_of(model, tokenizer)
    interface = gradio.Interface(write, "text", "text", concurrency_limit=THREADS, api_name="write")
    _, address, _ = interface.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    try:
        client = client_of(address, verbose=False)
        with ThreadPoolExecutor(THREADS) as pool:
            assert list(pool.map(lambda prompt: client.predict(prompt, api_name="/write"), PROMPTS)) == expected
    finally:
        interface.close()


def test_fastapi_streams_what_the_seed_of_a_request_gives(
    directory: Path, recipe: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe of the page on the ecosystem."""
    pytest.importorskip("fastapi")
    client_of = pytest.importorskip("starlette.testclient").TestClient
    monkeypatch.chdir(directory.parent.parent)
    names = recipe("FastAPI()")
    with client_of(names["app"]) as client:
        for seed in (1, 2):
            with client.stream("GET", "/", params={"prompt": PROMPTS[0], "seed": seed}) as response:
                assert list(response.iter_text()) == list(pieces_of(names, seed))
        assert client.get("/", params={"prompt": PROMPTS[0], "seed": "x"}).status_code == 422


@pytest.mark.enable_socket
def test_a_page_of_gradio_grows_as_the_text_does(
    model: GPT2Model, tokenizer: Tokenizer, recipe: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe of the page on the ecosystem, which goes on from that of FastAPI."""
    gradio: Any = pytest.importorskip("gradio", minversion="5")
    client_of = pytest.importorskip("gradio_client").Client
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    monkeypatch.setattr(gradio.Interface, "launch", lambda *_: None)  # it would wait for ever
    names = {"model": model, "tokenizer": tokenizer, "torch": torch, "stream_text": stream_text}
    page = recipe("gradio.Interface", TopKSampler=TopKSampler, **names)["page"]
    monkeypatch.undo()
    _, address, _ = page.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    try:
        found = list(client_of(address, verbose=False).submit(PROMPTS[0], 3, api_name="/continued"))
    finally:
        page.close()
        gc.collect()  # the event loops that it leaves open, while their warnings are only warnings
    assert found == [PROMPTS[0] + text for text in accumulate(pieces_of(names, 3))]


def pieces_of(names: dict[str, Any], seed: int) -> Iterator[str]:
    """Returns what both recipes write."""
    generator = torch.Generator().manual_seed(seed)
    sampler = TopKSampler(50)
    return stream_text(
        names["model"], names["tokenizer"], PROMPTS[0], max_new_tokens=100, sampler=sampler, generator=generator
    )


def test_threads_draw_what_their_generators_say(model: GPT2Model, tokenizer: Tokenizer) -> None:
    """With a sampler, too: a generator of its own for each request."""

    def write(number: int) -> str:
        generator = torch.Generator().manual_seed(number)
        prompt = PROMPTS[number]
        return generate_text(
            model, tokenizer, prompt, max_new_tokens=12, sampler=MultinomialSampler(), generator=generator
        )

    expected = [write(number) for number in range(len(PROMPTS))]
    with ThreadPoolExecutor(THREADS) as pool:
        assert list(pool.map(write, range(len(PROMPTS)))) == expected
