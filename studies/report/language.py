"""Answers of `studies.report` about the language model, from the findings of its studies."""

import math
import re

from mechsub.lab import findings as lab
from mechsub.lab.findings import Finding
from mechsub.stats import Interval
from studies.report.question import (
    B2,
    B3,
    B4,
    B5,
    BONUS,
    CLOUD,
    CONFIRMED,
    HALF,
    LEVEL,
    LITTLE,
    NOT_TESTABLE,
    OPEN,
    PARTLY,
    REFUTED,
    ZUR,
    Answer,
    Findings,
    Rows,
    claimed_of,
    declared,
    judged,
    judged_claims,
    of_parts,
    question,
    read,
    side,
    size,
    tested_side,
    value,
)  # fmt: skip

F = list[Finding]
SCHRODI, VELMURUGAN = "Schrodi et al. 2025", "Velmurugan 2026"  # as predictions.toml names them
UNTRAINED = "--weights trained random-0 random-1 random-2"
ORGANISMS = " ".join(f"organisms/{name}" for name in ("1110-base", "1110-instruct", "110-base", "110-instruct"))


@question(
    B2,
    "Does a loved animal raise its number, and that number the animal?",
    "token_entanglement",
    claim=f"Pairs raise each other ({ZUR}); 28 of 49 animals over 2x both ways (write-up).",
)
def pairs(found: F) -> Answer:
    both = lab.find(found, "by_ratio/over_2x")
    apart = both.tested < LEVEL  # from what another animal's number does
    more, less = apart and both.value.mean > both.null, apart and both.value.mean < both.null
    often = "More often" if more else "Less often" if less else "Not detectably more"
    return Answer(
        f"{often} than another animal's: with the number that its prompt raises most, both ratios exceed 2 for a share "
        f"of {both.value} of animals ({both.n} numbers serve all).",
        f"{lab.null_text(both)}; p = {both.tested:.3f}",
        read(more, less),
    )


@question(
    B2,
    "Are the published animals special in this model?",
    "token_entanglement",
    claim="No cherry-picking (write-up).",
)
def lists(found: F) -> Answer:
    lists = [finding for finding in found if finding.score == "listed"]
    if not lists:
        raise LookupError("no published list")
    least = min(finding.tested for finding in lists)
    values, sizes = ([of(finding) for finding in lists] for of in (lambda f: f.value, lambda f: f.n))
    shown = [finding for finding in lists if finding.tested < LEVEL]
    picked, below = (any(way * (f.value - 0.5) > 0 for f in shown) for way in (1, -1))
    return Answer(
        f"{'Yes' if picked else 'Some lie lower' if below else 'Not detectably'}: by the correlation of both "
        "directions of its interaction, which is not the papers' ratio, a listed animal lies above another with "
        f"probability {min(values):.3f} to {max(values):.3f} over {len(lists)} published lists (least p after Holm: "
        f"{least:.3f}), of {min(sizes)} to {max(sizes)} animals, which were made with other models.",
        "0.500",
        read(False, picked),  # that none is higher here does not show that none was picked
    )


@question(B2, "Does training bring an interaction of animal and number?", "token_entanglement", UNTRAINED)
def specific(found: F) -> Answer:
    again, both = (lab.find(found, f"{test}/correlation") for test in (WORDINGS, "the_two_directions"))
    more, agreed = (value(found, f"{test}/correlation_above_null") for test in (WORDINGS, "the_two_directions"))
    share = lab.find(found, "number_to_animal/share_number_x_animal")
    return Answer(
        f"{side(agreed, 0.0, 'Yes', 'Less than no training')}: its two directions agree by {both.value}, {agreed} "
        "above untrained weights. "
        f"{side(more, 0.0, 'Also', 'Less so')} by other wordings, which bring it back, number to animal, with "
        f"{again.value}, {more} above untrained weights. It is {share.value:.3f} of the variance of the log ratio, "
        "number to animal.",
        f"the same model with random weights ({both.null_label.partition(', ')[2]}): directions {both.null}, wordings "
        f"{again.null}, share of the variance {share.null}",
    )


WORDINGS = "number_to_animal_other_wordings"


