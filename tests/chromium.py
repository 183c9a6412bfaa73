"""A headless Chromium, spoken to by its DevTools protocol over two pipes: no package is needed."""

import base64
import contextlib
import functools
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def why_not() -> str:
    """Why there is no browser here; nothing where there is one."""
    return "" if _path() else "Chromium is not installed"


@functools.cache
def _path() -> str | None:
    return os.environ.get("BROWSER_PATH") or next(filter(None, map(shutil.which, NAMES)), None)


# Texts of a page's figures, or of an SVG, that lie on each other, or are cut.
_OVERLAPS = """
[...document.querySelectorAll('%s')].flatMap(plot => {
  const frame = plot.getBoundingClientRect();
  const boxes = [...plot.querySelectorAll('%s')].filter(text => text.textContent.trim()).map(text => {
    const box = text.getBoundingClientRect();
    return {text: text.textContent, l: box.left + 1, r: box.right - 1, t: box.top + 1.5, b: box.bottom - 1.5};
  }).filter(box => box.r > box.l && box.b > box.t);
  const over = (p, q) => p.l < q.r && q.l < p.r && p.t < q.b && q.t < p.b;
  return boxes.flatMap((p, i) => [
    ...boxes.slice(i + 1).filter(q => over(p, q)).map(q => [p.text, q.text]),
    ...(p.l < frame.left - 2 || p.r > frame.right + 2 || p.t < frame.top - 2 || p.b > frame.bottom + 2
      ? [[p.text, 'is cut']] : []),
  ]);
})
"""
OVERLAPS, SVG_OVERLAPS = _OVERLAPS % (".plot", ".main-svg text"), _OVERLAPS % (":root", "text")


def needed(test):
    """Mark a test that starts a browser, and is skipped where there is none."""
    return pytest.mark.browser(pytest.mark.skipif(bool(why_not()), reason=why_not())(test))


class Page:
    """One page: `call` a method of the protocol, `value` of an expression; all events so far are in `events`."""

    def __init__(self, write: int, read: int):
        self._write, self._read = write, read
        self._buffer, self._last, self._session = b"", 0, None
        self.events: list[dict] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params) -> dict:
        self._last += 1
        message = {"id": self._last, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._last:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self.events.append(answer)

    def _next(self, patience: float = 180.0) -> dict:
        while b"\0" not in self._buffer:
            if not select.select([self._read], [], [], patience)[0]:
                raise TimeoutError("Chromium says nothing")
            self._buffer += os.read(self._read, 1 << 20)
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def value(self, expression: str):
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"]["exception"].get("description", "exception"))
        return found["result"].get("value")

    def open(self, path: Path, *, width: int = 1280, dark: bool = False, until: str = "true") -> None:
        self.events.clear()
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=scheme)
        self.call("Page.navigate", url=path.resolve().as_uri())
        end = time.monotonic() + 180
        while not (self.value("document.readyState") == "complete" and self.value(until)):
            if time.monotonic() > end:
                raise TimeoutError(f"{path.name} is not ready: {until}")
            time.sleep(0.1)

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            text = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
            code = {"Tab": 9, "Enter": 13}[key]
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)

    def screenshot(self, path: Path) -> None:
        image = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(image))


@contextlib.contextmanager
def page():
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        to_browser, from_browser = os.pipe(), os.pipe()
        command = (
            f"exec 3<&{to_browser[0]} 4>&{from_browser[1]}; exec {_path()} --headless=new --no-sandbox --disable-gpu "
            f"--disable-dev-shm-usage --no-first-run --remote-debugging-pipe --user-data-dir={profile}"
        )
        browser = subprocess.Popen(
            ["bash", "-c", command], pass_fds=(to_browser[0], from_browser[1]), stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        os.close(to_browser[0])
        os.close(from_browser[1])
        try:
            yield Page(to_browser[1], from_browser[0])
        finally:
            os.close(to_browser[1])
            os.close(from_browser[0])
            with contextlib.suppress(ProcessLookupError):
                os.killpg(browser.pid, 9)
            browser.wait()
