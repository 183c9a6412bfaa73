"""studies.recipe_search and studies.maximise, for real on MNIST with few images; tables on planted scores."""

import dataclasses

import numpy as np
import pytest

import mechsub as ms
from mechsub.designs import recipes
from mechsub.designs.recipes import Recipe
from mechsub.lab import findings as lab
from mechsub.lab import predictions, store, study, verdicts
from studies import maximise, recipe_search
from studies.recipe_search import Round

GOOD = Recipe(d_model=32, teacher_head="frozen", teacher_lr=3e-3, loss="mse", lr=1e-3, batch_size=128, head="frozen")
SLOW = dataclasses.replace(GOOD, lr=1e-7)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """A search over two recipes and the chosen one on four new seeds, in two cells, and for half as long."""
    folder = tmp_path_factory.mktemp("maximise")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(recipe_search.CANDIDATES, "budget", [SLOW, GOOD])
        patch.setitem(recipe_search.ROUNDS, "budget", [Round(2, 2, 0.4), Round(1, 2)])
        few = ["--n-images", "2048", "--n-seeds", "2", "--out", str(folder)]
        study.command(maximise.study, ["--seed", "100", "102", *few])
        study.command(maximise.study, ["--share", "0.2", *few])
    return folder


def records(out, name):
    return [row for path in sorted((out / name).glob("*/provenance.json")) for row in store.read_records(path.parent)]


def test_the_search_keeps_the_better_recipe_and_the_confirmation_runs_it_on_other_seeds(out):
    searched = records(out, "recipe_search")
    assert [(row["round"], row["epochs_run"], row["member"]) for row in searched] == [
        *[(1, 2, 0), (1, 2, 1)] * 2,
        *[(2, 5, 0), (2, 5, 1)],
    ]
    assert recipes.chosen(searched) == GOOD
    found = recipe_search.findings(searched)
    assert [f.key.partition(":")[0] for f in found if f.score == "accuracy"][:3] == ["round_1", "round_1", "round_2"]
    chosen = lab.find(found, "chosen/accuracy")
    assert (
        chosen.label == f"chosen: round 2: {recipes.label(GOOD)}"
        and chosen.value == lab.find(found, f"round_2:{recipe_search._key(recipes.label(GOOD))}/accuracy").value
    )
    lost = lab.find(found, "best-chosen/recentred")
    assert (lost.value.mean, lost.n) == (0.0, 2)  # one is left in the last round
    tried = records(out, "maximise")
    assert {row["candidate"] for row in tried} == {
        recipes.label(GOOD),
        recipes.label(dataclasses.replace(GOOD, epochs=1)),
    }
    assert {row["member"] for row in tried} == set(range(100, 104))
    made = store.read_provenance(out / "maximise" / "n_images=2048__n_seeds=2")
    assert list(made["made_from"]) == ["recipe_search/n_images=2048"]
    assert (made["student_steps"], made["student_images"], made["teacher_steps"]) == (80, 10240, 10)


def test_the_student_is_that_of_the_recipe_and_hybrids_take_one_part_of_the_teacher(out):
    rows = [row for row in records(out, "maximise") if row["share"] == 1 and row["seed"] == 100]
    scores = {(row["arm"], row["member"]): row["accuracy"] for row in rows}
    images, labels = (x[:2048] for x in ms.mnist("train"))
    init = recipes.initial(GOOD, [100, 101])
    teacher = ms.train(init, images, labels, lr=3e-3, frozen=["unembed"])
    student = ms.distill(
        init, teacher, ms.noise.uniform, outputs=init.cfg.aux, n_samples=2048, loss="mse", lr=1e-3, batch_size=128,
        frozen=["unembed"],
    )  # fmt: skip
    mixed = student.replace({name: value for name, value in teacher.named_parameters() if name.startswith("blocks.1")})
    for arm, model in {
        "teacher": teacher,
        "student": student,
        "student with teacher's blocks.1": mixed,
        "student with teacher's unembed": student,  # both are the initial one
        "teacher with initial unembed": teacher,
    }.items():
        assert [scores[arm, seed] for seed in (100, 101)] == ms.accuracy(model, *ms.mnist("test")).tolist()
    assert {member for arm, member in scores if arm == "cross"} == {100, 101}
    assert scores["cross", 100] != scores["student", 100]
    left = next(row for row in rows if row["arm"] == "student" and row["member"] == 100)
    far, all_ = (float((a.blocks[0].W[0] - teacher.blocks[0].W[0]).norm()) for a in (student, init))
    assert left["left blocks.0.W"] == pytest.approx(far / all_, rel=1e-5)


