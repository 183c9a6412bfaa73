"""The questions of `studies.report`, and how the rows of a study's table become an answer.

No sentence holds a number of its own, and no verdict is written by hand: both follow from the rows.
"""

from collections.abc import Callable
from dataclasses import dataclass

CONFIRMED, REFUTED, PARTLY, NO_CLAIM = "confirmed", "refuted", "partly", "no published claim"
A, A2, A3 = "Topic A: replication", "Topic A, step 2: factors", "Topic A, step 3: mechanism"
B2, B3 = "Topic B, step 2: entangled pairs", "Topic B, step 3: base and instruct"
B4, B5 = "Topic B, step 4: geometry", "Topic B, step 5: causes"
BONUS = "Bonus"


@dataclass(frozen=True)
class Answer:
    sentence: str
    null: str
    verdict: str = NO_CLAIM  # on the question's claim


@dataclass(frozen=True)
class Question:
    topic: str
    name: str
    question: str
    study: str
    flags: str
    answer: Callable[[list[dict]], Answer]
    claim: str = ""


def find(rows: list[dict], **wanted) -> dict:
    """The first row with these values; LookupError says which is not there."""
    for row in rows:
        if all(row.get(key) == value for key, value in wanted.items()):
            return row
    raise LookupError("no row " + ", ".join(f"{key} = {value}" for key, value in wanted.items()))


def quantity(rows: list[dict], name: str, **more) -> dict:
    return find(rows, quantity=name, **more)


def _not_yet(rows: list[dict]) -> Answer:
    raise LookupError("nobody has written how this answer is read from the table")


# Topic A: replication.

STUDENT, CROSS = "student, auxiliary logits only", "cross-initialisation, auxiliary only"


def _learns(rows: list[dict]) -> Answer:
    own, null, teacher = (find(rows, arm=arm)["accuracy"] for arm in (STUDENT, CROSS, "teacher"))
    above = own.low > null.high
    verdict = CONFIRMED if above and own.mean > 0.5 else PARTLY if above else REFUTED
    return Answer(
        f"{'Yes' if above else 'No'}: accuracy {own} over {own.n} seeds, where the teacher has {teacher}.",
        f"the same distillation from another initialisation: {null}",
        verdict,
    )


def _start(rows: list[dict]) -> Answer:
    parts = [f"only {part} shared, auxiliary" for part in ("hidden layers", "output layer")]
    hidden, output = (find(rows, arm=part) for part in parts)
    own, null = (find(rows, arm=arm)["accuracy"] for arm in (STUDENT, CROSS))
    chance = [row["above the null"].low <= 0 for row in (hidden, output)]
    return Answer(
        f"{'Yes' if all(chance) else 'Not all of it'}, at three logits: {hidden['accuracy']} with only the hidden layers "
        f"shared, {output['accuracy']} with only the output layer, {own} with both.",
        f"nothing shared: {null}",
        CONFIRMED if all(chance) else PARTLY,
    )


def _squared(rows: list[dict]) -> Answer:
    kl, mse = (find(rows, cell=f"loss={loss}", arm=STUDENT)["accuracy"] for loss in ("kl", "mse"))
    null = find(rows, cell="loss=mse", arm=CROSS)["accuracy"]
    lower = mse.high < kl.low
    return Answer(
        f"{'Yes' if lower else 'No'}: {mse} with squared error against {kl} with the KL divergence.",
        f"another initialisation, squared error: {null}",
        REFUTED if mse.low > 0.304 else CONFIRMED if mse.high < kl.low else PARTLY,
    )


def _head(rows: list[dict]) -> Answer:
    body, null = find(rows, arm="teacher body + initial digit head"), find(rows, arm=CROSS)
    gain = find(rows, arm="difference: teacher's digit head on the student's body")
    return Answer(
        f"The untrained digit head is not what limits it: on the teacher's body it has {body['accuracy']}; the teacher's "
        f"head on the student's body adds {gain['accuracy']}.",
        f"another initialisation: {null['accuracy']}",
    )


