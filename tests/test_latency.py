"""How long answers take, on a clock that runs as the test says."""

from __future__ import annotations

import pytest

from graftwork.latency import waited, waited_beside


class Clock:
    """Time goes by only where something is done; everything takes `load` times as long."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.now, self.load = 0.0, 1.0
        monkeypatch.setattr("time.perf_counter", lambda: self.now)
        monkeypatch.setattr("time.sleep", self.go)

    def go(self, seconds: float) -> None:
        self.now += seconds

    def asked(self, ms: float):
        """Something that takes so long for each input."""
        return lambda inputs: self.go(self.load * len(inputs) * ms / 1000)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def test_medians_and_rates(clock):
    found = waited(clock.asked(2.0), ["a", "b", "c"])
    assert found == {"ms_1_p50": 2.0, "ms_1_p95": 2.0, "ms_32_p50": 64.0, "ms_32_p95": 64.0, "per_second": 500.0}


def test_beside_another_a_busy_machine_changes_nothing(clock):
    slow, quick = clock.asked(4.0), clock.asked(1.0)
    known = waited(slow, ["a"])
    clock.load = 3.0
    assert waited_beside(quick, slow, known, ["a"]) == waited_beside(quick, slow, known, ["a"])
    found = waited_beside(quick, slow, known, ["a"])
    assert found["ms_1_p50"] == 1.0
    assert found["ms_32_p50"] == 32.0
    assert found["per_second"] == 1000.0
