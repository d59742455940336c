"""What there is: runs, methods, tasks, models."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graftwork.cli import options as typed
from graftwork.cli.app import screen_of, verb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from graftwork.choice import Choice
    from graftwork.cli.screen import Screen


@verb(json="runs [{run, state, cause, model, method, data, created, seconds, metrics}]")
def runs(
    root: Annotated[Path, typer.Argument(help="The folder that holds the runs.")] = Path("runs"),
    as_json: typed.Json = False,
) -> None:
    """List the runs of a folder, oldest first, with their true state."""
    from graftwork.cli.tables import run_row
    from graftwork.run import Run

    screen = screen_of(as_json)
    rows = [run_row(run) for run in Run.list(root)]
    screen.runs(rows)
    if not rows:
        screen.say(f"No runs in '{root}'. `graft fit DATA` makes one.")
    screen.answer(runs=rows)


@verb(json="run, report")
def report(run: typed.Folder, as_json: typed.Json = False) -> None:
    """Write a run's report.html again, and say where it is."""
    from graftwork.report import report
    from graftwork.run import Run

    screen = screen_of(as_json)
    opened = Run.open(run)
    path = report(opened)
    screen.say(str(path))
    screen.answer(run=opened.path, report=path)


@verb(json="methods [{name, sentence, paper, fields [{name, type, range, default, sentence}]}]; with --plot schedules")
def methods(
    name: typed.Name = None,
    plot: Annotated[bool, typer.Option("--plot", help="Draw how each schedule lets the learning rate go.")] = False,
    as_json: typed.Json = False,
) -> None:
    """List the methods, or everything about one: its fields with ranges, defaults and meaning, and its paper."""
    import graftwork.methods  # noqa: F401  puts them on their shelf
    from graftwork.method import Method

    screen = screen_of(as_json)
    if plot:
        from graftwork.cli.tables import schedule_rows

        rows = schedule_rows()
        screen.curves([(row["name"], row["factors"]) for row in rows])
        screen.answer(schedules=rows)
        return
    _catalogue(screen, "methods", Method, name)


@verb(json="heads [{name, sentence, paper, fields}], as methods")
def heads(name: typed.Name = None, as_json: typed.Json = False) -> None:
    """List the heads that any method can take (METHOD@HEAD), or everything about one."""
    import graftwork.heads  # noqa: F401
    from graftwork.head import Head

    _catalogue(screen_of(as_json), "heads", Head, name)


@verb(json="modifiers [{name, sentence, paper, fields}], as methods")
def modifiers(name: typed.Name = None, as_json: typed.Json = False) -> None:
    """List what can be added to a stage of any method (METHOD:MODIFIER), or everything about one."""
    import graftwork.modifiers  # noqa: F401
    from graftwork.modifier import Modifier

    _catalogue(screen_of(as_json), "modifiers", Modifier, name)


@verb(json="compressors [{name, sentence, paper, fields}], as methods")
def compressors(name: typed.Name = None, as_json: typed.Json = False) -> None:
    """List the steps of `graft compress`, or everything about one."""
    import graftwork.compressors  # noqa: F401
    from graftwork.compressor import Compressor

    _catalogue(screen_of(as_json), "compressors", Compressor, name)


@verb(json="schedules [{name, sentence, paper, fields}], as methods")
def schedules(name: typed.Name = None, as_json: typed.Json = False) -> None:
    """List the learning-rate schedules, or everything about one; `graft methods --plot` draws them."""
    from graftwork.schedule import Schedule

    _catalogue(screen_of(as_json), "schedules", Schedule, name)


@verb(json="optimizers [{name, sentence, paper, fields}], as methods")
def optimizers(name: typed.Name = None, as_json: typed.Json = False) -> None:
    """List the optimizers, or everything about one."""
    from graftwork.optimizer import Optimizer

    _catalogue(screen_of(as_json), "optimizers", Optimizer, name)


@verb(json="tasks [{name, sentence, paper, fields [{name, type, range, default, sentence}]}]")
def tasks(name: typed.Name = None, as_json: typed.Json = False) -> None:
    """List the tasks, or everything about one."""
    import graftwork.tasks  # noqa: F401
    from graftwork.task import Task

    _catalogue(screen_of(as_json), "tasks", Task, name)


@verb(json="models [{name, sentence}]; with a name also folder, type, layers, width, vocabulary, positions, mb")
def models(name: typed.Name = None, as_json: typed.Json = False) -> None:
    """List the embedded models, or look into one of them, a folder, or a hub id."""
    from graftwork.cli.tables import model_row
    from graftwork.models import EMBEDDED

    screen = screen_of(as_json)
    rows = [model_row(name)] if name else [{"name": key, "sentence": model.sentence} for key, model in EMBEDDED.items()]
    if name:
        screen.facts(rows[0])
    else:
        screen.table(("model", ""), [(row["name"], row["sentence"]) for row in rows])
        screen.say("\nAlso: any folder with config.json and model.safetensors, or a hub id such as organisation/name.")
    screen.answer(models=rows)


@verb(json="model, parameters, needs {fp32, bf16, 8 bits, 4 bits}, training, memory, gpus, fits, advice")
def plan(
    model: Annotated[str, typer.Argument(help="minilm, a folder, a run, or a hub id.")],
    as_json: typed.Json = False,
) -> None:
    """Say what a model takes in memory, where it fits on this machine, and what to do where it does not."""
    from graftwork.plan import plan

    screen = screen_of(as_json)
    told = plan(model).as_dict()
    rows = [(name, f"{need:.2f} GB", told["fits"][name]) for name, need in told["needs"].items()]
    screen.table((f"{told['parameters']:,} parameters", "to answer", "fits"), rows)
    screen.say(f"To train all of it: {told['training']:.2f} GB, and the states that gradients need.")
    screen.say(f"Here: {told['memory']:.1f} GB of memory; {_gpus(told['gpus'])}.")
    screen.say(told["advice"], "bold")
    screen.answer(**told)


def _gpus(free: Sequence[float]) -> str:
    return f"GPUs with {', '.join(f'{each:.1f}' for each in free)} GB" if free else "no GPU"


def _catalogue(screen: Screen, what: str, shelf: type[Choice], name: str | None) -> None:
    from graftwork.choice import lookup, names
    from graftwork.cli.tables import choice_row

    rows = [choice_row(lookup(shelf, each)) for each in ([name] if name else names(shelf))]
    if name:
        screen.choice(rows[0], inspect.getdoc(lookup(shelf, name)) or "")
    else:
        screen.table((what, "", "paper"), [(row["name"], row["sentence"], row["paper"]) for row in rows])
        screen.say(f"\n`graft {what} NAME` shows the fields of one.")
    screen.answer(**{what: rows})
