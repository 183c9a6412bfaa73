"""Flags from a frozen dataclass: every field of a study's Config is a flag that takes one or more values.

It is stricter than argparse: ranges are part of the types (`Count`, `Positive`, ...), nan and infinity are refused, and
an error is one line.
"""

import argparse
import dataclasses
import difflib
import functools
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from mechsub.lab import store
from mechsub.lab.declared import Study
from mechsub.machine import devices

# A count of millions is a slip of the hand, and would be found out only when the memory is full.
Count = Annotated[int, ("an integer >= 1 and <= 1000000", lambda value: 1 <= value <= 1_000_000)]
# Of seeds, wordings, models: an interval needs two.
Replicates = Annotated[int, ("an integer >= 2 and <= 1000000", lambda value: 2 <= value <= 1_000_000)]
# Of a percentile interval; at 95% two or three of them lie beyond each end (stats.LEAST_RESAMPLES).
Resamples = Annotated[int, ("an integer >= 100 and <= 1000000", lambda value: 100 <= value <= 1_000_000)]
Index = Annotated[int, ("an integer >= 0", lambda value: value >= 0)]
Positive = Annotated[float, ("a finite number > 0", lambda value: value > 0)]
NonNegative = Annotated[float, ("a finite number >= 0", lambda value: value >= 0)]

_WANTED = {int: "an integer", float: "a finite number", bool: "true or false", str: "printable text"}
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_LONG, _MANY = 50, 12  # characters of the choices of a flag, and default values, that its help shows in a line
_OF_EVERY_STUDY = f"""\
--dry-run    print cells, status and time, run nothing   --rerun     recompute cells that are stored
--out DIR    root of the results (default: {store.USUAL})    --device    cpu, cuda, mps or auto: where networks stand
--workers N  cells that run at a time                    --executor  local or slurm: where cells run
--csv FILE, --latex FILE  also write the table there     --wide, --quiet, --debug  whole table, no bar, a traceback"""
_RESERVED = {
    "out": store.USUAL, "executor": "local", "workers": None, "cells": None, "device": None,
    "rerun": False, "dry_run": False, "debug": False, "quiet": False, "wide": False, "csv": None, "latex": None,
}  # fmt: skip


def option(default, help: str, *, display: bool = False, groups: Mapping[str, tuple] | None = None) -> Any:
    """A field of a Config. A display option (such as the metric to draw) does not change cells: `plot` and `table` get
    its values as a keyword argument, a tuple; its default may be a tuple too. groups: words of the command line that
    stand for several values."""
    return dataclasses.field(default=default, metadata={"help": help, "display": display, "groups": groups or {}})


def check_values(cfg) -> None:
    """Raise ValueError where a Config, made in Python, holds a value that its command line would refuse."""
    hints = get_type_hints(type(cfg), include_extras=True)
    for field in dataclasses.fields(cfg):
        held = getattr(cfg, field.name)
        shown = field.metadata.get("display") and isinstance(held, tuple)
        try:
            for value in held if shown else (held,):
                if value not in default_values(field) and _read(hints[field.name], _text(value)) != value:
                    raise ValueError(f"{value!r} is not what the command line takes")
        except ValueError as error:
            raise ValueError(f"{field.name}: {error}") from None


def refuse_ignored(cfg, names: Iterable[str], where: str) -> None:
    """For a Config's __post_init__: raise for a field that is not read (`where` says when) and does not have its
    default. It would make a second cell of the same numbers."""
    defaults = {field.name: field.default for field in dataclasses.fields(cfg)}
    if set_ := [name for name in names if getattr(cfg, name) != defaults[name]]:
        raise ValueError(f"{_flag(set_[0])} is not read {where}; leave it out")


def command_line(study: Study, argv: list[str], refuse: Callable) -> tuple[argparse.Namespace, dict, dict]:
    """Options of the run, values of each field of the grid, values of each display field.

    Bad input goes to `refuse(message)`, which does not return.
    """
    hints, fields = get_type_hints(study.Config, include_extras=True), dataclasses.fields(study.Config)
    parser = _parser(fields, hints, study, refuse)
    options, unknown = parser.parse_known_args(argv)
    if unknown:
        refuse(_unknown(unknown, parser))
    values, display = {}, {}
    for name, default in _RESERVED.items():
        given = getattr(options, name)
        if given and len(given) > 1:
            refuse(f"{_flag(name)} is given twice")
        setattr(options, name, given[0] if given else default)
    options.out = os.path.expanduser(options.out)
    for name in ("csv", "latex"):
        path = getattr(options, name)
        if path is not None:
            setattr(options, name, os.path.expanduser(path))
            _check_file(_flag(name), Path(getattr(options, name)), refuse)
    if options.csv and options.csv == options.latex:
        refuse("--csv and --latex name one file")
    try:
        options.workers = None if options.workers is None else _read(Count, options.workers)
    except ValueError as error:
        refuse(f"--workers: {error}")
    for field in fields:
        target = display if field.metadata.get("display") else values
        try:
            target[field.name] = _values(field, hints[field.name], getattr(options, field.name))
        except ValueError as error:
            refuse(f"{_flag(field.name)}: {error}")
    return options, values, display


def _check_file(flag: str, path: Path, refuse: Callable) -> None:
    if path.is_dir() or not path.name:
        refuse(f"{flag} {str(path)!r} is no name of a file")
    if not path.absolute().parent.is_dir():
        refuse(f"{flag} {str(path)!r} cannot be written: its folder is not there")


