"""The command line: one function a verb, each thin. The verbs do the work; here it is only asked for and told.

What is for people goes to stdout, progress and errors to stderr; with `--json` stdout holds exactly one JSON object and
people read stderr. Exit codes: 0 done, 1 the run failed, 2 the input was wrong, 130 interrupted.

Nothing heavy is imported before a verb runs, so that `graft --help` answers at once.
"""

from __future__ import annotations

import functools
import inspect
import logging
import os
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graftwork.cli import options as typed

if TYPE_CHECKING:
    from graftwork.choice import Choice
    from graftwork.cli.screen import Screen
    from graftwork.run import Run

DONE, FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130
# Sized for two CPU cores: with everything around the fit, the demo ends within two minutes.
DEMO_BUDGET = "45s"
DEMO_SENTENCE = "Wait until all the tasks of the group have finished."

app = typer.Typer(
    name="graft",
    help="Take a pretrained Transformer to your task, and see why the result is good. To begin: graft demo",
    epilog="Exit codes: 0 done, 1 the run failed, 2 the input was wrong, 130 interrupted.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """The entry point of `graft`."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = app(prog_name="graft", standalone_mode=False)
    except typer.Abort:
        code = INTERRUPTED
    except typer.TyperException as error:
        said = getattr(error, "format_message", error.__str__)()
        code = _refuse(_screen("--json" in sys.argv), f"{' '.join(said.split())} See: graft --help")
    sys.exit(code)


def verb(*, json: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Puts a function on the command line; whatever leaves it becomes a sentence and an exit code.

    Args:
        json: the keys of the object it answers with, for its help.
    """

    def put(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def guarded(**asked: Any) -> None:
            _quiet()
            try:
                function(**asked)
                sys.stdout.flush()
            except (typer.Exit, typer.TyperException):
                raise
            except BrokenPipeError:
                # The reader has seen enough; the interpreter's last flush must not complain either.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            except BaseException as error:
                raise typer.Exit(_explain(_screen(asked["as_json"]), error)) from None

        return app.command(epilog=f"With --json: {json}.")(guarded)

    return put


@app.callback(invoke_without_command=True)
def graft(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Without a verb: what there is."""
    if version:
        from graftwork import __version__

        print(__version__)  # noqa: T201
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


# The road: check, fit, evaluate, predict


@verb(json="ok, errors, warnings, notes (counts), findings, summary, ledger, data")
def check(
    data: typed.Source,
    model: typed.Model = None,
    task: typed.Task = None,
    text: typed.Text = None,
    label: typed.Label = None,
    multi_label: typed.MultiLabel = None,
    drop: typed.Drop = None,
    validation: typed.Validation = None,
    test: typed.Test = None,
    target: typed.Target = None,
    limit: typed.Limit = None,
    data_seed: typed.DataSeed = None,
    out: typed.Out = None,
    as_json: typed.Json = False,
) -> None:
    """Say what is wrong with the data, where, and what to do. Trains nothing; exit code 2 if there are errors."""
    from graftwork.check import check
    from graftwork.cli.asked import known, load_options

    screen = _screen(as_json)
    load = load_options(
        text=text, label=label, multi_label=multi_label, drop=drop, validation=validation, test=test, target=target,
        limit=limit, seed=data_seed, task=task,
    )  # fmt: skip
    report = check(data, **known(model=model, out=out), **load).as_dict()
    screen.findings(report["findings"])
    screen.data(report)
    screen.answer(**report)
    raise typer.Exit(DONE if report["ok"] else WRONG_INPUT)


@verb(json="run (its folder), state, report, metrics {split: {...}}, cost, happened, findings")
def fit(
    data: typed.Request,
    model: typed.Model = None,
    method: typed.Methods = None,
    settings: typed.Settings = None,
    task: typed.Task = None,
    budget: typed.Budget = None,
    seed: typed.Seed = None,
    coverage: typed.Coverage = None,
    out: typed.Out = None,
    force: typed.Force = False,
    evaluate: typed.Evaluate = True,
    text: typed.Text = None,
    label: typed.Label = None,
    multi_label: typed.MultiLabel = None,
    drop: typed.Drop = None,
    validation: typed.Validation = None,
    test: typed.Test = None,
    target: typed.Target = None,
    limit: typed.Limit = None,
    shots: typed.Shots = None,
    data_seed: typed.DataSeed = None,
    device: typed.Device = None,
    precision: typed.Precision = None,
    max_tokens: typed.MaxTokens = None,
    threads: typed.Threads = None,
    checkpoint_seconds: typed.CheckpointSeconds = None,
    as_json: typed.Json = False,
) -> None:
    """Fit a model to data, score it on the test split, and write a report. Ctrl-C saves; `graft resume` goes on."""
    from graftwork.cli.asked import known, load_options, request

    hardware = known(
        device=device,
        precision=precision,
        max_tokens=max_tokens,
        threads=threads,
        checkpoint_seconds=checkpoint_seconds,
    )
    load = load_options(
        text=text, label=label, multi_label=multi_label, drop=drop, validation=validation, test=test, target=target,
        limit=limit, shots=shots, seed=data_seed,
    )  # fmt: skip
    asked = request(
        data, data=load, methods=method, settings=settings, hardware=hardware, model=model, task=task, budget=budget,
        seed=seed, coverage=coverage, out=out and str(out),
    )  # fmt: skip
    screen = _screen(as_json)
    run = _fit(screen, asked, force=force)
    _score_and_show(screen, run, evaluate=evaluate)
    screen.answer(**_told(run))


@verb(json="run, state, report, metrics {split: {...}}, cost, happened, findings")
def resume(run: typed.Folder, evaluate: typed.Evaluate = True, as_json: typed.Json = False) -> None:
    """Go on with an interrupted run from its last checkpoint, as if nothing had happened."""
    from graftwork.run import Run

    screen = _screen(as_json)
    opened = Run.open(run)
    opened.require_unfinished()
    from graftwork.fit import resume

    with screen.progress() as meter:
        finished = resume(opened, on_event=meter)
    _score_and_show(screen, finished, evaluate=evaluate)
    screen.answer(**_told(finished))


@verb(json="run, split, rows, metrics, report")
def evaluate(
    run: typed.Folder,
    data: Annotated[str | None, typer.Argument(help="Other labelled data; by default the run's own.")] = None,
    split: typed.Split = "test",
    text: typed.Text = None,
    label: typed.Label = None,
    drop: typed.Drop = None,
    as_json: typed.Json = False,
) -> None:
    """Score a finished run on its test split, or on other data."""
    from graftwork.choice import InputError
    from graftwork.cli.asked import load_options
    from graftwork.run import Run

    screen = _screen(as_json)
    opened = Run.open(run)
    from graftwork.evaluate import evaluate

    load = load_options(text=text, label=label, drop=drop)
    if load and data is None:
        raise InputError("--text, --label and --drop belong to other data: give it after the run.")
    metrics = evaluate(opened, data, split=split, **load)
    screen.metrics({metrics["split"]: metrics})
    report = opened.path / "report.html" if data is None else None
    if report:
        screen.say(f"Report: {report}")
    screen.answer(run=opened.path, split=metrics.pop("split"), rows=metrics.pop("rows"), metrics=metrics, report=report)


@verb(json="run, predictions [{text, label, confidence, unsure, probabilities}]; with --out: run, out, rows")
def predict(
    run: typed.Folder,
    text: Annotated[str, typer.Argument(metavar="TEXT|FILE", help="A text, a file of texts, or - for standard input.")],
    column: typed.Text = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A .csv or .jsonl to write to.")] = None,
    as_json: typed.Json = False,
) -> None:
    """Predict a text, or a row at a time of a file (.txt: a text a line)."""
    from graftwork.cli.asked import inputs
    from graftwork.cli.tables import write_predictions
    from graftwork.run import Run

    screen = _screen(as_json)
    opened = Run.open(run)
    texts = inputs(text, column=column, usual_column=(opened.asked.get("data") or {}).get("text"))
    from graftwork.fit import predict

    rows = [{"text": given} | answer for given, answer in zip(texts, predict(opened, texts), strict=True)]
    if out:
        write_predictions(out, rows)
        screen.say(f"{len(rows):,} predictions: {out}")
        screen.answer(run=opened.path, out=out, rows=len(rows))
        return
    if len(rows) == 1 and texts == [text]:
        screen.prediction(rows[0])
    elif not as_json:
        write_predictions(sys.stdout, rows)
    screen.answer(run=opened.path, predictions=rows)


@verb(
    json="path, metric, budget, seeds, verdict, taken, use, entries [{name, mean, low, high, sd, behind, p, tied, "
    "seconds, ...}], curve, prospects, findings, suspects, differs, tuned, failed, data, environment"
)
def compare(
    data: typed.Source,
    methods: typed.Racing = None,
    models: typed.RacingModels = None,
    baselines: typed.Baselines = None,
    seeds: typed.Seeds = 3,
    budget: typed.Budget = None,
    shots: typed.Curve = None,
    trials: typed.Trials = 0,
    out: typed.ComparisonOut = None,
    task: typed.Task = None,
    text: typed.Text = None,
    label: typed.Label = None,
    multi_label: typed.MultiLabel = None,
    drop: typed.Drop = None,
    validation: typed.Validation = None,
    test: typed.Test = None,
    limit: typed.Limit = None,
    data_seed: typed.DataSeed = None,
    device: typed.Device = None,
    precision: typed.Precision = None,
    max_tokens: typed.MaxTokens = None,
    threads: typed.Threads = None,
    as_json: typed.Json = False,
) -> None:
    """Race methods under one budget and several seeds, and say which to take. Asked again, it goes on where it was."""
    from graftwork.cli.asked import known, load_options, recipes, whole_numbers, words
    from graftwork.compare import compare

    load = load_options(
        text=text, label=label, multi_label=multi_label, drop=drop, validation=validation, test=test, limit=limit,
        seed=data_seed, task=task,
    )  # fmt: skip
    screen = _screen(as_json)
    with screen.progress() as meter:
        found = compare(
            {"source": data, **load},
            **known(methods=recipes(methods), models=words(models), budget=budget, out=out),
            baselines=None if baselines is None else [word for word in words(baselines) if word != "none"],
            seeds=seeds,
            shots=whole_numbers("--shots", shots),
            trials=trials,
            hardware=known(device=device, precision=precision, max_tokens=max_tokens, threads=threads),
            on_event=meter,
        )
    screen.comparison(found.as_dict())
    screen.answer(**found.as_dict())


@verb(
    json="advised, options [{name, model, spec, baseline, score, low, high, seconds, model_mb, latency_ms, reason, "
    "command}], left_out [{name, model, why}], labels [{rows, mean, low, high}], models, metric, seconds, said"
)
def advise(
    data: typed.Source,
    methods: typed.Advised = None,
    models: typed.RacingModels = None,
    budget: typed.Budget = None,
    max_size: typed.MaxSize = None,
    max_latency: typed.MaxLatency = None,
    task: typed.Task = None,
    text: typed.Text = None,
    label: typed.Label = None,
    multi_label: typed.MultiLabel = None,
    drop: typed.Drop = None,
    validation: typed.Validation = None,
    test: typed.Test = None,
    limit: typed.Limit = None,
    shots: typed.Shots = None,
    data_seed: typed.DataSeed = None,
    device: typed.Device = None,
    precision: typed.Precision = None,
    max_tokens: typed.MaxTokens = None,
    threads: typed.Threads = None,
    as_json: typed.Json = False,
) -> None:
    """In about a minute: which model and method to take, and what score, time, size and latency to expect of them."""
    from graftwork.advise import advise
    from graftwork.cli.asked import known, load_options, measure, recipes, words

    limits = known(
        max_size=measure("--max-size", max_size, "MB"), max_latency=measure("--max-latency", max_latency, "ms")
    )
    load = load_options(
        text=text, label=label, multi_label=multi_label, drop=drop, validation=validation, test=test, limit=limit,
        shots=shots, seed=data_seed, task=task,
    )  # fmt: skip
    screen = _screen(as_json)
    with screen.progress() as meter:
        advice = advise(
            {"source": data, **load},
            **known(methods=recipes(methods), models=words(models), budget=budget),
            **limits,
            hardware=known(device=device, precision=precision, max_tokens=max_tokens, threads=threads),
            on_event=meter,
        )
    screen.advice(advice.as_dict())
    screen.answer(**advice.as_dict())


@verb(json="ranked [{model, layer, scores {logme, h-score, neighbours, probe}, seconds}]")
def rank(
    data: typed.Source,
    models: typed.RacingModels = None,
    layers: typed.Layers = False,
    text: typed.Text = None,
    label: typed.Label = None,
    device: typed.Device = None,
    as_json: typed.Json = False,
) -> None:
    """Which encoder suits the data, or which of its layers, before anything is trained."""
    from graftwork.cli.asked import known, load_options, words
    from graftwork.rank import rank

    screen = _screen(as_json)
    load = load_options(drop=None, text=text, label=label)
    found = rank({"source": data, **load}, layers=layers, **known(models=words(models)), hardware=known(device=device))
    ranked = [each.as_dict() for each in found]
    screen.ranked(ranked)
    screen.answer(ranked=ranked)


@verb(json="method, rates, losses, suggested, highest, default, advised")
def rate_test(
    data: typed.Source,
    method: typed.Methods = None,
    model: typed.Model = None,
    settings: typed.Settings = None,
    steps: typed.Steps = 80,
    seed: typed.Seed = None,
    task: typed.Task = None,
    text: typed.Text = None,
    label: typed.Label = None,
    shots: typed.Shots = None,
    device: typed.Device = None,
    precision: typed.Precision = None,
    threads: typed.Threads = None,
    as_json: typed.Json = False,
) -> None:
    """Which learning rates work here: the rate rises step by step while the loss is watched. Keeps nothing."""
    from graftwork.choice import InputError
    from graftwork.cli.asked import DEFAULT_METHOD, known, load_options, with_settings, words
    from graftwork.rate_test import rate_test

    stages = with_settings(words(method) or DEFAULT_METHOD, settings or [])
    if len(stages) > 1:
        raise InputError(f"A rate test is of one method; got the recipe {', '.join(n for s in stages for n in s)}.")
    load = load_options(drop=None, text=text, label=label, shots=shots, task=task)
    screen = _screen(as_json)
    found = rate_test(
        {"source": data, **load},
        method=stages[0],
        steps=steps,
        **known(model=model, seed=seed),
        hardware=known(device=device, precision=precision, threads=threads),
    ).as_dict()
    screen.rates(found)
    screen.answer(**found)


# What there is


@verb(json="runs [{run, state, cause, model, method, data, created, seconds, metrics}]")
def runs(
    root: Annotated[Path, typer.Argument(help="The folder that holds the runs.")] = Path("runs"),
    as_json: typed.Json = False,
) -> None:
    """List the runs of a folder, oldest first, with their true state."""
    from graftwork.cli.tables import run_row
    from graftwork.run import Run

    screen = _screen(as_json)
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

    screen = _screen(as_json)
    opened = Run.open(run)
    path = report(opened)
    screen.say(str(path))
    screen.answer(run=opened.path, report=path)


@verb(json="methods [{name, sentence, paper, fields [{name, type, range, default, sentence}]}]")
def methods(name: typed.Name = None, as_json: typed.Json = False) -> None:
    """List the methods, or everything about one: its fields with ranges, defaults and meaning, and its paper."""
    import graftwork.methods  # noqa: F401  puts them on their shelf
    from graftwork.method import Method

    _catalogue(_screen(as_json), "methods", Method, name)


@verb(json="tasks [{name, sentence, paper, fields [{name, type, range, default, sentence}]}]")
def tasks(name: typed.Name = None, as_json: typed.Json = False) -> None:
    """List the tasks, or everything about one."""
    import graftwork.tasks  # noqa: F401
    from graftwork.task import Task

    _catalogue(_screen(as_json), "tasks", Task, name)


@verb(json="models [{name, sentence}]; with a name also folder, type, layers, width, vocabulary, positions, mb")
def models(name: typed.Name = None, as_json: typed.Json = False) -> None:
    """List the embedded models, or look into one of them, a folder, or a hub id."""
    from graftwork.cli.tables import model_row
    from graftwork.models import EMBEDDED

    screen = _screen(as_json)
    rows = [model_row(name)] if name else [{"name": key, "sentence": model.sentence} for key, model in EMBEDDED.items()]
    if name:
        screen.facts(rows[0])
    else:
        screen.table(("model", ""), [(row["name"], row["sentence"]) for row in rows])
        screen.say("\nAlso: any folder with config.json and model.safetensors, or a hub id such as organisation/name.")
    screen.answer(models=rows)


@verb(json="run, state, report, metrics, cost, happened, findings, text, prediction")
def demo(
    text: Annotated[str | None, typer.Option("--text", help="A sentence about a piece of a program.")] = None,
    budget: typed.Budget = DEMO_BUDGET,
    out: typed.Out = None,
    force: typed.Force = False,
    as_json: typed.Json = False,
) -> None:
    """From data to a model you can ask, offline, in two minutes: to which module of Python does a sentence belong."""
    from graftwork.check import check
    from graftwork.cli.asked import known

    screen = _screen(as_json)
    screen.say("1/4  check: the first sentences of the docstrings that every Python carries, by module", "bold")
    checked = check("pydocs").as_dict()
    screen.findings(checked["findings"])
    screen.data(checked)
    screen.say(f"\n2/4  fit: full fine-tuning of the embedded model, for {budget}", "bold")
    run = _fit(screen, known(data="pydocs", budget=budget, out=out and str(out)), force=force)
    screen.say("\n3/4  evaluate: on texts it has not seen", "bold")
    _score_and_show(screen, run, evaluate=True)
    screen.say("\n4/4  predict", "bold")
    if text is None and sys.stdin.isatty() and not as_json:
        text = typer.prompt("Type a sentence about a piece of a program", default=DEMO_SENTENCE)
    from graftwork.fit import predict

    text = text or DEMO_SENTENCE
    answer = predict(run, [text])[0]
    screen.prediction({"text": text} | answer)
    screen.answer(**_told(run), text=text, prediction=answer)


# Shared by the verbs


def _screen(as_json: bool) -> Screen:
    from graftwork.cli.screen import Screen

    return Screen(json=as_json)


def _fit(screen: Screen, asked: dict[str, Any], *, force: bool) -> Run:
    from graftwork.fit import fit

    with screen.progress() as meter:
        return fit(**asked, force=force, on_event=meter)


def _score_and_show(screen: Screen, run: Run, *, evaluate: bool) -> None:
    from graftwork.evaluate import evaluate as score

    if evaluate and run.data["rows"].get("test"):
        score(run)
    screen.metrics(run.metrics)
    screen.finished(run)


def _told(run: Run) -> dict[str, Any]:
    parts = run.as_dict()
    told = {part: parts[part] for part in ("state", "metrics", "cost", "happened", "findings")}
    return {"run": run.path, "report": run.path / "report.html"} | told


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


def _quiet() -> None:
    """Warnings of ours only: the bars and the advice of the libraries below speak to programmers."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    for name, value in {"TRANSFORMERS_VERBOSITY": "error", "TQDM_DISABLE": "1"}.items():
        os.environ.setdefault(name, value)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")


# What went wrong, in a sentence and an exit code


def _explain(screen: Screen, error: BaseException) -> int:
    from graftwork.choice import InputError

    if isinstance(error, InputError):
        return _refuse(screen, str(error), [finding.as_dict() for finding in getattr(error, "findings", ())])
    run = getattr(error, "run", None)
    if isinstance(error, KeyboardInterrupt) or type(error).__name__ == "Interrupted":
        return _interrupted(screen, run)
    return _failed(screen, error, run)


def _refuse(screen: Screen, said: str, findings: list[dict[str, Any]] | None = None) -> int:
    screen.complain(said)
    screen.answer(error=said, exit=WRONG_INPUT, **({"findings": findings} if findings else {}))
    return WRONG_INPUT


def _interrupted(screen: Screen, run: Run | None) -> int:
    said = f"Interrupted. Go on with: graft resume {run.path}" if run else "Interrupted."
    screen.complain(said)
    screen.answer(error=said, exit=INTERRUPTED, run=run and run.path)
    return INTERRUPTED


def _failed(screen: Screen, error: BaseException, run: Run | None) -> int:
    from graftwork.run import plain_cause

    said = (run and run.cause) or plain_cause(error)
    log = run.path / "log.txt" if run and (run.path / "log.txt").exists() else None
    if log is None:
        with tempfile.NamedTemporaryFile("w", prefix="graft-", suffix=".log", delete=False) as file:
            file.write("".join(traceback.format_exception(error)))
        log = Path(file.name)
    screen.complain(f"{said} The details are in {log}")
    screen.answer(error=said, exit=FAILED, log=log, run=run and run.path)
    return FAILED
