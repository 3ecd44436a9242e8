"""The reasons for the choices of a recipe, in words."""

from tinygpt2.config import GPT2Config, TrainingConfig
from tinygpt2.data.noise import TextNoise
from tinygpt2.recipe import rules
from tinygpt2.recipe.task import Steps, Task
from tinygpt2.tokenizers.choice import amount

BOUNDS = {
    "given": "as given",
    "text": "as large as the text can teach",
    "time": "as large as the time can teach",
    "memory": "as large as half of the free memory holds",
    "pretrained": "that of the model to fine-tune",
}
"""What may decide the size of a model, with how to say it."""


def reasons_for(
    task: Task,
    bound: str,
    steps: Steps,
    model: GPT2Config,
    *,
    training: TrainingConfig,
    noise: TextNoise | None,
    minutes: float,
) -> dict[str, str]:
    """Returns what was chosen and why, by what it is about."""
    return {
        "text": _text(task),
        "time": f"{in_minutes(minutes)} expected, of {in_minutes(task.minutes)} "
        f"{'by the size of the text' if task.usual else 'as given'}",
        **({} if task.pretrained or task.text.tokens else {"vocabulary": _vocabulary(task, model)}),
        "model": f"{counted(model.n_layer, 'block')} of width {model.n_embd}, {counted(model.n_head, 'head')}: "
        f"{BOUNDS[bound]}",
        "context": f"{model.context_length} tokens: {_context(task)}",
        "batch": f"{_batch(steps)} of {model.context_length} tokens: {_batch_reason(task)}",
        "length": _length(task, steps),
        "noise": _noise(task, steps, model, training, noise),
        "optimizer": _optimizer(task, training),
        **({"average": _average(task, training)} if training.ema_decay else {}),
        "evaluation": f"every {counted(training.eval_every or 0, 'step')}, on {_batches(training.eval_batches)} of "
        "each part: at most a tenth of the time",
    }


def counted(number: int, noun: str) -> str:
    """Returns a number of things.

    >>> counted(1, "step"), counted(2000, "step")
    ('1 step', '2,000 steps')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def in_minutes(minutes: float) -> str:
    """Returns a time in words.

    >>> in_minutes(0.25), in_minutes(1), in_minutes(90)
    ('15 seconds', '1 minute', '1.5 hours')
    """
    if minutes < 1:
        return counted(round(60 * minutes), "second")
    if minutes >= 90:
        return f"{minutes / 60:.3g} hours"
    return f"{minutes:.3g} {'minute' if minutes == 1 else 'minutes'}"


def _batches(number: int | None) -> str:
    """Returns the batches of an evaluation; ``None`` is all."""
    if number is None:
        return "all batches"
    return counted(number, "batch") if number == 1 else f"{number:,} batches"


def _text(task: Task) -> str:
    text = task.text
    documents = "" if text.documents == 1 else f" in {text.documents:,} documents"
    return f"{amount(text.bytes)}{documents}, {text.script}; {text.repetition:.0%} is repetition"


def _vocabulary(task: Task, model: GPT2Config) -> str:
    kind = {"bpe": "byte pairs, ", "char": "characters, "}.get(task.tokenizer, "")
    size = f"{kind}{model.vocab_size:,} tokens"
    if "vocab_size" in task.given or "tokenizer" in task.given:
        return f"{size}: as given"
    if task.text.names:
        return f"{size}: names hardly ever come again"
    return f"{size}: by the cube root of the bytes that are read"


def _context(task: Task) -> str:
    if "context_length" in task.given:
        return "as given"
    if task.pretrained:
        return "at most that of the model"
    return "by the size of the text" if task.text.documents == 1 else "by the size of the text and its documents"


def _batch(steps: Steps) -> str:
    times = f"{steps.accumulate} × " if steps.accumulate > 1 else ""
    return f"{times}{counted(steps.rows, 'window')}"


def _batch_reason(task: Task) -> str:
    given = "batch_size" in task.given or "gradient_accumulation_steps" in task.given
    return "as given" if given else "it grows with the square root of the run"


def _length(task: Task, steps: Steps) -> str:
    passes = f"{steps.passes:.3g} {'pass' if steps.passes == 1 else 'passes'} over the text"
    size = f"{counted(steps.count, 'step')}, {passes}"
    if steps.teachers:
        teachers = "a first model reads" if steps.teachers == 1 else f"{steps.teachers} first models read"
        times = f"{steps.passes:.3g} {'time' if steps.passes == 1 else 'times'}"
        most = rules.MOST_STUDENT_PASSES * steps.of_pass // rules.STUDENT_BATCH
        why = "more would not help" if steps.student >= most else "this teaches more than reading alone"
        return (
            f"{teachers} the text {times}, then a student learns from {'it' if steps.teachers == 1 else 'them'} in "
            f"{counted(steps.student, 'step')}: {why}"
        )
    if "epochs" in task.given or "max_steps" in task.given:
        return f"{size}: as given"
    if steps.count >= task.most_passes * steps.of_pass:
        return f"{size}: more would not help"
    return f"{size}: what the time allows"


def _noise(task: Task, steps: Steps, model: GPT2Config, training: TrainingConfig, noise: TextNoise | None) -> str:
    parts = {"dropout": model.dropout}
    if noise:
        parts |= {"merges skipped": noise.bpe_dropout, "tokens replaced": noise.token_noise}
    said = ", ".join(f"{name} {value:g}" for name, value in parts.items() if value) or "none"
    times = f"a text that is read {steps.passes:.2g} times"
    if task.pretrained:
        return f"{said}; weight decay {training.weight_decay:g}: as for a model to fine-tune"
    why = "so many names are hardly memorised" if task.many_names else f"against memorising {times}"
    return f"{said}; weight decay {training.weight_decay:g}: {why}"


def _average(task: Task, training: TrainingConfig) -> str:
    steps = f"of the weights, over about {counted(round(1 / (1 - training.ema_decay)), 'step')}"
    return f"{steps}: {'as given' if 'ema_decay' in task.given else 'better than the last ones, at a constant rate'}"


def _optimizer(task: Task, training: TrainingConfig) -> str:
    name = {"muon": "Muon", "adamw": "AdamW"}[training.optimizer]
    if training.spelling:
        name += ", shared by tokens of similar spelling"
    said = f"{name}, learning rate {training.learning_rate:g} after {counted(training.warmup_steps, 'step')}"
    how = {"linear": "then falling to zero", "cosine": "then falling", "constant": "then constant"}[training.schedule]
    why = "small, to keep what was learned before" if task.pretrained else "the wider a model, the lower"
    return f"{said}, {how}: {'as given' if 'learning_rate' in task.given else why}"
