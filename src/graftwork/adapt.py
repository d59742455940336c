"""adapt: take a model to a domain of which only texts are known, and say whether that helped.

First the shift is measured, then what was chosen is run beside doing nothing, and both are judged: on source
validation, and on labelled target rows where there are some for judging. These are never learned from.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import graftwork.methods  # noqa: F401  puts every method on its shelf
from graftwork.budget import Budget
from graftwork.choice import InputError
from graftwork.corpus import Corpus
from graftwork.disk import atomic_write
from graftwork.evaluate import evidence_of, evidence_of_runs
from graftwork.finding import Finding, Kind
from graftwork.fit import fit
from graftwork.hardware import Hardware
from graftwork.language import kind_of, language_model
from graftwork.loop import default_budget
from graftwork.method import Method, recipe_of, unmet
from graftwork.methods.domain import Coral, plain
from graftwork.methods.finetune import FullFineTuning
from graftwork.modalities.text import Text
from graftwork.model import TransferModel
from graftwork.models import resolve
from graftwork.pretext import pretext_of
from graftwork.pretrain import pretrain
from graftwork.report import report
from graftwork.run import Run, refuse_replacing
from graftwork.shift import Shift, embedded, masked_loss, plain_texts, shift, texts_model
from graftwork.significance import Evidence, difference
from graftwork.work import OnEvent

if TYPE_CHECKING:
    from graftwork.data import Data

PRETRAINING = "continued-pretraining"
"""What is asked for as the first stage, and no method of `fit`: the base is made anew."""
LEVEL = 0.05
"""A difference with a p below this is believed."""

_WINDOW = 64  # pieces that are read at once, of texts that are short as a rule
_HELD_WORDS = 200
_OTHERS = 200  # texts on which forgetting is measured
_SMALL = 5_000_000  # bytes of texts that may be held in memory

_Kind = partial(Kind, about="adaptation")
HURT = _Kind("adaptation-hurt", "warning", "The adapted model is worse than the one that was not adapted.")
HELPED = _Kind("adaptation-helped", "note", "The adapted model is better than the one that was not adapted.")
UNTOLD = _Kind("adaptation-untold", "note", "Nobody knows whether adapting helped: no target labels, or no difference.")
FORGOTTEN = _Kind("adaptation-forgot", "warning", "The new base foretells other texts worse than the old one did.")


@dataclass(frozen=True)
class Judged:
    """The adapted model against the one that was not adapted, on the same rows."""

    on: str
    """`source validation`, or `target`: the labelled rows that were given for judging."""
    rows: int
    metric: str
    before: float
    """Without adapting."""
    after: float
    """Adapted."""
    difference: float
    """How much higher the score is."""
    low: float
    """Lower end of the difference's 95 % interval, paired by row."""
    high: float
    """Upper end."""
    p: float
    """Probability of so large a difference by chance."""

    @property
    def sentence(self) -> str:
        """It all, in points."""
        return (
            f"On {self.on} ({self.rows:,} rows): {self.metric} {100 * self.before:.1f} without adapting, "
            f"{100 * self.after:.1f} adapted; {100 * self.difference:+.1f} points [{100 * self.low:+.1f}, "
            f"{100 * self.high:+.1f}], p {self.p:.2g}."
        )


@dataclass(frozen=True)
class Forgetting:
    """What further pretraining did to texts that are not of the target."""

    of: str
    """Which texts."""
    before: float | None
    """Nats a hidden piece, before; None where the model had no head to foretell it."""
    after: float | None
    """Afterwards."""
    similarity: float
    """The mean cosine of a text's embedding before and after, in [-1, 1]; 1 is unchanged."""

    @property
    def sentence(self) -> str:
        """It all."""
        kept = f"their embeddings' mean cosine with what they were is {self.similarity:.3f}"
        if self.before is None or self.after is None:
            return f"Forgetting, on {self.of}: {kept}; it had no head to foretell hidden pieces with before."
        return f"Forgetting, on {self.of}: {self.before:.2f} nats a hidden piece, {self.after:.2f} afterwards; {kept}."


