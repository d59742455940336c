"""A model in pieces answers as the whole one: in several files, partly on disk, spread over processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel

from graftwork.choice import InputError
from graftwork.fit import predict
from graftwork.loop import train
from graftwork.methods import GradualUnfreezing
from graftwork.model import TransferModel
from graftwork.plan import BYTES, advice, plan, where
from graftwork.shapes import bytes_of
from graftwork.tasks import Classification
from graftwork.testing import learnable, tiny_model

TEXTS = ["the old house", "we saw anna", "river " * 40]


@pytest.fixture(scope="module")
def model(tiny):
    torch.manual_seed(0)
    return TransferModel.pretrained(tiny, Classification(labels=("a", "b", "c"))).eval()


def equal(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one.outputs(TEXTS), other.outputs(TEXTS), strict=True))


# --- files ---


@pytest.mark.parametrize("storage", ["fp32", "int8"])
def test_files_of_a_bounded_size_with_an_index_are_the_model(model, tmp_path, storage):
    import copy

    stored = copy.deepcopy(model)
    stored.storage = storage
    stored.save(tmp_path, shard="20KB")
    name = "model" if storage == "fp32" else "encoder"
    files = sorted(tmp_path.glob(f"{name}-*.safetensors"))
    assert len(files) > 1
    assert not (tmp_path / f"{name}.safetensors").exists()
    index = json.loads((tmp_path / f"{name}.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == {file.name for file in files}
    once = TransferModel.load(tmp_path)
    if storage == "fp32":
        assert all(file.stat().st_size < 22_000 for file in files)
        assert equal(once, model)
        plain = AutoModel.from_pretrained(tmp_path, local_files_only=True)
        assert torch.equal(
            plain.state_dict()["embeddings.word_embeddings.weight"], once.encoder.get_input_embeddings().weight
        )
    stored.save(tmp_path)
    assert not list(tmp_path.glob(f"{name}-*"))
    assert not list(tmp_path.glob("*.index.json"))
    assert equal(TransferModel.load(tmp_path), once)


def test_a_missing_piece_is_named(model, tmp_path):
    model.save(tmp_path, shard="20KB")
    sorted(tmp_path.glob("model-*.safetensors"))[1].unlink()
    with pytest.raises(InputError, match=r"it has no model-00002-of-\d+.safetensors"):
        TransferModel.load(tmp_path)


@pytest.mark.parametrize("size", ["", "500", "MB", "-1MB", "5 apples", "0MB"])
def test_what_is_no_size_is_refused(model, tmp_path, size):
    with pytest.raises(InputError, match=r"is no size\. Give one such as 500MB"):
        bytes_of(size)
    assert bytes_of("1.5gb") == 1_500_000_000


# --- on disk ---


def test_layers_that_wait_on_disk_answer_the_same(model, tmp_path):
    model.save(tmp_path)
    waiting = TransferModel.load(tmp_path, memory="40KB")
    assert "disk" in set(waiting.encoder.hf_device_map.values())
    assert any(p.device.type == "meta" for p in waiting.parameters())
    assert equal(waiting, model)
    assert predict(tmp_path, TEXTS, memory="40KB") == predict(tmp_path, TEXTS)


def test_a_model_of_a_form_of_our_own_cannot_wait_on_disk(model, tmp_path):
    import copy

    stored = copy.deepcopy(model)
    stored.storage = "int8"
    stored.save(tmp_path)
    with pytest.raises(InputError, match=r"cannot wait on disk\. Leave --memory out"):
        TransferModel.load(tmp_path, memory="1MB")


MEASURED = """
import json, sys
import numpy as np
from graftwork.hardware import peak_memory_mb, reset_peak_memory
from graftwork.model import TransferModel

tiny, folder, memory = sys.argv[1:]
TransferModel.load(tiny, memory="40KB").outputs(["warm"])  # whatever is imported on the way is there
reset_peak_memory()
before = peak_memory_mb()
found = TransferModel.load(folder, memory=memory or None).outputs(["the old house"])[0]
print(json.dumps([peak_memory_mb() - before, found.tolist()]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux measures a peak anew")
def test_a_model_larger_than_the_memory_it_is_given_answers(model, tmp_path):
    model.save(tmp_path / "tiny")
    wide = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072, "num_hidden_layers": 8}
    large = TransferModel.pretrained(tiny_model(tmp_path / "base", **wide), model.task)
    large.save(tmp_path / "large", shard="50MB")
    size = sum(p.numel() * 4 for p in large.parameters()) / 1e6

    def run(memory):
        words = [sys.executable, "-c", MEASURED, tmp_path / "tiny", tmp_path / "large", memory]
        return json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()[-1])

    (whole, _), (waiting, found) = run(""), run("60MB")
    assert size > 220
    assert whole > 0.9 * size
    assert waiting < 0.6 * size
    np.testing.assert_allclose(found, large.outputs(["the old house"])[0], atol=1e-5)


# --- over processes ---

SPREAD = """
import sys
import numpy as np, torch
from graftwork.model import TransferModel
from graftwork.sharding import spread

model = TransferModel.load(sys.argv[1])
whole = model.outputs(sys.argv[3:])
spread(model, model.encoder, torch.device("cpu"))
held = sum(p.to_local().numel() for p in model.parameters()) / sum(p.numel() for p in model.parameters())
rank = torch.distributed.get_rank()
np.savez(f"{sys.argv[2]}/{rank}.npz", held=held, whole=np.stack(whole), found=np.stack(model.outputs(sys.argv[3:])))
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_hold_half_each_and_answer_the_same(model, tmp_path):
    model.save(tmp_path / "model")
    (tmp_path / "spread.py").write_text(SPREAD)
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", tmp_path / "spread.py"]
    subprocess.run([sys.executable, *words, tmp_path / "model", tmp_path, *TEXTS], check=True, timeout=300)
    for rank in (0, 1):
        told = np.load(tmp_path / f"{rank}.npz")
        assert 0.4 < told["held"] < 0.6
        np.testing.assert_array_equal(told["found"], told["whole"])


SHARED = """
import faulthandler, json, os, signal, sys
import torch
from graftwork import loop
from graftwork.hardware import World
from graftwork.model import TransferModel
from graftwork.pretrain import pretrain, resume
from graftwork.sharding import own, spread_blocks
from graftwork.work import Interrupted

