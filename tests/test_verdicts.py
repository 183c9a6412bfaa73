"""The judge: every rule on planted hits, misses and intervals across the bound; what is not there is untested."""

import dataclasses
import importlib
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from mechsub import stats
from mechsub.lab import finder, predictions, store, verdicts
from mechsub.lab import findings as lab
from mechsub.lab.findings import Cell, Finding, mean
from mechsub.lab.stored import stored
from mechsub.lab.verdicts import Entry, judge, side, together, trend

ROOT = Path(__file__).parent.parent
LOW, MIDDLE, HIGH = (stats.Interval(m, m - 0.1, m + 0.1, 5) for m in (-0.3, 0.05, 0.3))
NAN = stats.Interval(math.nan, math.nan, math.nan, 5)


@pytest.mark.parametrize(
    ("rule", "bound", "words"),
    [
        ("above", 0.0, ("miss", "open", "hit")),
        ("below", 0.0, ("hit", "open", "miss")),
        ("near", 0.0, ("miss", "open", "miss")),
        ("near", 0.3, ("miss", "miss", "hit")),
        ("within", (-0.1, 0.18), ("miss", "hit", "miss")),
        ("within", (0.0, math.inf), ("miss", "open", "hit")),
        ("above", LOW, ("open", "hit", "hit")),
        ("above", HIGH, ("miss", "miss", "open")),
        ("above", "words", ("untested",) * 3),
    ],
)
def test_rules_of_one_finding(rule, bound, words):
    assert tuple(side(rule, value, bound)[0] for value in (LOW, MIDDLE, HIGH)) == words
    assert side(rule, NAN, bound)[0] == side(rule, "infinite", bound)[0] == "untested"


def test_a_limit_on_the_bound_is_not_beyond_it():
    assert side("above", stats.Interval(0.1, 0.0, 0.2, 5))[0] == "open"
    assert side("within", stats.Interval(0.1, 0.0, 0.2, 5), (0.0, 0.2))[0] == "hit"


def test_a_number_is_an_interval_of_no_width_and_a_test_decides_where_there_is_one():
    assert [side("above", v)[0] for v in (0.1, -0.1)] == ["hit", "miss"]
    assert [side(r, 0.3, p=0.01)[0] for r in ("above", "below", "near")] == ["hit", "miss", "miss"]
    assert side("above", 0.3, p=0.06) == ("open", "p = 0.06") and side("near", 0.05, p=0.01)[0] == "open"
    assert side("above", HIGH, p=0.5)[0] == "hit"  # the interval decides, where there is one
    assert {side(rule, 0.5, 0.5, p=0.01)[0] for rule in ("above", "below")} == {"open"}
    assert side("within", 0.3, (0.0, 1.0), p=0.01)[0] == "untested"
    assert side("above", 0.2, stats.Interval(0.25, 0.1, 0.4, 5), p=0.01)[0] == "miss"  # its middle is what p tests


def test_a_p_tests_its_own_null_and_no_other_bound():
    tested = Finding("a/x", "", 0.5, null=lab.Drawn(0.2, 0.4), p=0.001)
    words = {
        bound: judge(Entry("toy", "a/x", "above", bound), [cell([tested, Finding("b/x", "", 0.4)])])[0]
        for bound in (0.2, "null", 0.4, "b/x")
    }
    assert {bound: verdict.word for bound, verdict in words.items()} == {
        0.2: "hit", "null": "hit", 0.4: "untested", "b/x": "untested"
    }  # fmt: skip
    assert words[0.4].reason == "it has no interval, and its p tests 0.200, 95% below 0.400, not the bound"
    (verdict,) = judge(Entry("toy", "a/x", "within", [0.0, 1.0]), [cell([tested])])
    assert verdict.word == "untested"


def level(mean_of, spread=0.01, n=8):
    """A finding whose replicates lie around a mean, in the same order at every level."""
    scores = {i: mean_of + spread * math.sin(3 * i) for i in range(n)}
    return mean("arm/accuracy", "", scores, unit="seeds")


