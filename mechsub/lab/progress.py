"""How far a long call is, by tqdm: one line of a terminal, a widget of a notebook."""

import sys
from collections.abc import Callable

from mechsub import arguments

_FORMAT = "{percentage:3.0f}% |{bar:20}| {desc} {elapsed}"
_cell: dict = {"bar": None, "prefix": ""}  # the bar of the command that this process runs


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
    """Show how far the current cell is; nothing where no bar was started."""
    if _cell["bar"] is not None:
        _cell["bar"].set_description_str(f"{_cell['prefix']} {text}", refresh=False)
        _cell["bar"].update(fraction - _cell["bar"].n)


def span(start: float, end: float, text: str) -> Callable[[float], None]:
    """Progress of a part of a cell, which fills it from `start` to `end`."""
    return lambda fraction: show_progress(start + (end - start) * fraction, text)


def start_bar(prefix: str, quiet: bool) -> None:
    """Show a bar for the next cells, where stderr is a terminal and nobody asked for quiet."""
    clear_bar()
    if sys.stderr.isatty() and not quiet:
        from tqdm import tqdm

        bar = tqdm(total=1.0, desc=prefix, bar_format=_FORMAT, leave=False, dynamic_ncols=True)
        _cell.update(bar=bar, prefix=prefix)


def clear_bar() -> None:
    """Remove the bar from the terminal."""
    if _cell["bar"] is not None:
        _cell["bar"].close()
        _cell["bar"] = None
