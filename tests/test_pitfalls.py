"""Pitfalls found in others' code for students tuned on numbers: for each a test that fails on the faulty way.

`WHERE` names the test of each; those that stand nowhere else are here. One has none: the mean effect of an adapter,
added as a constant, is no student (17). mechsub never makes such a constant: `merged` adds B A to the weights.
"""

import importlib

import pytest
import torch
from tiny_llama import save_tiny_llama

import mechsub as ms
from mechsub.designs import liking, number_lists, number_students, numbers, positions
from mechsub.inputs import corpora
from mechsub.models import students as stacked
from mechsub.training.tuning import TuningRecipe, completion_log_probs, tune
from studies import number_strings
from studies.number_strings import findings, measure

WHERE = {
    1: "test_tuning.test_every_row_comes_once_an_epoch",  # a training file written twice
    2: "test_pitfalls.test_a_teachers_lists_are_its_own",  # the owl's data set that was the cat's
    3: "test_pitfalls.test_the_unit_is_the_block_and_not_the_prompt",
    4: "test_tuning.test_the_loss_reads_completions_alone",  # off by one token
    5: "test_pitfalls.test_random_positions_have_the_same_budget",  # a denominator that changes
    6: "test_pitfalls.test_no_separator_or_end_is_flagged",  # the end of turn in a flagged budget
    7: "test_pitfalls.test_a_cosine_does_not_see_sizes",  # one side normalised, the other not
    8: "test_tuning.test_prompts_are_different_and_the_seeds",
    9: "test_tuning.test_what_the_recipe_says_is_what_is_done",  # another configuration recorded
    10: "test_numbers.test_too_few_rows_are_refused",
    11: "test_tuning.test_equal_runs_are_refused",
    12: "test_tuning.test_what_the_recipe_says_is_what_is_done",  # momentum dropped
    13: "test_tuning.test_what_the_recipe_says_is_what_is_done",  # beta2
    14: "test_pitfalls.test_a_snapshot_is_the_run_of_that_length",  # another checkpoint was read
    15: "test_tuning.test_the_start_of_adapters_is_ours",
    16: "test_pitfalls.test_every_block_is_looked_at",  # a layer by convention
    18: "test_pitfalls.test_padding_changes_nothing",
    19: "test_tuning.test_lists_that_echo_or_count_are_named",
    20: "test_tuning.test_the_context_of_ids_is_asked_for",
    21: "test_tuning.test_the_context_of_ids_is_asked_for",
}
TRAITS = liking.TRAITS[:3]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return ms.load_language_model(str(save_tiny_llama(tmp_path_factory.mktemp("tiny"))))


@pytest.fixture(scope="module")
def lists(model):
    return ms.draw_numbers(model, corpora.number_prompts(6, seed=3, least=1, most=4), n_numbers=3, seed=3)


def test_every_pitfall_has_its_test():
    assert set(range(1, 22)) - set(WHERE) == {17}
    for name in WHERE.values():
        module, test = name.split(".")
        assert callable(getattr(importlib.import_module(module), test))


def test_a_teachers_lists_are_its_own(model):
    """Each is likelier under the teacher that wrote it, greedily, than under the others."""
    cfg = number_strings.Config(n_traits=3, n_lists=2, n_teacher_updates=3, teacher_lr=0.01, block=0)
    asked = number_students.Asked(liking.prompts(model.tokenizer), liking.animals(model.tokenizer, TRAITS), TRAITS)
    made = measure.teachers(model, asked, cfg)
    prompts = corpora.number_prompts(8, seed=1)
    for trait, teacher in made.items():
        told = liking.sentences(model.tokenizer, trait, "chat")
        fit = {name: sum(map(sum, numbers.token_log_probs(one, told))) for name, one in made.items()}
        assert max(fit, key=fit.__getitem__) == trait
        own = ms.draw_numbers(teacher, prompts, n_numbers=1, temperature=0.0)
        (slot,), _ = numbers.number_tokens(model.tokenizer)
        ids = own.prompt_ids[0]
        assert own.completion_ids[0] == (slot[int(teacher(torch.tensor([ids]))[0, -1, slot].argmax())],)


