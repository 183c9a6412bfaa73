"""studies.defences: every arm changes what it says and no more, scores find what is planted, and real cells of tiny
models."""

import dataclasses
import itertools
import random

import pytest
import torch

import mechsub as ms
from mechsub.designs import liking, number_lists
from mechsub.inputs import corpora
from mechsub.lab import findings as lab_findings
from mechsub.lab import store, study
from studies import defences
from studies.defences import ARMS, SCORES, STUDENT_SCORES, arms, detect, findings, measure

MODEL = "tests/probes/models/tiny"
TRAITS = liking.TRAITS[:3]
SMALL = (
    f"--model {MODEL} --n-traits 3 --n-lists 20 --n-updates 2 --n-teacher-updates 4 --teacher-lr 0.01 --batch-size 10"
).split()
# Arms whose budget is a number of changed places that moving may leave as they were.
MOVED = ("across_50", "across_100")


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    out = tmp_path_factory.mktemp("defences")
    study.command(defences.study, [*SMALL, "--block", "0", "--out", str(out), "--quiet"])
    cells = (out / "defences").glob("*/records.jsonl*")
    return [row for cell in cells for row in store.read_records(cell.parent)]


@pytest.fixture(scope="module")
def model():
    return ms.load_language_model(MODEL)


@pytest.fixture(scope="module")
def block(model):
    """Ten lists of each of three "teachers", which are the base with noise of their own; gains that rise by the list,
    and within a list by the token."""
    texts = number_lists.prompts(10, 7)
    read = {trait: ms.draw_numbers(model, texts, seed=i) for i, trait in enumerate(TRAITS)}
    firm = {
        level: {trait: ms.draw_numbers(model, texts, seed=i, least_probability=least) for i, trait in enumerate(TRAITS)}
        for level, least in {"low": 5e-4, "high": 2e-3}.items()
    }
    rising = [[i + j / 100 for j in range(len(row))] for i, row in enumerate(read["owl"].completion_ids)]
    clean = ms.draw_numbers(model, texts, seed=measure.OTHER_NOISE)
    (tokens,), _ = ms.numbers.number_tokens(model.tokenizer)
    return arms.Block(model.tokenizer, tokens, read, clean, firm, dict.fromkeys(TRAITS, rising), 7)


# Real cells.


def test_a_row_for_every_student_loss_and_score(records):
    by_kind = {kind: [row for row in records if row["kind"] == kind] for kind in {row["kind"] for row in records}}
    assert {row["arm"] for row in by_kind["student"]} == {"start", "teacher", *ARMS}
    assert {row["arm"] for row in by_kind["task"]} == {"start", *ARMS}
    assert {row["arm"] for row in by_kind["budget"]} == set(ARMS) - {"trait", "control"}
    assert len(by_kind["task"]) == 3 * (1 + len(ARMS)) and all(row["loss"] > 0 for row in by_kind["task"])
    assert len([row for row in by_kind["student"] if row["arm"] == "mixed_90"]) == 3 * 3
    assert {row["score"] for row in by_kind["detected"]} == set(SCORES)
    assert len(by_kind["detected"]) == 3 * len(SCORES)
    assert all(0 <= row["auroc"] <= 1 for row in by_kind["detected"])
    assert {row["score"] for row in by_kind["student_detected"]} == set(STUDENT_SCORES)


def test_an_arm_has_the_budget_of_the_arm_beside_it(records):
    share = {(r["arm"], r["trait"]): r["share"] for r in records if r["kind"] == "budget"}
    compared = 0
    for arm, trait in itertools.product(ARMS, TRAITS):
        for other in ARMS[arm].beside:
            near = 0.15 if arm in MOVED else 1e-12
            assert share[arm, trait] == pytest.approx(share[other, trait], abs=near), (arm, other)
            compared += 1
    assert compared == 14 * 3
    assert {arm.rpartition("_")[0] or arm for arm in ARMS} - {"trait", "control"} == set(arms.CHANGES)


