"""Answers of `studies.report` about the language model, from the rows of its studies' tables."""

from collections.abc import Mapping

from mechsub.lab import findings as lab
from mechsub.lab.findings import Finding
from mechsub.stats import Interval
from studies.report.question import (
    B2,
    B3,
    B4,
    B5,
    CONFIRMED,
    PARTLY,
    REFUTED,
    ZUR,
    Answer,
    Rows,
    find,
    judged_claims,
    quantity,
    question,
    read,
    value,
)  # fmt: skip


@question(
    B2,
    "Does a loved animal raise its number, and that number the animal?",
    "token_entanglement",
    claim=f"Pairs raise each other ({ZUR}); 28 of 49 animals over 2x both ways (write-up).",
)
def pairs(rows: Rows) -> Answer:
    found = quantity(rows, "animals over 2x both ways, number by probability")
    often = "No more often" if found["p"] > 0.05 else "More often"
    return Answer(
        f"{often} than with another animal's number: both ratios exceed 2 for a share of {found['value']} of animals.",
        f"{found['null']}; p = {found['p']:.3f}",
        REFUTED if found["p"] > 0.05 else CONFIRMED,
    )


@question(
    B2,
    "Were the published animals picked for their effect?",
    "token_entanglement",
    claim="No cherry-picking (write-up).",
)
def lists(rows: Rows) -> Answer:
    lists = [row for row in rows if row["quantity"].startswith("listed animals above others")]
    if not lists:
        raise LookupError("no published list")
    least = min(row["p"] for row in lists)
    values = [row["value"] for row in lists]
    return Answer(
        f"{'Not detectably' if least > 0.05 else 'Yes'}: a listed animal lies above another with probability "
        f"{min(values):.3f} to {max(values):.3f} over {len(lists)} published lists (least p after Holm: {least:.3f}).",
        "0.500",
        CONFIRMED if least > 0.05 else REFUTED,
    )


@question(B2, "Is anything specific to animal and number?", "token_entanglement")
def specific(rows: Rows) -> Answer:
    share = quantity(rows, "share of number to animal: number x animal")["value"]
    animal = quantity(rows, "share of number to animal: animal")["value"]
    again = quantity(rows, "correlation of interactions: number to animal, other wordings")
    yes = "Yes, but little" if share < 0.1 else "Yes"
    return Answer(
        f"{yes if again['value'].low > 0 else 'No'}: "
        f"number to animal, {share:.3f} of the variance of the log ratio is specific to both ({animal:.3f} is the "
        f"animal's alone); other wordings bring it back with correlation {again['value']}.",
        again["null"],
    )


@question(B2, "Do the two directions agree?", "digits", claim=f"Entanglement is mutual ({ZUR}).")
def directions(findings: list[Finding]) -> Answer:
    both, whole = (lab.find(findings, f"directions/{part}") for part in ("all", "whole_numbers"))
    return Answer(
        f"Weakly: their correlation is {both.value}; what is left to whole numbers, beyond their digits, agrees by "
        f"{whole.value}.",
        f"{lab.null_text(both)}; whole numbers {lab.null_text(whole)}",
        PARTLY if both.value.low > 0 else REFUTED,
    )


@question(B2, "Are numbers special?", "matched_tokens")
def numbers(rows: Rows) -> Answer:
    number, word = (quantity(rows, "agreement of the directions", partners=p) for p in ("numbers", "matched words"))
    return Answer(
        f"{'No' if word['value'].low > number['value'].high else 'Not shown'}: the directions of words of equal norm "
        f"and frequency agree by {word['value']}, those of numbers by {number['value']}.",
        f"shuffled within equal length: {word['shuffled']} and {number['shuffled']}",
    )


@question(B2, "And names, cities, colors?", "token_entanglement", "--family names cities colors")
def families(rows: Rows) -> Answer:
    told = [
        (family, find(rows, cell=f"family={family}", quantity="correlation of interactions: the two directions"))
        for family in ("names", "cities", "colors")
    ]
    return Answer(
        "The two directions agree by " + ", ".join(f"{row['value']} ({family})" for family, row in told) + ".",
        "; ".join(f"{family}: {row['null']}" for family, row in told),
    )


NUMBERS = {"direction": "number to animal", "unit": "multiset"}