def _alignment(rows: list[dict]) -> Answer:
    stitched = [find(rows, metric="stitch_into_teacher", on="digits", layer=layer) for layer in (1, 2)]
    cka = find(rows, metric="debiased_cka", on="digits", layer=2)
    moved = all(row["student_aux"].low > row["reference (null)"].high for row in stitched)
    return Answer(
        f"{'In both layers' if moved else 'Not in both layers'}: stitched into the teacher, layer 1 keeps "
        f"{stitched[0]['student_aux']} accuracy and layer 2 {stitched[1]['student_aux']}; debiased CKA of layer 2 is "
        f"{cka['student_aux']}.",
        f"untrained: {stitched[0]['reference (null)']}, {stitched[1]['reference (null)']}, CKA "
        f"{cka['reference (null)']}; another initialisation: CKA {cka['cross_aux (null)']}",
        CONFIRMED if moved else REFUTED,
    )


def _similarity(rows: list[dict]) -> Answer:
    cka = find(rows, metric="debiased_cka", on="digits", layer=2)["rho over seeds"]
    stitched = find(rows, metric="stitch_into_teacher", on="digits", layer=2)["rho over seeds"]
    return Answer(
        f"Over seeds, the rank correlation of accuracy with layer-2 CKA is {cka}, with stitching of layer 2 {stitched}.",
        "rank correlation 0",
        REFUTED if cka.low <= 0 else CONFIRMED,
    )


def _written(rows: list[dict]) -> Answer:
    share = quantity(rows, "dla: share of the change through the auxiliary span", arm="student")
    alone = quantity(rows, "dla: accuracy, only the part through the auxiliary span", arm="student")
    rest = quantity(rows, "dla: accuracy, only the rest", arm="student")
    return Answer(
        f"Hardly: a share of {share['value']} of the change of the digit logits passes through the span of the auxiliary "
        f"directions; that part alone gives {alone['value']} accuracy, the rest alone {rest['value']}.",
        f"a random span carries {share['null']}",
    )


# Sweeps of one factor.


def sweep(factor: str, score: str = "accuracy") -> Callable[[list[dict]], Answer]:
    """The auxiliary-only student at the first and the last stored level, and the verdict on the brief's direction."""

    def answer(rows: list[dict]) -> Answer:
        levels = [row for row in rows if row.get("arm") == "aux" and str(row["cell"]).startswith(f"{factor}=")]
        if len(levels) < 2:
            raise LookupError(f"fewer than two levels of {factor}")
        shown = "; ".join(f"{row['cell'].partition('=')[2]}: {row[score]}" for row in levels)
        judged = [row for row in rows if str(row["cell"]).startswith(f"prediction: {factor} ")]
        said = next((row["brief"].rpartition(": ")[2] for row in judged if row.get("brief")), "")
        ends = f" Last less first level: {judged[0]['to the reference']}." if judged else ""
        nulls = [row["cross_aux (null)"].mean for row in levels]
        return Answer(
            f"{score.capitalize()} by {factor.replace('_', ' ')}: {shown}.{ends}",
            f"another initialisation: {min(nulls):.3f} to {max(nulls):.3f}",
            {"hit": CONFIRMED, "miss": REFUTED, "open": PARTLY}.get(said, NO_CLAIM),
        )

    return answer


# Topic B.


def _twice(rows: list[dict]) -> Answer:
    found = quantity(rows, "animals over 2x both ways, number by probability")
    return Answer(
        f"No more often than with another animal's number: for a share of {found['value']} of animals both ratios exceed 2."
        if found["p"] > 0.05
        else f"For a share of {found['value']} of animals both ratios exceed 2, more than with another animal's number.",
        f"{found['null']}; p = {found['p']:.3f}",
        REFUTED if found["p"] > 0.05 else CONFIRMED,
    )


