"""What is chosen for texts, machines and times of all sizes, on the way between them, and around what is given."""

import math
from dataclasses import fields, replace
from itertools import pairwise, product
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tinygpt2 import GPT2Config, GPT2Model, TextNoise, TrainingConfig, sample_text
from tinygpt2.model.checks import number_of_weights
from tinygpt2.recipe import recommend as module
from tinygpt2.recipe import rules
from tinygpt2.recipe.recipe import Recipe
from tinygpt2.recipe.recommend import recommend
from tinygpt2.recipe.speed import measured_speed
from tinygpt2.recipe.statistics import TextStatistics

SIZES = [5_000, 20_000, 90_000, 300_000, 1_000_000, 20_000_000, 100_000_000, 1_000_000_000]
MINUTES = [0.25, 1, 2, 10, 60, 600]
LAPTOP, GPU = 5e10, 2e14
MEMORY = {LAPTOP: 8 << 30, GPU: 64 << 30}

NAMES = {"GPT2Config": GPT2Config, "TrainingConfig": TrainingConfig, "TextNoise": TextNoise, "Recipe": Recipe}


def chosen(size: int, minutes: float | None, speed: float, **options: Any) -> Recipe:  # noqa: ANN401
    memory = options.pop("memory", MEMORY[speed])
    return recommend(TextStatistics(bytes=size), minutes=minutes, speed=speed, memory=memory, **options)


def tokens_of(recipe: Recipe) -> int:
    return recipe.batch_size * recipe.training.gradient_accumulation_steps * recipe.model.context_length


