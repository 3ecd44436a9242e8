"""The options of ``tinygpt2 train``: their defaults, and where those differ from Python's."""

import argparse
import inspect
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from tinygpt2 import (
    CharTokenizer,
    EarlyStopping,
    GPT2Config,
    GPT2Model,
    TokenDataset,
    TrainingConfig,
    TrainingHistory,
    tokenize_to_file,
    train,
)
from tinygpt2.cli.commands import MainParser
from tinygpt2.cli.main import main
from tinygpt2.cli.options import save_options
from tinygpt2.cli.train_options import RANGES, TrainOptions, options_of, to_save
from tinygpt2.config import PRESETS
from tinygpt2.data.noise import TextNoise
from tinygpt2.run.directory import RunDirectory
from tinygpt2.training.callbacks.snapshots import Snapshots

Fails = Callable[..., None]

PAGE = Path(__file__).parents[2] / "docs/reference/command-line.md"
NOWHERE = RunDirectory(Path("nowhere"))

# Where an option has another name in Python, and where the run chooses a value of its own.
OTHER_NAMES = {"accumulate": "gradient_accumulation_steps", "keep": "checkpoint_keep"}
FILES = ("files", "field", "separator", "val")
CHOSEN = {"eval_every", "eval_batches", "sample_prompt"}

# Options that only say which text, or that are arguments without a default, or another class, in Python.
WITHOUT_DEFAULTS = {
    *FILES,
    "minutes",
    "preset",
    "vocab_size",
    "from_pretrained",
    "train_only",
    "batch_size",
    "noise_epochs",
    "teachers",
    "student_steps",
    "snapshots",
    "early_stopping",
}


def in_python(name: str) -> object:
    """Returns the default in Python of what an option sets; raises ``KeyError`` if nothing there is like it."""
    name = OTHER_NAMES.get(name, name)
    defaults = {field.name: field.default for cls in (TextNoise, GPT2Config, TrainingConfig) for field in fields(cls)}
    return ({key: value.default for key, value in inspect.signature(train).parameters.items()} | defaults)[name]


def parsed(*arguments: str) -> argparse.Namespace:
    return MainParser().parse_args(["train", *arguments])


def test_every_option_has_a_range_and_a_place_in_the_parser() -> None:
    assert list(RANGES) == [field.name for field in fields(TrainOptions)]
    train_parser = MainParser().commands.choices["train"]
    assert set(RANGES) <= {action.dest for action in train_parser._actions}


def test_defaults_that_differ_from_pythons_are_in_the_reference_and_no_others() -> None:
    table = PAGE.read_text(encoding="utf-8").partition("### Defaults that differ")[2].partition("\n## ")[0]
    documented = {flag.replace("-", "_") for flag in re.findall(r"`--([a-z-]+)`", table)}
    differing = {"tokenizer", "train_ratio", "teachers", "student_steps"} | CHOSEN  # of functions
    for name in RANGES.keys() - WITHOUT_DEFAULTS - differing:
        if getattr(TrainOptions, name) != in_python(name):
            differing.add(name)
    assert documented == differing


def test_nothing_given_is_the_defaults() -> None:
    assert options_of(parsed(), NOWHERE) == TrainOptions()


def test_what_is_given_counts() -> None:
    options = options_of(parsed("a.txt", "b.txt", "--epochs", "3", "--compile", "--dropout", "0"), NOWHERE)
    assert options == TrainOptions(files=("a.txt", "b.txt"), epochs=3, compile=True, dropout=0.0)


@pytest.mark.parametrize("name", ["preset", "tokenizer"])
def test_what_is_of_new_models_does_not_go_with_another_model(name: str) -> None:
    value = {"preset": next(iter(PRESETS)), "tokenizer": "char"}[name]
    with pytest.raises(ValueError, match=f"--{name} is for a new model"):
        TrainOptions(from_pretrained="there", **{name: value})  # type: ignore[arg-type]


