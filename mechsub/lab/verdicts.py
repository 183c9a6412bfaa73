"""The judge: is a finding as somebody expected, before the measurement or in a paper?

An `Entry` has the key of a finding, a rule and an author. A prediction of ours and a claim of others are the same entry
with another author. The interval of the finding decides, never its mean alone:

    above, below   hit: the whole 95% interval is on that side of `bound`; miss: it is wholly on the other side
    near           hit: it lies within `margin` of `bound`; miss: it lies wholly outside
    within         hit: it lies within the two numbers of `bound`; miss: wholly beyond one of them

`bound` is a number, the key of another finding of the same cell, or "null", the finding's own null. A bound that has an
interval must be apart from the finding's. A value without an interval but with a p is open where p >= 0.05, and
untested where its bound is not the null that p tests.

Rules over levels compare the replicates of several findings. The levels are those of an option (`over`), or stand in
place of "{}" in the key:

    increases, decreases  hit: the paired difference of the last level less the first has that sign, its interval
                          excludes 0, and the rank correlation of level and mean has that sign; miss: the interval
                          excludes 0 on the other side
    none                  hit: the interval of that difference lies within +-margin; miss: it lies wholly outside
    peak                  hit: the best inner level is above both ends, both intervals excluding 0; miss: an end is
                          above it so
    works                 hit: every level is above the finding of the same level whose key is `bound`; miss: one is not

Equal differences of fewer than six replicates have an interval without width and no p below 0.05: they show nothing.
Otherwise the verdict is "open"; without a finding in the store it is "untested", and so it is where the first or the
last level that an entry names is not stored (of peak and works, any level). The rules increases, decreases and none do
not see steps between two levels that go the other way: a verdict lists such steps (`turns`).
"""

import datetime
import itertools
import math
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import mechsub as ms
from mechsub.lab.findings import Cell, Finding, less, mean, value_text
from mechsub.lazy import scipy_stats

SIDES, OF_LEVELS = ("above", "below", "near", "within"), ("increases", "decreases", "none", "peak", "works")
# Options that change no replicate: cells that differ in them alone are one. Where `seed` is no first seed but that of
# all draws, a replicate has another score under another seed, and cells of other seeds stay apart.
POOLED = ("seed", "arms")
# An entry that does not name one of these options speaks of this value, and not of nulls or of other words.
OWN = {"weights": "trained", "family": "numbers"}
MARGIN = 0.1


@dataclass(frozen=True)
class Entry:
    """An expectation about a finding; `where` has options of its cells (a list means one of several values)."""

    study: str
    finding: str
    rule: str
    bound: Any = 0.0  # a number, a key, or the two numbers of `within`
    margin: float = MARGIN
    over: str = ""
    levels: Sequence = ()
    where: Mapping[str, object] = field(default_factory=dict)
    author: str = "mechsub"
    claim: str = ""  # in words, where somebody said it in words
    reason: str = ""
    date: datetime.date | None = None

    def __post_init__(self):
        if self.rule not in (*SIDES, *OF_LEVELS):
            raise ValueError(f"rule {self.rule!r} of {self.finding!r} is none of {', '.join((*SIDES, *OF_LEVELS))}")
        levels = bool(self.over or "{}" in self.finding)
        if levels and self.rule in SIDES:
            raise ValueError(f"{self.finding!r}: {self.rule} is a rule of one finding, not of levels")
        if not levels and self.rule in OF_LEVELS:
            raise ValueError(f"{self.finding!r}: {self.rule} needs levels, by `over` or by {{}} in the key")
        if "{}" in self.finding and len(self.levels) < 2:
            raise ValueError(f"{self.finding!r} needs two or more levels for its {{}}")

    @property
    def expected(self) -> str:
        """The rule in words."""
        if self.rule in OF_LEVELS:
            return self.rule
        if self.rule == "within":
            low, high = self.bound
            return ", ".join(
                f"at {word} {value:g}" for word, value in (("least", low), ("most", high)) if math.isfinite(value)
            )
        bound = self.bound if isinstance(self.bound, str) else f"{self.bound:.3g}"
        return f"{self.rule} {bound}"

    @property
    def subject(self) -> str:
        """The subject of the entry, in words of keys and options."""
        levels = " to ".join(map(str, self.levels))
        over = f" over {self.over} {levels}".rstrip() if self.over else ""
        where = ", ".join(f"{name}={value}" for name, value in self.where.items())
        return self.finding.replace("{}", levels) + over + (f" ({where})" if where else "")