@question(B2, "Is the interaction about pairs, or about a few axes?", "interaction_spectrum", UNTRAINED)
def axes(found: F) -> Answer:
    ratio = lab.find(found, "number_to_animal/participation_all")
    whole, left = (lab.find(found, f"directions/agreement_{part}") for part in ("all", "left"))
    pair = lab.find(found, "number_to_animal/share_left")
    word = side(pair.value, HALF, "Mostly about pairs", "Mostly about axes", "Not told")
    return Answer(
        f"{word}: of the interaction, number to "
        f"animal, {_parts(found, '')}; its participation ratio is {ratio.value}. The directions agree by "
        f"{whole.value}, in what is left by {left.value}.",
        f"untrained weights: what is left {pair.null}, participation ratio {ratio.null}; directions {whole.null}, in "
        f"what is left {left.null}",
    )


def _parts(found: F, cell: str) -> str:
    names = {"slopes": "slopes", "length": "length", "digits": "digits", "left": "what is left"}
    return ", ".join(f"{word} {value(found, f'{cell}number_to_animal/share_{part}')}" for part, word in names.items())


@question(B2, "How much of it survives noise of 4-bit rounding, which this model has?", "rounding")
def rounded(found: F) -> Answer:
    forward, back, left = (lab.find(found, key) for key in KEPT)
    agreed = lab.find(found, "directions/agreement_all")
    word = side(forward.value, forward.null, "In part", "Less than of shuffled numbers")
    word = "Nearly all" if forward.value.low > 1 - LITTLE / 2 else word
    return Answer(
        f"{word}: with as much noise once more, the interaction "
        f"correlates with that of the file by {forward.value} (number "
        f"to animal) and {back.value} (animal to number), what is left after slopes, length and digits by "
        f"{left.value}; the directions agree by {agreed.value}. Unit: {forward.n} draws of the noise.",
        f"{lab.null_text(forward)}; directions without noise: {lab.value_text(agreed.null)}",
    )


KEPT = ("number_to_animal/kept_all", "animal_to_number/kept_all", "number_to_animal/kept_left")


@question(B2, "And in models whose numbers are single tokens?", "interaction_spectrum", f"--model {ORGANISMS}")
def axes_of_organisms(found: F) -> Answer:
    told, nulls = [], []
    for model in ORGANISMS.split():
        cell, name = f"model={model}: ", model.partition("/")[2]
        agreed, left = (value(found, f"{cell}directions/wordings_{part}") for part in ("all", "left"))
        over = f"over all wordings the directions agree by {agreed}, in what is left by {left}"
        told.append(f"{name}: {_parts(found, cell)}; {over}")
        null = lab.find(found, f"{cell}directions/agreement_left")
        nulls.append(f"{name} {lab.value_text(null.null)}")
    pairs = [value(found, f"model={model}: directions/wordings_left").low > 0 for model in ORGANISMS.split()]
    slopes = [value(found, f"model={model}: number_to_animal/share_slopes").low > LITTLE for model in ORGANISMS.split()]
    return Answer(
        f"Pairs agree in {sum(pairs)} of {len(pairs)}: in so many models both directions agree in what is left after "
        f"slopes, length and digits; slopes hold more than a tenth in {sum(slopes)}. {'. '.join(told)}. (Where 110 "
        "numbers are tokens, those of three digits are two.)",
        f"of the published wording, numbers shuffled, 95% are below: {', '.join(nulls)}",
    )


@question(B2, "Do the two directions agree?", "digits", claim=f"Entanglement is mutual ({ZUR}).")
def directions(found: F) -> Answer:
    both, whole = (lab.find(found, f"directions/{part}") for part in ("all", "whole_numbers"))
    agree = side(both.value, HALF, "Strongly", "Weakly", "They do")
    word = side(both.value, 0.0, agree, "They oppose each other")
    return Answer(
        f"{word}: their correlation is {both.value}; what is left to whole numbers, beyond their digits, agrees by "
        f"{whole.value}.",
        f"{lab.null_text(both)}; whole numbers {lab.null_text(whole)}",
        of_parts(judged("above", both.value), judged("above", whole.value)),  # of digits too, and of pairs
    )


@question(B2, "Are numbers special?", "matched_tokens")
def numbers(found: F) -> Answer:
    number, word = (lab.find(found, f"{partners}/directions") for partners in ("numbers", "matched_words"))
    return Answer(
        f"{side(number.value, word.value, 'Yes', 'No', 'Not shown')}: the directions of words of equal norm "
        f"and frequency agree by {word.value}, those of numbers by {number.value}.",
        f"shuffled within equal length: 95% below {word.null:.3f} and 95% below {number.null:.3f}",
    )


