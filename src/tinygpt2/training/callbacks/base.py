"""What looks on while a model trains: the progress bar, text samples, TensorBoard, and anything of yours.

A callback is a function of the training state. It is called at each event, which ``state.event`` names:

    def stop_when_good(state: TrainState) -> None:
        if state.event == "evaluation" and state.history.train_losses[-1] < 3:
            state.stop()

    train(model, loader, callbacks=[stop_when_good])
"""

from typing import Protocol

from tinygpt2.generation.samplers import GreedySampler
from tinygpt2.training.state import TrainState

_GREEDY = GreedySampler()


class Callback(Protocol):
    """Anything that can be called with the training state.

    >>> from tinygpt2 import GPT2Config, make_dataloader, train
    >>> shape = GPT2Config(
    ...     vocab_size=4, context_length=8, n_layer=1, n_head=2, n_embd=32
    ... )
    >>> loader = make_dataloader([0, 1, 2, 3] * 50, batch_size=4, context_length=8)
    >>> def write_the_steps(state: TrainState) -> None:
    ...     if state.event == "end":
    ...         print(state.step, "of", state.total_steps)
    >>> callbacks: list[Callback] = [write_the_steps]
    >>> _ = train(
    ...     GPT2Model(shape), loader, callbacks=callbacks, device="cpu",
    ...     progress=False,
    ... )
    6 of 6
    """

    def __call__(self, state: TrainState, /) -> object:
        """Looks at the state after an event; what it returns does not matter."""
        ...
