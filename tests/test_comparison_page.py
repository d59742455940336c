"""A race's page shows every method as it was, reads without its script, and is not broken by anybody's text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from graftwork.report.comparison import comparison_page
from graftwork.report.disagreements import disagreements
from graftwork.report.race import Race, floor
from graftwork.report.race_charts import on_front
from graftwork.run import Run

LABELS = ("card_arrival", "card_declined", "fee_charged", "lost_or_stolen", "top_up_failed", "transfer_pending")
FITTED = (("full-fine-tuning", 0.92), ("lora", 0.9), ("top-layers", 0.84), ("linear-probe", 0.8))
PLAIN = (("tf-idf", 0.78), ("majority", 0.17))
LATENCY = {"ms_1_p50": 4.1, "ms_1_p95": 5.9, "ms_32_p50": 61.5, "ms_32_p95": 70.2, "per_second": 520.3}


def race(
    folder: Path,
    *,
    fitted: Sequence[tuple[str, float]] = FITTED,
    plain: Sequence[tuple[str, float]] = PLAIN,
    seeds: int = 2,
    rows: int = 60,
    labels: Sequence[str] = LABELS,
    text: str = "Where is my money?",
    task: str = "classification",
    metric: str = "accuracy",
    evaluations: int = 6,
) -> tuple[dict[str, Any], dict[str, list[Run]]]:
    """A finished race: comparison.json's content, and run folders with what the page reads from them."""
    generator = np.random.default_rng(0)
    truth = generator.integers(len(labels), size=rows)
    runs: dict[str, list[Run]] = {}
    entries = []
    best = max((score for _, score in (*fitted, *plain)), default=0)
    for place, (name, score) in enumerate(sorted([*fitted, *plain], key=lambda pair: -pair[1])):
        baseline = (name, score) in plain
        many = 1 if baseline else seeds
        runs[name] = [
            finished(
                folder / f"{place}-{seed}", truth, labels, score, seed=100 * place + seed, text=text, metric=metric,
                task=task, evaluations=0 if baseline else evaluations,
            )
            for seed in range(many)
        ]  # fmt: skip
        scores = [score + 0.004 * (seed - (many - 1) / 2) for seed in range(many)]
        entries.append(
            {
                "name": name, "model": "minilm", "spec": [{name: {"lr": 2e-5}}], "baseline": baseline,
                "scores": scores, "mean": score, "low": score - 0.015, "high": min(1.0, score + 0.014),
                "sd": None if many == 1 else 0.0028, "behind": best - score,
                "p": None if score == best else 0.31 if best - score < 0.03 else 0.0004,
                "tied": best - score < 0.03, "seconds": round(0.02 if baseline else 400 * score / (place + 1) ** 2, 2),
                "peak_memory_mb": None if baseline else 900.0 + 240 * (len(fitted) - place),
                "trained_parameters": None if baseline else int(22_700_000 / 12**place),
                "model_mb": None if baseline else 87.3, "latency": None if baseline else LATENCY,
                "runs": [f"runs/{run.path.name}" for run in runs[name]],
            }
        )  # fmt: skip
    told = {
        "format": 1, "metric": metric, "budget": "3epochs", "seeds": list(range(seeds)),
        "data": {"name": "banking", "source": {"source": "/data/banking.csv"}, "fingerprint": "ab" * 32,
                 "rows": {"train": 9000, "validation": 1000, "test": rows}, "labels": list(labels), "task": task},
        "taken": entries[0]["name"] if entries else None,
        "verdict": f"Take {entries[0]['name']}: accuracy 92.0% on test (90.5% to 93.4%)." if entries else "",
        "entries": entries,
        "findings": [
            {"code": "tied", "severity": "note", "message": "Two are tied.", "where": "", "fix": "Take one."},
            {"code": "unstable", "severity": "warning", "message": "Seeds differ.", "where": "test", "fix": "More."},
        ],
        "suspects": [{"row": 7, "text": text, "label": labels[0], "answer": labels[-1], "confidence": 0.97}],
        "differs": ["The batch size is each method's own default: 16, 32."],
        "environment": {"python": "3.12.3", "cpu": "A processor", "cores": 2, "packages": {"torch": "2.13.0"}},
    }  # fmt: skip
    return told, runs


