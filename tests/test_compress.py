"""Compression: what is cut out is what a mask would silence, what is kept answers as before, what is saved loads so."""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from graftwork import layers
from graftwork.choice import InputError, names
from graftwork.compress import compress
from graftwork.compressor import Compressor, steps_of
from graftwork.compressors import FFN, FactorisedEmbedding, Half, Heads, Int4, Int8, Layers, Sparse, Vocabulary
from graftwork.compressors.width import importance, masked
from graftwork.data import Data
from graftwork.examples import tokenised
from graftwork.fit import fit, predict
from graftwork.methods import FullFineTuning
from graftwork.model import TransferModel
from graftwork.run import Run
from graftwork.shapes import packed, unpacked
from graftwork.sparsity import matrices, zeros

STEPS = [
    Vocabulary(common=0),
    Layers(keep=2),
    Heads(),
    FFN(),
    FactorisedEmbedding(rank=8),
    Half(),
    Half(precision="bf16"),
    Int8(),
    Int4(),
    Sparse(),
]


@pytest.fixture
def at_hand(staged: Any) -> Any:
    """An untrained tiny model with its rows."""
    found = staged(FullFineTuning())
    found.model.eval()
    return found


@pytest.fixture(scope="module")
def fitted(tiny: Path, sources: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "fitted"
    hardware = {"device": "cpu", "precision": "fp32"}
    method = {"full-fine-tuning": {"lr": 5e-3, "batch_size": 16}}
    return fit(str(sources["classification"]), model=tiny, method=method, budget="40steps", out=out, hardware=hardware)


def states(model: TransferModel, examples: Any) -> torch.Tensor:
    """Of the first rows, at their tokens."""
    inputs = examples.batch(np.arange(8)).inputs
    with torch.no_grad():
        return model.encoder(**inputs).last_hidden_state[inputs["attention_mask"] == 1]


def _reads(at_hand: Any, model: TransferModel, split: str = "train") -> Any:
    return tokenised(at_hand.data, split, model.task, model.modality)


# --- every compressor ---


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.title)
def test_a_smaller_model_is_saved_and_loaded_with_the_same_outputs(step: Compressor, at_hand: Any, tmp_path: Path):
    smaller = step.apply(at_hand.model, at_hand.train)
    smaller.save(tmp_path)
    texts = at_hand.data["validation"].inputs()
    again = TransferModel.load(tmp_path)
    for one, other in zip(smaller.outputs(texts), again.outputs(texts), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("step", [s for s in STEPS if not s.idle], ids=lambda step: step.title)
def test_what_is_saved_takes_less_room(step: Compressor, at_hand: Any, tmp_path: Path):
    def size(model: TransferModel, folder: Path) -> int:
        model.save(folder)
        return sum(file.stat().st_size for file in folder.glob("*.safetensors"))

    before = size(at_hand.model, tmp_path / "before")
    assert size(step.apply(at_hand.model, at_hand.train), tmp_path / "after") < before


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.title)
def test_the_model_given_stays_as_it_was(step: Compressor, at_hand: Any):
    before = copy.deepcopy(at_hand.model.state_dict())
    digest = at_hand.model.modality.digest
    step.apply(at_hand.model, at_hand.train)
    after = at_hand.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert (at_hand.model.modality.digest, at_hand.model.storage) == (digest, "fp32")


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.title)
def test_a_smaller_model_can_be_trained_on(step: Compressor, at_hand: Any):
    at_hand.model = step.apply(at_hand.model, at_hand.train)
    at_hand.train = _reads(at_hand, at_hand.model)
    at_hand.validation = _reads(at_hand, at_hand.model, "validation")
    assert at_hand.run().progress.step == 12


def test_all_that_stands_on_the_shelf_is_tried_here():
    assert names(Compressor) == sorted({step.name for step in STEPS})


@pytest.mark.parametrize("name", names(Compressor))
def test_every_compressor_says_what_it_is(name: str):
    (step,) = steps_of(name)
    assert step.__doc__
    assert step.paper
    assert all(field.sentence for field in step.fields())


# --- what is cut out is what a mask would silence ---


