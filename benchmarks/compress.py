"""Compression of fine-tuned MiniLM: how small, how fast, and whether what `--goal` claims is true of unread rows.

    python benchmarks/compress.py DATA_FOLDER [--runs FOLDER] [--only size --only goals]

The parts, each of BANKING77 and of sentence_polarity:
    size        the smaller of two recipes that loses at most half a point on validation; what it loses on test
    student     four and three of the six blocks, taught by the whole: the share of its test score that is kept
    exports     the whole and both students exported in 8 bits: their scores, by their own predict.py
    goals       five goals: what the search claims on validation, and whether it is so on test
    standalone  the exported folder alone, in an empty virtual environment: the same labels on every row (needs pip)
    latency     one text of 32 tokens, two threads, against `transformers.pipeline` in fp32, in turn, medians
    throughput  texts a second, 32 at a time, likewise
    rows        texts a second of the data's own rows as they come, 32 at a time, likewise: their lengths differ

The first five are about answers and can run beside other work; the last three need a quiet machine, and the runs that
the first made. The fine-tuned runs are made once, with `fit`'s defaults on BANKING77 and in two epochs on the other,
and are kept in --runs. Recipes and goals are judged on validation; test is read once for each row of the table.

The pipeline's network is BertForSequenceClassification on the same encoder with a fresh head: as much to compute, and
nobody looks at its answers. Exports answer by the functions of their predict.py, each text by itself.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measure import Benchmark, table

if TYPE_CHECKING:
    from graftwork.data import Data
    from graftwork.run import Run

PARTS = ("size", "student", "exports", "goals", "standalone", "latency", "throughput", "rows")
FITS = {"banking77": None, "sentence_polarity": "2epochs"}
STUDENTS = (4, 3)
RECIPES = ("vocabulary, int8", "vocabulary, factorised-embedding=128, int8")
LOSS = 0.005
GOALS = {
    "banking77": (
        "accuracy>=-0.5, size<=45MB", "accuracy>=-0.5, size<=0.25x", "accuracy>=-1, size<=16MB",
        "macro_f1>=-1, size<=20MB", "accuracy>=0.9, size<=14MB",
    ),
    "sentence_polarity": (
        "accuracy>=-0.5, size<=40MB", "accuracy>=-1, size<=0.25x", "accuracy>=-2, size<=14MB",
        "macro_f1>=-1, size<=20MB", "accuracy>=-1, latency<=0.8x",
    ),
}  # fmt: skip
TOKENS, ROUNDS, THREADS = 32, 200, 2
REST, BLOCK = 0.2, 5
"""Seconds before each block of answers by one contender: the threads of the one before spin for a while. The first two
answers of a block do not count: threads have to wake."""


# --- the runs ---


def _options(parser: argparse.ArgumentParser) -> None:
    runs = Path(tempfile.gettempdir()) / "graftwork-compress-runs"
    parser.add_argument("--on", choices=FITS, action="append", help="this data set alone (may be repeated)")
    parser.add_argument("--runs", type=Path, default=runs, help="folder in which the fitted runs are kept")


def place(benchmark: Benchmark, name: str) -> Path:
    """Where a run is kept between parts."""
    return benchmark.asked.runs / f"{'quick-' * benchmark.quick}{name}"


def kept(benchmark: Benchmark, name: str, make: Callable[[Path], Any]) -> Run:
    """The finished run of that name, made now where there is none."""
    from graftwork.run import Run, is_run

    path = place(benchmark, name)
    if not (path.is_dir() and is_run(path) and Run.open(path).state == "done"):
        make(path)
    return Run.open(path)


def teacher(benchmark: Benchmark, name: str) -> Run:
    """The fine-tuned run that all parts compress."""
    from graftwork.data import Data
    from graftwork.fit import fit

    def make(path: Path) -> None:
        data = _few(benchmark, name) if benchmark.quick else Data.load(benchmark.source(name))
        budget = "5steps" if benchmark.quick else FITS[name]
        fit(data, budget=budget, out=path, force=path.exists(), hardware=benchmark.hardware)

    return kept(benchmark, name, make)


def _few(benchmark: Benchmark, name: str) -> Data:
    """A few rows of each split, drawn evenly, kept where other parts find them."""
    from graftwork.data import Data

    folder, whole = place(benchmark, f"{name}-data"), Data.load(benchmark.source(name))
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in whole.splits.items():
        chosen = range(0, len(rows), max(1, len(rows) // 300))
        texts = zip(rows.inputs(chosen), rows.labels(chosen), strict=True)
        lines = [json.dumps({"text": text, "label": label}) + "\n" for text, label in texts]
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    return Data.load(folder)


def student(benchmark: Benchmark, name: str, layers: int) -> Run:
    """So many of its blocks, distilled."""
    from graftwork.distill import distill

    def make(path: Path) -> None:
        budget = "5steps" if benchmark.quick else FITS[name]
        distill(
            teacher(benchmark, name), student=f"layers={layers}", budget=budget, out=path, force=path.exists(),
            hardware=benchmark.hardware,
        )  # fmt: skip

    return kept(benchmark, f"{name}-student-{layers}", make)


def candidates(benchmark: Benchmark, name: str) -> dict[str, Run]:
    """What is exported and timed."""
    students = {f"{layers} layers": student(benchmark, name, layers) for layers in STUDENTS}
    return {"whole": teacher(benchmark, name), **students}


# --- what is true of test ---


def on_test(run: Run) -> dict[str, Any]:
    """Test metrics of a run; scored once and then read from it."""
    from graftwork.evaluate import evaluate

    return run.metrics.get("test") or evaluate(run)


def lost(original: Run, smaller: Run) -> dict[str, Any]:
    """Test scores of both, and their difference paired by row."""
    from graftwork.evaluate import evidence_of_runs
    from graftwork.model import TransferModel
    from graftwork.significance import difference

    on_test(original), on_test(smaller)
    task = TransferModel.load(original.path / "model").task
    gap, low, high, p = difference(*(evidence_of_runs(task, [run]) for run in (smaller, original)))
    scores = [run.metrics["test"][task.selection] for run in (original, smaller)]
    return {"original": scores[0], "smaller": scores[1], "difference": gap, "interval": [low, high], "p": p}


def answered(run: Run, split: str, folder: Path) -> dict[str, Any]:
    """Metrics of an export on a split, by its own predict.py."""
    from graftwork.evaluate import data_of
    from graftwork.gate import Standalone
    from graftwork.model import TransferModel

    script, model, rows = Standalone(folder), TransferModel.load(run.path / "model"), data_of(run)[split]
    outputs = [script.outputs(text) for text in rows.inputs()]
    scores = model.task.score(outputs, list(model.task.targets(rows.labels())), model.decision)
    return {name: value for name, value in scores.items() if isinstance(value, float)}


# --- the parts that are about answers ---


def size(benchmark: Benchmark, name: str) -> dict[str, Any]:
    """The smallest recipe that loses at most half a point on validation, on test."""
    whole, tried = teacher(benchmark, name), []
    for number, steps in enumerate(RECIPES):
        made = kept(benchmark, f"{name}-recipe-{number}", partial(_made_by, benchmark, whole, steps))
        first, *_, last = made.happened["compression"]["table"]
        tried.append({"steps": steps, "mb": last["mb"], "before_mb": first["mb"], "validation": last, "run": made})
    holding = [each for each in tried if each["validation"]["difference"] >= -LOSS] or tried[:1]
    taken = min(holding, key=lambda each: each["mb"])
    rows = [{key: each[key] for key in ("steps", "mb")} | _validation(each["validation"]) for each in tried]
    times = taken["before_mb"] / taken["mb"]
    found = lost(whole, taken["run"])
    return {"tried": rows, "taken": taken["steps"], "mb": taken["mb"], "times_smaller": times, "test": found}


def _made_by(benchmark: Benchmark, whole: Run, steps: str, path: Path) -> None:
    from graftwork.compress import compress

    compress(whole, steps=steps, out=path, force=path.exists(), hardware=benchmark.hardware)


def _validation(entry: dict[str, Any]) -> dict[str, Any]:
    return {f"validation_{key}": entry[key] for key in ("score", "difference", "difference_low", "difference_high")}


def taught(benchmark: Benchmark, name: str) -> dict[str, Any]:
    """The students beside their teacher."""
    whole, found = teacher(benchmark, name), {}
    for layers in STUDENTS:
        small = student(benchmark, name, layers)
        test = lost(whole, small)
        about = {key: small.happened["distilled"][key] for key in ("kept", "difference", "difference_low", "p")}
        found[f"{layers} layers"] = {"test": test, "kept": test["smaller"] / test["original"], "validation": about}
    return found | {"budget": FITS[name]}


def exports(benchmark: Benchmark, name: str) -> dict[str, Any]:
    """In 8 bits, by predict.py; what they lose is lost of the whole's score in fp32."""
    found: dict[str, Any] = {}
    whole = teacher(benchmark, name)
    before = {"validation": whole.metrics["validation"]["accuracy"], "test": on_test(whole)["accuracy"]}
    for which, run in candidates(benchmark, name).items():
        folder = exported(benchmark, run, quantized=True)
        scores = {split: answered(run, split, folder)["accuracy"] for split in before}
        lost = {f"{split}_lost": before[split] - scores[split] for split in before}
        told = json.loads((folder / "gate.json").read_text(encoding="utf-8"))
        scores = {"fp32": on_test(run)["accuracy"], "8 bits": scores["test"]}
        found[which] = lost | scores | {"mb": told["mb"], "scheme": told["scheme"]}
    return found