def levels(*means):
    """Of these means, with noise of their own that a paired difference keeps."""
    return [
        mean("arm/x", "", {i: m + 0.02 * math.cos(5 * i + 2 * k) for i in range(8)}, unit="seeds")
        for k, m in enumerate(means)
    ]


@pytest.mark.parametrize(
    ("rule", "means", "word"),
    [
        ("increases", (0.1, 0.3, 0.5), "hit"),
        ("increases", (0.5, 0.3, 0.1), "miss"),
        ("increases", (0.3, 0.3), "open"),
        ("increases", (0.3, 0.9, 0.8, 0.7, 0.4), "open"),
        ("increases", (0.3, 0.6, 0.4, 0.7), "hit"),
        ("decreases", (0.5, 0.3, 0.1), "hit"),
        ("decreases", (0.1, 0.5), "miss"),
        ("none", (0.3, 0.32), "hit"),
        ("none", (0.3, 0.6), "miss"),
        ("none", (0.3, 0.4), "open"),
        ("peak", (0.1, 0.5, 0.2), "hit"),
        ("peak", (0.1, 0.5, 0.7), "miss"),
        ("peak", (0.1, 0.5, 0.5), "open"),
        ("peak", (0.1, 0.5), "open"),
    ],
)
def test_rules_over_levels(rule, means, word):
    assert trend(rule, levels(*means))[0] == word


def test_works_is_above_its_null_at_every_level():
    nulls = levels(0.1, 0.1)
    assert trend("works", levels(0.3, 0.4), nulls)[0] == "hit" and trend("works", levels(0.3, 0.1), nulls)[0] == "miss"


def test_too_few_common_replicates_leave_a_trend_open():
    apart = mean("arm/x", "", {i: 0.5 for i in range(50, 55)}, unit="seeds")
    assert trend("increases", [level(0.1), apart])[0] == "open"


def test_works_is_open_where_too_few_replicates_are_common():
    apart = mean("arm/x", "", {i: 0.1 for i in range(50, 55)}, unit="seeds")
    nulls = [levels(0.1)[0], apart]
    assert trend("works", levels(0.3, 0.4), nulls)[0] == "open"
    assert trend("works", levels(0.1, 0.4), nulls)[0] == "miss"


@pytest.mark.parametrize(("n", "word"), [(2, "open"), (5, "open"), (6, "hit")])
def test_equal_differences_are_judged_by_their_signs(n, word):
    first, second, third = (mean("arm/x", "", {i: m + i / 10 for i in range(n)}, unit="seeds") for m in (0.1, 0.3, 0.2))
    assert trend("increases", [first, second])[0] == trend("works", [second], [first])[0] == word
    assert trend("decreases", [second, first])[0] == trend("peak", [first, second, third])[0] == word
    assert trend("none", [first, first])[0] == word
    assert trend("none", [first, second])[0] == {"hit": "miss"}.get(word, word)
    assert bool(verdicts.turns({1: first, 2: second, 3: third})) == (word == "hit")


def test_turns_are_steps_against_the_whole():
    found = dict(zip((1, 2, 3), levels(0.1, 0.6, 0.4), strict=True))
    assert verdicts.turns(found).startswith("2 to 3 -0.2")
    assert verdicts.turns(dict(zip("ab", levels(0, 1), strict=True))) == ""


def cell(findings, **options):
    return Cell(options, [], "", findings)


def test_arms_of_one_cell_are_levels():
    arms = [mean(f"{arm}/accuracy", arm, level(m).scores, unit="seeds") for arm, m in (("null", 0.1), ("aux", 0.5))]
    entry = Entry("toy", "{}/accuracy", "increases", levels=["null", "aux"])
    (verdict,) = judge(entry, [cell(arms, n_aux=3)])
    assert (verdict.word, verdict.at) == ("hit", "") and verdict.value.mean == pytest.approx(0.4)
    both = judge(entry, [cell(arms, n_aux=3), cell(arms, n_aux=10)])
    assert [verdict.at for verdict in both] == [", n_aux=3", ", n_aux=10"]
    (row, _) = verdicts.rows(both)
    assert row["cell"] == "prediction: null to aux/accuracy, n_aux=3" and row["predicted"] == "increases"


