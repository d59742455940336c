"""Searching for a prompt: the template and the label words by which a language model tells the classes best.

What is found is text that a person can read, and an ordinary verbalizer answers with it; no weight of the encoder
moves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, field_validator, model_validator

from graftwork.augmentations.passage import stop_words
from graftwork.cloze import Cloze, Gap, source_of
from graftwork.head import Head
from graftwork.heads.verbalizer import Verbalizer, VerbalizerNetwork, shares_of
from graftwork.method import Method
from graftwork.model import TransferModel
from graftwork.template import MASK, TEXT, Template

if TYPE_CHECKING:
    from torch import Tensor

    from graftwork.examples import Examples

TEMPLATES = (
    "{text} It was [MASK].",
    "{text} All in all, it was [MASK].",
    "{text} This is [MASK].",
    "{text} I think it is [MASK].",
    "{text} In short: [MASK].",
    "{text} The subject is [MASK].",
    "{text} It speaks of [MASK].",
    "A [MASK] text: {text}",
)
"""Templates that suit many tasks: the first ask how something is, the others what it is about."""
_LONGEST = 12
"""Words that a template has at most."""
_PROBABLE = 1000
"""Label words are looked for among so many, those that the model finds most probable at the gap."""
_ROWS_TO_FILL = 32
"""Rows that are read to propose a word."""
_TRIES = 20
"""Edits for each evaluation, at most: some give what was tried already."""
_TOLD = 10
"""So many of the best prompts are kept in the run."""
_SCALES = np.geomspace(0.1, 10, 13)
"""What the scores of the classes may be multiplied by."""


class PromptSearch(Method):
    """Find the template and the label words by which a language model tells the classes best; no weight trains.

    Each template is scored on train rows in cross-validation: what is chosen on some folds, the label words, is tried
    on another, by the mean log probability of the right class. First come the head's own template and `templates`;
    from the best of them `gradient` or `mutation` goes on. The winner is printed, kept in the run, and answers like
    any verbalizer: `prompt-search,lora@verbalizer` trains on from it.
    """

    paper: ClassVar[str] = (
        "AutoPrompt, Shin et al. 2020, sections 2.2 and 2.3; edits: GrIPS, Prasad et al. 2023; choosing by "
        "cross-validation on train: Perez et al. 2021"
    )
    gradient: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset({"pooled", "one-class", "text"})

    head: Head = Verbalizer()
    """A verbalizer: the template and the label words that are to be beaten."""
    by: Literal["candidates", "gradient", "mutation"] = "mutation"
    """Where further templates come from: nowhere; the gradient says which words would help in the place of a
    template's words; or words are deleted, inserted, swapped and replaced, the language model proposing which."""
    templates: tuple[str, ...] = TEMPLATES
    """To choose among and to begin from, besides the head's own; those that the model cannot read are left out."""
    words: tuple[Mapping[str, Sequence[str]], ...] = ()
    """Label words of each class to choose among, besides the head's own."""
    found_words: int = Field(default=5, ge=0)
    """So many label words a class are also looked for in the vocabulary, for each template; 0 keeps those given."""
    bias: Literal["rows", "nothing", "none"] = "rows"
    """What is taken off the answers: what they are on average over the rows, where nothing is said (contextual
    calibration), or nothing."""
    evaluations: int = Field(default=40, ge=1)
    """Templates that are scored, at most; each reads the rows once."""
    rows: int = Field(default=200, ge=2)
    """Train rows that a template is scored on, at most."""
    folds: int = Field(default=5, ge=2)
    """Folds of the cross-validation; fewer where a class has fewer rows."""
    top_k: int = Field(default=8, ge=1)
    """Words that are considered in the place of one."""
    population: int = Field(default=6, ge=1)
    """So many of the best templates are mutated."""
    seed: int = Field(default=0, ge=0)
    """Of rows, folds and mutations."""

    @field_validator("templates")
    @classmethod
    def _are_templates(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for template in value:
            Template(template)
        return value

    @model_validator(mode="after")
    def _answers_in_words(self) -> PromptSearch:
        if not isinstance(self.head, Verbalizer):
            raise ValueError(f"a prompt is searched for a verbalizer, not for the head {self.head.name!r}")
        return self

    def prepare(self, model: TransferModel, train: Examples) -> None:
        """Freeze everything, and see that there is a language model to ask and that it knows the words."""
        super().prepare(model, train)
        model.requires_grad_(False)
        source_of(model)
        for words in self._given(model):
            shares_of(model.text, words)

    def finish(self, model: TransferModel, train: Examples) -> TransferModel:
        """The model with the prompt that was found; what was tried is in its `found`."""
        rows = np.sort(np.random.default_rng(self.seed).permutation(len(train))[: self.rows])
        cloze = Cloze(model, train.data["train"].inputs(rows), np.asarray(train.targets[rows]))
        search = _Search(self, cloze, self._given(model))
        best = search.run()
        words = dict(zip(model.task.labels, best.words, strict=True))
        head = Verbalizer(template=best.template, words=words, calibrated=self.bias == "nothing")
        source = source_of(model)
        answering = TransferModel(model.encoder, search.plain, model.task, pooling=model.pooling, head=head)
        assert isinstance(answering.head, VerbalizerNetwork)
        answering.head.inherit(answering, source)
        if self.bias == "rows":
            with torch.no_grad():
                answering.head.bias.copy_(torch.from_numpy(search.fitted(best)))
        answering.found = search.told(best)
        return answering

    def _given(self, model: TransferModel) -> list[list[list[str]]]:
        """Of each set of label words that is given, the head's first, the words of each class."""
        assert isinstance(model.head_choice, Verbalizer)
        heads = [model.head_choice, *(Verbalizer(words=words) for words in self.words)]
        return [head.words_of(model.task.labels) for head in heads]


@dataclass(frozen=True)
class Prompt:
    """A template and the words of each class, and what they are worth on rows that they were not chosen by."""

    template: str
    words: list[list[str]]
    log_likelihood: float
    """Mean log probability of the right class, in nats."""
    accuracy: float


class _Search:
    """One search: templates are scored, once each, until there is nothing to try or `evaluations` are spent."""

    def __init__(self, asked: PromptSearch, cloze: Cloze, given: list[list[list[str]]]):
        self.asked, self.cloze, self.given = asked, cloze, given
        self.plain = cloze.model.modality
        self.luck = np.random.default_rng((asked.seed, 1))
        self.folds = _folds(cloze.targets, asked.folds, asked.seed)
        self.tried: dict[str, Prompt] = {}

    def run(self) -> Prompt:
        """The best of all that was tried."""
        assert self.plain.template is not None
        for template in (self.plain.template.text, *self.asked.templates):
            self.score(template)
        if self.asked.by == "gradient":
            self._follow_the_gradient()
        elif self.asked.by == "mutation":
            self._mutate()
        return self.ranked[0]

    @property
    def ranked(self) -> list[Prompt]:
        """What was tried, the best first; of equals what was tried first."""
        return sorted(self.tried.values(), key=lambda prompt: -prompt.log_likelihood)

    @property
    def spent(self) -> bool:
        """Whether as many templates were scored as may be."""
        return len(self.tried) >= self.asked.evaluations

    def score(self, template: str) -> None:
        """Try a template with every set of label words, unless it cannot be read, was tried, or nothing is left."""
        read = self.cloze.read(template)
        if read is None or read in self.tried or self.spent:
            return
        gap = self.cloze.gap(read)
        self.tried[read] = max(self._prompts(read, gap), key=lambda prompt: prompt.log_likelihood)

    def _prompts(self, template: str, gap: Gap) -> Iterator[Prompt]:
        """The template with each set of label words; last with those that are looked for."""
        for words in self.given:
            yield Prompt(template, words, *self._held_out(gap, lambda _rows, words=words: words))
        if self.asked.found_words:
            found = self._looked_for(gap)
            yield Prompt(template, found(np.arange(len(self.cloze.targets))), *self._held_out(gap, found))

    def _held_out(self, gap: Gap, words_by: Callable[[np.ndarray], list[list[str]]]) -> tuple[float, float]:
        """Mean log probability of the right class, and accuracy, of rows by words that the other folds choose."""
        chances = np.zeros((len(self.cloze.targets), len(self.given[0])))
        for rows, held in self.folds:
            words = words_by(rows)
            scale, bias = self._fitted(gap, words, rows)
            chances[held] = _log_softmax(scale * self._scores(gap, gap.states[held], words) + bias)
        right = self.cloze.targets
        return float(chances[np.arange(len(right)), right].mean()), float((chances.argmax(axis=1) == right).mean())

    def _fitted(self, gap: Gap, words: list[list[str]], rows: np.ndarray) -> tuple[float, np.ndarray]:
        """What multiplies the scores of the classes, and what is then added, (classes,), by the labels of `rows`."""
        scores = self._scores(gap, gap.states[rows], words)
        fixed = np.zeros(len(words))
        if self.asked.bias == "nothing":
            fixed = -np.log(np.exp(_log_softmax(self._scores(gap, gap.nothing, words))).mean(axis=0))
        return fitted(scores, self.cloze.targets[rows], None if self.asked.bias == "rows" else fixed)

    def fitted(self, prompt: Prompt) -> np.ndarray:
        """What is added to the scores of the classes where nothing multiplies them, (classes,), by all rows."""
        scale, bias = self._fitted(self.cloze.gap(prompt.template), prompt.words, np.arange(len(self.cloze.targets)))
        return bias / scale

    def _scores(self, gap: Gap, states: Tensor, words: list[list[str]]) -> np.ndarray:
        return self.cloze.scores(gap.modality, states, words).double().cpu().numpy()

    # --- label words ---

    def _looked_for(self, gap: Gap) -> Callable[[np.ndarray], list[list[str]]]:
        """What finds the words of each class by the labels of some rows, among those that are probable at the gap."""
        scores = self.cloze.word_scores(gap.states)  # (rows, words)
        probable = scores.log_softmax(dim=-1).mean(dim=0).cpu().numpy()
        words = self.cloze.vocabulary.words
        allowed = [i for i, word in enumerate(words) if len(word) > 2 and word.islower() and word not in stop_words()]
        among = np.array(sorted(allowed, key=lambda i: -probable[i])[:_PROBABLE], dtype=np.int64)
        said = scores.cpu().numpy()[:, among]

        def found(rows: np.ndarray) -> list[list[str]]:
            if not len(among):  # a vocabulary without whole words in lower case
                return self.given[0]
            tell = telling(said[rows], self.cloze.targets[rows], len(self.given[0]))
            return [
                [words[among[i]] for i in np.argsort(-each, kind="stable")[: self.asked.found_words] if each[i] > 0]
                or self.given[0][label]
                for label, each in enumerate(tell)
            ]

        return found

    # --- further templates: where the gradient points ---

    def _follow_the_gradient(self) -> None:
        """The best template whose gradient has not been asked gets other words, until one of them does better still."""
        asked: set[str] = set()
        while not self.spent:
            prompt = next((each for each in self.ranked if each.template not in asked), None)
            if prompt is None:
                return
            asked.add(prompt.template)
            best, slopes = self.ranked[0], self._slopes(prompt)
            for unit in self.luck.permutation(sorted(slopes)).tolist():
                start, end = Template(prompt.template).units[unit]
                for word in self._fitting(prompt, self.cloze.along(slopes[unit]), prompt.template[start:end]):
                    self.score(_with(prompt.template, unit, word))
                if self.ranked[0] is not best:
                    break

    def _slopes(self, prompt: Prompt) -> dict[int, Tensor]:
        gap = self.cloze.gap(prompt.template)
        scale, bias = self._fitted(gap, prompt.words, np.arange(len(self.cloze.targets)))
        return self.cloze.slopes(gap, prompt.words, scale, torch.from_numpy(bias))

    # --- further templates: edits ---

    def _mutate(self) -> None:
        """One of the best templates is edited, again and again."""
        for _ in range(_TRIES * self.asked.evaluations):
            if self.spent:
                return
            parents = self.ranked[: self.asked.population]
            edited = _EDITS[self.luck.integers(len(_EDITS))](self, parents[self.luck.integers(len(parents))])
            if edited:
                self.score(edited)

    def _deleted(self, prompt: Prompt) -> str | None:
        unit = self._drawn(_words(prompt.template))
        return None if unit is None else _with(prompt.template, unit, "")

    def _swapped(self, prompt: Prompt) -> str | None:
        """Two neighbours, the text and the gap among them, change places."""
        units = Template(prompt.template).units
        unit = self._drawn(range(len(units) - 1))
        if unit is None:
            return None
        (start, stop), (begin, end) = units[unit : unit + 2]
        text = prompt.template
        return text[:start] + text[begin:end] + text[stop:begin] + text[start:stop] + text[end:]

    def _inserted(self, prompt: Prompt) -> str | None:
        """A word more, before one of the units or at the end."""
        units = Template(prompt.template).units
        places = [start for start, _ in units] + [len(prompt.template)] * (not Template(prompt.template).masked)
        place = self._drawn(places)
        if place is None or len(_words(prompt.template)) >= _LONGEST:
            return None
        before, after = prompt.template[:place], prompt.template[place:]
        before, after = (before, f" {after}") if after else (f"{before} ", after)
        word = self._proposed(prompt, before, after, "word")
        return word and before + word + after

    def _replaced(self, prompt: Prompt) -> str | None:
        """Another word in the place of one."""
        unit = self._drawn(_words(prompt.template))
        if unit is None:
            return None
        start, end = Template(prompt.template).units[unit]
        before, after = prompt.template[:start], prompt.template[end:]
        word = self._proposed(prompt, before, after, prompt.template[start:end])
        return word and before + word + after

    def _drawn(self, places: Sequence[int]) -> int | None:
        return int(self.luck.choice(places)) if len(places) else None

    def _proposed(self, prompt: Prompt, before: str, after: str, instead: str) -> str | None:
        """A word between two parts of a template, drawn from the `top_k` that the model finds most probable there.

        It reads rows in the template, and at its gap a word of their class, as it will stand there (LM-BFF, Gao et al.
        2021, section 5.2).
        """
        rows = np.arange(len(self.cloze.targets))[:_ROWS_TO_FILL]
        asked = {}
        for label in np.unique(self.cloze.targets[rows]):
            said = prompt.words[label][0]
            template = before.replace(MASK, said) + MASK + after.replace(MASK, said)
            asked[template] = rows[self.cloze.targets[rows] == label]
        if any(self.cloze.read(template) is None for template in asked):
            return None
        probable = self.cloze.fill(asked)
        words = self._fitting(prompt, probable, instead)
        chances = np.exp([probable[self.cloze.vocabulary.words.index(word)] for word in words])
        return str(self.luck.choice(words, p=chances / chances.sum())) if words else None

    def _fitting(self, prompt: Prompt, values: np.ndarray, instead: str) -> list[str]:
        """The `top_k` whole words of the highest values, (words,), in the same case, and no label word."""
        vocabulary = self.cloze.vocabulary
        barred = {instead, *(word for words in (*self.given, prompt.words) for each in words for word in each)}
        order = np.argsort(-values[vocabulary.cased_like(instead)], kind="stable")
        fitting = (vocabulary.words[i] for i in np.flatnonzero(vocabulary.cased_like(instead))[order])
        return list(islice((word for word in fitting if word not in barred), self.asked.top_k))

    # --- what came of it ---

    def told(self, best: Prompt) -> dict[str, Any]:
        """For the run, and, under `said`, for people."""
        labels = self.cloze.model.task.labels
        shown = [
            asdict(prompt) | {"words": dict(zip(labels, prompt.words, strict=True))} for prompt in self.ranked[:_TOLD]
        ]
        words = "; ".join(f"{label}: {', '.join(each)}" for label, each in shown[0]["words"].items())
        said = (
            f"Found, of {len(self.tried)} templates: {best.template!r} with {words} "
            f"({best.accuracy:.1%} of {len(self.cloze.targets)} train rows right in cross-validation)."
        )
        return {"said": said, "tried": len(self.tried), "rows": len(self.cloze.targets), "best": shown}


_EDITS = (_Search._deleted, _Search._inserted, _Search._swapped, _Search._replaced)


def _words(template: str) -> list[int]:
    """Which units of a template are words."""
    return [i for i, (a, b) in enumerate(Template(template).units) if template[a:b] not in (TEXT, MASK)]


def _with(template: str, unit: int, word: str) -> str:
    """The template with another word in the place of one, or, where that is empty, without it."""
    start, end = Template(template).units[unit]
    joined = " ".join((template[:start] + word + template[end:]).split())
    return joined if word else re.sub(r" (?=[.,;:!?])", "", joined)


def telling(scores: np.ndarray, targets: np.ndarray, classes: int) -> np.ndarray:
    """By how many standard deviations a word is the more probable in its class: (classes, words).

    Shin et al. 2020, section 2.3, take the words that are near to what a regression at the gap learned; where one
    reading gives every word's score, that can be measured. A word speaks for one class: elsewhere it has -inf.

    Args:
        scores: of each word in each row, (rows, words).
        targets: the class of each row, (rows,).
        classes: how many there are.
    """
    means = np.stack(
        [scores[targets == k].mean(axis=0) if (targets == k).any() else scores.min(axis=0) for k in range(classes)]
    )
    spread = np.sqrt(((scores - means[targets]) ** 2).mean(axis=0))
    spread += np.median(spread)  # what hardly varies tells little (SAM, Tusher et al. 2001)
    others = np.stack([scores[targets != k].mean(axis=0) if (targets != k).any() else means[k] for k in range(classes)])
    tell = (means - others) / spread
    return np.where(np.arange(classes)[:, None] == tell.argmax(axis=0), tell, -np.inf)


def fitted(scores: np.ndarray, targets: np.ndarray, bias: np.ndarray | None) -> tuple[float, np.ndarray]:
    """Scale t and biases b, (classes,), under which t * scores + b makes the targets most probable.

    With `bias` given, b is t * bias. Else it is such that each class is as probable on average as it is frequent, which
    maximises the likelihood; half a row of each class is added to their counts.
    """
    counts = np.bincount(targets, minlength=scores.shape[1]) + 0.5
    shares = np.log(counts / counts.sum())
    best, b = (-np.inf, 1.0, np.zeros(len(counts))), np.zeros(len(counts))
    for scale in _SCALES:
        b = _balanced(scale * scores, shares, b, 10) if bias is None else scale * bias
        likelihood = _log_softmax(scale * scores + b)[np.arange(len(targets)), targets].mean()
        best = max(best, (likelihood, scale, b), key=lambda found: found[0])
    _, scale, b = best
    return scale, _balanced(scale * scores, shares, b, 100) if bias is None else b


def _balanced(scores: np.ndarray, shares: np.ndarray, bias: np.ndarray, steps: int) -> np.ndarray:
    """The biases under which the mean probabilities have these logarithms, by iterative scaling from `bias`."""
    for _ in range(steps):
        bias = bias + shares - np.log(np.exp(_log_softmax(scores + bias)).mean(axis=0))
    return bias


def _log_softmax(scores: np.ndarray) -> np.ndarray:
    scores = scores - scores.max(axis=-1, keepdims=True)
    return scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))


def _folds(targets: np.ndarray, folds: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Which rows choose and which are tried, stratified where each class has as many rows as there are folds."""
    from sklearn.model_selection import KFold, StratifiedKFold

    fewest = int(np.unique(targets, return_counts=True)[1].min())
    if fewest >= 2:
        cut = StratifiedKFold(min(folds, fewest), shuffle=True, random_state=seed)
    else:
        cut = KFold(min(folds, len(targets)), shuffle=True, random_state=seed)
    return list(cut.split(targets, targets))
