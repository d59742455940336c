"""Whether one method is better than another on the same rows, or the difference is what chance gives.

Two things are random: which rows happen to be in the test split, and which seed a run was given. A paired bootstrap
draws both anew, the same rows for every method (Efron & Tibshirani 1993, chapter 16; for language tasks: Koehn 2004,
Berg-Kirkpatrick et al. 2012). McNemar's exact test looks at the rows where exactly one of two methods is right
(McNemar 1947; Dietterich 1998). A difference is believed where both see it, after Holm's correction for the number of
methods compared (Holm 1979); what is not worse than the best in this sense is tied with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 2000
_CHUNK = 4_000_000  # bootstrap weights held at once


@dataclass(frozen=True)
class Evidence:
    """What the runs of one method said about each row."""

    tallies: Sequence[np.ndarray]
    """One (rows, k) array a seed: what each row adds to the sums that the score is made of."""
    score: Callable[[np.ndarray], np.ndarray]
    """Sums (..., k) over rows to scores (...)."""
    correct: Sequence[np.ndarray] | None = None
    """One (rows,) bool array a seed, where a row is right or wrong as a whole."""

    @property
    def scores(self) -> np.ndarray:
        """The score of each seed: (seeds,)."""
        return np.array([float(self.score(t.sum(axis=0))) for t in self.tallies])


@dataclass(frozen=True)
class Standing:
    """Where one method stands among the others."""

    mean: float
    """Mean score over seeds."""
    low: float
    """Lower end of the 95 % interval over rows and seeds."""
    high: float
    """Upper end."""
    sd: float | None
    """Standard deviation over seeds; None for a single one."""
    behind: float
    """How far the best is ahead, in points of the score; 0 for the best itself."""
    p: float | None
    """Probability of so large a difference to the best by chance, Holm-corrected; None for the best itself."""
    tied: bool
    """Whether this method is the best or cannot be told from it."""


def standings(
    methods: Mapping[str, Evidence], *, level: float = 0.05, draws: int = DRAWS, seed: int = 0
) -> dict[str, Standing]:
    """Every method against the one with the highest mean score, the best first.

    Args:
        methods: the evidence of each method; all on the same rows in the same order.
        level: differences with a corrected p below this are believed, in (0, 1).
        draws: of the bootstrap.
        seed: of the bootstrap.
    """
    means = {name: float(e.scores.mean()) for name, e in methods.items()}
    order = sorted(methods, key=lambda name: -means[name])
    best = order[0]
    drawn = _drawn(methods, draws, np.random.default_rng(seed))
    raw = {name: _p(methods[best], methods[name], drawn[best] - drawn[name]) for name in order[1:]}
    corrected = holm(raw)
    found = {}
    for name in order:
        low, high = np.quantile(drawn[name], [0.025, 0.975])
        scores = methods[name].scores
        p = corrected.get(name)
        found[name] = Standing(
            mean=means[name], low=float(low), high=float(high),
            sd=float(scores.std(ddof=1)) if len(scores) > 1 else None,
            behind=means[best] - means[name], p=p, tied=p is None or p >= level,
        )  # fmt: skip
    return found


def difference(a: Evidence, b: Evidence, *, draws: int = DRAWS, seed: int = 0) -> tuple[float, float, float, float]:
    """How much better `a` is than `b`: (mean, low, high, p), with the 95 % interval."""
    drawn = _drawn({"a": a, "b": b}, draws, np.random.default_rng(seed))
    gaps = drawn["a"] - drawn["b"]
    low, high = np.quantile(gaps, [0.025, 0.975])
    return float(a.scores.mean() - b.scores.mean()), float(low), float(high), _p(a, b, gaps)


def at_least(
    a: Evidence, b: Evidence | None = None, *, level: float = 0.95, draws: int = DRAWS, seed: int = 0
) -> float:
    """What the score of `a`, or its lead over `b`, surely reaches: the lower end of a one-sided interval.

    Args:
        a: whose score.
        b: on the same rows; by default the score itself is bounded.
        level: how sure, in (0, 1).
        draws: of the bootstrap.
        seed: of the bootstrap.
    """
    drawn = _drawn({"a": a} | ({"b": b} if b else {}), draws, np.random.default_rng(seed))
    return float(np.quantile(drawn["a"] - drawn["b"] if b else drawn["a"], 1 - level))


def holm(raw: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down correction of several p values (Holm 1979).

    Example:
        >>> holm({"a": 0.01, "b": 0.04})
        {'a': 0.02, 'b': 0.04}
    """
    corrected, running = {}, 0.0
    for i, name in enumerate(sorted(raw, key=lambda name: raw[name])):
        running = max(running, min(1.0, (len(raw) - i) * raw[name]))
        corrected[name] = running
    return corrected


