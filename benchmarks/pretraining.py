"""Is our masked language model `transformers`' own, at what speed, and is what it has learned worth anything?

    python benchmarks/pretraining.py DATA_FOLDER [--only loss]

    loss      the same random network (BERT, 6 blocks, 256 wide), the same windows, rate, schedule and number of tokens:
              by `pretrain`, and by `transformers.Trainer` with `DataCollatorForLanguageModeling`. Both are asked the
              same gaps of held-out text at the end
    speed     tokens a second of both, and of Trainer in bf16, in turn, over steps after the first few; needs a quiet
              machine
    transfer  graft-mini against the same architecture with random weights: full fine-tuning on 32 labels a class, the
              same rows and steps, five draws, official test (of ag_news its first 500 rows)

The text is the first million characters of the books in `corpus`. Trainer leaves biases and norms without weight decay
and we the table of embeddings too; each draws the order of windows and the gaps by itself. Both are at their defaults:
we compute logits where something is asked, Trainer everywhere; we take bf16 where its products are faster here, Trainer
fp32.
"""

from __future__ import annotations

import itertools
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measure import Benchmark, few_shot, interval, percent, table, workplace

if TYPE_CHECKING:
    from graftwork.corpus import Windows
    from graftwork.model import TransferModel

SEEDS, DRAWS = range(3), range(5)
SETS = ("sentence_polarity", "ag_news", "csabstruct")
CHARACTERS, PIECES, LENGTH, BATCH = 1_000_000, 4096, 64, 16
LR = 1e-3
STEPS, WARM, TIMED, ROUNDS = 150, 5, 20, 3
SHOTS, TUNING, TEST_ROWS = 32, 100, 500


# --- what both begin with ---


