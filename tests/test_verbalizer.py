"""Classes are told by the words that a language model puts into a gap, and its own head says how probable they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers

from graftwork.choice import InputError
from graftwork.heads import Cosine, Linear, Verbalizer
from graftwork.heads.verbalizer import named
from graftwork.method import recipe_of
from graftwork.methods import FullFineTuning, LinearProbe, LoRA, Pretrained, PromptTuning
from graftwork.modalities.text import Text
from graftwork.model import TransferModel
from graftwork.tasks import Classification, Tagging
from graftwork.template import Template
from graftwork.testing import TINY_LR

ARCHITECTURES = ["bert", "roberta", "distilbert", "gpt2"]
WORDS = {"a": ["river", "water"], "b": ["house"], "c": ["bread"]}
TEXTS = ["the old house", "we saw anna", "a", "some quick letters here. often?"]


def template_of(architecture, before=False):
    if architecture == "gpt2":
        return "{text} it was"
    return "the [MASK] of {text}, here." if before else "{text} it was [MASK] here."


def classifier(folder, head, labels=("a", "b", "c")):
    torch.manual_seed(0)
    return TransferModel.pretrained(folder, Classification(labels=labels), head=head).eval()


def theirs(folder, architecture, template, text, words):
    """The logits of words at the gap, by transformers alone."""
    auto = transformers.AutoModelForCausalLM if architecture == "gpt2" else transformers.AutoModelForMaskedLM
    network = auto.from_pretrained(folder).eval()
    modality = Text.from_folder(folder)
    mask = {"roberta": "<mask>", "gpt2": ""}.get(architecture, "[MASK]")
    filled = template.replace("[MASK]", mask).replace("{text}", text)
    ids = modality.tokenizer.encode(filled).ids
    place = -1 if architecture == "gpt2" else ids.index(modality.tokenizer.token_to_id(mask))
    with torch.no_grad():
        logits = network(input_ids=torch.tensor([ids])).logits[0, place]
    return [float(logits[modality.tokenizer.token_to_id(word)]) for word in words]


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_class_scores_what_the_language_model_gives_its_words_at_the_gap(language_models, architecture, before):
    folder, template = language_models(architecture), template_of(architecture, before)
    model = classifier(folder, Verbalizer(template=template, words=WORDS, calibrated=False))
    for text, found in zip(TEXTS, model.outputs(TEXTS), strict=True):
        river, water, house, bread = theirs(folder, architecture, template, text, ["river", "water", "house", "bread"])
        np.testing.assert_allclose(found, [(river + water) / 2, house, bread], atol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_saved_and_loaded_it_answers_the_same(language_models, architecture, tmp_path):
    model = classifier(language_models(architecture), Verbalizer(template=template_of(architecture), words=WORDS))
    model.save(tmp_path)
    again = TransferModel.load(tmp_path)
    np.testing.assert_array_equal(again.outputs(TEXTS), model.outputs(TEXTS))
    assert again.modality.template == Template(template_of(architecture))
    assert again.modality.digest == model.modality.digest


def test_what_the_model_leans_to_where_nothing_is_said_is_taken_off(language_models):
    template = "{text} it was [MASK] here."
    plain = classifier(language_models(), Verbalizer(template=template, words=WORDS, calibrated=False))
    calibrated = classifier(language_models(), Verbalizer(template=template, words=WORDS))
    nothing = np.stack(plain.outputs(["N/A", "[MASK]", ""]))
    chance = np.exp(nothing) / np.exp(nothing).sum(axis=1, keepdims=True)
    expected = np.stack(plain.outputs(TEXTS)) - np.log(chance.mean(axis=0))
    np.testing.assert_allclose(np.stack(calibrated.outputs(TEXTS)), expected, atol=1e-4)


def test_a_word_of_several_pieces_counts_as_their_mean(language_models):
    folder, template = language_models(), "{text} it was [MASK] here."
    words = {"a": ["riverx"], "b": ["house"], "c": ["bread"]}
    model = classifier(folder, Verbalizer(template=template, words=words, calibrated=False))
    pieces = Text.from_folder(folder).tokenizer.encode("riverx", add_special_tokens=False).tokens
    scores = theirs(folder, "bert", template, TEXTS[0], pieces)
    assert len(pieces) > 1
    assert model.outputs(TEXTS[:1])[0][0] == pytest.approx(np.mean(scores), abs=1e-4)


def test_the_words_of_a_classes_name_stand_for_it(language_models):
    template = "{text} it was [MASK] here."
    found = classifier(language_models(), Verbalizer(template=template), labels=("new_house", "River"))
    asked = classifier(
        language_models(),
        Verbalizer(template=template, words={"new_house": ["new", "house"], "River": ["river"]}),
        labels=("new_house", "River"),
    )
    np.testing.assert_array_equal(found.outputs(TEXTS), asked.outputs(TEXTS))
    assert named("card_arrival") == ["card", "arrival"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_long_text_loses_its_end_and_the_gap_stays(language_models, architecture):
    for before in (False, True):
        template = template_of(architecture, before)
        model = classifier(language_models(architecture), Verbalizer(template=template, words=WORDS))
        model.modality.max_length = 20
        whole = model.modality.encodings(["river " * 60])[0]
        cut = model.modality.cut(whole)
        pieces = [model.modality.tokenizer.id_to_token(i) for i in cut]
        assert len(cut) == 20
        assert cut[model.modality.place] == whole.ids[model.modality.place]
        assert [p for p in pieces if p != "river"] == [p for p in whole.tokens if p != "river"]


def test_a_causal_model_reads_a_template_as_far_as_its_gap(language_models):
    folder = language_models("gpt2")
    whole = classifier(folder, Verbalizer(template="{text} it was [MASK] here.", words=WORDS))
    cut = classifier(folder, Verbalizer(template="{text} it was", words=WORDS))
    np.testing.assert_array_equal(whole.outputs(TEXTS), cut.outputs(TEXTS))


def test_padding_changes_no_answer(language_models):
    for architecture in ARCHITECTURES:
        model = classifier(language_models(architecture), Verbalizer(template=template_of(architecture), words=WORDS))
        alone = np.stack([model.outputs([text])[0] for text in TEXTS])
        np.testing.assert_allclose(np.stack(model.outputs(TEXTS)), alone, atol=2e-5)


def test_without_training_it_answers_as_the_language_model_does(language_models, staged):
    head = Verbalizer(template="{text} it was [MASK] here.")
    work = staged(Pretrained(head=head), folder=language_models())
    before = np.stack(work.model.outputs(TEXTS))
    work.stage.method.prepare(work.model, work.train)
    np.testing.assert_array_equal(np.stack(work.model.outputs(TEXTS)), before)


@pytest.mark.parametrize("method", [LoRA, PromptTuning])
def test_it_goes_with_other_methods(language_models, staged, method):
    head = Verbalizer(template="{text} it was [MASK] here.")
    work = staged(method(head=head, lr=TINY_LR, batch_size=16), folder=language_models())
    before = {n: p.detach().clone() for n, p in work.model.head.named_parameters()}
    work.run()
    assert any(not torch.equal(p, before[n]) for n, p in work.model.head.named_parameters())
    groups = work.stage.method.param_groups(work.model)
    assert {g.lr for g in groups if g.name.startswith("head")} == {TINY_LR}


@pytest.mark.parametrize("head", [Linear, Cosine])
def test_any_head_may_read_the_state_at_the_gap(language_models, head):
    folder = language_models()
    model = classifier(folder, head(template="the [MASK] of {text}."))
    ids = torch.tensor([model.modality.encode(["we saw anna"])[0].tolist()])
    with torch.no_grad():
        states = model.encoder(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        found = model.embed({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    torch.testing.assert_close(found, states[:, 2])


def test_a_probe_reads_the_gap_from_the_cache_as_without_it(language_models, staged):
    work = staged(LinearProbe(head=Linear(template="the [MASK] of {text}.")), folder=language_models())
    work.stage.method.prepare(work.model, work.train)
    model = work.stage.method.finish(work.model, work.train)
    plain = staged(LinearProbe())
    plain.stage.method.prepare(plain.model, plain.train)
    assert not torch.allclose(
        plain.stage.method.finish(plain.model, plain.train).head.linear.weight, model.head.linear.weight
    )


# --- what is refused ---


@pytest.mark.parametrize("template", ["It was [MASK].", "{text} {text} [MASK]", "{text} [MASK] [MASK]"])
def test_a_template_without_its_parts_is_refused(template):
    with pytest.raises(InputError, match=r"\{text\} once and \[MASK\] at most once"):
        recipe_of({"full-fine-tuning": {"head": {"verbalizer": {"template": template}}}})


@pytest.mark.parametrize(
    ("architecture", "template", "message"),
    [
        ("gpt2", "the [MASK] of {text}.", "has a \\[MASK\\], which this model does not know"),
        ("bert", "{text} it was", "has no \\[MASK\\], and this model does not read on"),
    ],
)
def test_a_template_that_the_model_cannot_read_is_refused(language_models, architecture, template, message):
    with pytest.raises(InputError, match=message):
        classifier(language_models(architecture), Verbalizer(template=template, words=WORDS))


def test_a_model_without_its_language_model_head_is_refused(language_models, tmp_path):
    classifier(language_models(), Linear()).save(tmp_path)
    with pytest.raises(InputError, match=r"no masked language-model head \(it lacks cls\.predictions"):
        classifier(tmp_path, Verbalizer(words=WORDS))


def test_words_that_nobody_knows_are_refused(language_models):
    with pytest.raises(InputError, match="vocabulary has no '¤'"):
        classifier(language_models(), Verbalizer(words=WORDS | {"a": ["¤"]}))
    with pytest.raises(InputError, match="Words are given for 'd', which is no label"):
        classifier(language_models(), Verbalizer(words=WORDS | {"d": ["house"]}))
    with pytest.raises(InputError, match="The label '\\?' holds no word"):
        classifier(language_models(), Verbalizer(), labels=("a", "?"))


def test_tags_have_no_template(language_models):
    with pytest.raises(InputError, match="so no template"):
        TransferModel.pretrained(language_models(), Tagging(labels=("O", "B-X")), head=Linear(template="{text} [MASK]"))


def test_a_template_that_fills_the_model_is_refused(language_models):
    model = classifier(language_models(), Verbalizer(words=WORDS))
    model.modality.max_length = 5
    with pytest.raises(InputError, match="leaves no room for a text in 5 tokens"):
        model.outputs(["we saw anna"])


def test_fine_tuning_keeps_what_it_starts_from(language_models, staged):
    """The head is no fresh one: no regression writes over the language model's."""
    work = staged(FullFineTuning(head=Verbalizer(template="{text} it was [MASK] here.")), folder=language_models())
    before = np.stack(work.model.outputs(TEXTS))
    work.stage.method.prepare(work.model, work.train)
    np.testing.assert_array_equal(np.stack(work.model.outputs(TEXTS)), before)