def exported(benchmark: Benchmark, run: Run, *, quantized: bool) -> Path:
    """The folder of a run's export, made now where there is none; activations stay whole where the gate demands it."""
    from graftwork.export import ExportFailed, export

    folder = benchmark.asked.runs / f"{run.path.name}-export{'-int8' * quantized}"
    if not (folder / "gate.json").is_file():
        try:
            export(run, "onnx", quantized=quantized, out=folder)
        except ExportFailed:
            export(run, "onnx", quantized="weights", out=folder)
    return folder


def goals(benchmark: Benchmark, name: str) -> dict[str, Any]:
    """What the search claims of each goal, and what is so on test."""
    asked = GOALS[name][:1] if benchmark.quick else GOALS[name]
    rows = []
    for number, goal in enumerate(asked):
        part = f"goal {number + 1}, {name}"
        rows.append(benchmark.measured(part, one_goal, benchmark, name, goal, number))
    return {"goals": len(rows), "claimed": sum(r["claimed"] for r in rows), "true": sum(r["true"] for r in rows)}


def one_goal(benchmark: Benchmark, name: str, goal: str, number: int) -> dict[str, Any]:
    """One search, and its claim on test."""
    from graftwork.compress import compress
    from graftwork.export import export
    from graftwork.goal import Goal

    whole = teacher(benchmark, name)
    path = place(benchmark, f"{name}-goal-{number}")
    began = time.perf_counter()
    made = compress(whole, goal=goal, out=path, force=True, hardware=benchmark.hardware)
    seconds, told = time.perf_counter() - began, made.happened["compression"]
    before, after = on_test(whole), on_test(made)
    _, *bits = told["deploy"].partition("--quantized")
    if bits[0]:
        with tempfile.TemporaryDirectory() as work:
            export(made, "onnx", quantized=bits[1].strip() or True, out=Path(work) / "export")
            after = answered(made, "test", Path(work) / "export")
    checks = [
        {"asked": str(wanted), "bound": wanted.bound(before[wanted.name]), "test": after[wanted.name]}
        for wanted in Goal.parse(goal, [key for key in before if isinstance(before[key], float)]).scores
    ]
    holds = all(check["test"] >= check["bound"] for check in checks)
    return {
        "goal": goal, "claimed": told["holds"], "true": told["holds"] and holds, "verdict": told["verdict"],
        "deploy": told["deploy"].replace(str(path), "RUN"), "test": checks, "tried": len(told["table"]),
        "seconds": seconds,
    }  # fmt: skip


