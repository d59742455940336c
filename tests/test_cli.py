"""What is typed reaches the verbs; what they say comes back as a sentence, one JSON object, and a true exit code."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from graftwork.choice import InputError
from graftwork.cli import asked
from graftwork.cli.meter import Meter
from graftwork.cli.screen import Screen
from graftwork.run import Run

VERBS = (
    "check",
    "augment",
    "fit",
    "compare",
    "advise",
    "rank",
    "rate-test",
    "resume",
    "evaluate",
    "predict",
    "compress",
    "distill",
    "export",
    "runs",
    "report",
    "pretrain",
    "fill",
    "perplexity",
    "generate",
    "methods",
    "tasks",
    "models",
    "plan",
    "demo",
)
HEAVY = ("torch", "transformers", "pyarrow", "pandas", "sklearn", "numpy", "pydantic")
GRAFT = (sys.executable, "-c", "from graftwork.cli import main; main()")
WORDS = (
    "the",
    "food",
    "room",
    "view",
    "staff",
    "lift",
    "bed",
    "was",
    "good",
    "great",
    "bad",
    "awful",
    "today",
    "again",
)


@dataclass
class Outcome:
    """What a call left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """Stdout, which must be exactly one JSON object."""
        assert self.out.count("\n") == 1
        return json.loads(self.out)


Graft = Callable[..., Outcome]


@pytest.fixture
def graft(capsys: pytest.CaptureFixture[str], typed: Callable[..., int]) -> Graft:
    """`graft(...)` as in a shell."""

    def call(*words: object) -> Outcome:
        code = typed(*words)
        out, err = capsys.readouterr()
        return Outcome(code, out, err)

    return call


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder: BERT with two layers of 16, random weights, a vocabulary of these tests' words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("tiny")
    vocabulary = {word: number for number, word in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(vocabulary), max_position_embeddings=32, **sizes)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 96 labelled sentences that nothing is wrong with."""
    rows = [
        (f"the {thing} was {what} {when} {other}", "good" if what in ("good", "great") else "bad")
        for thing in ("food", "room", "view", "staff", "lift", "bed")
        for what in ("good", "great", "bad", "awful")
        for when in ("today", "again")
        for other in ("food", "view")
    ]
    path = tmp_path_factory.mktemp("data") / "reviews.csv"
    path.write_text("review,verdict\n" + "".join(f"{text},{label}\n" for text, label in rows))
    return path


@pytest.fixture(scope="module")
def fitted(
    tmp_path_factory: pytest.TempPathFactory, tiny: Path, reviews: Path, typed: Callable[..., int]
) -> tuple[Path, dict[str, Any]]:
    """A finished run, and what `graft fit --json` said."""
    folder = tmp_path_factory.mktemp("runs") / "reviews"
    words = ("fit", reviews, "--model", tiny, "--budget", "8steps", "--out", folder, "--coverage", "0.9", "--json")
    with contextlib.redirect_stdout(io.StringIO()) as out:
        said = typed(*words)
    assert said == 0
    assert out.getvalue().count("\n") == 1
    return folder, json.loads(out.getvalue())


# The shell


def test_help_answers_at_once_and_imports_nothing_heavy():
    code = f"""
import sys
from graftwork.cli import main
try:
    main()
except SystemExit:
    print(sorted(set(sys.modules) & set({HEAVY!r})), file=sys.stderr)