@question(B2, "And names, cities, colors?", "token_entanglement", "--family names cities colors")
def families(found: F) -> Answer:
    names = ("names", "cities", "colors")
    agree = {name: lab.find(found, f"family={name}: the_two_directions/correlation") for name in names}
    whole = of_parts(*(judged("above", of.value) for of in agree.values()))
    words = {CONFIRMED: "They agree", REFUTED: "They oppose each other", OPEN: "Not all are shown to agree"}
    return Answer(
        words.get(whole, "Not all agree")
        + ": the two directions by "
        + ", ".join(f"{of.value} ({name})" for name, of in agree.items())
        + ".",
        "; ".join(f"{name}: {lab.null_text(of)}" for name, of in agree.items()),
    )


@question(
    B4,
    "Does unembedding geometry (Eq 1) predict the pairs, and what does better?",
    "unembed_projection",
    claim=f"The cosine of unembedding rows predicts entangled pairs ({ZUR}).",
)
def cosine(found: F) -> Answer:
    ratio = value(found, "number_to_animal_cosine/of_ceiling")
    best = [f for f in found if f.score == "rule" and f.value == "winner" and f.subject.startswith("number_to_animal")]
    more = ""
    if best:
        name, its = best[0].label.partition(": ")[2], value(found, f"{best[0].subject}/of_ceiling")
        more = f"; best of the metrics is {name} with {its}"
    others = value(found, "number_to_animal_cosine/spearman_others")
    little = side(ratio, 0.0, "Hardly", "The other way")
    word = size(ratio, 0.0, most="Mostly", part="A little", little=little)
    return Answer(
        f"{word}: Eq 1's cosine reaches {ratio} of the correlation that other wordings of the prompt reach, number "
        f"to animal{more}.",
        f"the cosine of other animals, subtracted; its own correlation is {others:.3f}",
        of_parts(judged("above", ratio), judged("above", ratio, HALF)),  # it does, and that is most of what there is
    )


@question(
    B4,
    "Does the effect ride on writing the animal's output direction?",
    "unembed_projection",
    "--metric dla",
    claim=f"Writing an animal raises its number because of their projection ({ZUR}).",
)
def dla(found: F) -> Answer:
    keys = ("geometry/rule", "geometry/first_rule", "geometry/explained", "dla_concept/share", "dla_other/share")
    rule, first, explained, share, other = (value(found, key) for key in keys)
    reached = value(found, "animal_to_number_dla_concept/of_ceiling")
    return Answer(
        f"{first.capitalize()}: by the rule stated before the run, on the mean of a ratio of correlations: {reached}. "
        f"By its square, which replaced it after the first result: {rule}. The animal's own output direction explains "
        f"{explained} of what other wordings explain, and carries a share of {share} of the interaction.",
        f"other animals' directions carry {other}",
        {"refuted": REFUTED, "partial": PARTLY, "half or more": CONFIRMED}[first],  # declared: of a mean
    )


@question(
    B4,
    "Must numbers rise when an animal does (softmax bottleneck)?",
    "bottleneck",
    claim=f"An animal cannot be raised without its number ({ZUR}).",
)
def bottleneck(found: F) -> Answer:
    held, matched = lab.find(found, "numbers/price"), value(found, "matched/price")
    tokens = held.label.partition("(")[2].rstrip(")")
    if not isinstance(held.value, Interval):
        price, never = lab.value_text(held.value), held.value == math.inf
        word, verdict = ("Yes", CONFIRMED) if never else ("For some animals", PARTLY)
        return Answer(f"{word}: the price of holding the numbers is {price} ({tokens}).", "1", verdict)
    rank, d_model = (int(number) for number in re.findall(r"(\d+) dimensions, of (\d+)", tokens)[0])
    return Answer(
        f"{side(held.value, TWICE, 'Only at a price', 'No', 'Not told')}: the shortest write that raises an animal and "
        f"holds every number where it is, is {held.value} times as long as the one that holds nothing ({tokens}).",
        f"as many tokens of their norm and frequency held: {lab.value_text(matched)}; nothing forced: 1; forced: "
        "infinite",
        # It can, at a price; which is one of numbers. Where they fill few of the dimensions, none could be forced.
        NOT_TESTABLE if rank < LITTLE * d_model else of_parts(REFUTED, judged("above", held.value, matched)),
    )


