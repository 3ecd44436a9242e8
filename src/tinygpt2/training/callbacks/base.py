"""Callbacks, and plain functions as callbacks."""

from collections.abc import Callable, Sequence
from typing import Any

from typing_extensions import override

from tinygpt2._internal.checks import check_json, of_type
from tinygpt2.training.state import Event, TrainState


class Callback:
    """Base class of callbacks, which follow the training of a model. Override what you need.

    A plain function of the training state is a callback, too: it is called at every event, which ``state.event``
    names; `on_step`, `on_evaluation` and `on_epoch` call it at only one.

    A callback with a state of its own can define ``state_dict()`` and ``load_state_dict()``, with values that JSON can
    hold: a resumed run then restores its state.

    Of several processes that train together, the first alone calls a callback, unless its class sets ``every_rank``.
    One that changes the training, other than by ``state.stop()``, must be called on all.

    >>> from tinygpt2 import (
    ...     GPT2Config, GPT2Model, TrainState, make_dataloader, train
    ... )
    >>> shape = GPT2Config(
    ...     vocab_size=4, context_length=8, n_layer=1, n_head=2, n_embd=32
    ... )
    >>> loader = make_dataloader([0, 1, 2, 3] * 50, batch_size=4, context_length=8)
    >>> class WriteTheSteps(Callback):
    ...     def on_end(self, state, error):
    ...         print(state.step, "of", state.total_steps, "and", error)
    >>> _ = train(
    ...     GPT2Model(shape), loader, callbacks=[WriteTheSteps()],
    ...     device="cpu", progress=False,
    ... )
    6 of 6 and None
    """

    every_rank: bool = False
    """Whether each of several processes that train together calls it, not only the first."""

    def on_start(self, state: TrainState) -> None:
        """Called before training begins or resumes."""

    def on_step(self, state: TrainState) -> None:
        """Called after each optimizer step."""

    def on_evaluation(self, state: TrainState) -> None:
        """Called after each entry in the history."""

    def on_epoch(self, state: TrainState) -> None:
        """Called after each pass over the training data."""

    def on_end(self, state: TrainState, error: BaseException | None) -> None:
        """Called once when the run ends, in whatever way, even if no other event followed ``on_start``.

        Args:
            state: State at the end, with the history.
            error: Exception that ended the run, for instance at a second Ctrl-C; ``None`` if it ended by itself, or if
                a callback or a first Ctrl-C (``state.interrupted``) stopped it.
        """


class FunctionCallback(Callback):
    """A callback that calls a function of the training state.

    Args:
        function: Function to call with the state.
        events: Events at which to call it; ``None`` for all.

    Raises:
        TypeError: If it is not a function, for instance the class of a callback.
    """

    def __init__(self, function: Callable[[TrainState], object], events: Sequence[Event] | None = None) -> None:
        if isinstance(function, type):
            raise TypeError(f"a callback should be an object, not a class; pass {function.__name__}(...)")
        if not callable(function):
            raise TypeError(
                f"a callback should be a Callback or a function of the training state, got {of_type(function)}"
            )
        self.function, self.events = function, events

    @override
    def __repr__(self) -> str:
        return f"FunctionCallback({self.function!r}, {self.events!r})"

    def _call(self, state: TrainState) -> None:
        if self.events is None or state.event in self.events:
            self.function(state)

    @override
    def on_start(self, state: TrainState) -> None:
        self._call(state)

    @override
    def on_step(self, state: TrainState) -> None:
        self._call(state)

    @override
    def on_evaluation(self, state: TrainState) -> None:
        self._call(state)

    @override
    def on_epoch(self, state: TrainState) -> None:
        self._call(state)

    @override
    def on_end(self, state: TrainState, error: BaseException | None) -> None:
        self._call(state)


def on_step(function: Callable[[TrainState], object]) -> Callback:
    """Returns a callback that calls a function after each optimizer step.

    Raises:
        TypeError: If it is not a function.

    >>> def report(state):
    ...     print(state.step, state.loss)
    >>> isinstance(on_step(report), Callback)
    True
    """
    return FunctionCallback(function, ("step",))


def on_evaluation(function: Callable[[TrainState], object]) -> Callback:
    """Returns a callback that calls a function after each entry in the history.

    Raises:
        TypeError: If it is not a function.

    >>> def stop_when_good(state):
    ...     if state.history.train_losses[-1] < 3:
    ...         state.stop()
    >>> isinstance(on_evaluation(stop_when_good), Callback)
    True
    """
    return FunctionCallback(function, ("evaluation",))


def on_epoch(function: Callable[[TrainState], object]) -> Callback:
    """Returns a callback that calls a function after each pass over the training data.

    Raises:
        TypeError: If it is not a function.

    >>> isinstance(on_epoch(lambda state: print(state.epoch)), Callback)
    True
    """
    return FunctionCallback(function, ("epoch",))


def as_callback(callback: Callback | Callable[[TrainState], object]) -> Callback:
    """Returns a callback unchanged, and a function as a callback for every event.

    Raises:
        TypeError: If it is neither, for instance the class of a callback.
    """
    return callback if isinstance(callback, Callback) else FunctionCallback(callback)


class Callbacks:
    """The callbacks of a run.

    Args:
        callbacks: Callbacks, called in this order at every event.
        first: Whether this is the only process, or the first of several; otherwise only some are called.
    """

    def __init__(self, callbacks: Sequence[Callback | Callable[[TrainState], object]], *, first: bool = True) -> None:
        every = [as_callback(callback) for callback in callbacks]
        self.callbacks = [callback for callback in every if first or callback.every_rank]
        self._begun: list[Callback] = []

    def emit(self, state: TrainState, event: Event) -> None:
        """Calls all callbacks at an event other than the end."""
        state.event = event
        for callback in self.callbacks:
            if event == "start":
                self._begun.append(callback)
            getattr(callback, f"on_{event}")(state)

    def end(self, state: TrainState, error: BaseException | None) -> None:
        """Calls ``on_end`` of all callbacks that were started, even if one of them fails.

        Raises:
            BaseException: The first that one of them raised, for instance at a second Ctrl-C, if the run did not end
                with an error itself.
        """
        state.event = "end"
        first = error
        while self._begun:
            callback = self._begun.pop(0)
            try:
                callback.on_end(state, error)
            except BaseException as raised:  # noqa: BLE001 - raised below, after the others are called
                if first is None:
                    first = raised
                else:
                    first.add_note(f"and then, at the end of the run: {raised!r}")
        if first is not None and error is None:
            raise first

    def state_dict(self) -> list[dict[str, Any]]:
        """Returns the states of the callbacks that have one, with their types.

        Raises:
            TypeError: If JSON cannot hold a state.
        """
        names = [type(owner).__qualname__ for owner in self._with_state()]
        return [
            {"type": name, "state": check_json(f"the state_dict() of the callback {name}", owner.state_dict())}
            for name, owner in zip(names, self._with_state(), strict=True)
        ]

    def load_state_dict(self, states: Sequence[dict[str, Any]]) -> None:
        """Restores each callback with a state from the next saved state of its type."""
        left = list(states)
        for owner in self._with_state():
            saved = next((state for state in left if state["type"] == type(owner).__qualname__), None)
            if saved is not None:
                owner.load_state_dict(saved["state"])
                left.remove(saved)

    def _with_state(self) -> list[Any]:
        owners = [c.function if isinstance(c, FunctionCallback) else c for c in self.callbacks]
        return [owner for owner in owners if hasattr(owner, "state_dict") and hasattr(owner, "load_state_dict")]
