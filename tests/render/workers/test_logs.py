"""Every worker's log lands in a file of its own in the driver's folder."""

from render.workers.logs import WorkerLogs


def test_lines_are_appended_to_the_workers_file(tmp_path):
    logs = WorkerLogs(tmp_path / "set" / "logs")
    logs.append("head-12", "Blender 34: 4.5.15 LTS, Cycles on CPU")
    logs.append("other-12", "Blender 56: 4.5.15 LTS, Cycles on CPU")
    logs.append("head-12", "cube: worker: Crash: Blender was ended by SIGSEGV\nstderr — tail")
    assert sorted(path.name for path in logs.folder.iterdir()) == ["worker-head-12.log", "worker-other-12.log"]
    lines = (logs.folder / "worker-head-12.log").read_text(encoding="utf-8").splitlines()
    assert lines == [
        "Blender 34: 4.5.15 LTS, Cycles on CPU",
        "cube: worker: Crash: Blender was ended by SIGSEGV",
        "stderr — tail",
    ]


def test_silence_makes_no_file(tmp_path):
    WorkerLogs(tmp_path / "logs").append("head-12", "")
    assert not (tmp_path / "logs").exists()


def test_a_second_driver_goes_on_in_the_same_file(tmp_path):
    for text in ("one", "two"):
        WorkerLogs(tmp_path).append("head-12", text)
    assert (tmp_path / "worker-head-12.log").read_text() == "one\ntwo\n"
