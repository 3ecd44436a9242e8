"""``tinygpt2 generate``."""

import io
import json
import random
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tinygpt2 import (
    CharTokenizer,
    GPT2Config,
    GPT2Model,
    TrainingConfig,
    generate_text,
    load_tokenizer,
    make_dataloader,
    stream_text,
    train,
)
from tinygpt2.cli import writing
from tinygpt2.cli.main import main

Fails = Callable[..., None]


def test_it_streams_the_prompt_and_its_continuation(run_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["generate", "--model", str(run_directory), "The quick", "--max-new-tokens", "20", "--device", "cpu"]
    outputs = []
    drawn = [["--temperature", "5", "--top-k", "0", "--seed", seed] for seed in ("1", "1", "2")]
    for extra in (*drawn, ["--greedy"], ["--temperature", "0"]):
        assert main([*arguments, *extra]) == 0
        outputs.append(capsys.readouterr().out)
    assert all(output.startswith("The quick") for output in outputs)
    assert len(outputs[-1]) == len("The quick") + 20 + 1
    assert outputs[0] == outputs[1] != outputs[2]
    assert outputs[3] == outputs[4]


def test_the_model_is_the_first_word_and_options_may_stand_anywhere(
    run_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--max-new-tokens", "0"]
    for words in (["R", "The", *options], ["R", *options, "The"], [*options, "R", "The"], ["R", *options, "--", "The"]):
        assert main(["generate", *(str(run_directory) if word == "R" else word for word in words)]) == 0
        assert capsys.readouterr().out == "The\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "expected RUN, the directory of a model"),
        (["", "The"], "expected RUN, the directory of a model"),
        (["R", "the", "lazy", "dog"], "expected one PROMPT, got 3 words: the lazy dog; put it in quotes"),
        (["--model", "R", "the", "dog"], "expected one PROMPT, got 2 words: the dog; put it in quotes"),
    ],
)
def test_words_that_are_too_few_or_too_many_are_incorrect_usage(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", *words]) == 2
    assert message in capsys.readouterr().err


def test_it_takes_all_sampler_flags_and_a_prompt_from_standard_input(
    run_directory: Path, standard_input: Callable[[bytes], None], capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--top-k", "5", "--top-p", "0.9", "--min-p", "0.05", "--temperature", "1.4", "--max-new-tokens", "5"]
    standard_input(b"The fox")
    assert main(["generate", "--model", str(run_directory), "-", *flags]) == 0
    assert capsys.readouterr().out.startswith("The fox")


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"The \xff", ["is not UTF-8: byte 0xff at offset 4", "iconv"]),
        ("The fox".encode("utf-16"), ["is not UTF-8: byte 0xff at offset 0; it is UTF-16"]),
        ("The fox".encode("utf-16-le"), ["it looks like UTF-16LE"]),
        (b"The fox " * 9 + b"\0", ["has a NUL byte at offset 72"]),
        (b"\x1f\x8b\x08", ["is compressed with gzip"]),
    ],
)
def test_a_prompt_that_is_no_text_is_told_as_a_file_is(
    content: bytes, parts: list[str], run_directory: Path, standard_input: Callable[[bytes], None], fails: Fails
) -> None:
    standard_input(content)
    fails(["generate", "--model", run_directory, "-"], "standard input ", *parts)


def test_a_prompt_from_windows_has_no_mark_and_no_carriage_returns(
    run_directory: Path, standard_input: Callable[[bytes], None], capsys: pytest.CaptureFixture[str]
) -> None:
    standard_input(b"\xef\xbb\xbfThe fox")
    assert main(["generate", "--model", str(run_directory), "-", "--max-new-tokens", "0"]) == 0
    assert capsys.readouterr().out == "The fox\n"


@pytest.mark.parametrize(
    ("prompt", "parts"), [("你", ["'你' (U+4F60) at position 0"]), ("The 飞x", ["'飞'", "position 4"])]
)
def test_an_unknown_character_is_one_line_before_anything_is_printed(
    prompt: str, parts: list[str], plain_characters: Path, fails: Fails, capsys: pytest.CaptureFixture[str]
) -> None:
    fails(["generate", "--model", plain_characters, prompt], *parts, "leave it out of the prompt, or train with a tok")
    assert main(["generate", "--model", str(plain_characters), prompt]) == 1
    assert capsys.readouterr().out == ""


