"""`python -m mechsub doctor`: what is there is said, what is missing comes with its remedy, and the exit code tells."""

import subprocess
import sys
from pathlib import Path

from mechsub import doctor
from mechsub.__main__ import main
from mechsub.inputs import images
from mechsub.lab import store
from mechsub.models import language

ROOT = Path(__file__).parent.parent


def lines(part):
    return [(each.kind, each.text) for each in part]


def test_in_an_empty_folder_without_a_network_everything_is_there(tmp_path, monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("MECHSUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    done = subprocess.run([sys.executable, "-m", "mechsub", "doctor"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stdout + done.stderr
    said = {line.split()[1]: line for line in done.stdout.splitlines()[:-1] if not line.startswith(" ")}
    assert set(said) >= {"python", "packages", "imports", "device", "precision", "threads", "memory", "mnist", "disk"}
    assert "torch 2." in said["packages"] and "transformer-lens 4." in said["packages"]
    assert said["mnist"].startswith("ok") and said["model"].startswith("-") and said["results"].startswith("-")
    assert "load_language_model()" in done.stdout and done.stdout.endswith("what `make run` needs is there\n")
    assert list(tmp_path.iterdir()) == []


def test_damaged_results_fail_and_name_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    made = {"study": "nosuch", "config": {"n": 1}, "version": 1}
    store.write_cell(tmp_path / "artifacts" / "nosuch" / "default", [{"n": 1}], made)
    assert lines(doctor._results())[0][0] == "good"
    (tmp_path / "artifacts" / "nosuch" / "default" / "records.jsonl").write_text("{}\n")
    assert main(["doctor"]) == 1
    told = capsys.readouterr().out
    assert "MISSING results" in told and "1 damaged" in told and "fix: python -m mechsub verify artifacts" in told
    assert told.endswith("1 thing is missing for `make run`\n")


def test_damaged_mnist_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "_EMBEDDED", tmp_path)
    assert lines(doctor._mnist())[0][0] == "missing"
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03")
    assert "is damaged" in lines(doctor._mnist())[0][1]


def test_fashion_mnist_that_is_damaged_is_said_where_it_is_found(tmp_path, monkeypatch):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03")
    monkeypatch.setenv("MECHSUB_DATA", str(tmp_path))
    kind, text = lines(doctor._fashion_mnist())[0]
    assert kind == "absent" and str(tmp_path) in text and "is damaged" in text


def test_the_cached_default_model_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("MECHSUB_CACHE", str(tmp_path))
    assert lines(doctor._default_model())[0][0] == "absent"
    (tmp_path / language.DEFAULT).mkdir()
    (tmp_path / language.DEFAULT / language._MANIFEST).write_text("{}")
    assert lines(doctor._default_model())[0][0] == "good"
