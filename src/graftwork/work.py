"""Work on a run that can be stopped: what every verb that trains has around its training.

The run's state stays true, SIGINT and SIGTERM end it at the next step with a checkpoint, and of several processes one
writes.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from graftwork.hardware import Hardware, World, reset_peak_memory
from graftwork.loop import StopRequested
from graftwork.run import Run

OnEvent = Callable[[dict[str, Any]], None]


class Interrupted(Exception):  # noqa: N818
    """The run was asked to stop; it can be resumed. `run` is the run."""

    run: Run | None = None


class Work:
    """One execution of a run, from its beginning or a checkpoint. Subclasses say what is done, in `_execute`.

    Args:
        run: which folder it leaves.
        hardware: what it computes on.
        world: the processes that share it.
        on_event: is told what happens, as it happens.
        began: `time.perf_counter()` when the user's request came.
    """

    def __init__(self, run: Run, hardware: Hardware, world: World, on_event: OnEvent | None, began: float):
        self.run, self.hardware, self.world, self.told, self.began = run, hardware, world, on_event, began
        self.checkpoint = run.path / "checkpoint" / "latest.safetensors"
        self.stop = threading.Event()
        reset_peak_memory()

    def execute(self) -> Run:
        """Do it all.

        Raises:
            Interrupted: a signal came; a checkpoint has been written.
        """
        with self._working(), _stopped_by_signals(self.stop), self._threads():
            try:
                self._execute()
            except StopRequested as stopped:
                error = Interrupted(f"{stopped}. Go on with: graft resume {self.run.path}")
                error.run = self.run
                raise error from None
        return self.run

    def _execute(self) -> None:
        raise NotImplementedError

    def _precision(self) -> str:
        """What the run began with, where it is resumed; one for all processes."""
        precision = self.run.happened.get("precision") or self.hardware.chosen_precision()
        return "bf16" if self.world.agree(precision == "bf16") else "fp32"

    @contextmanager
    def _working(self) -> Iterator[None]:
        if not self.world.leads:
            yield
            return
        with self.run.working():
            yield

    @contextmanager
    def _threads(self) -> Iterator[None]:
        before = torch.get_num_threads()
        torch.set_num_threads(self.hardware.threads or before)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def _lead(self, action: Callable[[], Any]) -> None:
        """Do something that only one process may do, while the others wait."""
        if self.world.leads:
            action()
        self.world.wait()

    def _on_event(self, **event: Any) -> None:
        if not self.world.leads:
            return
        if event["event"] in ("step", "evaluation", "note"):
            self.run.log(**event)
        if self.told:
            self.told(event)


@contextmanager
def _stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """While open, SIGINT and SIGTERM ask for a stop at the next step; a second one stops at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, _frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
