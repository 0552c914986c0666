"""The benchmark of encoding, at toy size on a CPU."""

import json
from pathlib import Path

import pytest

from benchmarks.train import encode_bench
from dataset.check.verify import verify

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_last_line_has_the_measurements(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = ["--toy", "--objects", "3", "--objects-per-shard", "2", "--work-dir", str(tmp_path)]
    assert encode_bench.main([*arguments, "--num-workers", "2", "--embedded", "random"]) == 0
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (line["views"], line["batch"], line["num_workers"], line["device"]) == (96, 32, 2, "cpu")
    assert line["views_per_s"] > 0
    assert line["pure_views_per_s"] > 0
    assert line["hours_25.6M_views"] == pytest.approx(25.6e6 / line["views_per_s"] / 3600, rel=0.01)
    assert {"share_of_peak", "gpu_idle_share", "compile_s", "waited_for_images", "torch"} <= line.keys()
    assert list(tmp_path.iterdir()) == []


def test_the_set_is_valid_and_its_objects_have_textures(tmp_path: Path) -> None:
    shards = encode_bench.write_set(tmp_path / "set", 3, 2, 32)
    assert shards.uids() == ["object-000000", "object-000001", "object-000002"]
    assert (shards.views(0, 0, [("fixed", 3)]) == shards.views(1, 0, [("fixed", 3)])).all()
    view = shards.views(0, 1, [("random", 0)])[0]
    seen = view[view[..., 3] > 0]
    assert len(set(map(bytes, seen[:, :3]))) > len(seen) // 2
    assert not view[view[..., 3] == 0].any()
    files = [path.name for path in (tmp_path / "set").glob("shard-*")]
    problems = verify(str(tmp_path / "set"))
    assert {str(problem.where).split("/")[0] for problem in problems}.isdisjoint({"index.json", *files})


@pytest.mark.parametrize(
    ("spans", "expected"),
    [([(2.0, 4.0)], 0.0), ([(5.0, 6.0), (0.0, 2.0)], 0.5), ([(0.0, 8.0), (1.0, 2.0), (7.0, 9.0), (9.5, 10.0)], 0.05)],
)
def test_the_idle_share_leaves_out_overlaps(spans: list[tuple[float, float]], expected: float) -> None:
    assert encode_bench.idle_share(spans) == pytest.approx(expected)


def test_the_shares_of_kinds_and_kernels_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    encode_bench.print_shares({"triton_a": 1.0, "triton_b": 2.0, "Memcpy HtoD": 1.0}, 1)
    shown = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert [share for share, _ in shown] == ["75.0%", "25.0%", "50.0%"]
    assert shown[-1][1] == "triton_b"
