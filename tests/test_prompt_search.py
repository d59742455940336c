"""A search finds the prompt by which a language model answers best, says it in words, and leaves the weights alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from graftwork.choice import InputError
from graftwork.cloze import Cloze, word_places
from graftwork.data import Data
from graftwork.examples import tokenised
from graftwork.fit import fit
from graftwork.heads import Verbalizer
from graftwork.method import recipe_of, unmet
from graftwork.methods.prompt_search import PromptSearch, fitted, telling
from graftwork.model import TransferModel
from graftwork.run import Run
from graftwork.tasks import Classification
from graftwork.template import Template
from graftwork.testing import learnable

ARCHITECTURES = ["bert", "roberta", "gpt2"]
WORDS = {"food": ["bread"], "sport": ["river"], "travel": ["street"]}
HEAD = Verbalizer(template="{text} it was new [MASK] here.", words=WORDS)
ROWS = learnable("classification")


def model_of(folder, head=HEAD):
    torch.manual_seed(0)
    labels = tuple(sorted(WORDS))
    return TransferModel.pretrained(folder, Classification(labels=labels), head=head).eval().requires_grad_(False)


def searched(folder, **fields):
    """The model that a search hands back, and what it found."""
    data = Data.load(ROWS)
    model = model_of(folder, fields.get("head", HEAD))
    train = tokenised(data, "train", model.task, model.modality)
    method = PromptSearch(**{"head": HEAD, "rows": 30, "evaluations": 8, "folds": 2, "top_k": 4} | fields)
    method.prepare(model, train)
    return method.finish(model, train)


def cloze_of(folder, rows=12):
    data = Data.load(ROWS)
    model = model_of(folder)
    targets = model.task.targets(data["train"].labels()[:rows])
    return Cloze(model, data["train"].inputs()[:rows], targets)


# --- what the language model is asked ---


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_one_reading_scores_classes_as_the_model_does(language_models, architecture):
    cloze = cloze_of(language_models(architecture))
    model = model_of(language_models(architecture), HEAD.model_copy(update={"calibrated": False}))
    gap = cloze.gap(HEAD.template)
    found = cloze.scores(gap.modality, gap.states, [WORDS[label] for label in sorted(WORDS)])
    np.testing.assert_allclose(found, np.stack(model.outputs(cloze.texts)), atol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_words_of_a_template_are_found_where_they_are_read(language_models, architecture):
    modality = model_of(language_models(architecture)).modality
    cloze = cloze_of(language_models(architecture))
    for template in ("the old {text} made new, [MASK]", "{text}. some riverx table [MASK]!"):
        within = modality.within(Template(template))
        places = word_places(within, cloze.vocabulary)
        units = within.template.units
        for text in ("a", "green garden, bread"):
            pieces = within.encodings([text])[0].tokens
            said = {template[slice(*units[unit])]: pieces[place] for unit, place in places.items()}
            assert said == {word: word for word in said}
        assert set(said) == ({"the", "old", "made", "new"} if template.startswith("the") else {"some", "table"})


@pytest.mark.parametrize("architecture", ["bert", "gpt2"])
def test_the_slope_at_a_word_is_how_the_likelihood_grows_with_its_embedding(language_models, architecture):
    cloze = cloze_of(language_models(architecture), rows=4)
    words, bias = [WORDS[label] for label in sorted(WORDS)], torch.tensor([0.3, -0.1, 0.0])
    gap = cloze.gap(HEAD.template)
    unit = [HEAD.template[a:b] for a, b in Template(HEAD.template).units].index("new")
    slope = cloze.slopes(gap, words, 2.0, bias)[unit]
    table = cloze.model.encoder.get_input_embeddings().weight
    row = cloze.model.modality.tokenizer.token_to_id("new")
    where = [
        i for i, text in enumerate(cloze.texts) if "new" not in text.split()
    ]  # it must stand in the template alone
    cloze.texts, cloze.targets = [cloze.texts[i] for i in where], cloze.targets[where]
    slope = cloze.slopes(gap, words, 2.0, bias)[unit]

    def likelihood():
        scores = 2.0 * cloze.scores(gap.modality, cloze.gap(HEAD.template).states, words) + bias
        return float(scores.log_softmax(dim=-1)[torch.arange(len(where)), torch.from_numpy(cloze.targets)].sum())

    step = 1e-2 * slope / slope.norm()
    with torch.no_grad():
        table[row] += step
        up = likelihood()
        table[row] -= 2 * step
        down = likelihood()
    assert (up - down) / 2e-2 == pytest.approx(float(slope.norm()), rel=2e-2)


def test_what_fits_a_gap_is_what_the_language_model_gives_it(language_models):
    cloze = cloze_of(language_models())
    found = cloze.fill({"{text} it [MASK] bread.": np.array([0, 3]), "{text} it [MASK] river.": np.array([1])})
    rows = [(0, "bread"), (3, "bread"), (1, "river")]
    expected = []
    for row, said in rows:
        gap = cloze_of(language_models()).gap(f"{{text}} it [MASK] {said}.")
        expected.append(cloze.word_scores(gap.states[[row]]).log_softmax(dim=-1)[0])
    np.testing.assert_allclose(found, torch.stack(expected).mean(dim=0), atol=1e-4)


# --- what is chosen by it ---


def test_a_word_tells_a_class_where_it_is_more_probable_than_its_spread():
    scores = np.array([[3.0, 0.0, 1.0], [5.0, 0.0, 2.0], [0.0, 2.0, 1.0], [2.0, 4.0, 2.0]])
    tell = telling(scores, np.array([0, 0, 1, 1]), 2)
    # within a class 1, 0.71 and 0.5; the median of the three is added
    np.testing.assert_allclose(tell[0], [3 / (1 + 2**-0.5), -np.inf, 0.0], rtol=1e-6)
    np.testing.assert_allclose(tell[1, 1], 3 / (2 * 2**-0.5), rtol=1e-6)


def test_biases_make_each_class_as_probable_as_it_is_frequent():
    scores = np.random.default_rng(0).normal([2.0, 0.0, -1.0], size=(60, 3))
    targets = np.repeat([0, 1, 2], [40, 15, 5])
    scale, bias = fitted(scores, targets, None)
    chances = np.exp(scale * scores + bias)
    chances /= chances.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(chances.mean(axis=0), (np.array([40, 15, 5]) + 0.5) / 61.5, atol=1e-4)


@pytest.mark.parametrize("by", ["candidates", "gradient", "mutation"])
@pytest.mark.parametrize("architecture", ["bert", "gpt2"])
def test_what_is_found_is_the_best_of_what_was_tried_and_can_be_read(language_models, architecture, by):
    model = searched(language_models(architecture), by=by, templates=("{text} we saw the [MASK].",))
    found = model.found
    first, *others = found["best"]
    assert model.head_choice.template == first["template"]
    assert {k: list(v) for k, v in model.head_choice.words.items()} == first["words"]
    assert all(first["log_likelihood"] >= other["log_likelihood"] for other in others)
    assert found["tried"] == (2 if by == "candidates" else 8)
    assert first["template"] in found["said"]
    for prompt in found["best"]:
        assert Template(prompt["template"]).masked == (architecture == "bert")
        assert "##" not in prompt["template"]


def test_the_same_seed_finds_the_same(language_models):
    asked = {"templates": (), "evaluations": 5, "rows": 20}
    one, other = (searched(language_models(), seed=3, **asked) for _ in range(2))
    assert one.found == other.found
    assert one.found != searched(language_models(), seed=4, **asked).found


def test_words_are_chosen_by_other_rows_than_those_they_are_scored_on(language_models):
    """On labels that mean nothing, words that are looked for do not seem to tell anything."""
    rows = [row | {"label": sorted(WORDS)[np.random.default_rng(i).integers(3)]} for i, row in enumerate(ROWS["train"])]
    data = Data.load({"train": rows, "validation": ROWS["validation"]})
    model = model_of(language_models())
    train = tokenised(data, "train", model.task, model.modality)
    method = PromptSearch(head=HEAD, by="candidates", templates=(), rows=90)
    best = method.finish(model, train).found["best"][0]
    assert best["accuracy"] < 0.5
    assert best["log_likelihood"] < -1.0  # log(1/3) = -1.0986


@pytest.mark.parametrize("bias", ["rows", "nothing", "none"])
def test_the_model_answers_with_the_prompt_that_was_found(language_models, bias, tmp_path):
    model = searched(language_models(), bias=bias, by="candidates", templates=("{text} we saw the [MASK].",))
    plain = model_of(language_models(), model.head_choice.model_copy(update={"calibrated": bias == "nothing"}))
    texts = Data.load(ROWS)["test"].inputs()
    apart = np.stack(model.outputs(texts)) - np.stack(plain.outputs(texts))
    np.testing.assert_allclose(apart, np.broadcast_to(apart[0], apart.shape), atol=1e-4)
    assert (abs(apart).max() < 1e-4) == (bias != "rows")
    model.save(tmp_path)
    np.testing.assert_array_equal(TransferModel.load(tmp_path).outputs(texts), model.outputs(texts))


def test_a_recipe_trains_on_from_what_was_found(language_models, tmp_path, quick):
    asked = {"by": "mutation", "evaluations": 4, "rows": 30, "templates": [], "head": HEAD.spec()}
    told = []
    run = fit(
        Data.load(ROWS), model=language_models(), method=[{"prompt-search": asked}, "lora@verbalizer"],
        budget="3steps", out=tmp_path / "run", hardware=quick, on_event=told.append,
    )  # fmt: skip
    found = Run.open(run.path).happened["stages"][0]["found"]
    model = TransferModel.load(run.path / "model")
    assert model.head_choice.template == found["best"][0]["template"]
    assert [event["message"] for event in told if "Found" in event.get("message", "")] == [found["said"]]
    assert "found" not in run.happened["stages"][1]


# --- what is refused ---


def test_a_search_without_the_language_model_is_refused(language_models, tmp_path):
    model_of(language_models()).save(tmp_path)
    model = TransferModel.load(tmp_path)
    data = Data.load(ROWS)
    with pytest.raises(InputError, match="asks the whole language model"):
        PromptSearch(head=HEAD).prepare(model, tokenised(data, "train", model.task, model.modality))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"head": "linear"}, "a prompt is searched for a verbalizer, not for the head 'linear'"),
        ({"templates": ["It was [MASK]."]}, r"\{text\} once and \[MASK\] at most once"),
        ({"by": "luck"}, "candidates"),
    ],
)
def test_what_cannot_be_searched_is_refused(fields, message):
    with pytest.raises(InputError, match=message):
        recipe_of({"prompt-search": fields})


@pytest.mark.parametrize("kind", ["tagging", "multi-label"])
def test_data_that_a_prompt_cannot_answer_is_refused(kind):
    said = unmet(recipe_of("prompt-search"), Data.load(learnable(kind)))
    assert "Method 'prompt-search' needs one class a text" in (said or "")


def test_words_for_no_label_are_refused_before_anything_is_read(language_models):
    with pytest.raises(InputError, match="Words are given for 'd', which is no label"):
        searched(language_models(), words=({"d": ["house"]},))
