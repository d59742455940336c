"""Learning to see: what is hidden or spoiled, that it is MAE's loss, and that the base is a plain ViT."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import ViTMAEConfig, ViTMAEForPreTraining, ViTModel

from graftwork.choice import InputError
from graftwork.examples import Batch
from graftwork.fit import fit
from graftwork.gallery import Gallery
from graftwork.material import Pictures, token_flops
from graftwork.methods.pretraining import Pretraining, rebuilt_patches
from graftwork.model import TransferModel
from graftwork.models import resolve
from graftwork.pretext import PicturePretext, patches_of
from graftwork.pretexts.pictures import ImageDenoising, MaskedAutoencoder
from graftwork.pretrain import Request, pretrain
from graftwork.rebuilding import RebuildingNetwork, picture_model, rebuilt, seeing
from graftwork.resume import resume
from graftwork.testing import draw, tiny_vit
from graftwork.work import Interrupted

SETTINGS: dict[str, Any] = {
    "size": "tiny", "image_size": 16, "patch": 4, "batch_size": 16, "hardware": {"device": "cpu", "precision": "fp32"},
}  # fmt: skip
OBJECTIVES = ("masked-autoencoder", "image-denoising")


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(tmp_path_factory.mktemp("album") / "colours", {"train": 20, "validation": 6, "test": 6})


@pytest.fixture(scope="module")
def base(album: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A masked autoencoder that has learned something."""
    out = tmp_path_factory.mktemp("runs") / "base"
    return pretrain(album, objective="masked-autoencoder", budget="40steps", out=out, **SETTINGS)


@pytest.fixture
def model(tmp_path: Path) -> TransferModel:
    torch.manual_seed(0)
    return picture_model(tiny_vit(tmp_path / "vit"), MaskedAutoencoder()).eval()


def pictures(count: int = 5) -> torch.Tensor:
    return torch.rand(count, 3, 16, 16) * 2 - 1


# --- what is asked ---


@pytest.mark.parametrize(("share", "seen"), [(0.75, 4), (0.5, 8), (0.99, 1)])
def test_the_hidden_share_is_hidden_anew_each_time(share: float, seen: int):
    torch.manual_seed(0)
    first, second = (MaskedAutoencoder(share=share).shown(pictures(64), 4) for _ in range(2))
    for shown in (first, second):
        assert shown.seen.shape == (64, seen)
        assert (shown.asked.sum(dim=1) == 16 - seen).all()
        assert not shown.asked.gather(1, shown.seen).any()
    assert not torch.equal(first.asked, second.asked)


def test_answers_have_mean_0_and_deviation_1_a_patch():
    pixels = pictures()
    pixels[0] = 0.3  # of one colour
    answers = MaskedAutoencoder().shown(pixels, 4).answers
    assert torch.allclose(answers.mean(dim=-1), torch.zeros(5, 16), atol=1e-5)
    assert torch.allclose(answers[1:].std(dim=-1), torch.ones(4, 16), atol=1e-3)
    assert torch.isfinite(answers).all()


def test_noise_is_as_strong_as_it_says_and_the_answer_is_clean():
    torch.manual_seed(0)
    pixels = pictures(200)
    shown = ImageDenoising(noise=0.3).shown(pixels, 4)
    assert float((shown.pixels - pixels).std()) == pytest.approx(0.3, rel=0.02)
    assert torch.equal(shown.answers, patches_of(pixels, 4))
    assert shown.asked.all()


def test_the_encoder_sees_no_hidden_patch(model: TransferModel):
    pixels = pictures()
    shown = MaskedAutoencoder().shown(pixels, 4)
    hidden = shown.asked.view(5, 4, 4).repeat_interleave(4, 1).repeat_interleave(4, 2)[:, None].expand_as(pixels)
    other = torch.where(hidden, torch.randn_like(pixels), pixels)

    def states(given: torch.Tensor) -> torch.Tensor:
        with torch.no_grad(), seeing(model.encoder, shown.seen):
            return model.encoder(pixel_values=given).last_hidden_state

    assert torch.equal(states(pixels), states(other))
    assert states(pixels).shape == (5, 1 + 4, 32)
    assert not torch.equal(states(pixels), states(torch.where(hidden, pixels, torch.randn_like(pixels))))


def test_seeing_everything_is_the_plain_network(model: TransferModel):
    pixels = pictures()
    every = torch.arange(16).expand(5, 16)
    with torch.no_grad(), seeing(model.encoder, every):
        found = model.encoder(pixel_values=pixels).last_hidden_state
    assert torch.equal(found, model.encoder(pixel_values=pixels).last_hidden_state)


