"""Answers follow from findings: made-up ones on both sides, and one that shows neither, have words of their own."""

import dataclasses
import functools
import re

import pytest

from mechsub.lab import predictions
from mechsub.lab.findings import Cell, Drawn, Finding
from mechsub.stats import Interval
from studies.report import amounts, defences, factors, language, toy
from studies.report.question import ASKED, Answer, Findings, claimed_of, declared, judged, of_parts, read, size

HIGH, LOW, WIDE = Interval(0.8, 0.7, 0.9, 9), Interval(-0.8, -0.9, -0.7, 9), Interval(0.31, -0.5, 1.1, 9)
AUTHORS = ("Cloud et al. 2025", language.SCHRODI, language.VELMURUGAN)  # whose claims predictions.toml has
SIDES = (HIGH, LOW, WIDE)
USUAL = Interval(0.3, 0.2, 0.4, 9)
AT_CHANCE = Interval(0.1, 0.09, 0.11, 9)
NUMBERS = ("_largest", "_median", "spearman_others", "/share_number_x_animal")  # said without an interval


WORDS = 6  # of an answer in the page's contents
STAGES = ("midpoint", "two_stages", "four_stages")


def number(mean, low, high):
    return Interval(mean, low, high, 9)


def finding(name, value=USUAL, null=0.0, p=0.001):
    cell, _, key = name.rpartition(": ")
    scores = {i: getattr(value, "mean", 0.0) + (i - 4) / 100 for i in range(9)} if isinstance(value, Interval) else {}
    label = "held (110 tokens held, 109 dimensions, of 128)" if key == "numbers/price" else "a label"
    return Finding(key, label, value, null, p, "seeds", 9, cell=cell, scores=scores)


def declared_of(answer, findings, **options):
    """Findings of a cell with the options of which the study's claims were declared, but for these."""
    study = next((question.study for question in ASKED if question.answer is answer), "")
    wheres = [dict(entry.where) for entry in predictions.entries() if entry.study == study and entry.author in AUTHORS]
    where = functools.reduce(dict.__or__, wheres, {})
    return Findings(findings, [Cell({**where, **options}, [], findings=findings)])


def told(answer, decisive, **options):
    """The answer to findings of which these decide; every other one that it looks up has the usual value."""
    found = {name: finding(name, **(it if isinstance(it, dict) else {"value": it})) for name, it in decisive.items()}
    while True:
        try:
            return answer(declared_of(answer, list(found.values()), **options))
        except LookupError as error:
            name = re.search(r"'([^']+)'", str(error))
            if name is None or name[1] in found:
                raise
            found[name[1]] = finding(name[1], **({"value": 0.5} if name[1].endswith(NUMBERS) else {}))


def cases(*keys, **fixed):
    """A value on each side, and an undecided one, for all of these keys."""
    return [dict.fromkeys(keys, side) | fixed.get("fixed", {}) for side in SIDES]


def of(name, *values, **more):
    return [{name: {"value": value, **more}} for value in values]


def distributions(recentred):
    """Cells of images and of uniform noise, and how much less images teach."""
    names = ("inputs=images", "inputs=uniform", "inputs=blurred:2", "inputs=subspace:64")
    scores = ("aux/recentred", "aux/accuracy", "cross_aux/recentred", "aux/input_dimension_95")
    every = {f"{name}: {score}": USUAL for name in names for score in scores}
    return every | {f"images_less_uniform/{score}": recentred for score in ("recentred", "accuracy")}


def dimension(recentred):
    return distributions(USUAL) | {"inputs=blurred:2: aux/recentred": recentred}


def by_width(*means):
    levels = dict(zip((64, 256, 512), means, strict=True))
    found = {f"d_model={n}: {arm}/{score}": mean for n, mean in levels.items() for arm in ("aux", "cross_aux")
             for score in ("recentred", "accuracy")}  # fmt: skip
    return {name: number(mean, mean - 0.05, mean + 0.05) for name, mean in found.items()}


def joined(*sides):
    return [a | b for a, b in zip(*sides, strict=True)]


