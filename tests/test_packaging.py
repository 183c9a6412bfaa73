"""The wheel: what is in it, that it is built the same twice and from the sdist, and that it works elsewhere."""

import itertools
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import mechsub
from mechsub.machine import provenance

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SOURCES = ("mechsub", "studies", "pyproject.toml", "README.md", "LICENSE", "NOTICE", "MANIFEST.in", "CHANGELOG.md")
BUILD = "from setuptools import build_meta; print(build_meta.build_{0}(r'{1}'))"


def build(kind: str, source: Path, out: Path) -> Path:
    """A wheel or an sdist by the build backend, with the setuptools that is installed, at a date that is given."""
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    command = [sys.executable, "-c", BUILD.format(kind, out)]
    out.mkdir(parents=True)
    done = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out / done.stdout.splitlines()[-1]


@pytest.fixture(scope="session")
def dist(tmp_path_factory):
    """Folder with the sdist and three wheels: of the checkout twice, and of the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    for copy in ("one", "two"):
        (folder / copy).mkdir()
        for name in SOURCES:
            copied = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            options = {"ignore": shutil.ignore_patterns("__pycache__")} if (ROOT / name).is_dir() else {}
            copied(ROOT / name, folder / copy / name, **options)
        build("wheel", folder / copy, folder / f"wheel_{copy}")
    with tarfile.open(build("sdist", folder / "one", folder / "sdist")) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    build("wheel", unpacked, folder / "wheel_sdist")
    return folder


def the_wheel(folder: Path) -> Path:
    (found,) = folder.glob("*.whl")
    return found


def test_the_wheel_holds_the_packages_and_their_data_and_nothing_else(dist):
    shipped = [path for name in ("mechsub", "studies") for path in (ROOT / name).rglob("*") if path.is_file()]
    wanted = {str(path.relative_to(ROOT)): path.read_bytes() for path in shipped if path.parent.name != "__pycache__"}
    with zipfile.ZipFile(the_wheel(dist / "wheel_one")) as archive:
        found = {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}
    assert found.keys() == wanted.keys() and found == wanted
    assert {"mechsub/py.typed", "studies/predictions.toml"} <= found.keys()
    assert "mechsub/inputs/_data/train-images-idx3-ubyte.gz" in found


def test_its_metadata_is_the_projects(dist):
    with zipfile.ZipFile(the_wheel(dist / "wheel_one")) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        told = HeaderParser().parsestr(archive.read(name).decode())
    assert told["Version"] == mechsub.__version__ == PROJECT["version"]
    assert told["License-Expression"] == PROJECT["license"]
    needed = {Requirement(text) for text in told.get_all("Requires-Dist") if "extra ==" not in text}
    assert needed == {Requirement(text) for text in PROJECT["dependencies"]}


def test_the_locked_versions_are_allowed_and_whole():
    """And nothing of the machine on which the file was written is in it."""
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    locked = dict(re.fullmatch(r"([a-z0-9-]+)==([0-9a-z.]+)", line).groups() for line in lines)
    extras = itertools.chain.from_iterable(PROJECT["optional-dependencies"].values())
    for each in map(Requirement, [*PROJECT["dependencies"], *extras]):
        name = each.name.lower().replace("_", "-")
        assert name == "mechsub" or each.specifier.contains(locked[name]), each


def test_two_builds_and_that_of_the_sdist_are_the_same_bytes(dist):
    one, two, sdist = (the_wheel(dist / f"wheel_{name}").read_bytes() for name in ("one", "two", "sdist"))
    assert one == two
    assert one == sdist


def test_an_environment_in_a_repository_of_something_else_has_no_commit(tmp_path):
    site = tmp_path / ".venv" / "lib"
    site.mkdir(parents=True)
    (tmp_path / ".gitignore").write_text(".venv\n")
    git = ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init"], ["add", "."], ["commit", "-m", "theirs"]):
        subprocess.run([*git, *command], check=True, capture_output=True)
    assert len(provenance.git_state(tmp_path)["commit"]) == 40
    assert provenance.git_state(site) is None


def test_citation_is_complete_and_of_this_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors", "type", "license"} <= cited.keys()  # the first four by schema
    assert cited["version"] == mechsub.__version__ and cited["type"] == "software"
    # As the schema of 1.2.0 wants it (`cffconvert --validate` was run on 2026-11-24).
    assert cited["cff-version"] == "1.2.0" and cited["authors"]
    papers = [(each["title"], each["authors"][0]["family-names"], each["type"]) for each in cited["references"]]
    assert [author for _, author, _ in papers] == ["Cloud", "Jiang", "Zur"]
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert f"version = {{{cited['version']}}}, date = {{{cited['date-released']}}}" in readme
    assert all(title.partition(":")[0] in readme for title, _, _ in papers)
    assert " AND ".join(cited["license"]) == PROJECT["license"]


def test_the_changelog_is_in_the_form_of_keep_a_changelog():
    """The one to come on top, under every release the kinds of changes; and this version is the last release."""
    text = (ROOT / "CHANGELOG.md").read_text()
    assert text.startswith("# Changelog\n")
    releases, kinds = re.findall(r"^## (.+)$", text, re.M), re.findall(r"^### (.+)$", text, re.M)
    date = yaml.safe_load((ROOT / "CITATION.cff").read_text())["date-released"]
    assert releases[:2] == ["[Unreleased]", f"[{mechsub.__version__}] - {date}"]
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", release) for release in releases[1:])
    assert kinds and set(kinds) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    parts = re.split(r"^## .+", text, flags=re.M)[1:]
    assert all(re.match(r"\n\n### ", part) for part in parts if part.strip())


def test_a_clone_beside_ones_work_does_not_hide_the_package_that_is_installed_from_it(tmp_path):
    """The clone is a folder called mechsub without __init__.py, and so a package without a file to Python."""
    home, clone, linked = tmp_path / "venv", tmp_path / "work" / "mechsub", tmp_path / "linked"
    clone.mkdir(parents=True)
    for name in SOURCES:
        copied = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copied(ROOT / name, clone / name)
    linked.mkdir()
    (linked / "mechsub").symlink_to(clone)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    (site,) = home.glob("lib/python*/site-packages")
    (site / "outer.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = [sys.executable, "-m", "pip", "--python", home / "bin" / "python", "install", "--no-index", "--quiet"]
    without = ["--no-deps", "--no-build-isolation", "--force-reinstall"]  # the outer one may be of this version
    subprocess.run([*install, *without, "--editable", clone], check=True, capture_output=True)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    asked = "import mechsub, studies; print(mechsub.MLPConfig.__name__, mechsub.__file__, studies.__file__)"
    for folder in (clone.parent, linked, clone, tmp_path):
        command = [home / "bin" / "python", "-c", asked]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, (folder, done.stderr)
        files = (clone / "mechsub" / "__init__.py", clone / "studies" / "__init__.py")
        assert done.stdout.split() == ["MLPConfig", *map(str, files)]


@pytest.mark.slow
def test_the_wheel_works_in_an_empty_folder_of_a_fresh_environment(dist, tmp_path):
    """Its dependencies are those that are installed here; mechsub itself is the wheel's."""
    home, folder = tmp_path / "venv", tmp_path / "empty"
    folder.mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    python = home / "bin" / "python"
    (site,) = home.glob("lib/python*/site-packages")
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--quiet"]
    subprocess.run([*install, the_wheel(dist / "wheel_one")], check=True)
    (site / "outer.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def run(*argv: str) -> str:
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        done = subprocess.run([python, *argv], cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    for name in ("mechsub", "studies"):
        assert run("-c", f"import {name}; print({name}.__file__)").startswith(str(site))
    assert len(run("-c", "from mechsub.lab import predictions as p; print('\\n'.join(map(str, p.told())))")) > 5
    assert "what `make run` needs is there" in run("-m", "mechsub", "doctor")
    run("-m", "studies.subliminal_accuracy", "--n-seeds", "2", "--epochs", "1")
    assert [path.name for path in folder.iterdir()] == ["artifacts"]
    assert "1 whole cells; damaged: 0, missing: 0, stale: 0" in run("-m", "mechsub", "verify")
    # The checkout takes the cell for its own: version, options and inputs are the same wherever the code lies.
    again = ["-m", "studies.subliminal_accuracy", "--n-seeds", "2", "--epochs", "1", "--dry-run"]
    done = subprocess.run(
        [sys.executable, *again, "--out", folder / "artifacts"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout.startswith("stored"), done.stdout + done.stderr
