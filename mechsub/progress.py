"""How far a long call is: a line that a terminal redraws, an output that a notebook updates, ten lines in a log."""

import sys
import time
from collections.abc import Callable

from mechsub import arguments

_WIDTH = 20
_PAUSE = 0.1  # seconds between two drawings


def progress_bar(text: str) -> Callable[[float], None]:
    """A function of the share done: `distill_each(..., progress=progress_bar("students"))`.

    In a terminal one line of stderr is redrawn and left when all is done; in a notebook one output is updated, without
    widgets; where stderr is a file, every tenth is a line.
    """
    arguments.text(text, "text")
    show = _notebook() or (_terminal if sys.stderr.isatty() else _log)
    started, last = time.monotonic(), {"drawn": -_PAUSE, "tenth": -1}

    def bar(fraction: float) -> None:
        now, tenth = time.monotonic() - started, int(10 * fraction + 1e-9)
        due = tenth > last["tenth"] if show is _log else now - last["drawn"] >= _PAUSE
        if due or fraction >= 1:
            last.update(drawn=now, tenth=tenth)
            show(f"{drawn(fraction)} {text}, {now:.0f} s", fraction >= 1)

    bar(0.0)
    return bar


def drawn(fraction: float) -> str:
    done = round(_WIDTH * min(max(fraction, 0.0), 1.0))
    return f"[{'#' * done}{'.' * (_WIDTH - done)}]"


def redraw(line: str, end: str = "") -> None:
    """In place of what the terminal's line held."""
    print(f"\r\x1b[K{line}", end=end, file=sys.stderr, flush=True)


def _terminal(line: str, over: bool) -> None:
    redraw(line, "\n" if over else "")


def _log(line: str, over: bool) -> None:
    print(line, file=sys.stderr, flush=True)


def _notebook() -> Callable[[str, bool], None] | None:
    """What updates one output of the cell that runs; None outside a notebook, also in IPython's own terminal."""
    ipython = sys.modules.get("IPython")
    if ipython is None or not hasattr(ipython.get_ipython(), "kernel"):
        return None
    from IPython.display import display

    output = display({"text/plain": ""}, raw=True, display_id=True)
    return lambda line, over: output.update({"text/plain": line}, raw=True)
