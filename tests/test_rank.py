"""Encoders and layers are ranked by what they know of the data, on train alone."""

from __future__ import annotations

import pytest

from graftwork.choice import InputError
from graftwork.data import Data
from graftwork.rank import rank
from graftwork.transferability import SCORES


def test_every_layer_is_scored_by_every_score_the_best_first(sources, tiny, quick):
    found = rank(sources["classification"], models=[tiny], layers=True, hardware=quick)
    assert {each.layer for each in found} == {"0", "1", "2", "3", "average"}
    assert all(set(each.scores) == set(SCORES) for each in found)
    probes = [each.scores["probe"] for each in found]
    assert probes == sorted(probes, reverse=True)


def test_the_last_layer_is_what_a_probe_reads(sources, tiny, quick):
    import numpy as np

    from graftwork.examples import tokenised
    from graftwork.features import embeddings
    from graftwork.model import TransferModel
    from graftwork.tasks import task_of

    data = Data.load(sources["classification"])
    [found] = rank(data, models=[tiny], hardware=quick)
    assert found.layer == "last"
    model = TransferModel.pretrained(tiny, task_of(data))
    train = tokenised(data.some(2000, 1), "train", model.task, model.modality)
    for name, score in SCORES.items():
        expected = score(embeddings(model, train), np.asarray(train.targets))
        assert found.scores[name] == pytest.approx(expected, abs=0.02)


def test_several_models_stand_in_one_list(sources, models, quick):
    found = rank(sources["classification"], models=[models("bert"), models("roberta")], hardware=quick)
    assert {each.model for each in found} == {str(models("bert")), str(models("roberta"))}


@pytest.mark.parametrize("kind", ["multi-label", "tagging"])
def test_what_has_no_single_class_is_refused(sources, tiny, kind):
    with pytest.raises(InputError, match="one class"):
        rank(sources[kind], models=[tiny])