class Verdict(NamedTuple):
    entry: Entry
    word: str  # hit, miss, open or untested
    reason: str = ""  # why it is open or untested
    at: str = ""  # the options of the cells that were judged
    value: object = None  # the interval that decided
    turns: str = ""  # steps between levels that go the other way


def read(path: Path) -> list[Entry]:
    """The entries of a TOML file, in its tables [[entry]]."""
    known = {f.name for f in fields(Entry)}
    entries = []
    for table in tomllib.loads(path.read_text(encoding="utf-8")).get("entry", []):
        if unknown := set(table) - known:
            raise ValueError(f"{path.name}: an entry has no {min(unknown)!r}; it has {', '.join(sorted(known))}")
        entries.append(Entry(**table))
    return entries


def judge(entry: Entry, cells: Iterable[Cell]) -> list[Verdict]:
    """A verdict for every group of cells that the entry is about; one "untested" where there is no such cell."""
    verdicts = list(_of_levels(entry, cells) if entry.rule in OF_LEVELS else _of_findings(entry, cells))
    measured = [verdict for verdict in verdicts if verdict.word != "untested"]
    return measured or verdicts[:1] or [Verdict(entry, "untested", "no stored cell has these options")]


def together(words: Sequence[str]) -> str:
    """The verdict on a claim that several entries settle."""
    measured = [word for word in words if word != "untested"]
    if not measured:
        return "not measured yet"
    if len(set(measured)) == 1:
        word = {"hit": "confirmed", "miss": "refuted", "open": "open"}[measured[0]]
    else:
        word = "partly" if {"hit", "miss"} <= set(measured) else "open" if "hit" in measured else "not supported"
    less = f" (by {len(measured)} of {len(words)} checks)" if len(measured) < len(words) else ""
    return f"{word}{less}"


def rows(verdicts: Iterable[Verdict]) -> list[dict]:
    """Rows for the printed table of a study, without untested entries."""
    return [
        {
            "cell": f"{_kind(verdict.entry)}: {verdict.entry.subject}{verdict.at}",
            "value": "" if verdict.value is None else verdict.value,
            "predicted": verdict.entry.expected,
            "verdict": verdict.word,
            **({"turns": verdict.turns} if verdict.turns else {}),
        }
        for verdict in verdicts
        if verdict.word != "untested"
    ]


def _kind(entry: Entry) -> str:
    return "prediction" if entry.author == "mechsub" else f"claim of {entry.author}"


# Groups of cells.


def about(entry: Entry, cells: Iterable[Cell]) -> list[Cell]:
    """The cells that the entry is about, by their options."""
    wanted = {**{k: [v, None] for k, v in OWN.items() if k != entry.over}, **entry.where}
    return [cell for cell in cells if all(_fits(cell.options.get(k), v) for k, v in wanted.items())]


def _groups(entry: Entry, cells: Iterable[Cell]) -> Iterator[tuple[str, list[Cell]]]:
    """Groups of cells that differ only in the option `over`, each with the words in which groups differ."""
    groups: dict[tuple, list[Cell]] = {}
    for cell in about(entry, cells):
        others = tuple((k, v) for k, v in cell.options.items() if k not in (entry.over, *POOLED))
        groups.setdefault(others, []).append(cell)
    for others, group in groups.items():
        varied = {k: v for k, v in others if len({dict(key)[k] for key in groups}) > 1}
        at = "".join(f", {k}={v}" for k, v in varied.items())
        yield from ((at + own, cells) for own, cells in _by_seed(entry, group))