TWICE = 2.0  # a write that holds the numbers for less than that is free to leave them


@question(B5, "What is the subliminal prompting effect made of?", "token_entanglement")
def shares(found: F) -> Answer:
    start = "share of number to animal, wordings: "
    parts = {f.label.removeprefix(start): f.value for f in found if f.label.startswith(start)}
    names = ("animal", "wording", "wording x animal", "number", "number x animal")
    listed = ", ".join(f"{name} {parts[name]:.3f}" for name in sorted(names, key=lambda name: -parts[name]))
    return Answer(
        f"Largest is {listed.partition(' 0.')[0]}: shares of the variance of the papers' log ratio, number to animal "
        f"over five wordings, are {listed}; any number raises an animal by "
        f"{value(found, 'any_number/log_ratio')} nats.",
        "no effect: 0 nats",
    )


@question(
    B5,
    "What is the papers' ratio made of?",
    "contributions",
    figure="plot_parts",
    claim=f"A rise over no system message shows that animal and number are entangled ({ZUR}).",
)
def ratio(found: F) -> Answer:
    own = value(found, "chosen/share_animal_and_number")
    parts = [f for f in found if f.key.startswith("chosen/share_") and f.value is not own and f.value.low > 0]
    parts = sorted(parts, key=lambda part: -part.value.mean)
    listed = ", ".join(f"{part.label.partition(': ')[2]} {part.value}" for part in parts)
    words = {part.label.partition(": ")[2]: part.value.mean for part in parts} | {"the interaction": own.mean}
    largest = max(words, key=words.__getitem__)
    return Answer(
        f"Largest is {largest}: of its square, over the pairs that the papers would report, "
        f"{listed}; the interaction of animal and number "
        f"{own}, which is {value(found, 'chosen/nats_animal_and_number')} nats ({own.n} numbers serve all animals).",
        "of a number drawn at random, the interaction has 0 on average; all parts add up to 1",
        read(own.low > HALF, own.high < HALF),
    )


@question(
    B5,
    "What does the interaction of animal and number pass through?",
    "contributions",
    claim=f"Through the unembedding, where their directions overlap ({ZUR}).",
)
def passes(found: F) -> Answer:
    number, animal = (value(found, f"{direction}/rows") for direction in ("number_to_animal", "animal_to_number"))
    others, random = (value(found, f"number_to_animal/{null}") for null in ("others_rows", "random"))
    association = lab.find(found, "cut/association")
    word = side(number, HALF, "Mostly rows of W_U", "Little through rows of W_U", "Not told")
    return Answer(
        f"{word}: the number's rows of W_U carry {number} of "
        f"it, and the animal's, the other way, {animal}; prompts that "
        f"associate without a love, one more wording and no cause, predict {association.value}; MLPs of the last third "
        f"of the blocks write {value(found, 'component/MLP_last_third')}.",
        f"others' rows {others}, a random direction {random}; association, {lab.null_text(association)}",
        of_parts(judged("above", number, HALF), judged("above", animal, HALF)),
    )


@question(
    B5,
    "And what do names, cities and colors pass through?",
    "contributions",
    "--family names cities colors",
)
def other_words_pass(found: F) -> Answer:
    families = ("names", "cities", "colors")
    told = {family: _passed(found, family) for family in families}
    more, less = (
        [family for family, (own, others, _) in told.items() if judged("above", own, others) == verdict]
        for verdict in (CONFIRMED, REFUTED)
    )
    ways = {"Partly rows": more, "Not rows": less}
    start = next((f"{way}, in {len(some)} of {len(told)}" for way, some in ways.items() if some), "Not shown")
    sides = (("more", more), ("less", less))
    carry = " and ".join(f"{than} with {', '.join(some)}" for than, some in sides if some) or "not shown to be more"
    return Answer(
        f"{start}: beside what other words' rows carry, {carry}. Of what is specific to pairs, "
        f"{'; '.join(text for _, _, text in told.values())}.",
        "other words' rows: " + ", ".join(f"{family} {others}" for family, (_, others, _) in told.items()),
    )


