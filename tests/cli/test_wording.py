"""The library's messages in the words of the command line."""

import errno

import pytest

from tinygpt2 import IncompatibleRunError, NonFiniteLossError
from tinygpt2.cli.train_options import FLAGS
from tinygpt2.cli.wording import in_flags, speaking_in_flags


@pytest.mark.parametrize(
    ("message", "reworded"),
    [
        (
            "context_length is 128, but the text has only 4; pass context_length=3 or less",
            "--context-length is 128, but the text has only 4; pass --context-length 3 or less",
        ),
        ("pass resume=True to resume it, or another checkpoint_dir", "pass --resume to resume it, or another --out"),
        ("with the changes: allow_changes=True", "with the changes: --allow-changes"),
        ("the gradient_accumulation_steps was 1 and is 2", "the --accumulate was 1 and is 2"),
        ("try 0.1, or warmup_steps). The model", "try 0.1, or --warmup-steps). The model"),
        ("keep the seed, the epochs and the schedule", "keep the seed, the epochs and the schedule"),
        ("pass epochs=3", "pass --epochs 3"),
        ("the model's qkv_bias was True and is False", "the model's qkv_bias was True and is False"),
        (
            "/data/batch_size/x, batch_size.txt, my_batch_size and batch_size-2",
            "/data/batch_size/x, batch_size.txt, my_batch_size and batch_size-2",
        ),
        ("", ""),
    ],
)
def test_arguments_become_flags_and_everything_else_stays(message: str, reworded: str) -> None:
    assert in_flags(message, FLAGS) == reworded


def test_an_error_is_the_same_error_with_another_message() -> None:
    for error in (
        ValueError("pass batch_size=2"),
        NonFiniteLossError("pass batch_size=2", step=3),
        OSError(errno.ENOSPC, "pass batch_size=2", "batch_size=2"),
        IncompatibleRunError("checkpoint-1", ["pass batch_size=2"]),
        BlockingIOError("another process is training in x"),
    ):
        before = str(error)
        with pytest.raises(type(error)) as info, speaking_in_flags(FLAGS):
            raise error
        assert info.value is error
        assert str(error) == before.replace("pass batch_size=2", "pass --batch-size 2")


def test_what_has_no_message_passes() -> None:
    with pytest.raises(OSError, match=r"^$"), speaking_in_flags(FLAGS):
        raise OSError
    with pytest.raises(KeyError), speaking_in_flags(FLAGS):
        raise KeyError("batch_size")


def test_notes_are_reworded_whatever_the_error() -> None:
    error = RuntimeError("batch_size")
    error.add_note("a checkpoint of step 3 was saved; pass resume=True to resume from it")
    with pytest.raises(RuntimeError, match=r"^batch_size\n"), speaking_in_flags(FLAGS):
        raise error
    assert error.__notes__ == ["a checkpoint of step 3 was saved; pass --resume to resume from it"]
