"""Train texts are written anew: each kind changes what it says, labels and tags stay, and every row is counted."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

import graftwork.augmentations  # noqa: F401  puts every kind on its shelf
from graftwork import Data, augment, fit
from graftwork.augment import COLUMN, MARKER
from graftwork.augmentation import Augmentation, Example
from graftwork.augmentations.entities import EntityReplacement, mentions, spans
from graftwork.augmentations.language_model import Draw, LanguageModel
from graftwork.augmentations.masked import MaskedSubstitution
from graftwork.augmentations.neighbours import Neighbours, related
from graftwork.augmentations.passage import Passage, casing, stop_words
from graftwork.augmentations.sequences import BackTranslation, Generation, first_line, prompt
from graftwork.augmentations.whole_words import WholeWords
from graftwork.augmentations.words import WordDeletion, WordSwap
from graftwork.choice import InputError, lookup, names, parse
from graftwork.data import Split
from graftwork.hardware import Hardware
from graftwork.splitting import NEAR, jaccard, normalise
from graftwork.testing import FILLER, learnable

CPU = Hardware(device="cpu")
NO_MODEL = ("word-deletion", "word-swap")
TEXTS = ("The film, I think, was not good.", "An old actor (of note) didn't sing.", "Fine!", "a b c", "", "3.5 of 5 --")


def lucks(count: int, seed: int = 0) -> list[np.random.Generator]:
    """Generators, each of its own."""
    return [np.random.default_rng((seed, i)) for i in range(count)]


def rewritten(kind: Augmentation, examples: list[Example], seed: int = 0, train: Any = None) -> list[Any]:
    """What a kind makes of examples."""
    return list(kind.build(train, CPU)(examples, lucks(len(examples), seed)))


def words_of(text: str) -> list[str]:
    """The words of a text, without marks."""
    passage = Passage.of(Example(text, ""))
    return [passage.pieces[i] for i in passage.words]


def entities(example: Example) -> list[tuple[tuple[str, ...], str]]:
    """Words and type of each entity, in order."""
    return [(tuple(example.input[a:b]), kind) for a, b, kind in spans(example.label)]


@st.composite
def tagged(draw: st.DrawFn) -> Example:
    """Words with tags in IOB2: entities of one to three words, marks, and words between them."""
    words, tags = [], []
    for _ in range(draw(st.integers(0, 8))):
        if draw(st.booleans()):
            kind = draw(st.sampled_from(["PER", "LOC"]))
            entity = draw(st.lists(st.sampled_from(["Anna", "new", "paris", "-"]), min_size=1, max_size=3))
            words, tags = [*words, *entity], [*tags, f"B-{kind}", *[f"I-{kind}"] * (len(entity) - 1)]
        else:
            words, tags = [*words, draw(st.sampled_from([*FILLER[2:9], "not", ",", ".", "("]))], [*tags, "O"]
    return Example(words, tags)


# --- models made for these tests ---


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    """A BERT with its language-model head and a mask token, random weights."""
    from transformers import BertConfig, BertForMaskedLM

    folder = tmp_path_factory.mktemp("masked")
    tokenizer = Tokenizer.from_file(str(tiny / "tokenizer.json"))
    tokenizer.add_special_tokens(["[MASK]"])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "mask_token": "[MASK]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"model_max_length": 64}))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=64, initializer_range=0.5, pad_token_id=0,
    )  # fmt: skip
    BertForMaskedLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folders of tiny random models that write: `marian`, `t5`, `gpt2`."""
    from transformers import AutoConfig, GPT2LMHeadModel, MarianMTModel, T5ForConditionalGeneration

    root = tmp_path_factory.mktemp("writers")

    def make(kind: str) -> Path:
        folder = root / kind
        if folder.exists():
            return folder
        folder.mkdir()
        vocabulary = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", "good", "bad", ":", ".", *FILLER])}
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>"])
        tokenizer.save(str(folder / "tokenizer.json"))
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "eos_token": "</s>"}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"model_max_length": 64}))
        size = len(vocabulary)
        shape: dict[str, Any] = {
            "marian": {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
                       "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32,
                       "max_position_embeddings": 64, "init_std": 0.5, "pad_token_id": 0, "eos_token_id": 1,
                       "decoder_start_token_id": 0, "forced_eos_token_id": 1},
            "t5": {"d_model": 32, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0,
                   "pad_token_id": 0, "eos_token_id": 1},
            "gpt2": {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 64, "initializer_range": 0.5,
                     "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0},
        }[kind]  # fmt: skip
        torch.manual_seed(0)
        network = {"marian": MarianMTModel, "t5": T5ForConditionalGeneration, "gpt2": GPT2LMHeadModel}[kind]
        network(AutoConfig.for_model(kind, vocab_size=size, **shape)).save_pretrained(folder)
        return folder

    return make


# --- words ---


@pytest.mark.parametrize("text", TEXTS)
def test_a_passage_joins_to_its_text(text: str) -> None:
    assert Passage.of(Example(text, "x")).example("x") == Example(text, "x")


def test_words_are_what_stands_between_spaces_without_marks_at_its_ends() -> None:
    assert words_of('(Mr. O\'Neil) paid $3.5 -- and/or "more"...') == ["Mr", "O'Neil", "paid", "3.5", "and/or", "more"]


@pytest.mark.parametrize(
    ("text", "word", "left"),
    [
        ("The film was long.", "The", "Film was long."),
        ("The film was long.", "long", "The film was."),
        ("a smart , solid flick .", "solid", "a smart , flick ."),
        ("a smart , solid flick .", "smart", "a , solid flick ."),
        ("It ended. Then we left.", "Then", "It ended. We left."),
        ("one two\nthree", "two", "one\nthree"),
        ('he said "so be it" twice', "so", 'he said "be it" twice'),
    ],
)
def test_marks_and_capitals_close_over_a_word_that_is_left_out(text: str, word: str, left: str) -> None:
    passage = Passage.of(Example(text, ""))
    place = passage.pieces.index(word)
    assert passage.can_lose(place)
    assert passage.without(place).example("").input == left


@pytest.mark.parametrize(
    ("text", "word"),
    [("smart , solid , old", "solid"), ("a film ( misses ) it", "misses"), ("Sadly, we left", "Sadly"),
     ("an old film", "old"), ("a very odd film", "very")],
)  # fmt: skip
def test_a_word_stays_where_marks_would_meet_or_an_article_be_wrong(text: str, word: str) -> None:
    passage = Passage.of(Example(text, ""))
    assert not passage.can_lose(passage.pieces.index(word))


def test_negations_are_never_touched() -> None:
    passage = Passage.of(Example("It's not good, I don't like it, never ever", ""))
    assert {"not", "don't", "never"}.isdisjoint(passage.pieces[i] for i in passage.free)


@given(st.text(alphabet="ab nN.,'\"(-\n", max_size=60), st.integers(0, 99))
def test_a_swap_moves_words_alone_and_a_deletion_only_takes_away(text: str, seed: int) -> None:
    example = Example(text, "x")
    before = Passage.of(example)
    swapped = Passage.of(rewritten(WordSwap(share=0.5), [example], seed)[0])
    assert Counter(swapped.pieces) == Counter(before.pieces)
    assert swapped.pieces[::2] == before.pieces[::2]
    left = rewritten(WordDeletion(share=0.5), [example], seed)[0].input
    kept = iter(word.casefold() for word in words_of(text))
    assert all(word.casefold() in kept for word in words_of(left))  # in their order
    assert bool(words_of(left)) == bool(words_of(text))


def test_as_many_words_are_deleted_as_the_share_says() -> None:
    text = " ".join(f"w{i}" for i in range(200))
    left = [len(words_of(made.input)) for made in rewritten(WordDeletion(share=0.3), [Example(text, "x")] * 40)]
    assert np.mean(left) == pytest.approx(0.7 * 200, abs=5)  # 4 standard deviations of the mean are 4.1


def test_as_many_pairs_are_swapped_as_the_share_says() -> None:
    text = " ".join(f"w{i}" for i in range(100))
    moved = [sum(a != b for a, b in zip(text.split(), made.input.split(), strict=True))
             for made in rewritten(WordSwap(share=0.03), [Example(text, "x")] * 40)]  # fmt: skip
    assert max(moved) == 6  # three pairs, none of them met twice
    assert min(moved) >= 2


# --- neighbours ---


def by_brute_force(folder: Path, word: str, threshold: float, most: int) -> list[str]:
    """Every piece of the vocabulary looked at, one after another."""
    from safetensors.numpy import load_file

    vocabulary = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    weights = load_file(folder / "model.safetensors")
    table = next(value for name, value in weights.items() if name.endswith("word_embeddings.weight"))
    own, found = table[vocabulary[word]], []
    for piece, index in vocabulary.items():
        if piece.isalpha() and len(piece) > 1 and piece not in stop_words() and not related(piece, word):
            cosine = own @ table[index] / np.linalg.norm(own) / np.linalg.norm(table[index])
            found += [(-cosine, piece)] * int(cosine >= threshold)
    return [piece for _, piece in sorted(found)[:most]]


@pytest.mark.parametrize("word", ["house", "river", "teacher", "green", "coach"])
def test_neighbours_are_those_of_a_search_by_hand(tiny: Path, word: str) -> None:
    kind: Any = parse(Augmentation, {"neighbour-synonyms": {"model": str(tiny), "threshold": 0.1, "share": 0.01}})
    expected = by_brute_force(tiny, word, 0.1, 5)
    assert expected
    made = {example.input for example in rewritten(kind, [Example(f"The {word}.", "x")] * 60)}
    assert made == {f"The {near}." for near in expected}


def test_toward_a_domain_only_its_words_come_and_its_words_stay(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("The river, the Teacher;\nthe green!", encoding="utf-8")
    table = tmp_path / "texts.csv"
    table.write_text("text,n\nthe river the teacher,1\nthe green,2\n", encoding="utf-8")
    for file in (tmp_path / "texts.txt", table):
        setting = {"model": str(tiny), "threshold": 0.001, "neighbours": 50, "toward": str(file)}
        kind: Any = parse(Augmentation, {"neighbour-synonyms": setting})
        made = {example.input for example in rewritten(kind, [Example("the house", "x")] * 60)}
        expected = {word for word in by_brute_force(tiny, "house", 0.001, 50) if word in ("river", "teacher", "green")}
        assert made == {f"the {word}" for word in expected} != set()
        assert all(
            each is None or each.input == "the river" for each in rewritten(kind, [Example("the river", "x")] * 9)
        )


def test_a_neighbour_wears_the_case_of_the_word(tiny: Path) -> None:
    kind: Any = parse(Augmentation, {"neighbour-synonyms": {"model": str(tiny), "threshold": 0.1}})
    texts = ["house", "House", "HOUSE", "hoUSE"]
    made = [example.input for example in rewritten(kind, [Example(text, "x") for text in texts])]
    assert [casing(word) for word in made[:3]] == ["lower", "capitalize", "upper"]
    assert made[3] == "hoUSE"


def test_a_synonym_suits_its_article() -> None:
    kind: Any = parse(Augmentation, {"neighbour-synonyms": {"threshold": 0.3, "neighbours": 50}})
    made = {example.input for example in rewritten(kind, [Example("an amazing", "x")] * 40)}
    assert len(made) > 3
    assert {text.split()[1][0] for text in made} <= set("aeiou")


def test_an_insertion_adds_near_words_of_words_that_are_there(tiny: Path) -> None:
    kind: Any = parse(Augmentation, {"word-insertion": {"model": str(tiny), "threshold": 0.1, "share": 0.5}})
    text = "the house, we were at the river"
    near = {word for own in ("house", "river") for word in by_brute_force(tiny, own, 0.1, 5)}
    for made in rewritten(kind, [Example(text, "x")] * 20):
        added = Counter(words_of(made.input)) - Counter(words_of(text))
        assert sum(added.values()) == 2
        assert set(added) <= near


@pytest.mark.parametrize("marker", ["Ġ", "▁"])
def test_whole_words_are_those_that_begin_after_a_space(marker: str) -> None:
    pieces = [f"{marker}house", f"{marker}River", "house", "ing", f"{marker}3", "a", "b"]
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, []))
    from tokenizers import decoders

    tokenizer.decoder = decoders.ByteLevel() if marker == "Ġ" else decoders.Metaspace()
    words = WholeWords(tokenizer)
    assert words.words == ["house", "River"]
    assert words.ids.tolist() == [0, 1]
    assert words.cased_like("Garden").tolist() == [False, True]