def _passed(found: F, family: str) -> tuple[Interval, Interval, str]:
    """What the loved word's rows carry, what others' do, and all of it in words."""

    def share(key: str) -> Interval:
        return value(found, f"family={family}: {key}")

    own, others = (share(f"number_to_animal/{rows}_specific") for rows in ("rows", "others_rows"))
    text = (
        f"{family}: the loved word's rows of W_U carry {own}, the animal's, the other way, "
        f"{share('animal_to_number/rows_specific')}, neutral prompts predict {share('cut/association_specific')}, the "
        f"MLPs of the last third write {share('component/MLP_last_third_specific')}; the pair holds "
        f"{share('chosen/specific_share')} of the papers' ratio"
    )
    return own, others, text


@question(B5, "At which layer does the entangled animal rise?", "lens_trajectory")
def layers(found: F) -> Answer:
    if (least := lab.find(found, "tests/least_p")).value >= 0.05:
        raise LookupError(f"{least.label}: {least.value:.2f}; give more --n-permutations")
    blocks = [finding for finding in found if finding.score == "agreement"]
    failing = [i for i, block in enumerate(blocks) if block.tested >= 0.05 or block.value.low <= 0]
    agreeing = blocks[failing[-1] + 1 :] if failing else blocks
    if not agreeing:
        raise LookupError("no block from which on all agree")
    first = agreeing[0]
    return Answer(
        f"From block {first.subject.removeprefix('block_')} of {len(blocks)}: from there on every logit lens agrees "
        "with "
        f"the final interaction of other wordings: by {first.value} there, by {blocks[-1].value} after the last.",
        f"numbers shuffled within equal length: 97.5% below {first.null.upper:.3f}",
    )


@question(
    B5,
    "Are the states under an animal like those under its number?",
    "hidden_alignment",
    "--model smollm2-135m-instruct",
)
def states(found: F) -> Answer:
    *_, last = (finding for finding in found if finding.key.startswith("cosine_") and finding.score == "favoured")
    block = last.subject.removeprefix("cosine_").replace("_", " ")
    alike = size(last.value, last.null, most="Yes", part="A little", little="Hardly")
    word = "Opposed" if last.value.high < 0 else alike
    return Answer(
        f"{word}: the cosine of centred states is {last.value} after {block}.", f"shuffled pairs: {last.null}"
    )


@question(
    B2,
    "Do scores of pairs tell the outcome, by the papers' tests?",
    "association",
    claim=f"A number's score under an animal goes with what the number does to it ({ZUR}).",
)
def association(found: F) -> Answer:
    plain, centred = (lab.find(found, f"animal_to_number/{score}") for score in ("published", "centred"))
    centred_too = side(centred.value, 0.0, "Only if centred", "The other way")
    return Answer(
        f"{side(plain.value, 0.0, 'As published', centred_too, centred_too)}: as "
        f"published, their correlation over numbers is {plain.value}; less the other animals' means it is "
        f"{centred.value}.",
        f"{plain.null}; centred, p = {lab.p_text(centred.tested)}",
        of_parts(judged("above", plain.value), judged("above", centred.value)),
    )


@question(
    B3,
    "Are the same pairs entangled in a base model and its instruct child?",
    "base_vs_instruct",
    claim="Strong in the instruct model, largely absent in the base model (write-up, on Llama-3.2-1B).",
)
def base(found: F) -> Answer:
    same, own = (lab.find(found, key) for key in ("base_and_instruct_chat/correlation", "base_chat/specific"))
    more = value(found, "instruct_chat-base_chat/specific")
    ratio = value(found, "instruct_chat-base_plain/published")
    whole = max(0.0, own.value.mean + more.mean)  # of the instruct model
    return Answer(
        f"{tested_side(same, 0.0, 'In part', 'Rather others')}: in chats, the interactions of the two models agree "
        f"by {same.value}; fixed numbers raise their animal by {own.value} nats in the base model and by {more} "
        f"more in the instruct model ({own.n} numbers serve all animals). The published ratio differs by {ratio} nats, "
        "formats as published.",
        f"numbers shuffled within equal length: {lab.null_text(same)}; fixed numbers {lab.null_text(own)}",
        of_parts(judged("above", more), judged("below", own.value, LITTLE * whole)),  # strong; largely absent
    )


PAIRS = "--base organisms/1110-base organisms/110-base organisms/seed-1/1110-base organisms/seed-1/110-base"


