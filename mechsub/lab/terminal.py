"""A command's output: in whatever encoding the terminal has, and into a pipe that its reader may close."""

import functools
import os
import select
import sys
from collections.abc import Callable

CLOSED = 141  # as the shell says of a program that SIGPIPE ended: 128 + 13


def command(main: Callable) -> Callable:
    """A `main` whose output escapes what the encoding lacks (ASCII), and which a closed pipe (| head) ends quietly."""

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
        except BrokenPipeError:
            if not _is_closed():
                raise
            raise SystemExit(CLOSED) from None

    return run


def _is_closed() -> bool:
    """Whether stdout or stderr has no reader; it then goes to nowhere, so that Python's own last flush is quiet."""
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