# --- tags ---


@pytest.fixture(scope="module")
def tag_kinds(bert: Path, tiny: Path) -> list[Any]:
    """Every kind that suits tagged words, ready."""
    fields: dict[str, dict[str, Any]] = {
        "masked-substitution": {"model": str(bert), "share": 0.5},
        "neighbour-synonyms": {"model": str(tiny), "threshold": 0.1, "share": 0.5},
        "word-insertion": {"model": str(tiny), "threshold": 0.1, "share": 0.5},
        "word-deletion": {"share": 0.5},
        "word-swap": {"share": 0.5},
    }
    suited = {name for name in names(Augmentation) if lookup(Augmentation, name).for_words}
    assert suited == {*fields, "entity-replacement"}
    return [parse(Augmentation, {name: values}).build(NONE, CPU) for name, values in fields.items()]


NONE: Any = None


@given(tagged(), st.integers(0, 99))
def test_tags_stay_with_their_words_and_entities_whole(tag_kinds: list[Any], example: Example, seed: int) -> None:
    for rewrite in tag_kinds:
        (made,) = rewrite([example], lucks(1, seed))
        assert len(made.input) == len(made.label)
        assert entities(made) == entities(example)
        outside = [word for word, tag in zip(made.input, made.label, strict=True) if tag == "O"]
        before = [word for word, tag in zip(example.input, example.label, strict=True) if tag == "O"]
        assert outside.count("not") == before.count("not")


