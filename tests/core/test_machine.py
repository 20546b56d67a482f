"""Processors by affinity and quota."""

from golf.core import machine


def write_group(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".", 1)).write_text(text, encoding="utf-8")


def test_processors_by_affinity_and_quota(tmp_path, monkeypatch):
    own, two, one = tmp_path / "own", tmp_path / "v2", tmp_path / "v1"
    own.write_text("0::/a/b\n", encoding="utf-8")
    assert machine.cpu_quota(two, own) is None
    write_group(two / "a" / "b", cpu_max="max 100000\n")
    assert machine.cpu_quota(two, own) is None
    write_group(two / "a", cpu_max="350000 100000\n")  # of the group above
    assert machine.cpu_quota(two, own) == 3.5
    write_group(two, cpu_max="50000 100000\n")
    assert machine.cpu_quota(two, own) == 0.5
    own.write_text("5:memory:/x\n4:cpu,cpuacct:/docker/7\nnonsense\n", encoding="utf-8")
    write_group(one / "cpu,cpuacct" / "docker", cpu_cfs_quota_us="-1", cpu_cfs_period_us="100000")
    assert machine.cpu_quota(one, own) is None
    write_group(one / "cpu", cpu_cfs_quota_us="200000", cpu_cfs_period_us="100000")  # as a container sees it
    assert machine.cpu_quota(one, own) == 2
    assert machine.cpu_quota(one, tmp_path / "nowhere") is None

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(machine, "affinity", lambda: 8)
    for quota, processes, threads in (
        (None, 1, None), (3.5, 1, "3"), (0.5, 1, "1"), (None, 2, "4"), (3.5, 2, "1"), (64, 16, "1"),
    ):  # fmt: skip
        monkeypatch.setattr(machine, "cpu_quota", lambda quota=quota: quota)
        assert machine.thread_settings(processes).get("OMP_NUM_THREADS") == threads
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert machine.thread_settings(2) == {"OMP_WAIT_POLICY": "PASSIVE"}
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert machine.thread_settings(2) == {}
