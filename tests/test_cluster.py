"""A race on a Ray cluster of two workers: the same scores, and nothing is lost with a worker."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import psutil
import pytest

from graftwork import cluster
from graftwork.choice import InputError
from graftwork.compare import compare
from graftwork.run import Run


@pytest.fixture
def race(tiny, sources, tmp_path, monkeypatch):
    """A small race with an engine; its events stand in `race.events`."""
    monkeypatch.setenv("GRAFTWORK_CACHE", str(tmp_path / "cache"))

    def run(engine: str, out: str = "race"):
        run.events = []
        return compare(
            sources["classification"], models=[tiny], methods=["top-layers", "full-fine-tuning"],
            baselines=["majority"], seeds=2, budget="6steps", engine=engine, out=tmp_path / out,
            hardware={"device": "cpu", "precision": "fp32", "threads": 1}, on_event=run.events.append,
        )  # fmt: skip

    return run


@pytest.mark.slow
def test_a_race_on_two_workers_has_the_scores_of_one_here_though_a_worker_is_lost(race, monkeypatch):
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False)
    killed = threading.Event()

    def kill_one() -> None:
        until = time.monotonic() + 200
        while time.monotonic() < until and not killed.is_set():
            for process in psutil.process_iter(["cmdline"]):
                if "ray::_fitted_there" in " ".join(process.info["cmdline"] or []):
                    process.kill()
                    killed.set()
                    return
            time.sleep(0.05)

    threading.Thread(target=kill_one, daemon=True).start()
    there = race("ray")
    assert killed.is_set()
    assert sum("is back" in e.get("message", "") for e in race.events) == 4
    here = race("here", "here")
    scores = [{e["name"]: e["scores"] for e in found.entries} for found in (there, here)]
    assert scores[0] == scores[1]
    assert all(Run.open(there.path / run).state == "done" for entry in there.entries for run in entry["runs"])
    assert "Runs shared the machines of a cluster with each other: their times are rough." in there.as_dict()["differs"]
    assert {path.name for path in (there.path / "runs").iterdir()} == {
        Path(run).name for entry in there.entries for run in entry["runs"]
    }
    race("ray")  # nothing is sent again
    assert not any("sent to the cluster" in e.get("message", "") for e in race.events)


def test_an_engine_that_is_not_there_is_refused(race, monkeypatch):
    with pytest.raises(InputError, match="Unknown engine 'rya'"):
        race("rya")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install 'graftwork\\[ray\\]'"):
        cluster.require_ray()
