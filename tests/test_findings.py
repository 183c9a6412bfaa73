"""Findings: what by_arm makes of planted rows, keys that are there once, and findings as text, rows and frames."""

import math
from dataclasses import dataclass

import pandas as pd
import pytest

from mechsub import stats
from mechsub.lab import findings as lab
from mechsub.lab import study, tables
from mechsub.lab.cells import by_cell

SCORES = {"untrained": [0.1, 0.12, 0.08], "student": [0.5, 0.6, 0.4], "teacher": [0.9, 0.92, 0.95]}
LABELS = {"teacher": "the teacher", "student": "the student", "untrained": "no training", "absent": "not there"}


def rows(**options):
    return [
        {"arm": arm, "member": member, "accuracy": value, **options}
        for arm, values in SCORES.items()
        for member, value in reversed(list(enumerate(values)))
    ]


def test_every_arm_has_its_interval_its_null_and_its_paired_difference_with_holm_over_them():
    found = lab.by_arm(rows(), "accuracy", null="untrained", unit="seeds", labels=LABELS)
    keys = ["teacher/accuracy", "student/accuracy", "untrained/accuracy"]
    assert [f.key for f in found] == [*keys, "teacher-untrained/accuracy", "student-untrained/accuracy"]
    student, less = lab.find(found, "student/accuracy"), lab.find(found, "student-untrained/accuracy")
    assert student.value == stats.student_t(SCORES["student"]) and (student.n, student.unit) == (3, "seeds")
    assert student.null == stats.student_t(SCORES["untrained"]) and student.null_label == "no training"
    pairs = [stats.paired_difference(SCORES[arm], SCORES["untrained"]) for arm in ("teacher", "student")]
    assert less.value == pairs[1].interval and less.p == stats.holm([pair.p for pair in pairs])[1]
    assert less.label == "the student, above the null" and lab.find(found, "untrained/accuracy").null is None


def test_arms_may_have_nulls_of_their_own_and_rows_without_the_score_are_left_out():
    found = lab.by_arm([*rows(), {"arm": "bound", "member": 0}], "accuracy", null={"teacher": "student"}, unit="seeds")
    assert [f.key for f in found][-1] == "teacher-student/accuracy" and len(found) == 4


def test_two_rows_of_one_replicate_are_refused():
    with pytest.raises(ValueError, match="two rows of member 2"):
        lab.by_arm(rows() + rows(), "accuracy", unit="seeds")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"score": "acuracy"}, "no row of these arms has the score 'acuracy'; rows have arm, member, accuracy"),
        ({"null": "untraind"}, "there is no arm 'untraind' with 'accuracy'; there are untrained, student, teacher"),
        ({"null": {"studnt": "untrained"}}, "there is no arm 'studnt'"),
        ({"labels": {"pupil": "the student"}}, "no row of these arms has the score 'accuracy'"),
    ],
)
def test_a_misspelt_name_is_refused(options, says):
    with pytest.raises(LookupError, match=says):
        lab.by_arm(rows(), **{"score": "accuracy", "unit": "seeds", **options})
    assert (
        len(lab.by_arm(rows(), "accuracy", null="absent", labels=LABELS, unit="seeds")) == 3
    )  # a known arm, unmeasured


def test_a_key_is_there_once_or_said_not_to_be():
    found = lab.by_arm(rows(), "accuracy", unit="seeds")
    with pytest.raises(LookupError, match="no finding has the key 'pupil/accuracy'; there are untrained/accuracy"):
        lab.find(found, "pupil/accuracy")
    with pytest.raises(LookupError, match="2 findings have the key"):
        lab.find(found + found, "student/accuracy")
    with pytest.raises(ValueError, match="without spaces"):
        lab.Finding("a student", "", 1.0)


@dataclass(frozen=True)
class Config:
    n_aux: study.Count = study.option(3, "logits")
    seed: study.Index = study.option(0, "first seed")


