"""What is exported answers as the run does, alone; and what does not is never left lying there."""

from __future__ import annotations

import dataclasses
import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from graftwork.choice import InputError
from graftwork.export import ExportFailed, export
from graftwork.fit import fit, predict
from graftwork.graph import write_onnx
from graftwork.model import TransferModel
from graftwork.run import Run
from graftwork.tasks import Classification
from graftwork.testing import learnable

EXPORT = importlib.import_module("graftwork.export")
GATE = importlib.import_module("graftwork.gate")
KINDS = ("classification", "multi-label", "tagging", "similarity")
# what the tiny network's 64 tokens hold, and what they do not; capitals; a word that the tokenizer drops
HARD = ["a goal", "THE GOAL of the match " * 40, "Wer weiß", "\u2063 \U0001f9ff"]


@pytest.fixture(scope="module")
def run(sources, tiny, tmp_path_factory):
    """A finished run of each kind of task, fitted once, with some answers unsure."""
    made = {}

    def get(kind="classification"):
        if kind not in made:
            out = tmp_path_factory.mktemp("export") / kind
            data = pairs(tmp_path_factory.mktemp("pairs")) if kind == "similarity" else sources[kind]
            made[kind] = fit(
                data, model=tiny, method={"full-fine-tuning": {"lr": 3e-3}}, budget="12steps", coverage=0.8, out=out,
                hardware={"device": "cpu"},
            )  # fmt: skip
            if kind == "classification":
                model = TransferModel.load(out / "model")
                model.decision = dataclasses.replace(model.decision, offsets=(0.3, -0.2, 0.1))  # as thresholds move
                model.save(out / "model")
        return made[kind]

    return get