ALL = ("confirmed", "refuted", "open")
NONE = ("no published claim",) * 3
EARLY = "removed_at_the_number_after_block_8_own/share"
CASES = [
    (toy.learns, ("confirmed", "partly", "open"),
     cases("student_aux/recentred", fixed={"cross_aux/recentred": AT_CHANCE})),
    (toy.start, ALL, [{"cross_aux/recentred": null, "student_aux/recentred": HIGH}
                      for null in (AT_CHANCE, USUAL, number(0.13, 0.05, 0.21))]),
    (toy.squared_error, NONE, cases("loss=mse: student_aux/accuracy")),
    (toy.mechanism, NONE, [
        {"along_neuron/share_of_recentred_gain": a, "removed_teacher_neuron/share_of_recentred_gain": b}
        for a, b in ((HIGH, LOW), (LOW, HIGH), (WIDE, WIDE))]),
    (toy.head, NONE, cases("student_aux/recentred")),
    (toy.head, NONE, cases("student_body_teacher_head-student_aux/recentred", fixed={"student_aux/recentred": HIGH})),
    (toy.alignment, ALL, cases(*(f"stitch_into_teacher_digits_layer_{n}/student_aux" for n in (1, 2)))),
    (toy.similarity, NONE, cases(*(
        f"{metric}_digits_layer_2/rho_over_seeds_recentred"
        for metric in ("cosine", "debiased_cka", "stitch_into_teacher")))),
    (toy.written, NONE, of("student_aux/share", HIGH, number(0.02, 0.01, 0.03), WIDE)),
    (toy.shared_parts, ALL, cases("heads/recentred", fixed={
        "all/recentred": number(0.9, 0.89, 0.91), "nothing/recentred": AT_CHANCE})),
    (toy.inputs, NONE, [dimension(side) for side in SIDES]),
    (toy.blur, ALL, cases("blurred:1_less_uniform/recentred", "blurred:1_less_uniform/accuracy")),
    (toy.images, ("refuted", "confirmed", "open"), [distributions(side) for side in SIDES]),
    (toy.pretrained, NONE, cases("shared/recentred_trait")),
    (toy.more_classes, NONE, cases("n_classes=20: aux/recentred_kappa")),
    (toy.number_strings, NONE, cases("hard/gain")),
    (amounts.amount, NONE, of("point/recentred_error", number(0.02, 0.01, 0.03), number(0.9, 0.8, 1.0), USUAL,
                              null=number(0.25, 0.2, 0.3))),
    (amounts.slower, NONE, cases("images/made_up")),
    (amounts.controls, NONE, [dict.fromkeys((f"controlled_{arm}/share_of_recentred_gain" for arm in (
        "own_rest", "next_teacher", "fixed_direction", "teacher_neuron_control")), left)
        for left in (number(0.1, 0.05, 0.15), number(1.0, 0.98, 1.02), number(0.8, 0.4, 1.2))]),
    (amounts.stages, NONE, [
        {f"{arm}/recentred{of}_error": number(0.02, 0.01, 0.03) if arm in near else USUAL
         for arm in STAGES for of in ("", "_fresh")}
        for near in (STAGES, STAGES[2:], ())]),
    (amounts.stages, NONE, [
        {f"{arm}/recentred{of}_error": value for arm in STAGES for of in ("", "_fresh")}
        for value in (number(0.02, 0.01, 0.03), USUAL, WIDE)]),
    (defences.taken_out, ALL, cases("threshold_low/kept", "threshold_high/kept")[1:2] + [
        dict.fromkeys(("threshold_low/kept", "threshold_high/kept"), side) for side in (number(1.0, 0.9, 1.1), WIDE)]),
    (defences.told_apart, NONE, [
        {"detect/told": {"value": value, "p": p}, "detect_student/update_norm": value}
        for value, p in ((HIGH, 0.001), (LOW, 0.001), (WIDE, 0.5))]),
    (factors.sweep("d_model", {}), ALL, [by_width(0.9, 0.5, 0.2), by_width(0.2, 0.5, 0.9), by_width(0.5, 0.5, 0.5)]),
    (language.pairs, ALL, [{"by_ratio/over_2x": {"value": value, "null": 0.5, "p": p}} for value, p in (
        (number(0.9, 0.8, 1.0), 1e-6), (number(0.1, 0.05, 0.15), 1e-6), (number(0.9, 0.2, 1.0), 0.3))]),
    (language.lists, ("refuted", "open", "open"), [
        {"zur/listed": {"value": value, "null": 0.5, "p": p}}
        for value, p in ((0.9, 0.001), (0.1, 0.001), (0.9, 0.2))]),
    (language.specific, NONE, cases("the_two_directions/correlation_above_null")),
    (language.specific, NONE, cases("number_to_animal_other_wordings/correlation_above_null")),
    (language.axes, NONE, cases("number_to_animal/share_left")),
    (language.rounded, NONE, cases("number_to_animal/kept_all")),
    (language.directions, ALL, cases("directions/all", "directions/whole_numbers")),
    (language.numbers, NONE, joined(cases("numbers/directions"), [{"matched_words/directions": {"null": 0.1}}] * 3)),
    (language.families, NONE, cases(*(
        f"family={name}: the_two_directions/correlation" for name in ("names", "cities", "colors")))),
    (language.cosine, ALL, cases("number_to_animal_cosine/of_ceiling")),
    (language.dla, ("confirmed", "refuted", "partly"), of("geometry/first_rule", "half or more", "refuted", "partial")),
    (language.bottleneck, ("partly", "refuted", "not supported"), [
        {"numbers/price": price, "matched/price": number(1.5, 1.4, 1.6)}
        for price in (number(9.0, 8.0, 10.0), number(1.03, 1.02, 1.04), number(2.5, 1.0, 4.0))]),
    (language.ratio, ALL, cases("chosen/share_animal_and_number")),
    (language.passes, ALL, cases("number_to_animal/rows", "animal_to_number/rows")),
    (language.other_words_pass, NONE, cases(*(
        f"family={name}: number_to_animal/rows_specific" for name in ("names", "cities", "colors")))),
    (language.states, NONE, of("cosine_block_30/favoured", HIGH, LOW, WIDE, null=Drawn(0.0, 0.05))),
    (language.association, ALL, cases("animal_to_number/published", "animal_to_number/centred")),
    (language.base, ALL, [
        {"instruct_chat-base_chat/specific": more, "base_and_instruct_chat/correlation": more,
         "base_chat/specific": own}
        for more, own in ((HIGH, number(0.01, 0.0, 0.02)), (LOW, HIGH), (WIDE, WIDE))]),
    (language.four_pairs, NONE, cases("pairs_base_chat/specific", "pairs_instruct_chat/specific")),
    (language.organisms, NONE, cases("models_random/forward_rows", "models_random/back_rows",
                                     fixed={"models_trained/agreement": USUAL})),
    (language.steering, NONE, cases(EARLY)),
    (language.numbers_carry, ALL, joined(cases("trait/lambda_16", "trait/lambda_256"), [
        {"foreign/lambda_64": value}
        for value in (number(0.0, -0.01, 0.01), number(0.2, 0.1, 0.3), number(0.2, -0.01, 0.41))])),
    (language.smollm2_takes_it, NONE, cases("trait/lambda_16")),
    (language.smollm2_takes_it, NONE, [
        {"trait/lambda_16": own, "trait/least_16": rest}
        for own, rest in ((HIGH, HIGH), (HIGH, WIDE), (WIDE, WIDE))]),
    (language.steered_teachers, NONE, [
        {"trait/lambda_64": side, "layer_1/vector_64": HIGH, "layer_4/vector_64": HIGH} for side in SIDES]),
    (language.published_divergence, ALL, joined(
        cases("only_diverging-only_random/lambda_16"),
        [{"mask_diverging-mask_random/lambda_16": side} for side in (LOW, HIGH, WIDE)])),
    (language.prompts_predict, ALL, cases(
        *(f"{name}/rho_64" for name in ("number_to_animal", "geometry", "steering")), "number_to_animal/scaled_64")),
]  # fmt: skip
WITHOUT_SIDES = {
    "write_up": "counts verdicts of an audit", "published": "counts verdicts of an audit",
    "maximise": "says an amount", "predicted": "says an amount", "planted": "says a coverage",
    "channel": "counts set-ups", "axes_of_organisms": "counts models", "shares": "says the order of parts",
    "layers": "says a block",
}  # fmt: skip


