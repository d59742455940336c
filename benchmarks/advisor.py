"""How good is `advise`? Races on eight data sets with few labels and with all, and what the advice would have cost.

    python benchmarks/advisor.py DATA_FOLDER

Each race is one part: three baselines, the probe and three methods of fine-tuning on 8 rows a class (60 steps a run),
on 32 (100 steps), and on all of train (200 steps), one seed, at most 1,000 rows of the official test. The same rows
with the encoder cut (probe and full fine-tuning) are another, and what `advise` finds on them a third. A data set that
is advised on is left out of the races that the advice knows (leave-one-data-set-out). Regret is the best test score of
anything in the race, baselines included, minus that of what is first on the advised list and was in the race.

What the races taught is written to `src/graftwork/experience.json`, which ships, with what `ranking.py` measured.
"""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from measure import RESULTS, Benchmark, interval, percent, table, workplace

if TYPE_CHECKING:
    from graftwork.experience import Race

DATA = ("banking77", "sentence_polarity", "csabstruct", "ag_news", "waimai_10k", "pydocs", "chemprot", "imdb_2k")
METHODS = ("linear-probe", "top-layers", "lora", "full-fine-tuning")
LOWER = (("lower-layers", "linear-probe"), ("lower-layers", "full-fine-tuning"))
ROUNDS = {"8 shots": (8, "60steps"), "32 shots": (32, "100steps"), "all": (None, "200steps")}
TEST_ROWS = 1000
REGRETS = ("regret", "regret_of_model", "regret_of_full")


def race(benchmark: Benchmark, name: str, shots: int | None, budget: str, lower: bool = False) -> dict[str, Any]:
    """The scores, costs and rows of one race; of the recipes that cut the encoder, a race of their own on its rows."""
    from graftwork.compare import compare

    with workplace() as folder:
        data = drawn(benchmark, name, shots)
        start = time.perf_counter()
        found = compare(
            data, methods=LOWER if lower else METHODS, baselines=() if lower else None, seeds=1,
            budget="2steps" if benchmark.quick else budget, out=folder / "race", hardware=benchmark.hardware,
        )  # fmt: skip
        seconds = time.perf_counter() - start
    kept = ("name", "mean", "low", "high", "tied", "seconds", "model_mb", "latency", "trained_parameters")
    return {
        "data": name, "shots": shots, "budget": found.as_dict()["budget"], "metric": found.metric,
        "rows": {split: len(rows) for split, rows in data.splits.items()}, "classes": len(data.labels),
        "race_seconds": seconds, "entries": [{key: entry[key] for key in kept} for entry in found.entries],
    }  # fmt: skip


def drawn(benchmark: Benchmark, name: str, shots: int | None) -> Any:
    """The data of a race: with few labels validation is small too, 5 rows a class or 100 in all."""
    from graftwork.data import Data

    loaded = Data.load("pydocs" if name == "pydocs" else benchmark.source(name))
    data = loaded if shots is None else loaded.few(shots)
    validation = 1000 if shots is None else max(100, 5 * len(data.labels))
    sizes = {"train": len(data["train"]), "validation": validation, "test": TEST_ROWS}
    return Data.load({split: _rows(data[split], size) for split, size in sizes.items()})


def _rows(split: Any, most: int) -> list[dict[str, Any]]:
    order = np.sort(np.random.default_rng(0).permutation(len(split))[:most])
    texts, labels = split.inputs(), split.labels()
    return [{"text": texts[i], "label": labels[i]} for i in order]


def advised(benchmark: Benchmark, name: str, shots: int | None, budget: str) -> dict[str, Any]:
    """What `advise` finds on the rows of a race, with nothing known of past ones."""
    from graftwork.advise import advise

    with workplace():
        data = drawn(benchmark, name, shots)
        found = advise(data, methods=METHODS, budget=budget, hardware=benchmark.hardware, races=())
    return {"seconds": found.seconds, "metric": found.metric, "options": [dataclasses.asdict(o) for o in found.options]}


def race_of(benchmark: Benchmark, part: str, found: dict[str, Any], told: dict[str, Any]) -> Race:
    """A race as experience."""
    from graftwork.experience import Race, Situation
    from graftwork.modalities.text import Text
    from graftwork.models import resolve

    # with no past races, a method's expected score is the probe's
    probe, words = (
        next(o["score"] for o in told["options"] if o["name"] == name) for name in ("linear-probe", "tf-idf")
    )
    steps = float(found["budget"].removesuffix("steps"))
    text = Text.from_folder(resolve("minilm"))
    ids = np.concatenate(text.encode(drawn(benchmark, found["data"], found["shots"])["train"].inputs()))
    situation = Situation(
        found["rows"]["train"], found["classes"], steps, round(probe, 4), round(words, 4),
        unknown=round(float((ids == text.unknown_id).mean()), 4),
    )  # fmt: skip
    return Race(part, situation, {e["name"]: round(e["mean"], 4) for e in found["entries"] if e["name"] in METHODS})


