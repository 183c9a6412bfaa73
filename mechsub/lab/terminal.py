"""A command's output: in the terminal's encoding, and into a pipe that its reader may close."""

import functools
import os
import select
import shutil
import sys
from collections.abc import Callable
from typing import NoReturn

CLOSED = 141  # as the shell says of a program that SIGPIPE ended: 128 + 13


class Told(Exception):
    """An error whose message is one line for the reader; `command` prints it in place of a traceback."""


def width() -> int | None:
    """Characters of a line: those of COLUMNS, or of the terminal; None for a pipe or a file without COLUMNS."""
    asked = os.environ.get("COLUMNS", "")
    named = asked.isdecimal() and int(asked) > 0
    return shutil.get_terminal_size().columns if named or sys.stdout.isatty() else None


def say(line: str) -> None:
    """A line on stdout, whatever it holds."""
    print(_printable(line), flush=True)


def stop(message: str, code: int) -> NoReturn:
    """Leave with exactly one line on stderr, whatever the message holds."""
    print(f"error: {_printable(' '.join(message.split()))[:800]}", file=sys.stderr)
    raise SystemExit(code)


def _printable(line: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in line)


def command(main: Callable) -> Callable:
    """A `main` that escapes characters which the encoding lacks, prints what is `Told`, and ends quietly at a closed
    pipe (| head)."""

    @functools.wraps(main)
    def run(*arguments, **options):
        for stream in (sys.stdout, sys.stderr):
            if getattr(stream, "errors", "") == "strict" and hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        try:
            try:
                return main(*arguments, **options)
            finally:
                sys.stdout.flush()  # what is still held back would meet the closed pipe after Python's last try
        except Told as error:
            stop(str(error), 1)
        except BrokenPipeError:
            if not _is_closed():
                raise
            raise SystemExit(CLOSED) from None

    return run


def _is_closed() -> bool:
    """Whether stdout or stderr has no reader. Such a stream goes to nowhere, so that Python's last flush is quiet."""
    closed = [stream for stream in (sys.stdout, sys.stderr) if _has_no_reader(stream)]
    for stream in closed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return bool(closed)


def _has_no_reader(stream) -> bool:
    try:
        poll = select.poll()
        poll.register(stream.fileno(), select.POLLOUT)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    except OSError:  # a notebook's stream is no file
        return False