def _by_seed(entry: Entry, group: list[Cell]) -> Iterator[tuple[str, list[Cell]]]:
    """The group; seed by seed where other seeds give a replicate of the entry's findings another score."""
    named = [key for key in (entry.finding, entry.bound) if isinstance(key, str)]
    keys = {key.replace("{}", str(level)) for key in named for level in entry.levels or [""]}
    alike: dict[object, list[Cell]] = {}
    for cell in group:
        alike.setdefault(cell.options.get(entry.over), []).append(cell)
    if entry.over == "seed" or all(_contradicted(cells, key) is None for cells in alike.values() for key in keys):
        yield "", group
        return
    for seed in dict.fromkeys(cell.options.get("seed") for cell in group):
        yield f", seed={seed}", [cell for cell in group if cell.options.get("seed") == seed]


def _contradicted(cells: Sequence[Cell], key: str) -> object:
    """A replicate with two different scores in these cells, under one key; None without one."""
    known: dict = {}
    for finding in (finding for cell in cells for finding in cell.findings if finding.key == key):
        for replicate, score in finding.scores.items():
            first = known.setdefault(replicate, score)
            if first != score and not (math.isnan(first) and math.isnan(score)):
                return replicate
    return None


def _fits(option, wanted) -> bool:
    return option in wanted if isinstance(wanted, list) else option == wanted


def _pooled(cells: Sequence[Cell], key: str) -> Finding | None:
    """The finding of this key, pooled over replicates where several cells have it; None where no cell has it."""
    found = [finding for cell in cells for finding in cell.findings if finding.key == key]
    if len(found) < 2:
        return found[0] if found else None
    if (replicate := _contradicted(cells, key)) is not None:
        raise LookupError(f"two cells have different scores of {key!r} for {replicate!r}; name one by its options")
    scores = {replicate: score for finding in found for replicate, score in finding.scores.items()}
    if not scores:
        raise LookupError(f"{len(found)} cells have a finding {key!r}, which has no replicates to be pooled by")
    value, null = mean(key, "", scores, unit="").value, found[0].null if _one_null(found) else None
    return replace(found[0], value=value, null=null, p=None, scores=scores, n=len(scores))  # no cell has its p


def _one_null(found: Sequence[Finding]) -> bool:
    return all(finding.null == found[0].null for finding in found)


# One finding.


def _of_findings(entry: Entry, cells: Iterable[Cell]) -> Iterator[Verdict]:
    for at, group in _groups(entry, cells):
        try:
            finding = _pooled(group, entry.finding)
            if finding is None:
                raise LookupError(f"no stored cell has a finding {entry.finding!r}")
            bound = _bound(entry, finding, group)
        except LookupError as error:
            yield Verdict(entry, "untested", str(error), at)
            continue
        if finding.p is not None and not isinstance(finding.value, ms.stats.Interval) and not is_null(bound, finding):
            told = f"it has no interval, and its p tests {value_text(finding.null) or 'its null'}, not the bound"
            yield Verdict(entry, "untested", told, at, finding.value)
            continue
        word, reason = side(entry.rule, finding.value, bound, margin=entry.margin, p=finding.p)
        yield Verdict(entry, word, reason, at, finding.value)


def is_null(bound: object, finding: Finding) -> bool:
    """Whether the bound is what the finding's p tests."""
    if bound is finding.null or isinstance(bound, Sequence):  # two limits are no null
        return bound is finding.null
    return _ends(bound) is not None and _ends(bound) == _ends(finding.null)


def _bound(entry: Entry, finding: Finding, group: Sequence[Cell]) -> object:
    if entry.bound == "null":
        if not _one_null(found := [f for cell in group for f in cell.findings if f.key == finding.key]):
            raise LookupError(f"{len(found)} cells have different nulls of {finding.key!r}; name one by its options")
        if finding.null is None:
            raise LookupError(f"{finding.key!r} has no null")
        return finding.null
    if not isinstance(entry.bound, str):
        return entry.bound
    other = _pooled(group, entry.bound)
    if other is None:
        raise LookupError(f"no stored cell has a finding {entry.bound!r}")
    return other.value