def test_every_question_is_tried():
    tried = {answer.__name__ for answer, _, _ in CASES}
    assert {question.answer.__name__ for question in ASKED} == tried | set(WITHOUT_SIDES)


def test_what_stands_before_the_first_colon_or_full_stop_is_the_short_answer():
    told = {"Yes: 0.5 of it. More.": "Yes", "Hardly. Share: 0.1": "Hardly", "To 0.98: to 1.0.": "To 0.98", "No.": "No"}
    assert {sentence: Answer(sentence, "").short for sentence in told} == told


@pytest.mark.parametrize("word", ["lecun", "he"])
def test_the_highest_of_words_is_said_and_which_are_not_told_from_it(word):
    levels = {"lecun": number(0.8, 0.7, 0.9), "he": number(0.5, 0.4, 0.6), "torch": number(0.2, 0.1, 0.3)}
    found = {f"init={level}: {arm}/{score}": value for level, value in levels.items() for arm in ("aux", "cross_aux")
             for score in ("recentred", "accuracy")}  # fmt: skip
    answer = told(factors.sweep("init", {}), found | {f"init={word}: aux/recentred": levels["lecun"]})
    tied = word == "he"
    assert answer.short == "Highest with lecun" + ", not surely" * tied
    assert ("Not told apart from lecun: he." in answer.sentence) == tied