def finished(
    path: Path,
    truth: np.ndarray,
    labels: Sequence[str],
    score: float,
    *,
    seed: int,
    text: str,
    metric: str,
    task: str,
    evaluations: int,
) -> Run:
    """One run that was right on about `score` of the rows."""
    generator = np.random.default_rng(seed)
    run = Run.create(path, asked={"method": "some", "seed": seed})
    n = len(truth)
    given = np.where(generator.random(n) < score, truth, generator.integers(len(labels), size=n))
    named, said = [labels[at] for at in truth], [labels[at] for at in given]
    if metric == "macro_f1":
        named, said = [f"{name}|{labels[0]}" for name in named], [f"{labels[0]}|{name}" for name in said]
    run.write_predictions(
        "test",
        pa.table(
            {
                "row": np.arange(1, n + 1), "input": [f"{text} ({row})" for row in range(n)], "label": named,
                "prediction": said, "confidence": generator.uniform(0.4, 1, n), "unsure": np.zeros(n, bool),
                "probabilities": pa.nulls(n),
            }
        ),
    )  # fmt: skip
    per_class = {
        name: {"precision": score, "recall": score, "f1": float(np.clip(score + generator.normal() * 0.05, 0, 1)),
               "support": int((truth == at).sum())}
        for at, name in enumerate(labels)
    }  # fmt: skip
    run.update(metrics={"test": {metric: score, "n": n, "per_class": per_class}}, data={"task": task})
    lines = [
        {"event": "evaluation", "split": "validation", "stage": 0, "step": 50 * at, "epoch": at / 2,
         "seconds": 11.3 * at * (1.2 - score / 2), metric: score * (1 - np.exp(-at / 1.5)) + generator.normal() * 0.004}
        for at in range(1, evaluations + 1)
    ]  # fmt: skip
    for line in lines:
        run.log(**line)
    run.set_state("done")
    return run


class Page(HTMLParser):
    """What a browser would see: the tags with their attributes, and the words outside of style and script."""

    VOID = ("meta", "input", "wbr")

    def __init__(self, page: str):
        super().__init__()
        self.source = page
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def having(self, class_: str) -> list[dict[str, str | None]]:
        return [attributes for _, attributes in self.tags if class_ in (attributes.get("class") or "").split()]


HEADINGS = (
    "6 methods on banking", "The methods, the best first", "What a better score costs", "How they learned",
    "Where they differ: classes", "Where they differ: rows", "Labels that are likely wrong", "Before you believe it",
    "Was it fair?",
)  # fmt: skip


@pytest.fixture(scope="module")
def told_and_runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, list[Run]]]:
    return race(tmp_path_factory.mktemp("race"))


@pytest.fixture(scope="module")
def page(told_and_runs: tuple[dict[str, Any], dict[str, list[Run]]]) -> Page:
    return Page(comparison_page(*told_and_runs))


def test_the_page_is_whole_and_in_order(page: Page):
    assert page.open == []
    places = [page.text.index(heading) for heading in HEADINGS]
    assert places == sorted(places)
    assert page.text.index("Take full-fine-tuning: accuracy 92.0% on test") < places[1]
    assert "9,000 train rows, 1,000 validation rows, 60 test rows" in page.text
    assert "budget 3 epochs a run · 2 seeds · ranked by accuracy on test" in page.text


def test_what_more_labels_buy_is_a_table_with_what_is_tied_in_bold(told_and_runs):
    told, runs = told_and_runs
    scores = {e["name"]: {"mean": 0.5, "low": 0.4, "high": 0.6, "tied": i == 0} for i, e in enumerate(told["entries"])}
    curve = [{"shots": 8, "rows": 616, "scores": scores}, {"shots": None, "rows": 9000, "scores": scores}]
    best = told["entries"][0]["name"]
    ahead = [{"rows": n * 9000, "mean": 0.6, "low": 0.55, "high": 0.65} for n in (2, 4)]
    foretold = {"said": ["It overtakes the probe somewhere."], "outlook": {"name": best, "points": ahead}}
    text = comparison_page(told | {"curve": curve, "prospects": foretold}, runs)
    assert "What more labels buy" in text
    assert "It overtakes the probe somewhere." in text
    assert "55.0% to 65.0% expected at 36,000 train rows" in text
    assert f"{best}\n50.0% at 616 train rows" in text
    assert "expected at" not in comparison_page(told | {"curve": curve}, runs)
    assert "(616, 9,000 rows)" in text
    assert text.count("<b>50.0%</b>") == 2
    assert "What more labels buy" not in comparison_page(told, runs)