def test_cells_that_differ_in_one_option_are_levels_and_the_rest_makes_groups():
    cells = [
        cell([level(0.1 * n_aux)], n_aux=n_aux, loss=loss, seed=0) for loss in ("kl", "mse") for n_aux in (1, 3, 2)
    ]
    found = judge(Entry("toy", "arm/accuracy", "increases", over="n_aux"), cells)
    assert [(v.word, v.at, v.turns) for v in found] == [("hit", ", loss=kl", ""), ("hit", ", loss=mse", "")]
    assert found[0].value.mean == pytest.approx(0.2)
    (one,) = judge(Entry("toy", "arm/accuracy", "decreases", over="n_aux", where={"loss": "kl"}, levels=[1, 2]), cells)
    assert judge(Entry("toy", "arm/accuracy", "above", where={"n_aux": [2, 3], "loss": "kl"}), cells)[1].word == "hit"
    assert one.word == "miss" and one.value.mean == pytest.approx(0.1)


def test_seeds_that_change_the_scores_of_a_replicate_are_judged_one_by_one():
    def of(seed, mean_of, **options):
        return cell([level(mean_of, n=6)], seed=seed, **options)

    high, low = of(0, 0.7), of(1, 0.3)
    for order in ([high, low], [low, high]):
        found = judge(Entry("toy", "arm/accuracy", "above", 0.5), order)
        assert {(v.word, v.at, v.value.n) for v in found} == {("hit", ", seed=0", 6), ("miss", ", seed=1", 6)}
    swept = [of(0, 0.1, n_aux=1), of(0, 0.4, n_aux=3), of(1, 0.6, n_aux=1), of(1, 0.2, n_aux=3)]
    found = judge(Entry("toy", "arm/accuracy", "increases", over="n_aux"), swept)
    assert [(v.word, v.at) for v in found] == [("hit", ", seed=0"), ("miss", ", seed=1")]


def test_one_replicate_with_two_scores_is_not_judged():
    cells = [cell([level(m)], arms=arms) for m, arms in ((0.7, "aux"), (0.3, "every"))]
    for entry in (Entry("toy", "arm/accuracy", "above", 0.5), Entry("toy", "arm/accuracy", "increases", over="n_aux")):
        (verdict,) = judge(entry, [dataclasses.replace(c, options={**c.options, "n_aux": 3}) for c in cells])
        assert verdict.word == "untested"
        assert verdict.reason.startswith("two cells have different scores of 'arm/accuracy' for 0")


def test_cells_of_other_seeds_are_pooled():
    halves = [cell([mean("a/x", "", {i: i / 10 for i in r}, unit="seeds")], seed=r[0]) for r in (range(4), range(4, 8))]
    (verdict,) = judge(Entry("toy", "a/x", "above"), halves)
    assert verdict.value == stats.student_t([i / 10 for i in range(8)])
    (verdict,) = judge(Entry("toy", "a/x", "above"), [cell([Finding("a/x", "", 0.5)], seed=seed) for seed in (0, 1)])
    assert verdict.word == "untested" and "no replicates" in verdict.reason


def test_pooled_cells_have_one_null_or_are_not_compared_with_it():
    halves = [
        replace(mean("a/x", "", {i: 0.5 + i / 10 for i in r}, unit="seeds"), null=null, p=0.3)
        for r, null in ((range(4), 0.1), (range(4, 8), 0.9))
    ]
    for order in (halves, halves[::-1]):
        pair = [cell([finding], seed=i) for i, finding in enumerate(order)]
        (verdict,) = judge(Entry("toy", "a/x", "above", "null"), pair)
        assert (verdict.word, verdict.reason) == (
            "untested", "2 cells have different nulls of 'a/x'; name one by its options"
        )  # fmt: skip
        assert judge(Entry("toy", "a/x", "above", 0.2), pair)[0].word == "hit"
    alike = [cell([replace(finding, null=0.1)], seed=i) for i, finding in enumerate(halves)]
    assert judge(Entry("toy", "a/x", "above", "null"), alike)[0].word == "hit"