def pairs(folder: Path) -> Path:
    """Texts beside another of their class, or of another class."""
    for split, rows in learnable("classification").items():
        lines = ["sentence1,sentence2,score"]
        for i, row in enumerate(rows):
            other = rows[(i * i + 1) % len(rows)]
            lines.append(
                f'"{row["text"]}","{other["text"]}",{4.5 if other["label"] == row["label"] else 0.5 + i % 3 / 4}'
            )
        (folder / f"{split}.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def graphs(run, tmp_path_factory):
    """What the exporter wrote of each kind, kept: it takes seconds, and the gate is what most tests are about."""
    made = {}

    def get(kind="classification"):
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp("graphs") / f"{kind}.onnx"
            write_onnx(TransferModel.load(run(kind).path / "model"), made[kind])
        return made[kind]

    return get


@pytest.fixture
def quickly(graphs, monkeypatch):
    """`quickly(kind)`: from here on, graphs of that kind are taken from what was written before."""

    def set_up(kind="classification"):
        file = graphs(kind)
        monkeypatch.setattr(EXPORT, "write_onnx", lambda model, to: to.write_bytes(file.read_bytes()))

    return set_up


def inputs_of(kind: str) -> list:
    """Rows of the test split, and hard ones."""
    rows = learnable("classification" if kind == "similarity" else kind)["test"]
    if kind == "tagging":
        return [row["words"] for row in rows] + [text.split() for text in HARD]
    texts = [row["text"] for row in rows] + HARD
    return list(zip(texts, reversed(texts), strict=True)) if kind == "similarity" else texts


def lines_of(kind: str, inputs: list) -> str:
    """As predict.py reads them."""
    between = {"tagging": " ".join, "similarity": "\t".join}.get(kind, str)
    return "".join(f"{between(each)}\n" for each in inputs)


# --- it is the same model ---


@pytest.mark.parametrize("kind", KINDS)
def test_predict_py_answers_alone_as_graft_predict_does(run, quickly, tmp_path, kind):
    quickly(kind)
    done = export(run(kind), out=tmp_path / "out")
    moved = done.path.rename(tmp_path / "elsewhere")
    inputs = inputs_of(kind)
    said = subprocess.run(
        [sys.executable, "-I", moved / "predict.py"], input=lines_of(kind, inputs), capture_output=True, text=True,
        check=True, cwd="/", encoding="utf-8",
    )  # fmt: skip
    answers = [json.loads(line) for line in said.stdout.splitlines()]
    expected = predict(run(kind), [list(each) if kind == "similarity" else each for each in inputs])
    assert len(answers) == len(expected)
    for answer, right in zip(answers, expected, strict=True):
        if right["confidence"] is None:  # a score
            assert float(answer["label"]) == pytest.approx(float(right["label"]), abs=1e-3)
            continue
        assert (answer["label"], answer["unsure"]) == (right["label"], right["unsure"])
        assert answer["confidence"] == pytest.approx(right["confidence"], abs=1e-5)
        assert answer["probabilities"] == (right["probabilities"] and pytest.approx(right["probabilities"], abs=1e-5))


def test_predict_py_needs_only_onnxruntime_tokenizers_and_numpy():
    for script in (Path(EXPORT.__file__).parent / "standalone").glob("*.py"):
        imported = {
            line.split()[1].split(".")[0] for line in script.read_text().splitlines() if line[:5] in ("impor", "from ")
        }
        assert imported - set(sys.stdlib_module_names) == {"numpy", "onnxruntime", "tokenizers"}


def test_an_export_tells_what_was_compared(run, quickly, tmp_path):
    quickly()
    done = export(run(), out=tmp_path / "out")
    rows = len(learnable("classification")["validation"])
    assert (done.gate.rows, done.gate.agreement, done.gate.faults) == (rows, 1.0, ())
    assert done.gate.largest_difference < 1e-5
    assert done.gate.score["model"] == done.gate.score["exported"]
    assert {p for of in done.gate.latency.values() for p in of} == {"p50", "p95"}
    assert json.loads((done.path / "gate.json").read_text())["gate"]["agreement"] == 1.0
    assert "100.0%" in (done.path / "README.md").read_text()
    names = {"README.md", "gate.json", "labels.json", "model.onnx", "predict.py", "tokenizer.json"}
    assert {file.name for file in done.path.iterdir()} == names
    assert done.mb == round((done.path / "model.onnx").stat().st_size / 1e6, 1)


def test_rows_are_drawn_evenly(run, quickly, tmp_path, monkeypatch):
    monkeypatch.setattr(EXPORT, "ROWS", 3)
    inputs, labels = EXPORT._rows(run())
    rows = learnable("classification")["validation"]
    assert inputs == [rows[i]["text"] for i in (0, round((len(rows) - 1) / 2), len(rows) - 1)]
    assert len(labels) == 3


def test_the_graph_is_free_in_batch_and_length_and_tells_no_file_names(graphs):
    graph = onnx.load(graphs())
    assert [[d.dim_param for d in i.type.tensor_type.shape.dim] for i in graph.graph.input] == [["batch", "length"]] * 2
    assert b"site-packages" not in graphs().read_bytes()


@pytest.mark.parametrize("changed", ["verbalizer", "prompt-tuning"])
def test_what_counts_the_rows_of_a_batch_is_exported_for_any_batch(tmp_path, changed):
    from graftwork.choice import parse
    from graftwork.head import Head
    from graftwork.insertion import Insertion
    from graftwork.testing import tiny_model

    folder = tiny_model(tmp_path / "model", language_model=True)
    head = parse(Head, "verbalizer") if changed == "verbalizer" else None
    model = TransferModel.pretrained(folder, Classification(labels=("goal", "match")), head=head)
    if changed == "prompt-tuning":
        model.insert(parse(Insertion, "prompt"))
    write_onnx(model.eval(), tmp_path / "model.onnx")
    import onnxruntime

    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for texts in (["a goal"], ["the goal of all", "a match that is long and longer still", "x"]):
        batch = model.modality.collate(model.modality.encode(texts))
        (found,) = session.run(None, {name: each.numpy() for name, each in batch.items()})
        with torch.inference_mode():
            np.testing.assert_allclose(found, model(batch).numpy(), atol=1e-5)


def test_eight_bits_make_it_smaller_and_keep_the_score(run, quickly, tmp_path):
    quickly()
    whole, small = (export(run(), quantized=q, out=tmp_path / str(q)) for q in (False, True))
    sizes = [(done.path / "model.onnx").stat().st_size for done in (whole, small)]
    assert sizes[1] < sizes[0]
    kinds = {i.data_type for i in onnx.load(small.path / "model.onnx").graph.initializer if len(i.dims) == 2}
    assert onnx.TensorProto.INT8 in kinds
    assert {file.name for file in small.path.iterdir()} == {file.name for file in whole.path.iterdir()}
    assert small.gate.score["exported"] >= small.gate.score["model"] - 0.05
    assert "Ask one text at a time" in (small.path / "README.md").read_text()


def test_safetensors_are_the_model_to_the_last_bit_and_plain_transformers_reads_them(run, tmp_path):
    from transformers import AutoModel, AutoTokenizer

    done = export(run(), "safetensors", out=tmp_path / "out")
    texts = inputs_of("classification")
    assert predict(done.path, texts) == predict(run(), texts)
    assert done.gate.largest_difference == 0
    ours = TransferModel.load(done.path)
    plain = AutoModel.from_pretrained(done.path, local_files_only=True).eval()
    batch = AutoTokenizer.from_pretrained(done.path)(texts[:2], return_tensors="pt", padding=True)
    with torch.inference_mode():
        states = plain(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
        mine = ours.encoder(**ours.modality.collate(ours.modality.encode(texts[:2]))).last_hidden_state
    torch.testing.assert_close(states, mine)


# --- the gate: each fault is planted into the built folder before it is asked ---


def weight(change):
    """Change the graph's weights: `change` is given an array by its name and gives it back, or None."""

    def plant(folder: Path) -> None:
        model = onnx.load(folder / "model.onnx")
        touched = 0
        for tensor in model.graph.initializer:
            changed = change(tensor.name, numpy_helper.to_array(tensor).copy())
            if changed is not None:
                tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))
                touched += 1
        assert touched
        onnx.save(model, folder / "model.onnx")

    return plant


