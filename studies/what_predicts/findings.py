"""What the cells of `studies.what_predicts` say: what goes with Learned, and what a teacher's numbers go with."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import mechsub as ms
from mechsub.designs import joins, trait_matrix
from mechsub.lab.findings import Finding, holm
from mechsub.lazy import np, torch
from studies.what_predicts import ALIKE, PREDICTORS, SOURCES

if TYPE_CHECKING:
    import numpy

UNIT = "animals"
GIVEN = "teacher_preference"
SHUFFLED = "animals shuffled"


def findings(cell: list[dict]) -> list[Finding]:
    """Of blocks that differ in their seeds alone, which are averaged."""
    out = list(_of_students(cell))
    for dose in doses(cell):
        out += list(_of_predictors(cell, dose))
    return [*out, *_of_numbers(cell), *_of_likeness(cell)]


def doses(cell: Sequence[dict]) -> list[int]:
    """Updates after which students were asked."""
    animal = next(row for row in cell if row["kind"] == "animal")
    return sorted(int(name.removeprefix("learned_")) for name in animal if name.startswith("learned_"))


def by_animal(cell: Sequence[dict], score: str) -> "numpy.ndarray":
    """A score of the rows of animals: [block, animal]."""
    return _by_block([row for row in cell if row["kind"] == "animal"], score, ("animal",))


def _by_block(rows_: Sequence[dict], score: str, names: tuple[str, ...]) -> "numpy.ndarray":
    """[block, row]; raises where the rows of two blocks are not of the same things, in one order."""
    blocks: dict[int, dict[tuple, float]] = {}
    for row in rows_:
        blocks.setdefault(row["block"], {})[tuple(row[name] for name in names)] = row[score]
    orders = {tuple(block) for block in blocks.values()}
    if len(orders) > 1:
        raise ValueError("the blocks are of other animals, or have them in another order; they cannot be averaged")
    return np.array([list(blocks[block].values()) for block in sorted(blocks)])


def by_pair(cell: Sequence[dict], score: str) -> "numpy.ndarray":
    """A score of the rows of pairs, mean over blocks: [animal of the student, animal asked of]."""
    values = _by_block([row for row in cell if row["kind"] == "pair"], score, ("taught", "animal")).mean(0)
    n = round(len(values) ** 0.5)
    return values.reshape(n, n)


def _of_students(cell: list[dict]) -> Iterator[Finding]:
    """Lambda of teachers and students over animals, and how well blocks agree on Learned."""
    for who, score in {"teachers": "teacher", **{f"students_{dose}": f"margin_{dose}" for dose in doses(cell)}}.items():
        matrix = torch.from_numpy(by_pair(cell, score))
        p = trait_matrix.within_blocks_p(matrix[None])
        own = ms.stats.student_t(ms.interaction(matrix).diagonal().tolist())
        label = f"{who.replace('_', ', ')}: own animal beyond row and column"
        yield Finding(f"{who}/lambda", label, own, 0.0, p, UNIT, null_label="animals relabelled")
    for dose in doses(cell):
        learned = by_animal(cell, f"learned_{dose}")
        if len(learned) > 1:
            label = f"reliability of Learned, mean of {len(learned)} blocks, {dose} updates"
            yield Finding(f"students_{dose}/reliability", label, joins.reliability(learned), 0.0, unit=UNIT)


def _of_predictors(cell: list[dict], dose: int) -> Iterator[Finding]:
    """Every predictor against Learned: as it is, given what else would explain it, disattenuated, and its null."""
    learned, moved = (by_animal(cell, f"{what}_{dose}") for what in ("learned", "moved"))
    outcome, others, given = learned.mean(0), moved.mean(0), by_animal(cell, GIVEN).mean(0)

    def said(score: str, words: str, join: Callable) -> list[Finding]:
        return [
            _joined(f"{name}/{score}_{dose}", f"{label}; {words}, {dose} updates", by_animal(cell, name).mean(0), join)
            for name, label in PREDICTORS.items()
            if (name, score) != (GIVEN, "beyond")
        ]

    rho = holm(said("rho", "rank correlation with Learned", lambda x: joins.rank_correlation(x, outcome)))
    yield from (_beside_moved(finding, by_animal(cell, finding.subject).mean(0), others) for finding in rho)
    if dose != doses(cell)[-1]:
        return
    words = "with how far other students move the animal"
    yield from holm(said("moved", words, lambda x: joins.rank_correlation(x, others)))
    partials = {"beyond": ("given the teacher's preference", given), "scaled": ("given how far others move it", others)}
    for score, (words, third) in partials.items():
        if np.ptp(third):
            yield from holm(said(score, words, lambda x, z=third: joins.partial_rank_correlation(x, outcome, z)))
    if len(learned) > 1:
        words = "over the root of the reliability"
        yield from said("true", words, lambda x: joins.Join(joins.disattenuated(x, learned), None))
    control = by_animal(cell, f"control_{dose}").mean(0)
    for name, words, values in (("control", "the control student's move", control), ("moved", "others' moves", others)):
        label = f"Learned and {words}: rank correlation, {dose} updates"
        yield _joined(f"{name}/learned_{dose}", label, values, lambda x: joins.rank_correlation(x, outcome))


def _joined(key: str, label: str, values: "numpy.ndarray", join: Callable) -> Finding:
    """Where all animals have one value, it says so."""
    if not np.ptp(values):
        return Finding(key, label, "one value for all animals", unit=UNIT, n=len(values))
    found = join(values)
    return Finding(key, label, found.interval, 0.0, found.p, UNIT, null_label=SHUFFLED)


def _beside_moved(rho: Finding, predictor: "numpy.ndarray", others: "numpy.ndarray") -> Finding:
    """With its declared null: the same correlation with how far other animals' students move the animal."""
    if not np.ptp(predictor):
        return rho
    null = joins.rank_correlation(predictor, others).interval
    words = "with how far other animals' students move it; p is of 0: animals shuffled"
    return dataclasses.replace(rho, null=null, null_label=words)


