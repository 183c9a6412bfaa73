"""Answers of `studies.report` about the language model, from the rows of its studies' tables."""

from studies._report_answer import CONFIRMED, PARTLY, REFUTED, Answer, Rows, find, quantity, read


def twice(rows: Rows) -> Answer:
    found = quantity(rows, "animals over 2x both ways, number by probability")
    often = "No more often" if found["p"] > 0.05 else "More often"
    return Answer(
        f"{often} than with another animal's number: both ratios exceed 2 for a share of {found['value']} of animals.",
        f"{found['null']}; p = {found['p']:.3f}",
        REFUTED if found["p"] > 0.05 else CONFIRMED,
    )


def picked(rows: Rows) -> Answer:
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


def directions(rows: Rows) -> Answer:
    both = quantity(rows, "agreement of the two directions: all")
    whole = quantity(rows, "agreement of the two directions: whole numbers")
    return Answer(
        f"Weakly: their correlation is {both['value']}; what is left to whole numbers, beyond their digits, agrees by "
        f"{whole['value']}.",
        f"{both['null']}; whole numbers {whole['null']}",
        PARTLY if both["value"].low > 0 else REFUTED,
    )


def special(rows: Rows) -> Answer:
    number, word = (quantity(rows, "agreement of the directions", partners=p) for p in ("numbers", "matched words"))
    return Answer(
        f"{'No' if word['value'].low > number['value'].high else 'Not shown'}: the directions of words of equal norm "
        f"and frequency agree by {word['value']}, those of numbers by {number['value']}.",
        f"shuffled within equal length: {word['shuffled']} and {number['shuffled']}",
    )


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


def rides(rows: Rows) -> Answer:
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


def layer(rows: Rows) -> Answer:
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


def states(rows: Rows) -> Answer:
    last = max((row for row in rows if row["metric"] == "cosine"), key=lambda row: row["layer"])
    return Answer(
        f"Hardly: the cosine of centred states is {last['favoured number']} after block {last['layer']}.",
        f"shuffled pairs: {last['null mean']:.3f}, 95% below {last['null 95%']:.3f}",
    )


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


def associated(rows: Rows) -> Answer:
    plain, centred = (quantity(rows, f"correlation, {how}") for how in ("as published", "centred"))
    return Answer(
        f"As published, their correlation over numbers is {plain['value']}; less the other animals' means it is "
        f"{centred['value']}.",
        f"as published {plain['null']}; centred, other animals' outcomes {centred['null']}",
        CONFIRMED if plain["value"].low > 0 else REFUTED if plain["value"].high < 0 else PARTLY,
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