@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert"])
@pytest.mark.parametrize("step", [Heads(), FFN(keep=0.3)], ids=lambda step: step.name)
def test_units_cut_out_and_units_masked_give_the_same_states(
    step: Any, architecture: str, staged: Any, models: Callable[[str], Path]
):
    at_hand = staged(FullFineTuning(), folder=models(architecture))
    at_hand.model.eval()
    parts = step.parts(at_hand.model.encoder)
    kept = step.kept(importance(at_hand.model, parts, at_hand.train, step.rows))
    with masked(parts, kept):
        expected = states(at_hand.model, at_hand.train)
    smaller = step.apply(at_hand.model, at_hand.train)
    torch.testing.assert_close(states(smaller, at_hand.train), expected, rtol=1e-4, atol=1e-5)
    assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in at_hand.model.parameters())


def test_the_feed_forward_of_gpt2_is_cut_as_well(staged: Any, models: Callable[[str], Path], tmp_path: Path):
    at_hand = staged(FullFineTuning(), folder=models("gpt2"))
    smaller = FFN().apply(at_hand.model, at_hand.train)
    assert smaller.encoder.config.n_inner == 64
    smaller.save(tmp_path)
    again = TransferModel.load(tmp_path)
    torch.testing.assert_close(states(again, at_hand.train), states(smaller, at_hand.train), rtol=0, atol=0)


def test_importance_is_the_mean_size_of_the_derivative_by_the_mask(at_hand: Any):
    parts = Heads().parts(at_hand.model.encoder)
    rows = 6
    found = importance(at_hand.model, parts, at_hand.train, rows)
    chosen = np.sort(np.random.default_rng(0).permutation(at_hand.train.rows)[:rows])
    task, step = at_hand.model.task, 1e-2
    at_hand.model.double()

    def loss(row: int, head: int, mask: float) -> float:
        def multiply(_layer: Any, args: Any) -> Any:
            units = args[0].unflatten(-1, (4, -1)).clone()
            units[:, :, head] *= mask
            return (units.flatten(-2),)

        handle = parts[1].writer.register_forward_pre_hook(multiply)
        batch = at_hand.train.batch(np.array([row]))
        at_hand.model.head.double()
        with torch.no_grad():
            states = at_hand.model.encoder(**batch.inputs).last_hidden_state
            embedding = states.mean(dim=1)
            embedding = torch.nn.functional.normalize(embedding, dim=-1) * at_hand.model.head.scale
            logits = at_hand.model.head.linear(embedding)
            value = float(torch.nn.functional.cross_entropy(logits, batch.targets))
        handle.remove()
        return value

    assert task.name == "classification"
    for head in range(4):
        slopes = [(loss(row, head, 1 + step) - loss(row, head, 1 - step)) / (2 * step) for row in chosen]
        assert found[1][head] == pytest.approx(np.mean(np.abs(slopes)), rel=2e-2)


@pytest.mark.parametrize("step", [Heads(), FFN()], ids=lambda step: step.name)
def test_units_that_do_nothing_are_the_first_to_go(step: Any, at_hand: Any):
    parts = step.parts(at_hand.model.encoder)
    silent = np.arange(0, parts[0].units, 2)
    for part in parts:
        wide = part.writer.in_features // part.units
        with torch.no_grad():
            part.writer.weight[:, (silent[:, None] * wide + np.arange(wide)).ravel()] = 0
    smaller = step.apply(at_hand.model, at_hand.train)
    torch.testing.assert_close(states(smaller, at_hand.train), states(at_hand.model, at_hand.train))


def test_a_block_keeps_a_head_at_least():
    kept = Heads(keep=0.1).kept([np.array([1.0, 0.9, 0.8]), np.array([1e-9, 0.0, 0.0])])
    assert [list(each) for each in kept] == [[0], [0]]


# --- layers ---


@pytest.mark.parametrize(("which", "places"), [("lowest", [0, 1]), ("spread", [0, 2])])
def test_layers_leaves_these_blocks(which: Any, places: list[int], at_hand: Any):
    (_, before), *_ = layers.stacks(at_hand.model.encoder)
    smaller = Layers(keep=2, which=which).apply(at_hand.model, at_hand.train)
    (_, after), *_ = layers.stacks(smaller.encoder)
    assert smaller.encoder.config.num_hidden_layers == 2
    for block, place in zip(after, places, strict=True):
        for name, value in block.state_dict().items():
            assert torch.equal(value, before[place].state_dict()[name])


