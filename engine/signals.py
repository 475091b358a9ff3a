"""Signals of a scheduler that ends a run before its time."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType


class StopSignals:
    """Remembers SIGTERM and SIGUSR1 for the time of a `with` block, in place of dying of them."""

    received: str | None = None

    def __enter__(self) -> StopSignals:
        self._before = {n: signal.signal(n, self._note) for n in (signal.SIGTERM, signal.SIGUSR1)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name