def told(**changes):
    """Change what predict.py is told."""

    def plant(folder: Path) -> None:
        file = folder / "labels.json"
        says = json.loads(file.read_text())
        for key, change in changes.items():
            before = says[key]
            says[key] = change(before)
            assert says[key] != before
        file.write_text(json.dumps(says))

    return plant


def one_weight(name, array):
    if not name.endswith("layer.1.output.dense.bias"):
        return None
    array[0] += 1
    return array


def no_head(name, array):
    return np.zeros_like(array) if "head" in name else None


def other_pooling(folder: Path) -> None:
    model = TransferModel.load(folder.parent / "run" / "model")
    model.pooling = "cls"
    write_onnx(model, folder / "model.onnx")


def keeps_capitals(folder: Path) -> None:
    file = folder / "tokenizer.json"
    says = json.loads(file.read_text())
    assert says["normalizer"]["lowercase"]
    says["normalizer"]["lowercase"] = False
    file.write_text(json.dumps(says))


def cuts_the_front(folder: Path) -> None:
    file = folder / "predict.py"
    before = file.read_text()
    file.write_text(before.replace("ids[: end - over] + ids[end:]", "ids[:1] + ids[1 + over :]"))
    assert file.read_text() != before


def cut_short(folder: Path) -> None:
    file = folder / "model.onnx"
    file.write_bytes(file.read_bytes()[:-1000])


def one_class_less(name, array):
    if "head" not in name:
        return None
    return array[:-1] if 3 in array.shape[:1] else array[:, :-1]