# --- vocabulary ---


@given(words=st.lists(st.integers(0, 10**6), min_size=1, max_size=12))
def test_texts_of_kept_pieces_get_the_same_bits(words: list[int], pruned: Any):
    model, smaller, known = pruned
    text = " ".join(known[i % len(known)] for i in words)
    assert smaller.modality.tokens_of([text]) == model.modality.tokens_of([text])
    np.testing.assert_array_equal(smaller.outputs([text])[0], model.outputs([text])[0])


@given(text=st.text(st.characters(codec="ascii"), max_size=40))
def test_any_text_that_could_be_spelled_still_can(text: str, pruned: Any):
    model, smaller, _ = pruned
    unknown = [m.modality.tokens_of([text])[0].count("[UNK]") for m in (model, smaller)]
    assert unknown[1] == unknown[0]


@pytest.fixture(scope="module")
def pruned(tiny: Path) -> Any:
    from graftwork.tasks import Classification

    words = {"hot": "the soup was warm", "cold": "the ice was cold"}
    rows = [{"text": text, "label": label} for label, text in words.items()] * 4
    data = Data.load({"train": rows, "validation": rows})
    model = TransferModel.pretrained(tiny, Classification(labels=data.labels)).eval()
    train = tokenised(data, "train", model.task, model.modality)
    smaller = Vocabulary(common=0).apply(model, train)
    lost = set(model.modality.tokenizer.get_vocab()) - set(smaller.modality.tokenizer.get_vocab())
    assert lost
    return model, smaller, [word for text in words.values() for word in text.split()] + ["x", "q", "."]


def test_of_a_large_vocabulary_a_search_tries_half_first():
    from graftwork.models import resolve
    from graftwork.tasks import Classification

    model = TransferModel.pretrained(resolve("minilm"), Classification(labels=["a", "b"]))
    assert [step.title for step in Vocabulary.levels(model)] == ["vocabulary:common=15261", "vocabulary"]


def test_special_pieces_have_their_new_numbers_everywhere(pruned: Any):
    _, smaller, _ = pruned
    vocabulary = smaller.modality.tokenizer.get_vocab()
    ids = smaller.modality.encode(["the soup"])[0]
    assert (ids[0], ids[-1]) == (vocabulary["[CLS]"], vocabulary["[SEP]"])
    assert smaller.encoder.config.pad_token_id == smaller.modality.pad_id == vocabulary["[PAD]"]
    assert smaller.encoder.config.vocab_size == len(vocabulary) == max(vocabulary.values()) + 1


def test_what_validation_lacks_is_told(at_hand: Any, tmp_path: Path):
    step = Vocabulary(common=0)
    smaller = step.apply(at_hand.model, at_hand.train)
    notes = step.notes(at_hand.model, smaller, at_hand.validation)
    known = smaller.modality.tokenizer.get_vocab()
    tokens = [t for text in at_hand.data["validation"].inputs() for t in at_hand.model.modality.tokens_of([text])[0]]
    assert notes["validation_pieces_missing"] == pytest.approx(np.mean([t not in known for t in tokens]))
    assert notes["pieces"] == len(known) < notes["pieces_before"]


def test_a_tokenizer_of_another_kind_is_refused_with_the_reason(at_hand: Any):
    from tokenizers import Tokenizer, models

    at_hand.model.modality.tokenizer = Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))
    with pytest.raises(InputError, match="kind BPE, whose pieces are made of one another"):
        Vocabulary().apply(at_hand.model, at_hand.train)


# --- the table in two factors ---


def test_the_factors_are_the_best_of_their_rank(at_hand: Any):
    smaller = FactorisedEmbedding(rank=8).apply(at_hand.model, at_hand.train)
    whole = at_hand.model.encoder.get_input_embeddings().weight.detach()
    ids = torch.arange(len(whole))[None]
    found = smaller.encoder.get_input_embeddings()(ids)[0].detach()
    rest = torch.linalg.svdvals(whole)[8:]
    assert float((found - whole).norm()) == pytest.approx(float(rest.norm()), rel=1e-4)