@pytest.mark.parametrize(("answer", "verdicts", "sides"), CASES, ids=lambda case: getattr(case, "__name__", ""))
def test_no_function_says_the_same_word_for_opposite_findings(answer, verdicts, sides):
    answers = [told(answer, side) for side in sides]
    assert tuple(a.verdict for a in answers) == verdicts
    assert [a.short for a in answers if len(a.short.split()) > WORDS] == []
    words = [re.sub(r"-?\d[\d.]*( \[[^]]*\])?", "", a.sentence) for a in answers]  # without their numbers
    yes, no, neither = zip(words, verdicts, strict=True)
    assert yes != no and neither not in (yes, no)


def test_an_interval_that_excludes_0_is_not_shown_where_its_p_by_holm_is_not_small():
    pair = {f"pairs_{models}_chat/specific": {"value": HIGH, "p": 0.125} for models in ("base", "instruct")}
    assert told(language.four_pairs, pair).short == "Not detectably, with four pairs"
    rho = {f"{name}/rho_64": {"value": HIGH, "p": 0.2} for name in ("number_to_animal", "geometry", "steering")}
    assert told(language.prompts_predict, rho).short == "Not detectably"
    left = dict.fromkeys(rho, HIGH) | {"number_to_animal/scaled_64": {"value": HIGH, "p": 0.2}}
    assert told(language.prompts_predict, left).short == "Not shown beyond what moves any"


def test_the_best_of_many_has_no_interval_and_says_of_how_many():
    rho = dict.fromkeys((f"{name}/rho_64" for name in ("number_to_animal", "geometry", "steering")), USUAL)
    sentence = told(language.prompts_predict, rho | {"teacher_preference/rho_64": HIGH}).sentence
    assert "Highest of 4, chosen after the fact: a label, 0.800. " in sentence


def test_a_rank_correlation_stands_beside_its_declared_null():
    names = ("number_to_animal", "geometry", "steering")
    answer = told(language.prompts_predict, {f"{name}/rho_64": {"null": LOW} for name in names})
    assert answer.null.count(str(LOW)) == 3


def test_the_foreign_arm_has_another_vocabulary_too_and_no_gate():
    said = told(language.numbers_carry, {}).sentence
    assert "of another start and another vocabulary, for which no gate was measured" in said and "apart" not in said


def test_less_but_not_most_of_it():
    """As declared, a claim of suppression is one of a sign; what is left is said too."""
    signs = {"only_diverging-only_random/lambda_16": HIGH, "mask_diverging-mask_random/lambda_16": LOW}
    most, little = (told(language.published_divergence, signs | {"mask_diverging/kept_16": k}) for k in (HIGH, USUAL))
    assert most.verdict == little.verdict == "confirmed"
    assert "most of the effect is left" in most.sentence and "less than half of the effect" in little.sentence