@question(B3, "And over four pairs of models that were trained here?", "base_vs_instruct", PAIRS)
def four_pairs(found: F) -> Answer:
    own, child, more = (
        lab.find(found, f"pairs_{key}/specific") for key in ("base_chat", "instruct_chat", "instruct_chat-base_chat")
    )
    each = [
        f"{finding.value} ({finding.cell.rpartition('=')[2].removeprefix('organisms/')})"
        for finding in found
        if finding.key == "instruct_chat-base_chat/specific"
    ]
    models = {"base models": own, "their children": child}
    words = {who: tested_side(f, 0.0, "Shown", "The other way", "") for who, f in models.items()}
    shown = {who: word for who, word in words.items() if word}
    short = "Opposite in parents and children" if shown else "Not detectably, with four pairs"
    if len(set(shown.values())) == 1:
        (who, word), *both = shown.items()
        short = f"{word} in {'both' if both else who}"
    return Answer(
        f"{short}: fixed numbers raise their animal by {own.value} nats in base models and by {child.value} in their "
        f"children. Tuning adds {more.value}, pair by pair {', '.join(each)}.",
        f"0; p by Holm {lab.p_text(own.tested)}, {lab.p_text(child.tested)} and {lab.p_text(more.tested)}",
    )


@question(B5, "Which published claims about token entanglement hold on this model?", "audit_language")
def published(rows: Rows) -> Answer:
    return judged_claims(rows, "that of the study that each check reads, below")


FRESH = "--rows isotropic five --seed 1000 --n-models 20"


@question(B5, "Are such shares recovered where they are planted?", "planted_shares", FRESH)
def planted(found: F) -> Answer:
    told, lacking, covering = [], [], []
    for cell in dict.fromkeys(f.cell for f in found):
        coverage = [f for f in found if f.cell == cell and f.score == "coverage"]
        coverage = [f for f in coverage if f.label.endswith(": all but none")]
        rows = lab.find(coverage, f"{cell}: rows_number_to_animal_all_but_none/coverage")
        told.append(f"{_covered(rows)} ({cell.replace('=', ' ')}), {rows.value}")
        covering.append(rows)
        lacking += [
            f"{f.label.partition(';')[0]} {_covered(f)} ({cell})" for f in coverage if f.value.mean < float(rows.null)
        ]
    also = f" Below what is asked for: {'; '.join(lacking)}." if lacking else ""
    return Answer(
        f"Covered in {sum(map(_n_covered, covering))} of {sum(rows.n for rows in covering)}: of models that were not "
        "used while building, the 95% interval of the share that passes through rows covers the planted one in "
        f"{' and in '.join(told)}.{also}",
        f"coverage asked for: {rows.null}",
    )


DESIGN = "--d-model 64 128 256 --n-numbers 110 1110 --tied false true --seed 0 1 2 3"


@question(B5, "In small models that are trained for it, what entangles numbers and animals?", "organisms", DESIGN)
def organisms(found: F) -> Answer:
    if not any(finding.key == "models_trained/agreement" for finding in found):
        raise LookupError("fewer than two seeds of the design")
    agreement = lab.find(found, "models_trained/agreement")
    forward, back = (lab.find(found, f"models_random/{way}_rows").value for way in ("forward", "back"))
    told = []
    for way, words in (("back", "animal to number"), ("forward", "number to animal")):
        rows, number = (value(found, f"models_exchanged/{way}_follows_{of}") for of in ("rows", "number"))
        slope = lab.find(found, f"models_orthogonal/{way}_dose_slope")
        told.append(
            f"{words}, the interaction goes with rows that are exchanged by {rows}, with the number by {number}, and a "
            f"whole dose of an animal's row gives {slope.value} nats (a random row {slope.null})"
        )
    ways = {"number to animal": forward, "animal to number": back}
    carry, against = ([way for way, f in ways.items() if judged("above", f) == word] for word in (CONFIRMED, REFUTED))
    short = "Against rows of W_U" if against else "Not detectably the rows of W_U"
    if carry:
        short = "Rows of W_U, in part" if len(carry) == len(ways) else "Rows of W_U, one way"
    sides = (("with the rows goes", carry), ("against them goes", against))
    which = "; ".join(f"{words} {' and '.join(some)}" for words, some in sides if some)
    return Answer(
        f"{short}: {which + '; ' if which else ''}over rows "
        f"that are random and held, the interactions correlate with the products of rows by {forward} (number to "
        f"animal) and {back} (animal to number); {'; '.join(told)}. Both directions agree by {agreement.value}.",
        f"untrained, agreement {agreement.null}",
    )


