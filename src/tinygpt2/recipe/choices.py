"""The choices of a recipe."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tinygpt2.config import MODEL_RANGES, TRAINING_RANGES, GPT2Config, TrainingConfig
from tinygpt2.data.noise import TextNoise
from tinygpt2.recipe import rules
from tinygpt2.recipe.evaluations import evaluations
from tinygpt2.recipe.reasons import reasons_for
from tinygpt2.recipe.recipe import Recipe
from tinygpt2.recipe.students import student_training
from tinygpt2.recipe.task import SHAPE, Steps, Task
from tinygpt2.tokenizers.choice import tokens_for, tokens_of_characters


def choose(task: Task) -> Recipe:
    """Returns the recipe for a task: a pure function of it."""
    model, bound = _model(task) if task.pretrained is None else _tuned(task, task.pretrained)
    steps = _steps(task, model)
    noise, training = _noise(task, steps), _training(task, model, steps)
    minutes = max(0.001, rules.rounded((steps.seconds / rules.TRAINING_SHARE + task.spent) / 60, 3))
    return Recipe(
        tokenizer=task.tokenizer,
        model=model,
        training=training,
        batch_size=steps.rows,
        noise=noise,
        teachers=steps.teachers,
        student=student_training(training, steps.student) if steps.teachers else None,
        minutes=minutes,
        speed=task.speed,
        reasons=reasons_for(task, bound, steps, model, training=training, noise=noise, minutes=minutes),
    )


# --- the model ---


def _tuned(task: Task, pretrained: GPT2Config) -> tuple[GPT2Config, str]:
    """Returns the shape of a model to fine-tune, and what decided its size."""
    usual = rules.context_for(task.text.bytes, task.tokens, task.text.documents)
    changed = {name: task.given[name] for name in ("context_length", "dropout") if name in task.given}
    return replace(pretrained, **{"context_length": min(usual, pretrained.context_length), **changed}), "pretrained"


def _model(task: Task) -> tuple[GPT2Config, str]:
    """Returns the shape of a new model, and what decided its size."""
    text, changed = task.text, {name: task.given[name] for name in MODEL_RANGES if name in task.given}
    for_time = rules.weights_for_time(task.seconds, task.speed, names=task.many_names)
    for_text = rules.weights_for_text(task.tokens, text.repetition)
    read = rules.bytes_read(text.bytes, for_time)
    characters = text.characters if task.tokenizer == "char" else None
    others = {
        "vocab_size": tokens_for(read, names=text.names) if characters is None else tokens_of_characters(characters),
        "context_length": rules.context_for(read, task.tokens, text.documents),
        "dropout": 0.0,
        **changed,
    }
    wanted = rules.nearest_shape(min(for_time, for_text))
    bound = "text" if for_text < for_time else "time"
    ladder = list(rules.LADDER[: rules.LADDER.index(wanted) + 1])
    model = _of_shape(ladder.pop(), others)
    while ladder and rules.memory_of(model, 1) > task.memory * rules.MEMORY_SHARE:
        model, bound = _of_shape(ladder.pop(), others), "memory"
    return model, "given" if changed.keys() & set(SHAPE) else bound


def _spelling(task: Task) -> bool:
    """Returns whether tokens of similar spelling share updates."""
    return bool(task.given.get("spelling", task.text.bytes <= rules.SPELLING_BYTES and not task.pretrained))


def _of_shape(shape: tuple[int, int], others: Mapping[str, Any]) -> GPT2Config:
    """Returns a model of a shape on the ladder, with other fields, which may change the shape, too."""
    layers, width = shape
    if "n_embd" in others:
        width = others["n_embd"]
        layers = min(rules.LADDER, key=lambda each: abs(math.log(each[1] / width)))[0]
    elif "n_head" in others:
        width = others["n_head"] * max(1, round(width / others["n_head"]))
    heads = others.get("n_head", rules.heads_for(width))
    return GPT2Config(**{"n_layer": layers, "n_embd": width, "n_head": heads, **others})


# --- the steps ---


def _steps(task: Task, model: GPT2Config) -> Steps:
    """Returns the batches, and as many steps as the time allows, unless their number is given."""
    given, optimizer = task.given, task.given.get("optimizer", "adamw" if task.pretrained else "muon")
    windows = _windows(task.tokens, model)
    rows, accumulate = _rows(task, model, windows)
    of_pass = math.ceil(math.ceil(windows / rows) / accumulate)
    tokens = rows * accumulate * model.context_length
    seconds = rules.operations_of_step(model, tokens, optimizer) / task.speed
    affordable = task.seconds / seconds
    teachers = _teachers(task, affordable / of_pass)
    passes = min(task.most_passes, round(affordable / of_pass))
    if teachers:
        passes = rules.teacher_passes_for(affordable / of_pass, teachers)
    length: dict[str, int]
    if "max_steps" in given:
        length, count = {"max_steps": given["max_steps"]}, given["max_steps"]
    elif "epochs" in given or passes >= rules.WHOLE_PASSES:
        length = {"epochs": given.get("epochs", passes)}
        count = length["epochs"] * of_pass
    else:
        count = max(1, round(affordable))
        length = {"max_steps": count}
    if not teachers:
        return Steps(optimizer, rows, accumulate, of_pass, count, count * seconds, length)
    of_teachers = teachers * (count + rules.TEACHER_COST * of_pass)
    of_student = rules.STUDENT_BATCH * rules.STUDENT_OVERHEAD * (1 + rules.TEACHING_COST * teachers)  # in steps
    fixed = given.get("student_steps", count if given.keys() & {"epochs", "max_steps"} else None)
    most = round(rules.MOST_STUDENT_PASSES * of_pass / rules.STUDENT_BATCH)
    student = fixed or max(1, min(most, round((affordable - of_teachers) / of_student)))
    took = seconds * (of_teachers + student * of_student)
    return Steps(optimizer, rows, accumulate, of_pass, count, took, length, teachers, student)


def _windows(tokens: int, model: GPT2Config) -> int:
    """Returns the windows of so many tokens; there is always one to plan with."""
    return max(1, (tokens - 1) // model.context_length)


def _teachers(task: Task, passes: float) -> int:
    """Returns how many teachers to train, if the time allows so many passes over the text."""
    given = task.given
    if task.pretrained is not None:
        return 0
    if given.keys() & {"teachers", "student_steps", "epochs", "max_steps"}:
        return int(given.get("teachers", "student_steps" in given))
    if passes < rules.LEAST_PASSES or task.many_names:
        return 0
    return rules.teachers_for(passes)


def _rows(task: Task, model: GPT2Config, windows: int) -> tuple[int, int]:
    """Returns the windows of a micro-batch, and the micro-batches of a step."""
    if "batch_size" in task.given:
        return task.given["batch_size"], task.given.get("gradient_accumulation_steps", 1)
    wanted = rules.power_of_two(_batch_tokens(task, model) / model.context_length, nearest=True)
    rows = min(max(wanted, rules.FEWEST_ROWS, task.processes), rules.power_of_two(windows))
    accumulate = task.given.get("gradient_accumulation_steps")
    if accumulate:
        rows = max(1, rows // accumulate)
    fitting = rows
    while fitting > 1 and rules.memory_of(model, fitting) > task.memory * rules.MEMORY_SHARE:
        fitting //= 2
    return fitting, accumulate or rows // fitting


def _batch_tokens(task: Task, model: GPT2Config) -> float:
    """Returns how many tokens a step should read."""
    if "max_steps" in task.given:
        return rules.batch_tokens_of(task.given["max_steps"])
    if "epochs" in task.given:
        return rules.batch_tokens_for(task.given["epochs"] * task.tokens)
    affordable = task.seconds * task.speed / rules.operations_of_token(model)
    return rules.batch_tokens_for(min(affordable, task.most_passes * task.tokens))


# --- the training ---


def _strength(task: Task, steps: Steps, most: float) -> float:
    """Returns how much to do against memorising the text, from 0 to 1, which is for ``most`` passes."""
    if task.pretrained is not None or task.many_names:
        return 0.0
    return 1.0 if steps.teachers else rules.regularisation_for(steps.passes, most)


def _noise(task: Task, steps: Steps) -> TextNoise | None:
    """Returns the noise on the training text."""
    given, strength = task.given, _strength(task, steps, rules.NOISY_PASSES)
    cuts = 0.0 if task.tokenizer == "char" else rules.rounded(rules.BPE_DROPOUT * strength, 2)
    noise = TextNoise(
        bpe_dropout=given.get("bpe_dropout", cuts),
        token_noise=given.get("token_noise", rules.rounded(rules.TOKEN_NOISE * strength, 2)),
        epochs=given.get("noise_epochs", max(1, round(rules.NOISY_SHARE * steps.passes))),
    )
    return noise if noise.bpe_dropout or noise.token_noise else None


def _training(task: Task, model: GPT2Config, steps: Steps) -> TrainingConfig:
    """Returns the configuration of the training."""
    strength = _strength(task, steps, rules.REGULARISED_PASSES)
    given = {name: task.given[name] for name in TRAINING_RANGES if name in task.given}
    tuning = task.pretrained is not None
    rate = rules.learning_rate_for(steps.optimizer, model.n_embd) * (rules.FINE_TUNING_RATE if tuning else 1)
    held_out = task.text.held_out or task.tokens // 9
    to_train, to_validate = (math.ceil(_windows(tokens, model) / steps.rows) for tokens in (task.tokens, held_out))
    every, most = evaluations(
        steps.count, steps.accumulate, (to_train, to_validate), given.get("eval_every"), given.get("eval_batches")
    )
    warmup = rules.FINE_TUNING_WARMUP if tuning else rules.WARMUP
    schedule = given.get("schedule", "linear" if tuning else "constant")
    averaged = schedule == "constant" and not tuning
    chosen = {
        **steps.length,
        "optimizer": steps.optimizer,
        "spelling": _spelling(task),
        "learning_rate": max(rules.rounded(rate, 2), given.get("min_learning_rate", 0.0)),
        "schedule": schedule,
        "warmup_steps": max(1, round(warmup * steps.count)),
        "weight_decay": rules.weight_decay_for(strength, task.tokens),
        "ema_decay": rules.ema_decay_for(steps.count) if averaged else 0.0,
        "gradient_accumulation_steps": steps.accumulate,
        "eval_every": every,
        "eval_batches": most,
    }
    return TrainingConfig(**chosen | given)
