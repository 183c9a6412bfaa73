"""Chat templates rendered as text: at a pinned date, cut where the answer ends, with every text whole.

A template asks for the date by one function, `strftime_now`. A macro of that name is put before the template, so that
it gets the pinned date everywhere: in named templates, in macros, beside `date_string` or a variable of any name.
"""

from collections.abc import Mapping
from datetime import date as Date
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

DATE = "26 Jul 2024"  # the fallback date of Llama-3.2's own template
_OTHER_DATE = "03 Feb 2019"  # differs from it in weekday, day, month and year
_END = "MECHSUB-END-OF-THE-ANSWER"  # stands behind the answer while the template is rendered

# English, whatever the locale.
_MONTHS = "January February March April May June July August September October November December".split()
_DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()


def template(tokenizer: "Tokenizer") -> str | None:
    """The tokenizer's chat template, or the one named default of several; None where the tokenizer has no template."""
    given = getattr(tokenizer, "chat_template", None)
    if isinstance(given, (list, tuple)):
        given = {part["name"]: part["template"] for part in given}
    if isinstance(given, Mapping) and given:
        if "default" not in given:
            raise ValueError(
                f"this tokenizer has several chat templates ({', '.join(sorted(given))}) and none named default; "
                "set tokenizer.chat_template to the text of one"
            )
        given = given["default"]
    return given or None


def render(
    tokenizer: "Tokenizer", user: str, *, system: str | None = None, answer: str = "", date: str | None = DATE
) -> str:
    """The text of an exchange. It ends with `answer`; where `answer` is "", with the header of an answer.

    date: the date of the clock; None leaves the clock alone. Where a template refuses the system role, the system text
    stands at the head of the user's turn. Raises ValueError where it refuses the messages, or leaves out or changes a
    text.
    """
    if system is not None and not takes_system(tokenizer):
        user, system = f"{system}\n\n{user}" if system else user, None
    messages = [{"role": "system", "content": system}] if system is not None else []
    messages.append({"role": "user", "content": user})
    if answer:
        messages.append({"role": "assistant", "content": answer + _END})
    text = _rendered(tokenizer, messages, date, header=not answer)
    if answer:
        text, end, _ = text.rpartition(_END)
        if not (end and text.endswith(answer)):
            raise ValueError("this chat template leaves out or changes the answer text; use the plain format")
    _check_whole(text.removesuffix(answer), user, system)
    return text


def takes_system(tokenizer: "Tokenizer") -> bool:
    """Whether a system message reaches the prompt."""
    from jinja2.exceptions import TemplateError

    probe = [{"role": "system", "content": "probe-of-system"}, {"role": "user", "content": "hello"}]
    try:
        return "probe-of-system" in _applied(tokenizer, probe, DATE, header=True)
    except TemplateError:
        return False


def says_date(tokenizer: "Tokenizer") -> bool:
    """Whether the prompt holds the date, and so differs from day to day."""
    from jinja2.exceptions import TemplateError

    user = {"role": "user", "content": "hello"}
    for messages in ([user], [{"role": "system", "content": "probe-of-system"}, user]):
        try:
            texts = [_applied(tokenizer, messages, date, header=True) for date in (DATE, _OTHER_DATE)]
        except TemplateError:
            continue
        if texts[0] != texts[1]:
            return True
    return False


def _rendered(tokenizer: "Tokenizer", messages: list[dict], date: str | None, *, header: bool) -> str:
    from jinja2.exceptions import TemplateError

    try:
        return _applied(tokenizer, messages, date, header=header)
    except TemplateError as error:
        said = " ".join(str(error).split())[:200]
        raise ValueError(f"the chat template of this tokenizer does not take these messages: {said}") from None


def _applied(tokenizer: "Tokenizer", messages: list[dict], date: str | None, *, header: bool) -> str:
    text = template(tokenizer) or ""
    pinned = {"chat_template": text} if date is None else {"chat_template": _clock(date) + text, "date_string": date}
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=header, **pinned)


def _check_whole(text: str, user: str, system: str | None) -> None:
    """Raise unless both texts stand in the prompt, each in a place of its own."""
    before, found, after = text.rpartition(user)
    if not found and user:
        raise ValueError(
            "this chat template leaves out or changes the user text (spaces at its ends?); change the text or the "
            "template, or use the plain format"
        )
    if system and system not in before and system not in after:
        raise ValueError(
            "this chat template leaves out or changes the system text (its length, or spaces at its ends?); change "
            "the text or the template, or use the plain format"
        )


def _clock(date: str) -> str:
    """A Jinja macro in place of the clock. It ends with a line break, which trim_blocks takes away."""
    chain = "".join(f"|replace('%{code}','{value}')" for code, value in _directives(_day(date)).items())
    return f"{{%- macro strftime_now(format) -%}}{{{{ format|replace('%%','\\x00'){chain}|replace('\\x00','%') }}}}" + (
        "{%- endmacro %}\n"
    )


def _day(date: str) -> Date:
    try:
        day, month, year = date.split()
        number = next(n for n, name in enumerate(_MONTHS, start=1) if name[:3] == month)
        return Date(int(year), number, int(day))
    except (ValueError, AttributeError, StopIteration):
        raise ValueError(f"the date must be written like {DATE!r}, not {date!r}") from None


def _directives(day: Date) -> dict[str, str]:
    """The text that strftime gives for every directive, at midnight."""
    name, month = _DAYS[day.weekday()], _MONTHS[day.month - 1]
    numbers = {code: day.strftime(f"%{code}") for code in "dmyYjUWuwVG"}
    numbers |= {"H": "00", "I": "12", "M": "00", "S": "00", "f": "000000", "C": f"{day.year // 100:02d}"}
    words = {"a": name[:3], "A": name, "b": month[:3], "h": month[:3], "B": month, "p": "AM"}
    whole = {
        "e": f"{day.day:2d}", "k": " 0", "l": "12", "P": "am", "Z": "", "z": "", "n": "\\n", "t": "\\t",
        "F": day.isoformat(), "D": f"{day:%m/%d/%y}", "x": f"{day:%m/%d/%y}",
        "T": "00:00:00", "X": "00:00:00", "R": "00:00", "r": "12:00:00 AM",
        "c": f"{name[:3]} {month[:3]} {day.day:2d} 00:00:00 {day.year}",
    }  # fmt: skip
    short = {f"-{code}": str(int(value)) for code, value in numbers.items()}
    padded = {f"_{code}": f"{int(value):{len(value)}d}" for code, value in numbers.items()}
    upper = {f"^{code}": value.upper() for code, value in words.items()}
    return {**numbers, **words, **whole, **short, **padded, **upper, "-e": str(day.day)}