"""
    spent = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert done.stderr.strip() == "[]"
        assert all(verb in done.stdout for verb in VERBS)
    assert min(spent) < 0.7  # of the processor: the wall clock measures the neighbours too


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_takes_json_and_documents_its_keys(graft: Graft, verb: str):
    said = graft(verb, "--help")
    assert said.code == 0
    assert "--json" in said.out
    assert "With --json:" in said.out


def test_the_version_and_no_words_at_all(graft: Graft):
    from graftwork import __version__

    assert graft("--version").out == f"{__version__}\n"
    assert "Usage: graft" in graft().out


def test_the_shell_completes_verbs():
    wish = {"_GRAFT_COMPLETE": "complete_bash", "COMP_WORDS": "graft ev", "COMP_CWORD": "1"}
    done = subprocess.run(GRAFT, env=os.environ | wish, capture_output=True, text=True)
    assert done.stdout.split() == ["evaluate"]


def test_a_reader_who_has_seen_enough_is_not_bothered():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*GRAFT, "models"], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


# From data to answers


def test_fit_scores_test_and_answers_with_one_object(fitted: tuple[Path, dict[str, Any]]):
    folder, said = fitted
    assert said["run"] == str(folder)
    assert said["state"] == Run.open(folder).state == "done"
    assert set(said["metrics"]) == {"validation", "test"}
    assert said["happened"]["steps"] == 8
    assert Path(said["report"]).read_text().startswith("<!doctype html>")
    assert Run.open(folder).asked["coverage"] == 0.9


def test_fit_tells_people_where_the_run_and_the_report_are(graft: Graft, tiny: Path, reviews: Path, tmp_path: Path):
    said = graft(
        "fit", reviews, "--model", tiny, "--method", "linear-probe", "--out", tmp_path / "run", "--no-evaluate"
    )
    assert said.code == 0
    assert f"Report:  {tmp_path / 'run' / 'report.html'}" in said.out
    assert "accuracy" in said.out
    assert "Stage 1/1: linear-probe" in said.err
    assert "test" not in Run.open(tmp_path / "run").metrics


def test_a_run_file_asks_and_what_is_typed_wins(graft: Graft, tiny: Path, reviews: Path, tmp_path: Path):
    file = tmp_path / "run.yaml"
    wish = {"model": str(tiny), "data": str(reviews), "budget": "50steps", "seed": 7}
    wish["method"] = [{"top-layers": {"blocks": 1}}, "full-fine-tuning"]
    file.write_text(json.dumps(wish))  # every JSON is YAML
    words = ("--budget", "4steps", "--set", "blocks=2", "--set", "full-fine-tuning.lr=1e-3", "--max-tokens", 512)
    said = graft("fit", file, *words, "--out", tmp_path / "run", "--json").json
    asked = Run.open(said["run"]).asked
    assert (asked["budget"], asked["seed"], asked["hardware"]["max_tokens"]) == ("4steps", 7, 512)
    assert asked["method"][0]["top-layers"]["blocks"] == 2
    assert asked["method"][1]["full-fine-tuning"]["lr"] == 1e-3


def test_predict_answers_a_text(graft: Graft, fitted: tuple[Path, dict[str, Any]]):
    folder, _ = fitted
    [answer] = graft("predict", folder, "the food was great", "--json").json["predictions"]
    assert answer["label"] in ("good", "bad")
    assert set(answer) == {"text", "label", "confidence", "unsure", "probabilities"}
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-3)
    people = graft("predict", folder, "the food was great").out
    assert f"→ {answer['label']}" in people


def test_predict_answers_a_file_a_row_at_a_time(
    graft: Graft, fitted: tuple[Path, dict[str, Any]], reviews: Path, tmp_path: Path
):
    folder, _ = fitted
    lines = graft("predict", folder, reviews).out.splitlines()
    assert lines[0] == "text,label,confidence,unsure"
    assert len(lines) == 97
    texts = tmp_path / "texts.txt"
    texts.write_text("the food was great\nthe bed was bad\n")
    said = graft("predict", folder, texts, "--out", tmp_path / "answers.jsonl", "--json").json
    assert said["rows"] == 2
    answers = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [answer["text"] for answer in answers] == ["the food was great", "the bed was bad"]


def test_evaluate_scores_the_own_test_split_or_other_data(
    graft: Graft, fitted: tuple[Path, dict[str, Any]], reviews: Path
):
    folder, said = fitted
    own = graft("evaluate", folder, "--json").json
    assert own["split"] == "test"
    assert own["metrics"]["accuracy"] == said["metrics"]["test"]["accuracy"]
    other = graft("evaluate", folder, reviews, "--text", "review", "--label", "verdict", "--json").json
    assert other["rows"] == 96
    assert other["report"] is None


def test_runs_lists_states_and_scores(graft: Graft, fitted: tuple[Path, dict[str, Any]], tmp_path: Path):
    folder, _ = fitted
    [row] = graft("runs", folder.parent, "--json").json["runs"]
    assert (row["state"], row["method"]) == ("done", "full-fine-tuning")
    assert "per_class" not in row["metrics"]["test"]
    people = graft("runs", folder.parent).out
    assert "done" in people
    assert "test accuracy" in people
    assert "No runs" in graft("runs", tmp_path).out


def test_report_says_where_the_page_is(graft: Graft, fitted: tuple[Path, dict[str, Any]]):
    folder, _ = fitted
    assert graft("report", folder).out.strip() == str(folder / "report.html")
    assert graft("report", folder, "--json").json["report"] == str(folder / "report.html")


def test_check_names_what_is_wrong_and_exits_2(graft: Graft, tiny: Path, reviews: Path, tmp_path: Path):
    fine = graft("check", reviews, "--model", tiny, "--json")
    assert fine.code == 0
    assert fine.json["data"]["text"] == "review"
    broken = tmp_path / "broken.csv"
    broken.write_text(reviews.read_text() + "too,many,cells\n")
    said = graft("check", broken, "--model", tiny, "--json")
    assert said.code == 2
    assert "ragged-line" in [finding["code"] for finding in said.json["findings"]]
    assert "ragged-line" in graft("check", broken, "--model", tiny).out


def test_check_shows_what_the_models_length_cuts_off_class_by_class(
    graft: Graft, tiny: Path, reviews: Path, tmp_path: Path
):
    long = tmp_path / "long.csv"
    long.write_text(reviews.read_text().replace("the lift was good", "the lift was good " + "today " * 40))
    said = " ".join(graft("check", long, "--model", tiny).out.split())
    assert "cut at 32 tokens rows tokens lost train" in said
    assert re.search(r"good \d of \d+ [\d.]+%", said)
    assert not re.search(r" bad \d", said)


def test_catalogues_print_every_field_with_range_default_and_sentence(graft: Graft):
    names = [row["name"] for row in graft("methods", "--json").json["methods"]]
    assert {"full-fine-tuning", "linear-probe", "top-layers", "lora"} <= set(names)
    [lora] = graft("methods", "lora", "--json").json["methods"]
    rank = next(field for field in lora["fields"] if field["name"] == "rank")
    assert (rank["range"], rank["default"]) == ("in [1, inf)", 8)
    assert all(field["sentence"] for field in lora["fields"])
    people = graft("methods", "lora").out
    assert "Hu et al. 2021" in people
    assert "an integer in [1, inf)" in people
    assert [row["name"] for row in graft("tasks", "--json").json["tasks"]] == [
        "classification",
        "similarity",
        "tagging",
        "triplets",
    ]
    [model] = graft("models", "minilm", "--json").json["models"]
    assert (model["layers"], model["width"]) == (6, 384)


def test_advice_is_a_table_a_reason_each_and_a_command(graft: Graft, tiny: Path, reviews: Path):
    words = (
        "advise",
        str(reviews),
        "--models",
        str(tiny),
        "--methods",
        "linear-probe,top-layers",
        "--max-size",
        "50MB",
    )
    told = graft(*words, "--json").json
    assert told["advised"] in {option["name"] for option in told["options"]}
    people = graft(*words).out
    assert f"Take {told['advised']}: graft fit {reviews}" in people
    assert "More labels" in people
    assert all(option["reason"] in people for option in told["options"])


def test_layers_are_ranked_and_rates_tried(graft: Graft, tiny: Path, reviews: Path):
    ranked = graft("rank", str(reviews), "--models", str(tiny), "--layers", "--json").json["ranked"]
    assert {row["layer"] for row in ranked} == {"0", "1", "2", "average"}
    assert "probe" in graft("rank", str(reviews), "--models", str(tiny)).out
    told = graft("rate-test", str(reviews), "--model", str(tiny), "--steps", "20", "--json").json
    assert len(told["rates"]) == len(told["losses"]) <= 20
    assert "Take --set lr=" in graft("rate-test", str(reviews), "--model", str(tiny), "--steps", "20").out


# Wrong input


WRONG = {
    "no-data": (("fit", "nowhere.csv"), "nowhere.csv"),
    "no-run": (("predict", "nowhere", "text"), "no run folder"),
    "no-file": (("predict", "RUN", "texts.csv"), "no file 'texts.csv'"),
    "no-argument": (("fit",), "Missing argument"),
    "unknown-option": (("fit", "DATA", "--bugdet", "3epochs"), "No such option"),
    "unknown-verb": (("fti", "DATA"), "No such command"),
    "bad-number": (("fit", "DATA", "--seed", "many"), "Invalid value"),
    "bad-budget": (("fit", "DATA", "--budget", "3 weeks"), "not understood"),
    "unknown-method": (("fit", "DATA", "--method", "lroa"), "Did you mean 'lora'"),
    "unknown-field": (("fit", "DATA", "--method", "lora", "--set", "rnak=4"), "Did you mean 'rank'"),
    "bad-value": (("fit", "DATA", "--method", "lora", "--set", "rank=0"), "in [1, inf)"),
    "not-a-setting": (("fit", "DATA", "--set", "rank"), "Write field=value"),
    "unknown-model": (("fit", "DATA", "--model", "minlm"), "Did you mean 'minilm'"),
    "wrong-column": (("fit", "DATA", "--label", "verdit"), "verdit"),
    "finished-run": (("fit", "DATA", "--out", "RUN"), "--force"),
    "not-a-run": (("fit", "DATA", "--out", "."), "not a run"),
    "data-options-alone": (("evaluate", "RUN", "--label", "x"), "belong to other data"),
    "resume-a-finished-run": (("resume", "RUN"), "finished"),
    "advice-too-small": (("advise", "DATA", "--max-size", "tiny"), "an amount above 0, such as 20MB"),
    "advice-on-no-precision": (("advise", "DATA", "--precision", "fp64"), "The hardware cannot be used: precision"),
    "rate-of-a-recipe": (("rate-test", "DATA", "--method", "linear-probe,lora"), "of one method"),
    "rate-without-steps": (("rate-test", "DATA", "--method", "linear-probe"), "takes no steps"),
    "predictions-elsewhere": (("predict", "RUN", "a text", "--out", "answers.xls"), "must end in .csv or .jsonl"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_sentence_and_exit_2(
    graft: Graft, fitted: tuple[Path, dict[str, Any]], reviews: Path, case: str,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    words, told = WRONG[case]
    (tmp_path / "notes.txt").write_text("mine")
    monkeypatch.chdir(tmp_path)
    words = [{"DATA": reviews, "RUN": fitted[0]}.get(word, word) for word in words]
    said = graft(*words)
    assert said.code == 2
    assert told in said.err
    assert said.err.startswith("error: ")
    assert "Traceback" not in said.err
    assert said.out == ""
    program = graft(*words, "--json")
    assert program.json["exit"] == program.code == 2
    assert told in program.json["error"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt"]


def test_broken_data_names_its_findings_to_programs(graft: Graft, tmp_path: Path):
    empty = tmp_path / "empty.csv"
    empty.write_text("")
    said = graft("fit", empty, "--json")
    assert said.code == 2
    assert said.json["findings"][0]["severity"] == "error"


# Failures and interruptions


def test_a_run_that_fails_says_why_where_the_details_are_and_exits_1(
    graft: Graft, tiny: Path, reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fall(*_: object, **__: object) -> None:
        raise RuntimeError("the optimizer fell over")

    monkeypatch.setattr(importlib.import_module("graftwork.fit"), "train", fall)
    said = graft("fit", reviews, "--model", tiny, "--out", tmp_path / "run", "--json")
    assert said.code == said.json["exit"] == 1
    assert "the optimizer fell over" in said.err
    assert "Traceback" not in said.err
    assert "Traceback" in Path(said.json["log"]).read_text()
    run = Run.open(tmp_path / "run")
    assert run.state == "failed"
    assert said.json["log"] == str(run.path / "log.txt")


def test_a_failure_without_a_run_still_leaves_its_details(graft: Graft, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("graftwork.run.Run.list", lambda root: 1 / 0)
    said = graft("runs")
    assert said.code == 1
    log = Path(said.err.split()[-1])
    assert "ZeroDivisionError" in log.read_text()
    log.unlink()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_says_how_to_resume_and_exits_130(
    graft: Graft, tiny: Path, reviews: Path, tmp_path: Path, number: signal.Signals
):
    folder = tmp_path / "run"

    def send() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not (folder / "metrics.jsonl").exists():
            time.sleep(0.01)
        while time.monotonic() < deadline and not Run(folder).events():
            time.sleep(0.01)
        if Run(folder).state == "running":
            os.kill(os.getpid(), number)

    sender = threading.Thread(target=send)
    sender.start()
    said = graft("fit", reviews, "--model", tiny, "--budget", "150steps", "--out", folder, "--json")
    sender.join()
    assert said.code == said.json["exit"] == 130
    assert said.json["run"] == str(folder)
    assert f"graft resume {folder}" in said.err
    assert Run.open(folder).state == "interrupted"
    if number == signal.SIGTERM:
        assert graft("resume", folder, "--json").json["happened"]["steps"] == 150


# Words to arguments


def test_settings_go_to_the_only_stage_that_has_the_field():
    assert asked.with_settings("lora", ["rank=4", "lr=1e-3"]) == [{"lora": {"rank": 4, "lr": "1e-3"}}]
    recipe = ["linear-probe", {"lora": {"alpha": 8}}]
    assert asked.with_settings(recipe, ["rank=4"]) == [{"linear-probe": {}}, {"lora": {"alpha": 8, "rank": 4}}]
    assert asked.with_settings("lora", ["lora.head-lr-factor=3"]) == [{"lora": {"head_lr_factor": 3}}]
    typed = asked.with_settings("lora@mlp:ema", ["head.hidden=8", "lora.head.template=It was [MASK]: {text}"])
    head = {"mlp": {"hidden": 8, "template": "It was [MASK]: {text}"}}
    assert typed == [{"lora": {"head": head, "modifiers": ["ema"]}}]
    assert asked.with_settings("side-network", ["head.width=8"]) == [
        {"side-network": {"head": {"dense-side": {"width": 8}}}}
    ]


def test_what_was_not_typed_is_left_to_the_verb():
    nothing = {"data": {}, "methods": None, "settings": None, "hardware": {}}
    plain = asked.request("a.csv", **nothing, seed=None)
    assert plain == {"data": {"source": "a.csv"}, "hardware": {}, "method": "full-fine-tuning"}
    tagging = asked.request("a.csv", **nothing | {"data": {"text": "words"}}, task="tagging", seed=3)
    assert tagging["data"] == {"task": "tagging", "source": "a.csv", "text": "words"}
    assert (tagging["task"], tagging["seed"]) == ("tagging", 3)
    assert asked.load_options(drop=["empty,ragged", "overlap"], validation="0.2", test="test.csv", text=None) == {
        "drop": ["empty", "ragged", "overlap"],
        "validation": 0.2,
        "test": "test.csv",
    }


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("lr=1", r"Several stages have a field 'lr'. Say which: --set lora\.lr="),
        ("rnak=1", "No stage has a field 'rnak'. Did you mean 'rank'"),
        ("lroa.rank=1", "No stage is called 'lroa'. Did you mean 'lora'"),
        ("=1", "is not understood"),
    ],
)
def test_settings_that_could_mean_several_things_are_refused(setting: str, told: str):
    with pytest.raises(InputError, match=told):
        asked.with_settings(["lora", "full-fine-tuning"], [setting])


def test_the_columns_of_a_file_to_predict_are_found_or_asked_for(tmp_path: Path):
    file = tmp_path / "texts.csv"
    file.write_text("review,verdict\nfine,good\n")
    assert asked.inputs(str(file), column=None, usual_column="review") == ["fine"]
    assert asked.inputs(str(file), column="verdict", usual_column="review") == ["good"]
    with pytest.raises(InputError, match=r"no column 'txt'.*Known: review, verdict"):
        asked.inputs(str(file), column=None, usual_column="txt")
    file.write_text("message\nfine\n")
    assert asked.inputs(str(file), column=None, usual_column="review") == ["fine"]


def test_standard_input_is_a_text_a_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("one\ntwo.csv\n"))
    assert asked.inputs("-", column=None, usual_column=None) == ["one", "two.csv"]


def test_a_text_is_not_taken_for_a_file():
    for text in ("Where is my card?", "I read about it in notes.txt", "x" * 5000, "3.5"):
        assert asked.inputs(text, column=None, usual_column=None) == [text]


# Answers and progress


@pytest.mark.parametrize(
    ("label", "probabilities", "told"),
    [
        ("refund", {"refund": 0.9, "card": 0.1}, "→ refund  (90.0%)\n  then card 10.0%"),
        (["joy", "pride"], {"joy": 0.9, "pride": 0.6, "fear": 0.1}, "→ joy, pride  (90.0%)"),
        ([], {"joy": 0.1}, "→ (no label)  (90.0%)"),
        (["O", "B-Disease", "I-Disease"], None, "→ has breast/B-Disease cancer/I-Disease  (90.0%)"),
    ],
)
def test_an_answer_reads_well_for_every_task(
    capsys: pytest.CaptureFixture[str], label: Any, probabilities: Any, told: str
):
    row = {"text": "has breast cancer", "label": label, "confidence": 0.9, "unsure": False}
    Screen(json=False).prediction(row | {"probabilities": probabilities})
    assert told in capsys.readouterr().out


def test_a_log_gets_a_line_now_and_then_and_every_message(monkeypatch: pytest.MonkeyPatch):
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    console = Console(file=io.StringIO(), width=200)
    with Meter(console) as meter:
        meter({"event": "stage", "message": "Stage 1/1: [bold]lora"})
        for step in range(1, 31):
            now += 1
            meter(
                {
                    "event": "step",
                    "step": step,
                    "epoch": step / 10,
                    "loss": 0.5,
                    "fraction": step / 30,
                    "seconds_left": 90,
                }
            )
            if step == 5:
                meter({"event": "evaluation", "step": step, "accuracy": 0.875})
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines[0] == "Stage 1/1: [bold]lora"
    assert lines[1] == "33%  epoch 1.00  loss 0.500  validation 0.875  90 s left"
    assert len(lines) == 4


def test_a_terminal_of_80_columns_holds_the_bar_and_its_numbers():
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    with Meter(console) as meter:
        meter({"event": "evaluation", "accuracy": 0.912})
        meter(
            {
                "event": "step",
                "epoch": 10.0,
                "loss": 0.25,
                "fraction": 0.5,
                "examples_per_second": 1310,
                "seconds_left": 7200,
            }
        )
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "epoch 10.00  loss 0.250  validation 0.912  1310 rows/s  120 min left" in said


def test_a_terminal_shows_how_a_race_stands_and_a_log_tells_each_run():
    events = [
        {"event": "race", "names": ["lora", "linear-probe", "bitfit"], "metric": "accuracy"},
        {"event": "run", "name": "lora", "shots": None, "message": "Run 1/4: lora, seed 0"},
        {"event": "result", "name": "lora", "score": 0.8, "seconds": 12.0, "message": "        accuracy 80.0 %"},
        {"event": "run", "name": "linear-probe", "shots": None, "message": "Run 2/4: linear-probe"},
        {"event": "result", "name": "linear-probe", "score": 0.9, "seconds": 2.0, "message": "        accuracy 90.0 %"},
        {"event": "failed", "name": "bitfit", "message": "bitfit failed: the loss is nan"},
        {"event": "run", "name": "lora", "shots": None, "message": "Run 4/4: lora, seed 1"},
        {"event": "step", "epoch": 1.0, "loss": 0.25, "fraction": 0.5},
    ]
    terminal, log = (Console(file=io.StringIO(), force_terminal=live, width=90) for live in (True, False))
    for console in (terminal, log):
        with Meter(console) as meter:
            for event in events:
                meter(event)
            console.print(meter)
    shown, told = (console.file.getvalue() for console in (terminal, log))  # type: ignore[attr-defined]
    assert told.splitlines()[:6] == [e["message"] for e in events[1:7]]
    assert "seed 0" not in shown
    assert "bitfit failed: the loss is nan" in shown
    last = [" ".join(line.split()) for line in told.splitlines()[6:]]
    assert last[:4] == [
        "Run 4/4 accuracy, validation seeds a run took", "linear-probe 90.0% 1 2.0 s", "lora 80.0% 1 12 s running",
        "bitfit failed",
    ]  # fmt: skip
    assert "epoch 1.00 loss 0.250" in " ".join(shown.split())


@pytest.mark.slow
def test_the_demo_goes_from_data_to_an_answer(graft: Graft, tmp_path: Path):
    said = graft(
        "demo", "--budget", "60s", "--text", "Fail the test if the two are equal.", "--out", tmp_path / "run", "--json"
    )
    assert said.code == 0
    assert said.json["metrics"]["test"]["accuracy"] > 0.7
    assert said.json["prediction"]["label"] == "unittest"
    assert Path(said.json["report"]).is_file()