@given(tagged(), st.integers(0, 99))
def test_an_entity_gives_way_to_one_of_its_type(example: Example, seed: int) -> None:
    train = Data.load(learnable("tagging"))["train"]
    known = mentions(train)
    (made,) = rewritten(EntityReplacement(share=1), [example], seed, train)
    if not entities(example):
        assert made is None
        return
    assert len(made.input) == len(made.label)
    assert [kind for _, kind in entities(made)] == [kind for _, kind in entities(example)]
    for (new, kind), (old, _) in zip(entities(made), entities(example), strict=True):
        assert tuple(word.casefold() for word in new) in known[kind]
        assert [word.casefold() for word in new] != [word.casefold() for word in old]
    assert [w for w, t in zip(made.input, made.label, strict=True) if t == "O"] == [
        w for w, t in zip(example.input, example.label, strict=True) if t == "O"
    ]


def test_a_capital_belongs_to_the_sentence_and_not_to_the_entity() -> None:
    rows = [
        (["Breast", "cancer", "kills", "."], ["B-D", "I-D", "O", "O"]),
        (["A", "breast", "hurts", ",", "not", "Marfan", "."], ["O", "O", "O", "O", "O", "B-D", "O"]),
    ]
    train = Data.load({"train": [{"tokens": w, "tags": t} for w, t in rows]}, validation=0)["train"]
    assert mentions(train) == {"D": [("Marfan",), ("breast", "cancer")]}
    made = rewritten(EntityReplacement(), [Example(*row) for row in rows], train=train)
    assert made[0].input[:2] == ["Marfan", "kills"]
    assert made[1].input[-3:] == ["breast", "cancer", "."]
    back = rewritten(EntityReplacement(), [Example(["Marfan", "kills"], ["B-D", "O"])], train=train)
    assert back[0].input == ["Breast", "cancer", "kills"]


