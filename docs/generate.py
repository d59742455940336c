"""Write the parts of the docs that the code or a measurement knows better: `python docs/generate.py`.

findings.md and methods.md come from the shelves; the table of results and the run file in both READMEs from
`benchmarks/results/` and `examples/run.yaml`. A test keeps them fresh.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
READMES = {"en": ROOT / "README.md", "zh": ROOT / "README.zh-CN.md"}


def main() -> None:
    """Write them."""
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")


def pages() -> dict[Path, str]:
    """Path -> what should stand there."""
    readmes = {path: readme(path.read_text(encoding="utf-8"), language) for language, path in READMES.items()}
    return {ROOT / "docs" / "findings.md": findings(), ROOT / "docs" / "methods.md": methods(), **readmes}


def findings() -> str:
    """Every kind of finding, errors first."""
    import graftwork.adapt
    import graftwork.verdict  # noqa: F401  they declare their kinds
    from graftwork.check import CODES
    from graftwork.finding import KINDS, ORDER

    parts = [
        "# What `graft check` can find",
        f"{len(CODES)} kinds. Errors block `fit`; warnings and notes do not, and are kept in the run and its report. "
        "Each finding names the rows or the line, and says what to do.",
    ]
    for severity in ORDER:
        kinds = [(f"`{code}`", CODES[code]) for code in CODES if KINDS[code].severity == severity]
        parts += [f"## {severity.capitalize()}s", table(("code", "what it says"), kinds)]
    for verb, about in (("compare", "race"), ("adapt", "adaptation")):
        kinds = [(f"`{kind.code}`", kind.sentence) for kind in KINDS.values() if kind.about == about]
        parts += [f"# What `graft {verb}` can find", table(("code", "what it says"), kinds)]
    return page(parts)


def methods() -> str:
    """Every method with its fields; then what a method can be given: heads, modifiers, schedules, optimizers."""
    import graftwork.compressors
    import graftwork.methods  # noqa: F401  puts them on their shelf
    from graftwork.compressor import Compressor
    from graftwork.head import Head
    from graftwork.method import GradientMethod, Method
    from graftwork.modifier import Modifier
    from graftwork.optimizer import Optimizer
    from graftwork.schedule import Schedule

    return page(
        [
            "# Methods",
            "`--method NAME --set field=value` on the command line, `{name: {field: value}}` in a run file, or the "
            "class in Python (`from graftwork.methods import LoRA`). Several methods are a recipe of stages. A stage "
            "can be given a head and modifiers: `lora@mlp:l2-sp:ema`.",
            "Every method has these fields:",
            fields_of(Method),
            "Methods that take steps have these, too:",
            fields_of(GradientMethod, Method),
            *shelf_of(Method),
            "# Heads",
            "`METHOD@HEAD`, or `--set head=HEAD`: any method with steps can take any head that suits the task.",
            *shelf_of(Head),
            "# Modifiers",
            '`METHOD:MODIFIER`, or `--set "modifiers=[{l2-sp: {strength: 0.1}}, class-weights]"`: they combine.',
            *shelf_of(Modifier),
            "# Schedules",
            "`--set schedule=NAME`. `graft methods --plot` draws them.",
            *shelf_of(Schedule),
            "# Optimizers",
            "`--set optimizer=NAME`. The default rates suit AdamW.",
            *shelf_of(Optimizer),
            "# Compressors",
            '`graft compress RUN --steps "NAME=VALUE, NAME"`, see [compression](compress.md).',
            *shelf_of(Compressor),
        ]
    )


def shelf_of(shelf: Any) -> Iterator[str]:
    """Every kind of ours on a shelf, with what it adds to the kind above it."""
    from graftwork.choice import lookup, names
    from graftwork.method import GradientMethod, Method

    for name in names(shelf):
        choice = lookup(shelf, name)
        if not choice.__module__.startswith("graftwork."):  # somebody's own
            continue
        script = ROOT / "examples" / f"{name.replace('-', '_')}.py"
        example = f", [example](../examples/{script.name})" if script.is_file() else ""
        paper = f" Paper: {choice.paper}." if choice.paper else ""
        yield f"## {name}"
        yield inspect.cleandoc(choice.__doc__ or "")
        yield f"Class `{choice.__name__}`{example}.{paper}"
        shared = next((base for base in (GradientMethod, Method) if issubclass(choice, base)), None)
        if found := fields_of(choice, shared):
            yield found


def fields_of(choice: Any, shared: Any = None) -> str:
    """A table of fields: those that `shared` does not have with the same default."""
    known = {(f.name, str(f.default)) for f in shared.fields()} if shared else set()
    rows = [
        (f"`{f.name}`", f"{f.type} {f.range}".strip(), "" if f.default is None else f"`{f.default}`", f.sentence)
        for f in choice.fields()
        if (f.name, str(f.default)) not in known
    ]
    return table(("field", "must be", "default", "meaning"), rows) if rows else ""


def readme(text: str, language: str) -> str:
    """A README with its results and its run file brought up to date."""
    run_file = (ROOT / "examples" / "run.yaml").read_text(encoding="utf-8")
    text = re.sub(r"```yaml\n.*?```", lambda _: f"```yaml\n{run_file}```", text, flags=re.DOTALL)
    head = {"en": ("what", "result", "file"), "zh": ("测的是什么", "结果", "文件")}[language]
    found = table(head, results(language))
    block = f"<!-- benchmarks -->\n\n{found}\n\n<!-- /benchmarks -->"
    return re.sub(r"<!-- benchmarks -->.*?<!-- /benchmarks -->", lambda _: block, text, flags=re.DOTALL)


def results(language: str) -> Iterator[tuple[str, str, str]]:
    """(what, result, file) of everything that has been measured; what has no result is left out."""
    english = language == "en"
    for name, told in (
        ("probe", _probe), ("full", _full), ("tasks", _tasks), ("speed", _speed), ("resume", _resume),
        ("memory", _memory), ("budget", _budget), ("advisor", _advisor), ("ranking", _ranking), ("fewshot", _fewshot),
        ("side", _side), ("meta", _meta), ("lora", _lora), ("imbalance", _imbalance), ("shelf", _shelf),
        ("cloze", _cloze), ("pretraining", _pretraining), ("images", _images), ("domains", _domains),
        ("continued", _continued),
        ("curve", _curve), ("compress", _compress),
    ):  # fmt: skip
        file = ROOT / "benchmarks" / "results" / f"{name}.json"
        if file.is_file():
            found = json.loads(file.read_text(encoding="utf-8"))
            for what, result in told(found, english):
                yield what, result, f"[{name}.json](benchmarks/results/{name}.json)"


def _probe(found: dict[str, Any], english: bool) -> Iterator[tuple[str, str]]:
    for part, value in found.get("summary", {}).items():
        if english:
            draws = f", {value['n']} draws" if value["n"] > 1 else " data"
            yield (
                f"BANKING77 (77 classes), linear probe, {part}{draws}: accuracy on the official test",
                _interval(value),
            )
        else:
            part = {"full": "全部数据"}.get(part, f"每类 {part.removesuffix('-shot')} 条")
            draws = f"（{value['n']} 次抽样）" if value["n"] > 1 else ""
            yield f"BANKING77（77 类），线性探针，{part}{draws}：官方测试集准确率", _interval(value)


def _fewshot(found: dict[str, Any], english: bool) -> Iterator[tuple[str, str]]:
    for method, value in found.get("summary", {}).items():
        if method != "linear-probe":
            draws = value["accuracy"]["n"]
            what = (
                f"BANKING77, 10-shot, {method}, {draws} draws: accuracy on the official test"
                if english
                else f"BANKING77，每类 10 条，{method}（{draws} 次抽样）：官方测试集准确率"
            )
            gain = "gain on the probe" if english else "比线性探针高"
            yield what, f"{_interval(value['accuracy'])}; {gain} {_interval(value['gain'])}"


def _side(found: dict[str, Any], english: bool) -> Iterator[tuple[str, str]]:
    summary = found.get("summary", {})
    if value := summary.get("accuracy"):
        full = _interval(value["full-fine-tuning"])
        what = (
            f"BANKING77, side network beside the frozen encoder; full fine-tuning: {full}"
            if english
            else f"BANKING77，冻结编码器旁的侧网络；全量微调：{full}"
        )
        yield what, _interval(value["side-network"])
    if ratio := summary.get("speed"):
        yield (
            (
                "its examples a second after the first epoch, to those of full fine-tuning"
                if english
                else "第一轮之后它每秒处理的样本数，与全量微调之比"
            ),
            f"{ratio:.0f}x",
        )


def _meta(found: dict[str, Any], english: bool) -> Iterator[tuple[str, str]]:
    for method, value in found.get("summary", {}).items():
        if method == "plain":
            continue
        seeds = value["accuracy"]["n"]
        what = (
            f"BANKING77, classes held out, 5 ways, 5 shots, {method}, {seeds} draws of the classes: accuracy"
            if english
            else f"BANKING77，未训练过的类别，5 类各 5 条，{method}（类别 {seeds} 次抽样）：准确率"
        )
        gain = "gain on the encoder as it was" if english else "比原编码器高"
        yield what, f"{_interval(value['accuracy'])}; {gain} {_interval(value['gain'])}"


def _lora(found: dict[str, Any], english: bool) -> Iterator[tuple[str, str]]:
    if summary := found.get("summary"):
        gaps = "; ".join(f"{name} {_interval(value['gap'], sign=True)}" for name, value in summary.items())
        what = "LoRA above full fine-tuning, few labels, the same steps" if english else (
            "LoRA 比全量微调高（少量标签，步数相同）")  # fmt: skip
        yield what, gaps


def _imbalance(found: dict[str, Any], english: bool) -> Iterator[tuple[str, str]]:
    for method in ("linear-probe", "side-network"):
        of = {name: value for name, value in found.get("summary", {}).items() if name.partition(":")[0] == method}
        if not of:
            continue
        best = max(of, key=lambda name: of[name]["macro_f1"]["mean"])
        plain, with_best = _interval(of[method]["macro_f1"]), _interval(of[best]["macro_f1"])
        draws, remedy = of[method]["macro_f1"]["n"], best.partition(":")[2]
        yield (
            (f"one class 100 times as frequent, {method}, {draws} draws: macro F1", f"{plain}; {remedy} {with_best}")
            if english
            else (f"一类比另一类多 100 倍，{method}（{draws} 次抽样）：macro F1", f"{plain}；{remedy} {with_best}")
        )


def _shelf(found: dict[str, Any], english: bool) -> Iterator[tuple[str, str]]:
    if summary := {name: each for name, each in found.get("summary", {}).items() if name != "pretrained"}:
        count = len(summary)
        better, further = (
            sum(value[key]["mean"] > 0 for value in summary.values()) for key in ("over_majority", "over_start")
        )
        what = (
            f"{count} methods and heads, 100 labels a class, 60 steps: better than the commonest class; than the "
            "encoder as it was"
            if english
            else f"{count} 种方法与输出头，每类 100 条，60 步：优于最常见类别；优于原编码器"
        )
        yield what, f"{better}; {further}"
    if same := [value["agreement"] for part, value in found.get("parts", {}).items() if part.endswith(", exported")]:
        what = "methods and heads, the same labels as ONNX" if english else "种方法与输出头，导出为 ONNX 后标签相同"
        yield f"{len(same)} {what}", f"{sum(agreement == 1 for agreement in same)}"


def _cloze(found: dict[str, Any], english: bool) -> Iterator[tuple[str, str]]:
    summary = found.get("summary", {})
    if value := summary.get("sentence_polarity, graft-mini, zero-shot"):
        over = value["accuracy_over_templates"]
        what = (
            f"sentence_polarity without a label, a cloze prompt to `graft-mini`, {over['n']} templates: accuracy"
            if english
            else f"sentence_polarity，不用任何标签，向 `graft-mini` 提完形填空（{over['n']} 个模板）：准确率"
        )
        yield what, _interval(over)
    for name in ("sentence_polarity", "ag_news"):
        if value := summary.get(f"{name}, few-shot"):
            what = "a cloze prompt, fine-tuned on 32 labels a class; gain on none" if english else (
                "完形填空，每类用 32 条标签微调；比不用标签高")  # fmt: skip
            yield f"{name}, {what}", f"{_interval(value['accuracy'])}; {_interval(value['gain_over_zero-shot'])}"


def _pretraining(found: dict[str, Any], english: bool) -> Iterator[tuple[str, str]]:
    summary, parts = found.get("summary", {}), found.get("parts", {})
    if value := summary.get("loss"):
        gap = value["gap"]
        tokens = parts["loss, seed 0"]["tokens"]
        what = f"masked language model from nothing, {tokens:,} tokens, {gap['n']} seeds: held-out loss less Trainer's"
        yield (
            what
            if english
            else f"从零训练掩码语言模型，{tokens:,} 个词元，{gap['n']} 个种子：留出文本损失减去 Trainer 的",
            f"{gap['mean']:+.3f} ± {gap['half_width_95']:.3f} nats",
        )
    if value := parts.get("speed"):
        times, precision = value["times"], value["precision"]
        what = "its tokens a second ({}), to Trainer's at its default (fp32), and in bf16" if english else (
            "每秒词元数（{}）与 Trainer 默认设置（fp32）及 bf16 之比")  # fmt: skip
        yield what.format(precision), f"{times['trainer']:.2f}x, {times['trainer in bf16']:.2f}x"
    if gains := {name: value["gap"] for name, value in summary.items() if name != "loss"}:
        what = "`graft-mini` above the same network with random weights, 32 labels a class" if english else (
            "`graft-mini` 比同结构随机权重高（每类 32 条标签）")  # fmt: skip
        yield what, "; ".join(f"{name} {_interval(gap, sign=True)}" for name, gap in gains.items())


def _images(found: dict[str, Any], english: bool) -> Iterator[tuple[str, str]]:
    summary = found.get("summary", {})
    names = {"masked-autoencoder": "掩码自编码器", "image-denoising": "图片去噪"}
    for objective, chinese in names.items():
        gains = {name: value[f"{objective}, gap"] for name, value in summary.items()}
        if gains:
            what = f"pictures: a tiny ViT after 200 steps of `{objective}` above random weights, 32 labels a class"
            yield (
                what
                if english
                else f"图片：用{chinese}（`{objective}`）练 200 步的小 ViT 比随机权重高（每类 32 条标签）",
                "; ".join(f"{name} {_interval(gap, sign=True)}" for name, gap in gains.items()),
            )


_PAIRS = 12  # of a part of them there is nothing to tell yet


def _domains(found: dict[str, Any], english: bool) -> Iterator[tuple[str, str]]:
    summary = found.get("summary", {})
    pairs = summary["source only"]["accuracy"]["n"] if summary else 0
    if pairs == _PAIRS:
        draws = len({key[-1] for key in found["parts"] if "seed" in key})
        what = f"reviews of one product to another, {pairs} pairs, {draws} draws, no target label: above source only"
        yield (
            what if english else f"从一类商品的评论到另一类，{pairs} 对，{draws} 次抽样，目标无标签：比只用源域高",
            "; ".join(f"{m} {_interval(v['gain'], sign=True)}" for m, v in summary.items() if m != "source only"),
        )


def _continued(found: dict[str, Any], english: bool) -> Iterator[tuple[str, str]]:
    for name, value in found.get("summary", {}).items():
        what = "gain of reading the domain's plain text first" if english else "先读该领域的纯文本带来的提高"
        yield f"{name}, {what}", _interval(value["gain"], sign=True)


def _curve(found: dict[str, Any], english: bool) -> Iterator[tuple[str, str]]:
    if value := found.get("summary"):
        error, sets = value["absolute_error"], value["sets"]
        what = f"probe's score on all rows, foretold from the first half of its curve, {sets} data sets: error" if (
            english) else f"由学习曲线前一半外推探针在全部数据上的分数，{sets} 个数据集：误差"  # fmt: skip
        inside = f"{value['inside']} in the interval of 80 %" if english else f"{value['inside']} 个落在 80 % 区间内"
        yield what, f"{_interval(error).removesuffix(' %')} points; {inside}"


def _compress(found: dict[str, Any], english: bool) -> Iterator[tuple[str, str]]:
    parts = found.get("parts", {})
    for part, value in parts.items():
        kind, _, name = part.partition(", ")
        if kind == "size":
            points = 100 * value["test"]["difference"]
            what = (
                f"{name}, full fine-tuning compressed by `{value['taken']}`: size; accuracy on test, points"
                if english
                else f"{name}，全量微调后用 `{value['taken']}` 压缩：大小；测试准确率与原模型之差"
            )
            yield what, f"{value['mb']:.1f} MB, {value['times_smaller']:.1f}x; {points:+.1f}"
        elif kind == "student":
            what = "distilled to fewer of its six blocks: share of the test accuracy kept" if english else (
                "蒸馏到更少的层（原有六层）：保留的测试准确率")  # fmt: skip
            kept = {which.split()[0]: each["kept"] for which, each in value.items() if which.endswith("layers")}
            yield f"{name}, {what}", "; ".join(f"{layers}: {share:.1%}" for layers, share in kept.items())
        elif kind == "goals":
            what = "goals of `--goal` reached on validation; of these, true on test" if english else (
                "`--goal` 在验证集上达到的目标数；其中在测试集上成立的")  # fmt: skip
            yield f"{name}, {value['goals']} {what}", f"{value['claimed']}; {value['true']}"
        elif kind in ("latency", "throughput", "rows"):
            exports = {k: v for k, v in parts[f"exports, {name}"].items() if isinstance(v, dict) and "test_lost" in v}
            what = {
                "latency": ("one text of 32 tokens", "单条 32 个词元的文本"),
                "throughput": ("32 texts of 32 tokens at once", "一次 32 条 32 个词元的文本"),
                "rows": ("32 of its own rows at once", "一次 32 条自己的数据"),
            }[kind][not english]
            how = "exported in 8 bits, against `transformers.pipeline`; points of test accuracy lost" if english else (
                "以 8 位导出，对比 `transformers.pipeline`；测试准确率损失")  # fmt: skip
            told = [
                f"{which} {value['times'][f'{which}, exported in 8 bits']:.1f}x; {100 * each['test_lost']:.1f}"
                for which, each in exports.items()
            ]
            yield f"{name}, {what}, {how}", ", ".join(told)


def _full(found: dict[str, Any], english: bool) -> Iterator[tuple[str, str]]:
    if value := found.get("summary", {}).get("accuracy"):
        what = (
            f"BANKING77, full fine-tuning with the defaults, {value['n']} seeds: accuracy on the official test"
            if english
            else f"BANKING77，默认设置的全量微调，{value['n']} 个随机种子：官方测试集准确率"
        )
        yield what, _interval(value)


def _tasks(found: dict[str, Any], english: bool) -> Iterator[tuple[str, str]]:
    for name, value in found.get("summary", {}).items():
        metric = value["metric"].replace("_", " ").replace("f1", "F1")
        probe, tuned = _interval(value["linear-probe"]), _interval(value["full-fine-tuning"])
        if english:
            yield f"{name}, {metric}, {value['full-fine-tuning']['n']} seeds", f"full {tuned}; probe {probe}"
        else:
            seeds = value["full-fine-tuning"]["n"]
            yield f"{name}，{metric}，{seeds} 个随机种子", f"全量微调 {tuned}；探针 {probe}"


def _speed(found: dict[str, Any], english: bool) -> Iterator[tuple[str, str]]:
    said = {
        "rate": (
            "training speed against `transformers.Trainer` at its best here",
            "训练速度，对比调到最好的 `transformers.Trainer`",
        ),
        "score": ("time to Trainer's final validation score", "达到 Trainer 最终验证分数所需的时间"),
        "textbook": (
            "training speed against the textbook recipe (padded to 512, batch 16, fp32)",
            "训练速度，对比教科书式做法（补齐到 512，批量 16，fp32）",
        ),
        "frozen": ("10 epochs with the lower blocks frozen, against Trainer", "冻结下层训练 10 轮，对比 Trainer"),
    }
    for part, names in said.items():
        if ratio := found.get("parts", {}).get(part, {}).get("ratio"):
            yield names[not english], f"{ratio:.1f}x faster" if english else f"快 {ratio:.1f} 倍"


def _resume(found: dict[str, Any], english: bool) -> Iterator[tuple[str, str]]:
    if summary := found.get("summary"):
        what = "killed with -9 at a random moment and resumed: weights the same to the bit"
        count = f"{summary['identical']} of {summary['kills']}"
        zh = f"{summary['kills']} 次中 {summary['identical']} 次"
        yield (what, count) if english else ("在随机时刻 kill -9 后恢复：权重逐位相同", zh)


def _advisor(found: dict[str, Any], english: bool) -> Iterator[tuple[str, str]]:
    if summary := found.get("summary"):
        count, regret, full = summary["races"], _interval(summary["regret"]), _interval(summary["regret_of_full"])
        if english:
            what = f"`advise`, points below the best of {count} races (baselines included), data sets it has not seen"
            yield what, f"{regret}; always full fine-tuning: {full}"
        else:
            what = f"`advise` 比 {count} 场比赛中的最佳者（含基线）低几个百分点，数据集它没见过"
            yield what, f"{regret}；总用全量微调：{full}"
        share = f"{summary['cost_share']:.0%}"
        yield ("cost of the advice, of its race", share) if english else ("给出建议的代价，占比赛时间", share)


def _ranking(found: dict[str, Any], english: bool) -> Iterator[tuple[str, str]]:
    if summary := found.get("summary"):
        scores = ", ".join(f"{name} {value['mean']:.2f}" for name, value in summary["scores"].items())
        count = summary["encoders"], summary["data_sets"]
        what = "rank correlation with fine-tuned accuracy, {} encoders, {} data sets" if english else (
            "与微调后准确率的秩相关，{} 个编码器，{} 个数据集")  # fmt: skip
        yield what.format(*count), scores


def _memory(found: dict[str, Any], english: bool) -> Iterator[tuple[str, str]]:
    for part, value in found.get("parts", {}).items():
        what = f"{part}, a CSV of {value['rows']:,} rows: peak memory"
        zh = f"{part}，{value['rows']:,} 行的 CSV：内存峰值"
        yield (what if english else zh), f"{value['peak_mib']:,.0f} MiB"


def _budget(found: dict[str, Any], english: bool) -> Iterator[tuple[str, str]]:
    if parts := list(found.get("parts", {}).values()):
        asked = ", ".join(f"{part['asked']:g}s" for part in parts)
        worst = max((part["off"] for part in parts), key=abs)
        what = f"`--budget` {asked}: largest distance from what was asked"
        yield (what if english else f"`--budget` {asked}：与要求的最大偏差"), f"{worst:+.1%}"


def _interval(value: dict[str, Any], *, sign: bool = False) -> str:
    half = value["half_width_95"]
    return (
        f"{100 * value['mean']:{'+' if sign else ''}.1f}" + (f" ± {100 * half:.1f}" if half is not None else "") + " %"
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    cells = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells)


def page(parts: Sequence[str]) -> str:
    """Paragraphs under a line that says where they come from."""
    return "\n\n".join(["<!-- Written by docs/generate.py. -->", *parts]) + "\n"


if __name__ == "__main__":
    main()
