"""Bases: to make one from plain text, and to look at what one knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from graftwork.cli import options as typed
from graftwork.cli.app import screen_of, verb

if TYPE_CHECKING:
    from graftwork.cli.screen import Screen
    from graftwork.run import Run

Corpus = Annotated[str, typer.Argument(metavar="CORPUS", help="A text file, or a folder of them.")]
Material = Annotated[
    str, typer.Argument(metavar="CORPUS", help="A text file, or a folder of them; or a folder of pictures.")
]
Known = Annotated[str | None, typer.Option("--model", "-m", help="An embedded model, a folder, a run, or a hub id.")]
Column = Annotated[str | None, typer.Option("--text", help="The column that holds the text, where there are columns.")]
Length = Annotated[int | None, typer.Option(min=8, help="Tokens a window; nothing is padded.")]


@verb(json="run, state, metrics {validation: {...}}, cost, happened")
def pretrain(
    corpus: Material,
    objective: Annotated[
        str,
        typer.Option(
            help="masked, causal, permuted or denoising; of pictures masked-autoencoder or image-denoising.",
        ),
    ] = "masked",
    next_sentence: Annotated[
        bool, typer.Option("--next-sentence", help="Masked: also tell whether two passages follow one another.")
    ] = False,
    model: Annotated[
        str | None, typer.Option("--from", metavar="MODEL", help="Go on from it; by default from nothing.")
    ] = None,
    size: Annotated[str | None, typer.Option(help="From nothing: tiny, mini, small or base.")] = None,
    pieces: Annotated[int | None, typer.Option(help="From nothing: pieces of the vocabulary.")] = None,
    extend: Annotated[
        int | None,
        typer.Option(min=1, help="Going on: so many words of the corpus become pieces of their own. WordPiece only."),
    ] = None,
    length: Length = None,
    image_size: Annotated[
        int | None, typer.Option(min=8, help="Pictures, from nothing: pixels of each side they are brought to.")
    ] = None,
    patch: Annotated[
        int | None, typer.Option(min=1, help="Pictures, from nothing: pixels of each side of a patch.")
    ] = None,
    deduplicate: Annotated[
        bool, typer.Option("--deduplicate", help="Leave out passages that nearly repeat an earlier one.")
    ] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="lr, batch_size, ..., objective.unit=word."),
    ] = None,
    budget: typed.Budget = None,
    column: Column = None,
    seed: typed.Seed = None,
    out: typed.Out = None,
    force: typed.Force = False,
    device: typed.Device = None,
    precision: typed.Precision = None,
    max_tokens: typed.MaxTokens = None,
    threads: typed.Threads = None,
    checkpoint_seconds: typed.CheckpointSeconds = None,
    sharded: typed.Sharded = None,
    as_json: typed.Json = False,
) -> None:
    """Learn a language model from plain text, or to see from pictures: a base for --model, with its card."""
    from graftwork.cli.asked import assigned, known
    from graftwork.pretrain import pretrain

    screen = screen_of(as_json)
    fields = assigned(settings)
    own = {name.removeprefix("objective."): fields.pop(name) for name in list(fields) if name.startswith("objective.")}
    own |= {"sentences": "next"} if next_sentence else {}
    hardware = known(
        device=device, precision=precision, max_tokens=max_tokens, threads=threads,
        checkpoint_seconds=checkpoint_seconds, sharded=sharded,
    )  # fmt: skip
    with screen.progress() as meter:
        run = pretrain(
            corpus, objective={objective: own}, deduplicate=deduplicate, force=force, hardware=hardware, on_event=meter,
            **known(
                model=model, size=size, pieces=pieces, extend=extend, length=length, image_size=image_size, patch=patch,
                budget=budget, column=column, seed=seed, out=out,
            ),
            **fields,
        )  # fmt: skip
    show_pretrained(screen, run)


def show_pretrained(screen: Screen, run: Run) -> None:
    """How well a base foretells what was kept aside, and what to do with it."""
    found = run.metrics["validation"]
    screen.say(
        f"Held-out text: perplexity {found['perplexity']:.1f}, {found['accuracy']:.1%} of what is asked told right."
        if "perplexity" in found
        else f"Held-out pictures: mean squared difference {found['loss']:.3f}; {found['explained']:.1%} of the "
        "variance of what is to be rebuilt is told."
    )
    if "relation_accuracy" in found:
        screen.say(
            f"Whether two passages follow one another: {found['relation_accuracy']:.1%} told right, by chance 50%."
        )
    screen.say(f"Base: {run.path}   Fit a task on it: graft fit DATA --model {run.path}", "bold green")
    screen.answer(
        run=run.path, state=run.state, metrics=run.metrics, cost=run.cost, happened=run.happened,
    )  # fmt: skip


@verb(json="model, texts [{text, gaps [[{piece, probability}]]}]")
def fill(
    text: Annotated[list[str], typer.Argument(metavar="TEXT...", help="With [MASK] where a word is to be found.")],
    model: Known = None,
    top: Annotated[int, typer.Option(min=1, help="Words a gap.")] = 5,
    as_json: typed.Json = False,
) -> None:
    """Say what a masked language model would put into the gaps of a text."""
    from graftwork.cli.asked import known
    from graftwork.fill import fill

    screen = screen_of(as_json)
    found = fill(text, top=top, **known(model=model))
    for given, gaps in zip(text, found, strict=True):
        screen.say(given, "bold")
        for gap in gaps:
            screen.say("  " + ", ".join(f"{each.piece} {each.probability:.1%}" for each in gap))
    told = [
        {"text": given, "gaps": [[vars(e) for e in gap] for gap in gaps]}
        for given, gaps in zip(text, found, strict=True)
    ]
    screen.answer(model=model, texts=told)


@verb(json="corpus, objective, perplexity, loss, accuracy, tokens")
def perplexity(
    corpus: Corpus,
    model: Known = None,
    length: Length = None,
    column: Column = None,
    device: typed.Device = None,
    as_json: typed.Json = False,
) -> None:
    """Say how well a language model foretells a text."""
    from graftwork.cli.asked import known
    from graftwork.hardware import Hardware
    from graftwork.perplexity import perplexity

    screen = screen_of(as_json)
    found = perplexity(
        corpus, hardware=Hardware.of(known(device=device)), **known(model=model, length=length, column=column)
    )
    screen.say(
        f"Perplexity {found['perplexity']:.2f} ({found['objective']}; {found['loss']:.3f} nats a piece, "
        f"{found['accuracy']:.1%} told right) over {found['tokens']:,} tokens."
    )
    screen.answer(corpus=corpus, **found)


@verb(json="texts [{prompt, written}]")
def generate(
    prompt: Annotated[list[str], typer.Argument(metavar="TEXT...", help="What to go on from.")],
    model: Known = None,
    tokens: Annotated[int, typer.Option(min=1, help="New tokens, at most.")] = 60,
    top_k: Annotated[int, typer.Option(min=1, help="The most probable tokens that are drawn from; 1: the best.")] = 40,
    temperature: Annotated[float, typer.Option(min=0.01, help="The lower, the safer.")] = 0.9,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    as_json: typed.Json = False,
) -> None:
    """Let a causal language model write on."""
    from graftwork.cli.asked import known
    from graftwork.generate import generate

    screen = screen_of(as_json)
    written = generate(prompt, tokens=tokens, top_k=top_k, temperature=temperature, seed=seed, **known(model=model))
    for given, more in zip(prompt, written, strict=True):
        screen.say(f"{given}{more}")
    screen.answer(texts=[{"prompt": p, "written": w} for p, w in zip(prompt, written, strict=True)])
