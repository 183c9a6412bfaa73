"""Markdown pages whose numbers come from findings: a mark before a number names the finding.

    | Does it learn? | `python -m studies.subliminal_accuracy` | <!--= student_aux/accuracy -->0.540 [0.492, 0.587] |

A reader of the page does not see the mark. `fill` writes the number behind each mark, also where there is no number
yet; a finding that is a word is refused. The finding belongs to the last command before the mark; these places are
searched in this order:

    <!--= student_aux/accuracy from subliminal_accuracy --loss mse -->    in the mark
    `python -m studies.subliminal_accuracy --loss mse`                   in the row of the table
    <!--= from subliminal_accuracy --loss mse -->                        anywhere before it, until the next of these

A table row without a command has the command of the row before. `.null`, `.p`, `.n`, `.mean`, `.low` and `.high` behind
a key name a part of the finding; for a `Drawn` null, `.null` is its mean, and `.upper` its upper quantile.
"""

import functools
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

from mechsub.lab import findings as lab
from mechsub.lab import stored
from mechsub.lab.declared import Study

PARTS = ("null", "p", "n", "mean", "low", "high", "upper")
Reader = Callable[[str], list[lab.Finding]]  # "study --flags" -> the findings of that command

_GAP = r"\s[\s>]*"  # within an interval: a line may be wrapped in it, also in a list or a quotation
_END = r"-?(?:[\d.]+(?:e-?\d+)?|inf)"
_NUMBER = rf"-?infinite|-?(?:\d{{1,3}}(?:,\d{{3}})+|\d+)(?:\.\d+)?(?:e-?\d+)?(?:{_GAP}\[{_END},{_GAP}{_END}\])?"
_MARK = re.compile(rf"<!--= (?P<mark>[^<>]*?) -->(?P<number>{_NUMBER})?")
_COMMAND = re.compile(r"`python -m studies\.([^`]+)`")
INTERVAL = re.compile(rf"-?\d+\.(?:\d{{3,}}|\d+e-?\d+){_GAP}\[{_END},{_GAP}{_END}\]")


def fill(text: str, read: Reader) -> str:
    """The page with the numbers that its marks name.

    LookupError where a mark names nothing or a word, and where the text behind a number would be read as part of it.
    """
    once = _filled(text, read)
    if (again := _filled(once, read)) != once:
        lines = zip(once.splitlines(), again.splitlines(), strict=False)
        line = next((line for line, other in lines if line != other), "the last line")
        told = "filled again, this would be another number; change the text behind it"
        raise LookupError(f"{told}: {line.strip()[:200]}")
    return once


def _filled(text: str, read: Reader) -> str:
    command, lines = "", []
    for row in _rows(text):
        named = _COMMAND.search(row) if row.startswith("|") else None
        command = named[1] if named else command
        out, end = [], 0
        for match in _MARK.finditer(row):
            mark = match["mark"].strip()
            key, _, other = mark.partition("from ") if mark.startswith("from ") else mark.partition(" from ")
            out.append(row[end : match.end("mark")] + " -->")
            end = match.end()
            if not key:
                command = other
            else:
                out.append(_kept(match["number"] or "", number(key, other or command, read)))
        lines.append("".join(out) + row[end:])
    return "".join(lines)


def _rows(text: str) -> Iterator[str]:
    """Rows of tables one by one, and each text between in one piece, because a number may be wrapped there."""
    piece = ""
    for line in text.splitlines(keepends=True):
        if line.startswith("|"):
            if piece:
                yield piece
            yield line
            piece = ""
        else:
            piece += line
    if piece:
        yield piece


def number(key: str, command: str, read: Reader) -> str:
    """The text of a finding of a command, or of one of its parts."""
    if not command:
        raise LookupError(f"no command stands before the mark {key!r}")
    name, dot, part = key.rpartition(".")
    if not dot or part not in PARTS:
        name, part = key, "value"
    try:
        finding = lab.find(read(command), name)
    except (LookupError, ValueError) as error:  # also options that the study does not take
        raise LookupError(f"{key!r} from {command}: {error.args[0]}") from None
    of = finding.null if part == "upper" else finding.value if part in ("mean", "low", "high") else finding
    value = getattr(of, part, None)
    if value is None:
        raise LookupError(f"{key!r} from {command}: the finding has no {part}")
    value = value.mean if isinstance(value, lab.Drawn) else value
    told = lab.p_text(value) if part == "p" else lab.value_text(value)
    if not re.fullmatch(_NUMBER, told):
        raise LookupError(f"{key!r} from {command} is {told!r}, and a mark takes a number")
    return told


def _kept(before: str, now: str) -> str:
    """The old number, with its line break, where the number is unchanged."""
    return before if " ".join(before.split()) == now else now


def without_marks(text: str) -> str:
    """The page as its reader sees it."""
    return _MARK.sub(lambda match: match["number"] or "", text)


def unmarked(text: str) -> list[str]:
    """Intervals without a mark before them: a person typed them."""
    return [" ".join(interval.split()) for interval in INTERVAL.findall(_MARK.sub("", text))]


def reader(find_study: Callable[[str], Study | None], out: str | Path = "artifacts") -> Reader:
    """Read findings from the store under `out`, each command once; `find_study` gives a study by its name."""

    @functools.cache
    def read(command: str) -> list[lab.Finding]:
        name, *flags = shlex.split(command)
        study = find_study(name)
        if study is None or study.part("findings") is None:
            raise LookupError(f"studies.{name} has no findings")
        return stored.read(study, flags, out)

    return read


def write(path: Path, read: Reader) -> bool:
    """Fill a page; returns whether it changed. LookupError names the page."""
    from mechsub import files

    text = path.read_text(encoding="utf-8")
    try:
        now = fill(text, read)
    except LookupError as error:
        raise LookupError(f"{path}: {error.args[0]}") from None
    if now != text:
        files.write_text(path, now)
    return now != text