@question(
    B4,
    "Does unembedding geometry (Eq 1) predict the pairs, and what does better?",
    "unembed_projection",
    claim=f"The cosine of unembedding rows predicts entangled pairs ({ZUR}).",
)
def cosine(rows: Rows) -> Answer:
    cosine = find(rows, **NUMBERS, metric="cosine")
    best = [row for row in rows if row.get("rule") == "winner" and row["direction"] == "number to animal"]
    more = f"; best of the metrics is {best[0]['metric']} with {best[0][RATIO]}" if best else ""
    found = cosine[RATIO]
    return Answer(
        f"A little: Eq 1's cosine reaches {found} of the correlation that other wordings of the prompt reach, number "
        f"to animal{more}.",
        f"the cosine of other animals, subtracted; its own correlation is {cosine['other animals']:.3f}",
        PARTLY if found.low > 0 else REFUTED,
    )


RATIO = "r / ceiling's r"


@question(
    B4,
    "Does the effect ride on writing the animal's output direction?",
    "unembed_projection",
    "--metric dla",
    claim=f"Writing an animal raises its number because of their projection ({ZUR}).",
)
def dla(rows: Rows) -> Answer:
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


@question(
    B4,
    "Must numbers rise when an animal does (softmax bottleneck)?",
    "bottleneck",
    claim=f"An animal cannot be raised without its number ({ZUR}).",
)
def bottleneck(findings: list[Finding]) -> Answer:
    held, matched = lab.find(findings, "numbers/price"), value(findings, "matched/price")
    size = held.label.partition("(")[2].rstrip(")")
    if not isinstance(held.value, Interval):
        price = lab.value_text(held.value)
        return Answer(f"Yes: the price of holding the numbers is {price} ({size}).", "1", CONFIRMED)
    more = held.value.low > getattr(matched, "high", float("inf"))
    return Answer(
        f"No: the shortest write that raises an animal and holds every number where it is, is {held.value} times as "
        f"long as the one that holds nothing ({size}).",
        f"as many tokens of their norm and frequency held: {lab.value_text(matched)}; nothing forced: 1; forced: "
        "infinite",
        PARTLY if more else REFUTED,
    )


@question(B5, "What is the subliminal prompting effect made of?", "token_entanglement")
def shares(rows: Rows) -> Answer:
    names = ("animal", "wording", "wording x animal", "number", "number x animal")
    parts = {name: quantity(rows, f"share of number to animal, wordings: {name}")["value"] for name in names}
    any_number = quantity(rows, "log ratio to none: any number, nats")["value"]
    listed = ", ".join(f"{name} {value:.3f}" for name, value in sorted(parts.items(), key=lambda part: -part[1]))
    return Answer(
        f"Shares of the variance of the papers' log ratio, number to animal over five wordings: {listed}; any number "
        f"raises an animal by {any_number} nats.",
        "no effect: 0 nats",
    )


HALF = 0.5  # a claim of what an effect is holds with more than that of it, and fails with less


@question(
    B5,
    "What is the papers' ratio made of?",
    "contributions",
    figure="plot_parts",
    claim=f"A rise over no system message shows that animal and number are entangled ({ZUR}).",
)
def ratio(rows: Rows) -> Answer:
    start = "share of the squared log ratio, chosen pairs: "
    parts = {r["quantity"].removeprefix(start): r for r in rows if str(r.get("quantity", "")).startswith(start)}
    own = find([*parts.values()], quantity=f"{start}animal and number")
    others = [(name, row["value"]) for name, row in parts.items() if row is not own and row["value"].low > 0]
    listed = ", ".join(f"{name} {value}" for name, value in sorted(others, key=lambda part: -part[1].mean))
    return Answer(
        f"Of its square, over the pairs that the papers would report: {listed}; the pair itself {own['value']}, which "
        f"is {own['mean, nats']} nats.",
        "of a number drawn at random, the pair itself has 0 on average; all parts add up to 1",
        read(own["value"].low > HALF, own["value"].high < HALF),
    )


@question(
    B5,
    "What does the pair's own part of the ratio pass through?",
    "contributions",
    claim=f"Through the unembedding, where their directions overlap ({ZUR}).",
)
def passes(rows: Rows) -> Answer:
    start = "of what is specific, "
    through = [
        quantity(rows, f"{start}{direction}: passes through the loved thing's rows")
        for direction in ("number to animal", "animal to number")
    ]
    association = quantity(rows, f"{start}number to animal, cut by direction: association")
    layers = quantity(rows, f"{start}cut by component: MLP, last third")
    values = [row["value"] for row in through]
    return Answer(
        f"The number's rows of W_U carry {values[0]} of it, and the animal's, the other way, {values[1]}; association "
        f"in neutral prompts predicts {association['value']}; MLPs of the last third of the blocks write "
        f"{layers['value']}.",
        f"{through[0]['null']}; association, {association['null']}",
        read(all(value.low > HALF for value in values), all(value.high < HALF for value in values)),
    )