def test_what_is_given_takes_the_place_of_what_was_saved(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    saved = complete(files=("a.txt",), epochs=3, dropout=0.25, compile=True)
    save_options(run.options, to_save(saved))
    assert options_of(parsed("--resume"), run) == saved
    changed = options_of(parsed("b.txt", "--resume", "--epochs", "4"), run)
    assert changed == complete(files=("b.txt",), epochs=4, dropout=0.25, compile=True)


def complete(**given: Any) -> TrainOptions:  # noqa: ANN401 - any option
    """Returns options as a run saves them, with all that its recipe chooses."""
    chosen = {"context_length": 16, "dropout": 0.1, "batch_size": 4, "accumulate": 1, "bpe_dropout": 0.0}
    chosen |= {"token_noise": 0.0, "learning_rate": 0.01, "warmup_steps": 1, "weight_decay": 0.1, "ema_decay": 0.0}
    return TrainOptions(**{**chosen, "optimizer": "muon", "spelling": False, "schedule": "linear", **given})


def test_options_that_were_saved_before_there_was_another_optimizer_are_those_of_adamw(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    saved = to_save(complete(files=("a.txt",), epochs=3))
    del saved["optimizer"], saved["spelling"]
    save_options(run.options, saved)
    assert options_of(parsed("--resume"), run) == complete(files=("a.txt",), epochs=3, optimizer="adamw")


# --- every option that is given is honoured or refused ---


class Case(NamedTuple):
    """An option: the words that give it, what a run then has in it, and whether a resumed run may have it, too."""

    words: list[str]
    honoured: Callable[[SimpleNamespace], bool]
    refused: str | None  # by a run that is resumed; None if it may change


def noise_of(run: SimpleNamespace) -> TextNoise:
    """Returns the noise on the training data; nothing else has any."""
    assert not hasattr(run.val_data, "noise")
    noise: TextNoise = getattr(run.train_data, "noise", TextNoise())
    return noise


CASES = {
    "files": Case([], lambda run: len(run.train_data.tokens) == 810, "the training data's"),
    "field": Case(["--field", "body"], lambda run: run.options.field == "body", None),
    "separator": Case(
        ["--separator", r"\n"], lambda run: run.tokenizer.eot_token in run.train_data.tokens, "the training data's"
    ),
    "val": Case(["--val", "OTHER"], lambda run: len(run.val_data.tokens) == 900, "the training data's"),
    "minutes": Case(["--minutes", "3"], lambda run: run.options.minutes == 3, "--minutes is for a new run"),
    "preset": Case(["--preset", "gpt2-micro"], lambda run: run.shape.n_layer == 4, "began with --preset gpt2-nano"),
    "n_layer": Case(["--n-layer", "3"], lambda run: run.shape.n_layer == 3, "began with --n-layer 1, which cannot"),
    "n_head": Case(["--n-head", "4"], lambda run: run.shape.n_head == 4, "began with --n-head 2, which cannot"),
    "n_embd": Case(["--n-embd", "48"], lambda run: run.shape.n_embd == 48, "began with --n-embd 32, which cannot"),
    "context_length": Case(
        ["--context-length", "24"],
        lambda run: run.shape.context_length == 24 and run.train_data[0][0].shape == (24,),
        "--context-length was 16 and is 24",
    ),
    "dropout": Case(["--dropout", "0.25"], lambda run: run.shape.dropout == 0.25, "dropout was 0.0 and is 0.25"),
    "tokenizer": Case(
        ["--tokenizer", "gpt2"], lambda run: run.tokenizer.n_vocab == 50257, "began with --tokenizer char"
    ),
    "vocab_size": Case(
        ["--vocab-size", "270"], lambda run: run.tokenizer.n_vocab == 270, "began without --vocab-size, which cannot"
    ),
    "from_pretrained": Case(
        ["--from-pretrained", "BASE"], lambda run: run.shape.n_embd == 16, "began without --from-pretrained"
    ),
    "train_only": Case(
        ["--from-pretrained", "BASE", "--train-only", "ln_[f2]"],
        lambda run: run.trained == ["h.0.ln_2.weight", "h.0.ln_2.bias", "ln_f.weight", "ln_f.bias"],
        "began without --from-pretrained",
    ),
    "train_ratio": Case(
        ["--train-ratio", "0.5"],
        lambda run: len(run.train_data.tokens) == len(run.val_data.tokens) == 900,
        "the training data's",
    ),
    "batch_size": Case(["--batch-size", "3"], lambda run: run.batch_size == 3, "--batch-size was 4 and is 3"),
    "accumulate": Case(
        ["--accumulate", "2"], lambda run: run.config.gradient_accumulation_steps == 2, "--accumulate was 1 and is 2"
    ),
    "bpe_dropout": Case(
        ["--bpe-dropout", "0.1"],
        lambda run: noise_of(run).bpe_dropout == 0.1,
        "--bpe-dropout skips merges of byte pairs",
    ),
    "token_noise": Case(
        ["--token-noise", "0.1"], lambda run: noise_of(run).token_noise == 0.1, "--token-noise was None and is 0.1"
    ),
    "noise_epochs": Case(
        ["--noise-epochs", "2", "--token-noise", "0.1"],
        lambda run: noise_of(run).epochs == 2,
        "--noise-epochs was None and is 2",
    ),
    "teachers": Case(
        ["--teachers", "1"], lambda run: run.checkpoint_dir.name == "teacher-1", "began with --teachers 0, which cannot"
    ),
    "student_steps": Case(
        ["--student-steps", "3"],
        lambda run: run.options.teachers == 1,
        "--student-steps has no effect without --teachers",
    ),
    "epochs": Case(["--epochs", "3"], lambda run: run.config.epochs == 3, None),
    "max_steps": Case(["--max-steps", "7"], lambda run: run.config.max_steps == 7, None),
    "optimizer": Case(
        ["--optimizer", "adamw"],
        lambda run: run.config.optimizer == "adamw",
        "the optimizer was 'muon' and is 'adamw'",
    ),
    "spelling": Case(["--no-spelling"], lambda run: not run.config.spelling, "spelling was True and is False"),
    "learning_rate": Case(
        ["--learning-rate", "0.5"], lambda run: run.config.learning_rate == 0.5, "--learning-rate was"
    ),
    "schedule": Case(["--schedule", "linear"], lambda run: run.config.schedule == "linear", "schedule was 'constant'"),
    "warmup_steps": Case(["--warmup-steps", "5"], lambda run: run.config.warmup_steps == 5, "--warmup-steps was"),
    "weight_decay": Case(["--weight-decay", "0"], lambda run: run.config.weight_decay == 0, "--weight-decay was 0.1"),
    "ema_decay": Case(["--ema-decay", "0.9"], lambda run: run.config.ema_decay == 0.9, None),
    "precision": Case(["--precision", "fp32"], lambda run: run.config.precision == "fp32", "precision was 'auto'"),
    "compile": Case(["--compile"], lambda run: run.config.compile, "compile was None and is True"),
    "seed": Case(["--seed", "9"], lambda run: run.config.seed == 9, "seed was 0 and is 9"),
    "eval_every": Case(["--eval-every", "3"], lambda run: run.config.eval_every == 3, None),
    "eval_batches": Case(["--eval-batches", "2"], lambda run: run.config.eval_batches == 2, None),
    "sample_prompt": Case(["--sample-prompt", "fox"], lambda run: run.config.sample_prompt == "fox", None),
    "snapshots": Case(
        ["--snapshots", "3"], lambda run: [c.count for c in run.callbacks if isinstance(c, Snapshots)] == [3], None
    ),
    "checkpoint_every": Case(["--checkpoint-every", "5"], lambda run: run.checkpoint_every == 5, None),
    "keep": Case(["--keep", "3"], lambda run: run.checkpoint_keep == 3, None),
    "early_stopping": Case(["--early-stopping", "4"], lambda run: EarlyStopping(4) in run.callbacks, None),
}

FAST = {"tokenizer": ["--tokenizer", "char"], "context_length": ["--context-length", "16"]}


def words_of(name: str, inputs: SimpleNamespace) -> list[str]:
    """Returns the words of a case, with the paths that they stand for."""
    paths = {"BASE": str(inputs.base), "OTHER": str(inputs.other)}
    return [paths.get(word, word) for word in CASES[name].words]


def fast_words(name: str) -> list[str]:
    """Returns the words that keep a run small unless they are about the same."""
    left_out = {
        "from_pretrained": [*FAST],
        "train_only": [*FAST],
        "vocab_size": ["tokenizer"],
        "bpe_dropout": ["tokenizer"],
    }.get(name, [name])
    return [word for key, value in FAST.items() if key not in left_out for word in value]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, text_file: Path) -> Path:
    """A model to fine-tune."""
    directory = tmp_path_factory.mktemp("base")
    tokenizer = CharTokenizer.from_text(text_file.read_text(encoding="utf-8"))
    shape = GPT2Config(vocab_size=tokenizer.n_vocab, context_length=16, n_layer=1, n_head=2, n_embd=16)
    GPT2Model(shape).save_pretrained(directory, tokenizer=tokenizer)
    return directory


@pytest.fixture
def inputs(tmp_path: Path, text_file: Path, run_directory: Path, base: Path) -> SimpleNamespace:
    """A text, another one, a model to fine-tune, a run to resume, and a place for a new one."""
    other = tmp_path / "other.txt"
    other.write_text(text_file.read_text(encoding="utf-8")[:900], encoding="utf-8")
    shutil.copytree(run_directory, tmp_path / "old")
    lines = tmp_path / "lines.txt"
    lines.write_text("\n".join(f"The fox jumps over dog number {i}." for i in range(40)), encoding="utf-8")
    return SimpleNamespace(
        text=text_file, other=other, lines=lines, base=base, old=tmp_path / "old", new=tmp_path / "new"
    )


def test_every_option_is_a_case() -> None:
    assert list(CASES) == list(RANGES)


@pytest.mark.parametrize("name", CASES)
def test_an_option_reaches_the_run_and_is_saved_with_it(
    name: str, inputs: SimpleNamespace, planned: Callable[..., SimpleNamespace]
) -> None:
    text = {"files": inputs.other, "separator": inputs.lines}.get(name, inputs.text)
    run = planned(text, "--out", inputs.new, *words_of(name, inputs), *fast_words(name))
    assert CASES[name].honoured(run)
    before = planned(inputs.text, "--out", inputs.new, *FAST["tokenizer"], *FAST["context_length"])
    assert not CASES[name].honoured(before)
    assert getattr(run.options, name) != getattr(before.options, name)
    assert not inputs.new.exists()  # it never began


@pytest.mark.parametrize("name", CASES)
def test_an_option_reaches_a_resumed_run_or_is_refused(
    name: str, inputs: SimpleNamespace, planned: Callable[..., SimpleNamespace], fails: Fails
) -> None:
    before = (inputs.old / "options.json").read_bytes()
    case = CASES[name]
    files = {"files": [inputs.other], "separator": [inputs.lines]}.get(name, [])
    words = ["--out", inputs.old, "--resume", *files, *words_of(name, inputs)]
    if case.refused is None:
        assert case.honoured(planned(*words))
    else:
        fails(["train", "--device", "cpu", "--quiet", *words], case.refused)
    assert (inputs.old / "options.json").read_bytes() == before


def test_the_same_option_again_is_no_change(
    run_directory: Path, text_file: Path, planned: Callable[..., SimpleNamespace]
) -> None:
    words = ["--preset", "gpt2-nano", "--tokenizer", "char", "--context-length", "16", "--no-compile"]
    assert planned(text_file, "--out", run_directory, "--resume", *words).options.tokenizer == "char"


def test_a_run_on_text_goes_on_with_its_tokens_in_a_file(
    inputs: SimpleNamespace, planned: Callable[..., SimpleNamespace]
) -> None:
    """The tokenizer is that of the run, whatever the corpus is."""
    tokens = inputs.old.parent / "fox.tokens"
    assert main(["tokenize", str(inputs.text), "--out", str(tokens), "--model", str(inputs.old)]) == 0
    run = planned(tokens, "--out", inputs.old, "--resume", "--allow-changes")
    assert (run.options.tokenizer, type(run.tokenizer)) == ("char", CharTokenizer)


def test_a_share_of_the_built_in_text_can_be_chosen(tmp_path: Path, planned: Callable[..., SimpleNamespace]) -> None:
    run = planned("--out", tmp_path / "run", "--train-ratio", "0.25", "--tokenizer", "char")
    assert 2.9 < len(run.val_data.tokens) / len(run.train_data.tokens) < 3.1


def test_what_is_off_can_be_on_and_what_is_on_off(
    run_directory: Path, tmp_path: Path, planned: Callable[..., SimpleNamespace]
) -> None:
    """It could not be turned off in a run to resume."""
    shutil.copytree(run_directory, tmp_path / "run")
    path = tmp_path / "run" / "options.json"
    saved = json.loads(path.read_text(encoding="utf-8")) | {"compile": True, "early_stopping": 3, "sample_prompt": "Th"}
    path.write_text(json.dumps(saved), encoding="utf-8")
    resume = ["--out", tmp_path / "run", "--resume"]
    run = planned(*resume)
    assert (run.config.compile, EarlyStopping(3) in run.callbacks, run.config.sample_prompt) == (True, True, "Th")
    run = planned(*resume, "--no-compile", "--early-stopping", "0", "--snapshots", "0", "--sample-prompt", "")
    assert (run.config.compile, len(run.callbacks), run.config.sample_prompt) == (False, 1, None)
    assert (run.options.compile, run.options.early_stopping, run.options.sample_prompt) == (False, 0, "")


def test_a_run_that_was_saved_before_there_was_noise_resumes_without(
    run_directory: Path, tmp_path: Path, planned: Callable[..., SimpleNamespace]
) -> None:
    shutil.copytree(run_directory, tmp_path / "run")
    path = tmp_path / "run" / "options.json"
    saved = json.loads(path.read_text(encoding="utf-8"))
    for name in ("bpe_dropout", "token_noise", "noise_epochs"):
        del saved[name]
    path.write_text(json.dumps(saved), encoding="utf-8")
    run = planned("--out", tmp_path / "run", "--resume")
    assert type(run.train_data) is TokenDataset
    assert run.options.noise is None


def test_the_length_of_a_run_is_given_once_and_the_later_one_counts(
    text_file: Path, tmp_path: Path, planned: Callable[..., SimpleNamespace], fails: Fails
) -> None:
    """More epochs than before did nothing to a run that had begun with a number of steps."""
    run, fast = tmp_path / "run", ["--quiet", "--device", "cpu", *FAST["tokenizer"], *FAST["context_length"]]
    both = ["--epochs", "3", "--max-steps", "7"]
    fails(["train", text_file, "--out", run, *both], "--epochs and --max-steps both define the length of the run")
    assert main(["train", str(text_file), "--out", str(run), "--max-steps", "2", *fast]) == 0
    fails(["train", "--out", run, "--resume", *both], "omit one of the two")
    assert planned("--out", run, "--resume", "--max-steps", "30").config.max_steps == 30
    assert main(["train", "--out", str(run), "--resume", "--epochs", "1", "--quiet", "--device", "cpu"]) == 0
    assert TrainingHistory.load(run / "history.json").steps[-1] == 26
    assert json.loads((run / "options.json").read_text(encoding="utf-8"))["max_steps"] is None
    assert planned("--out", run, "--resume").config == planned("--out", run, "--resume", "--epochs", "1").config


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--quiet", "--sample-prompt", "The"], "--sample-prompt has no effect with --quiet"),
        (["--allow-changes"], "--allow-changes has no effect without --resume"),
        (
            ["--val", "other.txt", "--train-ratio", "0.5"],
            "but --val gives other text to validate on",
        ),
        (["--noise-epochs", "2", "--token-noise", "0", "--bpe-dropout", "0"], "--noise-epochs has no effect without"),
        (["--vocab-size", "300", "--tokenizer", "char"], "--vocab-size is for byte pairs learned from the text"),
    ],
)
def test_what_would_have_no_effect_is_refused(
    text_file: Path, tmp_path: Path, fails: Fails, words: list[str], part: str
) -> None:
    fails(["train", text_file, "--out", tmp_path / "run", "--context-length", "16", *words], part)
    assert not (tmp_path / "run").exists()