def side(rule: str, value, bound=0.0, *, margin: float = MARGIN, p: float | None = None) -> tuple[str, str]:
    """Verdict and reason of one value by a rule of one finding; `value` and `bound` are intervals or numbers.

    p: of the value being `bound`; it decides where the value has no interval.
    """
    ends = _ends(value)
    limits = tuple(bound) if rule == "within" else _ends(bound)
    if ends is None or limits is None:
        return "untested", f"{value_text(value if ends is None else bound)!r} is no number to compare"
    (low, high), (least, most) = ends, limits
    if p is not None and not isinstance(value, ms.stats.Interval):
        if rule == "within":
            return "untested", "a p tests one value, and not two limits"
        return _tested(rule, low, float(getattr(bound, "mean", bound)), margin, p)
    if rule == "within":
        hit, miss = least <= low and high <= most, high < least or low > most
    elif rule == "near":
        hit = most - margin <= low and high <= least + margin
        miss = high < least - margin or low > most + margin
    else:
        above, below = low > most, high < least
        hit, miss = (above, below) if rule == "above" else (below, above)
    return ("hit", "") if hit else ("miss", "") if miss else ("open", "the interval reaches across the bound")


def _ends(value) -> tuple[float, float] | None:
    """Limits of an interval, or twice a number; None for words and NaN."""
    if isinstance(value, str) or value is None:
        return None
    low, high = (value.low, value.high) if isinstance(value, ms.stats.Interval) else (float(value), float(value))
    return None if math.isnan(low) or math.isnan(high) else (low, high)


def _tested(rule: str, value: float, bound: float, margin: float, p: float) -> tuple[str, str]:
    """A verdict by p, where a value has no interval. A test can refute "near", and cannot show it."""
    if p >= 0.05:
        return "open", f"p = {p:.3g}"
    if rule == "near" and abs(value - bound) <= margin:
        return "open", "a test cannot show that it is near"
    if value == bound:
        return "open", "it is its bound"
    return ("hit" if rule == ("above" if value > bound else "below") else "miss"), ""


# Levels.


def _of_levels(entry: Entry, cells: Iterable[Cell]) -> Iterator[Verdict]:
    for at, group in _groups(entry, cells):
        try:
            levels = _whole_levels(entry, group)
            nulls = _nulls(entry, group, levels) if entry.rule == "works" else {}
        except LookupError as error:
            yield Verdict(entry, "untested", str(error), at)
            continue
        word, reason = trend(entry.rule, list(levels.values()), list(nulls.values()), margin=entry.margin)
        first, *_, last = levels.values()
        value = less(last, first).value if _common(first, last) > 1 else None
        yield Verdict(entry, word, reason, at, value, turns(levels))


def _whole_levels(entry: Entry, group: Sequence[Cell]) -> dict[object, Finding]:
    """`_levels`; LookupError where those that the rule needs are not stored."""
    levels = _levels(entry, group)
    if len(levels) < 2:
        raise LookupError(f"fewer than two levels of {entry.over or entry.finding} are stored")
    # The ends, or all, of the levels that the entry names.
    needed = entry.levels if entry.rule in ("peak", "works") else (*entry.levels[:1], *entry.levels[-1:])
    if absent := [level for level in needed if level not in levels]:
        raise LookupError(f"the level {absent[0]} is not stored")
    return levels


def _levels(entry: Entry, group: Sequence[Cell], key: str = "") -> dict[object, Finding]:
    """Level -> finding, in the order of `levels`; without it, numbers ascend and other levels keep their order."""
    key = key or entry.finding
    if not entry.over:
        named = {level: _pooled(group, key.replace("{}", str(level))) for level in entry.levels}
    else:
        levels = entry.levels or _in_order(dict.fromkeys(cell.options.get(entry.over) for cell in group))
        named = {lv: _pooled([cell for cell in group if cell.options.get(entry.over) == lv], key) for lv in levels}
    return {level: finding for level, finding in named.items() if finding is not None and finding.scores}


def _in_order(levels: Iterable) -> list:
    levels = list(levels)
    return sorted(levels) if all(isinstance(level, int | float) for level in levels) else levels


def _nulls(entry: Entry, group: Sequence[Cell], levels: Mapping[object, Finding]) -> dict[object, Finding]:
    nulls = _levels(entry, group, str(entry.bound))
    if set(nulls) != set(levels):
        raise LookupError(f"{entry.bound!r}, the null of {entry.finding!r}, is not there at every level")
    return nulls


