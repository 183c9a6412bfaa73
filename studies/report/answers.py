"""docs/answers.md: every question as a row of a table."""


def table(findings: list) -> str:
    """docs/answers.md: every question with its command, answer, null and verdict."""
    topics = list(dict.fromkeys(f.question.topic for f in findings))
    parts = [_ANSWERS]
    for topic in topics:
        parts.append(f"\n## {topic}\n\n| question | command | answer | null beside it | verdict on the claim |\n")
        parts.append("| --- | --- | --- | --- | --- |\n")
        parts += [_answer_row(f) for f in findings if f.question.topic == topic]
    return "".join(parts)


_ANSWERS = """# Every question, and what the stored cells answer

Written by `python -m studies.report --write`; nobody typed a number. Brackets are 95% intervals; what their units are,
each study's `--help` says. The same answers with their figures are on one page, `artifacts/index.html`, which
`python -m studies.report` makes.
"""


def _answer_row(f) -> str:
    claim = f" *Claim: {f.question.claim}*" if f.question.claim else ""
    stale = "(From stale cells; the command with --rerun makes them again.) " * ("stale" in f.found.cells.values())
    answer = f"{stale}{f.answer.sentence if f.answer else f.why_not}"
    shown = f.verdict if f.question.claim or f.answer is None else ""
    cells = (f.question.question + claim, f"`{f.command}`", answer, f.answer.null if f.answer else "", shown)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"
