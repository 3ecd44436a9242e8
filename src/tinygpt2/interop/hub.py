"""The upload of a model to the Hugging Face Hub, with a card that says how good it is."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from tinygpt2._internal.checks import check_bool, check_instance, check_path, first_line
from tinygpt2._internal.files import read_json
from tinygpt2.config import GPT2Config
from tinygpt2.formats.hub import is_name, without_hub
from tinygpt2.formats.huggingface import CONFIG_FILE, config_from_huggingface
from tinygpt2.formats.weights import INDEX_SUFFIX, WEIGHTS_FILE
from tinygpt2.model.checks import number_of_weights
from tinygpt2.run.directory import RunDirectory
from tinygpt2.run.report import Report
from tinygpt2.tokenizers.storage import TOKENIZER_FILES
from tinygpt2.training.history import TrainingHistory

CARD_FILE = "README.md"

_LIMIT = 1 << 20  # bytes of a file of settings

# The settings of a run that its card has, in this order. Names of files are nobody's business.
_RECIPE = (
    "optimizer", "learning_rate", "schedule", "warmup_steps", "weight_decay", "ema_decay", "spelling", "dropout",
    "batch_size", "accumulate", "context_length", "epochs", "max_steps", "bpe_dropout", "token_noise", "teachers",
    "student_steps", "seed",
)  # fmt: skip


def push_to_hub(
    directory: str | os.PathLike[str], repo_id: str, *, private: bool = False, token: str | None = None
) -> str:
    """Uploads a model directory to the Hugging Face Hub in one commit, and returns the address of the commit.

    What is uploaded are the configuration, the weights, the tokenizer, and of a run the losses, their plot and the
    report; no texts and no checkpoints. A ``README.md`` in the directory is the model card; without one, it is what
    `model_card` returns. The repository is created if it does not exist.

    Args:
        directory: Run directory, or directory of a model.
        repo_id: Name on the Hub, such as ``"somebody/my-gpt2"``.
        private: Whether a new repository is private.
        token: Token with the right to write; by default the one that ``huggingface_hub`` finds.

    Raises:
        FileNotFoundError: If there is no model in the directory.
        ImportError: If ``huggingface_hub`` is not installed.
        OSError: If the Hub refuses, or cannot be reached.
        TypeError: If an argument is of the wrong type.
        ValueError: If ``repo_id`` is not one with an owner.

    >>> push_to_hub("runs/none", "somebody/my-gpt2")
    Traceback (most recent call last):
    ...
    FileNotFoundError: there is no model in runs/none: it has no config.json
    """
    check_instance("repo_id", repo_id, str, "a str")
    check_bool("private", private)
    if token is not None:
        check_instance("token", token, str, "a str")
    if repo_id.count("/") != 1 or not all(repo_id.split("/")):
        raise ValueError(f"repo_id must have an owner, such as 'somebody/my-gpt2', got {repo_id!r}")
    files = _files(check_path("directory", directory))
    card = Path(directory, CARD_FILE)
    content = card.read_bytes() if card.exists() else model_card(directory, repo_id).encode()
    try:
        from huggingface_hub import CommitOperationAdd, HfApi  # noqa: PLC0415 - an extra
    except ImportError:
        raise without_hub(f"uploading to {repo_id}") from None
    api = HfApi(token=token)
    operations = [CommitOperationAdd(CARD_FILE, content)]
    operations += [CommitOperationAdd(path.name, str(path)) for path in files]
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.create_commit(repo_id, operations, commit_message="Upload the model with tinygpt2")
    except Exception as error:
        raise OSError(
            f"cannot upload to {repo_id}: {first_line(error).rstrip('.')}; check the name, the network, and the token, "
            "which `hf auth login` keeps"
        ) from error
    return str(commit.commit_url)


def model_card(directory: str | os.PathLike[str], repo_id: str = "") -> str:
    """Returns a model card in Markdown for a model directory.

    It has the shape, and of a run what was measured on held-out text beside what n-grams and a compressor need, the
    settings of the training, and how the model is used. It names no files.

    Args:
        directory: Run directory, or directory of a model.
        repo_id: Name on the Hub; by default that of the directory.

    Raises:
        FileNotFoundError: If there is no model in the directory.
        TypeError: If it is not a path.
        ValueError: If a file there is damaged.

    >>> import tempfile
    >>> from tinygpt2 import GPT2Config, GPT2Model
    >>> shape = GPT2Config(
    ...     vocab_size=100, context_length=16, n_layer=1, n_head=2, n_embd=32
    ... )
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     GPT2Model(shape).save_pretrained(directory)
    ...     card = model_card(directory, "somebody/my-gpt2")
    >>> card.splitlines()[6]
    '# my-gpt2'
    """
    place = check_path("directory", directory)
    check_instance("repo_id", repo_id, str, "a str")
    _files(place)
    name = repo_id or place.resolve().name
    config = config_from_huggingface(read_json(place / CONFIG_FILE, limit=_LIMIT, links=True))
    run = RunDirectory(place)
    options: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        options = read_json(run.options, limit=_LIMIT)
    blocks = [_head(name), _summary(config, options), *_figures(run), *_training(run, options), _use(name)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _files(directory: Path) -> list[Path]:
    """Returns the files of a model, and of its run, that are uploaded."""
    if not (directory / CONFIG_FILE).exists():
        raise FileNotFoundError(f"there is no model in {directory}: it has no {CONFIG_FILE}")
    weights = [*sorted(directory.glob("model*.safetensors")), directory / (WEIGHTS_FILE + INDEX_SUFFIX)]
    if not weights[0].exists():
        raise FileNotFoundError(f"there is no model in {directory}: it has no {WEIGHTS_FILE}")
    run = RunDirectory(directory)
    others = [directory / name for name in (CONFIG_FILE, *TOKENIZER_FILES)]
    return [path for path in (*others, *weights, run.history, run.plot, run.report) if path.exists()]


def _head(name: str) -> str:
    tags = "library_name: tinygpt2\npipeline_tag: text-generation\ntags: [gpt2, tinygpt2]"
    return f"---\n{tags}\n---\n\n# {name.rpartition('/')[2]}"


def _summary(config: GPT2Config, options: dict[str, Any]) -> str:
    base = options.get("from_pretrained")
    how = "trained from scratch" if base is None else "fine-tuned"
    if isinstance(base, str) and is_name(base):
        how = f"fine-tuned from [{base}](https://huggingface.co/{base})"
    return (
        f"A GPT-2 with {number_of_weights(config):,} parameters, {how} with "
        f"[tinygpt2](https://pypi.org/project/tinygpt2/). Blocks: {config.n_layer}; width: {config.n_embd}; heads: "
        f"{config.n_head}; vocabulary: {config.vocab_size:,} tokens; context: {config.context_length:,} tokens."
    )


def _figures(run: RunDirectory) -> Iterator[str]:
    """Yields what was measured at the end of a run."""
    if not run.report.exists():
        return
    report = Report.load(run.report)
    yield (
        f"## How good it is\n\nOn {report.baselines.bytes:,} bytes of text from which nothing was learned, the "
        "vocabulary included:"
    )
    yield _table(("On held-out text", "Bits per byte"), {name: f"{bits:.3f}" for name, bits in report.rows().items()})
    if report.copied_share is not None:
        yield (
            f"Of {report.generated_characters:,} characters that it generated, {report.copied_share:.0%} are in long "
            "stretches copied from the training text."
        )


def _training(run: RunDirectory, options: dict[str, Any]) -> Iterator[str]:
    """Yields how a run went, and its settings."""
    if not run.history.exists():
        return
    history = TrainingHistory.load(run.history)
    if not history.steps:
        return
    seconds = history.seconds[-1]
    time = "" if seconds is None else f" in {seconds / 60:,.1f} minutes"
    yield (
        f"## Training\n\n{history.steps[-1]:,} steps, {history.epochs[-1]:.3g} passes over the text, "
        f"{history.tokens_seen[-1]:,} tokens{time}."
    )
    settings = {f"`{name}`": options[name] for name in _RECIPE if options.get(name) is not None}
    if settings:
        yield _table(("Setting", "Value"), settings)


def _table(heads: tuple[str, str], rows: dict[str, Any]) -> str:
    lines = [f"| {first} | {second} |" for first, second in (heads, ("---", "---"), *rows.items())]
    return "\n".join(lines)


def _use(name: str) -> str:
    return f"""## Use

```python
from tinygpt2 import GPT2Model, generate_text, load_tokenizer

model = GPT2Model.from_pretrained("{name}")
tokenizer = load_tokenizer("{name}")
print(generate_text(model, tokenizer, "Once", max_new_tokens=50))
```

```python
from transformers import pipeline

print(pipeline("text-generation", model="{name}")("Once"))
```"""