def test_an_empty_prompt_is_no_samples(
    text_file: Path, tmp_path: Path, planned: Callable[..., SimpleNamespace]
) -> None:
    """It was replaced by the default."""
    words = [text_file, "--out", tmp_path / "run", "--sample-prompt", "", *FAST["tokenizer"], *FAST["context_length"]]
    assert planned(*words).config.sample_prompt is None
    assert planned(*words, "--quiet").options.sample_prompt == ""


@pytest.mark.parametrize("tokenizer", ["char", "trimmed"])
def test_a_tokenizer_for_text_is_refused_with_tokens(
    tmp_path: Path, planned: Callable[..., SimpleNamespace], fails: Fails, tokenizer: str
) -> None:
    corpus = tmp_path / "a.tokens"
    tokenize_to_file(["The quick brown fox jumps over the lazy dog. " * 60], corpus)
    arguments = [corpus, "--out", tmp_path / "run", "--context-length", "16"]
    fails(["train", *arguments, "--tokenizer", tokenizer], f"--tokenizer {tokenizer} is for text", "omit it")
    assert planned(*arguments).options.tokenizer == "gpt2"
    assert planned(*arguments, "--tokenizer", "gpt2").tokenizer.n_vocab == 50257
    assert main(["train", *map(str, arguments), "--max-steps", "1", "--quiet", "--device", "cpu"]) == 0
    resume = ["train", "--out", tmp_path / "run", "--resume"]
    fails([*resume, "--tokenizer", tokenizer], "began with --tokenizer gpt2, which cannot change")


