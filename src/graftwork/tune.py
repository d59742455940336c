"""tune: a recipe's hyper-parameters, chosen on validation within so many trials.

Every method of a race gets the same number of trials, the first of which is its defaults, and every trial the budget of
one run. What is worth trying stands with each method (`Method.tunable`). The test split is not read.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftwork.choice import InputError
from graftwork.disk import atomic_write
from graftwork.fit import Request, start
from graftwork.method import Method, recipe_of
from graftwork.run import as_json, plain_cause
from graftwork.tasks import task_of

if TYPE_CHECKING:
    import optuna

    from graftwork.data import Data

OnEvent = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Trial:
    """One set of hyper-parameters that was tried."""

    settings: dict[str, Any]
    """`STAGE.FIELD` -> value."""
    score: float | None
    """On validation, in [0, 1]; of a trial that was given up, the last one seen; None where there was none."""
    state: str
    """`done`, `pruned` (it lagged behind the others) or `failed`."""


@dataclass(frozen=True)
class Tuned:
    """What the trials came to."""

    spec: list[dict[str, Any]]
    """The recipe with the settings that did best."""
    trials: list[Trial]

    @property
    def recipe(self) -> tuple[Method, ...]:
        """The stages."""
        return recipe_of(self.spec)


def tune(request: Request, data: Data, folder: Path, trials: int, *, on_event: OnEvent | None = None) -> Tuned:
    """Try hyper-parameters of a request's recipe; a search that is finished in `folder` is not made again.

    Akiba et al. 2019, Optuna: tree-structured Parzen estimators (Bergstra et al. 2011, section 4), and trials that lie
    below the median of the others at the same validation are given up (Golovin et al. 2017, section 3.2).

    Args:
        request: what a run is asked; its seed is that of the search, too.
        data: what it is asked of.
        folder: where trials run, and where what was found is kept.
        trials: how many, at least 1; the first is the recipe as it is.
        on_event: is told what the runs tell.

    Raises:
        InputError: optuna is not installed.
        RuntimeError: every trial failed.
    """
    found = folder / "tuned.json"
    if found.is_file():
        told = json.loads(found.read_text(encoding="utf-8"))
        return Tuned(told["spec"], [Trial(**trial) for trial in told["trials"]])
    optuna = require_optuna()
    search = _Search(request, data, folder, on_event)
    sampler = optuna.samplers.TPESampler(seed=request.seed, n_startup_trials=min(5, max(2, trials // 2)))
    study = optuna.create_study(direction="maximize", sampler=sampler, pruner=optuna.pruners.MedianPruner(2, 1))
    study.enqueue_trial(search.defaults())
    study.optimize(search.score, n_trials=trials, catch=(RuntimeError, MemoryError))
    done = [t for t in search.trials if t.state == "done"]
    if not done:
        raise RuntimeError(f"Every trial failed. The first: {search.causes[0]}")
    best = max(done, key=lambda trial: trial.score or 0.0)
    tuned = Tuned([m.spec() for m in _with(request.recipe, best.settings)], search.trials)
    atomic_write(found, as_json(asdict(tuned), indent=1).encode())
    return tuned


class _Search:
    """What optuna asks, one trial after the other."""

    def __init__(self, request: Request, data: Data, folder: Path, on_event: OnEvent | None):
        self.request, self.data, self.folder, self.told = request, data, folder, on_event
        self.metric = task_of(data).selection
        self.trials: list[Trial] = []
        self.causes: list[str] = []

    def defaults(self) -> dict[str, Any]:
        """The recipe as it is, as a trial."""
        return {name: getattr(method, field) for name, method, field, _ in self._space()}

    def score(self, trial: optuna.Trial) -> float:
        """Fit with what optuna suggests, and score on validation."""
        settings = {name: _suggested(trial, name, method, field, how) for name, method, field, how in self._space()}
        recipe = [m.spec() for m in _with(self.request.recipe, settings)]
        path = self.folder / f"trial-{trial.number}"
        last: list[float] = []

        def hear(event: dict[str, Any]) -> None:
            if self.told:
                self.told(event)
            if event["event"] == "evaluation" and event.get(self.metric) is not None:
                last.append(event[self.metric])
                trial.report(event[self.metric], event["step"])
                if trial.should_prune():
                    raise require_optuna().TrialPruned

        try:
            asked = self.request.model_copy(update={"method": recipe})
            run = start(asked, self.data, path, force=True, on_event=hear)
        except require_optuna().TrialPruned:
            self.trials.append(Trial(settings, last[-1], "pruned"))
            raise
        except (RuntimeError, MemoryError) as error:
            self.causes.append(plain_cause(error))
            self.trials.append(Trial(settings, last[-1] if last else None, "failed"))
            raise
        finally:
            shutil.rmtree(path / "model", ignore_errors=True)  # of a trial the score is kept
            shutil.rmtree(path / "checkpoint", ignore_errors=True)
        score = float(run.metrics["validation"][self.metric])
        self.trials.append(Trial(settings, score, "done"))
        return score

    def _space(self) -> list[tuple[str, Method, str, Any]]:
        """(`STAGE.FIELD`, the stage, the field, how it is tried)."""
        return [
            (f"{number}.{field}", method, field, how)
            for number, method in enumerate(self.request.recipe)
            for field, how in method.tunable.items()
        ]


def _suggested(trial: optuna.Trial, name: str, method: Method, field: str, how: Any) -> Any:
    if isinstance(how, tuple):
        default = getattr(method, field)
        return trial.suggest_categorical(name, list(dict.fromkeys([default, *how])))
    default = float(getattr(method, field))
    highest = min(default * how, 0.999) if field == "lr" else default * how
    return trial.suggest_float(name, default / how, highest, log=True)


def _with(recipe: Sequence[Method], settings: dict[str, Any]) -> list[Method]:
    """The stages with settings `STAGE.FIELD` put in."""
    stages = list(recipe)
    for name, value in settings.items():
        number, _, field = name.partition(".")
        stages[int(number)] = stages[int(number)].model_copy(update={field: value})
    return stages


def require_optuna() -> Any:
    """The library that searches.

    Raises:
        InputError: it is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise InputError(
            "Tuning needs optuna. Run: pip install graftwork[tune]. Or leave --trials out: every method then races "
            "with its defaults."
        ) from None
    optuna.logging.set_verbosity(logging.WARNING)
    return optuna
