"""The road: from data to a fitted model, and to its answers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graftwork.cli import options as typed
from graftwork.cli.app import DONE, WRONG_INPUT, screen_of, verb

if TYPE_CHECKING:
    from graftwork.cli.screen import Screen
    from graftwork.run import Run

# Sized for two CPU cores: with everything around the fit, the demo ends within two minutes.
DEMO_BUDGET = "45s"
DEMO_SENTENCE = "Wait until all the tasks of the group have finished."
# Rows that were made are looked at, where they are not written.
SHOWN = 20


@verb(json="ok, errors, warnings, notes (counts), findings, summary, ledger, data")
def check(
    data: typed.Source,
    model: typed.Model = None,
    task: typed.Task = None,
    text: typed.Text = None,
    label: typed.Label = None,
    multi_label: typed.MultiLabel = None,
    positive: typed.Positive = None,
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

    screen = screen_of(as_json)
    load = load_options(
        text=text, label=label, multi_label=multi_label, drop=drop, validation=validation, test=test, target=target,
        limit=limit, seed=data_seed, task=task, positive=positive,
    )  # fmt: skip
    report = check(data, **known(model=model, out=out), **load).as_dict()
    screen.findings(report["findings"])
    screen.data(report)
    screen.answer(**report)
    raise typer.Exit(DONE if report["ok"] else WRONG_INPUT)


@verb(
    json="out, counts {kind: {asked, made, unchanged, repeated, held_out, flagged, dropped}}, rows {split: count}, "
    "asked, seconds, shown [{kind, row, original, augmented, label, flagged, answer}]"
)
def augment(
    data: typed.Source,
    with_: Annotated[
        list[str] | None,
        typer.Option("--with", help="Kinds (repeated, or with commas); by default those that suit the task."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KIND.FIELD=VALUE", help="A field of a kind, such as its model's folder."),
    ] = None,
    copies: Annotated[int, typer.Option(min=1, help="How many times each kind rewrites each row.")] = 1,
    rows: Annotated[int | None, typer.Option(min=1, help="Rewrite at most this many train rows, at random.")] = None,
    check_with: Annotated[
        Path | None, typer.Option("--check-with", metavar="RUN", help="A finished run that flags labels it doubts.")
    ] = None,
    drop_flagged: Annotated[bool, typer.Option("--drop-flagged", help="Leave flagged rows out.")] = False,
    show: Annotated[int | None, typer.Option(min=1, help="Print so many rows; 20 where none is written.")] = None,
    seed: typed.Seed = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The folder of splits to write.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace augmented data in that folder.")] = False,
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
    as_json: typed.Json = False,
) -> None:
    """Write train texts anew and look at them; with --out, keep them in a folder of splits that `graft fit` reads."""
    from graftwork.augment import augment
    from graftwork.cli.asked import known, load_options

    load = load_options(
        text=text, label=label, multi_label=multi_label, drop=drop, validation=validation, test=test, limit=limit,
        shots=shots, seed=data_seed, task=task,
    )  # fmt: skip
    screen = screen_of(as_json)
    shown = show or (0 if out else SHOWN)
    with screen.progress() as meter:
        found = augment(
            {"source": data, **load},
            with_=_kinds(with_, settings),
            copies=copies,
            rows=rows if out or rows else shown,  # to look at them, no more are needed
            check_with=check_with,
            drop_flagged=drop_flagged,
            out=out,
            force=force,
            hardware=known(device=device),
            on_event=meter,
            **known(seed=seed),
        )
    examples = found.preview(shown)
    told = {"out": found.out, **found.as_dict()}
    _show_augmented(screen, told, examples)
    screen.answer(**told, shown=examples)


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
    positive: typed.Positive = None,
    drop: typed.Drop = None,
    validation: typed.Validation = None,
    test: typed.Test = None,
    target: typed.Target = None,
    limit: typed.Limit = None,
    shots: typed.Shots = None,
    class_names: typed.ClassNames = None,
    data_seed: typed.DataSeed = None,
    device: typed.Device = None,
    precision: typed.Precision = None,
    max_tokens: typed.MaxTokens = None,
    threads: typed.Threads = None,
    checkpoint_seconds: typed.CheckpointSeconds = None,
    sharded: typed.Sharded = None,
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
        sharded=sharded,
    )
    load = load_options(
        text=text, label=label, multi_label=multi_label, drop=drop, validation=validation, test=test, target=target,
        limit=limit, shots=shots, class_names=class_names, seed=data_seed, positive=positive,
    )  # fmt: skip
    asked = request(
        data, data=load, methods=method, settings=settings, hardware=hardware, model=model, task=task, budget=budget,
        seed=seed, coverage=coverage, out=out and str(out),
    )  # fmt: skip
    screen = screen_of(as_json)
    run = _fit(screen, asked, force=force)
    _score_and_show(screen, run, evaluate=evaluate)
    screen.answer(**_told(run))


@verb(json="run, state, report, metrics {split: {...}}, cost, happened, findings")
def resume(run: typed.Folder, evaluate: typed.Evaluate = True, as_json: typed.Json = False) -> None:
    """Go on with an interrupted run from its last checkpoint, as if nothing had happened."""
    from graftwork.run import Run

    screen = screen_of(as_json)
    opened = Run.open(run)
    opened.require_unfinished()
    from graftwork.resume import resume

    with screen.progress() as meter:
        finished = resume(opened, on_event=meter)
    if finished.is_base:
        from graftwork.cli.language import show_pretrained

        return show_pretrained(screen, finished)
    _score_and_show(screen, finished, evaluate=evaluate)
    screen.answer(**_told(finished))


@verb(json="run, split, rows, metrics, report")
def evaluate(
    run: typed.Folder,
    data: Annotated[str | None, typer.Argument(help="Other labelled data; by default the run's own.")] = None,
    split: typed.Split = "test",
    text: typed.Text = None,
    label: typed.Label = None,
    positive: typed.Positive = None,
    drop: typed.Drop = None,
    as_json: typed.Json = False,
) -> None:
    """Score a finished run on its test split, or on other data."""
    from graftwork.choice import InputError
    from graftwork.cli.asked import load_options
    from graftwork.run import Run

    screen = screen_of(as_json)
    opened = Run.open(run)
    from graftwork.evaluate import evaluate

    load = load_options(text=text, label=label, positive=positive, drop=drop)
    if load and data is None:
        raise InputError("--text, --label, --positive and --drop belong to other data: give it after the run.")
    metrics = evaluate(opened, data, split=split, **load)
    screen.metrics({metrics["split"]: metrics})
    report = opened.path / "report.html" if data is None else None
    if report:
        screen.say(f"Report: {report}")
    screen.answer(run=opened.path, split=metrics.pop("split"), rows=metrics.pop("rows"), metrics=metrics, report=report)


@verb(json="run, predictions [{text, label, confidence, unsure, probabilities}]; with --out: run, out, rows")
def predict(
    run: typed.Folder,
    text: Annotated[
        str, typer.Argument(metavar="TEXT|FILE", help="A text, a file of texts, - for standard input; or pictures.")
    ],
    others: Annotated[
        list[str] | None,
        typer.Argument(metavar="[OTHER]...", help="What to compare it with: a text; of a model of triplets, two."),
    ] = None,
    column: typed.Text = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A .csv or .jsonl to write to.")] = None,
    memory: Annotated[
        str | None,
        typer.Option("--memory", help="Main memory for weights, such as 200MB; the rest is read from disk as needed."),
    ] = None,
    as_json: typed.Json = False,
) -> None:
    """Predict a text, or a row at a time of a file (.txt: a text a line; of several texts, with tabs between).

    A model of pictures takes a picture, a folder of them, or a table that names them.
    """
    from graftwork.cli.asked import compared, inputs, pictures
    from graftwork.cli.tables import write_predictions
    from graftwork.data import PAIR
    from graftwork.modalities import reads_pictures
    from graftwork.run import Run

    screen = screen_of(as_json)
    opened = None if (run / "graft.json").is_file() else Run.open(run)  # a saved model by itself answers, too
    usual = ((opened.asked.get("data") if opened else None) or {}).get("text")
    task, many = (opened.data.get("task"), opened.data.get("texts", 2)) if opened else _compares(run)
    compares = task == "similarity"
    read = pictures if reads_pictures(run / "model" if opened else run) else inputs
    texts = (
        compared(text, others or [], many, columns=column, usual_columns=usual)
        if compares
        else read(text, column=column, usual_column=usual, others=others or [])
    )
    from graftwork.fit import predict
    from graftwork.sharding import leads

    rows = [{"text": given} | answer for given, answer in zip(texts, predict(run, texts, memory=memory), strict=True)]
    if not leads():
        return
    told = [row | {"text": PAIR.join(row["text"])} for row in rows] if compares else rows
    if out:
        write_predictions(out, rows if out.suffix == ".jsonl" else told)
        screen.say(f"{len(rows):,} predictions: {out}")
        screen.answer(run=run, out=out, rows=len(rows))
        return
    if len(rows) == 1 and texts in ([text], [[text, *(others or [])]]):
        screen.prediction(told[0])
    elif not as_json:
        write_predictions(sys.stdout, told)
    screen.answer(run=run, predictions=rows)


def _compares(folder: Path) -> tuple[str, int]:
    """The task of a saved model, `similarity` for triplets too, and how many texts it compares."""
    from graftwork.intact import read_json

    task = next(iter(read_json(folder / "graft.json").get("task") or {"": None}))
    return ("similarity", 3) if task == "triplets" else (task, 2)


@verb(json="run, queries [{query, hits [{row, text, score}]}]")
def search(
    run: typed.Folder,
    query: Annotated[
        str, typer.Argument(metavar="QUERY|FILE", help="A text, a file of texts, or - for standard input.")
    ],
    corpus: Annotated[str, typer.Argument(metavar="CORPUS", help="A file of texts: .txt (a text a line), or a table.")],
    top: Annotated[int, typer.Option(min=1, help="How many texts to find.")] = 10,
    column: typed.Text = None,
    as_json: typed.Json = False,
) -> None:
    """Find the texts of a file that are nearest to a query, by the embeddings of any fitted model."""
    from graftwork.cli.asked import inputs, lines
    from graftwork.run import Run

    screen = screen_of(as_json)
    opened = Run.open(run)
    usual = (opened.asked.get("data") or {}).get("text")
    known = lines(corpus, column=column, usual_column=usual)
    asked = inputs(query, column=column, usual_column=usual)
    from graftwork.search import search

    found = search(opened, asked, known, top=top)
    for text, hits in zip(asked, found, strict=True):
        screen.say(text, "bold")
        for hit in hits:
            screen.say(f"{hit.score:7.3f}  {hit.text}")
    told = [{"query": text, "hits": [vars(hit) for hit in hits]} for text, hits in zip(asked, found, strict=True)]
    screen.answer(run=opened.path, queries=told)


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

    screen = screen_of(as_json)
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


def _kinds(said: list[str] | None, settings: list[str] | None) -> list[Any] | None:
    import graftwork.augmentations  # noqa: F401  puts them on their shelf
    from graftwork.augmentation import Augmentation
    from graftwork.choice import InputError
    from graftwork.cli.asked import with_settings, words

    kinds = words(said)
    unclear = [setting for setting in settings or [] if "." not in setting.partition("=")[0]]
    if settings and not kinds:
        raise InputError("--set belongs to a kind: name the kinds with --with.")
    if unclear and len(kinds) > 1:
        raise InputError(f"Say of which kind: --set {kinds[0]}.{unclear[0]}.")
    return with_settings([{kind: {}} for kind in kinds], settings or [], Augmentation) if kinds else None


def _show_augmented(screen: Screen, told: dict[str, Any], shown: list[dict[str, Any]]) -> None:
    for row in shown:
        doubted = f", flagged: the run says {_said(row['answer'])}" if row["flagged"] and row["answer"] else ""
        tags = row["label"] if isinstance(row["augmented"], list) else None
        screen.say(
            f"{row['kind']}, row {row['row']:,}" + (f", {_said(row['label'])}" if tags is None else "") + doubted
        )
        screen.say(f"        {row['original'] if tags is None else ' '.join(row['original'])}")
        words = zip(row["augmented"], tags or (), strict=False)
        made = " ".join(word if tag == "O" else f"{word}/{tag}" for word, tag in words) if tags else row["augmented"]
        screen.say(f"      → {made}")
    if shown:
        screen.say()
    columns = ("kind", *(name.replace("_", " ") for name in next(iter(told["counts"].values()))))
    screen.table(columns, [(kind, *(f"{n:,}" for n in each.values())) for kind, each in told["counts"].items()])
    if told["out"]:
        made = sum(each["made"] for each in told["counts"].values())
        screen.say(f"Train has {told['rows']['train']:,} rows, {made:,} of them made.", "bold green")
        screen.say(f"Fit it:  graft fit {told['out']}")
    else:
        screen.say("Nothing is written. Keep such rows, of all of train, with --out FOLDER.")


def _said(label: str | list[str]) -> str:
    return label if isinstance(label, str) else ", ".join(label) or "(no label)"


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
