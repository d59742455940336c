"""What comes after a fit: another domain, a smaller model, a folder to deploy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from graftwork.cli import options as typed
from graftwork.cli.app import DONE, FAILED, screen_of, verb


@verb(
    json="model, language_model, distance, low, high, error, source {texts, unknown, pieces_a_word, masked_loss}, "
    "target {...}, shared, said"
)
def shift(
    data: typed.Source,
    target: Annotated[str, typer.Option(help="Unlabelled texts of the domain to measure against.")],
    model: typed.Model = None,
    seed: typed.Seed = None,
    task: typed.Task = None,
    text: typed.Text = None,
    label: typed.Label = None,
    multi_label: typed.MultiLabel = None,
    limit: typed.Limit = None,
    device: typed.Device = None,
    as_json: typed.Json = False,
) -> None:
    """Say how far a domain of unlabelled texts lies from labelled data, and what that supports. Trains nothing."""
    from graftwork.cli.asked import known, load_options
    from graftwork.shift import shift

    load = load_options(
        drop=None, text=text, label=label, multi_label=multi_label, limit=limit, task=task, target=target
    )
    screen = screen_of(as_json)
    found = shift({"source": data, **load}, **known(model=model, seed=seed), hardware=known(device=device))
    for sentence in found.said:
        screen.say(sentence)
    screen.answer(**found.as_dict())


@verb(
    json="run, method, why, shift, before (the run that was not adapted), base, judged [{on, rows, metric, before, "
    "after, difference, low, high, p}], forgetting {of, before, after, similarity}, hurt, said, findings"
)
def adapt(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="minilm, a folder, a run, or a hub id.")],
    target: Annotated[str, typer.Option(help="A file of unlabelled texts of the domain to adapt to.")],
    source: Annotated[
        str | None, typer.Option(help="Labelled data of another domain; without it the model only reads on.")
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            help="auto (the default), continued-pretraining, dann, coral, pseudo-labels, domain-stacking, "
            "METHOD:importance-sampling; several (repeated, or with commas) are stages.",
        ),
    ] = None,
    settings: typed.Settings = None,
    judge: Annotated[
        str | None, typer.Option(help="Labelled rows of the target, to judge by alone; never learned from.")
    ] = None,
    budget: typed.Budget = None,
    seed: typed.Seed = None,
    out: typed.Out = None,
    force: typed.Force = False,
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
    """Adapt a model to a domain whose texts have no labels, beside not adapting it, and say which is better."""
    from graftwork.adapt import PRETRAINING, adapt
    from graftwork.cli.asked import known, load_options, with_settings, words

    load = load_options(
        text=text, label=label, multi_label=multi_label, drop=drop, validation=validation, test=test, limit=limit,
        seed=data_seed, task=task,
    )  # fmt: skip
    stages: list[Any] = words(method)
    first = [PRETRAINING] * (stages[:1] == [PRETRAINING])
    if settings:
        stages = first + with_settings(stages[len(first) :], settings)
    screen = screen_of(as_json)
    with screen.progress() as meter:
        run = adapt(
            model, target, source=source, judge=judge, force=force, on_event=meter,
            hardware=known(device=device, precision=precision, max_tokens=max_tokens, threads=threads),
            **known(method=stages, budget=budget, seed=seed, out=out), **load,
        )  # fmt: skip
    told = run.happened["adaptation"]
    for sentence in told["said"]:
        screen.say(sentence)
    screen.findings([f for f in run.findings if f["code"].startswith("adaptation-")])
    screen.say(f"Run: {run.path}" + (f"   Not adapted: {told['before']}" if told["before"] else ""), "bold green")
    screen.answer(run=run.path, **told, findings=run.findings)


@verb(
    json="run, of, steps, budget, metric, rows, table [{step, score, low, high, difference, difference_low, "
    "difference_high, p, mb, parameters, latency, peak_memory_mb, head, seconds, notes, steps, misses}]; with --goal "
    "goal, holds, verdict, sure, deploy"
)
def compress(
    run: typed.Folder,
    steps: Annotated[
        str | None,
        typer.Option(
            "--steps", help="NAME or NAME=VALUE, in their order; see `graft compressors`. By default vocabulary, half."
        ),
    ] = None,
    goal: Annotated[
        str | None,
        typer.Option(
            "--goal",
            help="Find the steps: 'accuracy>=-0.5, size<=20MB, latency<=3ms'. A sign is points against the original, x "
            "times the original's. Exit code 1 where nothing holds it.",
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="Of learning from the original: 3epochs, 500steps or 2m, with --goal after each step; by default none."
        ),
    ] = None,
    seed: typed.Seed = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The new run's folder; by default RUN-compressed.")
    ] = None,
    force: typed.Force = False,
    device: typed.Device = None,
    precision: typed.Precision = None,
    threads: typed.Threads = None,
    as_json: typed.Json = False,
) -> None:
    """Make a fitted model smaller and faster, and measure after each step what that costs; leaves a new run."""
    from graftwork.cli.asked import known
    from graftwork.run import Run

    screen = screen_of(as_json)
    opened = Run.open(run)
    from graftwork.compress import compress

    with screen.progress() as meter:
        smaller = compress(
            opened,
            **known(steps=steps, goal=goal, budget=budget, seed=seed, out=out),
            force=force,
            hardware=known(device=device, precision=precision, threads=threads),
            on_event=meter,
        )
    told = smaller.happened["compression"]
    screen.compressed(told)
    screen.say(f"Steps:   {smaller.path / 'compression.html'}")
    screen.finished(smaller)
    screen.answer(run=smaller.path, **told)
    raise typer.Exit(DONE if told.get("holds", True) else FAILED)


@verb(
    json="run, state, metrics {validation: {...}}, cost, of, metric, teacher, student, difference, difference_low, "
    "difference_high, p, kept, rows, unlabelled, parameters, latency, said"
)
def distill(
    run: typed.Folder,
    student: Annotated[
        str,
        typer.Option("--student", help="layers=3: so many of the teacher's own blocks; or a model, as in `graft fit`."),
    ] = "layers=3",
    unlabelled: Annotated[
        str | None, typer.Option("--unlabelled", metavar="FILE", help="Further texts, which the teacher labels.")
    ] = None,
    budget: typed.Budget = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="A field of the method distillation, such as weight=0.9."),
    ] = None,
    seed: typed.Seed = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The student's folder; by default RUN-distilled.")
    ] = None,
    force: typed.Force = False,
    device: typed.Device = None,
    precision: typed.Precision = None,
    threads: typed.Threads = None,
    as_json: typed.Json = False,
) -> None:
    """Train a smaller student on what a finished run answers, and compare the two; leaves a new run."""
    from graftwork.cli.asked import assigned, known
    from graftwork.run import Run

    screen = screen_of(as_json)
    opened = Run.open(run)
    from graftwork.distill import distill

    with screen.progress() as meter:
        made = distill(
            opened,
            student=student,
            **known(unlabelled=unlabelled, budget=budget, seed=seed, out=out),
            fields=assigned(settings),
            force=force,
            hardware=known(device=device, precision=precision, threads=threads),
            on_event=meter,
        )
    compared = made.happened["distilled"]
    screen.metrics(made.metrics)
    screen.say(compared["said"], "bold green")
    screen.finished(made)
    told = {part: value for part, value in made.as_dict().items() if part in ("state", "metrics", "cost")}
    screen.answer(run=made.path, **told, **compared)


@verb(
    json="run, path, to, quantized, scheme, mb, gate {rows, agreement, largest_difference, metric, "
    "score {model, exported}, latency {model, exported}, faults}, kept {groups, mb, agreement, changes}, "
    "candidates [{scheme, mb, p50, agreement, faults}]"
)
def export(
    run: typed.Folder,
    to: Annotated[str, typer.Option("--to", help="onnx, torch-export or safetensors.")] = "onnx",
    quantized: Annotated[
        str | None,
        typer.Option(
            "--quantized",
            help="Fewer bits, smaller and faster: dynamic (what it means by itself), static, static=entropy, weights, "
            "weights=4, or best, which measures them here.",
        ),
    ] = None,
    shard: Annotated[
        str | None, typer.Option("--shard", help="The most that one file of safetensors may hold: 500MB.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The folder; by default exports/RUN-FORMAT.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export in that folder.")] = False,
    as_json: typed.Json = False,
) -> None:
    """Write a fitted model as a folder to deploy, and prove that it answers as the run does; exit code 1 if not."""
    from graftwork.run import Run

    screen = screen_of(as_json)
    opened = Run.open(run)
    from graftwork.export import ExportFailed, export

    try:
        with screen.progress() as meter:
            done = export(
                opened, to, quantized=quantized, shard=shard, out=out, force=force, on_event=meter,  # type: ignore[arg-type]
            )  # fmt: skip
    except ExportFailed as failed:
        screen.complain(str(failed))
        screen.answer(error=str(failed), exit=FAILED, run=opened.path, gate=failed.gate and vars(failed.gate))
        raise typer.Exit(FAILED) from None
    screen.exported(done.as_dict())
    screen.answer(run=opened.path, **done.as_dict())
