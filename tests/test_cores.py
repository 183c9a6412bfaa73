import pytest

from mechsub.machine import cores

VERSION_2, VERSION_1 = "0::/outer/inner\n", "9:name=systemd:/\n4:cpu,cpuacct:/outer/inner\n2:cpuset:/\n"


@pytest.mark.parametrize(
    ("group", "files", "limit"),
    [
        (VERSION_2, {"outer/inner/cpu.max": "150000 100000\n"}, 1.5),
        (VERSION_2, {"outer/inner/cpu.max": "150000 100000\n", "outer/cpu.max": "50000 100000\n"}, 0.5),
        (VERSION_2, {"outer/inner/cpu.max": "max 100000\n", "outer/cpu.max": "300000 100000\n"}, 3),
        (VERSION_2, {"outer/inner/cpu.max": "max 100000\n", "other/cpu.max": "50000 100000\n"}, None),
        (VERSION_1, {"cpu,cpuacct/outer/inner/cpu.cfs_quota_us": "-1\n"}, None),
        (VERSION_1, {"cpu,cpuacct/outer/cpu.cfs_quota_us": "200000\n"}, 2),
        (VERSION_1, {"outer/inner/cpu.max": "50000 100000\n"}, None),
        ("", {}, None),
    ],
)
def test_the_least_limit_of_the_control_groups_counts(tmp_path, group, files, limit):
    """Files of both versions as the kernel's documentation has them."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        if name.endswith("quota_us"):
            (tmp_path / name).with_name("cpu.cfs_period_us").write_text("100000\n")
    (tmp_path / "cgroup").write_text(group)
    assert cores.granted(tmp_path / "cgroup", tmp_path) == limit


def test_usable_cores_are_whole_and_no_more_than_the_limit(monkeypatch):
    assert 1 <= cores.usable() <= cores.allowed()
    monkeypatch.setattr(cores, "allowed", lambda: 8)
    for limit, usable in ((None, 8), (0.5, 1), (2.9, 2), (64, 8)):
        monkeypatch.setattr(cores, "granted", lambda limit=limit: limit)
        assert cores.usable() == usable