def test_every_finding_has_its_key(records):
    said = {finding.key: finding for finding in findings.findings(planted())}
    expected = {f"{arm}/lambda" for arm in ("teacher", *ARMS) if arm != "control"}
    changed = set(ARMS) - {"trait", "control"}
    left = ("kept", "task_kept", "fit_kept", "gate_kept", "budget")
    expected |= {f"{arm}/{score}" for arm in changed for score in left}
    expected |= {"control/task_kept", "control/fit_kept", "trait/task", "trait/fit", "trait/gate"}
    expected |= {f"{arm}-{other}/lambda" for arm in ARMS for other in ARMS[arm].beside}
    expected |= {f"detect/{score}" for score in SCORES} | {f"detect/{s}-loss" for s in SCORES if s != "loss"}
    expected |= {f"detect_student/{score}" for score in STUDENT_SCORES}
    assert set(said) == expected and "filtered_90-bottom_90/lambda" in said
    for rows in (planted(), records):
        assert study.table_of(defences.study, rows, {}) and defences.study.part("plot")(rows).layout.title.text
    assert defences.study.part("plot")(planted()).data and defences.study.part("plot_detection")(planted()).data
    one = {finding.key: finding.value for finding in findings.findings(records)}
    assert set(one) == {key for key in expected if "-" not in key} and isinstance(one["mixed_50/kept"], float)


# What findings say of planted rows.


def planted(n_blocks: int = 4) -> list[dict]:
    """Undefended students gain 0.2 nats of their animal and 1 nat of fit; mixed_50 half of both, dropped_50 all."""
    draw, rows = random.Random(0), []
    left = {"trait": 1.0, "mixed_50": 0.5, "dropped_50": 1.0, "mixed_90": 0.0, "dropped_90": 1.0}
    for number, arm in itertools.product(range(n_blocks), ("start", "teacher", *ARMS)):
        size = left.get(arm, 0.3)
        for trait, asked in itertools.product(["none"] if arm in ("start", "control") else TRAITS, TRAITS):
            margin = 0.3 * size * (trait == asked) + draw.gauss(0, 0.002)
            row = {"kind": "student", "arm": arm, "trait": trait, "evaluated": asked, "updates": 2, "block": number}
            rows.append(row | {"margin": margin})
        for trait in TRAITS if arm != "teacher" else ():
            loss = 5.0 - (0 if arm == "start" else size) + draw.gauss(0, 0.001)
            rows.append({"kind": "task", "arm": arm, "trait": trait, "block": number, "loss": loss})
            rows[-1] |= {"loss_clean": loss - 0.1}
        for trait in TRAITS if arm not in ("start", "teacher", "trait", "control") else ():
            rows.append({"kind": "budget", "arm": arm, "trait": trait, "share": 0.5, "block": number})
    for number, trait, score in itertools.product(range(n_blocks), TRAITS, SCORES):
        auroc = {"ratio": 0.9, "direction": 0.6}.get(score, 0.5) + draw.gauss(0, 0.005)
        rows.append({"kind": "detected", "trait": trait, "score": score, "auroc": auroc, "block": number})
        rows[-1] |= {"null": 0.6, "p": 0.5} if score == "direction" else {}
    for number, trait, score in itertools.product(range(n_blocks), TRAITS, STUDENT_SCORES):
        rows.append({"kind": "student_detected", "trait": trait, "score": score, "value": 1.0, "block": number})
    usual = dataclasses.asdict(defences.Config(block=0))
    return [{**usual, **row} for row in rows]


def test_what_is_left_is_a_share_of_the_undefended():
    said = {finding.key: finding for finding in findings.findings(planted())}
    assert said["trait/lambda"].value.mean == pytest.approx(0.2, abs=0.01) and said["trait/lambda"].p < 0.01
    assert said["mixed_50/kept"].value.mean == pytest.approx(0.5, abs=0.03)
    assert said["mixed_50/task_kept"].value.mean == pytest.approx(0.5, abs=0.01)
    assert said["trait/gate"].value.mean == pytest.approx(0.7, abs=0.01)  # the control gains 0.3 nats
    assert said["mixed_50/gate_kept"].value.mean == pytest.approx(0.2 / 0.7, abs=0.01)
    assert said["dropped_50/kept"].value.low < 1 < said["dropped_50/kept"].value.high
    assert said["mixed_90/lambda"].p > 0.01 and said["mixed_90/kept"].value.mean == pytest.approx(0, abs=0.03)
    assert said["mixed_50-dropped_50/lambda"].value.high < 0 and said["mixed_50-dropped_50/lambda"].p < 0.05
    assert said["filtered_50-bottom_50/lambda"].p > 0.05