def judged(entries: list[dict[str, Any]], told: dict[str, Any], own: Race, races: list[Race]) -> dict[str, Any]:
    """What the advice takes when it knows `races`, and what that costs against the best of the race."""
    from graftwork.advise import Advice, Option
    from graftwork.experience import expected, logit, share

    scores, seconds = ({e["name"]: e[key] for e in entries} for key in ("mean", "seconds"))
    options = []
    for option in (Option(**o) for o in told["options"] if o["name"] in scores):
        if not option.baseline:  # with no past races, the expected score is the probe's on this encoder
            situation = dataclasses.replace(own.situation, probe=option.score)
            gain = expected(option.name.removeprefix("lower-layers+"), situation, races).mean
            option = dataclasses.replace(option, score=share(logit(option.score) + gain))
        options.append(option)
    options.sort(key=lambda option: -option.score)
    model = Advice(options, [], told["metric"], [], [], told["seconds"]).best
    taken = options[0] if options[0].baseline else model
    best = max(scores, key=lambda name: scores[name])
    return {
        "taken": taken.name, "best": best, "regret": scores[best] - scores[taken.name],
        "regret_of_model": max(scores[o.name] for o in options if not o.baseline) - scores[model.name],
        "regret_of_full": scores[best] - scores["full-fine-tuning"], "error": taken.score - scores[taken.name],
        "time": {o.name: o.seconds / seconds[o.name] for o in options if not o.baseline},
    }  # fmt: skip


def teach(races: list[Race]) -> None:
    """Write what ships with the package."""
    ranking = RESULTS / "ranking.json"
    trust = json.loads(ranking.read_text(encoding="utf-8"))["summary"] if ranking.is_file() else {}
    told = [{"name": r.name, "situation": dataclasses.asdict(r.situation), "scores": r.scores} for r in races]
    file = Path(__file__).parents[1] / "src" / "graftwork" / "experience.json"
    file.write_text(json.dumps({"races": told, "ranking": trust}, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    from graftwork.experience import without

    benchmark = Benchmark("advisor", parts=[f"{name}, {label}" for label in ROUNDS for name in DATA])
    found, entries, told = {}, {}, {}
    for part in benchmark.parts:
        name, label = part.split(", ")
        found[part] = benchmark.measured(part, race, benchmark, name, *ROUNDS[label])
        lower = benchmark.measured(f"{part}, lower", race, benchmark, name, *ROUNDS[label], True)
        entries[part] = found[part]["entries"] + lower["entries"]
        told[part] = benchmark.measured(f"{part}, advice", advised, benchmark, name, *ROUNDS[label])
        found[part]["race_seconds"] += lower["race_seconds"]
    races = {part: race_of(benchmark, part, found[part], told[part]) for part in found}
    judgement = {
        part: judged(entries[part], told[part], races[part], without(list(races.values()), {part.split(", ")[0]}))
        for part in found
    }
    rows = [("race", "taken", "best", "regret, points", "foretold - found", "cost of the advice")]
    for part, j in judgement.items():
        cost = f"{told[part]['seconds'] / found[part]['race_seconds']:.0%}"
        rows.append((part, j["taken"], j["best"], f"{100 * j['regret']:.1f}", f"{100 * j['error']:+.1f}", cost))
    table(*rows)
    regrets = {key: interval([j[key] for j in judgement.values()]) for key in REGRETS}
    share = sum(t["seconds"] for t in told.values()) / sum(f["race_seconds"] for f in found.values())
    times = [t for j in judgement.values() for t in j["time"].values()]
    within = float(np.mean([1 / 1.5 <= t <= 1.5 for t in times]))
    benchmark.summarise(**regrets, cost_share=share, time_within_1_5=within, races=len(races))
    print(f"Points lost over {len(races)} races: {', '.join(f'{k} {percent(v)}' for k, v in regrets.items())}.")
    print(f"Advice took {share:.1%} of the races' time; {within:.0%} of {len(times)} run times foretold within 1.5x.")
    if not benchmark.quick:
        teach(list(races.values()))


if __name__ == "__main__":
    main()