FAULTS = {
    "labels permuted": (told(labels=lambda names: names[::-1]), "read as another answer"),
    "a weight changed": (weight(one_weight), "A probability differs by"),
    "the head is zero": (weight(no_head), "answers differ"),
    "another pooling": (other_pooling, "A probability differs by"),
    "capitals are kept": (keeps_capitals, "hard ones among them, are cut into other tokens"),
    "the front is cut instead of the end": (cuts_the_front, "are cut into other tokens"),
    "a shorter length": (told(max_length=lambda length: length - 1), "are cut into other tokens"),
    "what closes a text is cut": (told(closing=lambda _: 0), "are cut into other tokens"),
    "no temperature": (told(temperature=lambda _: 1.0), "read as another answer"),
    "no offsets": (told(offsets=lambda _: [0.0]), "read as another answer"),
    "nothing is unsure": (told(sure_from=lambda _: 0.0), "read as another answer"),
    "the file is cut short": (cut_short, "It cannot be asked"),
    "an output is missing": (weight(one_class_less), "It cannot be asked"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "It cannot be asked"),
}


@pytest.fixture
def planted(monkeypatch):
    """`planted(fault)`: what is built from now on has that fault."""

    def set_up(plant, writer="_write_standalone"):
        whole = getattr(EXPORT, writer)

        def build(model, folder, *more, **options):
            whole(model, folder, *more, **options)
            plant(folder)

        monkeypatch.setattr(EXPORT, writer, build)

    return set_up


# of 8 bits the weights have other names, and a single one is within what they lose
OF_WEIGHTS = ("a weight changed", "another pooling", "the head is zero", "an output is missing")