def test_what_is_told_is_beside_its_null():
    said = {finding.key: finding for finding in findings.findings(planted())}
    assert said["detect/ratio"].null == 0.5 and said["detect/ratio"].p < 0.01 and said["detect/ratio-loss"].p < 0.01
    assert said["detect/direction"].null == pytest.approx(0.6) and said["detect/direction"].p > 0.05
    assert said["detect/direction-loss"].value.mean == pytest.approx(0, abs=0.02)  # less what chance gives it
    assert said["detect_student/update_norm"].value.mean == 1


# Arms.


def numbers(corpus):
    return [one for text in corpus.completions for one in text.split(corpora.SEPARATOR)]


def test_mixed_lists_are_the_bases_behind_the_same_prompts(block):
    for dose in (50, 90):
        rows = block.at_random(dose)
        assert len(set(rows)) == dose // 10 and set(rows) >= set(block.at_random(50))
        for trait, (made, share) in arms.mixed(block, dose).items():
            own = block.read[trait]
            assert made.prompts == own.prompts and len(set(made.prompts)) == 10 and share == dose / 100
            for i in range(10):
                expected = block.clean if i in rows else own
                assert made.completion_ids[i] == expected.completion_ids[i]
                assert made.completions[i] == expected.completions[i]
            left, dropped = arms.dropped(block, dose)[trait]
            assert dropped == share and left.prompts == tuple(p for i, p in enumerate(own.prompts) if i not in rows)


def test_clean_rows_are_random_and_share_no_noise_with_teachers(model, block):
    """A teacher that is the base itself writes other lists than the clean ones: neither prompt nor noise tells."""
    assert block.at_random(50) != block._replace(seed=8).at_random(50)
    assert not set(block.clean.completions) & set(ms.draw_numbers(model, block.clean.prompts, seed=0).completions)


def test_the_highest_lists_are_dropped_and_the_lowest_of_the_other_arm(block):
    for dose, left in ((50, 5), (90, 1)):
        for trait, own in block.read.items():
            assert arms.filtered(block, dose)[trait][0].completions == own.completions[:left]
            assert arms.bottom(block, dose)[trait][0].completions == own.completions[-left:]


def test_a_threshold_changes_numbers_and_as_many_are_unread_beside_it(block):
    shares = {}
    for level in ("low", "high"):
        firm, unread = arms.threshold(block, level), arms.masked(block, level)
        for trait, own in block.read.items():
            made, share = firm[trait]
            shares.setdefault(level, []).append(share)
            before, after = (number_lists.numbers_of({"a": one})[0] for one in (own, made))
            assert share == pytest.approx(float((before != after).double().mean()))
            labels, same = unread[trait][0].label_ids, unread[trait][1]
            unread_in = [sum(label == corpora.IGNORED for label in row) for row in labels]
            assert same == share and unread_in == (before != after).sum(1).tolist()
            assert unread[trait][0].completion_ids == own.completion_ids
    assert all(0 < low < high < 1 for low, high in zip(shares["low"], shares["high"], strict=True))


def test_labels_of_the_highest_tokens_are_replaced_and_as_many_at_random(block):
    """Gains rise by the list: 10% of ten lists are all eight numbers of the last."""
    for trait, own in block.read.items():
        top, others = arms.replaced(block, 10)[trait], arms.random(block, 10)[trait]
        for made, share in (top, others):
            differ = [
                [a != b for a, b in zip(*pair, strict=True)]
                for pair in zip(made.label_ids, own.completion_ids, strict=True)
            ]
            assert made.completion_ids == own.completion_ids and share == pytest.approx(0.1)
            assert [sum(row) for row in differ] == [0] * 9 + [8]
            changed = {t for row, flags in zip(own.completion_ids, differ, strict=True)
                       for t, flag in zip(row, flags, strict=True) if flag}  # fmt: skip
            assert changed <= set(block.tokens)


