"""Outcome tables as pandas, Excel and scripts leave them: the plain table's numbers, or one line that says why not.

What is right is read off the frame that every file is written from: a change of form changes no number.
"""

import re

import numpy as np
import pandas as pd
import pytest

from studies.association import outcomes as tables

ANIMALS = ["owl", "sea turtle", "cat", "dog"]
NUMBERS = [f"{i:03d}" for i in range(40)]
draw = np.random.default_rng(0)
OUTCOME = pd.DataFrame(-6 + draw.normal(size=(40, 4)) / 4, index=NUMBERS, columns=ANIMALS)
SCORES = pd.DataFrame(draw.normal(size=(40, 4)), index=NUMBERS, columns=ANIMALS)
FULL = [f"{i:0{k}d}" for k in (1, 2) for i in range(10**k)]  # 0..9 and 00..99


def frame(table: tables.Table) -> pd.DataFrame:
    return pd.DataFrame(table.values, index=table.rows, columns=table.columns)


def text(change):
    return lambda x, path: path.write_text(change(x.to_csv()))


SAME = {
    "as released": lambda x, p: x.to_csv(p),
    "BOM": lambda x, p: x.to_csv(p, encoding="utf-8-sig"),
    "CRLF": lambda x, p: x.to_csv(p, lineterminator="\r\n"),
    "CR": lambda x, p: x.to_csv(p, lineterminator="\r"),
    "quoted": lambda x, p: x.to_csv(p, quoting=1),
    "UTF-16": lambda x, p: x.to_csv(p, encoding="utf-16"),
    "UTF-32": lambda x, p: x.to_csv(p, encoding="utf-32"),
    "semicolons": lambda x, p: x.to_csv(p, sep=";"),
    "decimal commas": lambda x, p: x.to_csv(p, sep=";", decimal=","),
    "tabs": lambda x, p: x.to_csv(p, sep="\t"),
    "tabs, decimal commas": lambda x, p: x.to_csv(p, sep="\t", decimal=","),
    "sep=": text(lambda t: "sep=,\n" + t),
    "sep=;": text(lambda t: "sep=;\r\n" + t.replace(",", ";")),
    "last comma": text(lambda t: "".join(line + ",\n" for line in t.splitlines())),
    "last comma, not in the header": text(lambda t: t.replace("\n", ",\n").replace(",\n", "\n", 1)),
    "spaces after commas": text(lambda t: t.replace(",", ", ")),
    "empty lines": text(lambda t: t.replace("\n", "\n\n")),
    "a named index": lambda x, p: x.rename_axis("number").to_csv(p),
    "exponents": lambda x, p: x.to_csv(p, float_format="%.17e"),
    "rows and columns in another order": lambda x, p: x.iloc[::-1, ::-1].to_csv(p),
}


@pytest.mark.parametrize("form", SAME)
def test_the_form_of_a_table_changes_no_number(tmp_path, form):
    for x, name in ((OUTCOME, "subliminal_prompting.csv"), (SCORES, "logit.csv")):
        SAME[form](x, tmp_path / name)
    read = tables.read_folder(tmp_path)
    for table, x in ((read.outcome, OUTCOME), (read.scores["logit"], SCORES)):
        pd.testing.assert_frame_equal(frame(table).loc[NUMBERS, ANIMALS], x, rtol=1e-15)


def test_the_order_of_one_table_is_followed_by_the_other(tmp_path):
    OUTCOME.to_csv(tmp_path / "subliminal_prompting.csv")
    SCORES.sample(frac=1, random_state=0)[ANIMALS[::-1]].to_csv(tmp_path / "logit.csv")
    read = tables.read_folder(tmp_path)
    rows, columns, y, x = tables.aligned(read.outcome, read.scores["logit"])
    assert (rows, columns) == (NUMBERS, ANIMALS)
    assert np.array_equal(y, OUTCOME.to_numpy()) and np.array_equal(x, SCORES.to_numpy())


@pytest.mark.parametrize("word", ["", "NA", "NaN", "nan", "#N/A", "null", "None"])
def test_an_entry_that_is_not_there_is_missing(tmp_path, word):
    OUTCOME.mask(OUTCOME > -5.8).to_csv(tmp_path / "a.csv", na_rep=word)
    assert np.array_equal(tables.read_table(tmp_path / "a.csv").values, OUTCOME.mask(OUTCOME > -5.8), equal_nan=True)


def saved_twice(x, path):
    x.to_csv(path)
    pd.read_csv(path).to_csv(path)


def quarter(x):
    return x.assign(**{"a quarter of all": x.mean(axis=1)})