def test_a_bound_is_a_number_another_finding_or_the_null():
    found = [Finding("a/x", "", HIGH, null=LOW), Finding("b/x", "", HIGH)]
    words = {bound: judge(Entry("toy", "a/x", "above", bound), [cell(found)])[0].word for bound in (0.0, "null", "b/x")}
    assert words == {0.0: "hit", "null": "hit", "b/x": "open"}
    for bound, says in (("c/x", "no stored cell has a finding 'c/x'"), ("null", "has no null")):
        (verdict,) = judge(Entry("toy", "b/x", "above", bound), [cell(found)])
        assert verdict.word == "untested" and says in verdict.reason


def test_what_is_not_stored_is_untested():
    entry = Entry("toy", "a/x", "above", where={"n_aux": 3})
    assert judge(entry, [])[0][1:3] == ("untested", "no stored cell has these options")
    assert "'a/x'" in judge(entry, [cell([], n_aux=3)])[0].reason
    swept = Entry("toy", "a/x", "increases", over="n_aux")
    assert judge(swept, [cell([level(0.1)], n_aux=3)])[0].word == "untested"
    assert verdicts.rows(judge(entry, [])) == []


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"finding": "a/x", "rule": "over"}, "is none of"),
        ({"finding": "a/x", "rule": "increases"}, "needs levels"),
        ({"finding": "{}/x", "rule": "above", "levels": ["a", "b"]}, "not of levels"),
        ({"finding": "{}/x", "rule": "none", "levels": ["a"]}, "two or more levels"),
    ],
)
def test_an_entry_that_cannot_be_judged_is_refused(entry, says):
    with pytest.raises(ValueError, match=says):
        Entry("toy", **entry)


def test_entries_are_read_and_a_misspelt_word_is_named(tmp_path):
    path = tmp_path / "p.toml"
    path.write_text('[[entry]]\nstudy = "toy"\nfinding = "a/x"\nrule = "within"\nbound = [0.1, inf]\nauthor = "Zur"\n')
    (entry,) = verdicts.read(path)
    assert (entry.expected, entry.subject, entry.author) == ("at least 0.1", "a/x", "Zur")
    path.write_text('[[entry]]\nstudy = "toy"\nfindings = "a/x"\n')
    with pytest.raises(ValueError, match="an entry has no 'findings'"):
        verdicts.read(path)


def test_verdicts_on_a_claim():
    told = {
        ("hit", "hit"): "confirmed", ("miss",): "refuted", ("open",): "open", ("hit", "miss", "open"): "partly",
        ("hit", "open"): "open", ("miss", "open"): "not supported", ("untested",): "not measured yet",
        ("hit", "untested"): "confirmed (by 1 of 2 checks)",
    }  # fmt: skip
    assert {words: together(words) for words in told} == told


def test_a_sum_of_findings_is_paired():
    a, b = level(0.5), level(0.2)
    found = verdicts.total([(0.5, a), (-1.0, b)], "lag/x", "half less all")
    assert found.value.mean == pytest.approx(0.05, abs=0.01) and found.n == 8


# What the judges said that this one replaced (25 and 28 November 2026), of the cells that were stored then.

BEFORE = json.loads((Path(__file__).parent / "verdicts_before.json").read_text())


def printed(value):
    """As it was printed then: an interval to three decimals in all cases."""
    limits = isinstance(value, stats.Interval)
    return f"{value.mean:.3f} [{value.low:.3f}, {value.high:.3f}]" if limits else str(value)


