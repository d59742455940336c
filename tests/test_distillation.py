"""What a teacher tells a student, by hand; whose layers the student is made of; and what cannot teach it."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModel

from graftwork import layers
from graftwork.choice import InputError
from graftwork.fit import fit
from graftwork.method import Method, recipe_of
from graftwork.methods import Distillation, FullFineTuning
from graftwork.methods import distillation as lessons
from graftwork.methods.distillation import answers_of, hidden_losses, relation_losses, soft_losses, spread
from graftwork.model import TransferModel
from graftwork.modifiers import Mixup
from graftwork.tasks import Classification, Tagging
from graftwork.testing import method_checks, suited_to_tiny_networks, tiny_model

LABELS = ("food", "sport", "travel")
TAGS = ("O", "B-LOC", "B-PER", "I-LOC")


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """Saved models with random heads: `teachers(width=48, labels=...)`; equal ones for equal arguments."""
    root = tmp_path_factory.mktemp("teachers")

    def make(*, width=32, labels=LABELS, kind="classification", seed=5, positions=64):
        folder = root / f"{width}-{'-'.join(labels)}-{kind}-{seed}-{positions}"
        if not folder.exists():
            base = tiny_model(root / "base" / folder.name, seed=seed, hidden_size=width,
                              max_position_embeddings=positions)  # fmt: skip
            several = kind == "multi-label"
            task = Tagging(labels=labels) if kind == "tagging" else Classification(labels=labels, multi_label=several)
            torch.manual_seed(seed)
            teacher = TransferModel.pretrained(base, task)
            with torch.no_grad():
                teacher.head.linear.weight.normal_(std=0.3)
            teacher.save(folder)
        return folder

    return make


@pytest.fixture
def begun(staged):
    """A stage up to its first step, without dropout: the stage and its objective."""

    def make(kind="classification", folder=None, **fields):
        method = suited_to_tiny_networks(Distillation, **{"dropout": 0.0, "label_smoothing": 0.0} | fields)
        s = staged(method, kind=kind, **({"folder": folder} if folder else {}))
        torch.manual_seed(0)
        method.prepare(s.model, s.train)
        weights = [p for g in method.param_groups(s.model) for p in g.parameters]
        s.objective = method.objective(s.model, s.train, weights)
        s.model.eval()
        return s

    return make


# --- the equations, by hand ---


def test_soft_losses_are_those_of_hinton():
    generator = torch.Generator().manual_seed(0)
    z, v = torch.randn(2, 5, 4, generator=generator).double().unbind()
    found = soft_losses(z, v.unsqueeze(1), 3.0)
    for row in range(5):
        p, q = (np.exp(np.asarray(x[row]) / 3) / np.exp(np.asarray(x[row]) / 3).sum() for x in (v, z))
        assert found[row].item() == pytest.approx(9 * (p * np.log(p / q)).sum(), rel=1e-5)


def test_at_a_high_temperature_logits_are_matched():
    """Hinton et al. 2015, eq. 4: for logits with mean 0 the gradient tends to (z - v) / N, the T^2 taken in."""
    z, v = (x - x.mean() for x in torch.randn(2, 6, generator=torch.Generator().manual_seed(1)).unbind())
    z = z.clone().requires_grad_()
    soft_losses(z.unsqueeze(0), v.view(1, 1, 6), 200.0).sum().backward()
    torch.testing.assert_close(z.grad, (z - v).detach() / 6, atol=5e-3, rtol=0)


def test_of_several_labels_each_is_a_yes_or_no():
    z, v = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(2)).unbind()
    p, q = torch.sigmoid(v / 2).double(), torch.sigmoid(z / 2).double()
    by_hand = 4 * (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum(dim=1)
    torch.testing.assert_close(soft_losses(z, v.unsqueeze(1), 2.0, several=True), by_hand.float(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("several", [False, True])
def test_teachers_are_averaged_in_probability(several):
    v = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(3))
    mean = (torch.sigmoid(v / 2) if several else (v / 2).softmax(dim=-1)).mean(dim=1)
    agreed = 2 * (torch.logit(mean) if several else mean.log())
    z = torch.randn(5, 4, generator=torch.Generator().manual_seed(4))
    together = soft_losses(z, v, 2.0, several=several)
    as_one = soft_losses(z, agreed.unsqueeze(1), 2.0, several=several)
    torch.testing.assert_close(together, as_one, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(soft_losses(agreed, v, 2.0, several=several), torch.zeros(5), atol=1e-5, rtol=0)


def some_states(depth, width, seed):
    return list(torch.randn(depth, 2, 5, width, generator=torch.Generator().manual_seed(seed)).unbind())


MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]).bool()


def test_hidden_losses_are_tinyberts_over_tokens_alone():
    ours, theirs = some_states(3, 4, 0), some_states(7, 6, 1)  # 2 blocks learn from 6
    torch.manual_seed(0)
    embeddings, states = torch.nn.Linear(4, 6, bias=False), torch.nn.Linear(4, 6, bias=False)
    found = hidden_losses(ours, theirs, MASK, embeddings=embeddings, states=states)
    for row, length in enumerate([5, 3]):
        pairs = [(ours[0] @ embeddings.weight.T, theirs[0])]
        pairs += [(ours[1] @ states.weight.T, theirs[3]), (ours[2] @ states.weight.T, theirs[6])]  # g(m) = 3 m
        by_hand = sum(F.mse_loss(our[row, :length], their[row, :length]) for our, their in pairs)
        torch.testing.assert_close(found[row], by_hand)


def test_relation_losses_are_the_kl_of_every_tokens_relations():
    ours, theirs = some_states(1, 8, 0)[0], some_states(1, 12, 1)[0]
    found = relation_losses(ours, theirs, MASK, heads=4)
    for row, length in enumerate([5, 3]):
        total = 0.0
        for head in range(4):
            h, g = ours[row, :length, 2 * head : 2 * head + 2], theirs[row, :length, 3 * head : 3 * head + 3]
            r, told = (h @ h.T / 2**0.5).softmax(dim=-1), (g @ g.T / 3**0.5).softmax(dim=-1)
            total += (told * (told / r).log()).sum().item() / (4 * length)
        assert found[row].item() == pytest.approx(total, rel=1e-4)


def test_the_whole_loss_is_the_weighted_sum_of_its_parts(begun, teachers):
    folder = teachers(width=48)
    s = begun(teachers=folder, weight=0.3, temperature=2.0, hidden=0.5, relations=0.25)
    batch = s.train.batch(np.arange(7))
    teacher = TransferModel.load(folder)
    with torch.no_grad():
        logits = s.model(batch.inputs)
        ours = s.model.encoder(**batch.inputs, output_hidden_states=True).hidden_states
        theirs = teacher.encoder(**batch.inputs, output_hidden_states=True).hidden_states
        lesson, mask = s.model.lesson, batch.inputs["attention_mask"].bool()
        hidden = hidden_losses(ours, theirs, mask, embeddings=lesson.embeddings, states=lesson.states)
        by_hand = (
            0.7 * F.cross_entropy(logits, batch.targets)
            + 0.3 * soft_losses(logits, teacher(batch.inputs).unsqueeze(1), 2.0).mean()
            + 0.5 * hidden.mean()
            + 0.25 * relation_losses(ours[-1], theirs[-1], mask, 8).mean()
        )
        torch.testing.assert_close(s.objective.loss(batch), by_hand)


@pytest.mark.parametrize("kind", ["classification", "multi-label", "tagging"])
def test_who_says_and_sees_what_the_teacher_does_has_nothing_to_learn(begun, teachers, kind):
    labels = TAGS if kind == "tagging" else LABELS
    folder = teachers(kind=kind, labels=labels)
    s = begun(kind, folder=folder, teachers=[folder, folder], weight=1, hidden=1, relations=1)
    s.model.head.load_state_dict(TransferModel.load(folder).head.state_dict())
    assert s.model.task.labels == labels
    loss = s.objective.loss(s.train.batch(np.arange(9)))
    loss.backward()
    assert abs(loss.item()) < 1e-6
    assert max(p.grad.abs().max().item() for p in s.model.encoder.parameters() if p.grad is not None) < 1e-4


def test_at_weight_0_it_is_full_fine_tuning_to_the_bit(staged, every_step_is_told):
    runs = [staged(suited_to_tiny_networks(Distillation, weight=0)), staged(suited_to_tiny_networks(FullFineTuning))]
    for run in runs:
        run.run()
        run.stage.method.finish(run.model, run.train)
    assert runs[0].losses == runs[1].losses
    ours, theirs = (run.model.state_dict() for run in runs)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("kind", ["classification", "multi-label", "tagging"])
def test_a_batch_read_in_parts_has_the_loss_of_the_whole(begun, teachers, kind):
    folder = teachers(kind=kind, labels=TAGS if kind == "tagging" else LABELS)
    s = begun(kind, teachers=folder, weight=0.5, hidden=1, relations=1)
    places = np.arange(12)
    whole = s.objective.loss(s.train.batch(places))
    total = s.train.weight(places)
    parts = (places[:5], places[5:9], places[9:])
    split = sum(s.objective.loss(s.train.batch(p)) * (s.train.weight(p) / total) for p in parts)
    torch.testing.assert_close(split, whole)


def test_mixup_blends_the_teachers_answers_as_it_blends_the_texts(begun, teachers):
    folder = teachers()
    s = begun(teachers=folder, weight=1, modifiers=[Mixup(alpha=1.0)])
    batch = s.train.batch(np.arange(8))
    torch.manual_seed(7)
    found = s.objective.loss(batch)
    (effect,) = s.objective.effects
    torch.manual_seed(7)
    own, partner = effect._pairs(torch.zeros(8))
    assert (partner != torch.arange(8)).any()
    answers = TransferModel.load(folder)(batch.inputs).detach().unsqueeze(1)
    logits = s.model.head(effect.embeddings(s.model.embed(batch.inputs)))
    by_hand = own * soft_losses(logits, answers, 2.0) + (1 - own) * soft_losses(logits, answers[partner], 2.0)
    torch.testing.assert_close(found, by_hand.mean())


# --- what the teachers say ---


def test_labels_are_matched_by_name_whatever_their_order(begun, teachers, tmp_path):
    folder = teachers()
    swapped = TransferModel.load(folder)
    swapped.task = Classification(labels=("travel", "food", "sport"))
    with torch.no_grad():
        for parameter in (swapped.head.linear.weight, swapped.head.linear.bias):
            parameter.copy_(parameter[[2, 0, 1]])
    swapped.save(tmp_path / "swapped")
    losses = []
    for teacher in (folder, tmp_path / "swapped"):
        s = begun(teachers=teacher, weight=1)
        losses.append(s.objective.loss(s.train.batch(np.arange(9))))
    torch.testing.assert_close(losses[0], losses[1])


@pytest.mark.parametrize("kind", ["classification", "tagging"])
def test_answers_are_the_teachers_own_in_the_order_of_train(begun, teachers, kind):
    folder = teachers(kind=kind, labels=TAGS if kind == "tagging" else LABELS)
    s = begun(kind, teachers=folder)
    teacher = TransferModel.load(folder)
    inputs = s.data["train"].inputs()
    expected = np.concatenate([np.atleast_2d(answer) for answer in teacher.outputs(inputs)])
    np.testing.assert_allclose(answers_of(teacher, s.train), expected, atol=1e-5)


def test_a_teacher_is_asked_once_and_another_one_again(begun, teachers, monkeypatch):
    asked = []
    write = lessons._write_answers
    monkeypatch.setattr(lessons, "_write_answers", lambda *given: asked.append(1) or write(*given))
    for seed, temperature in [(61, 1.0), (61, 4.0), (62, 4.0)]:
        begun(teachers=teachers(seed=seed), temperature=temperature)
    assert len(asked) == 2


def test_a_student_without_teachers_learns_from_itself_as_it_was(begun):
    s = begun(weight=1)
    places = np.arange(9)
    before = s.objective.loss(s.train.batch(places))
    assert before < 0.05  # the probe that it starts from, and the one that teaches, were fitted alike
    with torch.no_grad():
        for parameter in s.model.encoder.parameters():
            parameter.mul_(0.5)
    assert s.objective.loss(s.train.batch(places)) > 10 * before


# --- what the student is made of ---


@pytest.mark.parametrize(
    ("count", "kept", "places"), [(12, 4, (0, 4, 7, 11)), (6, 3, (0, 2, 5)), (3, 3, (0, 1, 2)), (3, 1, (0,))]
)
def test_blocks_are_kept_evenly_spaced(count, kept, places):
    assert spread(count, kept) == places


@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert", "gpt2"])
@torch.no_grad()
def test_blocks_that_are_kept_follow_one_another_and_load_again(models, tmp_path, architecture):
    network = AutoModel.from_pretrained(models(architecture)).eval()
    inputs = {"input_ids": torch.arange(4, 14).view(2, 5), "attention_mask": torch.ones(2, 5, dtype=torch.long)}
    direct = copy.deepcopy(network)
    kept = [layers.stacks(network)[0][1][place] for place in (0, 2)]
    layers.keep_blocks(network, (0, 2))
    assert list(layers.stacks(network)[0][1]) == kept
    with layers.running_above(direct, 2) as above:  # block 2 on what block 0 gives
        skipped = above(layers.run_below(AutoModel.from_pretrained(models(architecture)).eval(), 1, **inputs), **inputs)
    torch.testing.assert_close(network(**inputs).last_hidden_state, skipped)
    network.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path).eval()
    assert torch.equal(again(**inputs).last_hidden_state, network(**inputs).last_hidden_state)


@pytest.mark.parametrize(("asked", "places"), [(2, (0, 2)), ((1, 2), (1, 2))])
def test_the_student_begins_with_the_teachers_blocks(begun, teachers, asked, places):
    folder = teachers(width=48)
    s = begun(teachers=folder, layers=asked)
    assert s.model.width == 48
    assert s.model.encoder.config.num_hidden_layers == 2
    theirs = layers.stacks(TransferModel.load(folder).encoder)[0][1]
    for block, place in zip(layers.stacks(s.model.encoder)[0][1], places, strict=True):
        for ours, other in zip(block.parameters(), theirs[place].parameters(), strict=True):
            assert torch.equal(ours, other)
    assert s.model.head(s.model.embed(s.train.batch(np.arange(2)).inputs)).shape == (2, 3)
    s.objective.loss(s.train.batch(np.arange(4))).backward()


def test_a_fine_tuned_model_is_made_smaller_by_a_second_stage(sources, tmp_path, tiny, quick):
    recipe = [
        suited_to_tiny_networks(FullFineTuning),
        suited_to_tiny_networks(Distillation, layers=2, hidden=0.1, weight=0.9),
    ]
    run = fit(
        sources["classification"], model=tiny, method=recipe, budget="60steps", out=tmp_path / "run", hardware=quick
    )
    model = TransferModel.load(run.path / "model")
    assert layers.block_count(model.encoder) == 2
    assert run.metrics["validation"]["accuracy"] > 0.9


def test_a_finished_run_can_teach(sources, tmp_path, tiny, quick):
    asked = {"model": tiny, "budget": "30steps", "hardware": quick}
    teacher = fit(sources["tagging"], method=suited_to_tiny_networks(FullFineTuning), out=tmp_path / "teacher", **asked)
    method = suited_to_tiny_networks(Distillation, teachers=[teacher.path], weight=1)
    run = fit(sources["tagging"], method=method, out=tmp_path / "student", **asked)
    again = recipe_of(json.loads(json.dumps(run.asked["method"])))
    assert again == (method,)
    assert run.metrics["validation"]["token_accuracy"] > 0.8


def configured(width, root, **fields):
    """A method whose teacher is `width` wide."""
    folder = root / f"teacher-{width}"
    if not folder.exists():
        model = TransferModel.pretrained(
            tiny_model(root / f"base-{width}", hidden_size=width), Classification(labels=LABELS)
        )
        model.save(folder)
    return suited_to_tiny_networks(Distillation, teachers=[folder], **fields)


@pytest.mark.parametrize(
    ("width", "fields"),
    [
        (32, {"layers": 2, "hidden": 0.1, "relations": 0.1, "weight": 0.1}),
        (48, {"hidden": 0.1, "weight": 0.1}),  # with projections
    ],
)  # fmt: skip
def test_keeps_the_contract_with_a_teacher_and_every_loss(tmp_path, width, fields):
    wanted = {"moves_only_what_it_says", "hands_back_the_plain_model", "loads_as_it_was_saved",
              "groups_every_parameter_once", "keeps_frozen_parts_in_eval_mode", "resumes_to_the_same_bits"}  # fmt: skip
    method = configured(width, tmp_path, **fields)
    assert isinstance(method, Method)
    checks = {name: check for name, check in method_checks(method) if name in wanted}
    assert checks.keys() == wanted
    for check in checks.values():
        check()


# --- what cannot be ---


def test_a_teacher_that_is_not_there_is_told_before_anything_runs(tmp_path):
    with pytest.raises(InputError, match="is no finished run and no saved model"):
        recipe_of({"distillation": {"teachers": str(tmp_path / "nothing")}})


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"labels": ("food", "sport", "weather")}, r"other labels than the data: \['travel', 'weather'\]"),
        ({"kind": "multi-label"}, "another kind of task"),
    ],
)
def test_a_teacher_that_answers_or_reads_something_else_is_refused(begun, teachers, given, sentence):
    with pytest.raises(InputError, match=sentence):
        begun(teachers=teachers(**given))


@pytest.fixture
def foreign(tmp_path):
    """A teacher of another architecture, whose tokenizer gives other ids."""

    def make(kind="classification"):
        task = Tagging(labels=TAGS) if kind == "tagging" else Classification(labels=LABELS)
        torch.manual_seed(9)
        teacher = TransferModel.pretrained(tiny_model(tmp_path / "roberta", "roberta", seed=9), task)
        teacher.save(tmp_path / "foreign")
        return tmp_path / "foreign"

    return make


@pytest.mark.parametrize("kind", ["classification", "tagging"])
def test_a_teacher_reads_with_its_own_tokenizer(begun, foreign, kind):
    folder = foreign(kind)
    s = begun(kind, teachers=folder, weight=1)
    teacher = TransferModel.load(folder)
    assert teacher.modality.digest != s.model.modality.digest
    rows = np.array([7, 2, 11])
    answers = teacher.outputs(s.data["train"].inputs(rows))
    batch = s.train.batch(rows)
    logits, _ = s.model.task.asked(s.model(batch.inputs), batch.targets)
    told = torch.tensor(np.concatenate([np.atleast_2d(answer) for answer in answers])).unsqueeze(1)
    torch.testing.assert_close(s.objective.loss(batch), soft_losses(logits, told, 2.0).mean())


@pytest.mark.parametrize("fields", [{"layers": 2}, {"hidden": 1}, {"relations": 1}])
def test_states_and_layers_of_a_teacher_with_another_tokenizer_are_refused(begun, foreign, fields):
    with pytest.raises(InputError, match="another tokenizer than the student, or reads fewer tokens"):
        begun(teachers=foreign(), **fields)


def test_layers_of_a_teacher_that_reads_fewer_tokens_are_refused(begun, teachers):
    with pytest.raises(InputError, match="reads fewer tokens"):
        begun(teachers=teachers(positions=32), layers=2)


@pytest.mark.parametrize("asked", [4, (0, 3)])
def test_more_blocks_than_the_teacher_has_cannot_be_kept(begun, asked):
    with pytest.raises(InputError, match=r"which has 3 blocks \(0 to 2\)"):
        begun(layers=asked)


@pytest.mark.parametrize("asked", [0, (), (1, 1), (2, 0), (-1, 0)])
def test_layers_that_name_no_student_are_refused(asked):
    with pytest.raises(InputError, match="'layers' of Distillation"):
        recipe_of({"distillation": {"layers": asked}})


def test_relation_heads_must_divide_the_widths(begun):
    with pytest.raises(InputError, match="must divide the widths of student and teacher, 32 and 32"):
        begun(relations=1, relation_heads=5)
