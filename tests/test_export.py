"""Static images, drawn for real where kaleido and a browser are; what is missing is one line."""

import subprocess
import sys

import chromium
import plotly.graph_objects as go
import pytest

from mechsub.lab.figures import export

FIGURE = go.Figure(go.Scatter(x=[1, 2], y=[3, 4], name="a line")).update_layout(height=300, title="A title")


def browser(test):
    try:
        import kaleido  # noqa: F401

        missing = chromium.why_not()
    except ImportError:
        missing = "kaleido is not installed (extra `export`)"
    return pytest.mark.browser(pytest.mark.skipif(bool(missing), reason=missing)(test))


def test_a_missing_package_is_one_line_and_nothing_is_written(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "kaleido", None)
    assert "mechsub[export]" in export.problem() and "\n" not in export.problem()
    with pytest.raises(export.Failed, match="kaleido"):
        export.write_images({tmp_path / "a.svg": FIGURE})
    assert list(tmp_path.iterdir()) == []


@browser
def test_a_browser_that_is_no_program_is_one_line(monkeypatch, tmp_path):
    (tmp_path / "browser").write_text("no program")
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "browser"))
    assert str(tmp_path / "browser") in export.problem()


@browser
def test_other_formats_are_refused(tmp_path):
    with pytest.raises(ValueError, match="svg, png"):
        export.write_images({tmp_path / "a.gif": FIGURE})


@browser
def test_images_are_drawn_and_an_svg_is_the_same_again(tmp_path):
    export.write_images(
        {tmp_path / "a.svg": FIGURE, tmp_path / "b.svg": FIGURE, tmp_path / "c.png": FIGURE, tmp_path / "d.pdf": FIGURE}
    )
    svg = (tmp_path / "a.svg").read_text()
    assert "A title" in svg and "<path" in svg and svg == (tmp_path / "b.svg").read_text()
    assert (tmp_path / "d.pdf").read_bytes()[:5] == b"%PDF-"
    png = (tmp_path / "c.png").read_bytes()
    assert png[:8] == b"\x89PNG\r\n\x1a\n" and int.from_bytes(png[16:20]) == 2 * export.WIDTH


@browser
def test_a_hanging_browser_is_ended(monkeypatch, tmp_path):
    hanging = tmp_path / "browser"
    hanging.write_text("#!/bin/sh\nexec sleep 1000\n")
    hanging.chmod(0o755)
    monkeypatch.setenv("BROWSER_PATH", str(hanging))
    with pytest.raises(export.Failed, match="within 2 seconds"):
        export.write_images({tmp_path / "a.svg": FIGURE}, timeout=2.0)
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(hanging) not in running and list(tmp_path.glob("*.svg")) == []