@pytest.mark.parametrize("name", BEFORE["entries"])
def test_entries_have_the_verdicts_that_they_had(name):
    module = importlib.import_module(f"studies.{name}")
    folders = sorted(path.parent for path in (ROOT / "artifacts" / name).glob("*/provenance.json"))
    records = [row for folder in folders for row in store.read_records(folder)]
    cells = lab.cells(records, module.Config, module.findings)
    told = [entry for entry in predictions.entries() if entry.study == name]
    judged = [[v for v in judge(entry, cells) if v.word != "untested"] for entry in told]
    assert [sorted([v.word, printed(v.value)] for v in found) for found in judged] == BEFORE["entries"][name]


ENTERED = sorted({entry.study for entry in predictions.entries()})


# Studies whose entries are of several cells together.
COMPARED = ("teacher_line", "first_principles", "learning_curves", "organisms", "base_vs_instruct")
OF_MORE_CELLS = {"step_295-step_4012/recentred_rank"}  # of ten distributions or more; fewer are stored


@pytest.mark.parametrize("name", ENTERED)
def test_every_entry_has_a_reason_and_speaks_of_options_and_findings_that_there_are(name):
    study = finder.find_study(name)
    options = {field.name for field in dataclasses.fields(study.Config)}
    cells = stored(study, ROOT / "artifacts")
    compared = study.part("comparisons", lambda cells: [])(cells) if name in COMPARED else []
    keys = {finding.key for cell in cells for finding in cell.findings} | {finding.key for finding in compared}
    for entry in (entry for entry in predictions.entries() if entry.study == name):
        if name in COMPARED and not compared and entry.finding not in keys:
            continue  # too few of its cells are stored to be compared
        assert (entry.reason or entry.author != "mechsub") and entry.over in options | {""}
        assert set(entry.where) <= options
        named = {entry.finding.replace("{}", level) for level in entry.levels} if not entry.over else {entry.finding}
        assert (named if entry.levels else {entry.finding}) <= keys | OF_MORE_CELLS


def interval(numbers):
    return stats.Interval(*numbers, 5) if isinstance(numbers, list) else numbers


def test_bounds_and_checks_of_audits_have_the_verdicts_that_they_had():
    for rule, value, bound, margin, p, word in BEFORE["sides"]:
        limit = [float(number) for number in bound] if rule == "within" else interval(bound)
        assert side(rule, interval(value), limit, margin=margin, p=p)[0] == word


@pytest.mark.parametrize(("rule", "levels", "word"), [
    ("peak", ["untrained", "null", "aux", "absent"], "untested"), ("increases", ["null", "aux", "absent"], "untested"),
    ("increases", ["null", "absent", "aux"], "hit"), ("none", ["absent", "null", "aux"], "untested"),
])  # fmt: skip
def test_levels_that_an_entry_names_are_stored_or_it_is_not_judged(rule, levels, word):
    scores = {"untrained": 0.1, "null": 0.2, "aux": 0.6}
    found = [mean(f"{arm}/accuracy", "", {i: v + i / 100 for i in range(6)}, unit="seeds") for arm, v in scores.items()]
    (verdict,) = verdicts.judge(Entry("toy", "{}/accuracy", rule, levels=levels), [Cell({}, [], findings=found)])
    assert verdict.word == word
    assert word != "untested" or verdict.reason == "the level absent is not stored"


def test_findings_of_comparisons_are_judged_group_by_group():
    entry = Entry("toy", "y-x/score", "above")
    compared = [
        Finding("y-x/score", "", value, cell=label) for label, value in {"loss=kl": HIGH, "loss=mse": LOW}.items()
    ]
    found = predictions.judged(entry, [], lambda: compared)
    assert [(v.word, v.at) for v in found] == [("hit", ", cells=loss=kl"), ("miss", ", cells=loss=mse")]
    (alone,) = predictions.judged(entry, [], lambda: [Finding("y-x/score", "", HIGH)])
    assert (alone.word, alone.at) == ("hit", "")