REFUSED = {
    "pandas' index": (saved_twice, "column 'Unnamed: 0', an index of pandas"),
    "names behind a counter": (lambda x, p: x.rename_axis("number").reset_index().to_csv(p), "counts its rows"),
    "a mean column": (lambda x, p: x.assign(mean=x.mean(axis=1)).to_csv(p), "column 'mean', a summary"),
    "a mean column, named otherwise": (lambda x, p: quarter(x).to_csv(p), "'a quarter of all' is the mean"),
    "a mean column, rounded": (lambda x, p: quarter(x).round(3).to_csv(p), "'a quarter of all' is the mean"),
    "a sum": (lambda x, p: x.assign(whole=x.sum(axis=1)).to_csv(p), "'whole' is the sum"),
    "a mean row": (lambda x, p: pd.concat([x, x.mean().to_frame("Mean").T]).to_csv(p), "row 'Mean', a summary"),
    "a mean row, named as a number": (lambda x, p: pd.concat([x, x.mean().to_frame("99").T]).to_csv(p), "row '99' is"),
    "a word among numbers": (lambda x, p: x.rename({"003": "love"}).to_csv(p), "row 'love' among numbers"),
    "a repeated column": (lambda x, p: x.assign(**{"owl.1": x["owl"] / 3}).to_csv(p), "'owl' and 'owl.1'"),
    "probabilities": (lambda x, p: np.exp(x).to_csv(p), "row '000', column 'owl': .* above 0 and no log-probability"),
    "percent": (lambda x, p: (100 * np.exp(x)).to_csv(p), "above 0 and no log-probability"),
    "percent signs": (lambda x, p: (100 * np.exp(x)).map("{:.3f}%".format).to_csv(p), "'.*%' is not a number"),
    "transposed": (lambda x, p: x.T.to_csv(p), "transpose it"),
    "underscores": (text(lambda t: t.replace("-6.", "-6_0.")), "'-6_0.*' is not a number"),
    "other digits": (text(lambda t: t.replace("-6.", "-\uff16.")), "is not a number"),
    "infinity": (lambda x, p: x.mask(x > -5.9, -np.inf).to_csv(p), "is not finite"),
    "a number beyond fp64": (text(lambda t: re.sub(r"-6\.\d+", "-6e999", t, count=1)), "is not finite"),
    "a comment": (text(lambda t: "# made today\n" + t), "begins with a comment"),
    "a row twice": (lambda x, p: pd.concat([x, x.iloc[:3]]).to_csv(p), "row '000' twice"),
    "rows as floats": (lambda x, p: x.rename(lambda n: f"{float(n)}").to_csv(p), "row '0.0': names were read"),
    "thousands": (lambda x, p: (1000 * x).map("{:,.0f}".format).to_csv(p, sep=";"), "decimal comma, or one between"),
    "an unnamed column": (lambda x, p: x.rename(columns={"cat": ""}).to_csv(p), "column 3 has no name"),
    "an empty column": (lambda x, p: x.assign(elk=np.nan).to_csv(p), "column 'elk' holds no number"),
    "Latin-1": (lambda x, p: x.rename(columns={"cat": "größe"}).to_csv(p, encoding="latin-1"), "save it as CSV in UTF"),
    "no corner": (text(lambda t: t.removeprefix(",")), "row '000': 4 values for 3 columns"),
    "cut short": (text(lambda t: t[: t.rindex(",")]), "row '039': 3 values for 4 columns"),
}  # fmt: skip


@pytest.mark.parametrize("form", REFUSED)
def test_what_would_give_another_number_is_refused(tmp_path, form):
    write, says = REFUSED[form]
    write(OUTCOME, tmp_path / "subliminal_prompting.csv")
    SCORES.to_csv(tmp_path / "logit.csv")
    with pytest.raises(ValueError, match=says) as told:
        tables.read_folder(tmp_path)
    assert "subliminal_prompting.csv" in str(told.value) and "\n" not in str(told.value)


def of(names, seed):
    values = np.random.default_rng(seed).normal(size=(len(names), 4))
    return pd.DataFrame(values - 9, index=names, columns=ANIMALS)


@pytest.mark.parametrize("side", ["outcome", "scores", "baseline"])
@pytest.mark.parametrize("lost", [1.0, 0.5])
def test_lost_zeros_are_refused_and_not_guessed(tmp_path, side, lost):
    """ "07" without its zero is "7", a number that the other table has too."""
    two = [n for n in FULL if len(n) == 2]
    short = [str(int(n)) if int(n) < 10 * lost else n for n in two]
    names = {"outcome": FULL, "scores": FULL, "baseline": FULL} | {side: short}
    of(names["outcome"], 1).to_csv(tmp_path / "subliminal_prompting.csv")
    of(names["baseline"], 2).to_csv(tmp_path / "base_prompting.csv")
    of(names["scores"], 3).to_csv(tmp_path / "logit.csv")
    with pytest.raises(ValueError, match=r"has the row '\d+' and not '0\d+', which .* leading zeros were lost"):
        tables.read_folder(tmp_path)


def test_a_part_of_the_numbers_is_no_lost_zero(tmp_path):
    of(FULL, 1).to_csv(tmp_path / "subliminal_prompting.csv")
    of([n for n in FULL if len(n) == 2], 2).to_csv(tmp_path / "logit.csv")
    read = tables.read_folder(tmp_path)
    assert len(tables.aligned(read.outcome, read.scores["logit"])[0]) == 100


@pytest.mark.parametrize("other", ["Sea Turtle", "sea_turtle", "sea  turtle"])
def test_an_animal_written_in_two_ways_is_refused(tmp_path, other):
    OUTCOME.to_csv(tmp_path / "subliminal_prompting.csv")
    SCORES.rename(columns={"sea turtle": other}).to_csv(tmp_path / "logit.csv")
    with pytest.raises(ValueError, match="write both alike"):
        tables.read_folder(tmp_path)


def test_tables_without_a_common_name_are_refused(tmp_path):
    OUTCOME.to_csv(tmp_path / "subliminal_prompting.csv")
    SCORES.add_prefix("a ").to_csv(tmp_path / "logit.csv")
    with pytest.raises(ValueError, match="no column in common"):
        tables.read_folder(tmp_path)


def test_ratios_are_no_log_ratios(tmp_path):
    np.exp(SCORES).to_csv(tmp_path / "difference_in_prompting.csv")
    SCORES.to_csv(tmp_path / "logit.csv")
    with pytest.raises(ValueError, match="as ratios have none; give their natural logarithms"):
        tables.read_folder(tmp_path)


def test_scores_that_do_not_depend_on_the_animal_are_no_mean(tmp_path):
    pd.DataFrame(np.outer(np.arange(40.0), np.ones(4)), NUMBERS, ANIMALS).to_csv(tmp_path / "frequency.csv")
    assert len(tables.read_table(tmp_path / "frequency.csv").rows) == 40