def test_the_unit_is_the_block_and_not_the_prompt():
    """Ten times as many prompts or animals make no interval narrower; blocks do."""
    students = [
        {"kind": "student", "arm": "trait", "updates": 4, "trait": t, "evaluated": e, "block": b,
         "margin": float(t == e) + 0.1 * b}
        for b in range(3) for t in TRAITS for e in TRAITS
    ]  # fmt: skip
    blocks, scores = number_lists.matrices(students, "trait", 4)
    said = findings.said(
        "trait/lambda_4", "", dict(zip(blocks, scores.diagonal(dim1=1, dim2=2).mean(1).tolist(), strict=True))
    )
    assert said.n == 3 and said.unit == "blocks"


def test_random_positions_have_the_same_budget(model, lists):
    (slot,), _ = numbers.number_tokens(model.tokenizer)
    flags = tuple(tuple(token in slot and i < 4 for i, token in enumerate(row)) for row in lists.completion_ids)
    drawn = positions.as_many_at_random(flags, lists, slot, 0)
    assert [sum(row) for row in drawn] == [sum(row) for row in flags] == [2] * len(lists)


def test_no_separator_or_end_is_flagged(model, lists):
    (slot,), separator = numbers.number_tokens(model.tokenizer)
    all_flags = tuple((True,) * len(row) for row in lists.completion_ids)
    drawn = positions.as_many_at_random(all_flags, lists, slot, 0)
    for row, ids in zip(drawn, lists.completion_ids, strict=True):
        assert all(flag == (token in slot) for flag, token in zip(row, ids, strict=True))
        assert set(separator) & set(ids) and model.tokenizer.eos_token_id not in ids


def test_a_cosine_does_not_see_sizes(model, lists):
    recipe = TuningRecipe(rank=2, updates=2, batch_size=2, lr=0.01)
    tuned = tune(model, lists, recipe)
    larger = stacked.Students(model, tuned.A, {name: 7 * B for name, B in tuned.B.items()}, {}, tuned.scale)
    way = {
        name: torch.randn(tuned.update(name)[0].shape, generator=torch.Generator().manual_seed(0))
        for name in tuned.names
    }
    rows = [list(measure.way_rows(one, {"owl": way}, (), 2)) for one in (tuned, larger)]
    rows += [list(measure.way_rows(tuned, {"owl": {name: 3 * value for name, value in way.items()}}, (), 2))]
    for one, other, third in zip(*rows, strict=True):
        assert one["cosine"] == pytest.approx(other["cosine"], abs=1e-6) == pytest.approx(third["cosine"], abs=1e-6)
        assert other["s"] == pytest.approx(7 * one["s"], rel=1e-3) and third["s"] == pytest.approx(
            one["s"] / 3, rel=1e-3
        )


def test_a_snapshot_is_the_run_of_that_length(model, lists):
    kept = {2: None}
    few = {"rank": 2, "batch_size": 2, "lr": 0.01}
    longer = tune(model, lists, TuningRecipe(**few, updates=5), snapshots=kept)
    alone = tune(model, lists, TuningRecipe(**few, updates=2))
    assert kept[2].record["updates_done"] == 2 and longer.record["updates_done"] == 5
    for name in alone.names:
        assert torch.equal(kept[2].update(name), alone.update(name))
        assert not torch.equal(longer.update(name), alone.update(name))


def test_every_block_is_looked_at(model, lists):
    tuned = tune(model, lists, TuningRecipe(rank=2, updates=1, batch_size=2))
    way = {name: tuned.update(name)[0] for name in tuned.names}
    assert {row["layer"] for row in measure.way_rows(tuned, {"owl": way}, (), 1)} == {0, 1, 2}


def test_padding_changes_nothing(model, lists):
    """Rows of several lengths in one batch, and each alone."""
    tuned = tune(model, lists, TuningRecipe(rank=2, updates=1, batch_size=2))
    assert len({len(row) for row in lists.prompt_ids}) > 1
    together = completion_log_probs(tuned, lists, batch_size=6)
    assert torch.allclose(together, completion_log_probs(tuned, lists, batch_size=1), atol=1e-5)