def steps_of(recipe: Recipe, size: int) -> int:
    if recipe.training.max_steps is not None:
        return recipe.training.max_steps
    windows = max(1, (round(rules.TOKENS_PER_BYTE * size) - 1) // recipe.model.context_length)
    batches = math.ceil(windows / recipe.batch_size)
    return recipe.training.epochs * math.ceil(batches / recipe.training.gradient_accumulation_steps)


def passes_of(recipe: Recipe, size: int) -> float:
    return steps_of(recipe, size) * tokens_of(recipe) / (rules.TOKENS_PER_BYTE * size)


def seconds_of(recipe: Recipe, size: int) -> float:
    """Returns the planned seconds of training on a machine with a speed of 1 GFLOP/s."""
    step = rules.operations_of_step(recipe.model, tokens_of(recipe), "muon") / 1e9
    if recipe.student is None:
        return steps_of(recipe, size) * step
    passes = recipe.training.epochs
    of_pass = steps_of(recipe, size) / passes
    cost = rules.STUDENT_BATCH * rules.STUDENT_OVERHEAD * (1 + rules.TEACHING_COST * recipe.teachers)
    return step * (recipe.teachers * (passes + rules.TEACHER_COST) * of_pass + (recipe.student.max_steps or 0) * cost)


def at_most(recipe: Recipe, size: int) -> bool:
    """Returns whether a recipe does as much as helps."""
    if recipe.student is None:
        return passes_of(recipe, size) >= rules.MOST_PASSES * 0.9
    most = rules.MOST_STUDENT_PASSES / rules.STUDENT_BATCH * steps_of(recipe, size) / recipe.training.epochs
    return (recipe.student.max_steps or 0) >= 0.99 * most


def reading_of(recipe: Recipe, size: int) -> float:
    """Returns the passes over the text, which grow with the time, whether there are teachers or not."""
    return passes_of(recipe, size) if recipe.student is None else rules.LEAST_PASSES + recipe.teachers


def strength_of(recipe: Recipe) -> tuple[float, ...]:
    noise = recipe.noise or TextNoise()
    return noise.bpe_dropout, noise.token_noise, recipe.training.weight_decay


@pytest.mark.parametrize(("size", "minutes", "speed"), list(product(SIZES, MINUTES, MEMORY)))
def test_a_recipe_keeps_within_the_time_and_the_memory(size: int, minutes: float, speed: float) -> None:
    recipe = chosen(size, minutes, speed)
    assert rules.memory_of(recipe.model, recipe.batch_size) <= MEMORY[speed] / 2
    seconds = seconds_of(recipe, size) * 1e9 / speed
    assert recipe.minutes == pytest.approx(max(0.001, seconds / rules.TRAINING_SHARE / 60), rel=0.01)
    if not at_most(recipe, size):
        assert recipe.minutes == pytest.approx(minutes, rel=0.15)
    else:  # more passes do not help
        assert recipe.minutes <= minutes * 1.15
    assert passes_of(recipe, size) < rules.MOST_PASSES * 1.3  # the last batch of a small text is not full


@pytest.mark.parametrize(("minutes", "speed"), list(product(MINUTES, MEMORY)))
def test_with_more_text_the_model_grows_and_less_is_done_against_memorising(minutes: float, speed: float) -> None:
    sizes = [round(5_000 * 1.7**i) for i in range(24)]
    for (less, few), (more, many) in pairwise((chosen(size, minutes, speed), size) for size in sizes):
        assert number_of_weights(less.model) <= number_of_weights(more.model)
        assert strength_of(less) >= strength_of(more)
        assert all(a >= b for a, b in zip(strength_of(less), strength_of(more), strict=True))
        assert reading_of(less, few) * 1.3 >= reading_of(more, many)
        assert less.training.learning_rate >= more.training.learning_rate


@pytest.mark.parametrize(("size", "speed"), list(product(SIZES, MEMORY)))
def test_with_more_time_the_model_grows(size: int, speed: float) -> None:
    recipes = [chosen(size, 0.25 * 1.7**i, speed) for i in range(16)]
    for less, more in pairwise(recipes):
        assert number_of_weights(less.model) <= number_of_weights(more.model)


def test_more_text_than_time_is_read_less_than_once_without_regularisation() -> None:
    recipe = chosen(1_000_000_000, 10, LAPTOP)
    assert passes_of(recipe, 1_000_000_000) < 1
    assert strength_of(recipe) == (0, 0, rules.WEIGHT_DECAY)
    assert recipe.noise is None


def test_more_time_than_text_is_read_often_with_all_regularisation() -> None:
    recipe = chosen(20_000, 600, LAPTOP)
    assert recipe.teachers == rules.MOST_TEACHERS
    assert recipe.training.epochs == rules.MOST_TEACHER_PASSES
    assert recipe.minutes < 30
    assert "more would not help" in recipe.explain()
    assert strength_of(recipe) == (rules.BPE_DROPOUT, rules.TOKEN_NOISE, rules.MOST_WEIGHT_DECAY)


@given(sizes=st.lists(st.integers(1, 10**12), min_size=2).map(sorted))
def test_more_text_never_has_fewer_minutes(sizes: list[int]) -> None:
    minutes = list(map(rules.default_minutes, sizes))
    assert minutes == sorted(minutes)
    assert 0.25 <= minutes[0] <= minutes[-1] <= 60


def test_without_minutes_they_suit_the_text() -> None:
    assert rules.default_minutes(84_213) == 2
    assert chosen(90_000, None, LAPTOP) == chosen(90_000, rules.default_minutes(90_000), LAPTOP)


def test_a_text_that_repeats_itself_counts_as_a_short_one() -> None:
    prose, log = (TextStatistics(bytes=20_000_000, repetition=share) for share in (0.6, 0.98))
    models = [recommend(text, minutes=600, speed=GPU, memory=64 << 30).model for text in (prose, log)]
    assert models[0].n_embd > models[1].n_embd


def test_documents_need_no_longer_a_context_than_they_are_long() -> None:
    names = TextStatistics(bytes=200_000, documents=30_000, names=True)
    model = recommend(names, minutes=2, speed=LAPTOP, memory=8 << 30).model
    assert (model.context_length, model.vocab_size) == (32, 512)


def test_names_of_few_characters_are_read_in_them_and_without_noise() -> None:
    names = TextStatistics(bytes=200_000, documents=30_000, names=True, characters=60)
    recipe = recommend(names, minutes=2, speed=LAPTOP, memory=8 << 30)
    assert (recipe.tokenizer, recipe.model.vocab_size) == ("char", 317)
    assert (recipe.noise, recipe.teachers, recipe.training.weight_decay) == (None, 0, rules.WEIGHT_DECAY)
    assert "so many names are hardly memorised" in recipe.explain()
    longer = recommend(names, minutes=60, speed=LAPTOP, memory=8 << 30)
    assert longer.tokenizer == "char"
    assert longer.teachers > 0  # they can be memorised in that time
    few = recommend(replace(names, bytes=15_000, documents=2000), minutes=0.5, speed=LAPTOP, memory=8 << 30)
    assert (few.tokenizer, few.training.weight_decay > 1) == ("char", True)
    pairs = recommend(names, minutes=2, speed=LAPTOP, memory=8 << 30, given={"tokenizer": "bpe"})
    assert pairs.model.vocab_size == 512
    assert pairs.noise is not None
    sized = recommend(names, minutes=2, speed=LAPTOP, memory=8 << 30, given={"vocab_size": 400})
    assert (sized.tokenizer, sized.model.vocab_size) == ("bpe", 400)
    many = TextStatistics(bytes=200_000, documents=30_000, names=True, characters=3000)
    assert recommend(many, minutes=2, speed=LAPTOP, memory=8 << 30).tokenizer == "bpe"


def test_little_memory_first_makes_smaller_batches_and_then_smaller_models() -> None:
    roomy = chosen(100_000_000, 600, GPU)
    tight = chosen(100_000_000, 600, GPU, memory=5 << 30)
    assert tight.model == roomy.model
    assert tight.training.gradient_accumulation_steps > roomy.training.gradient_accumulation_steps
    assert tokens_of(tight) == tokens_of(roomy)
    tiny = chosen(100_000_000, 600, GPU, memory=3 << 28)
    assert tiny.model.n_embd < roomy.model.n_embd
    assert rules.memory_of(tiny.model, tiny.batch_size) <= 3 << 27
    assert "half of the free memory" in tiny.explain()


def test_what_has_passed_of_the_minutes_is_not_planned_again() -> None:
    whole, late = (chosen(90_000_000, 2, LAPTOP, spent=spent) for spent in (0, 30))
    assert steps_of(late, 1) < steps_of(whole, 1)
    assert late.minutes == pytest.approx(2, rel=0.15)
    assert steps_of(chosen(90_000_000, 2, LAPTOP, spent=1000), 1) > 1


# --- what is given ---

GIVEN: dict[str, Any] = {
    "vocab_size": 300, "context_length": 48, "n_layer": 5, "n_head": 3, "n_embd": 96, "dropout": 0.3,
    "qkv_bias": False, "tie_weights": False, "max_steps": 77, "optimizer": "adamw", "learning_rate": 0.0123,
    "min_learning_rate": 0.001, "schedule": "cosine", "warmup_steps": 3, "weight_decay": 0.7,
    "decay_all_parameters": True, "betas": (0.8, 0.9), "max_grad_norm": 2.0, "gradient_accumulation_steps": 2,
    "precision": "fp32", "compile": True, "eval_every": 9, "eval_batches": 2, "sample_prompt": "a",
    "sample_tokens": 5, "seed": 4, "tokenizer": "char", "batch_size": 6, "bpe_dropout": 0.2, "token_noise": 0.3,
    "noise_epochs": 2, "teachers": 2, "student_steps": 5,
}  # fmt: skip


def value_of(recipe: Recipe, name: str) -> object:
    noise = recipe.noise or TextNoise()
    if name == "student_steps":
        return recipe.student and recipe.student.max_steps
    if name in {"tokenizer", "batch_size", "teachers"}:
        return getattr(recipe, name)
    if name in {"bpe_dropout", "token_noise", "noise_epochs"}:
        return getattr(noise, name.removeprefix("noise_"))
    return getattr(recipe.model if hasattr(recipe.model, name) else recipe.training, name)


@given(names=st.sets(st.sampled_from(sorted(GIVEN))), size=st.sampled_from(SIZES), speed=st.sampled_from([LAPTOP, GPU]))
def test_what_is_given_is_kept(names: set[str], size: int, speed: float) -> None:
    if "noise_epochs" in names:
        names |= {"token_noise"}  # without noise it has no effect
    if "student_steps" in names:
        names |= {"teachers"}  # likewise
    recipe = chosen(size, 2, speed, given={name: GIVEN[name] for name in names})
    assert {name: value_of(recipe, name) for name in names} == {name: GIVEN[name] for name in names}


@pytest.mark.parametrize("width", [1, 7, 50, 97, 768, 5000])
def test_a_given_width_has_heads_that_divide_it(width: int) -> None:
    model = chosen(90_000, 2, LAPTOP, given={"n_embd": width}, memory=1 << 40).model
    assert model.n_embd == width
    assert width % model.n_head == 0


def test_given_epochs_are_the_length_and_the_time_follows() -> None:
    recipe = chosen(90_000, 2, LAPTOP, given={"epochs": 3})
    assert (recipe.training.epochs, recipe.training.max_steps) == (3, None)
    assert recipe.minutes < 1
    assert "3 passes over the text: as given" in recipe.explain()
    assert (recipe.noise or TextNoise()).token_noise == pytest.approx(0.1 * math.log(3 / 2) / math.log(7 / 2), rel=0.1)


def test_what_is_none_is_not_given() -> None:
    assert chosen(90_000, 2, LAPTOP, given={"max_steps": None, "dropout": None}) == chosen(90_000, 2, LAPTOP)


def test_a_lowest_rate_above_the_chosen_one_is_that() -> None:
    recipe = chosen(90_000, 2, LAPTOP, given={"min_learning_rate": 0.5})
    assert recipe.training.learning_rate == 0.5


def test_a_pretrained_model_is_tuned_at_a_low_rate() -> None:
    shape = GPT2Config(dropout=0.25)
    recipe = chosen(90_000, 2, LAPTOP, pretrained=shape)
    assert recipe.model == replace(shape, context_length=128)
    assert recipe.training.optimizer == "adamw"
    assert recipe.training.learning_rate == pytest.approx(0.1 * 0.004 * 128 / 768, rel=0.05)
    assert recipe.noise is None
    assert "that of the model to fine-tune" in recipe.explain()


# --- plain data ---


@given(size=st.integers(1, 10**10), minutes=st.floats(0.01, 1000), speed=st.sampled_from([LAPTOP, GPU]))
def test_a_recipe_is_the_python_that_it_prints(size: int, minutes: float, speed: float) -> None:
    recipe = chosen(size, minutes, speed)
    again: Recipe = eval(repr(recipe), dict(NAMES))  # noqa: S307 - which we printed
    assert again == recipe == chosen(size, minutes, speed)
    assert [getattr(again, field.name) for field in fields(again) if field.compare] == [
        getattr(recipe, field.name) for field in fields(recipe) if field.compare
    ]
    assert max(map(len, repr(recipe).splitlines())) <= 120


def test_each_choice_has_a_reason() -> None:
    lines = chosen(84_213, None, LAPTOP).explain().splitlines()
    assert [line.split()[0] for line in lines] == [
        "text", "time", "vocabulary", "model", "context", "batch", "length", "noise", "optimizer", "average",
        "evaluation",
    ]  # fmt: skip
    assert all(len(line) < 160 for line in lines)


def test_the_vocabulary_of_a_tokenizer_that_exists_is_no_choice() -> None:
    text = TextStatistics(bytes=90_000, tokens=25_000)
    reasons = recommend(text, speed=LAPTOP, memory=8 << 30, device="cpu").reasons
    assert "vocabulary" not in reasons


@pytest.mark.parametrize(
    ("batches", "said"), [(1, "on 1 batch of"), (2, "on 2 batches of"), (4000, "on 4,000 batches of")]
)
def test_batches_are_counted_as_one_says_it(batches: int, said: str) -> None:
    recipe = recommend(
        TextStatistics(bytes=90_000), speed=LAPTOP, memory=8 << 30, device="cpu", given={"eval_batches": batches}
    )
    assert said in recipe.reasons["evaluation"]


# --- the speed ---


def test_the_shape_that_will_run_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[int] = []

    def measure(model: GPT2Config, _: TrainingConfig, **__: object) -> float:
        measured.append(model.n_embd)
        return LAPTOP / len(measured)

    monkeypatch.setattr(module, "first_speed", lambda _: LAPTOP)
    monkeypatch.setattr(module, "measured_speed", measure)
    recipe = recommend(TextStatistics(bytes=90_000), minutes=2, memory=8 << 30, device="cpu")
    assert measured[-1] == recipe.model.n_embd
    assert recipe.speed == LAPTOP / len(measured)


def test_a_shape_that_measures_otherwise_than_the_next_one_is_measured_twice_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured: list[int] = []

    def measure(model: GPT2Config, _: TrainingConfig, **__: object) -> float:
        measured.append(model.n_embd)
        return 1e10 if model.n_embd > 100 else 1e13

    monkeypatch.setattr(module, "first_speed", lambda _: 1e9)
    monkeypatch.setattr(module, "measured_speed", measure)
    recipe = recommend(TextStatistics(bytes=20_000_000), minutes=2, memory=8 << 30, device="cpu")
    assert len(measured) == 2
    assert recipe.model.n_embd == measured[-1]
    assert "as given" not in recipe.reasons["model"]


def test_a_deeper_shape_of_the_same_width_is_measured_too(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[tuple[int, int]] = []

    def measure(model: GPT2Config, _: TrainingConfig, **__: object) -> float:
        measured.append((model.n_layer, model.n_embd))
        return 2e11

    monkeypatch.setattr(module, "first_speed", lambda _: 6e10)
    monkeypatch.setattr(module, "measured_speed", measure)
    recipe = recommend(TextStatistics(bytes=200_000), minutes=2, memory=8 << 30, device="cpu")
    assert measured == [(1, 128), (2, 128)]
    assert (recipe.model.n_layer, recipe.model.n_embd) == (2, 128)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_measurement_changes_no_random_numbers(optimizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ANN401
    monkeypatch.setattr("tinygpt2.recipe.speed._SECONDS", 0.0)
    before = torch.get_rng_state()
    model = GPT2Config(vocab_size=9, context_length=8, n_layer=1, n_head=1, n_embd=4)
    training = TrainingConfig(optimizer=optimizer)
    speed = measured_speed(model, training, rows=64, device=torch.device("cpu"), guess=1e6)
    assert 0 < speed < math.inf
    assert torch.equal(torch.get_rng_state(), before)


# --- bad input ---


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"minutes": 0}, ValueError, "minutes must be"),
        ({"minutes": -1}, ValueError, "minutes must be"),
        ({"minutes": math.nan}, ValueError, "minutes must be a finite number greater than 0, got nan"),
        ({"minutes": "2"}, TypeError, "minutes must be a number, got '2'"),
        ({"speed": 0}, ValueError, "speed must be"),
        ({"speed": math.inf}, ValueError, "speed must be a finite number greater than 0"),
        ({"memory": 0}, ValueError, "memory must be at least 1, got 0"),
        ({"spent": -1}, ValueError, "spent must be"),
        ({"device": "abacus"}, ValueError, "there is no device 'abacus' here"),
        ({"given": {"width": 3}}, ValueError, "given has 'width'; expected names among activation_function, batch"),
        ({"given": {"dropout": 1.5}}, ValueError, "dropout must be"),
        ({"given": {"n_embd": "64"}}, TypeError, "n_embd must be an integer"),
        ({"given": ["dropout"]}, TypeError, "given must be a dict of names and values"),
        ({"given": {"n_embd": 64, "n_head": 5}}, ValueError, r"n_embd \(64\) must be divisible by n_head \(5\)"),
        ({"pretrained": "gpt2"}, TypeError, "pretrained must be a GPT2Config"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {"minutes": 1, "speed": LAPTOP, "memory": 8 << 30, **options}
    with pytest.raises(error, match=message):
        recommend(TextStatistics(bytes=90_000), **arguments)


@pytest.mark.parametrize("documents", ["", [], ["", ""]])
def test_no_text_is_an_error(documents: Any) -> None:  # noqa: ANN401
    with pytest.raises(ValueError, match="documents must have some text"):
        recommend(documents, speed=LAPTOP)


def test_a_recipe_refuses_other_values() -> None:
    recipe = chosen(90_000, 2, LAPTOP)
    with pytest.raises(TypeError, match="model must be a GPT2Config"):
        replace(recipe, model=None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        replace(recipe, batch_size=0)


def test_a_text_is_the_same_as_its_statistics() -> None:
    text = sample_text()[:20_000]
    options: dict[str, Any] = {"minutes": 1, "speed": LAPTOP, "memory": 8 << 30}
    assert recommend(text, **options) == recommend(TextStatistics.of(text), **options)


def test_the_model_of_a_recipe_can_be_made() -> None:
    recipe = chosen(5_000, 0.25, LAPTOP)
    assert GPT2Model(recipe.model).num_parameters() == number_of_weights(recipe.model)
