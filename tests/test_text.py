"""Text is tokenised as plain `transformers` does it, cut at the end alone, and padded without effect."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from graftwork.choice import InputError
from graftwork.modalities.text import Text
from graftwork.models import resolve
from graftwork.testing import FILLER

sentences = st.lists(st.sampled_from(FILLER), max_size=80).map(" ".join)
ARCHITECTURES = ["bert", "roberta", "distilbert", "gpt2"]


@pytest.fixture(scope="module")
def text(tiny):
    return Text.from_folder(tiny)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_ids_are_those_of_plain_transformers(models, architecture):
    theirs = AutoTokenizer.from_pretrained(models(architecture))
    given_ = ["The old house.", "we SAW Anna, xyz?", "", "river " * 90]
    ours = Text.from_folder(models(architecture)).encode(given_)
    for mine, text in zip(ours, given_, strict=True):
        ids = theirs(text, truncation=True, max_length=64)["input_ids"]
        assert mine.tolist() == (ids or [theirs.pad_token_id])  # of nothing at all, one token is read


@pytest.mark.parametrize(("architecture", "longest"), [("bert", 64), ("roberta", 64), ("distilbert", 64), ("gpt2", 64)])
def test_the_longest_input_is_what_the_position_table_holds(models, architecture, longest):
    assert Text.from_folder(models(architecture)).max_length == longest


def test_roberta_whose_positions_start_after_the_padding_id_reads_two_fewer(models, tmp_path):
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((models("roberta") / name).read_bytes())
    assert Text.from_folder(tmp_path).max_length == 66 - 2


@given(sentences)
def test_a_cut_text_keeps_its_closing_token_and_loses_only_its_end(text, sentence):
    encoding = text.encodings([sentence])[0]
    whole, cut = encoding.ids, text.cut(encoding).tolist()
    assert len(cut) == min(len(whole), text.max_length)
    assert cut[-1] == whole[-1]
    assert cut[:-1] == whole[: len(cut) - 1]


@given(st.lists(sentences, min_size=1, max_size=5))
def test_a_batch_is_padded_to_its_longest_text_and_the_mask_says_where(text, given_):
    examples = text.encode(given_)
    batch = text.collate(examples)
    assert batch["input_ids"].shape == (len(given_), max(map(len, examples)))
    for row, mask, example in zip(batch["input_ids"], batch["attention_mask"], examples, strict=True):
        assert row[mask == 1].tolist() == example.tolist()
        assert (row[mask == 0] == text.pad_id).all()
        assert int(mask.sum()) == len(example)


def test_lengths_count_what_is_there_before_any_cut(text):
    assert text.lengths(["", "the river", "river " * 100]).tolist() == [2, 4, 102]


def test_padding_and_truncation_written_in_the_tokenizer_file_are_switched_off(tiny, tmp_path):
    told = json.loads((tiny / "tokenizer.json").read_text())
    told["padding"] = {
        "strategy": {"Fixed": 128}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
        "pad_token": "[PAD]",
    }  # fmt: skip
    told["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    (tmp_path / "tokenizer.json").write_text(json.dumps(told))
    (tmp_path / "config.json").write_bytes((tiny / "config.json").read_bytes())
    assert Text.from_folder(tmp_path).lengths(["the old house"]).tolist() == [5]


def test_words_keep_which_token_came_from_which(text):
    encoding = text.encodings([["we", "saw", "paris"]])[0]
    assert encoding.word_ids == [None, 0, 1, 2, 2, 2, 2, 2, None]


def test_a_saved_tokenizer_reads_the_same(text, tmp_path):
    text.save(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    again = Text.from_folder(tmp_path)
    assert (again.digest, again.max_length, again.pad_id) == (text.digest, text.max_length, text.pad_id)


def test_a_folder_without_a_tokenizer_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(InputError, match="has no tokenizer that can be read"):
        Text.from_folder(tmp_path)


# --- where models come from ---


def test_a_run_folder_stands_for_the_model_in_it(tiny, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_bytes((tiny / "config.json").read_bytes())
    assert resolve(tmp_path) == (tmp_path / "model").resolve()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("minilmm", r"Unknown model 'minilmm'\. Did you mean 'minilm'\?"),
        ("./nowhere", r"Model './nowhere' is not a folder"),
        ("a/b/c", r"Model 'a/b/c' is not a folder"),
    ],
)
def test_a_model_that_is_nowhere_is_an_error_at_once(name, sentence):
    with pytest.raises(InputError, match=sentence):
        resolve(name)


def test_a_folder_that_is_no_model_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"is not a model: it has no config\.json"):
        resolve(tmp_path)


def test_a_hub_id_without_a_network_is_told_in_one_sentence():
    with pytest.raises(InputError, match="is not on this machine and no hub could be reached"):
        resolve("no-such-organisation/no-such-model")


def test_the_embedded_model_is_the_published_one_and_reads_512_tokens():
    text = Text.from_folder(resolve("minilm"))
    assert (text.max_length, text.special_count) == (512, 2)
    assert text.encode(["Hello world"])[0].tolist() == [101, 7592, 2088, 102]
    assert np.unique(text.lengths(["a", "a b"])).tolist() == [3, 4]