def books(benchmark: Benchmark, folder: Path) -> Path:
    """Some of the books, as plain text."""
    from graftwork.corpus import Corpus

    folder.mkdir()
    count = CHARACTERS // 20 if benchmark.quick else CHARACTERS
    for split, most in (("train", count), ("validation", count // 10)):
        passages, taken = Corpus(benchmark.source("corpus")).passages(split), 0
        with (folder / f"{split}.txt").open("w", encoding="utf-8") as file:
            for text, _ in passages:
                taken += file.write(f"{text}\n\n")
                if taken > most:
                    break
    return folder


def begun(corpus: Path, folder: Path, seed: int) -> Path:
    """A network from nothing with its tokenizer."""
    import torch

    from graftwork.corpus import Corpus, train_tokenizer
    from graftwork.language import start_from_nothing
    from graftwork.pretext import SIZES
    from graftwork.pretexts.masked import Masked

    tokenizer, special = Masked().tokenizer()
    tokenizer = train_tokenizer(Corpus(corpus), tokenizer, special, PIECES)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        start_from_nothing(Masked(), SIZES["mini"], tokenizer, special, LENGTH, folder)
    return folder


# --- the two sides ---


def ours(benchmark: Benchmark, corpus: Path, start: Path, steps: int, seed: int, out: Path) -> tuple[Path, float]:
    """`pretrain` from `start`: its model, and tokens a second after the first steps."""
    from graftwork import loop
    from graftwork.pretrain import pretrain

    loop._REPORT_SECONDS = -1.0
    marks: dict[int, float] = {}

    def mark(event: dict[str, Any]) -> None:
        if event["event"] == "step":
            marks[event["step"]] = time.perf_counter()

    run = pretrain(
        corpus, model=start, length=LENGTH, lr=LR, batch_size=BATCH, budget=f"{steps}steps", seed=seed, out=out,
        hardware=benchmark.hardware, on_event=mark,
    )  # fmt: skip
    return run.path / "model", _rate(marks)


def theirs(
    benchmark: Benchmark, texts: Windows, start: Path, steps: int, seed: int, out: Path, *, bf16: bool = False
) -> tuple[Path, float]:
    """Trainer from `start` on the same windows: its model, and tokens a second after the first steps."""
    import torch
    from transformers import (
        BertForMaskedLM,
        DataCollatorForLanguageModeling,
        PreTrainedTokenizerFast,
        PrinterCallback,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )
    from transformers.utils import logging

    marks: dict[int, float] = {}

    class Marks(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            marks[state.global_step] = time.perf_counter()

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(benchmark.asked.threads or torch.get_num_threads())
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=texts.modality.tokenizer, pad_token="[PAD]", mask_token="[MASK]", cls_token="[CLS]",
        sep_token="[SEP]", unk_token="[UNK]",
    )  # fmt: skip
    network = BertForMaskedLM.from_pretrained(start)
    network.config.hidden_dropout_prob = network.config.attention_probs_dropout_prob = 0.0
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    rows = [{"input_ids": [int(i) for i in ids]} for ids in texts.ids.reshape(-1, LENGTH)]
    arguments = TrainingArguments(
        str(out), use_cpu=True, optim="adamw_torch_fused", learning_rate=LR, lr_scheduler_type="cosine",
        warmup_steps=0.05, weight_decay=0.01, max_grad_norm=1.0, max_steps=steps, per_device_train_batch_size=BATCH,
        seed=seed, logging_strategy="no", save_strategy="no", eval_strategy="no", report_to=[], disable_tqdm=True,
        dataloader_pin_memory=False, logging_nan_inf_filter=False, bf16=bf16,
    )  # fmt: skip
    collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)
    trainer = Trainer(network, arguments, train_dataset=rows, data_collator=collator, callbacks=[Marks()])  # type: ignore[arg-type]
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    network.save_pretrained(out)
    texts.modality.save(out)
    return out, _rate(marks)


def _rate(marks: dict[int, float]) -> float:
    first, last = min(WARM, len(marks) - 1), len(marks)
    return (last - first) * BATCH * LENGTH / (marks[last] - marks[first])


# --- the parts ---


def loss(benchmark: Benchmark, seed: int) -> dict[str, Any]:
    """Held-out loss of both after the same number of tokens, and before."""
    steps = 3 if benchmark.quick else STEPS
    with workplace() as folder:
        corpus = books(benchmark, folder / "books")
        start = begun(corpus, folder / "start", seed)
        model, texts, held = _read(start, corpus)
        found = {"tokens": steps * BATCH * LENGTH, "windows": len(texts), "before": _held_out(model, held)}
        sides = {
            "graftwork": ours(benchmark, corpus, start, steps, seed, folder / "ours")[0],
            "trainer": theirs(benchmark, texts, start, steps, seed, folder / "theirs")[0],
        }
        return found | {side: _held_out(_read(place, corpus)[0], held) for side, place in sides.items()}


def _read(place: Path, corpus: Path) -> tuple[TransferModel, Windows, Windows]:
    from graftwork.corpus import Corpus, windows
    from graftwork.language import language_model

    model = language_model(place, "masked")
    return model, *(windows(Corpus(corpus), split, model, LENGTH) for split in ("train", "validation"))


def _held_out(model: TransferModel, held: Windows) -> float:
    from graftwork.language import pieces_of
    from graftwork.methods.pretraining import pretext_scores
    from graftwork.pretexts.masked import Masked

    return pretext_scores(model, Masked(), pieces_of(model), held, "fp32", most=500)["loss"]


def speed(benchmark: Benchmark) -> dict[str, Any]:
    """Rounds of Trainer and of us in turn."""
    from graftwork.hardware import Hardware

    steps, rounds = (3, 1) if benchmark.quick else (WARM + TIMED, ROUNDS)
    rates: dict[str, list[float]] = {"trainer": [], "trainer in bf16": [], "graftwork": []}
    with workplace() as folder:
        corpus = books(benchmark, folder / "books")
        start = begun(corpus, folder / "start", 0)
        texts = _read(start, corpus)[1]
        for turn in range(rounds):
            for side, bf16 in (("trainer", False), ("trainer in bf16", True)):
                out = folder / f"{side}-{turn}"
                rates[side].append(theirs(benchmark, texts, start, steps, 0, out, bf16=bf16)[1])
            rates["graftwork"].append(ours(benchmark, corpus, start, steps, 0, folder / f"ours-{turn}")[1])
    middle = {side: statistics.median(each) for side, each in rates.items()}
    times = {side: middle["graftwork"] / middle[side] for side in ("trainer", "trainer in bf16")}
    chosen = Hardware().chosen_precision()
    return {"tokens_per_second": middle, "times": times, "precision": chosen, "rounds": rates}


def transfer(benchmark: Benchmark, name: str, seed: int) -> dict[str, Any]:
    """Test accuracy of both on the same few rows."""
    from graftwork.data import Data
    from graftwork.evaluate import evaluate
    from graftwork.fit import fit
    from graftwork.models import resolve

    drawn = few_shot(Data.load(benchmark.source(name)), 4 if benchmark.quick else SHOTS, seed)
    rows = {
        split: [{"text": t, "label": label} for t, label in zip(part.inputs(), part.labels(), strict=True)]
        for split, part in drawn.splits.items()
    }
    rows["test"] = rows["test"][: 40 if benchmark.quick else TEST_ROWS] if name == "ag_news" else rows["test"]
    data = Data.load(rows)
    found: dict[str, Any] = {"train_rows": len(data["train"])}
    with workplace() as folder:
        models = {"graft-mini": resolve("graft-mini"), "random": _at_random(resolve("graft-mini"), folder / "m", seed)}
        for which, model in models.items():
            run = fit(
                data, model=model, budget=f"{2 if benchmark.quick else TUNING}steps", seed=seed, out=folder / which,
                hardware=benchmark.hardware,
            )  # fmt: skip
            found[which] = evaluate(run, data)["accuracy"]
    return found


def _at_random(like: Path, folder: Path, seed: int) -> Path:
    """The architecture of a model with random weights, and its tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModel

    from graftwork.modalities.text import Text

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        AutoModel.from_config(AutoConfig.from_pretrained(like)).save_pretrained(folder)
    Text.from_folder(like).save(folder)
    return folder


def main() -> None:
    benchmark = Benchmark("pretraining", parts=["loss", "speed", "transfer"])
    rows: list[tuple[str, ...]] = [("", "ours", "theirs", "difference")]
    if "loss" in benchmark.parts:
        runs = [benchmark.measured(f"loss, seed {s}", loss, benchmark, s) for s in SEEDS]
        sides = {side: interval([run[side] for run in runs]) for side in ("graftwork", "trainer")}
        gap = interval([run["graftwork"] - run["trainer"] for run in runs])
        benchmark.summarise(loss=sides | {"gap": gap})
        rows.append(("held-out loss, nats", *(_plain(found) for found in (*sides.values(), gap))))
    if "transfer" in benchmark.parts:
        for name, seed in itertools.product(SETS, DRAWS):
            benchmark.measured(f"transfer, {name}, seed {seed}", transfer, benchmark, name, seed)
        for name in SETS:
            runs = [benchmark.entries()[f"transfer, {name}, seed {s}"] for s in DRAWS]
            sides = {side: interval([run[side] for run in runs]) for side in ("graft-mini", "random")}
            gap = interval([run["graft-mini"] - run["random"] for run in runs])
            benchmark.summarise(**{name: sides | {"gap": gap}})
            rows.append((f"{name}, accuracy, %", *(percent(found) for found in (*sides.values(), gap))))
    if "speed" in benchmark.parts:
        found = benchmark.measured("speed", speed, benchmark)
        rates = found["tokens_per_second"]
        rows += [
            (f"tokens a second, {side}", f"{rates['graftwork']:,.0f}", f"{rates[side]:,.0f}", f"{times:.2f}x")
            for side, times in found["times"].items()
        ]
    table(*rows)


def _plain(found: dict[str, Any]) -> str:
    half = found["half_width_95"]
    return f"{found['mean']:.3f}" + (f" ± {half:.3f}" if half is not None else "")


if __name__ == "__main__":
    main()