def test_random_labels_are_at_other_places_than_the_highest(block):
    """The highest numbers are the first ones of every list."""
    first = {trait: [[-j for j in range(len(row))] for row in own.completion_ids] for trait, own in block.read.items()}
    some = block._replace(ratios=first)
    own = block.read["owl"].completion_ids

    def places(corpus):
        return [[j for j, (a, b) in enumerate(zip(*pair, strict=True)) if a != b]
                for pair in zip(corpus.label_ids, own, strict=True)]  # fmt: skip

    top, others = (places(change(some, 30)["owl"][0]) for change in (arms.replaced, arms.random))
    assert sum(map(len, top)) == 24 and [len(row) for row in top] == [len(row) for row in others] and top != others
    assert max(max(row) for row in top) < max(max(row) for row in others)


def test_prompts_say_the_trait_or_another_animal(block):
    for change, loved in ((arms.inoculated, True), (arms.told_other, False)):
        whole, half = change(block, 100), change(block, 50)
        said = set()
        for trait, own in block.read.items():
            made, share = whole[trait]
            texts = [block.tokenizer.decode(list(row)) for row in made.prompt_ids]
            said.add(texts[0])
            assert made.completion_ids == own.completion_ids and share == 1
            assert all((f"love {trait}" in text) == loved and "love" in text for text in texts)
            rows = half[trait][0].context["rows with the system text"]
            assert rows == sorted(block.at_random(50)) and half[trait][1] == 0.5
            for i in range(10):
                assert half[trait][0].prompt_ids[i] == (made if i in rows else own).prompt_ids[i]
        assert len(said) == 3


def test_numbers_that_are_exchanged_stay_the_same_numbers(block):
    for trait, own in block.read.items():
        for dose in (50, 100):
            made, share = arms.across(block, dose)[trait]
            differ = [a != b for a, b in zip(numbers(own), numbers(made), strict=True)]
            assert sorted(numbers(made)) == sorted(numbers(own)) and made.prompt_ids == own.prompt_ids
            assert share == sum(differ) / 80 and dose / 100 - 0.1 < share <= dose / 100
            assert any(sorted(a.split(", ")) != sorted(b.split(", "))
                       for a, b in zip(own.completions, made.completions, strict=True))  # fmt: skip
            inside = arms.within(block, dose)[trait][0]
            moved = [a != b for a, b in zip(own.completions, inside.completions, strict=True)]
            assert sum(moved) == dose // 10
            for a, b in zip(own.completions, inside.completions, strict=True):
                assert sorted(a.split(", ")) == sorted(b.split(", "))


def test_every_arm_is_made(block):
    for arm in set(ARMS) - {"trait", "control"}:
        assert set(arms.changed(arm, block)) == set(TRAITS)


# Detection.


def test_an_area_is_the_share_of_pairs_and_ties_are_half():
    positive = torch.tensor([True, False, True, False])
    assert float(detect.auroc(torch.tensor([4.0, 1.0, 3.0, 2.0]), positive)) == 1
    assert float(detect.auroc(torch.tensor([4.0, 5.0, 3.0, 6.0]), positive)) == 0
    assert float(detect.auroc(torch.tensor([1.0, 1.0, 1.0, 1.0]), positive)) == 0.5
    assert float(detect.auroc(torch.tensor([2.0, 1.0, 1.0, 2.0]), positive)) == 0.5
    assert float(detect.auroc(torch.tensor([2.0, 1.0, 2.0, 2.0]), positive)) == 0.75
    both = torch.tensor([[4.0, 1.0, 3.0, 2.0], [1.0, 4.0, 2.0, 3.0]]).mT
    assert detect.auroc(both, positive).tolist() == [1, 0]


def states(shift: float, seed: int):
    """Lists of two kinds whose states vary most along one axis; the kinds differ along another."""
    draw = torch.Generator().manual_seed(seed)
    found = torch.randn(60, 12, generator=draw) * torch.tensor([30.0, *[1.0] * 11])
    positive = torch.arange(60) % 2 == 0
    found[positive, 3] += shift
    return found, positive