def mcnemar(a: np.ndarray, b: np.ndarray) -> float:
    """Exact two-sided p of McNemar's test that two classifiers err equally often; `a`, `b`: (rows,) bool, right or not.

    Example:
        >>> mcnemar(np.array([True] * 6), np.array([False] * 6))
        0.03125
    """
    from scipy.stats import binomtest

    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def _p(a: Evidence, b: Evidence, gaps: np.ndarray) -> float:
    """Two-sided p of no difference: the larger of the bootstrap's and McNemar's, where rows are right or wrong.

    Of two single runs nothing is known about how seeds would differ, so their difference must be surer by half.
    """
    single = len(a.tallies) == len(b.tallies) == 1
    return min(1.0, _larger(a, b, gaps) * (1.5 if single else 1))


def _larger(a: Evidence, b: Evidence, gaps: np.ndarray) -> float:
    below, above = int((gaps <= 0).sum()), int((gaps >= 0).sum())
    bootstrap = min(1.0, 2 * (min(below, above) + 1) / (len(gaps) + 1))
    if a.correct is None or b.correct is None:
        return bootstrap
    # twice the median of several dependent p values is a valid one (Meinshausen, Meier & Bühlmann 2009, section 2)
    each = [mcnemar(x, y) for x in a.correct for y in b.correct]
    return max(bootstrap, each[0] if len(each) == 1 else min(1.0, 2 * float(np.median(each))))


def _drawn(methods: Mapping[str, Evidence], draws: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Bootstrap scores (draws,) of each method, every draw on the same rows."""
    rows = len(next(iter(methods.values())).tallies[0])
    chunk = max(1, min(draws, _CHUNK // max(rows, 1)))
    parts: dict[str, list[np.ndarray]] = {name: [] for name in methods}
    for start in range(0, draws, chunk):
        size = min(chunk, draws - start)
        weights = np.stack([np.bincount(generator.integers(0, rows, rows), minlength=rows) for _ in range(size)])
        weights = weights.astype(np.float32)
        for name, evidence in methods.items():
            parts[name].append(
                np.stack([evidence.score(weights @ t.astype(np.float32)) for t in evidence.tallies], axis=1)
            )
    return {
        name: _over_seeds(np.concatenate(parts[name]), evidence.scores, generator) for name, evidence in methods.items()
    }


def _over_seeds(drawn: np.ndarray, scores: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Scores (draws, seeds) on redrawn rows, and (seeds,) on all rows, to means over redrawn seeds too (draws,).

    A score varies with the rows, with the seed, and with what a seed happens to do on each row. Redrawn rows bring
    the first and the last; so the seeds' own spread is the observed one less the last, which the draws tell. And a few
    redrawn seeds spread less than seeds do, by (n - 1) / n in variance.
    """
    draws, seeds = drawn.shape
    mean = drawn.mean(axis=1)
    if seeds == 1:
        return mean
    on_rows = max(float(drawn.var(axis=0).mean() - mean.var()) * seeds / (seeds - 1), 0.0)
    observed = float(scores.var(ddof=1))
    own = max(observed - on_rows, 0.0) / observed if observed else 0.0
    redrawn = (scores - scores.mean())[generator.integers(0, seeds, (draws, seeds))].mean(axis=1)
    return mean + redrawn * np.sqrt(own * seeds / (seeds - 1))
