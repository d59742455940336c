"""What a frozen part computes is computed once, and training from there gives the numbers of training from the text."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from graftwork import features, layers
from graftwork.examples import cache_folder
from graftwork.features import embeddings, frozen_prefix
from graftwork.methods import FullFineTuning, TopLayers

METHODS = [TopLayers(blocks=blocks, lr=5e-3, batch_size=16, dropout=0.1, head_start="random") for blocks in (0, 1, 2)]


@pytest.fixture(autouse=True)
def _empty_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("GRAFTWORK_CACHE", str(tmp_path / "cache"))


def kept():
    return sorted(f.parent for f in cache_folder().glob("features/*/features.json"))


@pytest.mark.parametrize("kind", ["classification", "tagging"])
@pytest.mark.parametrize("method", METHODS, ids=["head", "1 block", "2 blocks"])
@pytest.mark.usefixtures("every_step_is_told")
def test_losses_and_weights_are_those_without_it(staged, monkeypatch, method, kind):
    with_it = staged(method, kind=kind)
    with_it.run()
    assert len(kept()) == 2
    monkeypatch.setattr(features.layers, "has_single_stack", lambda _: False)
    without = staged(method, kind=kind)
    without.run()
    np.testing.assert_allclose(with_it.losses, without.losses, atol=1e-5)
    for (name, one), other in zip(with_it.model.state_dict().items(), without.model.state_dict().values(), strict=True):
        if name.endswith("key.bias"):
            continue  # the softmax does not see it: its gradient is rounding, which AdamW scales to full steps
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("architecture", ["roberta", "distilbert", "gpt2"])
@pytest.mark.usefixtures("every_step_is_told")
def test_losses_are_those_without_it_in_every_architecture(staged, models, monkeypatch, architecture):
    method = TopLayers(blocks=1, lr=5e-3, batch_size=16)
    with_it = staged(method, folder=models(architecture), steps=4)
    with_it.run()
    monkeypatch.setattr(features.layers, "has_single_stack", lambda _: False)
    without = staged(method, folder=models(architecture), steps=4)
    without.run()
    np.testing.assert_allclose(with_it.losses, without.losses, atol=1e-5)


def test_a_second_run_finds_what_the_first_computed(staged, monkeypatch):
    staged(METHODS[1]).run()
    before = kept()
    monkeypatch.setattr(features, "_compute", lambda *_: pytest.fail("computed again"))
    staged(METHODS[1].model_copy(update={"lr": 1e-3})).run()
    assert kept() == before


def test_other_weights_depth_or_precision_are_other_features(staged):
    s = staged(METHODS[1])
    s.stage.method.prepare(s.model, s.train)

    def name(precision="fp32"):
        with frozen_prefix(s.model, [s.train], precision=precision) as found:
            return found is not None and len(kept())

    assert [name(), name()] == [1, 1]
    assert name("bf16") == 2
    TopLayers(blocks=2, head_start="random").prepare(s.model, s.train)
    assert name() == 3
    next(s.model.encoder.parameters()).data[40] += 1
    assert name() == 4


def test_pooled_embeddings_depend_on_the_pooling(staged):
    s = staged(METHODS[0])
    mean = embeddings(s.model, s.train)
    s.model.pooling = "max"
    assert not np.allclose(mean, embeddings(s.model, s.train))


def test_embeddings_are_what_the_head_reads_and_leave_what_trains_alone(staged):
    s = staged(FullFineTuning(head_start="random"))
    s.model.encoder.embeddings.requires_grad_(False)
    trains = [p.requires_grad for p in s.model.encoder.parameters()]
    found = embeddings(s.model, s.train)
    assert [p.requires_grad for p in s.model.encoder.parameters()] == trains
    s.model.eval()
    with torch.no_grad():
        for place in (0, 7, 50):
            one = s.model.embed(s.train.batch(np.array([place])).inputs)[0]
            np.testing.assert_allclose(found[place], one.numpy(), atol=1e-5)


def test_nothing_is_kept_where_everything_trains_or_it_would_hardly_be_read(staged):
    s = staged(FullFineTuning(head_start="random"))
    with frozen_prefix(s.model, [s.train], precision="fp32") as found:
        assert found is None
    METHODS[1].prepare(s.model, s.train)
    with frozen_prefix(s.model, [s.train], precision="fp32", worthwhile=False) as found:
        assert found is None
    assert not kept()


def test_features_that_do_not_fit_are_recomputed_and_it_is_said(staged, monkeypatch, caplog):
    monkeypatch.setattr(features, "LIMIT_BYTES", 1000)
    s = staged(METHODS[1], steps=2)
    s.run()
    assert "they are recomputed instead" in caplog.text
    assert not kept()


def test_the_least_recently_used_features_go_first(staged, monkeypatch):
    import os

    s = staged(METHODS[1])
    sizes = []
    for blocks in (1, 2):
        TopLayers(blocks=blocks, head_start="random").prepare(s.model, s.train)
        with frozen_prefix(s.model, [s.train], precision="fp32"):
            pass
        sizes.append(kept())
    first = sizes[0][0]
    os.utime(first / "features.json", (1, 1))
    size = (first / "features.bin").stat().st_size
    monkeypatch.setattr(features, "LIMIT_BYTES", int(2.5 * size))
    with frozen_prefix(s.model, [s.train], precision="bf16"):
        pass
    assert first not in kept()
    assert len(kept()) == 2


def test_an_encoder_of_which_only_the_output_norm_trains_can_be_run(staged, models):
    s = staged(METHODS[1], folder=models("gpt2"))
    layers.train_only(s.model.encoder, layers.layer_groups(s.model.encoder)[-1:])
    batch = s.train.batch(np.arange(4))
    s.model.eval()
    with torch.no_grad(), frozen_prefix(s.model, [s.train], precision="fp32") as found:
        inputs = (found[0].into(batch) if found else batch).inputs
        logits = s.model(inputs)
    with torch.no_grad():
        torch.testing.assert_close(logits, s.model(batch.inputs), atol=1e-5, rtol=1e-5)


def test_what_a_head_starts_from_is_kept_for_other_seeds_and_methods(staged, monkeypatch):
    first, second = staged(FullFineTuning()), staged(TopLayers(blocks=1))
    first.stage.method.prepare(first.model, first.train)
    assert len(kept()) == 1
    monkeypatch.setattr(features, "_compute", lambda *_: pytest.fail("computed again"))
    second.stage.method.prepare(second.model, second.train)