def test_a_run_of_characters_takes_any_prompt(run_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--model", str(run_directory), "The 飞🦊", "--max-new-tokens", "0"]) == 0
    assert capsys.readouterr().out == "The 飞🦊\n"


def test_a_directory_that_holds_no_model_is_one_line(tmp_path: Path, fails: Fails) -> None:
    fails(["generate", "--model", tmp_path / "none", "x"], "does not exist")
    fails(["generate", "--model", tmp_path, "x"], "has no config.json")


def test_a_model_without_its_tokenizer_is_one_line_with_the_fix(
    run_directory: Path, tmp_path: Path, fails: Fails
) -> None:
    """It used to take GPT-2's, whose ids the model does not have."""
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((run_directory / name).read_bytes())
    fails(["generate", "--model", tmp_path, "x"], "has no tinygpt2_tokenizer.json", "save_tokenizer(tokenizer")


@pytest.mark.parametrize(
    "option",
    [["--temperature", "0.8"], ["--temperature", "0"], ["--top-k", "0"], ["--top-p", "1"], ["--min-p", "0.5"],
     ["--seed", "1"]],
)  # fmt: skip
def test_greedy_refuses_what_has_no_effect_on_it(run_directory: Path, fails: Fails, option: list[str]) -> None:
    """Even with the default as its value: it was given."""
    fails(["generate", "--model", run_directory, "The", "--greedy", *option], f"so {option[0]} has no effect; omit one")


def test_a_temperature_of_zero_goes_with_all_that_holds_then(
    run_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """So that one command line serves for several temperatures."""
    arguments = ["generate", "--model", str(run_directory), "The", "--max-new-tokens", "9", "--device", "cpu"]
    filters = ["--top-k", "3", "--top-p", "0.5", "--min-p", "0.1", "--seed", "7"]
    for extra in (["--greedy"], ["--temperature", "0", *filters]):
        assert main([*arguments, *extra]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(set(lines)) == 1


def test_no_new_tokens_is_the_prompt(run_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--model", str(run_directory), "The", "--max-new-tokens", "0"]) == 0
    assert capsys.readouterr().out == "The\n"


def test_a_prompt_that_begins_with_a_dash_goes_after_two(
    run_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "--model", str(run_directory), "--max-new-tokens", "0", "--", "-x"]) == 0
    assert capsys.readouterr().out == "-x\n"
    assert main(["generate", "--model", str(run_directory), "-x"]) == 2
    assert "-- goes before an argument that begins with a dash" in capsys.readouterr().err


def test_a_closed_standard_input_is_one_line(
    run_directory: Path, monkeypatch: pytest.MonkeyPatch, fails: Fails
) -> None:
    monkeypatch.setattr("sys.stdin", None)
    fails(["generate", "--model", run_directory, "-"], "standard input, but that is closed")


# --- new texts, and several ---

BEGINNINGS, MIDDLES, ENDS = ("Ka", "Mo", "Li", "Dra"), ("ra", "lin", "do", "vi"), ("n", "s", "la", "")
NAME = re.compile(f"({'|'.join(BEGINNINGS)})({'|'.join(MIDDLES)})+({'|'.join(ENDS)})")


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of names, each a document, which was trained for a second or two."""
    choice = random.Random(0).choice  # noqa: S311
    made = [choice(BEGINNINGS) + choice(MIDDLES) + choice((*MIDDLES, "")) + choice(ENDS) for _ in range(300)]
    tokenizer = CharTokenizer.from_text("".join(made) + "\n ")
    loader = make_dataloader(made, batch_size=16, context_length=16, shuffle=True, tokenizer=tokenizer)
    torch.manual_seed(0)
    shape: dict[str, Any] = {"n_layer": 1, "n_head": 2, "n_embd": 32, "context_length": 16, "dropout": 0.0}
    model = GPT2Model(GPT2Config(vocab_size=tokenizer.n_vocab, **shape))
    config = TrainingConfig(epochs=20, learning_rate=1e-2, eval_every=1000, eval_batches=1)
    train(model, loader, config=config, device="cpu", progress=False)
    directory = tmp_path_factory.mktemp("names")
    model.save_pretrained(directory, tokenizer=tokenizer)
    return directory


@pytest.fixture
def generated(names: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Returns what runs the command with the model of names and returns its output."""

    def run(*arguments: object) -> str:
        assert main(["generate", "--model", str(names), "--device", "cpu", *map(str, arguments)]) == 0
        return capsys.readouterr().out

    return run


def test_a_model_of_names_writes_names_and_stops(generated: Callable[..., str]) -> None:
    """Many more than are generated together, and each ends where the model ends it."""
    lines = generated("--samples", 50, "--seed", 1).splitlines()
    assert len(lines) == 50
    assert max(map(len, lines)) < 30  # at most 100 tokens were asked for
    assert sum(NAME.fullmatch(line) is not None for line in lines) >= 40
    assert len(set(lines)) >= 20


def test_one_new_text_is_printed_as_it_is_generated(generated: Callable[..., str]) -> None:
    text = generated("--seed", 1)
    assert text == generated("--seed", 1, "--samples", 1) == generated("--seed", 1, "")
    assert re.fullmatch(r"[A-Z][a-z]+\n", text)
    assert len({generated("--seed", seed) for seed in range(9)}) > 3


def test_a_prompt_is_continued_several_times(generated: Callable[..., str]) -> None:
    lines = generated("--samples", 8, "--seed", 1, "Dra").splitlines()
    assert len(lines) == 8
    assert all(line.startswith("Dra") for line in lines)
    assert len(set(lines)) > 2


def test_the_same_seed_and_options_give_the_same_texts(generated: Callable[..., str]) -> None:
    first = generated("--samples", 20, "--seed", 1)
    assert first == generated("--samples", 20, "--seed", 1) != generated("--samples", 20, "--seed", 2)


def test_texts_of_several_lines_are_separated(generated: Callable[..., str]) -> None:
    texts = generated("--samples", 3, "--seed", 1, "Ka\nMo").split("\n---\n")
    assert len(texts) == 3
    assert all(text.startswith("Ka\nMo") for text in texts)
    text = generated("--samples", 2, "--max-new-tokens", 0, "\n Ka")
    assert text == "\n Ka\n---\n\n Ka\n"  # white space is printed as it is


def test_rows_that_ended_are_silent_while_others_continue(names: Path) -> None:
    model, tokenizer = GPT2Model.from_pretrained(names), load_tokenizer(names)
    for prompts in ([""], [""] * 40):
        texts = generate_text(model, tokenizer, prompts, max_new_tokens=60, generator=torch.Generator().manual_seed(1))
        assert len(texts) == len(prompts)
        assert not any("<|endoftext|>" in text for text in texts)
    assert "".join(stream_text(model, tokenizer, "", max_new_tokens=60)) == generate_text(
        model, tokenizer, "", max_new_tokens=60
    )


def test_without_a_prompt_standard_input_is_not_read(
    generated: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unread(io.BytesIO):
        def read(self, *_: object) -> bytes:
            pytest.fail("standard input was read")

        read1 = readinto = read  # type: ignore[assignment]

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Unread(b"Ka")))
    assert generated("--samples", 2, "--seed", 1)
    monkeypatch.setattr(sys, "stdin", None)
    assert generated("--seed", 1)


def test_several_continuations_of_standard_input(
    generated: Callable[..., str], standard_input: Callable[[bytes], None]
) -> None:
    standard_input(b"Dra")
    assert [line[:3] for line in generated("--samples", 2, "--seed", 1, "-").splitlines()] == ["Dra", "Dra"]


def test_a_text_of_a_seed_does_not_depend_on_how_many_there_are(
    generated: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor on how many are written together."""
    many = generated("--samples", 20, "--seed", 1, "Ka").splitlines()
    assert generated("--samples", 3, "--seed", 1, "Ka").splitlines() == many[:3]
    assert generated("--seed", 1, "Ka").splitlines() == many[:1]
    monkeypatch.setattr(writing, "_ROWS", 3)
    assert generated("--samples", 20, "--seed", 1, "Ka").splitlines() == many
    assert len(set(many)) > 5


def test_the_likeliest_of_several_texts_are_printed(generated: Callable[..., str]) -> None:
    options = ["--seed", 1, "--top-k", 0, "--temperature", 1]
    records = [json.loads(line) for line in generated("--json", "--samples", 20, *options).splitlines()]
    mean = [sum(record["log_probabilities"]) / len(record["ids"]) for record in records]
    likeliest = sorted(range(20), key=lambda i: mean[i], reverse=True)
    expected = [records[i]["text"] for i in likeliest]
    assert generated("--best-of", 20, *options).splitlines() == expected[:1]
    assert generated("--best-of", 20, "--samples", 5, *options).splitlines() == expected[:5]
    best = generated("--best-of", 20, "--samples", 2, "--json", *options).splitlines()
    assert [json.loads(line)["text"] for line in best] == expected[:2]


def test_the_likeliest_of_too_few_is_one_line(names: Path, fails: Fails) -> None:
    fails(["generate", names, "--best-of", 2, "--samples", 3], "--best-of 2 cannot give --samples 3; make it larger")


@pytest.mark.parametrize("samples", ["0", "-1", "1.5", "many"])
def test_a_number_of_texts_out_of_range_is_incorrect_usage(
    names: Path, samples: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "--model", str(names), "--samples", samples]) == 2
    assert "argument --samples: expected an integer" in capsys.readouterr().err


@pytest.mark.parametrize(
    "option",
    [["--max-new-tokens", "9"], ["--stop", "x"], ["--repetition-penalty", "1.2"], ["--presence-penalty", "0.5"],
     ["--frequency-penalty", "-0.5"], ["--no-repeat-ngram", "3"], ["--ban", "x"], ["--overflow", "restart"]],
)  # fmt: skip
def test_greedy_goes_with_what_has_an_effect_on_it(generated: Callable[..., str], option: list[str]) -> None:
    assert generated("--greedy", *option, "Ka").startswith("Ka")


def test_greedy_has_one_text(names: Path, fails: Fails) -> None:
    fails(["generate", "--model", names, "--greedy", "--best-of", "3"], "--greedy always gives the same text, so it")
    fails(["generate", "--model", names, "--greedy", "--samples", "3"], "--greedy always gives the same text, so it")


def test_the_prompt_may_stand_anywhere(names: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model", str(names)], ["--seed", "1"], ["--device", "cpu"], ["Dra"]
    for order in (options, options[::-1], options[2:] + options[:2]):
        assert main(["generate", *(word for option in order for word in option)]) == 0
    assert len(set(capsys.readouterr().out.splitlines())) == 1


def test_a_model_of_the_hub_is_named(
    run_directory: Path, add_to_hub: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    add_to_hub("somebody/some-gpt2", run_directory / "best")
    words = ["The", "--max-new-tokens", "5", "--greedy", "--device", "cpu"]
    assert main(["generate", "--model", "somebody/some-gpt2", *words]) == 0
    named = capsys.readouterr().out
    assert main(["generate", "--model", str(run_directory / "best"), *words]) == 0
    assert capsys.readouterr().out == named


# --- where a text ends, and what is said of it ---


@pytest.mark.parametrize("samples", [[], ["--samples", "2"]])
def test_a_text_ends_before_the_first_stop_string(
    samples: list[str], run_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They have escapes, as separators do."""
    words = ["generate", str(run_directory), "The", "--seed", "1", "--device", "cpu", "--max-new-tokens", "30"]
    assert main(words) == 0
    text = capsys.readouterr().out.removesuffix("\n")
    stops = text[20:22], text[25], text[8:10]
    escaped = (*stops[:2], "".join(f"\\x{ord(character):02x}" for character in stops[2]))
    assert main([*words, *samples, *(word for stop in escaped for word in ("--stop", stop))]) == 0
    end = min(text.index(stop, 3) for stop in stops)
    assert capsys.readouterr().out.splitlines()[0] == text[:end]


def test_an_empty_stop_string_is_incorrect_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "R", "The", "--stop", ""]) == 2
    assert "argument --stop: expected a string that is not empty, got an empty one" in capsys.readouterr().err


def test_penalties_and_bans_change_the_text(plain_characters: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def text(*options: object) -> str:
        words = ["The", "--greedy", "--device", "cpu", "--max-new-tokens", "25", *options]
        assert main(["generate", str(plain_characters), *map(str, words)]) == 0
        return capsys.readouterr().out.removesuffix("\n")

    plain = text()
    assert len(set(text("--repetition-penalty", 9))) > len(set(plain))
    assert len(set(text("--presence-penalty", 2))) > len(set(plain))
    assert len(set(text("--frequency-penalty", 2))) > len(set(plain))
    words = text("--no-repeat-ngram", 2)
    assert len({words[i : i + 2] for i in range(len(words) - 1)}) == len(words) - 1
    assert plain[4] not in text("--ban", plain[4])[3:]


def test_an_object_for_each_text_has_what_a_program_needs(generated: Callable[..., str]) -> None:
    (record,) = map(json.loads, generated("--json", "--seed", 7, "Ka").splitlines())
    assert list(record) == [
        "prompt", "text", "ended_by", "seed", "prompt_tokens", "ids", "tokens", "log_probabilities",
        "prefill_seconds", "decode_seconds",
    ]  # fmt: skip
    assert record["prompt"] + record["text"] == generated("--seed", 7, "Ka").removesuffix("\n")
    assert (record["ended_by"], record["seed"], record["prompt_tokens"]) == ("end_of_text", 7, 2)
    assert record["tokens"] == [*record["text"], ""]  # the end of text
    assert len(record["ids"]) == len(record["log_probabilities"]) == len(record["tokens"])
    assert all(value <= 0 for value in record["log_probabilities"])
    assert record["prefill_seconds"] > 0
    assert record["decode_seconds"] > 0


def test_the_seed_of_each_object_gives_its_text_alone(generated: Callable[..., str]) -> None:
    for line in generated("--json", "--samples", 4, "--seed", 7, "Ka").splitlines():
        record = json.loads(line)
        alone = json.loads(generated("--json", "--seed", record["seed"], "Ka"))
        assert [alone[name] for name in ("text", "ids", "seed")] == [record[name] for name in ("text", "ids", "seed")]
    drawn = json.loads(generated("--json", "Ka"))
    assert generated("--seed", drawn["seed"], "Ka") == f"Ka{drawn['text']}\n"
    assert json.loads(generated("--json", "--greedy", "Ka"))["seed"] is None


def test_an_object_says_what_ended_its_text(generated: Callable[..., str]) -> None:
    text = generated("--greedy", "Ka")
    longer = json.loads(generated("--json", "--greedy", "Ka", "--max-new-tokens", 2))
    assert (longer["ended_by"], len(longer["ids"])) == ("max_new_tokens", 2)
    stopped = json.loads(generated("--json", "--greedy", "Ka", "--stop", text[3:5]))
    assert (stopped["ended_by"], stopped["text"]) == ("stop", text[2])
    assert "".join(stopped["tokens"]) == text[2:5]
    nothing = json.loads(generated("--json", "Ka", "--max-new-tokens", 0))
    assert (nothing["ended_by"], nothing["text"], nothing["ids"], nothing["tokens"]) == ("max_new_tokens", "", [], [])


def test_log_probabilities_are_those_of_the_model(names: Path, generated: Callable[..., str]) -> None:
    """Whatever the options of the choice are."""
    record = json.loads(generated("--json", "--seed", 3, "--temperature", 3, "--top-k", 9, "--ban", "ra", "Ka"))
    model, tokenizer = GPT2Model.from_pretrained(names), load_tokenizer(names)
    prompt = tokenizer.encode_ordinary("Ka")
    with torch.no_grad():
        logits = model.eval()(torch.tensor([[*prompt, *record["ids"]]]))[0, len(prompt) - 1 : -1]
    expected = logits[:, : tokenizer.n_vocab].log_softmax(-1)[range(len(record["ids"])), record["ids"]]
    torch.testing.assert_close(torch.tensor(record["log_probabilities"]), expected, atol=1e-4, rtol=1e-4)


def test_a_character_of_several_tokens_is_with_the_last_of_them(
    run_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model writes bytes, of which most are no characters; joined, its tokens are the text all the same."""
    words = ["generate", str(run_directory), "飞", "--json", "--temperature", "100", "--top-k", "0", "--device", "cpu"]
    assert main([*words, "--samples", "5", "--seed", "1"]) == 0
    for line in capsys.readouterr().out.splitlines():
        record = json.loads(line)
        assert "".join(record["tokens"]) == record["text"]
        assert "" in record["tokens"]
        assert record["prompt_tokens"] == 3


def test_probabilities_are_shown_after_each_piece_or_as_colours(
    names: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["generate", str(names), "Ka", "--seed", "1", "--device", "cpu"]
    assert main(words) == 0
    text = capsys.readouterr().out
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    assert main([*words, "--show-probabilities"]) == 0
    shown, told = capsys.readouterr()
    assert re.sub(r"\[(\d+|<1)%\]", "", shown) == text
    assert shown.count("%]") == len(text) - len("Ka\n")
    assert told == "each piece of the text is followed by its probability in percent\n"
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    for extra in ([], ["--samples", "2"]):
        assert main([*words, "--show-probabilities", *extra]) == 0
        shown, told = capsys.readouterr()
        assert re.sub(r"\x1b\[[\d;]+m", "", shown).startswith(text)
        assert shown.count("\x1b[0m") >= len(text) - len("Ka\n")
        assert "50% or more" in told


def test_the_report_goes_to_stderr(names: Path, capsys: pytest.CaptureFixture[str]) -> None:
    number = r"[\d.,e-]+"
    speed = rf"{number} s( \({number} tokens/s\))?"
    for extra, count in ([], r"\d+"), (["--samples", "20"], r"\d+"), (["--max-new-tokens", "1"], "1"):
        assert main(["generate", str(names), "Ka", "--verbose", "--seed", "1", *extra]) == 0
        prompts = 4 if "--samples" in extra else 2  # it is read once for 16 texts
        pattern = rf"prompt: {prompts} tokens in {speed}; text: {count} tokens? in {speed}; seed 1\n"
        assert re.fullmatch(pattern, capsys.readouterr().err)


def test_probabilities_are_in_json_already(names: Path, fails: Fails) -> None:
    fails(["generate", names, "Ka", "--json", "--show-probabilities"], "--json has the probabilities; omit --show-p")