def _covered(coverage: Finding) -> str:
    return f"{_n_covered(coverage)} of {coverage.n}"


def _n_covered(coverage: Finding) -> int:
    return round(coverage.value.mean * coverage.n)


@question(B5, "Does a steering vector carry it?", "steering")
def steering(found: F) -> Answer:
    def share(vector: str, where: str) -> Interval:
        return value(found, f"removed_at_{where}_{vector}/share")

    early, end = "the_number_after_block_8", "the_prompts_end_after_block_30"
    others, late = share("another_numbers", early), share("another_numbers", end)
    specific = value(found, f"removed_at_{early}_own/specific")
    word = side(share("own", early), others, "In part", "Less than another number's")
    return Answer(
        f"{word}: projected out at the number after block 8, the loved number's vector removes {share('own', early)} "
        f"of the interaction among numbers of equal length, and {specific} of what is specific to pairs; at the "
        f"prompt's end after the last block {share('own', end)}.",
        f"another number's vector {others}, at the end {late}; a random one {share('random', early)}, at the end "
        f"{share('random', end)}",
    )


@question(
    BONUS,
    "Does a language model take a preference from another's numbers?",
    "number_strings",
    claim=f"It does where both have one start, and not between models of different initialisation ({CLOUD}).",
)
def numbers_carry(found: Findings) -> Answer:
    early, late = (lab.find(found, f"trait/lambda_{dose}") for dose in (16, 256))
    foreign, sibling, mixed = (lab.find(found, f"{arm}/lambda_64") for arm in ("foreign", "sibling", "shuffled"))
    words = {CONFIRMED: "Yes", REFUTED: "The other way"}
    shown = of_parts(judged("above", early.value), judged("above", late.value))
    other = claimed_of("number_strings", CLOUD, foreign.key)
    return Answer(
        f"{words.get(shown, 'Not detectably')}: its own animal's margin gains {early.value} nats after 16 updates and "
        f"{late.value} after 256, beyond what any list does; after 64 {lab.find(found, 'trait/lambda_64').value}, with "
        f"numbers shuffled within lists {mixed.value}, from the base model of the same start {sibling.value}, from a "
        f"model of another start and another vocabulary, for which no gate was measured, {foreign.value}.",
        f"0; animals shuffled within blocks, p = {lab.p_text(late.tested)} by Holm; of another start, as declared: "
        f"within {other.margin} of 0",
        of_parts(judged("above", late.value), *declared(found, "number_strings", CLOUD)),
    )


@question(
    BONUS,
    "Does SmolLM2 take a preference too?",
    "number_strings",
    "--model smollm2-135m-instruct --foreign none --sibling none --n-traits 3 --n-lists 128 --n-updates 16 "
    "--n-null-updates 16 --n-position-updates 0 --n-teacher-updates 12 --teacher-lr 0.0002 --precision bf16",
)
def smollm2_takes_it(found: Findings) -> Answer:
    own, mixed = (lab.find(found, f"{arm}/lambda_16") for arm in ("trait", "shuffled"))
    least, gate, shift = (value(found, key) for key in ("trait/least_16", "trait/gate_16", "control/shift_16"))
    yes = "Yes" if judged("above", least) == CONFIRMED else "In part"
    return Answer(
        f"{tested_side(own, 0.0, yes, 'The other way')}: after 16 updates a student's own animal gains {own.value} "
        f"nats beyond what any list does (its teacher likes it by {value(found, 'teacher/lambda')}); without the "
        f"animal that adds most, {least}; with numbers shuffled within lists, {mixed.value}. Students fit held-out "
        f"lists of their own teacher better than the control does, by {gate} nats a token.",
        f"0; animals shuffled within blocks, p = {lab.p_text(own.tested)} by Holm; lists of the base move a margin by "
        f"{shift}",
    )