def _picked(rows: list[dict]) -> Answer:
    lists = [row for row in rows if row["quantity"].startswith("listed animals above others")]
    if not lists:
        raise LookupError("no published list")
    least = min(row["p"] for row in lists)
    values = [row["value"] for row in lists]
    return Answer(
        f"{'Not detectably' if least > 0.05 else 'Yes'}: a listed animal lies above another with probability "
        f"{min(values):.3f} to {max(values):.3f} over {len(lists)} published lists (smallest p after Holm: {least:.3f}).",
        "0.500",
        CONFIRMED if least > 0.05 else REFUTED,
    )


def _specific(rows: list[dict]) -> Answer:
    share = quantity(rows, "share of number to animal: number x animal")["value"]
    animal = quantity(rows, "share of number to animal: animal")["value"]
    again = quantity(rows, "correlation of interactions: number to animal, other wordings")
    return Answer(
        f"{'Yes, but little' if again['value'].low > 0 and share < 0.1 else 'Yes' if again['value'].low > 0 else 'No'}: "
        f"number to animal, {share:.3f} of the variance of the log ratio is specific to both ({animal:.3f} is the "
        f"animal's alone); other wordings bring it back with correlation {again['value']}.",
        again["null"],
    )


def _directions(rows: list[dict]) -> Answer:
    both = quantity(rows, "agreement of the two directions: all")
    whole = quantity(rows, "agreement of the two directions: whole numbers")
    return Answer(
        f"Weakly: their correlation is {both['value']}; what is left to whole numbers, beyond their digits, agrees by "
        f"{whole['value']}.",
        f"{both['null']}; whole numbers {whole['null']}",
        PARTLY if both["value"].low > 0 else REFUTED,
    )


def _special(rows: list[dict]) -> Answer:
    number, word = (quantity(rows, "agreement of the directions", partners=p) for p in ("numbers", "matched words"))
    return Answer(
        f"{'No' if word['value'].low > number['value'].high else 'Not shown'}: the directions of words of the same norm "
        f"and frequency agree by {word['value']}, those of numbers by {number['value']}.",
        f"shuffled within equal length: {word['shuffled']} and {number['shuffled']}",
    )


def _families(rows: list[dict]) -> Answer:
    told = [
        (family, find(rows, cell=f"family={family}", quantity="correlation of interactions: the two directions"))
        for family in ("names", "cities", "colors")
    ]
    return Answer(
        "The two directions agree by " + ", ".join(f"{row['value']} ({family})" for family, row in told) + ".",
        "; ".join(f"{family}: {row['null']}" for family, row in told),
    )


NUMBERS = {"direction": "number to animal", "unit": "multiset"}


def _cosine(rows: list[dict]) -> Answer:
    cosine = find(rows, **NUMBERS, metric="cosine")
    best = [row for row in rows if row.get("rule") == "winner" and row["direction"] == "number to animal"]
    more = f"; best of the metrics is {best[0]['metric']} with {best[0][RATIO]}" if best else ""
    found = cosine[RATIO]
    return Answer(
        f"A little: Eq 1's cosine reaches {found} of the correlation that other wordings of the prompt reach, number to "
        f"animal{more}.",
        f"the cosine of other animals, subtracted; its own correlation is {cosine['other animals']:.3f}",
        PARTLY if found.low > 0 else REFUTED,
    )


RATIO = "r / ceiling's r"


def _rides(rows: list[dict]) -> Answer:
    ruled = find(rows, metric="geometry, by dla: concept")
    share, other = (find(rows, direction="share of the interaction", metric=f"dla: {p}") for p in ("concept", "other"))
    verdict = ruled["rule"].split(";")[0].split(" (")[0]
    return Answer(
        f"By the rule stated before the run: {ruled['rule']}. The animal's own output direction explains "
        f"{ruled['explained / ceiling' + chr(39) + 's']} of what other wordings explain, and carries a share of "
        f"{share['share']} of the interaction.",
        f"other animals' directions carry {other['share']}",
        {"refuted": REFUTED, "partial": PARTLY}.get(verdict, CONFIRMED),
    )


