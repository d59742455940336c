"""Which method, which model, which rate: a race, and advice before one."""

from __future__ import annotations

from graftwork.cli import options as typed
from graftwork.cli.app import screen_of, verb


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
    engine: typed.Engine = None,
    out: typed.ComparisonOut = None,
    task: typed.Task = None,
    text: typed.Text = None,
    label: typed.Label = None,
    multi_label: typed.MultiLabel = None,
    drop: typed.Drop = None,
    validation: typed.Validation = None,
    test: typed.Test = None,
    target: typed.Target = None,
    limit: typed.Limit = None,
    class_names: typed.ClassNames = None,
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
        text=text, label=label, multi_label=multi_label, drop=drop, validation=validation, test=test, target=target,
        limit=limit, class_names=class_names, seed=data_seed, task=task,
    )  # fmt: skip
    screen = screen_of(as_json)
    with screen.progress() as meter:
        found = compare(
            {"source": data, **load},
            **known(methods=recipes(methods), models=words(models), budget=budget, out=out, engine=engine),
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
    class_names: typed.ClassNames = None,
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
        shots=shots, class_names=class_names, seed=data_seed, task=task,
    )  # fmt: skip
    screen = screen_of(as_json)
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

    screen = screen_of(as_json)
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
    screen = screen_of(as_json)
    found = rate_test(
        {"source": data, **load},
        method=stages[0],
        steps=steps,
        **known(model=model, seed=seed),
        hardware=known(device=device, precision=precision, threads=threads),
    ).as_dict()
    screen.rates(found)
    screen.answer(**found)