faulthandler.dump_traceback_later(200, exit=True)  # a process that hangs says where
loop._REPORT_SECONDS = -1.0
model, corpus, out, shared = *sys.argv[1:4], sys.argv[4] == "shared"
told = {}
if shared:
    blocks = TransferModel.load(model).encoder.encoder
    before = [p.detach().clone() for p in blocks.parameters()]
    with spread_blocks(blocks, World(torch.device("cpu"))):
        told["held"] = sum(own(p).numel() for p in blocks.parameters()) / sum(b.numel() for b in before)
    told["whole"] = all(torch.equal(a, b) for a, b in zip(blocks.parameters(), before))

def stop_once(event):
    if event["event"] == "step" and event["step"] == 3 and shared:
        os.kill(os.getpid(), signal.SIGTERM)

hardware = {"device": "cpu", "precision": "fp32", "max_tokens": 64, "sharded": shared}
try:
    run = pretrain(
        corpus, size="tiny", pieces=300, length=16, budget="6steps", batch_size=10, out=out, hardware=hardware,
        on_event=stop_once,
    )
except Interrupted:
    told["stopped"] = True
    run = resume(out)
told["loss"] = run.metrics["validation"]["loss"]
told["losses"] = [e["loss"] for e in run.events() if e["event"] == "step"]
open(f"{out}/told-{os.environ.get('RANK', '0')}.json", "w").write(json.dumps(told))
"""


@pytest.mark.slow
def test_two_processes_that_share_the_blocks_learn_what_one_learns(model, tmp_path):
    """Also when they were interrupted; and a batch may fall into a number of parts that the processes cannot halve."""
    model.save(tmp_path / "model")
    (tmp_path / "corpus").mkdir()
    lines = [" ".join(row["text"] for row in rows) for rows in learnable("classification").values()]
    (tmp_path / "corpus" / "train.txt").write_text(lines[0])
    (tmp_path / "corpus" / "validation.txt").write_text(lines[1])
    (tmp_path / "script.py").write_text(SHARED)
    launch = {"one": [], "two": ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]}
    for out, words in launch.items():
        given = [tmp_path / "model", tmp_path / "corpus", tmp_path / out, "shared" if words else "alone"]
        subprocess.run([sys.executable, *words, tmp_path / "script.py", *given], check=True, timeout=300)
    one, first, second = (
        json.loads((tmp_path / place).read_text())
        for place in ("one/told-0.json", "two/told-0.json", "two/told-1.json")
    )
    for two in (first, second):
        assert 0.45 < two["held"] < 0.55
        assert two["whole"]
        assert two["stopped"]
        np.testing.assert_allclose(two["losses"], one["losses"], atol=1e-5)
        assert two["loss"] == pytest.approx(one["loss"], abs=1e-5)


def test_a_method_that_changes_what_trains_is_not_shared(staged, monkeypatch):
    work = staged(GradualUnfreezing())
    monkeypatch.setattr(work.stage.world, "size", 2)
    work.stage.hardware = work.stage.hardware.model_copy(update={"sharded": True})
    with pytest.raises(InputError, match="gradual-unfreezing changes on its way what trains"):
        train(work.model, work.train, work.validation, work.stage)


def test_memory_and_processes_do_not_go_together(model, tmp_path, monkeypatch):
    model.save(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="Either --memory, for one process, or torchrun"):
        predict(tmp_path, TEXTS, memory="1MB")


# --- the plan ---


def test_a_plan_counts_parameters_without_reading_them(models):
    told = plan(models("bert"))
    assert told.parameters == sum(p.numel() for p in AutoModel.from_pretrained(models("bert")).parameters())
    passing = 4 * 8192 * (2 * 64 + 6 * 32)
    assert told.needs == {name: round((told.parameters * each + passing) / 1e9, 3) for name, each in BYTES.items()}
    assert told.advice == "It fits in fp32: nothing is to be done." or told.gpus


@pytest.mark.parametrize(
    ("need", "memory", "gpus", "place"),
    [
        (14.0, 64.0, (24.0, 24.0), "on one GPU"),
        (28.0, 64.0, (24.0, 24.0), "split over 2 GPUs"),
        (28.0, 64.0, (24.0, 2.0), "in memory"),
        (28.0, 64.0, (), "in memory"),
        (70.0, 64.0, (24.0, 24.0), "on disk, read layer by layer"),
    ],
)
def test_where_a_model_fits(need, memory, gpus, place):
    assert where(need, memory, gpus) == place
    said = advice({"fp32": place}, memory, gpus)
    assert ("nothing is to be done" in said) == (place == "on one GPU" or (place == "in memory" and not gpus))
    assert ("torchrun --nproc-per-node 2" in said) == place.startswith("split")
    assert ("--memory 32.0GB" in said) == place.startswith("on disk")


def test_the_command_line_plans(tiny, typed, capsys):
    assert typed("plan", tiny, "--json") == 0
    assert json.loads(capsys.readouterr().out)["parameters"] == plan(tiny).parameters
    assert typed("plan", tiny) == 0
    assert "to answer" in capsys.readouterr().out