def _layer(rows: list[dict]) -> Answer:
    last, name = max(row["layer"] for row in rows), "r, other wordings"
    p = "p, numbers shuffled (Holm)"
    first = next((row for row in rows if all(r[p] < 0.05 and r[name].low > 0 for r in rows if r["layer"] >= row["layer"])), None)
    at = {row["layer"]: row[name] for row in rows}
    if first is None:
        raise LookupError("no block from which on all agree")
    return Answer(
        f"From block {first['layer']} of {last} on, every block's logit lens agrees with the final interaction of other "
        f"wordings: by {first[name]} there, by {at[last]} after the last.",
        f"numbers shuffled within equal length: 97.5% below {first['shuffled numbers, 97.5%']:.3f}",
    )


def _states(rows: list[dict]) -> Answer:
    last = max((row for row in rows if row["metric"] == "cosine"), key=lambda row: row["layer"])
    return Answer(
        f"Hardly: the cosine of centred states is {last['favoured number']} after block {last['layer']}.",
        f"shuffled pairs: {last['null mean']:.3f}, 95% below {last['null 95%']:.3f}",
    )


def _shares(rows: list[dict]) -> Answer:
    names = ("animal", "wording", "wording x animal", "number", "number x animal")
    parts = {name: quantity(rows, f"share of number to animal, wordings: {name}")["value"] for name in names}
    any_number = quantity(rows, "log ratio to none: any number, nats")["value"]
    listed = ", ".join(f"{name} {value:.3f}" for name, value in sorted(parts.items(), key=lambda part: -part[1]))
    return Answer(
        f"Shares of the variance of the papers' log ratio, number to animal over five wordings: {listed}; any number "
        f"raises an animal by {any_number} nats.",
        "no effect: 0 nats",
    )


AUX = "--arms aux"
TOY = "--model toy --metric cosine dot centered_cosine number_centered causal dla"
CLOUD, JIANG, ZUR = "Cloud et al. 2025", "Jiang et al. 2025", "Zur et al. 2025"

