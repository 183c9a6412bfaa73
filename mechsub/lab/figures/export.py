"""Static images of figures, SVG or PNG: kaleido draws them in an installed Chromium, in a process of its own.

    problem()                                   # None, or one line: the missing part and the command that installs it
    write_images({Path("a.svg"): figure})       # the suffix is the format

A browser can hang, so the process has a time-out, after which it is killed and nothing is written.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import psutil

from mechsub.lab import store
from mechsub.lab.figures.fitting import fitted

FORMATS = ("svg", "png", "pdf")
WIDTH = 1200  # pixels; half a slide's, and PNG has two dots a pixel
STARTING, EACH = 120.0, 20.0  # seconds that a browser, and a figure, may take


class Failed(RuntimeError):
    """The browser gave no images."""


def problem() -> str | None:
    """The missing part and the one command that installs it; None where nothing is missing."""
    try:
        import kaleido  # noqa: F401
        from choreographer.browsers.chromium import Chromium
    except ImportError:
        return "static images need kaleido 1 or newer; run: python -m pip install 'mechsub[export]'"
    browser = Chromium.find_browser(skip_local=False)
    if browser is None:
        return "static images need Chromium or Chrome; run: apt-get install chromium (elsewhere: kaleido_get_chrome)"
    if not os.access(browser, os.X_OK):
        return f"BROWSER_PATH is no program: {browser}; run: unset BROWSER_PATH"
    return None


def write_images(figures: Mapping[Path, object], *, timeout: float | None = None) -> None:
    """Write every figure to its path, all or none. Raises Failed with one line where the browser fails."""
    if not figures:
        return
    if missing := problem():
        raise Failed(missing)
    with tempfile.TemporaryDirectory(prefix="mechsub-export-") as folder:
        jobs = [_job(path, figure, Path(folder) / str(i)) for i, (path, figure) in enumerate(figures.items())]
        (Path(folder) / "jobs.json").write_text(json.dumps(jobs))
        _run(folder, STARTING + EACH * len(jobs) if timeout is None else timeout)
        images = [Path(job["path"]).read_bytes() for job in jobs]
    for path, image in zip(figures, images, strict=True):
        store.write_bytes(path.expanduser(), _settled(image) if path.suffix == ".svg" else image)


def _job(path: Path, figure, drawn: Path) -> dict:
    kind = path.suffix.removeprefix(".")
    if kind not in FORMATS:
        raise ValueError(f"{path.name}: the format must be one of {', '.join(FORMATS)}")
    drawing = fitted(figure, WIDTH)
    options = {"format": kind, "width": WIDTH, "height": drawing.layout.height, "scale": 2 if kind == "png" else 1}
    return {"fig": json.loads(drawing.to_json()), "path": f"{drawn}.{kind}", "opts": options}


def _run(folder: str, timeout: float) -> None:
    command = [sys.executable, "-m", "mechsub.lab.figures.export", folder]
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        said, _ = worker.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        raise Failed(f"the browser gave no image within {timeout:g} seconds; nothing was written") from None
    finally:
        _end(worker)
    if worker.returncode:
        last = said.decode(errors="replace").strip().splitlines() or ["it said nothing"]
        raise Failed(f"the browser gave no image: {last[-1][:300]}")


def _end(worker: subprocess.Popen) -> None:
    """Kill the process and the browser. The browser has a session of its own and is killed before its parent ends."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in psutil.Process(worker.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    worker.kill()
    worker.wait()
    if worker.stdout is not None:
        worker.stdout.close()


def _settled(svg: bytes) -> bytes:
    """Replace plotly's random names of clips, definitions and traces, so that the same figure gives the same file."""
    text = svg.decode()
    found = re.findall(r"(?:defs-|\btrace)([0-9a-f]{6})\b", text)
    for place, name in enumerate(dict.fromkeys(found)):
        text = re.sub(f"(?<!#){name}", f"{place:06d}", text)  # a colour may have the same six
    return text.encode()


def _draw(folder: str) -> None:
    import kaleido

    jobs = json.loads((Path(folder) / "jobs.json").read_text())
    kaleido.write_fig_from_object_sync(jobs, kopts={"n": 1, "mathjax": False, "timeout": None})


if __name__ == "__main__":
    _draw(sys.argv[1])