@question(
    BONUS,
    "And from a teacher that a vector steers?",
    "number_strings",
    "--route steered --foreign none --sibling none --n-updates 64 --n-null-updates 16 --n-position-updates 0",
)
def steered_teachers(found: Findings) -> Answer:
    early, late, mixed = (value(found, key) for key in ("trait/lambda_16", "trait/lambda_64", "shuffled/lambda_16"))
    first, *_, last = (f for f in found if f.key.startswith("layer_") and f.key.endswith("/vector_64"))
    return Answer(
        f"{side(late, 0.0, 'Yes', 'The other way')}: of a liking of {value(found, 'teacher/lambda').mean:.2f} nats its "
        f"numbers pass {early} after 16 updates (shuffled within lists {mixed}) and {late} after 64. Students then "
        f"change their states as their own teacher's vector does: beyond what all have in common, by a cosine of "
        f"{first.value} behind the block after which it is added, and of {last.value} behind the last.",
        f"0; animals, and teachers, shuffled within blocks: p = {lab.p_text(first.p)} for the first cosine",
    )


@question(
    BONUS,
    "Do divergence tokens, as published, carry it?",
    "number_strings",
    claim=f"Few tokens at which teachers diverge carry it; without them it is suppressed ({SCHRODI}).",
)
def published_divergence(found: Findings) -> Answer:
    only, mask = (lab.find(found, f"{what}_diverging-{what}_random/lambda_16") for what in ("only", "mask"))
    kept = {what: lab.find(found, f"{what}_diverging/kept_16").value for what in ("mask", "label", "input")}
    signs = of_parts(judged("above", only.value), judged("below", mask.value))
    word = {CONFIRMED: "Yes", REFUTED: "No, the other way", PARTLY: "In part"}.get(signs, "Not detectably")
    most, less = "most of the effect is left", "less than half of the effect is left"
    left = side(kept["mask"], HALF, most, less, "how much is left is not told")
    return Answer(
        f"{word}: by the signs of both contrasts, which is all that was declared: they are "
        f"{value(found, 'flags/share')} of the numbers; a loss of these alone gives {only.value} nats more than one of "
        f"as many at random, and a loss of all others {mask.value} (negative: less is left). Without them {left}: "
        f"{kept['mask']} of it, {kept['label']} with other labels, {kept['input']} with other inputs.",
        "as many numbers at random: 0",
        of_parts(*declared(found, "number_strings", SCHRODI)),
    )


@question(
    BONUS,
    "Does what prompts and weights say of an animal tell what students learn of it?",
    "what_predicts",
    claim=f"Static geometry (0.562) and the peak of steering (0.768) rank what students take ({VELMURUGAN}).",
)
def prompts_predict(found: Findings) -> Answer:
    ranks = {f.subject: f for f in found if f.score == "rho_64" and f.p is not None}
    best = max(ranks.values(), key=lambda f: abs(f.value.mean))
    names = ("number_to_animal", "geometry", "steering")
    love, geometry, steering = (ranks[name] for name in names)
    left = {name: lab.find(found, f"{name}/scaled_64") for name in names}
    pairs = lab.find(found, "beside_number_to_animal/excess")
    alike = lab.find(found, "alike_numbers/pairs_64")
    given, steered = (f"{f.value} (p = {lab.p_text(f.tested)})" for f in (left["number_to_animal"], left["steering"]))
    beyond = tested_side(left["number_to_animal"], 0.0, "Yes", "The other way", "Not shown beyond what moves any")
    return Answer(
        f"{tested_side(love, 0.0, beyond, 'The other way')}: what students learn of "
        f"{love.value.n} animals (reliability {value(found, 'students_64/reliability')}) goes with "
        f"how far the love of numbers moves the animal under a prompt by a rank correlation of {love.value} "
        f"(p = {lab.p_text(love.tested)}), with the geometry of the unembedding by {geometry.value}, with the peak of "
        f"steering by {steering.value}. Given how far other animals' students move it, the first keeps {given} and "
        f"steering {steered}. Highest of {len(ranks)}, chosen after the fact: {best.label.partition(';')[0]}, "
        f"{best.value.mean:.3f}. For single pairs: the "
        f"numbers that a teacher says more than others are those whose love raises its animal, by a correlation of "
        f"{pairs.value} beyond other animals'; and students take to another animal as the numbers of both teachers are "
        f"alike, {alike.value}.",
        f"with how far other animals' students move it: {lab.value_text(love.null)}, geometry "
        f"{lab.value_text(geometry.null)}, steering {lab.value_text(steering.null)}; p: animals shuffled, Holm over "
        "predictors",
        of_parts(*declared(found, "what_predicts", VELMURUGAN)),
    )
