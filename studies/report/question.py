"""What a question of `studies.report` and its answer are, and how rows of a study's table are found for it.

No sentence holds a number of its own, and no verdict is written by hand: both follow from the rows.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mechsub.lab import findings as lab
from mechsub.lab import predictions, verdicts
from mechsub.lab.findings import Cell, Finding
from mechsub.stats import Interval

A1, A2, A3 = "Topic A, step 1: replication", "Topic A, step 2: factors", "Topic A, step 3: mechanism"
A2_MORE = "Topic A, step 2: further factors"
B2, B3 = "Topic B, steps 1 and 2: entangled pairs", "Topic B, step 3: base and instruct"
B4, B5 = "Topic B, step 4: geometry", "Topic B, step 5: causes"
BONUS = "Bonus"
TOPICS = (A1, A2, A2_MORE, A3, B2, B3, B4, B5, BONUS)  # in the order of the page
CLOUD, JIANG, ZUR = "Cloud et al. 2025", "Jiang et al. 2025", "Zur et al. 2025"
CONFIRMED, REFUTED, PARTLY, OPEN = "confirmed", "refuted", "partly", "open"  # as lab.verdicts has them
NOT_TESTABLE, NO_CLAIM = "not testable here", "no published claim"
NOT_MEASURED = "not measured yet"
HALF = 0.5  # a claim of what an effect is holds with more than that of it, and fails with less
LITTLE = 0.1  # of a whole: a share that is surely below it hardly counts
LEVEL = 0.05  # of tests
Rows = list[dict]  # of a study's table


class Findings(list[Finding]):
    """Findings, and the cells that they are of: a declared claim is about cells of certain options."""

    def __init__(self, findings: Iterable[Finding], cells: Sequence[Cell]):
        super().__init__(findings)
        self.cells = cells


@dataclass(frozen=True)
class Answer:
    sentence: str
    null: str
    verdict: str = NO_CLAIM  # on the question's claim
    shown: Sequence[Mapping] = field(default_factory=list)  # a small table under the sentence

    @property
    def short(self) -> str:
        """What stands before the sentence's first colon or full stop, for the page's contents: six words at most."""
        return re.split(r"[:.](?:\s|$)", self.sentence, maxsplit=1)[0]


@dataclass(frozen=True)
class Question:
    topic: str
    question: str
    study: str
    flags: str
    answer: Callable[..., Answer]  # of the study's findings; of its rows, where it has none yet
    name: str  # the page's anchor, and the image's name
    claim: str = ""  # what was published
    sweep: str = ""  # the option whose levels are those that are stored, instead of those in `flags`
    figure: str = ""  # the study's function of records that draws it, where not `plot`


ASKED: list[Question] = []


def question(topic: str, text: str, study: str, flags: str = "", *, name: str = "", **more: str) -> Callable:
    """Decorator of the function that answers it, from the findings of `python -m studies.<study> <flags>`.

    Its name is that of the function; `more` are a claim, a sweep or a figure.
    """

    def asked(answer: Callable[..., Answer]) -> Callable[..., Answer]:
        own = name or answer.__name__.replace("_", "-")
        ASKED.append(Question(topic, text, study, flags, answer, own, **more))
        return answer

    return asked


def value(findings: list[Finding], name: str):
    """The number that is said under this key."""
    return lab.find(findings, name).value


def by_cell(findings: list[Finding], key: str) -> dict[str, dict]:
    """Options that differ -> key -> number, of every cell that says something under this key."""
    cells: dict[str, dict] = {}
    for finding in findings:
        cells.setdefault(finding.cell, {})[finding.key] = finding.value
    cells = {cell: numbers for cell, numbers in cells.items() if key in numbers}
    if not cells:
        raise LookupError(f"no finding has the key {key!r}")
    return cells


# Words and verdicts. All follow from intervals, or from a p that is adjusted; what shows neither side is open.


def read(confirmed: bool, refuted: bool) -> str:
    """The verdict on a claim of one part, of which each side has to be shown."""
    return CONFIRMED if confirmed else REFUTED if refuted else OPEN


def judged(rule: str, value, bound=0.0, *, margin: float = verdicts.MARGIN) -> str:
    """The verdict on one part of a claim: its rule, as lab.verdicts judges an entry."""
    word, _ = verdicts.side(rule, value, bound, margin=margin)
    return read(word == "hit", word == "miss")


def of_parts(*words: str) -> str:
    """The verdict on a claim that holds if all of its parts do, as lab.verdicts judges several entries.

    partly: a part holds and another fails; not supported: a part fails, and the others are open. No claim where one of
    the parts is none.
    """
    if unknown := set(words) - {*_PARTS.values(), NO_CLAIM}:
        raise ValueError(f"{min(unknown)!r} is no verdict on one part; give those of all parts, and join them once")
    if NO_CLAIM in words:
        return NO_CLAIM
    told = {word: entry for entry, word in _PARTS.items()}
    return verdicts.together([told[word] for word in words])


_PARTS = {"hit": CONFIRMED, "miss": REFUTED, "open": OPEN, "untested": NOT_MEASURED}


def declared(findings: Findings, study: str, author: str) -> list[str]:
    """The verdict on every part of a claim that predictions.toml has, from before the run.

    A part that was declared for other options, as of another model, is no claim about these cells.
    """
    return [
        _PARTS[verdicts.judge(entry, findings.cells)[0].word] if verdicts.about(entry, findings.cells) else NO_CLAIM
        for entry in claimed(study, author)
    ]


def claimed(study: str, author: str) -> list[verdicts.Entry]:
    """The parts of an author's claim, of any options."""
    return [entry for entry in predictions.entries() if (entry.study, entry.author) == (study, author)]


