"""Whether a stored cell would come out the same: versions, options, upstream cells, and what the run read."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_llama import make_tokenizer, save_tiny_llama

from mechsub import files, sources
from mechsub.inputs import corpora, images, words
from mechsub.lab import store, versions
from mechsub.lab.declared import Study
from mechsub.models import language

ROOT = Path(__file__).parent.parent
CONFIG = {"n": 1, "lr": 0.1}


def reason(cell, made=None, version=1, config=CONFIG, finder={}.get):
    made = {"version": 1, "config": CONFIG} if made is None else made
    return versions.why_stale(cell, made, version, config, CONFIG, finder)


def test_versions():
    assert Study(3).version == 3 and Study().version == 1
    for wrong in (0, -1, True, 1.0, "2", None):
        with pytest.raises(TypeError, match=r"the version of studies\.broken must be an integer"):
            Study(wrong, module="studies.broken")


def test_every_reason(tmp_path):
    cell = tmp_path / "study" / "default"
    assert reason(cell) == ""
    assert "version 1 of its study, and this is 2" in reason(cell, version=2)
    assert "version 3 of its study, which is newer" in reason(cell, {"version": 3, "config": CONFIG})
    assert "nobody has certified" in reason(cell, {"fingerprint": "f", "config": CONFIG})
    assert "lr = 0.2" in reason(cell, {"version": 1, "config": {**CONFIG, "lr": 0.2}})
    assert "the option old" in reason(cell, {"version": 1, "config": {**CONFIG, "old": 1}})
    built = {"version": 1, "config": CONFIG, "upstream_versions": {"other": 1}}
    assert reason(cell, built, finder={"other": Study(1)}.get) == "" == reason(cell, built)
    assert "version 1 of other, and this is 2" in reason(cell, built, finder={"other": Study(2)}.get)


def test_a_cell_made_before_an_option_existed_was_made_with_its_default(tmp_path):
    cell, before = tmp_path / "cell", {"version": 1, "config": {"n": 1}}
    assert reason(cell, before) == ""
    assert "lr = 0.1, and its name stands for 0.2" in reason(cell, before, config={"n": 1, "lr": 0.2})


def test_a_cell_follows_what_it_was_built_on_however_far(tmp_path):
    first, second, third = (tmp_path / name / "default" for name in ("first", "second", "third"))
    made = {"version": 1, "config": CONFIG}
    store.write_cell(first, [{"v": 1}], made)
    store.write_cell(second, [{"v": 2}], {**made, "made_from": {"first/default": store.sums(first)}})
    last = {**made, "made_from": {"second/default": store.sums(second)}}
    assert reason(third, last) == ""
    store.write_cell(first, [{"v": 3}], made)
    assert (
        reason(third, last)
        == "it was built on second/default; it was built on first/default, which was made anew since"
    )
    shutil.rmtree(first)
    assert reason(third, last) == ""  # a cell that is not kept is told by its study's version and its inputs
    (second / "provenance.json").write_text("{")
    assert "second/default, which is damaged" in reason(third, last)


# Inputs.


def inputs_of(read):
    with files.noting() as inputs:
        read()
    return {"version": 1, "config": CONFIG, "read": json.loads(json.dumps(inputs))}


def test_word_lists_and_images_are_noted_every_time_they_are_read(tmp_path, monkeypatch):
    for _ in range(2):  # the second time from memory
        made = inputs_of(lambda: (words.animals(), words.family("colors"), images.mnist("test")))
        assert set(made["read"]) == {"words animals.csv", "words families.json", "images mnist"}
    assert reason(tmp_path, made) == ""
    monkeypatch.setitem(sources.WORDS, "animals.csv", "0" * 64)
    assert "the words animals.csv is not what it was made with: animals.csv has changed" in reason(tmp_path, made)
    monkeypatch.undo()
    monkeypatch.setitem(sources.IMAGES["mnist"], "test labels", "0" * 64)
    assert "test labels has changed" in reason(tmp_path, made)


def test_pinned_sums_are_those_of_the_files():
    folder = Path(words.__file__).parent / "_data"
    assert {name: files.file_sum(folder / name) for name in sources.WORDS} == sources.WORDS


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_tiny_llama(tmp_path / "model", seed=0)
    return tmp_path / "model"


def test_a_checkpoint_saved_over_the_last_is_noticed(model):
    made = inputs_of(lambda: language.load_language_model("./model"))
    assert reason(model, made) == ""
    save_tiny_llama(model, seed=1)
    assert reason(model, made) == "the model ./model is not what it was made with: model.safetensors has changed"
    save_tiny_llama(model, seed=0)
    assert reason(model, made) == ""
    (model / "README.md").write_text("a card")
    assert reason(model, made) == ""
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    (model / "tokenizer.json").write_text(json.dumps(tokenizer | {"padding": None}, indent=3))
    assert "tokenizer.json has changed" in reason(model, made)
    save_tiny_llama(model, seed=0)
    (model / "chat_template.jinja").unlink()
    assert "chat_template.jinja is gone" in reason(model, made)


def test_the_same_name_in_another_working_folder(model, tmp_path, monkeypatch):
    made = inputs_of(lambda: language.load_language_model("./model"))
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "b")
    assert "of another working folder, and here is none" in reason(model, made)
    save_tiny_llama(tmp_path / "b" / "model", seed=1)
    assert "model.safetensors has changed" in reason(model, made)
    shutil.rmtree(tmp_path / "b" / "model")
    shutil.copytree(model, tmp_path / "b" / "model")
    assert reason(model, made) == ""  # the same files elsewhere are the same model
    monkeypatch.chdir(tmp_path)
    shutil.rmtree(model)
    assert reason(model, made) == ""  # that a model is gone does not change what was measured


def test_tables_edited_added_or_removed(tmp_path):
    (tmp_path / "a.csv").write_text("1")
    made = inputs_of(lambda: files.note_files(str(tmp_path / "*.csv")))
    assert reason(tmp_path, made) == ""
    (tmp_path / "a.csv").write_text("2")
    assert "a.csv has changed" in reason(tmp_path, made)
    (tmp_path / "a.csv").write_text("1")
    (tmp_path / "b.csv").write_text("1")
    assert "b.csv is new" in reason(tmp_path, made)


def test_a_pattern_that_names_no_file_is_refused(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.csv").write_text("1")
    (tmp_path / "t[1].csv").write_text("1")
    for pattern in ("tabels/*.csv", f"{tmp_path}/*/x.csv", f"{tmp_path}/a"):
        with pytest.raises(ValueError, match="names no file; give a path, with"):
            files.note_files(pattern)
    made = inputs_of(lambda: files.note_files(f"{tmp_path}/t[1].csv"))
    (tmp_path / "t[1].csv").write_text("2")
    assert "t[1].csv has changed" in reason(tmp_path, made)


def test_a_corpus_that_was_replaced_is_noticed_and_two_of_one_name_are_two(tmp_path):
    tokenizer = make_tokenizer()
    paths = [tmp_path / name / "lists.jsonl" for name in ("owl", "wolf")]
    for path, numbers in zip(paths, ("12", "500"), strict=True):
        path.parent.mkdir()
        path.write_text(json.dumps({"prompt": "Count", "completion": numbers}) + "\n")
    made = inputs_of(lambda: [corpora.read_corpus(path, tokenizer, format="plain") for path in paths])
    assert reason(tmp_path, made) == ""
    paths[1].write_text(json.dumps({"prompt": "Count", "completion": "501"}) + "\n")
    assert reason(tmp_path, made).endswith("wolf/lists.jsonl is not what it was made with: lists.jsonl has changed")
    paths[1].unlink()
    assert reason(tmp_path, made) == ""  # that a corpus is gone does not change what was measured


def test_an_input_that_changes_while_it_is_used_is_an_error(tmp_path):
    with files.noting():
        files.note("model", "m", {"a": "1"})
        files.note("model", "m", {"a": "1"})
        with pytest.raises(ValueError, match="the model m changed while it was used"):
            files.note("model", "m", {"a": "2"})


def test_what_an_inner_cell_reads_counts_for_the_outer_one_too():
    with files.noting() as outer:
        with files.noting() as inner:
            files.note("words", "x", {"x": "1"})
        files.note("words", "y", {"y": "1"})
    assert set(inner) == {"words x"} and set(outer) == {"words x", "words y"}


def test_a_hub_model_is_found_in_its_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert sources.today("some/model") is None and sources.today("no such: model") is None
    repository = tmp_path / "models--some--model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    (repository / "snapshots" / "abc").mkdir(parents=True)
    (repository / "snapshots" / "abc" / "config.json").write_text("{}")
    assert sources.today("some/model") == {"config.json": files.sha256(b"{}")}


# Sums of large files.


def test_a_large_file_is_hashed_once_and_again_when_it_changed(tmp_path, monkeypatch):
    monkeypatch.setenv("MECHSUB_CACHE", str(tmp_path / "cache"))
    path, reads = tmp_path / "weights", []
    hashed = files.hashlib.file_digest
    monkeypatch.setattr(files.hashlib, "file_digest", lambda *a: reads.append(1) or hashed(*a))
    content = bytes(files.LARGE)
    path.write_bytes(content)
    os.utime(path, (1, 1))
    monkeypatch.setattr(files, "SETTLED", -1.0)  # the file was written just now; the next test looks at that
    value = files.sha256(content)
    assert files.file_sum(path) == value == files.file_sum(path) and len(reads) == 1
    files._sums.clear()  # another process
    assert files.file_sum(path) == value and len(reads) == 1
    path.write_bytes(b"x" + content[1:])
    os.utime(path, (1, 1))  # size and time of content as before
    assert files.file_sum(path) == files.sha256(b"x" + content[1:]) and len(reads) == 2
    (kept,) = (tmp_path / "cache" / "sums").iterdir()
    kept.write_text("{")
    files._sums.clear()
    assert files.file_sum(path) == files.sha256(b"x" + content[1:])


def test_a_file_that_was_written_just_now_is_not_trusted(tmp_path, monkeypatch):
    monkeypatch.setenv("MECHSUB_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "weights"
    path.write_bytes(bytes(10))
    files.file_sum(path)
    assert path.resolve() not in files._sums


# As commands.

STUDY = '''"""A question."""
from dataclasses import dataclass
from mechsub import study
from helper import factor

@dataclass(frozen=True)
class Config:
    n: study.Count = study.option(1, "n")

def run(cfg):
    yield {"member": 0, "value": float(factor())}

def table(records):
    return [{"value": record["value"]} for record in records]

def plot(records):
    import plotly.graph_objects as go
    return go.Figure()

if __name__ == "__main__":
    study.main(Config, run, plot, table)
'''


def command(folder, *argv):
    done = subprocess.run(
        [sys.executable, "my_study.py", "--out", "out", *argv], cwd=folder, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_a_module_beside_an_own_study_is_edited(tmp_path):
    (tmp_path / "my_study.py").write_text(STUDY)
    (tmp_path / "helper.py").write_text("def factor():\n    return 1\n")
    code, output, errors = command(tmp_path)
    assert (code, errors) == (0, "") and "1.000" in output
    (tmp_path / "helper.py").write_text("def factor():\n    return 7\n")
    code, output, errors = command(tmp_path)  # the author decides; the page says what it knows
    assert code == 0 and "1.000" in output
    assert errors.startswith("note: helper.py changed since stored cells were made;") and errors.count("\n") == 1
    assert errors.endswith("raise the version in my_study.py\n")
    (tmp_path / "my_study.py").write_text("VERSION = 2\n" + STUDY)
    assert command(tmp_path)[2].startswith("stale: out/my_study/default: it was made by version 1")
    assert "7.000" in command(tmp_path, "--rerun")[1]
    (tmp_path / "my_study.py").write_text(STUDY)
    code, _, errors = command(tmp_path, "--rerun")
    assert code == 1 and "made by version 2 of its study, and this is version 1; update the code" in errors
    assert store.read_records(tmp_path / "out" / "my_study" / "default")[0]["value"] == 7.0


def notebook(folder, *cells):
    """What Jupyter does: `__main__` has no file, and the kernel's arguments are in sys.argv."""
    code = (
        "import sys, types\nmain = types.ModuleType('__main__')\nsource = sys.argv[1:]\n"
        "sys.argv = ['ipykernel_launcher.py', '-f', 'kernel.json']\nsys.modules['__main__'] = main\n"
        "for text in source:\n    exec(compile(text, '<ipython-input>', 'exec'), main.__dict__)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code, *cells], cwd=folder, capture_output=True, text=True, env=environment
    )


