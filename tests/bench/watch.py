"""How long one callback of a trainer takes: two of our own stand before and after it in the list."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import TrainerCallback

from klaudit.records import TextSample


class Watch(TrainerCallback):
    """Stands before klaudit, and times what lies between it and `Finish`."""

    def __init__(self) -> None:
        self.began_at = 0.0
        self.seconds: list[float] = []
        """Of each `on_log`."""
        self.step_end_seconds: list[float] = []
        """Of each `on_step_end`."""
        self.logs: list[dict[str, float]] = []
        self.samples: Sequence[TextSample] = ()

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, float] | None = None, **kwargs: Any) -> None:
        """Begin."""
        self.logs.append(dict(logs or {}))
        self.samples = kwargs.get("samples") or self.samples
        self.began_at = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin."""
        self.began_at = time.perf_counter()


class Finish(TrainerCallback):
    """The end of what `watch` began."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End."""
        self.watch.seconds.append(time.perf_counter() - self.watch.began_at)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End."""
        self.watch.step_end_seconds.append(time.perf_counter() - self.watch.began_at)