# --- language models ---


def test_masked_words_are_drawn_from_the_models_own_distribution(bert: Path) -> None:
    from transformers import AutoModelForMaskedLM

    text, top = "we were at the house", 4
    tokenizer = Tokenizer.from_file(str(bert / "tokenizer.json"))
    ids = tokenizer.encode("we were at the [MASK]").ids
    with torch.no_grad():
        network = AutoModelForMaskedLM.from_pretrained(bert).eval()
        scores = network(input_ids=torch.tensor([ids])).logits[0, ids.index(tokenizer.token_to_id("[MASK]"))]
    whole = [piece for piece in tokenizer.get_vocab() if piece.isalpha() and len(piece) > 1 and piece != "house"]
    best = sorted(whole, key=lambda piece: -scores[tokenizer.token_to_id(piece)])[:top]
    chances = torch.softmax(torch.stack([scores[tokenizer.token_to_id(piece)] for piece in best]), 0)

    made = rewritten(MaskedSubstitution(model=str(bert), top_k=top), [Example(text, "x")] * 600)
    drawn = Counter(example.input.removeprefix("we were at the ") for example in made)
    assert set(drawn) <= set(best)
    for word, chance in zip(best, chances.tolist(), strict=True):
        assert drawn[word] / 600 == pytest.approx(chance, abs=4 * (chance * (1 - chance) / 600) ** 0.5 + 1e-3)


def test_masked_words_beyond_the_models_length_stay(bert: Path) -> None:
    text = "house " * 200
    (made,) = rewritten(MaskedSubstitution(model=str(bert), share=0.5), [Example(text.strip(), "x")])
    assert made.input.split()[62:] == text.split()[62:]
    assert made.input != text.strip()


def test_draws_follow_the_softmax_of_the_best() -> None:
    scores = torch.tensor([[2.0, 1.0, 0.0, 1.5]])
    draw = Draw(lucks(4000), top_k=3, temperature=0.5)
    drawn = draw(torch.zeros(4000, 1), scores.expand(4000, 4)).argmax(dim=1)
    found = torch.bincount(drawn, minlength=4) / 4000
    expected = torch.softmax(torch.tensor([2.0, 1.0, -torch.inf, 1.5]) / 0.5, 0)
    assert torch.allclose(found, expected, atol=0.03)


