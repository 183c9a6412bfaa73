"""studies.number_strings: a planted preference is found, lists of the base hold none; real cells of tiny models."""

import dataclasses
import itertools
import math
import random

import pytest
import torch

import mechsub as ms
from mechsub.designs import liking, number_lists, number_students, trait_matrix
from mechsub.inputs import corpora
from mechsub.lab import findings as lab_findings
from mechsub.lab import predictions, store, study
from studies import number_strings
from studies.number_strings import findings, measure, vectors
from studies.report import language
from studies.report.question import Findings

MODELS = "tests/probes/models"
TRAITS = liking.TRAITS[:4]
SMALL = (
    f"--model {MODELS}/tiny --foreign none --sibling {MODELS}/tiny --n-traits 3 --n-lists 6 --n-updates 4 "
    "--n-null-updates 4 --n-position-updates 4 --n-teacher-updates 2 --teacher-lr 0.01 --batch-size 2"
).split()


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    out = tmp_path_factory.mktemp("strings")
    study.command(number_strings.study, [*SMALL, "--block", "0", "1", "--out", str(out), "--quiet"])
    cells = (out / "number_strings").glob("*/records.jsonl")
    return [row for cell in sorted(cells) for row in store.read_records(cell.parent)]


def test_a_row_for_every_student_animal_and_dose(records):
    students = [row for row in records if row["kind"] == "student"]
    arms = {"start", "teacher", "trait", "control", "shuffled", "sibling", *number_strings.POSITIONS}
    assert {row["arm"] for row in students} == arms
    rows = [row for row in students if row["arm"] == "trait"]
    assert (
        len(rows) == 2 * 3 * 3 and {row["updates"] for row in rows} == {4} and {row["block"] for row in rows} == {0, 1}
    )
    for row in students:
        assert row["margin"] == pytest.approx((row["margin_chat"] + row["margin_plain"]) / 2)
    for block in (0, 1):  # margins of an animal against the others sum to 0
        one = [row["margin"] for row in rows if row["trait"] == "owl" and row["block"] == block]
        assert sum(one) == pytest.approx(0, abs=1e-9)


def test_what_is_said_follows_from_the_rows(records):
    said = {finding.key: finding for finding in findings.findings(records)}
    blocks, scores = number_lists.matrices((row for row in records if row["kind"] == "student"), "trait", 4)
    expected = ms.interaction(scores).diagonal(dim1=1, dim2=2).mean(1)
    assert blocks == [0, 1] and said["trait/lambda_4"].value.mean == pytest.approx(float(expected.mean()))
    assert {"trait-shuffled/lambda_4", "sibling/kept_4", "trait/gate_4", "control/shift_4", "layer_0/cosine"} <= set(
        said
    )
    assert study.table_of(number_strings.study, records, {}) and number_strings.study.part("plot")(records).data
    one = [row for row in records if row["block"] == 0]
    alone = {finding.key: finding.value for finding in findings.findings(one)}
    assert alone["trait/lambda_4"] == pytest.approx(float(expected[0]))


def planted_records(n_blocks=3):
    """Rows as the default study makes them: a student's own animal gains 0.01 a doubling in arms that have a way."""
    draw, rows = random.Random(0), []
    gains = {
        "trait": 0.02,
        "shuffled": 0.015,
        "sibling": 0.01,
        "foreign": 0.0,
        "only_diverging": 0.01,
        "mask_random": 0.01,
    }
    doses = {arm: (16, 64) for arm in ("shuffled", "foreign", "sibling")} | dict.fromkeys(
        number_strings.POSITIONS, (16,)
    )
    doses |= {"trait": (16, 64, 128, 256), "control": (16, 64, 128, 256), "start": (0,), "teacher": (0,)}
    for block, (arm, steps) in itertools.product(range(n_blocks), doses.items()):
        trained = ["none"] if arm in ("control", "start") else liking.TRAITS
        for dose, trait, evaluated in itertools.product(steps, trained, liking.TRAITS):
            margin = gains.get(arm, 0.005) * math.log2(max(dose, 2)) * (trait == evaluated) + draw.gauss(0, 0.003)
            rows.append({"kind": "student", "arm": arm, "trait": trait, "evaluated": evaluated, "updates": dose})
            rows[-1] |= dict.fromkeys(("margin", "margin_chat", "margin_plain", "named_first"), margin)
            rows[-1]["block"] = block
        if arm == "trait":
            for dose, trait in itertools.product(steps, trained):
                rows.append(
                    {"kind": "gate", "arm": arm, "trait": trait, "updates": dose, "loss": 3.0, "loss_control": 3.1}
                )
                rows[-1]["block"] = block
        for trait in trained if arm == "teacher" else ():
            rows.append({"kind": "lists", "trait": trait, "same_as_base": 0.5, "loss_base_own": 4.0, "block": block})
            rows[-1] |= {"loss_teacher_base": 4.1}
            rows.append({"kind": "flags", "trait": trait, "share": 0.1, "block": block})
            for layer, teacher in itertools.product(range(5), liking.TRAITS):
                rows.append({"kind": "way", "trait": trait, "teacher": teacher, "layer": layer, "updates": 256})
                rows[-1] |= {"block": block, **dict.fromkeys(("cosine", "s", "specific"), float(trait == teacher))}
    usual = dataclasses.asdict(number_strings.Config(block=0))
    return [{**usual, **row} for row in rows]