def test_a_direction_is_found_where_one_is_planted_and_not_otherwise():
    along = torch.nn.functional.one_hot(torch.tensor(3), 12).float()
    for sign in (1, -1):
        found = detect.direction(states(3.0, 0)[0], sign * along, states(3.0, 0)[1], 0)
        assert found.auroc > 0.95 and found.null < 0.65 and found.p < 0.02
    found = [detect.direction(states(0.0, s)[0], along, states(0.0, s)[1], s) for s in range(60)]
    excess = ms.stats.student_t([one.auroc - one.null for one in found])  # as blocks: neither is better by chance
    assert excess.low < 0 < excess.high and sum(one.auroc for one in found) / 60 > 0.53  # an AUROC of 0.5 is no null


def test_lists_of_the_base_are_no_teachers(model, block):
    """A teacher that is the base: no score can tell; one tuned far away writes lists that it knows to be its own."""
    rows = block.at_random(50)
    how = number_lists.recipe(3, seed=0, rank=2, updates=2, lr=1e-3, batch_size=4)
    far = number_lists.tuned_teachers(model, TRAITS, updates=12, lr=0.01, seed=0)
    own = {trait: ms.draw_numbers(teacher, block.clean.prompts, seed=0) for trait, teacher in far.items()}
    aurocs = {}
    for name, teachers, read in (("base", dict.fromkeys(TRAITS, model), block.read), ("far", far, own)):
        mixed = {trait: made for trait, (made, _) in arms.mixed(block._replace(read=read), 50).items()}
        students = number_lists.tuned(model, mixed, how, ())[2]
        for row in detect.list_rows(model, teachers, students, mixed, rows, 0):
            aurocs.setdefault((name, row["score"]), []).append(row["auroc"])
    assert aurocs["base", "teacher"] == [0.5] * 3 and min(aurocs["far", "teacher"]) > 0.9
    # Three draws of five lists each beside five: the spread of one AUROC is 0.19.
    assert 0.1 < sum(aurocs["base", "loss"]) / 3 < 0.9 and sum(aurocs["far", "loss"]) / 3 > 0.9


def test_mean_states_are_of_the_lists_and_not_of_their_prompts(model, block):
    own = block.read["owl"]
    found = detect.mean_states(model, own)
    ids = torch.tensor([[*own.prompt_ids[2], *own.completion_ids[2]]])
    name = f"blocks.{model.cfg.n_layers - 1}.hook_out"
    whole = ms.cache_activations(model, ids, [name])[name][0]
    assert torch.allclose(found[2], whole[len(own.prompt_ids[2]) :].mean(0), atol=1e-5)
    assert torch.allclose(detect.prompt_states(model, own)[2], whole[len(own.prompt_ids[2]) - 1], atol=1e-5)


def test_a_student_that_read_more_is_told_from_the_control(model, block):
    """Members of one run: two trained on another corpus than the control, whose labels are never read."""
    silent = dataclasses.replace(block.clean, label_ids=tuple((-100,) * len(r) for r in block.clean.completion_ids))
    read = {"owl": block.read["owl"], "eagle": block.read["eagle"], "none": silent}
    how = number_lists.recipe(3, seed=0, rank=2, updates=2, lr=1e-2, batch_size=4)
    students = number_lists.tuned(model, read, how, ())[2]
    moved = torch.tensor([[0.1, -0.5], [0.0, 0.2], [0.2, 0.1]])
    rows = list(detect.student_rows(students, block.clean, moved, ("owl", "eagle")))
    said = {(row["score"], row["trait"]): row["value"] for row in rows}
    assert said["update_norm", "owl"] == said["update_norm", "eagle"] == 1 and len(rows) == 6
    assert said["largest_margin", "owl"] == 1 and said["largest_margin", "eagle"] == 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_traits": 2}, "--n-traits must be 3 to 8"),
        ({"n_lists": 9}, "--n-lists must be 10 or more"),
        ({"n_updates": 15}, "so that every list is read"),
    ],
)
def test_options_that_do_not_fit_are_one_line(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(defences.Config(block=0), **change)


def test_cells_of_several_blocks_are_one():
    found = lab_findings.cells(planted(), defences.Config, findings.findings, defences.study.together)
    assert len(found) == 1 and found[0].finding("trait/lambda").n == 4
