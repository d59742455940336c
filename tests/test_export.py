"""What is exported answers as the run does, alone; and what does not is never left lying there."""

from __future__ import annotations

import dataclasses
import importlib
import json
import subprocess
import sys
from pathlib import Path
from shutil import copy

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
QUANTIZATION = importlib.import_module("graftwork.quantization")
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


@pytest.mark.parametrize("changed", ["verbalizer", pytest.param("prompt-tuning", marks=pytest.mark.slow)])
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


def a_fresh_head(name, array):
    return np.random.default_rng(0).normal(size=array.shape).astype(array.dtype) if "head" in name else None


def other_pooling(folder: Path) -> None:
    model = TransferModel.load(folder.parent / "run" / "model")
    model.pooling = "cls"
    write_onnx(model, folder / "model.onnx")


def no_padding_mask(folder: Path) -> None:
    model = TransferModel.load(folder.parent / "run" / "model")
    forward = model.forward
    model.forward = lambda inputs: forward(inputs | {"attention_mask": inputs["attention_mask"] * 0 + 1})
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
    "a fresh head": (weight(a_fresh_head), "answers differ"),
    "padding is read": (no_padding_mask, "In a padded batch outputs differ"),
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


@pytest.fixture(scope="module")
def small(graphs, tmp_path_factory):
    """The graph in 8 bits, and what was kept of it, made once: the gate is asked here, and not how bits are taken."""
    file = tmp_path_factory.mktemp("small") / "model.onnx"
    scheme, alike = QUANTIZATION.scheme_of("dynamic"), QUANTIZATION.Compared(1.0, 0.0)
    return file, QUANTIZATION.quantized(scheme, graphs(), file, [], lambda: alike, least=0.98)


# of 8 bits the weights have other names, and a single one is within what they lose
OF_WEIGHTS = (
    "a weight changed", "another pooling", "the head is zero", "a fresh head", "an output is missing", "padding is read"
)  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "quantized"), [(f, q) for f in FAULTS for q in (False, True) if not (q and f in OF_WEIGHTS)]
)
def test_the_gate_catches(run, quickly, small, planted, monkeypatch, tmp_path, fault, quantized):
    quickly()
    file, stayed = small
    monkeypatch.setattr(EXPORT, "quantized", lambda _, __, to, *more, **options: (copy(file, to), stayed)[1])
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
        ("labels", "It cannot be asked: The labels .* are not those of its head"),
    ],
)
def test_the_gate_catches_in_safetensors(run, monkeypatch, tmp_path, fault, said):
    save = TransferModel.save

    def faulty(model, folder, **more):
        save(model, folder, **more)
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


def test_the_gate_catches_a_threshold_that_is_lost(run, quickly, planted, tmp_path):
    quickly("multi-label")
    planted(told(threshold=lambda before: before / 2))
    with pytest.raises(ExportFailed, match="read as another answer"):
        export(run("multi-label"), out=tmp_path / "out")


@pytest.mark.parametrize("side", [pytest.param("before", marks=pytest.mark.slow), "after"])
def test_the_gate_catches_a_template_that_is_lost(tmp_path, side):
    from graftwork.choice import parse
    from graftwork.head import Head
    from graftwork.testing import tiny_model

    head = parse(Head, {"linear": {"template": "we saw {text} it was [MASK] ."}})
    task = Classification(labels=("goal", "match"))
    model = TransferModel.pretrained(tiny_model(tmp_path / "model", language_model=True), task, head=head).eval()
    EXPORT._write_standalone(model, tmp_path, EXPORT._script(task))
    rows, labels = ["a goal", "the match of all"], ["goal", "match"]
    whole = GATE.gated(model, lambda: GATE.Standalone(tmp_path), rows, labels, exact=True)
    assert not whole.faults
    told(**{side: lambda _: ""})(tmp_path)
    lost = GATE.gated(model, lambda: GATE.Standalone(tmp_path), rows, labels, exact=True)
    assert "are cut into other tokens" in " ".join(lost.faults)


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
    [(15, 0.01, []), (16, 0.0, ["3.2% of the labels differ", "leave"]), (0, 0.011, ["lose 0.011", "leave"])],
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