def trend(
    rule: str, levels: Sequence[Finding], nulls: Sequence[Finding] = (), *, margin: float = MARGIN
) -> tuple[str, str]:
    """Verdict and reason of findings, one a level, by a rule over levels."""
    if rule == "works":
        return _works(levels, nulls)
    if rule == "peak":
        return _peak(levels)
    if _common(levels[-1], levels[0]) < 2:
        return "open", "first and last level have fewer than two replicates in common"
    difference = less(levels[-1], levels[0])
    if _equal(difference):
        return "open", f"all {difference.n} differences are equal, which is too few for the test of signs"
    ends = difference.value
    if math.isnan(ends.low) or math.isnan(ends.high):
        return "untested", "the difference is no number"
    if rule == "none":
        return side("within", ends, (-margin, margin))
    word, reason = side("above" if rule == "increases" else "below", ends, 0.0)
    if word == "hit" and rank(levels) * (1 if rule == "increases" else -1) <= 0:
        return "open", "the rank correlation of level and mean has another sign"
    return word, reason


def _works(levels: Sequence[Finding], nulls: Sequence[Finding]) -> tuple[str, str]:
    pairs = list(zip(levels, nulls, strict=True))
    found = [less(a, b) for a, b in pairs if _common(a, b) > 1]
    shown = [difference.value for difference in found if not _equal(difference)]
    if not all(interval.low > 0 for interval in shown):
        return "miss", ""
    if len(shown) < len(pairs):
        return "open", "a level has too few replicates in common with its null, or all their differences are equal"
    return "hit", ""


def _equal(difference: Finding) -> bool:
    """Whether Student's t sees no spread in so few differences: then no test shows anything."""
    low, high = difference.value.low, difference.value.high
    return difference.n < 6 and (low == high or (not low <= 0 <= high and difference.tested >= 0.05))


def _peak(levels: Sequence[Finding]) -> tuple[str, str]:
    inner = levels[1:-1]
    if not inner:
        return "open", "there is no inner level"
    best = max(inner, key=_average)
    found = [less(best, end) for end in (levels[0], levels[-1]) if _common(best, end) > 1]
    over = [difference.value for difference in found if not _equal(difference)]
    if len(over) == 2 and all(interval.low > 0 for interval in over):
        return "hit", ""
    if any(interval.high < 0 for interval in over):
        return "miss", ""
    return "open", "an interval over an end reaches across 0"


def rank(levels: Sequence[Finding]) -> float:
    """Spearman's correlation of the order of levels with their means; 0 where all are equal."""
    means = ms.stats.joined([_average(level) for level in levels]).tolist()
    return float(scipy_stats.spearmanr(range(len(means)), means).statistic) if len(set(means)) > 1 else 0.0


def turns(levels: Mapping[object, Finding]) -> str:
    """Steps between neighbouring levels that go against the difference of the ends, with a 95% interval without 0."""
    named = list(levels.items())
    sign = math.copysign(1, _average(named[-1][1]) - _average(named[0][1]))
    steps = []
    for (a, before), (b, after) in itertools.pairwise(named):
        if _common(after, before) > 1:
            difference = less(after, before)
            step = difference.value
            if not _equal(difference) and max(sign * step.low, sign * step.high) < 0:
                steps.append(f"{a} to {b} {step}")
    return ", ".join(steps)


def _average(finding: Finding) -> float:
    return math.fsum(finding.scores.values()) / len(finding.scores)


def _common(a: Finding, b: Finding) -> int:
    return len(a.scores.keys() & b.scores.keys())


# Sums of findings, for claims about more than one.


def total(terms: Sequence[tuple[float, Finding]], key: str, label: str) -> Finding:
    """Sum of factor x finding, paired by the replicates that all findings have."""
    common = set.intersection(*(set(finding.scores) for _, finding in terms))
    if len(common) < 2:
        raise LookupError(f"the findings of {key!r} have {len(common)} replicates in common; a sum needs two")
    scores = {i: math.fsum(factor * finding.scores[i] for factor, finding in terms) for i in common}
    return mean(key, label, scores, unit=terms[0][1].unit)