@question(B5, "At which layer does the entangled animal rise?", "lens_trajectory")
def layers(rows: Rows) -> Answer:
    last, name = max(row["layer"] for row in rows), "r, other wordings"
    p = "p, numbers shuffled (Holm)"
    failing = max((row["layer"] for row in rows if row[p] >= 0.05 or row[name].low <= 0), default=0)
    first = next((row for row in rows if row["layer"] == failing + 1), None)
    at = {row["layer"]: row[name] for row in rows}
    if first is None:
        raise LookupError("no block from which on all agree")
    return Answer(
        f"From block {first['layer']} of {last} on, every block's logit lens agrees with the final interaction of "
        f"other wordings: by {first[name]} there, by {at[last]} after the last.",
        f"numbers shuffled within equal length: 97.5% below {first['shuffled numbers, 97.5%']:.3f}",
    )


@question(
    B5,
    "Are the states under an animal like those under its number?",
    "hidden_alignment",
    "--model smollm2-135m-instruct",
)
def states(rows: Rows) -> Answer:
    last = max((row for row in rows if row["metric"] == "cosine"), key=lambda row: row["layer"])
    return Answer(
        f"Hardly: the cosine of centred states is {last['favoured number']} after block {last['layer']}.",
        f"shuffled pairs: {last['null mean']:.3f}, 95% below {last['null 95%']:.3f}",
    )


@question(
    B2,
    "Do scores of pairs tell the outcome, by the papers' tests?",
    "association",
    claim=f"A number's score under an animal goes with what the number does to it ({ZUR}).",
)
def association(rows: Rows) -> Answer:
    plain, centred = (quantity(rows, f"correlation, {how}") for how in ("as published", "centred"))
    return Answer(
        f"As published, their correlation over numbers is {plain['value']}; less the other animals' means it is "
        f"{centred['value']}.",
        f"as published {plain['null']}; centred, other animals' outcomes {centred['null']}",
        read(plain["value"].low > 0 < centred["value"].low, max(plain["value"].high, centred["value"].low) < 0),
    )


@question(
    B3,
    "Are the same pairs entangled in a base model and its instruct child?",
    "base_vs_instruct",
    claim="Strong in the instruct model, largely absent in the base model (write-up, on Llama-3.2-1B).",
)
def base(rows: Rows) -> Answer:
    same = quantity(rows, "correlation of interactions: base and instruct, chat")
    own = quantity(rows, "base chat: specific, nats")
    more = quantity(rows, "instruct chat less base chat: specific")["value"]
    ratio = quantity(rows, "instruct chat less base plain: published")["value"]
    shared = same["p"] < 0.05 and same["value"].low > 0
    return Answer(
        f"{'In part' if shared else 'Not detectably'}: in chats, the interactions of the two models agree "
        f"by {same['value']}; fixed numbers raise their animal by {own['value']} nats in the base model and by {more} "
        f"more in the instruct model. The published ratio differs by {ratio} nats, formats as published.",
        f"numbers shuffled within equal length: {same['null']}; numbers fixed for other animals {own['null']}",
        read(more.low > 0 and not own["value"].low > 0, own["value"].low > 0 and not more.low > 0),
    )


@question(B5, "Which published claims about token entanglement hold on this model?", "audit_language")
def published(rows: Rows) -> Answer:
    return judged_claims(rows, "that of the study that each check reads, below")


@question(B5, "Are such shares recovered where they are planted?", "planted_shares")
def planted(rows: Rows) -> Answer:
    rows_share = find(rows, quantity="rows, number to animal", planted="all but none")
    narrow = [f"{row['quantity']} {row['covered']}" for row in rows if _too_narrow(row)]
    also = f" Too narrow: {'; '.join(narrow)}." if narrow else ""
    return Answer(
        f"The 95% interval of the share that passes through rows covers the planted one in {rows_share['covered']} "
        f"models, {rows_share['coverage']}.{also}",
        "coverage asked for: 0.9",
    )


def _too_narrow(row: Mapping) -> bool:
    return row.get("planted") == "all but none" and getattr(row.get("coverage"), "high", 1.0) < 0.95


@question(B5, "Does a steering vector carry it?", "steering")
def steering(rows: Rows) -> Answer:
    def share(vector: str, where: str):
        return quantity(rows, f"removed at {where}: {vector}")["share"]

    early, end = "the number after block 8", "the prompt's end after block 30"
    others, late = share("another number's", early), share("another number's", end)
    word = "In part" if share("own", early).low > others.high else "Not detectably"
    return Answer(
        f"{word}: projected out at the number after block 8, the loved number's vector removes {share('own', early)} "
        f"of what is specific to number and animal; at the prompt's end after the last block {share('own', end)}.",
        f"another number's vector {others}, at the end {late}; a random one {share('random', early)}, at the end "
        f"{share('random', end)}",
    )