def test_no_method_is_missing_from_the_table_the_switches_and_the_charts(page: Page):
    for number in range(6):
        mine = [(tag, a) for tag, a in page.tags if a.get("data-method") == str(number)]
        assert [tag for tag, _ in mine].count("tr") == 1
        assert [a for tag, a in page.tags if tag == "input" and a["id"] == f"show-{number}"]
    points = [a for a in page.having("dot") if "method" in (a["class"] or "")]
    # everyone has a time to fit; the four other costs are those of the fitted; each is drawn for two sizes of paper
    assert len(points) == 2 * (6 + 4 * 4)
    assert len(page.having("series")) == 2 * 2 * 4


def test_what_a_baseline_does_not_have_is_an_en_dash(page: Page):
    row = re.search(r"<tr[^>]*>(?:(?!</tr>).)*majority.*?</tr>", page.source, re.DOTALL)
    assert row
    assert row.group().count(">–</td>") == 7  # sd, memory, parameters, MB, two latencies, answers a second


def test_a_far_baseline_does_not_press_the_others_into_one_line(page: Page):
    assert floor([score for _, score in (*FITTED, *PLAIN)]) == 0.78
    assert "majority ↓ 17.0%" in page.text


def test_the_page_fetches_nothing_and_runs_only_its_own_script(page: Page):
    assert not {tag for tag, _ in page.tags} & {"link", "img", "iframe", "object", "use", "image"}
    assert [tag for tag, _ in page.tags].count("script") == 1
    for _, attributes in page.tags:
        assert not {"src", "href", "xlink:href", "srcset", "action"} & set(attributes)
        assert not [name for name in attributes if name.startswith("on")]
    for outside in ("url(", "@import", "http://", "https://", "innerHTML", "eval("):
        assert outside not in page.source
    assert "default-src 'none'; script-src 'unsafe-inline' 'sha256-" in page.source
    assert "style-src 'unsafe-inline'" in page.source


def test_hostile_text_stays_text(tmp_path: Path):
    evil = "</title></style></script><script>alert(1)</script><img src=x onerror=alert(2)> & \" ' ]]>"
    names = [(f"{evil} {place}", 0.9 - place / 50) for place in range(3)]
    told, runs = race(tmp_path, fitted=names, plain=[], labels=[f"a {evil}", f"b {evil}"], text=evil, seeds=1)
    told |= {"verdict": evil, "budget": evil, "differs": [evil], "seeds": [evil]}
    told["findings"] = [{"code": evil, "severity": "warning", "message": evil, "where": evil, "fix": evil}]
    told["environment"] = {"python": evil, "cpu": evil, "packages": {evil: evil}}
    told["data"] |= {"name": evil, "fingerprint": evil, "rows": {evil: 3}}
    page = Page(comparison_page(told, runs))
    assert page.open == []
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert "img" not in {tag for tag, _ in page.tags}
    assert page.text.count("<script>alert(1)</script>") > 50


def test_twenty_methods_with_five_seeds_on_three_thousand_rows_stay_small(tmp_path: Path):
    fitted = [(f"a-method-with-quite-a-long-name-{place}", 0.95 - place / 100) for place in range(20)]
    labels = [f"class_{place}" for place in range(77)]
    told, runs = race(tmp_path, fitted=fitted[:4], plain=[], seeds=1, rows=3000, labels=labels, evaluations=120)
    # folders are what takes time: each is read for several methods
    some = list(runs.values())
    runs = {name: some[place % 4] * 5 for place, (name, _) in enumerate(fitted)}
    told["entries"] = [
        told["entries"][place % 4] | {"name": name, "mean": score, "seconds": 3.0 + place}
        for place, (name, score) in enumerate(fitted)
    ]
    told["suspects"] = told["suspects"] * 3000
    page = comparison_page(told, runs)
    assert len(page.encode()) < 3_000_000
    assert all(page.count(name) >= 6 for name, _ in fitted)
    assert "The 25 of 77 classes on which the fitted methods differ most" in page
    assert page.count('class="mistake"') == 80