def test_a_study_in_the_cells_of_a_notebook(tmp_path):
    text = STUDY.replace("from helper import factor", "def factor():\n    return 1").partition("if __name__")[0]
    call = "study.main(Config, run, plot, table)"
    done = notebook(tmp_path, text, call, call)
    assert done.returncode == 0 and done.stderr == "" and done.stdout.count("1.000") == 2
    made = store.read_provenance(tmp_path / "artifacts" / "notebook" / "default")
    assert made["study"] == "notebook" and made["version"] == 1
    other = text.replace("float(factor())", "float(factor()) + 6.0")
    done = notebook(tmp_path, other, call)
    assert "1.000" in done.stdout and "it was made by another run of a notebook" in done.stderr
    done = notebook(tmp_path, other, call.replace("table)", "table, ['--rerun'])"), call)
    assert done.stdout.count("7.000") == 2 and done.stderr == ""
    done = notebook(tmp_path, text, call.replace("table)", "table, ['--workers', '2'])"))
    assert done.returncode == 2 and done.stderr.startswith("error: ") and "stands in a file" in done.stderr


def test_configs_with_a_new_option_keep_their_cells(tmp_path):
    (tmp_path / "my_study.py").write_text(STUDY)
    (tmp_path / "helper.py").write_text("def factor():\n    return 1\n")
    command(tmp_path)
    text = STUDY.replace('"n")\n', '"n")\n    more: study.Index = study.option(0, "new")\n')
    (tmp_path / "my_study.py").write_text(text)
    assert command(tmp_path, "--dry-run", "--more", "0", "1")[1].splitlines() == [
        "stored  out/my_study/default",
        "missing out/my_study/more=1",
    ]