def test_the_loss_is_that_of_transformers(model: TransferModel, monkeypatch: pytest.MonkeyPatch):
    config = ViTMAEConfig(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=128, image_size=16, patch_size=4,
        decoder_hidden_size=32, decoder_num_hidden_layers=2, decoder_num_attention_heads=1,
        decoder_intermediate_size=128, norm_pix_loss=True,
    )  # fmt: skip
    theirs = ViTMAEForPreTraining(config).eval()
    theirs.vit.load_state_dict(model.encoder.state_dict())
    assert isinstance(model.head, RebuildingNetwork)
    theirs.decoder.load_state_dict(model.head.decoder.state_dict())
    pixels, noise = pictures(), torch.rand(5, 16)
    with torch.no_grad():
        expected = theirs(pixels, noise=noise)
        monkeypatch.setattr(torch, "rand", lambda *_, **__: noise)
        batch = Batch({"pixel_values": pixels}, torch.zeros(5), torch.arange(5).numpy())
        found, right = rebuilt_patches(model, MaskedAutoencoder(), batch)
        shown = MaskedAutoencoder().shown(pixels, 4)
    assert torch.allclose((found - right).square().mean(), expected.loss, atol=1e-6)
    assert torch.equal(shown.asked, expected.mask.bool())
    assert torch.allclose(rebuilt(model, shown), expected.logits, atol=1e-5)
    assert torch.equal(patches_of(pixels, 4), theirs.patchify(pixels))


def test_operations_are_of_what_is_seen(model: TransferModel, album: Path):
    request = Request(corpus=str(album), image_size=16, method={})
    whole, part = (Pictures(request, pretext).flops(model) for pretext in (ImageDenoising(), MaskedAutoencoder()))
    decoder = token_flops(model.head.decoder, 17) * 17  # type: ignore[arg-type]
    assert whole == token_flops(model.encoder, 17) * 17 + decoder
    assert part == token_flops(model.encoder, 5) * 5 + decoder


# --- the pictures ---


def test_test_pictures_are_never_learned_from(album: Path):
    gallery = Gallery(album)
    assert (len(gallery["train"]), len(gallery["validation"])) == (60, 18)
    assert not any("/test/" in file for split in ("train", "validation") for file in gallery[split].inputs())


def test_without_splits_a_part_is_held_out_by_content(album: Path, tmp_path: Path):
    shutil.copytree(album, tmp_path / "flat" / "in" / "folders")
    gallery = Gallery(tmp_path / "flat")
    held = set(gallery["validation"].table["digest"].to_pylist())
    assert held
    assert not held & set(gallery["train"].table["digest"].to_pylist())
    assert len(gallery["train"]) + len(gallery["validation"]) == 96
    assert gallery.fingerprint == Gallery(tmp_path / "flat").fingerprint != Gallery(album).fingerprint


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_damaged_picture_is_named_before_anything_is_learned(objective: str, album: Path, tmp_path: Path):
    shutil.copytree(album, tmp_path / "damaged")
    (tmp_path / "damaged" / "train" / "red" / "2.png").write_bytes(b"\x89PNG")
    with pytest.raises(InputError, match=r"1 of 78 pictures cannot be read, such as '.*2\.png'. Replace them"):
        pretrain(tmp_path / "damaged", objective=objective, out=tmp_path / "run", **SETTINGS)
    assert not (tmp_path / "run").exists()


# --- a base ---


def test_a_base_learns_and_says_so(base: Any):
    first = next(e for e in base.events() if e["event"] == "step")["loss"]
    scores = base.metrics["validation"]
    assert scores["loss"] < 0.97 * first
    assert 0.03 < scores["explained"] < 1
    steps = [event for event in base.events() if event["event"] == "step" and event["examples_per_second"]]
    assert all(event["pictures_per_second"] == round(event["examples_per_second"]) for event in steps)
    card = (base.path / "model" / "README.md").read_text()
    for told in ("masked-autoencoder without its decoder", "thrown away", " pictures in 40 steps", "| 40 |"):
        assert told in card


def test_plain_transformers_reads_a_base_whole(base: Any):
    network, said = ViTModel.from_pretrained(base.path / "model", add_pooling_layer=False, output_loading_info=True)
    assert not said["missing_keys"]
    assert not said["unexpected_keys"]
    assert network.config.image_size == 16
    assert sorted(file.name for file in (base.path / "model").iterdir()) == [
        "README.md", "config.json", "model.safetensors", "preprocessor_config.json"
    ]  # fmt: skip