def test_a_rank_that_saves_nothing_is_refused(at_hand: Any):
    with pytest.raises(InputError, match=r"makes the table of .* no smaller"):
        FactorisedEmbedding(rank=32).apply(at_hand.model, at_hand.train)


# --- storage ---


@given(seed=st.integers(0, 10**6), scale=st.floats(1e-6, 1e6))
def test_weights_that_were_rounded_are_rounded_to_themselves(seed: int, scale: float):
    weights = {"w": scale * torch.randn(7, 13, generator=torch.Generator().manual_seed(seed)), "b": torch.ones(3)}
    weights["w"][0] = 0
    for storage in ("bf16", "fp16", "int8"):
        once = unpacked(packed(weights, storage))
        again = unpacked(packed(once, storage))
        assert all(torch.equal(once[name], again[name]) for name in weights)
    largest = weights["w"].abs().amax(dim=1, keepdim=True)
    assert bool(((once["w"] - weights["w"]).abs() <= largest / 253).all())


def test_int8_is_stored_in_eight_bits(at_hand: Any, tmp_path: Path):
    Int8().apply(at_hand.model, at_hand.train).save(tmp_path)
    stored = load_file(tmp_path / "encoder.safetensors")
    matrices = [name for name, p in at_hand.model.encoder.named_parameters() if p.ndim == 2]
    assert all(stored[name].dtype == torch.int8 for name in matrices)
    assert not (tmp_path / "model.safetensors").exists()


def test_plain_transformers_reads_what_the_config_can_tell(at_hand: Any, tmp_path: Path):
    from transformers import AutoModel

    model = at_hand.model
    for step in (Vocabulary(common=0), Layers(keep=2), FFN(), Half()):
        model = step.apply(model, _reads(at_hand, model))
    model.save(tmp_path)
    plain = AutoModel.from_pretrained(tmp_path, dtype=torch.float32, add_pooling_layer=False).eval()
    rows = _reads(at_hand, model)
    inputs = rows.batch(np.arange(8)).inputs
    with torch.no_grad():
        found = plain(**inputs).last_hidden_state[inputs["attention_mask"] == 1]
    torch.testing.assert_close(found, states(model, rows))


def test_shapes_that_do_not_fit_are_refused(at_hand: Any, tmp_path: Path):
    Heads().apply(at_hand.model, at_hand.train).save(tmp_path)
    described = json.loads((tmp_path / "graft.json").read_text())
    described["encoder"]["shapes"].popitem()
    (tmp_path / "graft.json").write_text(json.dumps(described))
    with pytest.raises(InputError, match="does not fit its config"):
        TransferModel.load(tmp_path)


def test_nothing_is_trained_from_shapes_that_a_config_cannot_tell(at_hand: Any, tmp_path: Path):
    from graftwork.models import resolve

    Heads().apply(at_hand.model, at_hand.train).save(tmp_path)
    with pytest.raises(InputError, match="Give the run that it was made of"):
        resolve(tmp_path)


# --- steps and their order ---


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ("", "at least one step"),
        ("layres=3", "Did you mean 'layers'"),
        ("vocabulary=3", "takes no value"),
        ("layers=0", "must be an integer in"),
        ("heads=1", "must be a number in"),
        ("vocabulary, vocabulary", "comes twice"),
        ("heads, layers", "judged with all blocks above it"),
        ("factorised-embedding, vocabulary", "fitted to the whole table"),
        ("half, layers", "comes last"),
        ("half, int8", "comes last"),
        ("layers=3:lowest", "NAME=VALUE:FIELD=VALUE"),
        ("heads=0.5:turns=3", "Extra inputs|has no|turns"),
    ],
)
def test_steps_that_make_no_sense_are_refused_with_the_reason(steps: str, said: str):
    with pytest.raises(InputError, match=said):
        steps_of(steps)


def test_steps_are_read_as_they_are_typed():
    assert steps_of("layers=3, heads=0.25, vocabulary") == (Layers(keep=3), Heads(keep=0.25), Vocabulary())
    assert steps_of([{"layers": {"keep": 3}}, FFN()]) == (Layers(keep=3), FFN())
    assert steps_of("layers=2:which=lowest, heads=0.5:rounds=3, vocabulary:common=0:short=2") == (
        Layers(keep=2, which="lowest"), Heads(keep=0.5, rounds=3), Vocabulary(common=0, short=2),
    )  # fmt: skip