@pytest.mark.parametrize("kind", ["marian", "t5"])
def test_a_text_goes_there_and_back(writer: Callable[[str], Path], kind: str) -> None:
    folder = str(writer(kind))
    examples = [Example("we saw the old house", "good"), Example("the river", "bad"), Example("", "bad")]
    made = rewritten(BackTranslation(there=folder, back=folder), examples)
    model = LanguageModel.load(folder, "sequence-to-sequence", CPU, asked_by="there")
    # by hand, each text alone: the batch around it changes nothing
    for example, new in zip(examples[:2], made[:2], strict=True):
        text = example.input
        for own in lucks(3)[examples.index(example)].spawn(2):
            room = [int(model.lengths([text])[0]) + 16]
            (text,) = model.write([text], [own], room=room, top_k=40, temperature=0.9)
        assert (new and new.input) == (text or None)
    assert made[2] is None
    assert any(new is not None for new in made)


def test_a_text_longer_than_the_model_reads_is_left_out(writer: Callable[[str], Path]) -> None:
    folder = str(writer("marian"))
    long, short = Example("house " * 70, "x"), Example("house " * 20, "x")
    made = rewritten(BackTranslation(there=folder, back=folder), [long, short])
    assert made[0] is None
    assert made[1] is not None


def test_a_text_is_made_up_after_its_label(writer: Callable[[str], Path]) -> None:
    examples = [Example("we saw the old house", "good"), Example("the river was bad .", ["good", "bad"])]
    made = rewritten(Generation(model=str(writer("gpt2"))), examples)
    again = rewritten(Generation(model=str(writer("gpt2"))), examples)
    assert made == again
    assert [example.label for example in made] == ["good", ["good", "bad"]]
    assert all(set(example.input.split()) <= {"good", "bad", ":", ".", *FILLER} for example in made)
    assert made[0].input not in prompt(examples[0])


def test_what_is_written_ends_with_its_line_or_its_last_sentence() -> None:
    assert first_line(" Nice bed.\ngood: Nice") == "Nice bed."
    assert first_line(" Nice bed. But the") == "Nice bed."
    assert first_line(" Nice bed but the") == "Nice bed but the"


@pytest.mark.parametrize(
    ("kind", "fields", "said"),
    [
        ("masked-substitution", {}, "Give the folder of a masked language model: masked-substitution.model=FOLDER"),
        ("masked-substitution", {"model": "TINY"}, "has no masked language-model head"),
        ("masked-substitution", {"model": "/nowhere/x"}, "is not a folder"),
        ("masked-substitution", {"model": "GPT2"}, "cannot be loaded as a masked language model"),
        ("back-translation", {"there": "MARIAN"}, "back-translation.back=FOLDER"),
        ("back-translation", {"there": "TINY", "back": "TINY"}, "cannot be loaded as a sequence-to-sequence"),
        ("generation", {"model": "MARIAN2"}, "MARIAN2"),
    ],
)
def test_a_model_that_cannot_do_it_is_refused(
    kind: str, fields: dict[str, str], said: str, tiny: Path, writer: Callable[[str], Path]
) -> None:
    known = {"TINY": str(tiny), "GPT2": str(writer("gpt2")), "MARIAN": str(writer("marian"))}
    chosen = parse(Augmentation, {kind: {name: known.get(value, value) for name, value in fields.items()}})
    with pytest.raises(InputError, match=said):
        chosen.build(NONE, CPU)


# --- the verb ---


def rows_of(data: Data, split: str = "train") -> list[tuple[Any, Any]]:
    """(input, label) of every row."""
    return list(zip(data[split].inputs(), data[split].labels(), strict=True))


def test_the_same_seed_gives_the_same_rows_and_another_others(sources: dict[str, Path]) -> None:
    one, again, other = (augment(sources["classification"], with_=NO_MODEL, seed=seed).made for seed in (3, 3, 4))
    assert one == again
    assert {row.augmented for row in one} != {row.augmented for row in other}


def test_what_is_made_of_a_row_depends_on_no_other_row_or_kind(sources: dict[str, Path]) -> None:
    every = augment(sources["classification"], with_=NO_MODEL, copies=2)
    few = augment(sources["classification"], with_="word-swap", rows=7)
    assert len({row.row for row in few.made}) <= 7
    assert {(r.kind, r.row, r.augmented) for r in few.made} <= {(r.kind, r.row, r.augmented) for r in every.made}