def test_a_base_is_a_model_to_fit_a_task_on(base: Any, album: Path, tmp_path: Path):
    run = fit(album, model=base.path, method="linear-probe", out=tmp_path / "run", hardware=SETTINGS["hardware"])
    assert run.metrics["validation"]["accuracy"] > 0.9
    assert resolve(base.path) == (base.path / "model").resolve()


def test_one_goes_on_from_a_base(base: Any, album: Path, tmp_path: Path):
    settings = {name: value for name, value in SETTINGS.items() if name not in ("size", "image_size", "patch")}
    run = pretrain(
        album, objective="image-denoising", model=base.path, budget="2steps", out=tmp_path / "run", **settings
    )
    old, new = (ViTModel.from_pretrained(each.path / "model", add_pooling_layer=False) for each in (base, run))
    assert old.config.patch_size == new.config.patch_size == 4
    gaps = [(a - b).abs().max().item() for a, b in zip(old.parameters(), new.parameters(), strict=True)]
    assert 0 < max(gaps) < 0.01
    assert Pretraining(**run.asked["method"]["pretraining"]).lr == 2e-4


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.usefixtures("every_step_is_told")
def test_one_that_was_interrupted_ends_the_same_to_the_last_bit(objective: str, album: Path, tmp_path: Path):
    asked = SETTINGS | {"objective": objective, "budget": "12steps"}
    whole = pretrain(album, out=tmp_path / "whole", **asked)

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "step" and event["step"] >= 5:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted):
        pretrain(album, out=tmp_path / "parts", on_event=stop, **asked)
    parts = resume(tmp_path / "parts")
    read = [(run.path / "model" / "model.safetensors").read_bytes() for run in (whole, parts)]
    assert read[0] == read[1]
    assert parts.metrics == whole.metrics


def test_another_seed_is_another_base(album: Path, tmp_path: Path):
    asked = SETTINGS | {"objective": "masked-autoencoder", "budget": "1steps"}
    runs = [pretrain(album, out=tmp_path / str(number), seed=seed, **asked) for number, seed in enumerate((0, 0, 1))]
    one, same, other = ((run.path / "model" / "model.safetensors").read_bytes() for run in runs)
    assert one == same != other


# --- what is refused ---


def refusals(album: Path, tiny: Path, text: Path) -> list[tuple[str, Callable[[Path], Any]]]:
    """What is said, and what is asked."""
    see = {"objective": "masked-autoencoder"}
    return [
        ("holds pictures. Say how to learn from them: --objective", lambda out: pretrain(album, out=out)),
        (
            "learns from pictures, and --pieces is for plain text",
            lambda out: pretrain(album, pieces=400, out=out, **see),
        ),
        ("learns from plain text, and --image-size is for", lambda out: pretrain(text, image_size=64, out=out)),
        ("cannot be cut into patches of 5", lambda out: pretrain(album, patch=5, out=out, **see)),
        ("reads texts, and these are pictures", lambda out: pretrain(album, model=tiny, out=out, **see)),
        ("holds no pictures", lambda out: pretrain(tiny, out=out, **see)),
        ("There is no folder", lambda out: pretrain(text, out=out, **see)),
    ]


@pytest.mark.parametrize("number", range(7))
def test_what_cannot_be_is_refused_in_a_sentence(number: int, album: Path, tiny: Path, tmp_path: Path):
    text = tmp_path / "text.jsonl"
    text.write_text(json.dumps({"text": "a word"}))
    match, ask = refusals(album, tiny, text)[number]
    with pytest.raises(InputError, match=match):
        ask(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_verbs_of_language_refuse_a_base_that_sees(base: Any, album: Path, tmp_path: Path):
    from graftwork.fill import fill
    from graftwork.perplexity import perplexity

    text = tmp_path / "text.txt"
    text.write_text("a word")
    for ask in (
        lambda: fill(["a [MASK]"], model=base.path),
        lambda: perplexity(text, model=base.path),
        lambda: pretrain(text, model=base.path, out=tmp_path / "run"),
    ):
        with pytest.raises(InputError, match="reads pictures, and these are texts"):
            ask()


def test_a_typed_pretraining_ends_with_what_to_do_next(
    typed: Any, album: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    words = (
        "--objective",
        "image-denoising",
        "--size",
        "tiny",
        "--image-size",
        "16",
        "--budget",
        "2steps",
        "--precision",
        "fp32",
    )
    assert typed("pretrain", album, *words, "--out", tmp_path / "run", "--set", "objective.noise=0.2") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Held-out pictures: mean squared difference" in said
    assert "graft fit DATA --model" in said
    assert issubclass(ImageDenoising, PicturePretext)
