"""Pictures: how they are found and read, that what is right for texts holds for them, and what refuses them."""

from __future__ import annotations

import builtins
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from transformers import AutoImageProcessor, ViTModel

import graftwork.methods  # noqa: F401  puts every method on its shelf
from graftwork.augment import augment
from graftwork.check import check
from graftwork.choice import InputError, lookup, names, parse
from graftwork.compare import compare
from graftwork.compress import compress
from graftwork.data import Data, DataError
from graftwork.evaluate import outputs
from graftwork.examples import tokenised
from graftwork.export import export
from graftwork.features import frozen_prefix
from graftwork.fit import fit, predict
from graftwork.head import Head
from graftwork.layers import train_top
from graftwork.method import GradientMethod, Method
from graftwork.modalities import Image, Text, modality_in
from graftwork.model import TransferModel
from graftwork.picture import digest, pixels
from graftwork.search import search
from graftwork.shift import shift
from graftwork.tasks import task_of
from graftwork.testing import COLOURS, draw, tiny_vit

QUICK = {"device": "cpu", "precision": "fp32"}


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SPLIT/CLASS/NUMBER.png."""
    return draw(tmp_path_factory.mktemp("album") / "colours", {"train": 12, "validation": 6, "test": 6})


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_vit(tmp_path_factory.mktemp("vit") / "vit")


@pytest.fixture(scope="module")
def fitted(album: Path, vit: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("runs") / "fitted"
    return fit(album, model=vit, budget="12steps", out=out, hardware=QUICK)


def model_for(album: Path, vit: Path) -> tuple[TransferModel, Data]:
    data = Data.load(album)
    torch.manual_seed(0)
    return TransferModel.pretrained(vit, task_of(data)), data


def sizes(data: Data) -> dict[str, int]:
    return {name: len(split) for name, split in data.splits.items()}


# --- where they are ---


def test_folders_say_split_and_class(album: Path):
    data = Data.load(album)
    assert data.labels == tuple(sorted(COLOURS))
    assert sizes(data) == {"train": 36, "validation": 18, "test": 18}
    assert (data.reads, data.task) == ("image", "classification")
    for file, label in zip(data["test"].inputs(), data["test"].labels(), strict=True):
        assert Path(file).parent == (album / "test" / label).resolve()


def test_classes_alone_are_cut_as_a_lone_file_is(album: Path):
    data = Data.load(album / "train")
    assert sum(sizes(data).values()) == 36
    assert sizes(data)["test"] == sizes(data)["validation"] == 3
    assert "equal pictures kept together" in " ".join(data.said)


def test_equal_pictures_stay_on_one_side_of_a_cut(album: Path, tmp_path: Path):
    shutil.copytree(album / "train", tmp_path / "twins")
    for file in list((tmp_path / "twins").rglob("*.png")):
        shutil.copy(file, file.with_name(f"copy-{file.name}"))
    data = Data.load(tmp_path / "twins", validation=0.3)
    keys = {name: set(split.table["digest"].to_pylist()) for name, split in data.splits.items()}
    assert not keys["train"] & keys["validation"]
    assert sum(sizes(data).values()) == 72
    assert "duplicates" in {finding.code for finding in check(data).findings}
    assert Data.load(tmp_path / "twins", validation=0, test=0, drop=["duplicates"]).dropped["duplicates"] == 36


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_a_table_names_pictures_from_its_own_folder(album: Path, tmp_path: Path, ending: str):
    shutil.copytree(album, tmp_path / "all")
    for split in ("train", "validation", "test"):
        files = sorted((tmp_path / "all" / split).rglob("*.png"))
        rows = [{"kind": f.parent.name, "file": str(f.relative_to(tmp_path))} for f in files]
        lines = (
            ["kind,file", *(f"{r['kind']},{r['file']}" for r in rows)] if ending == ".csv" else map(json.dumps, rows)
        )
        (tmp_path / f"{split}{ending}").write_text("\n".join(lines) + "\n")
    data = Data.load(tmp_path, label="kind")
    assert sizes(data) == {"train": 36, "validation": 18, "test": 18}
    assert data.columns.text == "file"
    assert Path(data["train"].inputs([0])[0]).is_file()


def test_what_they_show_is_the_fingerprint_and_not_where_they_lie(album: Path, tmp_path: Path):
    shutil.copytree(album, tmp_path / "elsewhere")
    assert Data.load(tmp_path / "elsewhere").fingerprint == Data.load(album).fingerprint
    file = tmp_path / "elsewhere" / "train" / "red" / "3.png"
    Pillow.open(file).rotate(180).save(file)
    assert Data.load(tmp_path / "elsewhere").fingerprint != Data.load(album).fingerprint


def test_data_that_is_saved_opens_the_same(album: Path, tmp_path: Path):
    data = Data.load(album)
    opened = Data.open(data.save(tmp_path / "saved"))
    assert (opened.fingerprint, opened.reads) == (data.fingerprint, "image")


# --- what is wrong with them ---


def damaged(album: Path, folder: Path) -> Path:
    shutil.copytree(album, folder)
    whole = (folder / "train" / "red" / "0.png").read_bytes()
    (folder / "train" / "red" / "0.png").write_bytes(whole[: len(whole) // 2])
    (folder / "train" / "blue" / "1.png").write_text("no picture")
    return folder


def test_damaged_ones_are_named_and_nothing_is_trained(album: Path, vit: Path, tmp_path: Path):
    folder = damaged(album, tmp_path / "damaged")
    report = check(folder)
    (found,) = report.errors
    assert found.code == "damaged-picture"
    assert "2 pictures of train cannot be read" in found.message
    assert str(Path("red") / "0.png") in found.message
    with pytest.raises(DataError, match="--drop empty"):
        fit(folder, model=vit, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_damaged_ones_go_when_that_is_asked_for_and_are_counted(album: Path, tmp_path: Path):
    data = Data.load(damaged(album, tmp_path / "damaged"), drop=["empty"])
    assert len(data["train"]) == 34
    assert data.dropped["empty"] == 2


def test_pictures_beside_the_splits_are_told(album: Path, tmp_path: Path):
    shutil.copytree(album, tmp_path / "more")
    shutil.copy(album / "test" / "red" / "0.png", tmp_path / "more" / "cover.png")
    assert "unused-pictures" in {finding.code for finding in check(tmp_path / "more").findings}


def test_what_is_said_of_words_is_not_said_of_paths(album: Path):
    assert {finding.code for finding in check(album).findings} == {"small-test"}


def test_without_pillow_the_command_that_installs_it_is_told(album: Path, monkeypatch: pytest.MonkeyPatch):
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("PIL"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r'pip install "graftwork\[images\]"'):
        Data.load(album)


# --- pixels ---


def test_pixels_are_those_of_transformers(album: Path, vit: Path):
    file = album / "test" / "red" / "0.png"
    image = modality_in(vit)
    ((found, lost),) = image.read([str(file)])
    assert (found.shape, found.dtype, lost) == ((3, 16, 16), np.uint8, 0)
    theirs = AutoImageProcessor.from_pretrained(vit, use_fast=False)(Pillow.open(file), return_tensors="pt")
    assert torch.allclose(image.collate([found])["pixel_values"], theirs["pixel_values"], atol=1e-6)


def test_grey_and_transparent_pictures_are_read_in_colour(tmp_path: Path):
    Pillow.new("L", (5, 7), 77).save(tmp_path / "grey.png")
    Pillow.new("RGBA", (5, 7), (10, 20, 30, 0)).save(tmp_path / "clear.png")
    assert (pixels(tmp_path / "grey.png", 4) == 77).all()
    assert (pixels(tmp_path / "clear.png", 4) == 255).all()  # as on a white page


def test_a_picture_that_is_not_there_has_no_content(tmp_path: Path):
    assert digest(tmp_path / "none.png") == ""
    with pytest.raises(InputError, match=r"There is no picture '.*none\.png'"):
        pixels(tmp_path / "none.png", 4)


def test_preprocessing_is_saved_and_read_as_it_was(tmp_path: Path):
    image = Image(8, 4, resample=3, mean=(0.1, 0.2, 0.3), deviation=(0.4, 0.5, 0.6))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit", "image_size": 8, "patch_size": 4}))
    image.save(tmp_path)
    again = modality_in(tmp_path)
    assert isinstance(again, Image)
    assert vars(again) == vars(image)
    assert again.digest == image.digest != Image(8, 4).digest


@pytest.mark.parametrize(
    ("config", "settings", "match"),
    [
        ({"model_type": "swin", "image_size": 8, "patch_size": 4}, {}, "The swin in .* is no ViT"),
        ({"model_type": "vit", "image_size": 8, "patch_size": 4, "num_channels": 1}, {}, "in colour"),
        ({"model_type": "vit", "image_size": 8, "patch_size": 4}, {"do_center_crop": True}, "more than resizing"),
    ],
)
def test_networks_that_are_not_known_are_refused(
    config: dict[str, Any], settings: dict[str, Any], match: str, tmp_path: Path
):
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match=match):
        modality_in(tmp_path)


# --- a fitted model ---


def test_it_learns_and_answers_the_same_when_it_is_loaded(fitted: Any, album: Path):
    assert fitted.metrics["validation"]["accuracy"] > 0.9
    files = [str(album / "test" / name / "1.png") for name in COLOURS]
    assert [answer["label"] for answer in predict(fitted, files)] == list(COLOURS)
    model = TransferModel.load(fitted.path / "model")
    one, all_together = model.outputs(files, batch_size=1), model.outputs(files)
    assert np.allclose(one, all_together, atol=1e-5)
    again = TransferModel.load(fitted.path / "model")
    assert all(np.array_equal(a, b) for a, b in zip(again.outputs(files), all_together, strict=True))


def test_plain_transformers_reads_what_was_fitted(fitted: Any, album: Path):
    folder = fitted.path / "model"
    network = ViTModel.from_pretrained(folder, add_pooling_layer=False).eval()
    given = AutoImageProcessor.from_pretrained(folder, use_fast=False)(
        Pillow.open(album / "test" / "red" / "0.png"), return_tensors="pt"
    )
    model = TransferModel.load(folder)
    example = next(model.modality.read([str(album / "test" / "red" / "0.png")]))[0]
    with torch.no_grad():
        states = network(**given).last_hidden_state
        assert torch.allclose(model.embed(model.modality.collate([example])), states.mean(dim=1), atol=1e-4)


def test_a_preprocessing_that_was_changed_is_refused(fitted: Any, tmp_path: Path):
    shutil.copytree(fitted.path / "model", tmp_path / "model")
    file = tmp_path / "model" / "preprocessor_config.json"
    file.write_text(file.read_text().replace("0.5", "0.4"))
    with pytest.raises(InputError, match=r"preprocessor_config\.json in .* is not the file that was saved"):
        TransferModel.load(tmp_path / "model")


@pytest.mark.parametrize("blocks", [0, 1])
def test_a_frozen_prefix_is_computed_once_and_changes_nothing(blocks: int, album: Path, vit: Path):
    model, data = model_for(album, vit)
    train_top(model.encoder, blocks)
    examples = tokenised(data, "validation", model.task, model.modality)
    plain, _ = outputs(model, examples)
    with frozen_prefix(model, [examples], precision="fp32") as features:
        assert features is not None
        kept, _ = outputs(model, examples, features=features[0])
    assert np.allclose(plain, kept, atol=1e-5)


def _about_pictures() -> list[str]:
    return [n for n in names(Method) if not {"text", "target"} & lookup(Method, n).needs]


@pytest.mark.parametrize("name", _about_pictures())
def test_methods_that_are_not_about_words_fit_pictures(name: str, album: Path, vit: Path, tmp_path: Path):
    steps = issubclass(lookup(Method, name), GradientMethod)
    run = fit(album, model=vit, method=name, budget="4steps" if steps else None, out=tmp_path / "run", hardware=QUICK)
    assert run.state == "done"
    assert predict(run, [str(album / "test" / "red" / "0.png")])[0]["label"] in COLOURS


@pytest.mark.parametrize("name", ["dann", "coral", "pseudo-labels"])
def test_other_pictures_can_be_a_target_domain(name: str, album: Path, vit: Path, tmp_path: Path):
    target = draw(tmp_path / "others", {"": 6}, seed=1)
    method = {name: {"head": "attention-pooling"}} if name == "dann" else name
    data = {"source": str(album), "target": str(target)}
    assert fit(data, model=vit, method=method, budget="4steps", out=tmp_path / "run", hardware=QUICK).state == "done"


@pytest.mark.parametrize("step", ["int8", "heads=0.5", "ffn=0.5", "layers=2", "half", "sparse"])
def test_it_is_compressed(step: str, fitted: Any, album: Path, tmp_path: Path):
    small = compress(fitted, steps=[step], out=tmp_path / "small", hardware=QUICK)
    assert predict(small, [str(album / "test" / "red" / "0.png")])[0]["label"] in COLOURS


# --- what refuses them ---


@pytest.mark.parametrize("name", [n for n in names(Method) if "text" in lookup(Method, n).needs])
def test_methods_about_words_refuse_pictures(name: str, album: Path, vit: Path, tmp_path: Path):
    with pytest.raises(InputError, match=f"Method '{name}' needs texts, and these are pictures"):
        fit(album, model=vit, method=name, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", [n for n in names(Head) if getattr(lookup(Head, n)(), "template", "")])
def test_heads_about_words_refuse_pictures(name: str, album: Path, vit: Path, tmp_path: Path):
    with pytest.raises(InputError, match=f"The head '{name}' puts words around each text, and these are pictures"):
        fit(album, model=vit, method={"full-fine-tuning": {"head": name}}, out=tmp_path / "run")


def test_a_template_refuses_pictures(album: Path, vit: Path):
    head = parse(Head, {"linear": {"template": "{text} It was [MASK]."}})
    with pytest.raises(InputError, match="is for texts, and this model reads pictures"):
        TransferModel.pretrained(vit, task_of(Data.load(album)), head=head)


def test_a_model_of_texts_refuses_pictures_and_the_other_way_round(
    album: Path, vit: Path, tiny: Path, sources: dict[str, Path], tmp_path: Path
):
    with pytest.raises(InputError, match=r"reads texts, and these are pictures.*graft pretrain PICTURES"):
        fit(album, model=tiny, out=tmp_path / "run")
    with pytest.raises(InputError, match="reads pictures, and these are texts"):
        fit(sources["classification"], model=vit, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert isinstance(modality_in(tiny), Text)


def test_verbs_about_words_refuse_pictures(album: Path, fitted: Any, tmp_path: Path):
    asked: list[tuple[str, Any]] = [
        ("graft augment works on texts", lambda: augment(album)),
        ("graft shift works on texts", lambda: shift(album, target=album / "test")),
        ("Models of texts are exported", lambda: export(fitted, out=tmp_path / "out")),
        ("Texts are searched", lambda: search(fitted, ["a"], ["b"])),
        ("has no vocabulary to cut", lambda: compress(fitted, steps=["vocabulary"], out=tmp_path / "out")),
        ("these are pictures. Leave it out", lambda: Data.load(album, class_names=True)),
        ("Pictures have no words to tag", lambda: Data.load(album, task="tagging")),
    ]
    for match, verb in asked:
        with pytest.raises(InputError, match=match):
            verb()


def test_baselines_that_count_words_do_not_race(album: Path, vit: Path, tmp_path: Path):
    told: list[str] = []
    found = compare(
        album, methods=["linear-probe"], models=[vit], seeds=1, out=tmp_path / "race", hardware=QUICK,
        on_event=lambda event: told.append(event.get("message", "")),
    )  # fmt: skip
    assert {entry["name"] for entry in found.entries} == {"majority", "nearest-neighbours", "linear-probe"}
    assert any("tf-idf" in message and "pictures" in message for message in told)
    with pytest.raises(InputError, match="'tf-idf' counts words, and these are pictures"):
        compare(album, methods=["linear-probe"], models=[vit], baselines=["tf-idf"], out=tmp_path / "other")


# --- typed ---


def test_a_picture_a_folder_and_a_table_are_predicted(
    typed: Any, fitted: Any, album: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    table = tmp_path / "some.csv"
    table.write_text(f"picture\n{album / 'test' / 'red' / '0.png'}\n")
    for said, rows in ((album / "test" / "red" / "0.png", 1), (album / "test" / "blue", 6), (table, 1)):
        assert typed("predict", fitted.path, said, "--json") == 0
        assert len(json.loads(capsys.readouterr().out)["predictions"]) == rows
    for wrong in ("none.png", "hello"):
        assert typed("predict", fitted.path, wrong) == 2
        assert f"There is no picture '{wrong}'" in " ".join(capsys.readouterr().err.split())