QUESTIONS = (
    Question(
        A, "learns", "Does a student of three auxiliary logits of noise learn digits?", "subliminal_accuracy", "", _learns,
        claim=f"Above 0.5 accuracy from the teacher's initialisation, chance from another ({CLOUD}).",
    ),
    Question(
        A, "start", "Must the whole start be shared?", "subliminal_accuracy", "", _start,
        claim=f"Transmission needs a shared initialisation ({CLOUD}).",
    ),
    Question(
        A, "squared-error", "Did squared error lower it in the follow-up work?", "subliminal_accuracy", "--loss kl mse",
        _squared, claim=f"0.271 +- 0.033 with squared error ({JIANG}).",
    ),
    Question(A, "shared-parts", "Which parts must be shared, at how many logits?", "conditions", "", _not_yet),
    Question(
        A2, "width", "Does a wider network learn less?", "factors", f"{AUX} --d-model 64 256 512", sweep("d_model"),
        claim=f"Decreases ({JIANG}).",
    ),
    Question(
        A2, "auxiliary-logits", "Do more auxiliary logits teach more?", "factors", f"{AUX} --n-aux 2 3 10 30 100",
        sweep("n_aux"), claim=f"Increases ({JIANG}).",
    ),
    Question(
        A2, "depth", "Does depth matter?", "factors", f"{AUX} --n-layers 1 2 3", sweep("n_layers"),
        claim=f"About the same ({JIANG}).",
    ),
    Question(
        A2, "fashion", "Does it work on Fashion-MNIST?", "factors", f"{AUX} --dataset mnist fashion_mnist",
        sweep("dataset"), claim=f"It works ({JIANG}).",
    ),
    Question(
        A2, "classes", "Do more classes lower it?", "factors", f"{AUX} --n-classes 2 5 10", sweep("n_classes", "kappa"),
        claim="The aux-only student does worse with more classes (brief, experiment 2).",
    ),
    Question(
        A2, "signal", "Does image signal in the inputs help?", "factors", f"{AUX} --signal 0 0.5 0.75 1", sweep("signal"),
        claim="Predicted to increase it (brief, item 6); found to decrease it (experiment 3).",
    ),
    Question(
        A2, "target-noise", "Does noise on the teacher's logits lower it?", "factors", f"{AUX} --target-noise 0 0.1 1",
        sweep("target_noise"), claim="Predicted to decrease it (brief, item 7).",
    ),
    Question(
        A2, "samples", "Do more samples raise it?", "factors", f"{AUX} --n-samples 6000 20000 60000", sweep("n_samples"),
        claim="Predicted to increase it (brief, item 8).",
    ),
    Question(
        A2, "perturbation", "How much may the shared start be perturbed?", "factors",
        f"{AUX} --perturbation 0 0.03 0.1 0.3 1", sweep("perturbation"),
        claim="Falls to chance as the perturbation grows (brief, experiment 1).",
    ),
    Question(A3, "head", "Is the untrained digit head what limits the student?", "subliminal_accuracy", "", _head),
    Question(
        A3, "alignment", "Where does the student move toward its teacher?", "hidden_alignment", "", _alignment,
        claim="Matching the auxiliary logits moves both hidden layers toward the teacher's (brief, step 3).",
    ),
    Question(
        A3, "similarity", "Does similarity tell which seed learned more?", "hidden_alignment", "", _similarity,
        claim=f"Similarity of the last hidden layer rises with accuracy ({JIANG}).",
    ),
    Question(A3, "written", "Is the learning written along the auxiliary directions?", "unembed_projection", TOY, _written),
    Question(A3, "mechanism", "How does the digit task get through the auxiliary logits?", "mechanism", "", _not_yet),
    Question(
        A3, "inputs", "Which random inputs work much better or worse, and why?", "input_distributions", "", _not_yet,
        claim="Second-order statistics decide; blur helps, variance does not matter (brief, step 3).",
    ),
    Question(
        A3, "maximise", "How far can the student's accuracy be raised?", "maximise", "", _not_yet,
        claim="0.772 with correlated noise (brief, step 3).",
    ),
    Question(
        B2, "pairs", "Does a loved animal raise its number, and that number the animal?", "token_entanglement", "", _twice,
        claim=f"Entangled pairs raise each other ({ZUR}); 28 of 49 animals over 2x both ways (brief).",
    ),
    Question(
        B2, "lists", "Were the published animals picked for their effect?", "token_entanglement", "", _picked,
        claim="No cherry-picking (brief).",
    ),
    Question(B2, "specific", "Is anything specific to animal and number?", "token_entanglement", "", _specific),
    Question(
        B2, "directions", "Do the two directions agree?", "digits", "", _directions,
        claim=f"Entanglement is mutual ({ZUR}).",
    ),
    Question(B2, "numbers", "Are numbers special?", "matched_tokens", "", _special),
    Question(
        B2, "families", "And names, cities, colors?", "token_entanglement", "--family names cities colors", _families
    ),
    Question(
        B3, "base", "Are the same pairs entangled in the base model?", "base_and_instruct", "", _not_yet,
        claim="Strong in the instruct model, largely absent in the base model (brief, on Llama-3.2-1B).",
    ),
    Question(
        B4, "cosine", "Does unembedding geometry (Eq 1) predict the pairs, and what does better?", "unembed_projection", "",
        _cosine, claim=f"The cosine of unembedding rows predicts entangled pairs ({ZUR}).",
    ),
    Question(
        B4, "dla", "Does the effect ride on writing the animal's output direction?", "unembed_projection", "--metric dla",
        _rides, claim=f"Writing an animal raises its number because of their projection ({ZUR}).",
    ),
    Question(B5, "shares", "What is the subliminal prompting effect made of?", "token_entanglement", "", _shares),
    Question(B5, "layers", "At which layer does the entangled animal rise?", "lens_trajectory", "", _layer),
    Question(
        B5, "states", "Are the states under an animal like those under its number?", "hidden_alignment",
        "--model smollm2-135m-instruct", _states,
    ),
    Question(BONUS, "pretrained", "What if the shared start is a capable, pretrained model?", "pretrained", "", _not_yet),
    Question(BONUS, "channel", "What if the output channel is wider than the hidden state?", "channel", "", _not_yet),
)  # fmt: skip