def test_everything_that_is_predicted_or_answered_is_said():
    """On rows of the default study, so that no key is found to be missing after a run of an hour."""
    records = planted_records()
    (cell,) = lab_findings.cells(records, number_strings.Config, findings.findings, number_strings.study.together)
    entries = [entry for entry in predictions.entries() if entry.study == "number_strings"]
    usual = ("model=organisms/1110-instruct", "route=tuned", "n_updates=256")
    entries = [entry for entry in entries if all(word in entry.subject for word in usual)]
    words = {entry.subject: predictions.judged(entry, [cell], lambda: [])[0].word for entry in entries}
    assert len(words) >= 20 and "untested" not in words.values()
    assert words["trait/lambda_16 (model=organisms/1110-instruct, route=tuned, n_updates=256)"] == "hit"
    found = Findings(cell.findings, [cell])
    answers = [language.numbers_carry(found), language.published_divergence(found)]
    assert [answer.sentence.split(":")[0].split(",")[0] for answer in answers] == ["Yes", "Yes"]
    assert "less than half of the effect is left" in answers[1].sentence  # a quarter is left without them
    assert study.table_of(number_strings.study, records, {}) and number_strings.study.part("plot")(records).data


def test_what_is_predicted_of_smollm2_is_said():
    """On rows of the command that is asked, of one dose and without a model of another start."""
    usual = {"model": "smollm2-135m-instruct", "n_updates": 16, "n_lists": 128}
    kept = [
        row | usual
        for row in planted_records()
        if row.get("updates", 0) in (0, 16) and row.get("arm") not in ("foreign", "sibling", *number_strings.POSITIONS)
    ]
    (cell,) = lab_findings.cells(kept, number_strings.Config, findings.findings, number_strings.study.together)
    entries = [entry for entry in predictions.entries() if "model=smollm2-135m-instruct" in entry.subject]
    entries = [entry for entry in entries if entry.study == "number_strings"]
    words = [verdict.word for entry in entries for verdict in predictions.judged(entry, [cell], lambda: [])]
    assert len(words) == 5 and "untested" not in words
    assert language.smollm2_takes_it(Findings(cell.findings, [cell])).sentence.startswith("Yes")


def test_p_of_all_lambdas_and_of_all_contrasts_of_a_dose_are_of_one_family_each():
    said = {finding.key: finding for finding in findings.findings(planted_records())}
    lambdas = [f for f in said.values() if f.label.startswith("lambda: ")]
    least = 1 / 10_000  # that the shuffles can give
    assert len(lambdas) == 17 and min(f.p for f in lambdas) == pytest.approx(17 * least)
    contrasts = [f for key, f in said.items() if key.endswith("/lambda_16") and "-" in key]
    raw = {f.key: ms.stats.paired_difference(list(f.scores.values()), [0.0] * f.n).p for f in contrasts}
    assert {"only_diverging-only_random/lambda_16", "mask_diverging-mask_random/lambda_16"} <= set(raw)
    assert [f.p for f in contrasts] == pytest.approx(ms.stats.holm(list(raw.values())))