def standalone(benchmark: Benchmark, name: str) -> dict[str, Any]:
    """The folder alone, where nothing of ours is installed."""
    from graftwork.evaluate import data_of
    from graftwork.export import export
    from graftwork.model import TransferModel

    run = teacher(benchmark, name)
    data, model = data_of(run), TransferModel.load(run.path / "model")
    texts = [" ".join(text.split()) for split in data.splits for text in data[split].inputs()]
    expected = [answer.label for answer in model.predict(texts)]
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        export(run, "onnx", out=folder / "export")
        venv.create(folder / "venv", with_pip=True)
        python = folder / "venv" / "bin" / "python"
        needed = ["onnxruntime", "tokenizers", "numpy"]
        subprocess.run([python, "-m", "pip", "install", "-q", *needed], check=True)
        said = subprocess.run(
            [python, "-I", folder / "export" / "predict.py"], input="\n".join(texts), capture_output=True, text=True,
            check=True, cwd=folder,
        ).stdout  # fmt: skip
    labels = [json.loads(line)["label"] for line in said.splitlines()]
    same = sum(a == b for a, b in zip(labels, expected, strict=True))
    return {"rows": len(texts), "same": same, "installed": needed}


# --- the parts that are about time ---


def contenders(benchmark: Benchmark, name: str) -> dict[str, Callable[[list[str]], Any]]:
    """What is timed: the pipeline, the run, and its exports; each answers some texts."""
    import torch
    from transformers import BertForSequenceClassification, PreTrainedTokenizerFast, pipeline

    from graftwork.gate import Standalone
    from graftwork.model import TransferModel

    torch.set_num_threads(benchmark.asked.threads or THREADS)
    whole = teacher(benchmark, name)
    model = TransferModel.load(whole.path / "model")
    bert = BertForSequenceClassification.from_pretrained(whole.path / "model", num_labels=len(model.task.labels))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=model.modality.tokenizer, pad_token="[PAD]")
    theirs = pipeline("text-classification", model=bert, tokenizer=tokenizer, device="cpu")
    found: dict[str, Callable[[list[str]], Any]] = {"pipeline": lambda texts: theirs(texts, batch_size=32)}
    for which, run in candidates(benchmark, name).items():
        found[which] = TransferModel.load(run.path / "model").predict
        for quantized in (False, True):
            script = Standalone(exported(benchmark, run, quantized=quantized))
            found[f"{which}, exported{' in 8 bits' * quantized}"] = _asked(script)
    return found


