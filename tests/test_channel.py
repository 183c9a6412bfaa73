"""studies.channel, for real on MNIST with two seeds and narrow networks."""

import pytest
import torch

import mechsub as ms
from mechsub.designs import population
from mechsub.inputs import noise
from mechsub.lab import store, study
from studies import channel

SMALL = ["--n-seeds", "2", "--d-model", "16", "--teacher-epochs", "1", "--n-samples", "3000", "--lr", "0.003"]


def run(out, *words):
    command = [*SMALL, *words, "--out", str(out)]
    study.command(channel.study, command)


def records(out, **wanted):
    rows = [row for path in (out / "channel").glob("*/provenance.json") for row in store.read_records(path.parent)]
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("channel")
    run(folder, "--n-aux", "48", "--steps", "200", "--batch-size", "32")
    run(folder, "--n-aux", "6", "--steps", "8", "--vocabulary", "shared", "filtered")
    return folder


def test_a_soft_channel_wider_than_the_hidden_state_teaches(out):
    found = {(r["arm"], r["member"]): r["accuracy"] for r in records(out, vocabulary="split")}
    assert {arm for arm, _ in found} == set(channel.TITLES)
    for member in (0, 1):
        assert found["soft", member] > found["cross_soft", member] + 0.1
        assert found["bound", member] == pytest.approx(found["teacher_body", member], abs=2e-3)  # all 16 directions


def test_one_vocabulary_is_scored_among_all_symbols_too(out):
    rows = records(out, vocabulary="shared") + records(out, vocabulary="filtered")
    assert all(r["open_accuracy"] <= r["accuracy"] for r in rows) and not {"bound", "teacher_body"} & {
        r["arm"] for r in rows
    }
    assert not any("open_accuracy" in r for r in records(out, vocabulary="split"))
    assert min(r["open_accuracy"] for r in rows if r["arm"] == "teacher") > 0.2  # untrained: 1/16


def test_a_filtered_student_never_sees_the_digit_symbols():
    cfg = channel.Config(n_aux=6, d_model=16, n_seeds=2, n_samples=300, steps=2, vocabulary="filtered", arms="hard")
    init = ms.HookedMLP(ms.MLPConfig(d_model=16, n_classes=16, n_aux=0), seeds=(0, 1))
    other = ms.HookedMLP(init.cfg, seeds=(1, 2))
    silent = init.replace({"unembed.W_U": init.W_U * torch.where(torch.arange(16) < 10, -9.0, 1.0)})
    seen, changed = (channel._students(cfg, init, other, teacher) for teacher in (init, silent))
    assert set(seen) == {"hard", "cross_hard"}
    for arm, start in (("hard", init), ("cross_hard", other)):
        assert torch.equal(seen[arm].W_U, changed[arm].W_U)  # whatever the teacher says of digits
        assert torch.equal(seen[arm].W_U[..., :10], start.W_U[..., :10])
        assert not torch.equal(seen[arm].W_U[..., 10:], start.W_U[..., 10:])


def test_the_bound_of_a_narrow_channel_moves_only_what_it_reads():
    init = ms.HookedMLP(ms.MLPConfig(d_model=16, n_aux=3), seeds=(0, 1))
    teacher = ms.HookedMLP(init.cfg, seeds=(5, 6))
    x = noise.uniform(20, torch.Generator().manual_seed(0))
    before, after = population.last_hidden(init, x), population.last_hidden(teacher, x)
    state = before + (after - before) @ population.projection(init.W_U[..., init.cfg.aux], centred=True)
    read = [(h @ init.W_U[..., init.cfg.aux]) for h in (state, after)]
    shown = [(z - z.mean(-1, keepdim=True)) for z in read]
    assert torch.allclose(*shown, atol=1e-4)  # what softmax shows of the teacher is matched
    labels = torch.zeros(20, dtype=torch.long)
    bound = [row["accuracy"] for row in channel._bound(init, init, x, labels, x)]
    assert bound == pytest.approx(ms.accuracy(init, x, labels).tolist())


def test_steps_are_held_when_samples_change():
    assert channel.Config().epochs == 5
    assert channel.Config(n_samples=300).epochs == 148 and channel.Config(n_samples=3000).epochs == 25
    assert channel.Config(steps=1).epochs == 1


REFUSED = [
    (["--n-aux", "0"], "not an integer >= 1"),
    (["--n-aux", "1"], "softmax of one logit"),
    (["--n-seeds", "1"], "an integer >= 2"),
    (["--vocabulary", "both"], "not one of split, shared, filtered"),
    (["--steps", "0"], "not an integer >= 1"),
    (["--lr", "nan"], "finite number > 0"),
]


@pytest.mark.parametrize(("words", "says"), REFUSED, ids=[" ".join(words) for words, _ in REFUSED])
def test_impossible_combinations_are_one_line_before_anything_is_trained(refused, words, says):
    assert says in refused(channel, words)


def test_predictions_are_judged(out):
    wide = [r | {"n_aux": 2048} for r in records(out, vocabulary="split")]
    found = [row["predicted"] for row in study.table_of(channel.study, wide, {}) if "verdict" in row]
    assert found == ["none", "increases"]  # soft to teacher_body, and cross_hard to hard


def test_figures(out):
    rows = records(out, vocabulary="split")
    assert channel.plot(rows).layout.showlegend is False
    assert channel.plot(rows + [r | {"n_aux": 6} for r in rows]).layout.xaxis.type == "log"