@pytest.mark.parametrize(
    ("fault", "quantized"), [(f, q) for f in FAULTS for q in (False, True) if not (q and f in OF_WEIGHTS)]
)
def test_the_gate_catches(run, quickly, planted, tmp_path, fault, quantized):
    quickly()
    (tmp_path / "run").symlink_to(run().path)
    plant, said = FAULTS[fault]
    planted(plant)
    with pytest.raises(ExportFailed, match=said) as failed:
        export(run(), quantized=quantized, out=tmp_path / "out")
    assert failed.value.gate.faults
    assert [file.name for file in tmp_path.iterdir()] == ["run"], "something that looks finished is left"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("head.safetensors", "It cannot be asked"),
        ("model.safetensors", "It cannot be asked"),
        ("labels", "answers differ"),
    ],
)
def test_the_gate_catches_in_safetensors(run, monkeypatch, tmp_path, fault, said):
    save = TransferModel.save

    def faulty(model, folder):
        save(model, folder)
        file = Path(folder) / ("graft.json" if fault == "labels" else fault)
        if fault == "labels":
            says = json.loads(file.read_text())
            says["task"]["classification"]["labels"].reverse()
            file.write_text(json.dumps(says))
        else:
            file.write_bytes(file.read_bytes()[:-64])

    monkeypatch.setattr(TransferModel, "save", faulty)
    with pytest.raises(ExportFailed, match=said):
        export(run(), "safetensors", out=tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_the_gate_catches_a_seam_that_moved(run, quickly, planted, tmp_path):
    def plant(folder: Path) -> None:
        file = folder / "predict.py"
        before = file.read_text()
        file.write_text(before.replace("room - room // 4", "room - room // 2"))
        assert file.read_text() != before

    quickly("tagging")
    planted(plant)
    with pytest.raises(ExportFailed, match="are cut into other tokens"):
        export(run("tagging"), out=tmp_path / "out")


@pytest.mark.parametrize(
    ("differ", "lost", "said"),
    [(15, 0.01, []), (16, 0.0, ["3.2% of the labels differ", "Leave"]), (0, 0.011, ["lose 0.011", "Leave"])],
)
def test_eight_bits_may_lose_so_much_and_no_more(differ, lost, said):
    agree = [0.0] * differ + [1.0] * (500 - differ)
    found = GATE._loses(agree, {"model": 0.9, "exported": 0.9 - lost})
    assert len(found) == len(said)
    assert all(s in f for s, f in zip(said, found, strict=True))


def test_of_several_labels_each_yes_or_no_agrees_and_of_tags_each_word(run):
    said = {"confidence": 0.9, "unsure": False, "probabilities": {}}
    for kind, one, other, share in (
        ("multi-label", [], ["sport"], 2 / 3),
        ("tagging", ["O", "O", "B-PER", "O"], ["O", "O", "O", "O"], 3 / 4),
        ("classification", "sport", "food", 0.0),
    ):
        model = TransferModel.load(run(kind).path / "model")
        found = GATE._agreement(model, said | {"label": one}, said | {"label": other}, exact=False)
        assert found == pytest.approx(share)


def test_what_is_no_number_does_not_pass():
    assert GATE._differs([1.0] * 9, float("nan"))
    assert GATE._loses([1.0] * 9, {"model": 0.9, "exported": float("nan")})


def test_an_earlier_export_stays_where_the_new_one_fails(run, quickly, planted, tmp_path):
    quickly()
    kept = export(run(), out=tmp_path / "out")
    before = {file.name: file.read_bytes() for file in kept.path.iterdir()}
    planted(cut_short)
    with pytest.raises(ExportFailed):
        export(run(), out=tmp_path / "out", force=True)
    assert {file.name: file.read_bytes() for file in kept.path.iterdir()} == before
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


# --- what is refused, before anything is built ---


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"to": "onx"}, "Did you mean 'onnx'"),
        ({"to": "safetensors", "quantized": True}, "Only an ONNX file can be quantized"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(run, tmp_path, asked, said):
    with pytest.raises(InputError, match=said):
        export(run(), **asked, out=tmp_path / "out")


def test_a_missing_package_names_the_extra(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"needs onnxruntime.*graftwork\[export\].*--to safetensors"):
        export(run(), out=tmp_path / "out")


def test_a_run_that_is_not_finished_is_refused(tmp_path):
    with pytest.raises(InputError, match="is queued: there is nothing to export"):
        export(Run.create(tmp_path / "run", asked={}), out=tmp_path / "out")


def test_what_is_no_export_is_left_alone_and_an_export_only_with_force(run, quickly, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    for force in (False, True):
        with pytest.raises(InputError, match="holds something that is no export"):
            export(run(), out=tmp_path / "mine", force=force)
    quickly()
    export(run(), out=tmp_path / "out")
    with pytest.raises(InputError, match="holds an export"):
        export(run(), out=tmp_path / "out")
    assert export(run(), out=tmp_path / "out", force=True).gate.agreement == 1


def test_weights_beyond_one_file_are_refused(run, tmp_path, monkeypatch):
    monkeypatch.setattr("graftwork.graph._LARGEST_BYTES", 1000)
    with pytest.raises(InputError, match="one ONNX file holds 2"):
        export(run(), out=tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_network_without_words_in_onnx_is_refused_in_a_sentence(run, tmp_path, monkeypatch):
    def forward(self, embeddings, mask=None):
        return torch.linalg.eigvals(embeddings.T @ embeddings).real[None].repeat(embeddings.shape[0], 1)

    monkeypatch.setattr("graftwork.heads.linear.LinearNetwork.forward", forward)
    with pytest.raises(InputError, match="BertModel cannot be written as ONNX"):
        write_onnx(TransferModel.load(run().path / "model"), tmp_path / "model.onnx")


# --- the command line ---


def test_the_command_line_exports_and_tells(run, quickly, typed, tmp_path, capsys):
    quickly()
    assert typed("export", run().path, "--to", "onnx", "--out", tmp_path / "out", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["to"], said["quantized"], said["gate"]["agreement"]) == ("onnx", False, 1.0)
    assert typed("export", run().path, "--out", tmp_path / "out", "--force") == 0
    told = capsys.readouterr().out
    assert "same labels" in told
    assert f"python {tmp_path / 'out'}/predict.py" in told.replace("\n", "")


def test_a_failed_export_exits_with_1_and_says_what_differs(run, quickly, planted, typed, tmp_path, capsys):
    quickly()
    planted(told(labels=lambda names: names[::-1]))
    assert typed("export", run().path, "--out", tmp_path / "out", "--json") == 1
    out = capsys.readouterr()
    said = json.loads(out.out)
    assert said["exit"] == 1
    assert said["gate"]["agreement"] < 1
    assert "Nothing was written." in said["error"]
    assert not list(tmp_path.iterdir())