@pytest.mark.parametrize("baselines", [PLAIN, ()])
def test_a_single_method_is_shown(tmp_path: Path, baselines: Sequence[tuple[str, float]]):
    told, runs = race(tmp_path, fitted=FITTED[:1], plain=baselines, seeds=1)
    page = Page(comparison_page(told, runs))
    assert page.open == []
    assert "full-fine-tuning" in page.text
    assert ("Shown on this page" in page.text) == bool(baselines)


def test_baselines_alone_are_shown(tmp_path: Path):
    page = Page(comparison_page(*race(tmp_path, fitted=())))
    assert "tf-idf is wrong, another is right" in page.text or "tf-idf is right, another is wrong" in page.text
    assert "How they learned" not in page.text


def test_what_is_missing_is_left_out_not_invented(tmp_path: Path):
    told, runs = race(tmp_path, fitted=FITTED[:2], plain=(), seeds=1)
    broken = Run.create(tmp_path / "broken", asked={})
    broken.set_state("failed", "The memory did not suffice.")
    broken.log(event="evaluation", split="validation", step=5, accuracy=None)
    told["entries"].append({"name": "never-finished", "baseline": False, "mean": None, "runs": []})
    told["entries"].append({"name": "no-runs", "baseline": False, "mean": 0.5, "tied": False, "behind": 0.42})
    for key in ("findings", "suspects", "differs", "environment", "seeds", "verdict"):
        del told[key]
    told["data"] = {}
    for entry in told["entries"][:2]:
        entry.update(latency={"ms_1_p50": 3.0}, model_mb=None, low=None, high=None)
    page = Page(comparison_page(told, runs | {"never-finished": [broken]}))
    assert page.open == []
    assert "never-finished" in page.text
    assert "no-runs" in page.text
    assert "None" not in page.text
    assert "nan" not in page.text.lower()
    assert "Labels that are likely wrong" not in page.text


def test_several_labels_a_row_are_compared_as_sets(tmp_path: Path):
    told, runs = race(tmp_path, metric="macro_f1")
    found = disagreements(Race.of(told, runs).racers, several=True)
    assert found
    # the labels come in another order than the answers, and are still right
    assert 0 < sum(found.counts) < 60
    page = Page(comparison_page(told, runs))
    assert "ranked by macro F1 on test" in page.text
    assert "✓ right" in page.text


def test_tagging_has_classes_and_curves_but_no_rows(tmp_path: Path):
    page = Page(comparison_page(*race(tmp_path, task="tagging", metric="f1", plain=())))
    assert "Where they differ: entity types" in page.text
    assert "How they learned" in page.text
    assert "Where they differ: rows" not in page.text


def test_rows_where_only_the_best_is_wrong_come_first(tmp_path: Path):
    runs: dict[str, list[Run]] = {}
    answers = {"best": ["x", "a", "y", "a"], "other": ["a", "x", "z", "a"]}
    for name, said in answers.items():
        run = Run.create(tmp_path / name, asked={})
        table = {"row": [3, 5, 8, 9], "input": ["t"] * 4, "label": ["a"] * 4, "prediction": said}
        table |= {"confidence": [0.9] * 4, "unsure": [False] * 4, "probabilities": pa.nulls(4)}
        run.write_predictions("test", pa.table(table))
        runs[name] = [run]
    told = {"metric": "accuracy", "entries": [{"name": name, "baseline": False} for name in answers]}
    found = disagreements(Race.of(told, runs).racers, several=False)
    assert found
    assert found.counts == (1, 1, 1)
    assert [[row.number for row in rows] for rows in found.shown] == [[3], [5], [8]]


def test_the_front_holds_what_nothing_beats_in_both():
    assert on_front([(1, 0.5), (2, 0.4), (3, 0.9), (3, 0.8), (0.5, 0.5)]) == [4, 2]
