"""Model folders that are damaged, mixed up or made to harm: each is refused in a sentence, and none runs anything."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from graftwork.choice import InputError
from graftwork.model import TransferModel
from graftwork.models import EMBEDDED, _embedded, resolve
from graftwork.tasks import Classification

NAMES = ("a", "b", "c")


class Harm:
    """A pickle that tells when it was read."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


@pytest.fixture(scope="module")
def saved(tiny, tmp_path_factory):
    """A model as graftwork saves it."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    TransferModel.pretrained(tiny, Classification(labels=NAMES)).save(folder)
    return folder


def says(name="config.json", **changes):
    """Let a file of JSON say something else."""

    def change(folder: Path) -> None:
        told = json.loads((folder / name).read_text()) | changes
        (folder / name).write_text(json.dumps(told))

    return change


def cut(name, by=50):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-by])


def written(name, what):
    return lambda folder: (folder / name).write_bytes(what)


def without(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


def one_bit(folder: Path) -> None:
    whole = bytearray((folder / "model.safetensors").read_bytes())
    whole[-3] ^= 1
    (folder / "model.safetensors").write_bytes(whole)


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(Harm(folder / "harmed"), folder / "pytorch_model.bin")


def pickle_in_disguise(folder: Path) -> None:
    torch.save(Harm(folder / "harmed"), folder / "model.safetensors")


def code_beside(folder: Path) -> None:
    says(model_type="own", auto_map={"AutoConfig": "own.Config", "AutoModel": "own.Model"})(folder)
    (folder / "own.py").write_text(f"open({str(folder / 'harmed')!r}, 'w')")


def permuted(folder: Path) -> None:
    task = json.loads((folder / "graft.json").read_text())["task"]
    task["classification"]["labels"].reverse()
    says("graft.json", task=task)(folder)


def other_shape(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["encoder.layer.1.output.dense.bias"] = torch.zeros(7)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def of_another_model(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"] |= {f"piece{i}": 1000 + i for i in range(50)}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


BASES = {
    "a pickle": (pickled, r"no \.safetensors weights; pickled ones are never read"),
    "a pickle in disguise": (pickle_in_disguise, "damaged or no safetensors file"),
    "code of its own": (code_beside, "cannot be loaded"),
    "weights cut short": (cut("model.safetensors"), "damaged or no safetensors file"),
    "weights of no bytes": (written("model.safetensors", b""), "damaged or no safetensors file"),
    "a header that lies": (written("model.safetensors", (2**62).to_bytes(8, "little") + b"{}"), "damaged or no"),
    "a shape that does not fit": (other_shape, "other shapes than its config.json says"),
    "a config of another width": (says(hidden_size=64), "other shapes than its config.json says"),
    "a config of more blocks": (says(num_hidden_layers=5), r"lack what its config.json speaks of: encoder.layer.3"),
    "a config of fewer blocks": (says(num_hidden_layers=2), "more than the 2 blocks of its config.json"),
    "a config to fill all memory": (says(num_hidden_layers=10**9), "1,000,000,000 blocks, and there are"),
    "a width that is no number": (says(hidden_size="wide"), "cannot be loaded"),
    "a width below 0": (says(hidden_size=-1), "cannot be loaded"),
    "an unknown architecture": (says(model_type="nonsense"), "cannot be loaded"),
    "a config that is no JSON": (written("config.json", b"{"), "config.json in .* is damaged"),
    "a config that is a list": (written("config.json", b"[]"), "holds no JSON object"),
    "no tokenizer": (without("tokenizer.json", "tokenizer_config.json"), "no tokenizer that can be read"),
    "a damaged tokenizer": (written("tokenizer.json", b"{"), "tokenizer.json in .* is damaged"),
    "damaged settings": (written("tokenizer_config.json", b"{"), "tokenizer_config.json in .* is damaged"),
    "the tokenizer of another model": (of_another_model, "They are not of one model"),
}


@pytest.mark.parametrize("how", BASES)
def test_a_pretrained_folder_is_refused(tiny, tmp_path, how):
    folder = shutil.copytree(tiny, tmp_path / "model")
    harm, said = BASES[how]
    harm(folder)
    with pytest.raises(InputError, match=said) as refused:
        TransferModel.pretrained(resolve(folder), Classification(labels=NAMES))
    assert "\n" not in str(refused.value)
    assert not (folder / "harmed").exists()


SAVED = {
    "a pickle": (pickled, "it has no model.safetensors"),
    "a pickle in disguise": (pickle_in_disguise, "model.safetensors .* is not the file that was saved"),
    "one bit": (one_bit, "model.safetensors .* is not the file that was saved"),
    "weights cut short": (cut("model.safetensors"), "is not the file that was saved"),
    "no head": (without("head.safetensors"), "it has no head.safetensors"),
    "a head cut short": (cut("head.safetensors", 9), "head.safetensors .* is not the file that was saved"),
    "another activation": (says(hidden_act="relu"), "config.json .* is not the file that was saved"),
    "no tokenizer": (without("tokenizer.json"), "it has no tokenizer.json"),
    "another tokenizer": (of_another_model, "tokenizer.json .* is not the file that was saved"),
    "labels permuted": (permuted, r"labels .* are not those of its head, or in another order: .*'c', 'b', 'a'"),
    "a description that is empty": (written("graft.json", b"{}"), "graft.json in .* is damaged"),
    "a description that is a list": (written("graft.json", b"[]"), "holds no JSON object"),
    "a format that is no number": (says("graft.json", format="x"), "graft.json in .* is damaged"),
    "an unknown pooling": (says("graft.json", pooling="sum"), "it says {'pooling': 'sum'"),
    "no length": (says("graft.json", max_length="a"), "graft.json in .* is damaged"),
    "a decision of words": (says("graft.json", decision={"temperature": "hot"}), "graft.json in .* is damaged"),
    "an unknown storage": (says("graft.json", encoder={"storage": "int3"}), "graft.json in .* is damaged"),
}


@pytest.mark.parametrize("how", SAVED)
def test_a_saved_model_is_refused(saved, tmp_path, how):
    folder = shutil.copytree(saved, tmp_path / "model")
    harm, said = SAVED[how]
    harm(folder)
    with pytest.raises(InputError, match=said) as refused:
        TransferModel.load(folder)
    assert "\n" not in str(refused.value)
    assert not (folder / "harmed").exists()


def test_a_pickle_beside_the_weights_is_never_opened(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "model")
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt"):
        torch.save(Harm(folder / "harmed"), folder / name)
    TransferModel.load(folder)
    assert not (folder / "harmed").exists()


def test_a_model_saved_without_seals_is_still_read(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "model")
    told = json.loads((folder / "graft.json").read_text())
    assert set(told.pop("sha256")) == {
        "config.json", "head.safetensors", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    (folder / "graft.json").write_text(json.dumps(told))
    save_file(load_file(folder / "head.safetensors"), folder / "head.safetensors")
    assert TransferModel.load(folder).task.labels == NAMES


def test_an_embedded_model_of_other_weights_is_refused(monkeypatch):
    import dataclasses

    monkeypatch.setitem(EMBEDDED, "graft-mini", dataclasses.replace(EMBEDDED["graft-mini"], sha256="0" * 64))
    with pytest.raises(InputError, match="weights of 'graft-mini' are not the published ones"):
        _embedded.__wrapped__("graft-mini")


def test_the_command_line_refuses_in_one_sentence(saved, tmp_path, typed, capsys):
    folder = shutil.copytree(saved, tmp_path / "model")
    one_bit(folder)
    assert typed("predict", folder, "a goal") == 2
    said = capsys.readouterr()
    assert "is not the file that was saved" in " ".join(said.err.split())
    assert "Traceback" not in said.err + said.out
