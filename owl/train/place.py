"""Place: where a training run stands, between two steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from owl.data.loader import Loader
from owl.train.metrics import Totals


class Place:
    """The position in the data and in the epoch, and what the callbacks know."""

    def __init__(self) -> None:
        self.totals: Totals | None = None  # of the epoch that is not finished; None between two epochs
        self.trained = False  # whether that epoch lacks only its validation
        self.samples = 0  # of that epoch
        self._loaders: dict[str, dict[str, Any]] = {}
        self._reached: tuple[int, int] | None = None  # where the data's loader stands after the latest step
        self._callback_states: dict[str, Any] = {}
        self._loader: Loader | None = None
        self._validation: Loader | None = None
        self._callbacks: dict[str, Any] = {}

    @property
    def loaders(self) -> dict[str, dict[str, Any]]:
        """The loaders' states after the latest step."""
        if self._loader is not None and self._reached is not None:
            self._loaders["data"] = self._loader._state_at(*self._reached)
        return self._loaders

    def watch(self, loader: Loader, validation: Loader | None, callbacks: Sequence[Any]) -> None:
        """From now on the state is that of these; callbacks get what was known of them."""
        self._loaders, self._reached = self.loaders, None
        self._loader, self._validation, self._callbacks = loader, validation, {}
        for callback in callbacks:
            if hasattr(callback, "state") and hasattr(callback, "load_state"):
                name, number = type(callback).__name__, 1
                while name in self._callbacks:
                    number += 1
                    name = f"{type(callback).__name__} {number}"
                self._callbacks[name] = callback
                if name in self._callback_states:
                    callback.load_state(self._callback_states[name])

    def step(self, samples: int) -> None:
        """A step of so many samples was made."""
        assert self._loader is not None
        self._reached = self._loader._place()
        self.trained = self._reached[1] == 0
        self.samples += samples

    def state(self) -> dict[str, Any]:
        """All of it, but the totals as they are: a copy that goes on by itself."""
        if self._validation is not None:
            self._loaders["validation"] = self._validation.state()
        self._callback_states |= {name: callback.state() for name, callback in self._callbacks.items()}
        return {
            "totals": None if self.totals is None else self.totals.copy(),
            "trained": self.totals is not None and self.trained,
            "samples": 0 if self.totals is None else self.samples,
            "loaders": {name: dict(state) for name, state in self.loaders.items()},
            "callbacks": dict(self._callback_states),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Goes on from a state whose totals are numbers."""
        totals = None
        if state["totals"] is not None:
            totals = Totals()
            totals.load_state(state["totals"])
        loaders, callbacks = dict(state["loaders"]), dict(state["callbacks"])
        trained, samples = bool(state["trained"]), int(state["samples"])
        self.totals, self.trained, self.samples, self._loaders, self._reached = totals, trained, samples, loaders, None
        self._callback_states, self._callbacks, self._loader, self._validation = callbacks, {}, None, None