def test_the_options_of_a_fine_tuned_run_say_what_it_has(
    base: Path, text_file: Path, tmp_path: Path, planned: Callable[..., SimpleNamespace], fails: Fails
) -> None:
    run = ["--out", tmp_path / "run"]
    tuned = planned(text_file, *run, "--from-pretrained", base, "--context-length", "8", "--dropout", "0")
    assert (tuned.options.preset, tuned.options.tokenizer, tuned.options.from_pretrained) == (None, None, str(base))
    assert (tuned.options.context_length, tuned.options.dropout, tuned.shape.dropout) == (8, 0, 0)
    assert tuned.train_data[0][0].shape == (8,)
    words = ["--max-steps", "1", "--quiet", "--device", "cpu"]
    assert main(["train", str(text_file), *map(str, run), "--from-pretrained", str(base), *words]) == 0
    fails(["train", *run, "--resume", "--preset", "gpt2-nano"], "began without --preset, which cannot change")
    fails(["train", *run, "--resume", "--from-pretrained", tmp_path], f"began with --from-pretrained {base}")
    assert planned(*run, "--resume", "--from-pretrained", base).options.from_pretrained == str(base)


@pytest.mark.parametrize("flag", ["--out", "--from-pretrained", "--device"])
def test_an_empty_value_is_incorrect_usage(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An unset variable of a shell; the empty path was the current directory."""
    assert main(["train", flag, ""]) == 2
    assert f"argument {flag}: expected a value, got an empty one" in capsys.readouterr().err


def test_a_size_that_nobody_asked_for_is_for_the_time(
    tmp_path: Path, planned: Callable[..., SimpleNamespace], capsys: pytest.CaptureFixture[str]
) -> None:
    run = planned("--out", tmp_path / "run", "--minutes", "0.02")
    said = capsys.readouterr().err
    assert f"tokenizer: byte pairs, {run.shape.vocab_size:,} tokens: for what can be read in the time\n" in said
    assert "--vocab-size" not in said
