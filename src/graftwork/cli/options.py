"""What can be typed: one type an option, so that the same option is spelled and explained alike under every verb."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DATA = "Options of the data"
MACHINE = "Options of the machine (they do not change results)"

Source = Annotated[
    str, typer.Argument(metavar="DATA", help="A file, a folder of splits, a hub id, or pydocs (embedded).")
]
Request = Annotated[str, typer.Argument(metavar="DATA|RUN.YAML", help="The data, or a file that asks for a whole run.")]
Folder = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")]
Name = Annotated[str | None, typer.Argument(help="One of them, to see everything about it.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, everything for people on stderr.")]

Model = Annotated[str | None, typer.Option("--model", "-m", help="minilm (the default), a folder, or a hub id.")]
Methods = Annotated[
    list[str] | None,
    typer.Option(
        "--method",
        help="METHOD[@HEAD][:MODIFIER...], such as lora:l2-sp; several (repeated, or with commas) are a recipe of "
        "stages; auto for what `graft advise` says.",
    ),
]
Racing = Annotated[
    list[str] | None,
    typer.Option(
        "--methods",
        help="METHOD[@HEAD][:MODIFIER...] that race (repeated, or with commas); a+b is a recipe of two stages.",
    ),
]
RacingModels = Annotated[
    list[str] | None, typer.Option("--models", help="Models that each method runs on (repeated, or with commas).")
]
Baselines = Annotated[
    list[str] | None,
    typer.Option("--baselines", help="By default all that suit the task; none for none."),
]
Seeds = Annotated[int, typer.Option(min=1, help="How many seeds each method runs with.")]
Curve = Annotated[
    list[str] | None,
    typer.Option("--shots", help="Race also on so few train rows a class: 8,16,32. What do more labels buy?"),
]
Advised = Annotated[
    list[str] | None,
    typer.Option("--methods", help="Methods to judge (repeated, or with commas); a+b is a recipe of two stages."),
]
Layers = Annotated[bool, typer.Option("--layers", help="Score every layer, and the average of all.")]
MaxSize = Annotated[str | None, typer.Option("--max-size", help="What a model's file may take: 20MB.")]
MaxLatency = Annotated[str | None, typer.Option("--max-latency", help="What one text may take, in the median: 15ms.")]
Steps = Annotated[int, typer.Option(min=20, help="Steps of the test, each at a higher rate.")]
Trials = Annotated[
    int, typer.Option(min=0, help="Choose each method's hyper-parameters on validation in so many trials first.")
]
Engine = Annotated[str | None, typer.Option(help="here (the default), or ray: on a Ray cluster, that of $RAY_ADDRESS.")]
ComparisonOut = Annotated[
    Path | None, typer.Option("--out", "-o", help="The comparison's folder; by default comparisons/DATA.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="A field of the method, of its head (head.FIELD=VALUE), or of a stage (STAGE.FIELD=VALUE).",
    ),
]
Task = Annotated[
    str | None, typer.Option(help="classification, tagging or similarity; by default what the data looks like.")
]
Budget = Annotated[str | None, typer.Option(help="3epochs, 500steps, 90s, 10m or 2h; by default the method's own.")]
Seed = Annotated[int | None, typer.Option(help="Of everything random.")]
Coverage = Annotated[
    float | None, typer.Option(help="Share to answer, in (0, 1]; the least certain rest is marked unsure.")
]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="The run's folder; by default runs/DATA-METHOD.")]
Force = Annotated[bool, typer.Option("--force", help="Replace a finished run in that folder.")]
Evaluate = Annotated[bool, typer.Option("--evaluate/--no-evaluate", help="Score the test split at the end.")]
Split = Annotated[str, typer.Option(help="The split to score.")]

Text = Annotated[
    str | None,
    typer.Option(
        "--text",
        help="The column that is read; A,B or ANCHOR,NEARER,FARTHER: those that are compared.",
        rich_help_panel=DATA,
    ),
]
Label = Annotated[str | None, typer.Option("--label", help="The column that is predicted.", rich_help_panel=DATA)]
MultiLabel = Annotated[
    bool | None,
    typer.Option("--multi-label/--single-label", help="Whether a row may have several labels.", rich_help_panel=DATA),
]
Positive = Annotated[
    str | None, typer.Option(help="Of two classes of pairs, the one that means similar.", rich_help_panel=DATA)
]
Drop = Annotated[
    list[str] | None,
    typer.Option(help="Rows to leave out: empty, duplicates, conflicts, overlap, ragged.", rich_help_panel=DATA),
]
Validation = Annotated[
    str | None, typer.Option(metavar="SHARE|FILE", help="Validation where there is none.", rich_help_panel=DATA)
]
Test = Annotated[str | None, typer.Option(metavar="SHARE|FILE", help="Test where there is none.", rich_help_panel=DATA)]
Target = Annotated[str | None, typer.Option(help="Unlabelled texts of the domain to adapt to.", rich_help_panel=DATA)]
Limit = Annotated[int | None, typer.Option(help="Use at most this many train rows.", rich_help_panel=DATA)]
Shots = Annotated[
    int | None, typer.Option(help="Use at most this many train rows of each class.", rich_help_panel=DATA)
]
ClassNames = Annotated[
    bool | None,
    typer.Option(
        "--class-names", help="Let each class's name, as words, be one more train text of it.", rich_help_panel=DATA
    ),
]
DataSeed = Annotated[int | None, typer.Option(help="Of the cuts into splits.", rich_help_panel=DATA)]

Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.", rich_help_panel=MACHINE)]
Precision = Annotated[str | None, typer.Option(help="auto, fp32 or bf16.", rich_help_panel=MACHINE)]
MaxTokens = Annotated[int | None, typer.Option(help="Tokens computed at once.", rich_help_panel=MACHINE)]
Threads = Annotated[int | None, typer.Option(help="CPU threads.", rich_help_panel=MACHINE)]
CheckpointSeconds = Annotated[float | None, typer.Option(help="Seconds between checkpoints.", rich_help_panel=MACHINE)]
Sharded = Annotated[
    bool | None,
    typer.Option(
        "--sharded", help="Let the processes of torchrun share the blocks' weights (FSDP2).", rich_help_panel=MACHINE
    ),
]