def adapt(
    model: str | Path,
    target: str | Path,
    *,
    source: Any = None,
    method: Any = "auto",
    judge: Any = None,
    budget: str | Budget | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    force: bool = False,
    hardware: Hardware | dict[str, Any] | None = None,
    on_event: OnEvent | None = None,
    **load: Any,
) -> Run:
    """Adapt a model to the domain of `target`; without `source` its language alone, by further pretraining.

    What is chosen by validation is chosen by source rows; `judge` is read when everything is decided.

    Args:
        model: an embedded model, a folder, a run, or a hub id.
        target: a file of unlabelled texts of the domain.
        source: labelled data of another domain, as `Data.load` takes it.
        method: a method or recipe that heeds the target; `"continued-pretraining"`, or a list that begins with it; or
            `"auto"`, which takes what the measured shift supports.
        judge: labelled rows of the target, to judge by alone.
        budget: of each run: `3epochs`, `500steps`, `90s`; by default what full fine-tuning asks for (one pass over the
            target where there is no source).
        seed: of everything random.
        out: the run's folder; by default runs/DATA-adapted. Beside it, with `-before`, is the run that was not
            adapted, and with `-base` what was pretrained further.
        force: whether finished runs there may be replaced.
        hardware: device, precision, batch split.
        on_event: is told what happens, as it happens.
        load: further options of `Data.load` for the source, such as `text` and `label`.

    Returns:
        The adapted run; `happened["adaptation"]` holds `method`, `why`, `shift`, `judged`, `forgetting`, `said`,
        `hurt`, `before` and `base`. Where the shift supports nothing, it is the run that was not adapted.

    Raises:
        InputError: something given cannot be used; nothing has been trained.

    Example:
        run = adapt("minilm", "kitchen.txt", source="books.csv", method="coral", judge="kitchen_labelled.csv")
        run.happened["adaptation"]["said"]
    """
    work = _Adapting(model, target, Hardware.of(hardware), seed, on_event, force)
    if source is None:
        if judge is not None or load:
            raise InputError(
                "Without --source nothing is learned that could be judged. Give labelled data of a source."
            )
        if method not in ("auto", PRETRAINING, [PRETRAINING]):
            raise InputError(f"Method {method!r} needs labelled data: give --source. Without it: {PRETRAINING}.")
        return work.pretrained_alone(Path(out) if out else None, budget)
    return work.adapted(source, load, method, judge, Path(out) if out else None, budget)