@pytest.mark.parametrize("task", ["classification", "multi-label", "tagging"])
def test_every_row_is_counted_and_no_label_changes(sources: dict[str, Path], task: str) -> None:
    kinds = ("entity-replacement", *NO_MODEL) if task == "tagging" else NO_MODEL
    found = augment(sources[task], with_=kinds, copies=3)
    train = found.original["train"]
    label = dict(zip(train.rows.tolist(), train.labels(), strict=True))
    for counts in found.counts.values():
        assert counts.asked == 3 * len(train)
        assert counts.asked == counts.made + counts.unchanged + counts.repeated + counts.held_out + counts.dropped
    assert Counter(row.kind for row in found.made) == {kind: found.counts[kind].made for kind in kinds}
    if task != "tagging":
        assert all(row.label == label[row.row] for row in found.made)
    assert len(found.data["train"]) == len(train) + len(found.made)
    assert rows_of(found.data)[: len(train)] == rows_of(found.original)


def test_rows_that_repeat_a_train_text_or_each_other_are_dropped() -> None:
    rows = [{"text": text, "label": text[0]} for text in ("p q", "q P", "r s", "p x y z", "r v w u")]
    found = augment({"source": {"train": rows}, "validation": 0}, with_="word-swap", copies=4)
    texts = [normalise(text) for text, _ in rows_of(found.data)]
    assert len(set(texts)) == len(texts)
    # `p q` and `q P` give each other, 4 times each; `r s` gives one text, and it again 3 times
    assert found.counts["word-swap"].repeated >= 11


def test_nothing_that_comes_near_validation_or_test_is_made() -> None:
    generator = np.random.default_rng(0)
    texts = [" ".join(generator.choice(FILLER, 80)) for _ in range(30)]
    rows = [{"text": text, "label": "xy"[i % 2]} for i, text in enumerate(texts)]
    source = {"train": rows, "validation": rows[:4], "test": rows[4:9]}
    found = augment({"source": source}, with_={"word-deletion": {"share": 0.01}}, copies=2)
    held = [normalise(text) for text, _ in rows_of(found.original, "validation") + rows_of(found.original, "test")]
    assert found.counts["word-deletion"].held_out >= 12
    assert all(jaccard(normalise(row.augmented), other) < NEAR for row in found.made for other in held)
    assert {row.row for row in found.made} & set(range(10, 31))


def test_the_folder_is_read_as_data_with_a_larger_train(sources: dict[str, Path], tmp_path: Path) -> None:
    for task in ("classification", "multi-label", "tagging"):
        found = augment(sources[task], with_="word-swap", out=tmp_path / task)
        data = Data.load(tmp_path / task)
        assert (data.task, data.multi_label, data.labels) == (task.split("-l")[0] if task == "tagging" else
            "classification", task == "multi-label", found.original.labels)  # fmt: skip
        assert data.fingerprint == found.data.fingerprint
        for split in ("validation", "test"):
            assert rows_of(data, split) == rows_of(found.original, split)
        assert not data.findings
        lines = [json.loads(line) for line in (tmp_path / task / "train.jsonl").read_text().splitlines()]
        assert Counter(line[COLUMN] for line in lines) == {
            "": len(found.original["train"]), "word-swap": len(found.made)
        }  # fmt: skip


def test_columns_that_were_guessed_get_names_that_need_no_guess(tmp_path: Path) -> None:
    rows = [{"what was said": f"the {word} was seen again today", "side": "ab"[i % 2]} for i, word in enumerate(FILLER)]
    found = augment({"source": {"train": rows}}, with_="word-swap", out=tmp_path / "out")
    assert (found.original.columns.text, found.original.columns.label) == ("what was said", "side")
    assert (Data.load(tmp_path / "out").columns.text, Data.load(tmp_path / "out").columns.label) == ("text", "label")


def test_a_model_is_fitted_to_the_folder(sources: dict[str, Path], tiny: Path, tmp_path: Path, quick: Any) -> None:
    augment(sources["classification"], with_=NO_MODEL, out=tmp_path / "more")
    run = fit(tmp_path / "more", model=tiny, method="linear-probe", out=tmp_path / "run", hardware=quick)
    assert run.state == "done"
    assert run.data["rows"]["train"] > 90