@pytest.mark.parametrize("typed", ["layers=2", "layers=2:which=lowest", "vocabulary", "vocabulary:short=2:common=0"])
def test_a_step_is_called_as_it_is_typed(typed: str):
    (step,) = steps_of(typed)
    assert step.title == typed


def test_more_layers_than_there_are_leave_nothing_out(at_hand: Any):
    with pytest.raises(InputError, match="the encoder has 3 blocks"):
        Layers(keep=3).apply(at_hand.model, at_hand.train)


def test_what_is_stored_in_fewer_bits_is_not_compressed_again(at_hand: Any):
    smaller = Int8().apply(at_hand.model, at_hand.train)
    with pytest.raises(InputError, match="stored in int8 already"):
        FFN().apply(smaller, at_hand.train)


# --- the verb ---


def test_a_run_is_compressed_to_a_run_that_answers(fitted: Run, tmp_path: Path):
    small = compress(fitted, steps="vocabulary, layers=2, ffn=0.5, int8", out=tmp_path / "small")
    told = small.happened["compression"]
    assert [entry["step"] for entry in told["table"]] == ["original", "vocabulary", "layers=2", "ffn=0.5", "int8"]
    sizes = [entry["mb"] for entry in told["table"]]
    assert sizes == sorted(sizes, reverse=True)
    assert small.state == "done"
    assert small.metrics["validation"]["accuracy"] == pytest.approx(told["table"][-1]["score"])
    assert set(small.metrics) == {"validation"}
    rows = small.predictions("validation").to_pylist()
    assert [a["label"] for a in predict(small, [row["input"] for row in rows])] == [row["prediction"] for row in rows]