def _asked(script: Any) -> Callable[[list[str]], Any]:
    return lambda texts: list(script.answers(texts))


def texts_of(benchmark: Benchmark, name: str, tokens: int) -> list[str]:
    """Real texts, one after the other, cut to exactly so many tokens."""
    from graftwork.evaluate import data_of
    from graftwork.model import TransferModel

    run = teacher(benchmark, name)
    tokenizer = TransferModel.load(run.path / "model").modality.tokenizer
    found, words = [], iter(" ".join(data_of(run)["validation"].inputs()).split())
    text = ""
    for word in words:
        longer = f"{text} {word}".strip()
        length = len(tokenizer.encode(longer).ids)
        text = longer if length <= tokens else ""
        if length == tokens:
            found.append(longer)
            text = ""
    return found[:100]


def rows_of(benchmark: Benchmark, name: str) -> list[str]:
    """Real rows, whole."""
    from graftwork.evaluate import data_of

    return data_of(teacher(benchmark, name))["validation"].inputs(range(320))


def timed(benchmark: Benchmark, name: str, batch: int, texts: list[str]) -> dict[str, list[float]]:
    """Seconds of each contender for so many texts, in turn."""
    rounds = 3 if benchmark.quick else ROUNDS if batch == 1 else ROUNDS // 10
    asked = contenders(benchmark, name)
    taken: dict[str, list[float]] = {which: [] for which in asked}
    for block in range(max(1, rounds // BLOCK)):
        for which, ask in asked.items():
            time.sleep(REST)
            for number in range(-2, BLOCK):
                first = (block * BLOCK + number) * batch
                some = [texts[(first + i) % len(texts)] for i in range(batch)]
                start = time.perf_counter()
                ask(some)
                if number >= 0:
                    taken[which].append(time.perf_counter() - start)
    return taken


def latency(benchmark: Benchmark, name: str) -> dict[str, Any]:
    """Milliseconds of one text of 32 tokens, and how many times faster than the pipeline."""
    taken = timed(benchmark, name, 1, texts_of(benchmark, name, TOKENS))
    ms = {which: 1000 * statistics.median(each) for which, each in taken.items()}
    times = {which: ms["pipeline"] / each for which, each in ms.items()}
    against = {f"{layers} layers": ms["whole"] / ms[f"{layers} layers"] for layers in STUDENTS}
    return {"ms": ms, "times": times, "tokens": TOKENS, "students_against_whole": against}


def throughput(benchmark: Benchmark, name: str) -> dict[str, Any]:
    """Texts of 32 tokens a second, 32 at a time."""
    return rates_of(timed(benchmark, name, 32, texts_of(benchmark, name, TOKENS)))


def throughput_of_rows(benchmark: Benchmark, name: str) -> dict[str, Any]:
    """The data's own rows a second, 32 at a time."""
    return rates_of(timed(benchmark, name, 32, rows_of(benchmark, name)))


def rates_of(taken: dict[str, list[float]]) -> dict[str, Any]:
    """Texts a second, and how many times the pipeline's."""
    rates = {which: 32 / statistics.median(each) for which, each in taken.items()}
    return {"per_second": rates, "times": {which: each / rates["pipeline"] for which, each in rates.items()}}


# --- what it comes to ---


def rows(part: str, name: str, found: dict[str, Any]) -> Sequence[tuple[str, ...]]:
    """Lines of the printed table."""
    if part == "size":
        test = f"{100 * found['test']['difference']:+.2f} points on test"
        return [(part, name, f"{found['mb']:.1f} MB, {found['times_smaller']:.1f}x: {found['taken']}; {test}", "4x")]
    if part == "student":
        each = [f"{layers} layers" for layers in STUDENTS]
        return [
            (part, name, f"{which}: {found[which]['kept']:.2%} kept on test", "98 %, 1.9x faster") for which in each
        ]
    if part == "exports":
        said = "{} in 8 bits ({}), {} MB: {:.2f} points lost on validation, {:.2f} on test"
        return [
            (part, name, said.format(which, e["scheme"], e["mb"], 100 * e["validation_lost"], 100 * e["test_lost"]), "")
            for which, e in found.items() if isinstance(e, dict) and "mb" in e
        ]  # fmt: skip
    if part == "goals":
        return [(part, name, f"{found['claimed']} of {found['goals']} claimed, {found['true']} so on test", "9 of 10")]
    if part == "standalone":
        return [(part, name, f"{found['same']:,} of {found['rows']:,} labels the same", "all")]
    reach = {"latency": "4x", "throughput": "3x", "rows": "3x"}[part]
    return [(part, name, f"{which}: {times:.1f}x", reach) for which, times in found["times"].items()]


def main() -> None:
    benchmark = Benchmark("compress", parts=PARTS, options=_options)
    measures: dict[str, Callable[..., dict[str, Any]]] = {
        "size": size, "student": taught, "exports": exports, "goals": goals, "standalone": standalone,
        "latency": latency, "throughput": throughput, "rows": throughput_of_rows,
    }  # fmt: skip
    if not benchmark.quick and {"latency", "throughput", "rows"} & set(benchmark.parts):
        print("latency, throughput and rows need a quiet machine", file=sys.stderr)
    lines: list[tuple[str, ...]] = [("part", "data", "found", "at least")]
    for part in benchmark.parts:
        for name in benchmark.asked.on or FITS:
            found = benchmark.measured(f"{part}, {name}", measures[part], benchmark, name)
            lines += rows(part, name, found)
    table(*lines)


if __name__ == "__main__":
    main()