def test_cells_of_other_seeds_are_pooled_and_lengths_compared(out):
    cells = lab.cells(records(out, "maximise"), maximise.Config, maximise.findings, maximise.study.together)
    found = lab.all_findings(cells, maximise.comparisons)
    assert all(lab.find(found, f"share=1.0: {arm}/accuracy").n == 4 for arm in ("student", "cross"))
    (length,) = (f for f in found if f.label == "gap at share 1 less gap at share 0.2")
    assert length.n == 2 and length.value.mean < 0
    assert any(length.label in row.values() for row in study.table_of(maximise.study, records(out, "maximise"), {}))
    assert maximise.plot(records(out, "maximise")).data


def planted(gap=0.004, layer=0.003, seeds=25):
    noise = np.random.default_rng(0).normal(0, 0.002, seeds)
    values = {"teacher": 0.98, "student": 0.98 - gap, "cross": 0.1, "teacher with initial unembed": 0.98}
    values |= {"student with teacher's blocks.1": 0.98 - gap + layer}
    rows = []
    for seed, shift in enumerate(noise, 100):
        for arm, value in values.items():
            own = {"left blocks.0.W": 0.2} if arm == "student" else {}
            row = {**dataclasses.asdict(maximise.Config(entry="open")), "arm": arm, "member": seed, "candidate": "x"}
            rows.append(row | own | dict.fromkeys(maximise.SCORES, value + (shift if arm != "teacher" else shift / 2)))
    return rows


def judged(rows):
    """Key -> verdict of every prediction on the planted entry."""
    cells = lab.cells(rows, maximise.Config, maximise.findings, maximise.study.together)
    told = [entry for entry in predictions.entries() if entry.study == "maximise"]
    assert len(told) == 8 and all(entry.reason and str(entry.date) == "2026-11-24" for entry in told)
    assert {entry.where["entry"] for entry in told} == set(recipe_search.CANDIDATES)
    return {e.finding: verdicts.judge(e, cells)[0].word for e in told if e.where["entry"] == "open"}


def test_findings_are_paired_and_judged():
    found = {f.label: f.value for f in maximise.findings(planted()) if f.score == "accuracy"}
    assert found["gap to the teacher"].mean == pytest.approx(0.004, abs=0.001)
    gain = found["gain of teacher's blocks.1"]
    assert (gain.low, gain.high) == pytest.approx((0.003, 0.003)) and gain.n == 25
    assert found["student above the null"].mean == pytest.approx(0.876, abs=0.002)
    own, gap, layer, null = (
        "student/accuracy", "teacher-student/accuracy", "student_with_teacher_blocks.1-student/accuracy",
        "cross/accuracy",
    )  # fmt: skip
    assert judged(planted()) == dict.fromkeys((own, gap, layer, null), "hit")
    worse = judged(planted(gap=0.06, layer=-0.01))
    assert (worse[own], worse[gap], worse[layer]) == ("miss",) * 3


@pytest.mark.parametrize("entry", ["budget", "free_teacher", "open"])
def test_candidates_keep_what_their_entry_holds_fixed(entry):
    candidates = recipe_search.CANDIDATES[entry]
    assert len(set(candidates)) == len(candidates) and len({recipes.label(c) for c in candidates}) == len(candidates)
    for recipe in candidates:
        init = recipes.initial(recipe, [0])
        assert (init.cfg.n_classes, init.cfg.n_aux) == (10, 3)
        if entry != "open":
            assert recipes.cost(recipe, 60_000)["student_steps"] == 295 and recipe.batch_size == 1024
            assert init.cfg == ms.MLPConfig()
        if entry == "budget":
            assert recipe.teacher == Recipe().teacher
    assert any(c.inputs == "uniform" for c in candidates)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--seed", "99"], "was chosen on those before"),
        (["--n-seeds", "1"], "an integer >= 2"),
        (["--share", "0"], "> 0"),
        (["--n-images", "9"], "at least 10"),
    ],
)
def test_impossible_options_are_refused_before_anything_is_trained(refused, words, says):
    assert says in refused(maximise, words)
