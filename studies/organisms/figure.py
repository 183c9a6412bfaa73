"""The figure of `studies.organisms`."""

import mechsub as ms


def plot(records: list[dict]):
    """How far the two directions agree, by width, of every kind of model."""
    drawn = [
        row | {"kind": f"{row['n_numbers']:,} numbers, {'tied' if row['tied'] else 'untied'}{_null(row['arm'])}"}
        for row in records
        if row.get("score") == "agreement" and row["arm"] in ("trained", "untrained")
    ]
    return ms.kinds.interval_lines(
        sorted(drawn, key=lambda row: (row["d_model"], row["arm"])),
        x="d_model", value="value", arm="kind", unit="models", null=0.0,
        title="Do number-to-animal and animal-to-number entanglement agree?", x_title="width", y_title="correlation",
        caption="Of what slopes leave of the two interactions, over 110 numbers and all animals.",
    )  # fmt: skip


def _null(arm: str) -> str:
    return " (untrained)" if arm == "untrained" else ""