def test_a_page_shows_every_step_and_fetches_nothing(fitted: Run, tmp_path: Path):
    small = compress(fitted, steps="ffn=0.5, half", out=tmp_path / "small")
    page = (small.path / "compression.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert all(word in page for word in ("ffn=0.5 + half=fp16", "95 % interval", "size of the model", "latency"))
    assert not re.search(r"(src|href)=|https?://(?!www\.w3\.org)", page)
    assert all(entry["peak_memory_mb"] > 0 for entry in small.happened["compression"]["table"])


def test_cutting_in_rounds_recovers_after_each(fitted: Run, tmp_path: Path):
    events: list[dict[str, Any]] = []
    small = compress(
        fitted, steps="ffn=0.25:rounds=2, sparse=0.5", budget="8steps", out=tmp_path / "small",
        hardware={"precision": "fp32"}, on_event=events.append,
    )  # fmt: skip
    assert [entry["head"] for entry in small.happened["compression"]["table"][1:]] == ["trained", "trained"]
    ends = [e["step"] for e in events if e["event"] == "evaluation"]
    assert (ends[:2], ends[-1]) == ([2, 2], 4)  # two rounds share what one step is given
    model = TransferModel.load(small.path / "model")
    whole = json.loads((fitted.path / "model" / "config.json").read_text())["intermediate_size"]
    assert model.encoder.config.intermediate_size == whole // 4
    assert zeros(matrices(model.encoder)) == pytest.approx(0.5, abs=0.005)


def test_the_test_split_is_not_read(fitted: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GRAFTWORK_CACHE", str(tmp_path / "cache"))
    asked: list[str] = []
    take = Data.__getitem__
    monkeypatch.setattr(Data, "__getitem__", lambda data, split: (asked.append(split), take(data, split))[1])
    compress(fitted, steps="layers=1", out=tmp_path / "small")
    assert set(asked) == {"train", "validation"}


def test_a_step_that_loses_nothing_differs_by_nothing(fitted: Run, tmp_path: Path):
    small = compress(fitted, steps="vocabulary", out=tmp_path / "small")
    entry = small.happened["compression"]["table"][1]
    assert entry["notes"]["validation_pieces_missing"] == 0
    assert (entry["difference"], entry["difference_low"], entry["difference_high"], entry["p"]) == (0, 0, 0, 1)
    assert entry["head"] == "as it was"


def test_the_head_is_fitted_anew_where_that_does_better(fitted: Run, tmp_path: Path):
    small = compress(fitted, steps="layers=1", out=tmp_path / "small")
    told = small.happened["compression"]["table"][1]
    model, data = TransferModel.load(fitted.path / "model"), Data.load(**fitted.asked["data"])
    bare = Layers(keep=1).apply(model, tokenised(data, "train", model.task, model.modality))
    predictions = [p.label for p in bare.predict(data["validation"].inputs())]
    untouched = np.mean([p == label for p, label in zip(predictions, data["validation"].labels(), strict=True)])
    assert told["score"] >= untouched
    assert (told["head"] == "re-fitted") == (told["score"] > untouched)


def test_a_budget_trains_after_each_step_that_training_helps(fitted: Run, tmp_path: Path):
    events: list[dict[str, Any]] = []
    small = compress(
        fitted, steps="vocabulary, layers=2, ffn=0.5, half", budget="20steps", out=tmp_path / "small",
        hardware={"precision": "fp32"}, on_event=events.append,
    )  # fmt: skip
    told = small.happened["compression"]
    assert [entry["head"] for entry in told["table"][1:]] == ["as it was", "trained", "trained", "as it was"]
    assert told["budget"] == "20steps"
    assert TransferModel.load(small.path / "model").storage == "fp16"


@pytest.mark.parametrize("kind", ["multi-label", "tagging"])
def test_other_tasks_are_compressed(kind: str, tiny: Path, sources: dict[str, Path], tmp_path: Path, quick: Any):
    run = fit(str(sources[kind]), model=tiny, budget="3steps", out=tmp_path / "run", hardware=quick)
    small = compress(run, steps="vocabulary, layers=2, heads=0.5, ffn=0.5", out=tmp_path / "small")
    assert len(small.happened["compression"]["table"]) == 5
    assert small.metrics["validation"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"steps": "vocabulary", "budget": "3steps"}, "leave the budget out"),
        ({"steps": "layers=3"}, "the encoder has 3 blocks"),
        ({"steps": "factorised-embedding=100"}, "no smaller"),
    ],
)
def test_what_cannot_be_done_is_refused_and_leaves_nothing(
    options: dict[str, Any], said: str, fitted: Run, tmp_path: Path
):
    with pytest.raises(InputError, match=said):
        compress(fitted, out=tmp_path / "small", **options)
    assert not (tmp_path / "small").exists()


def test_a_finished_run_is_replaced_only_when_asked(fitted: Run, tmp_path: Path):
    compress(fitted, steps="half", out=tmp_path / "small")
    with pytest.raises(InputError, match="--force"):
        compress(fitted, steps="half", out=tmp_path / "small")
    compress(fitted, steps="int8", out=tmp_path / "small", force=True)
    with pytest.raises(InputError, match="the place of the original"):
        compress(fitted, steps="half", out=fitted.path, force=True)


def test_an_unfinished_run_is_refused(fitted: Run, tmp_path: Path):
    shutil.copytree(fitted.path, tmp_path / "run")
    Run.open(tmp_path / "run").set_state("failed", "It was a test.")
    with pytest.raises(InputError, match="is failed: there is nothing to compress yet"):
        compress(tmp_path / "run")


# --- the command line ---


def test_the_command_line_answers_with_the_table(
    fitted: Run, tmp_path: Path, typed: Callable[..., int], capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "small"
    assert typed("compress", fitted.path, "--steps", "layers=2, half", "--out", out, "--json") == 0
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert told["run"] == str(out)
    assert [entry["step"] for entry in told["table"]] == ["original", "layers=2", "half=fp16"]
    assert "x smaller" in said.err
    assert typed("evaluate", out, "--json") == 0
    assert typed("compress", fitted.path, "--steps", "lairs=2") == 2
    assert "Did you mean 'layers'" in capsys.readouterr().err


def test_the_shelf_is_listed(typed: Callable[..., int], capsys: pytest.CaptureFixture[str]):
    assert typed("compressors") == 0
    assert "factorised-embedding" in capsys.readouterr().out
