"""What saving checkpoints costs a run: the share of its time, at the default interval.

    python benchmarks/checkpoint.py --minutes 30 [--preset gpt2] [--out DIR]

It trains on the sample text, and times each save. The first, before the first step, has no optimizer state yet; the
others have all of it.
"""

import argparse
import platform
import statistics
import tempfile
import time
from pathlib import Path

import torch

from tinygpt2 import GPT2Config, GPT2Model, TrainingConfig, TrainState, make_dataloader, sample_text, train
from tinygpt2.training.checkpoints.saver import CheckpointSaver


def main() -> None:
    parser = argparse.ArgumentParser(description="Cost of checkpoints.")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--preset", default="gpt2")
    parser.add_argument("--out", type=Path, help="where to save; the disk that matters (default: the temporary one)")
    options = parser.parse_args()
    saves: list[tuple[float, float]] = []  # when it began, and how long it took
    save = CheckpointSaver.save

    def timed(self: CheckpointSaver, state: TrainState) -> None:
        began = time.perf_counter()
        save(self, state)
        if time.perf_counter() - began > 0.01:  # there was something to save
            saves.append((began, time.perf_counter() - began))

    def stop_in_time(state: TrainState) -> None:
        if time.perf_counter() - start > options.minutes * 60:
            state.stop()

    CheckpointSaver.save = timed  # type: ignore[method-assign]
    text = sample_text()
    model = GPT2Model(GPT2Config.preset(options.preset, context_length=128))
    config = TrainingConfig(epochs=10**6, eval_every=10**6, eval_batches=1)
    with tempfile.TemporaryDirectory(dir=options.out) as directory:
        start = time.perf_counter()
        train(
            model,
            make_dataloader(text[:-9000], batch_size=2, context_length=128, shuffle=True),
            make_dataloader(text[-9000:], batch_size=2, context_length=128),
            config,
            callbacks=[stop_in_time],
            checkpoint_dir=directory,
        )
        total = time.perf_counter() - start
        newest = max(Path(directory).glob("checkpoint-*"), key=lambda path: path.stat().st_mtime)
        size = sum(path.stat().st_size for path in newest.iterdir())
    during = [seconds for began, seconds in saves if began - start < options.minutes * 60]
    print(f"{platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"{options.preset}, {model.num_parameters():,} parameters; a checkpoint has {size / 1e6:,.0f} MB")
    print(f"saves began at {', '.join(f'{began - start:.0f}' for began, _ in saves)} s")
    print(f"and took {', '.join(f'{seconds:.2f}' for _, seconds in saves)} s, median {statistics.median(during):.2f} s")
    share, share_with_last = sum(during) / (options.minutes * 60), sum(seconds for _, seconds in saves) / total
    print(f"{len(during)} saves while training took {share:.2%} of the time; with the last, {share_with_last:.2%}")


if __name__ == "__main__":
    main()