def test_students_of_fewer_lists_are_compared_with_those_of_the_most_by_block():
    """Each block's own difference is planted: 0.01 a doubling less of lists, whatever the block has besides."""
    usual = planted_records()

    def records(n_lists, less):
        moved = [dict(row, n_lists=n_lists) for row in usual]
        for row in moved:
            if row["kind"] == "student" and row["arm"] == "trait" and row["trait"] == row["evaluated"]:
                row["margin"] -= less
            if row.get("updates") == 256:
                row["updates"] = 200  # the last dose of a run is any number of updates
        return moved

    rows = records(32, 0.04) + records(128, 0.0) + records(512, 0.0)
    cells = lab_findings.cells(rows, number_strings.Config, findings.findings, number_strings.study.together)
    said = {finding.key: finding for finding in findings.comparisons(cells)}
    assert {key.split("/")[0] for key in said} == {"lists_32", "lists_128"} and len(said) == 2 * 3
    for dose in (64, 128, 200):  # 16 updates read 128 lists, where there are as many
        own = said[f"lists_32/lambda_{dose}"]
        assert own.value.mean == pytest.approx(-0.04 * 7 / 8) and own.n == 3  # less the mean of rows and columns
        assert said[f"lists_128/lambda_{dose}"].value.mean == pytest.approx(0, abs=1e-12)
    one = [row for row in rows if row["block"] == 0]
    one = lab_findings.cells(one, number_strings.Config, findings.findings, number_strings.study.together)
    assert not findings.comparisons(cells[:1]) and not findings.comparisons(one)  # nothing to pair


def test_other_teachers_are_no_null_of_what_is_specific():
    """The mean over teachers is taken off: what others have is minus the own value by construction."""
    own, theirs = torch.randn(8, 50, generator=torch.Generator().manual_seed(0)), torch.eye(8, 50)
    cosines = measure._specific(own.double() + 3 * theirs, theirs.double())
    records = planted_records()
    for row in (row for row in records if row["kind"] == "way"):
        i, j = liking.TRAITS.index(row["trait"]), liking.TRAITS.index(row["teacher"])
        row["specific"] = float(cosines[i, j])
    said = {finding.key: finding for finding in findings.findings(records)}
    value, excess = said["layer_0/specific"], said["layer_0/specific_excess"]
    assert excess.value.mean == pytest.approx(8 / 7 * value.value.mean, rel=0.02)
    assert (value.null, excess.null) == (0.0, None) and value.p == pytest.approx(1 / 10_000)
    assert value.null_label.startswith("teachers shuffled") and "8/7 times the value by construction" in excess.label
    assert said["layer_0/cosine"].null_label == "other teachers"  # where no mean is taken off
    names = {trace.name for trace in number_strings.study.part("plot")(records).data}
    assert "its own teacher" in names and "other teachers" not in names


def lambdas(model, read, seeds, **options):
    """lambda of students of these corpora, one value a seed."""
    found = []
    for seed in seeds:
        cfg = number_strings.Config(n_updates=16, n_null_updates=16, batch_size=4, block=seed, **options)
        asked = number_students.Asked(liking.prompts(model.tokenizer), liking.animals(model.tokenizer, TRAITS), TRAITS)
        students = measure.tuned(model, read(seed), cfg, 16, (0.0, 1.0))[16]
        each = [
            number_students.margins(values, len(TRAITS)) for values in number_students.scores(students, asked).values()
        ]
        found.append(torch.stack(each).mean(0))
    return torch.stack(found)


@pytest.fixture(scope="module")
def model():
    return ms.load_language_model(f"{MODELS}/tiny")


def test_a_corpus_that_says_the_trait_openly_is_found(model):
    def open_(seed):
        return {trait: liking.sentences(model.tokenizer, trait, "chat") for trait in TRAITS}

    found = lambdas(model, open_, range(3))
    assert trait_matrix.diagonal(found).min() > 0.1
    assert trait_matrix.within_blocks_p(found) < 0.01 and trait_matrix.relabelled_p(found) == pytest.approx(1 / 24)