def _of_numbers(cell: list[dict]) -> Iterator[Finding]:
    """Are a teacher's numbers those of its own animal's prompt or row, more than of the other animals'?"""
    found = []
    for name, words in SOURCES.items():
        matrix = torch.from_numpy(by_pair(cell, f"beside_{name}"))
        # A teacher's side is less the mean over teachers, so that of other animals it has minus the own share: no null.
        own = ms.stats.student_t(matrix.diagonal().tolist())
        label = f"correlation over numbers: a teacher's, and {words}"
        yield Finding(f"beside_{name}/own", label, own, unit=UNIT)
        excess = ms.stats.student_t(ms.interaction(matrix).diagonal().tolist())
        p = trait_matrix.within_blocks_p(matrix[None])
        found.append(
            Finding(f"beside_{name}/excess", f"{label}: own beyond others", excess, 0.0, p, UNIT,
                    null_label="animals relabelled")
        )  # fmt: skip
    yield from holm(found)


def _of_likeness(cell: list[dict]) -> Iterator[Finding]:
    """Off the diagonal: what do students take to other animals by?"""
    sides: Mapping[str, numpy.ndarray] = {name: by_pair(cell, name) for name in ALIKE}
    for dose in doses(cell):
        scores, found = by_pair(cell, f"margin_{dose}"), []
        for name, words in ALIKE.items():
            join = joins.pair_correlation(scores, sides[name])
            label = f"students' margins of other animals, and {words}, {dose} updates"
            found.append(Finding(f"alike_{name}/pairs_{dose}", label, join.interval, 0.0, join.p, UNIT,
                                 null_label="animals relabelled"))  # fmt: skip
            if name != "rows":
                join = joins.pair_correlation(scores, sides[name], sides["rows"])
                found.append(Finding(f"alike_{name}/beyond_rows_{dose}", f"{label}, given rows of W_U", join.interval,
                                     0.0, join.p, UNIT, null_label="animals relabelled"))  # fmt: skip
        yield from holm(found)