def test_the_students_head_is_compared_with_the_teachers_in_one_score():
    found = {"student_aux/recentred": number(0.7, 0.6, 0.8), "teacher/recentred": number(0.9, 0.8, 1.0)}
    found |= {"student_body_teacher_head-student_aux/recentred": number(0.05, 0.04, 0.06)}
    found |= {"teacher/accuracy": number(0.944, 0.94, 0.95)}
    said = told(toy.head, found).sentence
    assert "of what is left its directions take 0.250" in said
    assert "the teacher has 0.900 [0.800, 1.000] (raw 0.944 [0.940, 0.950])" in said


def test_a_step_that_shows_no_direction_is_said():
    sentence = told(factors.sweep("d_model", {}), by_width(0.5, 0.5, 0.2)).sentence
    assert "The ends of the range decide: nothing is shown from 64 to 256 (0.000 [0.000, 0.000])" in sentence
    assert "nothing is shown" not in told(factors.sweep("d_model", {}), by_width(0.9, 0.5, 0.2)).sentence


def test_a_claim_of_which_one_part_fails_is_partly_true_and_an_undecided_one_is_open():
    assert (read(True, False), read(False, True), read(False, False)) == ALL
    told = {("confirmed", "refuted"): "partly", ("confirmed", "open"): "open", ("refuted", "open"): "not supported"}
    assert {words: of_parts(*words) for words in told} == told
    assert judged("near", number(0.2, -0.01, 0.41), margin=0.02) == "open"


def test_a_declared_claim_has_the_verdict_of_its_study_s_table():
    """Of numbers that the sceptic was told "confirmed" about."""
    for value, word in ((number(-0.009, -0.0222, 0.0036), "open"), (LOW, "refuted")):
        found = declared_of(language.numbers_carry, [finding("foreign/lambda_64", value)])
        assert declared(found, "number_strings", "Cloud et al. 2025") == [word]


def test_parts_of_a_declared_claim_are_joined_once_with_others():
    """One holds and another fails: this was a KeyError, which the page took for a missing row."""
    parts = {"only_diverging-only_random/lambda_16": HIGH, "mask_diverging-mask_random/lambda_16": HIGH}
    found = declared_of(language.published_divergence, [finding(key, value) for key, value in parts.items()])
    words = declared(found, "number_strings", language.SCHRODI)
    assert words == ["confirmed", "refuted"] and of_parts("confirmed", *words) == "partly"
    found = declared_of(language.published_divergence, [finding("only_diverging-only_random/lambda_16", HIGH)])
    words = declared(found, "number_strings", language.SCHRODI)
    assert words == ["confirmed", "not measured yet"] and of_parts(*words) == "confirmed (by 1 of 2 checks)"
    assert of_parts("not measured yet") == "not measured yet"
    with pytest.raises(ValueError, match="'partly' is no verdict on one part"):
        of_parts("confirmed", "partly")
    with pytest.raises(LookupError, match=r"no claim of Cloud et al. 2025 about 'trait/lambda_16'"):
        claimed_of("number_strings", "Cloud et al. 2025", "trait/lambda_16")


@pytest.mark.parametrize("answer", [language.numbers_carry, language.published_divergence, language.prompts_predict])
def test_what_was_declared_of_one_model_is_no_claim_about_another(answer):
    """The sentence is said all the same, by the same findings."""
    given = {f"{name}/rho_64": HIGH for name in ("number_to_animal", "geometry", "steering")}
    own, other = told(answer, given), told(answer, given, model="organisms/110-instruct")
    assert own.verdict in ("confirmed", "partly", "refuted", "not supported", "open")
    assert other.verdict == "no published claim" and other.sentence == own.sentence


def test_few_numbers_of_many_dimensions_cannot_test_a_bottleneck():
    few = finding("numbers/price", number(1.03, 1.02, 1.04))
    few = dataclasses.replace(few, label="price of holding (11 tokens held, 10 dimensions, of 576)")
    matched = finding("matched/price", number(1.5, 1.4, 1.6))
    answer = language.bottleneck([few, matched])
    assert (answer.short, answer.verdict) == ("No", "not testable here")
    assert told(language.bottleneck, {f.key: f.value for f in (few, matched)}).verdict == "refuted"


def test_how_much_is_said_by_both_ends():
    words = {"most": "most", "part": "part", "little": "little"}
    shares = (HIGH, USUAL, number(0.05, 0.01, 0.09), WIDE)
    assert [size(share, 0.1, **words) for share in shares] == ["most", "part", "little", "Not detectably"]
