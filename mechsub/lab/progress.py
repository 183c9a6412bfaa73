"""Progress of a long call, by tqdm: one line of a terminal, a widget of a notebook."""

import math
import re
import sys
import threading
import time
from collections.abc import Callable

from mechsub import arguments

_FORMAT = "{percentage:3.0f}% |{bar:20}| {desc} {elapsed}"
_TIME = r"\d\d:\d\d:\d\d "  # as a line of progress begins
SILENCE = 10.0  # seconds between two lines of a log, and before its first: what is bad input ends in one line
_ringing = threading.Lock()  # an alarm that rings while its cell ends must not set another
_LONGEST = 60.0  # seconds, of a cell that says nothing of its progress
_cell: dict = {
    "bar": None,
    "prefix": "",
    "logged": None,
    "relayed": None,
    "alarm": None,
    "said": "",
    "heard": -math.inf,
}  # of the command that this process runs


def progress_bar(text: str) -> Callable[[float], None]:
    """A function of the share done: `distill_each(..., progress=progress_bar("students"))`."""
    from tqdm.auto import tqdm

    arguments.text(text, "text")
    bar = tqdm(total=1.0, desc=text, bar_format=_FORMAT)

    def show(fraction: float) -> None:
        bar.update(min(max(fraction, 0.0), 1.0) - bar.n)
        if bar.n >= 1:
            bar.close()

    return show


def show_progress(fraction: float, text: str = "") -> None:
    """Show the progress of the current cell; nothing where no bar and no log was started."""
    _log(f"{_cell['prefix']}, {fraction:.0%} {text}".rstrip())
    if _cell["bar"] is not None:
        _cell["bar"].set_description_str(f"{_cell['prefix']} {text}", refresh=False)
        _cell["bar"].update(fraction - _cell["bar"].n)


def relay(line: str) -> None:
    """Show a line of another process that makes a cell; its progress stands behind the bar where there is one."""
    bar, progress = _cell["bar"], re.match(_TIME, line)
    _cell["heard"] = time.perf_counter()
    if bar is not None and progress:
        bar.set_description_str(f"{_cell['prefix']}; {line}")
    elif bar is not None:
        bar.write(line, file=sys.stderr)
    elif not progress or time.monotonic() - (_cell["relayed"] or -math.inf) >= SILENCE:  # of many workers, one in turn
        _cell["relayed"] = time.monotonic() if progress else _cell["relayed"]
        print(line, file=sys.stderr, flush=True)


def span(start: float, end: float, text: str) -> Callable[[float], None]:
    """Progress of a part of a cell: 0..1 of the part is `start`..`end` of the cell."""
    return lambda fraction: show_progress(start + (end - start) * fraction, text)


def say_begun(text: str, quiet: bool) -> None:
    """Say at once that a long cell begins, in a log; a terminal has a bar."""
    if not quiet and not sys.stderr.isatty():
        _say(text)


def start_bar(prefix: str, quiet: bool) -> None:
    """Show a bar for the next cells where stderr is a terminal, else lines with the time of day; nothing if quiet.

    A log names a cell that says nothing of its progress too, after a while.
    """
    _close()
    _cell["prefix"] = prefix
    if quiet:
        _cell["logged"] = None
        return
    if sys.stderr.isatty():
        from tqdm import tqdm

        _cell["bar"] = tqdm(total=1.0, desc=prefix, bar_format=_FORMAT, leave=False, dynamic_ncols=True)
        return
    if _cell["logged"] is None:
        _cell["logged"] = time.monotonic()
    else:
        _log(prefix)
    _cell["said"] = prefix
    _set_alarm(time.perf_counter(), SILENCE)


def _set_alarm(begun: float, wait: float) -> None:
    """A log that hears nothing, of this process or of its workers, says again what it said last, and since when the
    cell is made; each time later."""

    def ring() -> None:
        with _ringing:
            if _cell["alarm"] is not alarm:  # another cell has begun, or none
                return
            now = time.perf_counter()
            if now - max(_cell["heard"], begun) >= SILENCE:
                said = re.sub(r", about [^,]* left", "", _cell["said"])  # an estimate of when it was said
                _say(f"{said}, for {now - begun:.0f} s" if wait > SILENCE else _cell["said"])
            _set_alarm(begun, min(2 * wait, _LONGEST))

    alarm = threading.Timer(wait, ring)
    alarm.daemon = True  # a command that ends does not wait for it
    _cell["alarm"] = alarm
    alarm.start()


def _log(text: str) -> None:
    last = _cell["logged"]
    _cell["said"] = text
    if last is not None and time.monotonic() - last >= SILENCE:
        _say(text)


def _say(text: str) -> None:
    _cell["logged"], _cell["heard"] = time.monotonic(), time.perf_counter()
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def clear_bar() -> None:
    """Remove the bar from the terminal, or end the log."""
    _close()
    _cell.update(logged=None, prefix="")


def end_cell() -> None:
    """Remove a cell's bar and say no more of it, for others may be waited for; a log keeps its pace."""
    _close()


def _close() -> None:
    if _cell["bar"] is not None:
        _cell["bar"].close()
        _cell["bar"] = None
    with _ringing:
        if _cell["alarm"] is not None:
            _cell["alarm"].cancel()
            _cell["alarm"] = None