# --- fewer bits ---


@pytest.fixture
def lenient(monkeypatch):
    """A gate that lets any loss of bits pass: a network of 32 is too narrow to bear them."""
    for module in (GATE, EXPORT):
        monkeypatch.setattr(module, "LEAST_AGREEMENT", -1.0)
    monkeypatch.setattr(GATE, "LARGEST_LOSS", 1.0)


@pytest.mark.parametrize(
    ("scheme", "kind"),
    [
        ("static", "QuantizeLinear"),
        ("static=entropy", "QuantizeLinear"),
        ("static=percentile", "QuantizeLinear"),
        ("weights", "MatMulNBits"),
        ("weights=4", "GatherBlockQuantized"),
    ],
)
def test_each_scheme_writes_what_it_says_and_nearly_the_same_outputs(run, quickly, lenient, tmp_path, scheme, kind):
    quickly()
    done = export(run(), quantized=scheme, out=tmp_path / "out")
    graph = onnx.load(done.path / "model.onnx").graph
    assert kind in {node.op_type for node in graph.node}
    tables = [i for i in graph.initializer if "word_embeddings" in i.name]
    assert tables
    assert all(i.data_type != onnx.TensorProto.FLOAT or len(i.dims) < 2 or "scale" in i.name for i in tables)
    assert done.gate.agreement > 0.6  # by chance: 1 in 3, of 30 rows
    assert (done.quantized, done.scheme.partition("=")[0]) == (True, scheme.partition("=")[0])
    told = json.loads((done.path / "gate.json").read_text())
    assert (told["scheme"], told["kept"]["groups"]) == (done.scheme, [])
    card = " ".join((done.path / "README.md").read_text().split())
    assert f"weights of {4 if '4' in scheme else 8} bits" in card
    assert "Ask one text at a time" not in card


def test_weights_are_grouped_by_where_they_stand(graphs):
    groups = QUANTIZATION.weighted(graphs())
    parts = [f"block {i}, {kind}" for i in range(3) for kind in ("attention", "feed-forward")]
    assert list(groups) == ["embeddings", *parts, "head"]
    assert [len(groups[part]) for part in parts] == [4, 2] * 3
    sizes = QUANTIZATION.weighted_bytes(graphs())
    assert sizes["block 0, attention"] == 4 * 32 * 32 * 4
    assert sizes["block 2, feed-forward"] == 2 * 32 * 64 * 4


def test_layers_that_move_the_outputs_most_are_kept_until_enough_labels_stay(graphs, tmp_path):
    hurt = {"block 1, attention": 0.5, "head": 0.3, "block 0, feed-forward": 0.1}
    file = tmp_path / "small.onnx"

    def compared():
        """Labels change as long as any of the first two has fewer bits."""
        whole = {node.removesuffix("_MatMul") for nodes in QUANTIZATION.weighted(file).values() for node in nodes}
        lost = {part for part, nodes in QUANTIZATION.weighted(graphs()).items() if not whole >= set(nodes)}
        change = sum(hurt.get(part, 0.01) for part in lost)
        return QUANTIZATION.Compared(0.9 if lost & {"block 1, attention", "head"} else 0.99, change)

    scheme = QUANTIZATION.scheme_of("dynamic")
    found = QUANTIZATION.quantized(scheme, graphs(), file, [], compared, least=0.98)
    assert found.groups == ("block 1, attention", "head")
    assert found.agreement == 0.99
    assert {name: round(found.changes[name], 6) for name in hurt} == hurt
    assert found.mb == round((4 * 32 * 32 + 32 * 3) * 4 / 1e6, 2)
    assert compared().agreement == 0.99, "the file that is left is the one that was told of"


