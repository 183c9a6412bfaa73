"""The examples run, as scripts and cell by cell in IPython, and show what their text says."""

import re
import sys
from pathlib import Path

import plotly.graph_objects as go
import plotly.io
import pytest
import torch

import mechsub as ms

FOLDER = Path(__file__).parent.parent / "examples"
# Fewer seeds, images and epochs, so that the toy's example takes seconds.
SMALL = {
    "seeds=range(5)": "seeds=range(2)",
    "images, labels)": "images[:2000], labels[:2000], epochs=1)",
    "outputs=start.cfg.aux)": "outputs=start.cfg.aux, epochs=1, n_samples=2000)",
}


def run(name, replaced=()):
    text = (FOLDER / name).read_text()
    for old, new in dict(replaced).items():
        assert old in text
        text = text.replace(old, new)
    known = {"__name__": "__main__"}
    exec(compile(text, name, "exec"), known)
    return known


@pytest.fixture
def shown(monkeypatch):
    """Figures that were shown; there must be none."""
    figures = []
    monkeypatch.chdir(FOLDER.parent)
    monkeypatch.setattr(plotly.io, "show", lambda figure, *_, **__: figures.append(figure))
    monkeypatch.setattr(go.Figure, "show", lambda figure, *_, **__: figures.append(figure))
    return figures


def test_subliminal_learning_in_small(shown, capfd):
    known = run("subliminal_learning.py", SMALL)
    assert isinstance(known["figure"], go.Figure) and shown == []
    assert list(known["cache"]) == ["start", "teacher", "student"]
    attribution = known["attribution"]
    logits = known["student"](known["x"][:500])[..., :10]
    assert torch.allclose(attribution.values.sum(-1), logits, atol=1e-4)
    assert capfd.readouterr().err == ""  # training draws no bar where nobody watches


@pytest.mark.slow
def test_subliminal_learning(shown):
    known = run("subliminal_learning.py")
    assert (ms.accuracy(known["student"], known["x"], known["y"]) > 0.3).all()
    assert known["difference"].interval.low > 0.2


def test_token_entanglement(shown, one_model, capfd):
    known = run("token_entanglement.py")
    specific = ms.interaction(known["scores"])
    assert specific.abs().max() > 0.05 and specific.sum(0).abs().max() < 1e-9
    assert known["scores"].shape == (4, 4)
    ranks = [int(ms.lens.token_rank(logits, known["owl"])) for logits in known["lens"].values()]
    assert ranks[-1] < 100 < ranks[0]
    assert len(known["frame"]) == 104 and shown == []
    assert "\r" not in capfd.readouterr().err


def test_your_hooks(shown):
    known = run("your_hooks.py")
    mine, x = known["mine"], known["x"]
    with torch.no_grad():
        logits, theirs = mine.run_with_cache(x, names_filter=ms.hidden_names(mine))
    ours = ms.cache_activations(mine, x)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs) and len(theirs) == 2
    assert torch.allclose(ms.logit_lens(mine, x)["blocks.1.hook_out"], logits, atol=1e-6)
    values = ms.direct_logit_attribution(mine, x, tokens=[0, 10])
    assert torch.allclose(values.logits, logits[:, [0, 10]], atol=1e-5)
    assert known["stitched"].shape == logits.shape
    # Their hook acted on the toy, and, added to the bridge, in the analyses; removed, nothing is left of it.
    assert not torch.allclose(known["ablated"], known["logits"])
    assert all(not torch.equal(known["changed"][name], known["plain"][name]) for name in known["plain"])


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("*.py")))
def test_examples_are_notebooks(name):
    """Cells by the `# %%` convention: the first is text, no code stands before one, titles are headings."""
    cells = re.split(r"^# %%", (FOLDER / name).read_text(), flags=re.M)
    assert cells[0] == "" and len(cells) > 4
    assert cells[1].startswith(" [markdown]\n# # ")
    for cell in cells[1:]:
        if cell.startswith(" [markdown]"):
            assert all(line.startswith("#") or not line for line in cell.splitlines()[1:])


def test_what_ipython_shows():
    pretty = pytest.importorskip("IPython.lib.pretty").pretty
    found = ms.stats.student_t([1.0, 2.0, 3.0])
    assert pretty({"accuracy": found}) == "{'accuracy': 2.000 [-0.484, 4.484] (95%, n = 3)}"
    assert pretty(ms.stats.paired_difference([1.0, 2.0, 4.0], [0.0, 0.0, 0.0])).endswith("(95%, n = 3), p = 0.118")
    toy = ms.HookedMLP(ms.MLPConfig(d_in=16, d_model=8))
    attribution = ms.direct_logit_attribution(toy, torch.ones(1, 16), [0])
    assert pretty(attribution) == str(attribution)
    assert pretty(ms.entanglement.build_tries([(1, 2), (1, 3)])[0]) == "Trie(2 strings, 2 nodes, 3 edges)"


def test_cells_in_ipython(shown, monkeypatch):
    shell = pytest.importorskip("IPython.core.interactiveshell").InteractiveShell.instance()
    monkeypatch.setitem(sys.modules, "__main__", shell.user_module)
    try:
        for cell in re.split(r"^# %%.*$", (FOLDER / "your_hooks.py").read_text(), flags=re.M):
            shell.run_cell(cell).raise_error()
        assert isinstance(shell.user_ns["toy"], ms.HookedMLP)
    finally:
        shell.clear_instance()
