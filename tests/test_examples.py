"""A split is tokenised once; an epoch holds every window once; splitting a batch changes no gradient."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graftwork.choice import InputError
from graftwork.data import Data, Split
from graftwork.examples import building, cache_folder, cut_by_tokens, tokenised
from graftwork.modalities.text import Text
from graftwork.tasks import Classification, Tagging
from graftwork.testing import learnable

KINDS = ["classification", "multi-label", "tagging"]


@pytest.fixture(scope="module")
def made(tiny):
    text = Text.from_folder(tiny)

    def make(kind="classification"):
        data = Data.load(learnable(kind))
        task = Tagging(labels=data.labels) if kind == "tagging" else Classification(
            labels=data.labels, multi_label=kind == "multi-label")  # fmt: skip
        return data, task, text, tokenised(data, "train", task, text)

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_on_disk_is_what_the_task_reads(made, kind):
    data, task, text, examples = made(kind)
    windows = list(task.windows(text, data["train"].inputs(), data["train"].labels()))
    assert len(examples) == len(windows) == examples.rows
    for place, window in enumerate(windows):
        batch = examples.batch(np.array([place]))
        assert batch.inputs["input_ids"][0].tolist() == window.ids.tolist()
        np.testing.assert_array_equal(examples.target(place), window.target)
        np.testing.assert_array_equal(batch.targets[0].numpy(), window.target)
    assert examples.tokens == sum(len(w.ids) for w in windows)


def test_tagging_targets_are_padded_with_what_is_not_asked(made):
    *_, examples = made("tagging")
    batch = examples.batch(np.arange(5))
    assert batch.targets.shape == batch.inputs["input_ids"].shape
    assert (batch.targets[batch.inputs["attention_mask"] == 0] == -100).all()
    assert examples.weight(np.arange(5)) == int((batch.targets != -100).sum())


def test_long_tagging_rows_have_several_windows_of_one_example(tiny):
    rows = [{"words": ["river"] * 130, "tags": ["O"] * 129 + ["B-X"]}, {"words": ["anna"] * 2, "tags": ["B-X", "O"]}]
    data = Data.load({"train": rows, "validation": rows})
    task = Tagging(labels=data.labels)
    examples = tokenised(data, "train", task, Text.from_folder(tiny))
    assert examples.example.tolist() == [0, 0, 0, 1]
    assert (len(examples), examples.rows) == (4, 2)
    assert examples.weight(np.arange(3)) == 130


def test_a_split_is_tokenised_once(made, monkeypatch):
    data, task, text, examples = made()
    monkeypatch.setattr(Split, "batches", lambda *_: pytest.fail("read again"))
    assert tokenised(data, "train", task, text).key == examples.key


def test_other_labels_or_another_length_are_other_examples(made):
    data, task, text, examples = made()
    other = Classification(labels=tuple(reversed(task.labels)))
    assert tokenised(data, "train", other, text).key != examples.key
    shorter = Text(text.tokenizer, max_length=8, pad_id=text.pad_id)
    cut = tokenised(data, "train", task, shorter)
    assert cut.lengths.max() == 8
    assert cut.lost.sum() == (examples.lengths - np.minimum(examples.lengths, 8)).sum() > 0


@given(st.integers(1, 40), st.integers(0, 3), st.integers(0, 5))
def test_an_epoch_holds_every_window_once_and_every_batch_but_one_is_full(made, batch_size, seed, epoch):
    *_, examples = made()
    batches = examples.shuffled(batch_size, (seed, 0, epoch))
    assert sorted(np.concatenate(batches)) == list(range(len(examples)))
    assert sorted(map(len, batches))[1:] == [batch_size] * (len(batches) - 1)
    again = examples.shuffled(batch_size, (seed, 0, epoch))
    assert all((a == b).all() for a, b in zip(batches, again, strict=True))


def test_batches_are_of_similar_length(made):
    *_, examples = made()
    batches = examples.shuffled(16, (0,))
    padded = sum(len(b) * examples.lengths[b].max() for b in batches)
    assert 1 - examples.tokens / padded < 0.1
    unsorted = sum(16 * examples.lengths[i : i + 16].max() for i in range(0, 90, 16))
    assert padded < unsorted


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.integers(1, 400), st.integers(1, 4))
def test_no_part_is_larger_than_what_the_hardware_takes(lengths, max_tokens, parts):
    lengths = np.array(lengths)
    places = np.argsort(lengths)
    cut = cut_by_tokens(places, lengths, max_tokens, parts)
    assert np.concatenate(cut).tolist() == places.tolist()
    assert all(len(p) * lengths[p].max() <= max_tokens or len(p) == 1 for p in cut)
    assert len(cut) >= min(parts, len(places))


@given(st.integers(2, 60), st.integers(2, 4))
def test_every_process_has_a_part(n, parts):
    cut = cut_by_tokens(np.arange(n), np.full(n, 5), 10**6, parts)
    assert len(cut) == min(parts, n)


def test_in_order_of_length_reads_every_window_once(made):
    *_, examples = made()
    batches = list(examples.in_order_of_length(100))
    assert sorted(np.concatenate(batches)) == list(range(len(examples)))
    assert examples.lengths[batches[0][0]] == examples.lengths.max()


@pytest.mark.parametrize("kind", KINDS)
def test_splitting_a_batch_gives_the_same_gradient(staged, kind):
    from graftwork.loop import _Runner  # the loop's own arithmetic, not a copy of it
    from graftwork.methods import FullFineTuning

    def gradients(max_tokens):
        s = staged(FullFineTuning(dropout=0.0), kind=kind)
        s.model.eval()
        weights = list(s.model.parameters())
        objective = s.stage.method.objective(s.model, s.train, weights)
        optimizer = torch.optim.SGD(weights, lr=0.1)
        runner = _Runner(s.model, s.validation, s.stage, None, [], weights, optimizer, objective)
        runner.progress.max_tokens = max_tokens
        loss = runner._loss(0, s.train.shuffled(32, (0,))[0])
        return loss, [w.grad for w in weights]

    (one_loss, one), (other_loss, other) = gradients(10**6), gradients(40)
    assert one_loss == pytest.approx(other_loss, abs=1e-6)
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


def test_a_folder_appears_only_when_it_is_whole(tmp_path):
    def fail() -> None:
        with building(tmp_path / "thing") as work:
            (work / "half").write_text("x")
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fail()
    assert list(tmp_path.iterdir()) == []
    with building(tmp_path / "thing") as work:
        (work / "whole").write_text("x")
        assert not (tmp_path / "thing").exists()
    assert (tmp_path / "thing" / "whole").exists()


def test_of_two_that_build_the_same_one_wins_and_none_fails(tmp_path):
    with building(tmp_path / "thing") as mine:
        (mine / "file").write_text("mine")
        with building(tmp_path / "thing") as theirs:
            (theirs / "file").write_text("theirs")
    assert (tmp_path / "thing" / "file").read_text() == "theirs"
    assert [p.name for p in tmp_path.iterdir()] == ["thing"]


def test_an_empty_split_is_told(made):
    data, task, text, _ = made()
    empty = dataclasses.replace(data, splits={"train": Split(data["train"].table.slice(0, 0))})
    with pytest.raises(InputError, match="without a single example cannot be read"):
        tokenised(empty, "train", task, text)


def test_the_cache_lies_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("GRAFTWORK_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("GRAFTWORK_CACHE")
    assert cache_folder().name == "graftwork"