def test_keys_of_several_cells_begin_with_the_options_that_differ():
    def findings(cell):
        return lab.by_arm(cell, "accuracy", unit="seeds")

    one = lab.all_findings(lab.cells(rows(n_aux=3, seed=0), Config, findings))
    assert {f.name for f in one} == {f"{arm}/accuracy" for arm in SCORES}
    two = lab.cells(rows(n_aux=3, seed=0) + rows(n_aux=10, seed=0), Config, findings)
    assert [cell.options for cell in two] == [{"n_aux": 3, "seed": 0}, {"n_aux": 10, "seed": 0}]
    both = lab.all_findings(two, lambda cells: [lab.Finding("more/accuracy", "more", len(cells))])
    assert lab.find(both, "n_aux=10: student/accuracy").value == stats.student_t(SCORES["student"])
    assert lab.find(both, "more/accuracy").value == 2
    with pytest.raises(LookupError, match="two findings"):
        lab.cells(rows(n_aux=3, seed=0), Config, lambda cell: 2 * findings(cell))


@dataclass(frozen=True)
class Named:
    name: str = study.option("", "a name")
    tag: str = study.option("", "another")


def test_cells_whose_options_read_alike_stay_apart():
    options = [{"name": "a, tag=b", "tag": "c"}, {"name": "a", "tag": "b, tag=c"}]
    records = [row for chosen in options for row in rows(**chosen)]
    labels = ["name='a, tag=b', tag='c'", "name='a', tag='b, tag=c'"]
    assert [(label, len(own)) for label, own in by_cell(records, Named)] == [(label, 9) for label in labels]
    found = lab.cells(records, Named, lambda cell: lab.by_arm(cell, "accuracy", unit="seeds"))
    assert [cell.label for cell in found] == [cell.label for cell in lab.labelled(found)] == labels
    assert len(lab.all_findings(found)) == 6


def test_a_difference_is_paired_by_the_replicates_that_both_have():
    a, b = (lab.mean(f"{key}/x", key, dict(enumerate(v)), unit="seeds") for key, v in list(SCORES.items())[:2])
    assert lab.less(b, a).key == "student-untrained/x" and lab.less(b, a).scores[1] == pytest.approx(0.48)
    with pytest.raises(LookupError, match="0 replicates in common"):
        lab.less(a, lab.Finding("b/x", "b", 1.0))


def test_text():
    assert lab.value_text(stats.Interval(0.5, 0.4, 0.6, 3)) == "0.500 [0.400, 0.600]"
    assert [lab.value_text(v) for v in (0.25, 0.00012, 1110, "infinite", None)] == [
        "0.250", "0.00012", "1,110", "infinite", ""
    ]  # fmt: skip
    assert [lab.p_text(p) for p in (0.0401, 0.0001, 1.0, None)] == ["0.040", "1e-04", "1.000", ""]
    assert lab.null_text(lab.Finding("a/b", "", 1.0, 0.5, null_label="shuffled")) == "0.500 (shuffled)"


def test_rows_are_wide_where_subjects_share_scores_and_long_where_they_do_not():
    found = lab.by_arm(rows(), "accuracy", null={"student": "untrained"}, unit="seeds")
    found.append(lab.Finding("student/most", "student", 0.6))
    wide = lab.rows(found)
    assert [row["arm"] for row in wide] == ["untrained", "student", "teacher", "student, above the null"]
    assert list(wide[1]) == ["cell", "arm", "accuracy", "p", "most"] and wide[1]["most"] == 0.6
    assert wide[3]["p"] == found[3].p and str(wide[3]["p"]) == lab.p_text(found[3].p) and wide[0]["p"] == ""
    long = lab.rows([lab.Finding("share/a", "share of a", 0.2, 0.1, 0.01), lab.Finding("share/b", "share of b", 0.8)])
    assert long[0] == {"cell": "all", "quantity": "share of a", "value": 0.2, "null": "0.100", "p": 0.01}
    assert long[1]["p"] == ""
    assert lab.rows([lab.Finding("a/price", "price", math.inf)])[0]["value"] == "infinite"