def _parser(fields, hints: Mapping, study: Study, refuse: Callable) -> argparse.ArgumentParser:
    in_package = getattr(sys.modules[study.module], "__spec__", None) is not None
    file = "study.main" if study.source is None else study.source.name
    program = f"python -m {study.dotted}" if in_package else f"python {file}"
    parser = argparse.ArgumentParser(
        prog=program,
        usage="%(prog)s [--option VALUE ...]",
        description=study.doc,
        epilog="Several values of an option make a grid: the product of all values is run, stored cells are reused.",
        formatter_class=functools.partial(_Help, width=120, max_help_position=40),
        allow_abbrev=False,
    )
    parser.error = refuse  # type: ignore[method-assign]
    for field in fields:
        _add_field(parser, field, hints[field.name])
    once: dict = {"action": "append"}  # all that is given, so that a second time is seen
    switch: dict = {"action": "append_const", "const": True}
    parser.add_argument_group("options of every study (docs/commands.md has more)", _OF_EVERY_STUDY)
    hidden: dict = {"help": argparse.SUPPRESS}  # one by one they would take more lines than the study's own
    for flag in ("--out", "--workers", "--csv", "--latex", "--cells"):  # the last: see mechsub.lab.workers
        parser.add_argument(flag, **once, **hidden)
    parser.add_argument("--executor", **once, **hidden, choices=("local", "slurm"))
    parser.add_argument("--device", **once, **hidden, choices=devices.NAMES)
    for flag in ("--rerun", "--dry-run", "--debug", "--quiet", "--wide"):
        parser.add_argument(flag, **switch, **hidden)
    return parser


class _Help(argparse.RawDescriptionHelpFormatter):
    """Shorter help: a flag's value is named once, and not again for further values."""

    def _format_args(self, action, default_metavar):
        return f"{action.metavar} ..." if action.nargs == "+" else super()._format_args(action, default_metavar)


def _add_field(parser: argparse.ArgumentParser, field, hint) -> None:
    if field.default is dataclasses.MISSING or field.name in {*_RESERVED, "help"}:
        raise TypeError(f"Config.{field.name} needs a default and a name that is not a reserved flag")
    stand = [f"{word}: {len(values)} of them" for word, values in field.metadata.get("groups", {}).items()]
    text = f"{'; '.join([field.metadata.get('help', ''), *stand])} (default: {_shown_default(field)})".strip()
    kind = "|".join(map(str, get_args(hint))) if get_origin(hint) is Literal else _base(hint).__name__.upper()
    if len(kind) > _LONG:
        kind, text = "NAME", f"{text}; one of {', '.join(map(str, get_args(hint)))}"
    flag = _flag(field.name)
    parser.add_argument(flag, nargs="+", action="append", metavar=kind, dest=field.name, help=text.replace("%", "%%"))


def _shown_default(field) -> str:
    """The default values; of many, the first few and how many there are."""
    values = [_text(value) for value in default_values(field)]
    if len(values) > _MANY:
        return f"{' '.join(values[:3])} ..., {len(values)} in all"
    return " ".join(values) or "left out"


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _text(value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def default_values(field) -> tuple:
    return field.default if isinstance(field.default, tuple) else (field.default,)


def _unknown(words: list[str], parser: argparse.ArgumentParser) -> str:
    word = next((word for word in words if word.startswith("-")), words[0]).split("=")[0]
    if not word.startswith("-"):
        return f"unexpected argument {word[:80]!r}"
    near = difflib.get_close_matches(word.replace("_", "-"), parser._option_string_actions, 1, 0.5)
    return f"unknown flag {word[:80]}" + (f"; did you mean {near[0]}?" if near else "; see --help")


def _values(field, hint, given: list[list[str]] | None) -> tuple:
    """The values of one flag. A value or a flag that is given twice is refused, because one must be a mistake."""
    if given is None:
        return default_values(field)
    if len(given) > 1:
        raise ValueError("given twice; put all values after one flag")
    groups = field.metadata.get("groups", {})
    texts = [one for text in given[0] for one in (map(_text, groups[text]) if text in groups else (text,))]
    values = tuple(_read(hint, text) for text in texts)
    if len(set(values)) < len(values):
        raise ValueError("a value is given twice")
    return values


def _base(hint) -> type:
    base = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    if base not in _WANTED:
        raise TypeError(f"a field of Config cannot be {hint}: use int, float, str, bool, Literal, Count, ...")
    return base


def _read(hint, text: str):
    """One value of a field from its text; ValueError names the allowed values."""
    if get_origin(hint) is Literal:
        return _choice(get_args(hint), text)
    base = _base(hint)
    wanted, accepts = get_args(hint)[1] if get_origin(hint) is Annotated else (_WANTED[base], lambda value: True)
    value = _scalar(base, text)
    if value is None or not accepts(value):
        raise ValueError(f"{text[:80]!r} is not {wanted}")
    return value


def _scalar(base: type, text: str):
    """The value, or None. It is stricter than Python: no nan, inf, `1_000`, spaces or integers of 19 digits."""
    if base is bool:
        return {"true": True, "false": False}.get(text)
    if base is str:  # the shell leaves ~ as it is in --flag=~/folder, and Python in a notebook
        return os.path.expanduser(text) if text.strip() and text.isprintable() else None
    if base is int:
        return int(text) if re.fullmatch("[+-]?[0-9]{1,18}", text) else None
    value = float(text) + 0.0 if _NUMBER.fullmatch(text) else math.nan
    return value if math.isfinite(value) else None


def _choice(choices: tuple, text: str):
    by_text = {_text(choice): choice for choice in choices}
    if text in by_text:
        return by_text[text]
    near = difflib.get_close_matches(text, by_text, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise ValueError(f"{text[:80]!r} is not one of {', '.join(by_text)}{hint}")
