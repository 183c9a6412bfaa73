"""`python -m mechsub push` and `pull`, as commands of their own, against a server on this machine."""

import os
import subprocess
import sys
from pathlib import Path

import hub_server
import pytest
from conftest import contents

from mechsub.lab import manifest, store

ROOT = Path(__file__).parent.parent


@pytest.fixture
def hub():
    with hub_server.served() as hub:
        yield hub


@pytest.fixture
def sent(tmp_path):
    """An exported folder of one cell, whose name has characters that addresses must quote."""
    made = {"study": "digits", "version": 1, "config": {"model": "organisms/110-base"}}
    store.write_cell(tmp_path / "results/cells/digits/model=organisms%2F110-base", [{"value": 1.5}], made)
    (tmp_path / "results/README.md").write_text("# Results\n")
    (tmp_path / "results/tables/digits").mkdir(parents=True)
    (tmp_path / "results/tables/digits/old.csv").write_text("a\n1\n")
    (tmp_path / "results/report").mkdir()
    (tmp_path / "results/report/index.html").write_text("<p>a page</p>")
    manifest.write(tmp_path / "results", {})
    return tmp_path / "results"


def run(hub, folder, *argv, code=0, **environment):
    own = {"HF_ENDPOINT": hub.address, "HF_TOKEN": hub.token, "HF_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "0"}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **own, **environment}
    command = [sys.executable, "-m", "mechsub", *argv]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("kind", ["dataset", "model"])
def test_a_folder_comes_back_as_it_was_sent(hub, sent, tmp_path, kind):
    assert "results is commit " in run(hub, tmp_path, "push", "results", "me/results", "--kind", kind)
    assert [made.get("visibility", made.get("private")) for made in hub.made] in (["private"], [True])
    said = run(hub, tmp_path, "pull", "me/results", "back", "--kind", kind)
    assert said.startswith("back is commit ") and said.endswith("python -m mechsub import back\n")
    assert contents(tmp_path / "back") == contents(sent)
    assert run(hub, tmp_path, "import", "back").startswith("1 cells stored under foreign/back")
    line = run(hub, tmp_path, "pull", "me/results", "back", code=2)
    assert line.startswith("error: ") and line.endswith("back is there already; give the name of a new folder")


def test_what_is_sent_again_replaces_what_was(hub, sent, tmp_path):
    run(hub, tmp_path, "push", "results", "me/results", "--public")
    (sent / "tables/digits/old.csv").rename(sent / "tables/digits/new.csv")
    (sent / manifest.NAME).unlink()
    manifest.write(sent, {})
    run(hub, tmp_path, "push", "results", "me/results")
    assert set(hub.repositories["datasets/me/results"]) == {".gitattributes", *contents(sent)}
    assert len(hub.made) == 1


def test_what_the_hub_refuses_is_one_line(hub, sent, tmp_path):
    hub.repositories["datasets/me/other"] = {"weights.bin": b"1"}
    line = run(hub, tmp_path, "push", "results", "me/other", code=1)
    assert line == "error: me/other holds other files, as weights.bin; give a repository of its own"
    assert hub.repositories["datasets/me/other"] == {"weights.bin": b"1"}
    line = run(hub, tmp_path, "push", "results", "me/results", code=1, HF_TOKEN="may not")
    assert line.startswith("error: the hub refuses me/results (403 ") and line.endswith("with a token that may do so")
    line = run(hub, tmp_path, "pull", "me/nothing", "back", code=1)
    assert line == "error: no dataset 'me/nothing' on the hub (misspelt, or private: `hf auth login`)"
    for name in ("results", "me/a/b", "me/a b"):  # before anything is read or asked
        for argv in (("push", "nowhere", name), ("pull", name, "back")):
            line = run(hub, tmp_path, *argv, code=2)
            assert line.startswith("error: ") and line.endswith(f"{name!r} is no OWNER/NAME of a repository")
    line = run(hub, tmp_path, "pull", "me/other", "back", "--revision", "v9", code=1)
    assert line == "error: me/other has no revision 'v9'; choose a branch, tag or commit of it"
    line = run(hub, tmp_path, "pull", "me/other", "back", code=1)
    assert line == "error: me/other/manifest.json is missing: the folder was not made by `python -m mechsub export`"
    line = run(hub, tmp_path, "pull", "me/other", "back", code=1, HF_HUB_OFFLINE="1")
    assert line == "error: me/other: HF_HUB_OFFLINE is set"
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "home") == ["results"]


def test_what_is_not_whole_is_neither_sent_nor_kept(hub, sent, tmp_path):
    run(hub, tmp_path, "push", "results", "me/results")
    hub.repositories["datasets/me/results"]["cells/digits/more"] = b"1"
    line = run(hub, tmp_path, "pull", "me/results", "back", code=1)
    assert line == "error: me/results/cells/digits/more is not in manifest.json"
    (sent / "README.md").write_text("# Other\n")
    assert "README.md is not what was sent" in run(hub, tmp_path, "push", "results", "me/results", code=1)
    assert not (tmp_path / "back").exists()