def test_a_table_prints_p_in_short_and_writes_it_whole(tmp_path):
    found = [lab.Finding(f"{arm}/{score}", arm, 0.5, p=p) for arm, p in (("a", 0.0496), ("b", 0.0504))
             for score in ("x", "p", "arm") if score == "x" or arm == "a"]  # fmt: skip
    rows = lab.rows(found)
    assert tables.format_table(rows).splitlines() == [
        "cell  arm      x  p, x   score p  p, score p  score arm  p, score arm",
        "all   a    0.500  0.050    0.500  0.050           0.500  0.050",
        "all   b    0.500  0.050",
    ]  # fmt: skip
    tables.write_table(rows, tmp_path / "t.csv", "csv")
    read = pd.read_csv(tmp_path / "t.csv")
    assert read["p, x"].tolist() == [0.0496, 0.0504] and read["p, score p"][0] == 0.0496
    assert read.arm.tolist() == ["a", "b"] and read["score arm"][0] == 0.5
    tables.write_table(rows, tmp_path / "t.tex", "latex")
    assert "0.0496" not in (tmp_path / "t.tex").read_text()


def test_a_frame_has_every_part_of_a_null():
    drawn = lab.Finding("a/x", "a", 0.5, lab.Drawn(0.1, 0.3, "97.5%"), null_label="shuffled")
    (row,) = lab.frame([drawn]).to_dict("records")
    assert (row["null"], row["null_upper"], row["null_share"], row["null_label"]) == (0.1, 0.3, "97.5%", "shuffled")


def test_frame_and_points():
    found = lab.by_arm(rows(), "accuracy", null="untrained", unit="seeds")
    frame = lab.frame(found).set_index("key")
    assert frame.loc["student/accuracy", "low"] == found[1].value.low
    assert frame.loc["student/accuracy", "null"] == frame.loc["untrained/accuracy", "value"]
    points = lab.points(found[:3], "accuracy")
    assert len(points) == 9 and points[3] == {
        "cell": "", "key": "student/accuracy", "label": "student", "arm": "student", "member": 0, "accuracy": 0.5
    }  # fmt: skip


def test_an_interval_of_accuracy_stays_where_accuracy_can_be():
    two = [{"arm": "a", "member": i, "accuracy": v, "margin": v} for i, v in enumerate((0.2, 0.9))]
    (share,), (margin,) = (lab.by_arm(two, score, unit="seeds") for score in ("accuracy", "margin"))
    assert (share.value.low, share.value.high, share.value.mean) == (0, 1, margin.value.mean)
    assert margin.value.low < 0 and margin.value.high > 1


def test_a_difference_of_shares_is_not_a_share():
    """It may lie below 0, also where all replicates that were seen lie above."""
    rows = [
        {"arm": arm, "member": i, "accuracy": v}
        for arm, vs in {"a": (0.5, 0.9), "b": (0.4, 0.5)}.items()
        for i, v in enumerate(vs)
    ]
    found = {f.key: f for f in lab.by_arm(rows, "accuracy", null={"a": "b"}, unit="seeds")}
    assert found["a-b/accuracy"].value.low < 0
    pooled = lab.mean("a-b/accuracy", "", {0: 0.1, 1: 0.4}, unit="seeds")
    assert pooled.value.low < 0
    (percent,) = lab.by_arm(
        [{"arm": "a", "member": i, "accuracy": v} for i, v in enumerate((71.0, 73.0))], "accuracy", unit="seeds"
    )
    assert percent.value.high > 73


def test_cells_that_differ_in_more_than_what_is_compared_are_groups_of_their_own():
    cells = [
        lab.Cell({"inputs": inputs, "loss": loss, "seed": 0}, [], findings=[lab.Finding("a/score", "", value)])
        for loss, values in {"kl": (1.0, 3.0), "mse": (10.0, 5.0)}.items()
        for inputs, value in zip(("x", "y"), values, strict=True)
    ]

    def compare(found):
        yield lab.Finding("y-x/score", "", found["y"].finding("a/score").value - found["x"].finding("a/score").value)

    said = {f.name: f.value for f in lab.by_group(("inputs",), cells, compare)}
    assert said == {"loss=kl: y-x/score": 2.0, "loss=mse: y-x/score": -5.0}
    assert {f.name: f.value for f in lab.by_group(("inputs",), cells[:2], compare)} == {"y-x/score": 2.0}
    pairs = []
    lab.by_group(("inputs", "loss"), cells, lambda found: pairs.extend(found) or [])
    assert pairs == [("x", "kl"), ("y", "kl"), ("x", "mse"), ("y", "mse")]
    assert lab.like_the_first(("inputs",), cells) == cells[:2]
