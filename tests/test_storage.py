"""Weights of few bits on disk: by hand, packed again to the same numbers, and as a step of compress."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import graftwork.compressors  # noqa: F401  puts the steps on their shelf
from graftwork.compressor import steps_of
from graftwork.model import TransferModel
from graftwork.shapes import GROUP, packed, unpacked
from graftwork.tasks import Classification


def test_four_bits_by_hand():
    row = torch.zeros(1, 40)
    row[0, :3] = torch.tensor([0.7, -0.32, 0.04])  # of 7 on either side: 7, -3, 0
    row[0, 39] = -2.0  # in the next group, on a scale of its own
    stored = packed({"w": row}, "int4")
    assert (stored["w"].dtype, tuple(stored["w"].shape)) == (torch.uint8, (1, 2 * GROUP // 2))
    assert stored["w"][0, 0] == (7 + 8) | (-3 + 8) << 4
    assert stored["w.scales"].dtype == torch.float16
    found = unpacked(stored)["w"]
    scale = float(torch.tensor(0.7).half())
    torch.testing.assert_close(found[0, :3], torch.tensor([scale, -3 / 7 * scale, 0.0]))
    assert (found[0, 39], found.shape) == (-2.0, row.shape)


@given(st.integers(1, 4), st.integers(1, 70), st.integers(0, 2**31), st.sampled_from(["int8", "int4"]))
def test_what_was_unpacked_packs_to_the_same_numbers(rows, columns, seed, storage):
    weights = {"w": torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)), "bias": torch.ones(3)}
    stored = packed(weights, storage)
    again = packed(unpacked(stored), storage)
    assert stored.keys() == again.keys()
    assert all(torch.equal(value, again[name]) for name, value in stored.items())
    step = 1 / 14 if storage == "int4" else 1 / 254
    assert (unpacked(stored)["w"] - weights["w"]).abs().max() <= weights["w"].abs().max() * (step + 1e-3)


@pytest.mark.parametrize(("name", "share"), [("int8", 1 / 4), ("int4", 4.5 / 32)])
def test_a_stored_model_is_loaded_as_it_was_rounded_and_takes_its_share(models, tmp_path, name, share):
    whole = TransferModel.pretrained(models("bert"), Classification(labels=("a", "b"))).eval()
    (step,) = steps_of(name)
    small = step.apply(whole, None)  # type: ignore[arg-type]  no rows are looked at
    small.save(tmp_path)
    loaded = TransferModel.load(tmp_path)
    assert loaded.storage == name
    assert all(torch.equal(w, loaded.state_dict()[k]) for k, w in small.state_dict().items())
    matrices = [w for w in whole.encoder.parameters() if w.ndim == 2]
    stored = packed(small.encoder.state_dict(), name)  # type: ignore[arg-type]
    bits = sum(stored[k].nbytes + sum(stored[k + e].nbytes for e in (".scales", ".largest") if k + e in stored)
               for k, w in small.encoder.named_parameters() if w.ndim == 2)  # fmt: skip
    assert share <= bits / sum(4 * w.numel() for w in matrices) < share * 1.2