def test_no_more_is_kept_than_the_stated_share(graphs, tmp_path, monkeypatch):
    monkeypatch.setattr(QUANTIZATION, "LARGEST_KEPT", 0.1)
    sizes = QUANTIZATION.weighted_bytes(graphs())
    compared = lambda: QUANTIZATION.Compared(0.5, 1.0)  # noqa: E731
    found = QUANTIZATION.quantized(
        QUANTIZATION.scheme_of("dynamic"), graphs(), tmp_path / "small.onnx", [], compared, least=0.98
    )
    assert 0 < sum(sizes[group] for group in found.groups) <= 0.1 * sum(sizes.values())
    assert found.agreement == 0.5


def test_best_is_the_quickest_that_passes_and_tells_of_all(run, quickly, monkeypatch, tmp_path):
    quickly()
    whole, milliseconds = EXPORT._Building._asked, {"fp32": 3.0, "dynamic": 2.0, "weights=8": 1.0}

    def timed(self, scheme, **options):
        """As it is, but that clocks are those of a machine on which 8 bits are quickest, and dynamic ones fail."""
        done = whole(self, scheme, **options)
        gate = dataclasses.replace(
            done.gate, faults=("Lost.",) if done.scheme == "dynamic" else (),
            latency=done.gate.latency | {"exported": {"p50": milliseconds[done.scheme], "p95": 9.0}},
        )  # fmt: skip
        return dataclasses.replace(done, gate=gate)

    monkeypatch.setattr(EXPORT._Building, "_asked", timed)
    monkeypatch.setattr(EXPORT, "BEST", tuple(s for s in EXPORT.BEST if s is None or s.title in milliseconds))
    done = export(run(), quantized="best", out=tmp_path / "out")
    assert done.scheme == "weights=8"
    assert [(c["scheme"], c["p50"]) for c in done.candidates] == [("fp32", 3.0), ("dynamic", 2.0), ("weights=8", 1.0)]
    kinds = {node.op_type for node in onnx.load(done.path / "model.onnx").graph.node}
    assert "MatMulNBits" in kinds
    assert "| dynamic |" in (done.path / "README.md").read_text()
    assert {f.name for f in done.path.iterdir()} == {
        "README.md", "gate.json", "labels.json", "model.onnx", "predict.py", "tokenizer.json",
    }  # fmt: skip


# --- torch in the place of onnxruntime ---


@pytest.mark.parametrize("kind", [pytest.param(k, marks=[pytest.mark.slow] * (k in KINDS[1:3])) for k in KINDS])
def test_a_program_of_torch_answers_as_the_run_does(run, tmp_path, kind):
    done = export(run(kind), "torch-export", out=tmp_path / "out")
    assert (done.gate.agreement, done.gate.faults) == (1.0, ())
    script = (done.path / "predict.py").read_text()
    assert "onnx" not in script
    names = {"README.md", "gate.json", "labels.json", "model.pt2", "predict.py", "tokenizer.json"}
    assert {file.name for file in done.path.iterdir()} == names
    assert done.mb == round((done.path / "model.pt2").stat().st_size / 1e6, 1)


# --- what is refused, before anything is built ---


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"to": "onx"}, "Did you mean 'onnx'"),
        ({"to": "safetensors", "quantized": True}, "Only an ONNX file can be quantized"),
        ({"to": "torch-export", "quantized": "static"}, "Only an ONNX file can be quantized"),
        ({"quantized": "statik"}, "Did you mean 'static'"),
        ({"quantized": "static=median"}, "calibration"),
        ({"quantized": "weights=3"}, "bits"),
        ({"quantized": "dynamic=8"}, "takes no value"),
        ({"shard": "500MB"}, "Only safetensors are cut into shards"),
        ({"to": "safetensors", "shard": "much"}, "is no size"),
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


@pytest.mark.parametrize(
    ("words", "spelled"),
    [
        (["export", "run", "--quantized"], "--quantized=dynamic"),
        (["export", "run", "--quantized", "--json"], "--quantized=dynamic"),
        (["export", "--quantized", "."], "--quantized=dynamic"),
        (["export", "run", "--quantized", "static=entropy"], "--quantized"),
    ],
)
def test_quantized_by_itself_is_dynamic(words, spelled):
    from graftwork.cli.app import spelled_out

    at = words.index("--quantized")
    assert spelled_out(words) == [*words[:at], spelled, *words[at + 1 :]]


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