def test_a_folder_is_replaced_only_when_asked_and_only_if_it_was_made_here(
    sources: dict[str, Path], tmp_path: Path
) -> None:
    def ask(out: Path, **others: Any) -> Any:
        return augment(sources["classification"], with_="word-swap", out=out, **others)

    ask(tmp_path / "out")
    with pytest.raises(InputError, match="replace with --force"):
        ask(tmp_path / "out")
    before = (tmp_path / "out" / "train.jsonl").read_text()
    ask(tmp_path / "out", force=True, seed=8)
    assert (tmp_path / "out" / "train.jsonl").read_text() != before
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="is left alone"):
        ask(tmp_path / "out", force=True)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="is left alone"):
        ask(tmp_path / "file", force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "out"]


def test_a_folder_is_there_whole_or_not_at_all(
    sources: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = augment(sources["classification"], with_="word-swap")
    found.save(tmp_path / "out")
    before = (tmp_path / "out" / "train.jsonl").read_text()
    monkeypatch.setattr(sys.modules["graftwork.augment"], "as_json", lambda *_, **__: 1 / 0)
    for folder in ("out", "new"):
        with pytest.raises(ZeroDivisionError):
            found.save(tmp_path / folder, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "train.jsonl").read_text() == before


def test_augmented_data_is_not_augmented_again(sources: dict[str, Path], tmp_path: Path) -> None:
    augment(sources["classification"], with_="word-swap", out=tmp_path / "out")
    with pytest.raises(
        InputError, match=f"augmented already. Give the data it was made from: {sources['classification']}"
    ):
        augment(tmp_path / "out", with_="word-deletion")
    with pytest.raises(InputError, match="augmented already"):
        augment(tmp_path / "out" / "train.jsonl", with_="word-deletion")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"with_": "word-swop"}, "Unknown augmentation 'word-swop'. Did you mean 'word-swap'"),
        ({"with_": {"word-swap": {"share": 0.9}}}, "'share' of WordSwap must be a number in"),
        ({"with_": ["word-swap", "word-swap"]}, "given twice"),
        ({"with_": []}, "Name a kind of augmentation"),
        ({"with_": "entity-replacement"}, "does not suit classification. These do: back-translation"),
        ({"copies": 0}, "copies and rows begin at 1"),
        ({"seed": -1}, "seed at 0"),
        ({"drop_flagged": True}, "give check_with=RUN"),
        ({"check_with": "nowhere"}, "no run folder 'nowhere'"),
        (
            {"with_": {"word-swap": {}}, "data": "CHINESE"},
            "No row could be made: of 9 by word-swap 9 left as they were",
        ),
    ],
)
def test_what_cannot_be_used_is_said_in_a_sentence(asked: dict[str, Any], said: str, sources: dict[str, Path]) -> None:
    chinese = {
        "source": {"train": [{"text": f"这部电影{i}", "label": "好坏"[i % 2]} for i in range(9)]},
        "validation": 0,
    }
    data = chinese if asked.pop("data", "") else sources["classification"]
    with pytest.raises(InputError, match=said):
        augment(data, **asked)


def test_data_with_errors_is_refused(sources: dict[str, Path]) -> None:
    rows = [{"tokens": ["anna", "left"], "tags": ["B-PER"]}] * 4
    with pytest.raises(InputError, match="tag-count"):
        augment({"source": {"train": rows}, "validation": 0}, with_="word-swap")


# --- checked by a run ---


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, sources: dict[str, Path], tiny: Path) -> Any:
    folder = tmp_path_factory.mktemp("runs") / "probe"
    hardware = {"device": "cpu", "precision": "fp32"}
    return fit(sources["classification"], model=tiny, method="linear-probe", out=folder, hardware=hardware)


def test_rows_that_a_run_gives_another_class_are_flagged(sources: dict[str, Path], run: Any) -> None:
    from graftwork import predict

    asked: dict[str, Any] = {"with_": {"word-deletion": {"share": 0.5}}, "copies": 2, "check_with": run.path}
    found = augment(sources["classification"], **asked)
    answers = [answer["label"] for answer in predict(run, [row.augmented for row in found.made])]
    assert [row.answer for row in found.made] == answers
    flagged = [row for row in found.made if row.flagged]
    assert flagged == [row for row, answer in zip(found.made, answers, strict=True) if answer != row.label]
    assert 0 < found.counts["word-deletion"].flagged == len(flagged) < len(found.made)

    kept = augment(sources["classification"], **asked, drop_flagged=True)
    assert kept.made == tuple(row for row in found.made if not row.flagged)
    assert kept.counts["word-deletion"].dropped == kept.counts["word-deletion"].flagged == len(flagged)