class _Adapting:
    """One adaptation."""

    def __init__(
        self, model: str | Path, target: str | Path, hardware: Hardware, seed: int, told: OnEvent | None, force: bool
    ):
        self.model, self.target, self.hardware = model, target, hardware
        self.seed, self.told, self.force, self.said = seed, told, force, set[str]()
        resolve(model)

    # --- with labels of a source ---

    def adapted(
        self, source: Any, load: dict[str, Any], method: Any, judge: Any, out: Path | None, budget: str | Budget | None
    ) -> Run:
        """Measure, choose, run, judge."""
        from graftwork.data import Data

        data = Data.of({"source": source, "target": self.target, **load})
        data.require_texts("graft adapt")
        asked = None if method in ("auto", ["auto"]) else method if isinstance(method, (list, tuple)) else [method]
        if asked:
            self._recipe(asked, data)  # refuses what cannot be before anything is measured
        rows = _to_judge(judge, data) if judge is not None else None
        path = out or Run.default_path(data.name, "adapted")
        self._require_room(path)
        for sentence in data.said:
            self._note(sentence)
        self.said |= set(data.said)
        self._note("Measuring the shift")
        measured = shift(data, model=self.model, seed=self.seed, hardware=self.hardware)
        for sentence in measured.said:
            self._note(sentence)
        chosen, why = (asked, "It was asked for.") if asked else supported(measured)
        self._note(f"{'Nothing' if not chosen else ', '.join(_titles(chosen))}. {why}")
        spent = str(Budget.parse(budget) if budget else default_budget(FullFineTuning(), len(data["train"])))
        told: dict[str, Any] = {
            "method": list(chosen), "why": why, "shift": measured.as_dict(), "judged": [], "forgetting": None,
            "base": None, "before": None,
        }  # fmt: skip
        if not chosen:
            return self._told(self._fitted(data, [FullFineTuning()], path, spent), told, [])
        recipe, pretrains = self._recipe(chosen, data)
        before = self._fitted(data, plain(recipe), _beside(path, "before"), spent)
        told["before"] = str(before.path)
        base: Run | None = None
        if pretrains:
            base = self._pretrained(_beside(path, "base"), spent, plain_texts(data["target"], most=None))
            told["base"] = str(base.path)
            told["forgetting"] = self._forgetting(base, plain_texts(data["train"], most=_OTHERS), "the source's texts")
        after = self._fitted(data, recipe, path, spent, base)
        judged = [self._on_validation(before, after, data)]
        if rows is not None:
            judged.append(self._on_target(before, after, rows))
        told["judged"] = judged
        return self._told(after, told, _findings(judged, told["forgetting"]))

    def _require_room(self, path: Path) -> None:
        """Refuse where something would be lost.

        Raises:
            InputError: there is a run, without `force`, or something else.
        """
        for place in (path, _beside(path, "before"), _beside(path, "base")):
            if place.exists() and any(place.iterdir() if place.is_dir() else [place]):
                refuse_replacing(place, force=self.force)
        texts = _beside(path, "texts")
        strange = texts.is_dir() and {file.name for file in texts.iterdir()} - {"train.jsonl", "validation.jsonl"}
        if texts.exists() and (strange or not self.force):
            raise InputError(
                f"'{texts}' is there, where the target's texts would be written. Choose another --out"
                + ("." if strange else ", or replace it with --force.")
            )

    def _recipe(self, asked: Sequence[Any], data: Data) -> tuple[Sequence[Method], bool]:
        """The stages, and whether the model is pretrained further before.

        Raises:
            InputError: they do nothing with the target, or need what is not there.
        """
        pretrains = asked[0] == PRETRAINING
        stages = recipe_of(list(asked[pretrains:]) or FullFineTuning())
        if sentence := unmet(stages, data):
            raise InputError(sentence)
        if not pretrains and plain(stages) == list(stages):
            raise InputError(
                f"{'+'.join(m.title for m in stages)} does nothing with the target. Take one that does: dann, coral, "
                f"pseudo-labels, domain-stacking, tsdae, METHOD:importance-sampling, or {PRETRAINING}."
            )
        return stages, pretrains

    def _fitted(self, data: Data, recipe: Sequence[Method], path: Path, budget: str, base: Run | None = None) -> Run:
        self._note(f"Fitting {path.name}: {'+'.join(m.title for m in recipe)}")
        steps = budget if any(m.gradient for m in recipe) else None
        return fit(
            data, model=base.path if base else self.model, method=list(recipe), budget=steps, seed=self.seed, out=path,
            force=self.force, hardware=self.hardware, on_event=self._hear,
        )  # fmt: skip

    def _on_validation(self, before: Run, after: Run, data: Data) -> Judged:
        """By what both runs answered of the source's validation, on which their weights were chosen."""
        task = TransferModel.load(after.path / "model").task
        found = [evidence_of_runs(task, [run], "validation") for run in (before, after)]
        return _judged("source validation", task.selection, *found)

    def _on_target(self, before: Run, after: Run, rows: Data) -> Judged:
        """By labelled rows of the target that nothing was learned from."""
        found, labels = [], rows["train"].labels()
        for run in (before, after):
            model = TransferModel.load(run.path / "model").to(self.hardware.torch_device())
            answers = model.predict(rows["train"].inputs())
            chances = [None if a.probabilities is None else list(a.probabilities.values()) for a in answers]
            found.append(evidence_of(model.task, labels, [a.label for a in answers], chances))
        return _judged("target", model.task.selection, *found)

    # --- without labels ---

    def pretrained_alone(self, out: Path | None, budget: str | Budget | None) -> Run:
        """Further pretraining on the target, and what was forgotten over it."""
        from graftwork.data import Data

        path = out or Run.default_path(Path(self.target).stem, "adapted")
        self._require_room(path)
        self._note("Without labels of a source there is no shift to measure: the model goes on reading the target.")
        base = self._pretrained(path, str(Budget.parse(budget)) if budget else "1epochs", _texts_of(self.target))
        general = plain_texts(Data.load("pydocs", test=0)["train"], most=_OTHERS)
        forgotten = self._forgetting(base, general, "sentences about Python, the only other texts at hand")
        told = {
            "method": [PRETRAINING], "why": "There are no labels.", "shift": None, "judged": [],
            "forgetting": forgotten, "base": str(base.path), "before": None,
        }  # fmt: skip
        return self._told(base, told, _findings([], forgotten))

    def _pretrained(self, path: Path, budget: str, texts: Sequence[str] | None) -> Run:
        """The model after reading the target on; of few texts, more than usual are held out, so that they tell."""
        self._note(f"Reading the target on: {path.name}")
        folder = resolve(self.model)
        corpus = self.target if texts is None else _corpus(_beside(path, "texts"), texts)
        return pretrain(
            corpus, objective=pretext_of(kind_of(folder)), model=self.model, budget=budget, seed=self.seed,
            length=min(_WINDOW, Text.from_folder(folder).max_length), out=path, force=self.force,
            hardware=self.hardware, on_event=self.told,
        )  # fmt: skip

    def _forgetting(self, base: Run, texts: Sequence[str], of: str) -> Forgetting:
        """What the new base makes of other texts, and what the old one did."""
        folders = resolve(self.model), resolve(base.path)
        losses: list[float | None] = []
        for folder in folders:
            language = language_model(folder, "masked") if kind_of(folder) == "masked" else None
            told = language is not None and not language.head.fresh
            losses.append(masked_loss(language, texts) if told and language else None)
        old, new = (embedded(texts_model(folder, self.hardware), texts) for folder in folders)
        cosines = (old * new).sum(1) / (np.linalg.norm(old, axis=1) * np.linalg.norm(new, axis=1))
        return Forgetting(of, losses[0], losses[1], float(cosines.mean()))

    # --- what is told ---

    def _told(self, run: Run, told: dict[str, Any], findings: Sequence[Finding]) -> Run:
        """Write what came of it into the run."""
        judged, forgotten, shifted = told["judged"], told["forgetting"], told["shift"]
        said = [*(shifted["said"] if shifted else ()), told["why"], *(j.sentence for j in judged)]
        said += [forgotten.sentence] if forgotten else []
        found = [stage.get("found", {}) for stage in run.happened["stages"]]
        said += [_of_pseudo_labels(each["pseudo_labels"]) for each in found if "pseudo_labels" in each]
        told |= {
            "method": [m if isinstance(m, (str, dict)) else m.spec() for m in told["method"]],
            "judged": [asdict(j) for j in judged], "forgetting": asdict(forgotten) if forgotten else None,
            "said": said, "hurt": any(f.code == HURT.code for f in findings),
        }  # fmt: skip
        run.update(happened={"adaptation": told}, findings=[*run.findings, *(f.as_dict() for f in findings)])
        if not run.is_base:
            report(run)
        return run

    def _note(self, message: str) -> None:
        self._hear({"event": "note", "message": message})

    def _hear(self, event: dict[str, Any]) -> None:
        """Pass on what a run tells; what the data was understood to be is not said again for every run."""
        if self.told and event.get("message") not in self.said:
            self.told(event)