def claimed_of(study: str, author: str, key: str) -> verdicts.Entry:
    """The part of an author's claim that is about the finding with this key."""
    for entry in claimed(study, author):
        if entry.finding == key:
            return entry
    raise LookupError(f"predictions.toml has no claim of {author} about {key!r} of {study}")


def side(value, bound, above: str, below: str, neither: str = "Not detectably") -> str:
    """The words for the side of the bound on which all of an interval lies."""
    return {CONFIRMED: above, REFUTED: below, OPEN: neither}[judged("above", value, bound)]


def tested_side(finding: Finding, bound, above: str, below: str, neither: str = "Not detectably") -> str:
    """`side` of a finding that must be shown by its p too, which is adjusted."""
    return side(finding.value, bound, above, below, neither) if finding.tested < LEVEL else neither


def size(share: Interval, null, *, most: str, part: str, little: str, neither: str = "Not detectably") -> str:
    """The words for how much of a whole an interval says: more than half, more than its null, or hardly any."""
    upper = getattr(null, "upper", getattr(null, "high", null))
    if share.high < LITTLE:
        return little
    return most if share.low > max(HALF, upper) else part if share.low > upper else neither


def by_raw(verdict: str, raw: str) -> str:
    """What the claim would be by raw accuracy, where that is something else."""
    return "" if raw == verdict else f" By raw accuracy the claim is {'true in part' if raw == PARTLY else raw}."


def judged_claims(rows: Rows, null: str) -> Answer:
    """Of an audit: how many claims have which verdict, and which."""
    claims = [row for row in rows if row["published"]]
    verdicts = [row["verdict"].partition(" (")[0] for row in claims]
    told = _counted(verdicts)
    if any("recentred" in row for row in claims):
        told += "; by recentred accuracy, where a claim is about accuracy, "
        told += _counted([row.get("recentred", row["verdict"]).partition(" (")[0] for row in claims])
    columns = ("claim", "verdict", "recentred", "published")
    shown = [{column: row[column] for column in columns if column in row} for row in claims]
    return Answer(f"{verdicts.count('confirmed')} of {len(claims)} confirmed: {told}.", null, shown=shown)


def _counted(verdicts: Sequence[str]) -> str:
    order = ("confirmed", "partly", "refuted", "not supported", "open", "not measured yet")
    return ", ".join(f"{verdicts.count(word)} {word}" for word in order if word in verdicts)