def test_a_run_of_other_labels_checks_nothing(sources: dict[str, Path], run: Any) -> None:
    rows = [{"text": f"{word} {word}", "label": "ab"[i % 2]} for i, word in enumerate(FILLER)]
    with pytest.raises(InputError, match="knows no label 'a'"):
        augment({"source": {"train": rows}}, with_="word-swap", check_with=run)
    with pytest.raises(InputError, match="answers another task"):
        augment(sources["multi-label"], with_="word-swap", check_with=run)


# --- the command line ---


@pytest.fixture
def graft(capsys: pytest.CaptureFixture[str], typed: Callable[..., int]) -> Callable[..., tuple[int, str, str]]:
    """`graft(...)` as in a shell: exit code, stdout, stderr."""

    def call(*words: object) -> tuple[int, str, str]:
        return typed(*words), *capsys.readouterr()

    return call


@pytest.fixture
def table(tmp_path: Path) -> Path:
    file = tmp_path / "reviews.csv"
    lines = [f"The {word} was quite old today,{'good' if i % 2 else 'bad'}" for i, word in enumerate(FILLER)]
    file.write_text("\n".join(["text,label", *lines]) + "\n")
    return file


def test_the_command_writes_a_folder_and_answers_in_json(graft: Any, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "more"
    code, said, _ = graft(
        "augment", table, "--with", "word-swap,word-deletion", "--set", "word-swap.share=0.4", "--copies", 2,
        "--seed", 5, "--show", 3, "--out", out, "--json",
    )  # fmt: skip
    told = json.loads(said)
    assert code == 0
    assert said.count("\n") == 1
    assert set(told["counts"]) == {"word-swap", "word-deletion"}
    assert told["asked"]["kinds"][0] == {"word-swap": {"share": 0.4}}
    assert len(told["shown"]) == 3
    assert set(told["shown"][0]) == {"kind", "row", "original", "augmented", "label", "flagged", "answer"}
    assert told["rows"]["train"] == len((out / "train.jsonl").read_text().splitlines())
    assert json.loads((out / MARKER).read_text())["counts"] == told["counts"]


def test_the_command_shows_rows_and_writes_nothing(graft: Any, table: Path) -> None:
    code, said, _ = graft("augment", table, "--with", "word-deletion", "--show", 4)
    assert code == 0
    assert said.count("→") == 4
    assert "Nothing is written" in said
    assert [path.name for path in table.parent.iterdir()] == ["reviews.csv"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--with", "word-swop"), "Unknown augmentation 'word-swop'"),
        (("--with", "masked-substitution", "--set", "model=/nowhere/x"), "is not a folder"),
        (("--out", "."), "is left alone"),
        (("--set", "share=0.2"), "--set belongs to a kind"),
        (("--with", "word-swap,word-deletion", "--set", "share=0.2"), "--set word-swap.share=0.2"),
        (("--copies", "0"), "--copies"),
    ],
)
def test_the_command_refuses_in_a_sentence(
    graft: Any, table: Path, words: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(table.parent)
    code, out, error = graft("augment", table, *words)
    assert (code, out) == (2, "")
    assert said in error
    assert error.count("error: ") == 1
    assert "Traceback" not in error


def test_help_answers_without_torch() -> None:
    code = "import sys; from graftwork.cli import main; sys.argv = ['graft', 'augment', '--help']; main()"
    told = subprocess.run([sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True)
    assert told.returncode == 0
    assert "With --json: out, counts" in " ".join(told.stdout.split())
    assert not re.search(r"\| +(torch|transformers|numpy|pyarrow)$", told.stderr, flags=re.MULTILINE)


def test_the_preview_of_tagged_words_shows_their_tags(graft: Any, sources: dict[str, Path]) -> None:
    code, said, _ = graft("augment", sources["tagging"], "--with", "entity-replacement")
    assert code == 0
    assert "/B-PER" in said
    assert "/I-LOC" in said


def test_splits_and_data_give_the_same_rows(sources: dict[str, Path]) -> None:
    loaded = Data.load(sources["classification"])
    assert isinstance(loaded["train"], Split)
    assert augment(loaded, with_="word-swap").made == augment(sources["classification"], with_="word-swap").made


def test_a_table_of_neighbours_answers_nothing_for_stop_words_and_pieces(tiny: Path) -> None:
    tokenizer = Tokenizer.from_file(str(tiny / "tokenizer.json"))
    words = WholeWords(tokenizer)
    table = np.ones((tokenizer.get_vocab_size(), 3), dtype=np.float32)
    near = Neighbours(words, table, threshold=0.5, most=3)
    assert near.of("the") == near.of("greenhouse") == []
    assert len(near.of("house")) == 3