def _of_pseudo_labels(told: dict[str, Any]) -> str:
    """How many answers became labels, and how far such answers can be trusted."""
    right = told["validation_precision"]
    checked = "no source validation row was, so that they are unchecked" if right is None else (
        f"of the {told['validation_taken']:,} source validation rows that were, {right:.0%} are right; perhaps "
        "fewer of the target's"
    )  # fmt: skip
    return (
        f"Pseudo-labels: {told['taken']:,} of {told['target_rows']:,} target rows were answered with a confidence of "
        f"{told['threshold']:g} or more; {checked}."
    )


def supported(measured: Shift) -> tuple[list[Any], str]:
    """What a shift supports, nothing perhaps, and why."""
    if measured.rarer:
        return [PRETRAINING], "The target's language is rarer to the model, which reading it further can mend."
    if measured.near:
        return [], "The domains look alike to this model, and its language is no rarer: no measure supports adapting."
    return [Coral()], "The domains differ in what the model makes of them, which making both alike can mend."


def _beside(path: Path, what: str) -> Path:
    return path.with_name(f"{path.name}-{what}")


def _texts_of(target: str | Path) -> list[str] | None:
    """The texts of a file, of a .txt its lines; None where it is large and better read as a stream.

    Raises:
        InputError: there is nothing to read, or hardly anything.
    """
    corpus = Corpus(target)
    if sum(file.stat().st_size for file in corpus.files) > _SMALL:
        return None
    texts = [text for text, _ in corpus.passages("all")]
    if str(target).endswith(".txt"):
        texts = [line for text in texts for line in text.splitlines() if line.strip()]
    if sum(len(text.split()) for text in texts) < 2 * _HELD_WORDS or len(texts) < 2:
        raise InputError(f"{str(target)!r} holds fewer than {2 * _HELD_WORDS} words: too little to read on from.")
    return texts


