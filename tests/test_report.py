"""The report shows a run as it was, at any size, and nothing a text says can become part of the page."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from graftwork.report import report
from graftwork.report.evidence import accuracy_by_coverage, calibration_bins, one_after_the_other, wilson
from graftwork.report.markup import Markup, element
from graftwork.report.wording import duration, number, said
from graftwork.run import Run

OBJECTS = ("card", "cash_withdrawal", "top_up", "transfer", "exchange_rate", "pin", "direct_debit")
TROUBLES = ("arrival", "declined", "fee_charged", "not_recognised", "pending", "reverted", "wrong_amount_received")
TROUBLES += ("limits", "not_working", "lost_or_stolen", "about")
SEVENTY_SEVEN = sorted(f"{thing}_{trouble}" for thing in OBJECTS for trouble in TROUBLES)


def new_run(path: Path, **asked: Any) -> Run:
    wanted = {
        "model": "minilm",
        "data": {"source": "/data/banking.csv", "text": "query", "label": "intent", "seed": 0},
        "method": [{"gradual-unfreezing": {"decay": 2.6, "epochs_each": 1}}],
        "task": "classification",
        "budget": "3epochs",
        "seed": 0,
        "coverage": 0.95,
        "hardware": {"device": "cpu", "precision": "auto"},
    }
    return Run.create(path, asked=wanted | asked)


def fill(run: Run, *, epochs: float = 3.0) -> None:
    """A learning curve, depths, costs and findings such as a real fit leaves."""
    generator = np.random.default_rng(0)
    for step in range(1, 472):
        loss = 4.3 * np.exp(-step / 110) + 0.25 + generator.normal() * 0.08
        run.log(
            event="step", step=step, epoch=step / 157, loss=loss, lr=1e-5, examples_per_second=310, seconds=step * 0.3
        )
        if step % 52 == 0:
            score = 0.94 - 0.9 * np.exp(-step / 90)
            scored = {"loss": 4.1 * np.exp(-step / 105) + 0.4, "accuracy": score, "macro_f1": score - 0.01}
            run.log(event="evaluation", split="validation", step=step, epoch=step / 157, seconds=step * 0.3, **scored)
    parts = ["head", *(f"block {number}" for number in reversed(range(6))), "embeddings"]
    rates = [
        {"name": f"{name}{twin}", "lr": 2e-4 / 2.6**height, "parameters": 1_769_472}
        for height, name in enumerate(parts)
        for twin in ("", ", no decay")
    ]
    run.update(
        happened={
            "steps": 471,
            "epochs": epochs,
            "best_step": 468,
            "stopped": "budget",
            "precision": "bfloat16 (measured 2.9 times faster)",
            "padding_waste": 0.031,
            "cache": {"layers": 2, "mb": 310.5},
            "dropped": {"duplicates": 4},
            "truncated_rows": 12,
            "said": ["Column 'intent' is the label: 77 distinct values.", "Column 'query' is the text."],
            "stages": [{"method": {"gradual-unfreezing": {"decay": 2.6}}, "groups": rates}],
            "unfreezing": [[epoch, parts[1 : 1 + epoch][::-1]] for epoch in range(6)],
            "decision": {"temperature": 0.83, "threshold": 0.5, "sure_from": 0.412},
        },
        cost={
            "seconds": 251.3,
            "examples_per_second": 312.4,
            "peak_memory_mb": 1423.0,
            "trained_parameters": 22_742_861,
            "total_parameters": 22_742_861,
            "model_mb": 87.3,
        },
        findings=[
            {
                "code": "duplicates",
                "severity": "note",
                "message": "3 texts occur twice.",
                "where": "rows 3, 9, 41 of train",
                "fix": "--drop duplicates",
            },
            {
                "code": "few-rows",
                "severity": "warning",
                "message": "Class 'pin_about' has 4 rows.",
                "where": "train",
                "fix": "Collect 10 or more.",
            },
        ],
    )
    run.set_state("done")


def single_label(path: Path, names: list[str], *, n: int, texts: list[str] | None = None) -> Run:
    """A run whose errors fall mostly on neighbouring classes, as real ones do."""
    run = new_run(path)
    generator = np.random.default_rng(1)
    true = generator.integers(len(names), size=n)
    logits = generator.normal(size=(n, len(names)))
    logits[np.arange(n), true] += 5.5
    logits[np.arange(n), (true + 1) % len(names)] += np.where(generator.random(n) < 0.15, 5.0, 0)
    probabilities = np.exp(logits * 1.3)
    probabilities /= probabilities.sum(1, keepdims=True)
    given = probabilities.argmax(1)
    confidence = probabilities.max(1)
    labels, said = [names[at] for at in true], [names[at] for at in given]
    texts = texts or [
        f"I still have not received my new {name.replace('_', ' ')}, what is going on? ({row})"
        for row, name in enumerate(labels)
    ]
    run.write_predictions(
        "test",
        pa.table(
            {
                "row": np.arange(1, n + 1),
                "input": texts,
                "label": labels,
                "prediction": said,
                "confidence": confidence,
                "unsure": confidence < np.quantile(confidence, 0.05),
                "probabilities": probabilities.astype(np.float32).tolist(),
            }
        ),
    )
    values = zip(*precision_recall_fscore_support(labels, said, labels=names, zero_division=0), strict=True)
    per_class = {
        name: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(s)}
        for name, (p, r, f, s) in zip(names, values, strict=True)
    }
    accuracy = float((true == given).mean())
    macro = float(np.mean([value["f1"] for value in per_class.values()]))
    scores = {
        "accuracy": accuracy,
        "macro_f1": macro,
        "ece": 0.021,
        "loss": 0.31,
        "coverage": 0.95,
        "accuracy_when_sure": min(1.0, accuracy + 0.02),
        "n": n,
    }
    matrix = confusion_matrix(labels, said, labels=names).tolist()
    run.update(
        metrics={
            "validation": scores | {"accuracy": accuracy + 0.004, "n": n // 3},
            "test": scores | {"per_class": per_class, "confusion": {"labels": names, "matrix": matrix}},
        },
        data={
            "fingerprint": "5f2c" * 16,
            "rows": {"train": 9003, "validation": 1000, "test": n},
            "labels": names,
            "task": "classification",
            "multi_label": False,
        },
    )
    fill(run)
    return run


def multi_label(path: Path) -> Run:
    run = new_run(path)
    names = ["admiration", "anger", "curiosity", "joy", "neutral", "sadness"]
    generator = np.random.default_rng(2)
    truth = generator.random((300, 6)) < 0.25
    probabilities = np.clip(truth * 0.35 + generator.random((300, 6)) * 0.6, 0, 1)
    chosen = probabilities > 0.5

    def join(marks: np.ndarray) -> list[str]:
        return ["|".join(np.array(names)[row]) for row in marks]

    run.write_predictions(
        "test",
        pa.table(
            {
                "row": np.arange(1, 301),
                "input": [f"What a day, number {row}!" for row in range(300)],
                "label": join(truth),
                "prediction": join(chosen),
                "confidence": probabilities.max(1),
                "unsure": np.zeros(300, bool),
                "probabilities": probabilities.tolist(),
            }
        ),
    )
    per_class = {
        name: {"precision": 0.7, "recall": 0.6, "f1": 0.6 + at / 20, "support": 75} for at, name in enumerate(names)
    }
    run.update(
        metrics={
            "test": {"micro_f1": 0.71, "macro_f1": 0.66, "subset_accuracy": 0.5, "n": 300, "per_class": per_class}
        },
        data={
            "labels": names,
            "task": "classification",
            "multi_label": True,
            "rows": {"test": 300},
            "fingerprint": "ab" * 32,
        },
    )
    fill(run)
    return run


def tagging(path: Path) -> Run:
    run = new_run(path, task="tagging")
    words = "Mutations in BRCA1 cause familial breast cancer and ovarian cancer in some families ."
    true = "O O O O B-Disease I-Disease I-Disease O B-Disease I-Disease O O O O"
    said = "O O O O O B-Disease I-Disease O B-Disease I-Disease O O B-Disease O"
    run.write_predictions(
        "test",
        pa.table(
            {
                "row": np.arange(1, 41),
                "input": [words] * 40,
                "label": [true] * 40,
                "prediction": [said if row % 3 == 0 else true for row in range(40)],
                "confidence": np.linspace(0.5, 1, 40),
                "unsure": np.zeros(40, bool),
                "probabilities": pa.nulls(40),
            }
        ),
    )
    per_class = {"Disease": {"precision": 0.84, "recall": 0.87, "f1": 0.855, "support": 960}}
    run.update(
        metrics={
            "test": {
                "f1": 0.855,
                "precision": 0.84,
                "recall": 0.87,
                "token_accuracy": 0.98,
                "n": 940,
                "per_class": per_class,
            }
        },
        data={
            "labels": ["O", "B-Disease", "I-Disease"],
            "task": "tagging",
            "multi_label": False,
            "rows": {"train": 5000, "test": 940},
        },
    )
    fill(run)
    return run


class Page(HTMLParser):
    """What a browser would see: the tags in order with their attributes, the text, and whether every tag is closed."""

    VOID = ("meta",)

    def __init__(self, path: Path):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def banking(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return single_label(tmp_path_factory.mktemp("runs") / "banking-gradual-unfreezing", SEVENTY_SEVEN, n=3080)


MAKERS = {
    "three-classes": lambda path: single_label(path, ["negative", "neutral", "positive"], n=200),
    "multi-label": multi_label,
    "tagging": tagging,
}


@pytest.mark.parametrize("kind", MAKERS)
def test_every_kind_of_task_gets_a_whole_page(tmp_path: Path, kind: str):
    page = Page(report(MAKERS[kind](tmp_path / kind)))
    assert page.open == []
    for heading in (
        "Scores",
        "Learning curve",
        "The mistakes it was surest of",
        "Findings in the data",
        "To repeat it",
    ):
        assert heading in page.text
    assert ("Confusion matrix" in page.text) == (kind == "three-classes")
    assert ("Calibration" in page.text) == (kind != "tagging")


def test_seventy_seven_classes_are_all_there_and_the_worst_pairs_are_listed(banking: Run):
    page = Page(report(banking))
    rows = re.findall(r"All 77 classes, the hardest first", page.text)
    assert rows
    assert all(page.text.count(name) >= 3 for name in SEVENTY_SEVEN)
    confusion = banking.metrics["test"]["confusion"]
    matrix = np.array(confusion["matrix"])
    np.fill_diagonal(matrix, 0)
    true, predicted = np.unravel_index(matrix.argmax(), matrix.shape)
    worst = f"Most often mixed up: {SEVENTY_SEVEN[true]} taken for {SEVENTY_SEVEN[predicted]}, {matrix.max()} of"
    assert worst in page.text
    assert (banking.path / "report.html").stat().st_size < 1_000_000


def test_the_page_loads_nothing_and_runs_nothing(banking: Run):
    page = Page(report(banking))
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "object", "use", "image"}
    for _, attributes in page.tags:
        assert not {"src", "href", "xlink:href", "srcset", "action"} & set(attributes)
        assert not [name for name in attributes if name.startswith("on")]
    source = (banking.path / "report.html").read_text()
    assert "url(" not in source
    assert "@import" not in source
    assert "http://" not in source.replace("http://www.w3.org", "")
    assert "default-src 'none'" in source


def test_text_from_the_data_cannot_become_part_of_the_page(tmp_path: Path):
    evil = "</title></style><script>alert(1)</script><img src=x onerror=alert(2)> & \" ' ]]>"
    run = single_label(tmp_path / "run", [f"a {evil}", f"b {evil}"], n=60, texts=[evil] * 60)
    run.update(
        name=evil,
        asked={"model": evil, "method": {evil: {evil: evil}}, "data": {"source": evil}, "hardware": {evil: evil}},
        findings=[{"code": evil, "severity": "error", "message": evil, "where": evil, "fix": evil}],
        environment={"cpu": evil, "packages": {evil: evil}, "git": {"commit": evil}},
        happened={"said": [evil], "stopped": evil, "precision": evil},
    )
    run.set_state("failed", evil)
    page = Page(report(run))
    assert page.open == []
    assert not {tag for tag, _ in page.tags} & {"script", "img"}
    assert page.text.count("<script>alert(1)</script>") > 20


def test_a_run_that_failed_at_once_says_why_and_what_was_asked(tmp_path: Path):
    run = new_run(tmp_path / "run")
    run.set_state("failed", "The memory did not suffice.")
    page = Page(report(run))
    assert "The memory did not suffice." in page.text
    assert "banking.csv" in page.text
    assert "Learning curve" not in page.text


def test_validation_is_reported_while_test_was_not_evaluated(tmp_path: Path):
    run = new_run(tmp_path / "run")
    run.update(metrics={"validation": {"accuracy": 0.75, "n": 100}}, data={"task": "classification"})
    assert "75.0% of 100 validation texts are classified right" in Page(report(run)).text


def test_numbers_that_are_missing_are_left_out_not_invented(tmp_path: Path):
    run = new_run(tmp_path / "run")
    run.log(event="step", step=1, epoch=0.1, loss=float("nan"))
    run.update(metrics={"test": {"accuracy": 0.5, "macro_f1": None, "ece": None, "n": 10}}, cost={"seconds": None})
    page = Page(report(run)).text
    assert "nan" not in page.lower().replace("finance", "")
    assert "None" not in page


def test_a_curve_of_one_evaluation_is_still_drawn(tmp_path: Path):
    run = new_run(tmp_path / "run")
    run.log(event="evaluation", step=5, epoch=1.0, split="validation", loss=0.5, accuracy=0.8)
    assert "Learning curve" in Page(report(run)).text


def test_the_curve_of_a_recipe_goes_on_from_stage_to_stage():
    events = [
        {"event": "step", "stage": 0, "step": 1, "epoch": 0.5},
        {"event": "step", "stage": 0, "step": 2, "epoch": 1.0},
        {"event": "note", "message": "between"},
        {"event": "step", "stage": 1, "step": 1, "epoch": 0.25},
        {"event": "step", "stage": 2, "step": 1, "epoch": 0.5},
    ]
    counted = [(event["step"], event["epoch"]) for event in one_after_the_other(events) if "step" in event]
    assert counted == [(1, 0.5), (2, 1.0), (3, 1.25), (4, 1.75)]


def test_writing_it_again_gives_the_same_page(banking: Run):
    assert report(banking).read_bytes() == report(banking.path).read_bytes()


def test_the_interval_is_wilsons():
    # Agresti & Coull 1998: 0 of 10 gives [0, 0.278]; and scipy's binomtest(80, 100).proportion_ci(method="wilson").
    assert wilson(0.0, 10) == pytest.approx((0, 0.2775), abs=1e-3)
    assert wilson(0.8, 100) == pytest.approx((0.7112, 0.8666), abs=1e-3)


def test_calibration_bins_hold_every_prediction_once():
    probabilities, truth = np.array([0.0, 0.04, 0.5, 1.0, np.nan]), np.array([False, True, True, True, True])
    bins = calibration_bins(probabilities, truth)
    assert sum(count for _, _, count in bins) == 4
    assert bins[0] == (pytest.approx(0.02), 0.5, 2)
    assert bins[-1] == (1.0, 1.0, 1)


def test_accuracy_by_coverage_ends_with_the_accuracy_of_all():
    wrong = np.arange(100) < 20
    curve = accuracy_by_coverage(np.arange(100) / 100, wrong)
    assert curve[0] == (10.0, 1.0)
    assert curve[-1] == (100.0, 0.8)


def test_elements_escape_what_is_not_markup():
    assert (
        element("p", "<b>", Markup("<i></i>"), ["&", None], title='"') == '<p title="&quot;">&lt;b&gt;<i></i>&amp;</p>'
    )


def test_numbers_and_settings_read_as_people_say_them():
    assert [duration(seconds) for seconds in (0.4, 42, 185, 7630)] == ["0.4 s", "42 s", "3 min 5 s", "2 h 7 min"]
    assert [number(value) for value in (1_234_567, 312.44, 0.8312, None)] == ["1,234,567", "312.4", "0.831", None]
    assert said([{"linear-probe": {}}, {"lora": {"rank": 8, "dropout": None}}]) == "linear-probe → lora (rank 8)"