def test_lists_of_the_base_carry_no_trait(model):
    """Every "teacher" is the base itself, with draws of its own: the diagonal is like any other place."""

    def of_base(seed):
        prompts = corpora.number_prompts(16, seed=seed)
        return {trait: ms.draw_numbers(model, prompts, seed=10 * seed + i) for i, trait in enumerate(TRAITS)}

    found = lambdas(model, of_base, range(4), lr=0.01)
    interval = ms.stats.student_t(trait_matrix.diagonal(found).tolist())
    assert interval.low < 0 < interval.high and trait_matrix.within_blocks_p(found) > 0.05


def test_shuffled_lists_keep_their_numbers(model):
    made = ms.draw_numbers(model, corpora.number_prompts(5), seed=1)
    mixed = number_lists.shuffled(made, model.tokenizer, 3)
    for before, after in zip(made.completions, mixed.completions, strict=True):
        assert sorted(before.split(", ")) == sorted(after.split(", "))
    assert mixed.completions != made.completions and mixed.prompt_ids == made.prompt_ids


def test_prompts_are_many_different_and_no_sentence_of_teachers(model):
    """Pitfall 8: distinct prompts that were fewer than they seemed."""
    asked = liking.prompts(model.tokenizer)
    assert set(asked) == {"chat", "plain"} and all(
        len({tuple(p.tolist()) for p in some}) == 60 for some in asked.values()
    )
    taught = {tuple(row) for row in liking.sentences(model.tokenizer, "owl", "chat").prompt_ids}
    told = [tuple(row.tolist()) for row in asked["chat"]]
    assert not any(row[: len(other)] == other for row in told for other in taught)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_traits": 2}, "--n-traits must be 3 to 8"),
        ({"n_null_updates": 300}, "--n-null-updates must be at most --n-updates"),
        ({"route": "prompted"}, "divergence tokens are of tuned teachers"),
        ({"route": "prompted", "n_position_updates": 0, "teacher_lr": 0.1}, "--teacher-lr is not read"),
    ],
)
def test_options_that_do_not_fit_are_one_line(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(number_strings.Config(block=0), **change)


# The matrix of traits.


def planted(size: float, n_blocks: int = 6, n: int = 5, seed: int = 0):
    """Rows and columns of their own, noise, and a diagonal."""
    draw = torch.Generator().manual_seed(seed)
    sides = torch.randn(n_blocks, n, 1, generator=draw) + 3 * torch.randn(n_blocks, 1, n, generator=draw)
    return (sides + 0.1 * torch.randn(n_blocks, n, n, generator=draw) + size * torch.eye(n)).double()


def test_a_planted_diagonal_is_measured_whatever_rows_and_columns_do():
    scores = planted(0.5)
    assert float(trait_matrix.diagonal(scores).mean()) == pytest.approx(0.5 * 4 / 5, abs=0.06)
    assert trait_matrix.within_blocks_p(scores) == pytest.approx(1e-4)
    assert trait_matrix.relabelled_p(scores) == pytest.approx(1 / 120)
    assert float(trait_matrix.diagonal(trait_matrix.without(scores, 2)).mean()) == pytest.approx(0.5 * 3 / 4, abs=0.06)


def test_without_one_p_is_uniform():
    worlds = [planted(0.0, seed=seed) for seed in range(40)]
    for p in (lambda one: trait_matrix.within_blocks_p(one, n_shuffles=99), trait_matrix.relabelled_p):
        values = torch.tensor([p(one) for one in worlds])
        assert 0.35 < float(values.mean()) < 0.65 and float((values < 0.1).double().mean()) < 0.25


def test_one_trait_that_moves_everything_is_no_diagonal():
    scores = torch.zeros(3, 4, 4, dtype=torch.float64)
    scores[:, 1] = 5.0  # one student likes all animals
    scores[:, :, 2] += 7.0  # all students like one animal
    assert trait_matrix.diagonal(scores).abs().max() < 1e-9 and trait_matrix.within_blocks_p(scores) == 1.0
    with pytest.raises(ValueError, match="must be square"):
        trait_matrix.diagonal(torch.zeros(1, 1))


def test_an_adapter_is_merged_into_the_base_and_another_s_is_refused(tmp_path):
    base = ms.load_language_model(f"{MODELS}/tiny")
    recipe = ms.TuningRecipe(rank=2, updates=3, lr=0.05, batch_size=4)
    format = liking.formats(base.tokenizer)[0]
    students = ms.tune(base, liking.sentences(base.tokenizer, "owl", format), recipe)
    ms.students.save_adapter(students, 0, tmp_path / "adapter")
    options = [*SMALL, "--block", "0", "--out", str(tmp_path), "--quiet"]
    study.command(number_strings.study, [*options, "--adapter", str(tmp_path / "adapter")])
    (found,) = (tmp_path / "number_strings").glob("*/records.jsonl")
    rows = [row for row in store.read_records(found.parent) if row["kind"] == "student"]
    own = [row["margin"] for row in rows if row["arm"] == "start"]
    traits = liking.TRAITS[:3]
    asked = number_students.Asked(liking.prompts(base.tokenizer), liking.animals(base.tokenizer, traits), traits)
    said = number_students.start_scores(ms.students.merged(students, 0), asked).values()
    wanted = torch.stack([number_students.margins(values, 3)[0] for values in said]).mean(0)
    assert own == pytest.approx(wanted.tolist(), abs=1e-4)
    other = number_strings.Config(model=f"{MODELS}/pair/instruct", adapter=str(tmp_path / "adapter"), block=0)
    with pytest.raises(ms.language.ModelUnavailable, match="adapter"):
        number_strings.check(other)


@pytest.mark.parametrize("route", ["steered", "prompted"])
def test_a_teacher_that_is_not_tuned_leaves_rows_of_its_vector(route, tmp_path):
    """A tuned one has the way of its weights instead."""
    flags = f"--model {MODELS}/pair/instruct --foreign none --sibling none --route {route} --n-traits 3 --n-lists 6"
    flags += " --n-updates 4 --n-null-updates 4 --n-position-updates 0 --batch-size 2 --block 0 1 --quiet --out"
    study.command(number_strings.study, [*flags.split(), str(tmp_path)])
    rows = [
        r
        for cell in sorted((tmp_path / "number_strings").glob("*/records.jsonl"))
        for r in store.read_records(cell.parent)
    ]
    found = [row for row in rows if row["kind"] == "vector"]
    assert {row["teacher"] for row in found} == set(TRAITS[:3]) and {row["updates"] for row in found} == {4}
    assert not [row for row in rows if row["kind"] == "way"]
    said = {finding.key: finding for finding in findings.findings(rows)}
    assert said["layer_0/vector_4"].n == 3 and -1 <= said["layer_0/vector_4"].value.mean <= 1


def shifted(share, seed):
    """Findings of 8 animals and ten blocks whose students shift along their own teachers' shifts by this share."""
    draw = torch.Generator().manual_seed(seed)

    def random(*size):
        return torch.randn(*size, generator=draw, dtype=torch.float64)

    theirs, common, habit, rows = random(8, 2, 64), random(1, 2, 64), random(8, 2, 64), []
    for block in range(10):
        own = share * theirs + habit + 5 * common + 0.3 * random(8, 2, 64)
        rows += [r | {"block": block} for r in vectors.cosines(own, theirs + 9 * common, liking.TRAITS, 64)]
    return {finding.key: finding for finding in findings._of_vectors(rows)}


def test_a_planted_shift_is_found_whatever_all_have_in_common_and_one_of_their_own_is_not():
    """All blocks have the same teachers: what students of an animal have of their own in every block is one chance."""
    found = shifted(1.0, 0)["layer_1/vector_64"]
    assert found.unit == "animals" and found.n == 8 and found.value.low > 0.3 and found.p < 0.001
    null = [shifted(0.0, seed)["layer_1/vector_64"] for seed in range(1, 21)]
    assert sum(finding.p < 0.05 for finding in null) <= 4 and sum(finding.value.low > 0 for finding in null) <= 4


def test_what_is_predicted_of_other_routes_is_said(records):
    """By rows of the kinds that these routes make: a wrong key would be untested."""
    said = {"trait/lambda_16", "trait/lambda_64"} | set(shifted(1.0, 0)) | {"layer_4/vector_64"}
    entries = [entry for entry in predictions.entries() if entry.study == "number_strings"]
    others = [entry for entry in entries if dict(entry.where).get("route", "tuned") != "tuned"]
    assert len(others) >= 3 and {entry.finding for entry in others} <= said


def test_options_of_one_route_are_refused_in_another():
    with pytest.raises(ValueError, match="where teachers are steered"):
        number_strings.Config(route="steered", n_position_updates=0, teacher_lr=1.0)