def _corpus(folder: Path, texts: Sequence[str]) -> Path:
    """A folder of texts for `pretrain`: one in twenty is held out, or more until these hold 200 words, up to a half."""
    words = np.cumsum([len(text.split()) for text in texts])
    held = min(max(len(texts) // 20, int(np.searchsorted(words, _HELD_WORDS)) + 1), len(texts) // 2)
    folder.mkdir(parents=True, exist_ok=True)
    for name, some in (("validation", texts[:held]), ("train", texts[held:])):
        lines = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in some)
        atomic_write(folder / f"{name}.jsonl", lines.encode())
    return folder


def _titles(chosen: Sequence[Any]) -> list[str]:
    return [m if isinstance(m, str) else next(iter(m)) if isinstance(m, dict) else m.title for m in chosen]


def _to_judge(judge: Any, data: Data) -> Data:
    """Labelled rows of the target.

    Raises:
        InputError: they have labels that the source has not, or another task.
    """
    from graftwork.data import Data

    text, label = data.columns.text, data.columns.label
    rows = Data.load(judge, text=text, label=label, task=data.task, validation=0, test=0)
    if odd := sorted(set(rows["train"].counts) - set(data.labels)):
        raise InputError(f"The rows to judge by have labels that the source has not: {odd[:5]}. Mend or drop them.")
    return rows


def _judged(on: str, metric: str, before: Evidence, after: Evidence) -> Judged:
    gap, low, high, p = difference(after, before)
    scores = float(before.scores.mean()), float(after.scores.mean())
    return Judged(on, len(before.tallies[0]), metric, *scores, gap, low, high, p)


def _findings(judged: Sequence[Judged], forgotten: Forgetting | None) -> list[Finding]:
    """What a user must know: whether it hurt, whether it helped, or that nobody can tell."""
    found = []
    for each in judged:
        points = f"{100 * abs(each.difference):.1f} points, p {each.p:.2g}"
        if each.p < LEVEL and each.difference < 0:
            fix = "Take the run that was not adapted." if each.on == "target" else "Do not use it on source texts."
            found.append(HURT(f"Adapting hurt on {each.on}: {points}.", fix=fix))
        elif each.p < LEVEL:
            found.append(HELPED(f"Adapting helped on {each.on}: {points}."))
    if judged and judged[-1].on != "target":
        message = "No labelled target rows were given, so nobody knows what adapting did to the target."
        found.append(UNTOLD(message, fix="Label some, 200 say, and give them with --judge."))
    elif judged and judged[-1].p >= LEVEL:
        found.append(UNTOLD(f"No difference can be told on {judged[-1].rows:,} rows of the target."))
    if forgotten and forgotten.before and (forgotten.after or 0.0) > forgotten.before:
        message = f"What was read on cost {(forgotten.after or 0.0) - forgotten.before:.2f} nats a hidden piece"
        found.append(FORGOTTEN(f"{message} on {forgotten.of}."))
    return found
