"""Run pages: finding runs, their state, the curves, the page as one file; the server offers nothing else."""

import http.client
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dataset.errors import UserError
from distill.view.__main__ import ViewArgs, main
from distill.view.curves import Curve, CurveScale, Mark, format_number, make_curve, running_mean
from distill.view.page import Section, make_page
from distill.view.run import find_runs, format_duration, read_run
from distill.view.run_page import run_page
from distill.view.server import HOST, respond, serve
from tests.support.result_page_tags import Tags
from tests.support.toy_run import finished, under_way


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two runs: a/seed-0, finished, and a/seed-1, under way; and what is none of them."""
    folder = tmp_path_factory.mktemp("view") / "runs"
    done = finished(folder / "a" / "seed-0")
    under_way(folder / "a" / "seed-1", done)
    (folder / "a" / "notes").mkdir()
    (folder / "secret.txt").write_text("secret")
    (done / ".hidden").write_text("secret")
    (done / "link.txt").symlink_to(folder / "secret.txt")
    return folder


def test_runs_are_found_and_named(runs: Path) -> None:
    assert find_runs([runs]) == {"a/seed-0": runs / "a" / "seed-0", "a/seed-1": runs / "a" / "seed-1"}
    assert list(find_runs([runs / "a" / "seed-1"])) == ["seed-1"]
    assert list(find_runs([runs / "a" / "seed-1", runs / "a" / "seed-0"])) == ["seed-1", "seed-0"]
    assert list(find_runs([runs, runs / "a" / "seed-0"])) == ["a/seed-0", "a/seed-1"]
    with pytest.raises(UserError, match="notes contains no run"):
        find_runs([runs / "a" / "notes"])
    with pytest.raises(UserError, match="nowhere is not a folder"):
        find_runs([runs / "nowhere"])


def test_where_a_run_stands(runs: Path, tmp_path: Path) -> None:
    done, going = (read_run(runs / "a" / name, name) for name in ("seed-0", "seed-1"))
    assert done.finished
    assert done.status == "finished: 6 steps"
    assert not going.finished
    assert re.fullmatch(r"step 4 of 6, about \d+ s left", going.status)
    assert [step for step, _ in done.previews] == [3, 6]
    stopped = under_way(tmp_path / "stopped", runs / "a" / "seed-0")
    os.utime(stopped / "losses.csv", (1e9, 1e9))
    assert "run the same command to resume" in read_run(stopped, "").status
    (stopped / "losses.csv").unlink()
    assert read_run(stopped, "").status == "starting"
    meshless = under_way(tmp_path / "meshless", runs / "a" / "seed-0")
    (meshless / "losses.csv").write_text((runs / "a" / "seed-0" / "losses.csv").read_text())
    assert read_run(meshless, "").status == "distilled; no mesh yet"
    older = json.loads((meshless / "config.json").read_text()) | {"mesh": {"faces": 1, "watertight": True}}
    (meshless / "config.json").write_text(json.dumps(older))  # as runs without metrics.json have it
    (meshless / "mesh.glb").write_bytes(b"glTF")
    assert read_run(meshless, "").finished
    (meshless / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json is not valid JSON"):
        read_run(meshless, "")


def test_durations_and_numbers() -> None:
    assert [format_duration(s) for s in (0.4, 99, 100, 5999, 7200)] == ["0 s", "99 s", "2 min", "100 min", "2.0 h"]
    assert [format_number(v) for v in (0, 0.012345, 12.345, 1234.6, 123456, 1.5e-7)] == [
        *("0", "0.0123", "12.3", "1,235", "1.23e5", "1.5e-7")
    ]


def test_one_file_says_everything_and_points_nowhere(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    assert main(ViewArgs((runs / "a" / "seed-0",), out=out)) == 0
    assert list(tmp_path.iterdir()) == [out]
    tags = Tags(out.read_text())
    targets = [a[key] for _, a in tags.tags for key in ("src", "href") if key in a]
    assert all(target.startswith(("data:", "#")) for target in targets)
    assert [len(tags.named(name)) for name in ("video", "svg")] == [1, 3]
    assert len(tags.named("img")) == 4  # input, views, two previews
    assert any("data-glb" in figure for figure in tags.named("figure"))
    assert "data-reload" not in tags.named("body")[0]
    metrics = json.loads((runs / "a" / "seed-0" / "metrics.json").read_text())
    for said in (
        "From toys/<ball>.png, by the model data/model. Finished",
        "finished: 6 steps",
        f"{metrics['mesh']['faces']:,} faces",
    ):
        assert said.lower() in tags.text.lower()
    assert "fine resolution" in tags.text
    assert not tags.named("ball")


def test_several_runs_are_an_overview_with_pages(runs: Path, tmp_path: Path) -> None:
    assert main(ViewArgs((runs,), out=tmp_path / "all.html")) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all-1.html", "all-2.html", "all.html"]
    overview = Tags((tmp_path / "all.html").read_text())
    assert [link["href"] for link in overview.named("a")] == ["all-1.html", "all-2.html"]
    assert "1 of 2 runs finished" in overview.text
    assert len(overview.named("video")) == 1  # of the finished one; the other shows its newest preview
    assert len(overview.named("img")) == 3
    assert "all.html" in [link["href"] for link in Tags((tmp_path / "all-2.html").read_text()).named("a")]


def test_a_run_under_way_shows_what_there_is(runs: Path) -> None:
    page = respond([runs / "a" / "seed-1"], "/").body.decode()
    tags = Tags(page)
    assert float(tags.named("body")[0]["data-reload"]) > 0
    assert not tags.named("video")
    assert len(tags.named("svg")) == 3
    assert not any("data-glb" in figure for figure in tags.named("figure"))
    assert "step 4 of 6" in tags.text.lower()


def curve(*args: Any, **options: Any) -> Curve:
    made = make_curve(*args, **options)
    assert made is not None
    return made


def points(path: str) -> np.ndarray:
    """Points [n, 2] of a line."""
    assert path.startswith("M")
    return np.array([[float(v) for v in pair.split(",")] for pair in path[1:].split("L")])


def test_a_curve_goes_through_its_values() -> None:
    made = curve("<Loss>", [1, 2, 3], [0.0, 10.0, 5.0], last_step=4, mark=Mark(2, "<lit>"))
    line = points(made.values_path)
    np.testing.assert_allclose(np.diff(line[:, 0]), line[1, 0] - line[0, 0], atol=0.11)
    across, down = line[:, 0], line[:, 1]
    assert down[0] > down[2] > down[1]  # higher values stand higher
    assert (down[0] - down[1]) == pytest.approx(2 * (down[0] - down[2]), abs=0.11)
    assert across[2] < 440 - 14  # the run continues to step 4
    markup = make_page("x", [Section("Losses", charts=[made])])
    assert "&lt;Loss&gt;" in markup
    assert ">&lt;lit&gt;</text>" in markup
    for name, path in (("pale", made.values_path), ("strong", made.mean_path)):
        assert re.findall(rf'class="{name}" d="([^"]+)"', markup) == [path]
    assert make_curve("x", [], [], last_step=4) is None
    assert points(curve("x", [1], [2.0], last_step=1).mean_path).shape == (2, 2)


def test_decades_are_drawn_logarithmically() -> None:
    down = points(curve("x", [1, 2, 3], [1.0, 10.0, 100.0], last_step=3).values_path)[:, 1]
    assert np.diff(down)[0] == pytest.approx(np.diff(down)[1], abs=0.11)
    assert not CurveScale.of(np.array([5.0, 100.0])).logarithmic
    assert not CurveScale.of(np.array([0.0, 1e6])).logarithmic
    assert not CurveScale.of(np.array([1.0, 1e6]), linear=True).logarithmic
    assert CurveScale.of(np.array([1e-7, 3.0])).ticks() == pytest.approx([1e-6, 1e-4, 1e-2, 1.0])
    assert CurveScale.of(np.array([0.0, 0.0])).ticks()[0] == 0.0
    assert CurveScale.of(np.array([-3.0, 5.0])).ticks() == [-2.0, 0.0, 2.0, 4.0]


def test_long_records_are_thinned_and_smoothed() -> None:
    steps = np.arange(10_000.0)
    values = 5.0 + np.where(steps % 2, 1.0, -1.0)
    made = curve("x", list(steps), list(values), last_step=1e4)
    assert len(points(made.values_path)) == 600
    assert np.ptp(points(made.mean_path)[:, 1]) < 0.5
    np.testing.assert_allclose(running_mean(values)[300:-300], 5.0, atol=0.01)
    np.testing.assert_allclose(running_mean(np.arange(100.0))[2:-2], np.arange(2.0, 98.0))


@contextmanager
def served(folders: list[Path]) -> Iterator[int]:
    """The port of a server that runs within the block."""
    with serve(folders) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def get(port: int, path: str, host: str | None = None, method: str = "GET") -> tuple[int, bytes]:
    """Status and body of a request whose path is sent as it is."""
    connection = http.client.HTTPConnection(HOST, port, timeout=30)
    connection.request(method, path, headers={"Host": host or f"{HOST}:{port}"})
    response = connection.getresponse()
    found = response.status, response.read()
    connection.close()
    return found


def test_the_server_gives_pages_and_files_of_runs(runs: Path) -> None:
    with served([runs]) as port:
        status, overview = get(port, "/")
        assert status == 200
        links = [link["href"] for link in Tags(overview.decode()).named("a")]
        assert links == ["/a/seed-0/", "/a/seed-1/"]
        status, page = get(port, links[0])
        assert status == 200
        names = [link["href"] for link in Tags(page.decode()).named("a")]
        assert {"mesh.glb", "turntable.mp4", "metrics.json", "losses.csv"} <= set(names)
        assert not {".hidden", "link.txt", "secret.txt"} & set(names)
        assert get(port, "/a/seed-0/mesh.glb") == (200, (runs / "a" / "seed-0" / "mesh.glb").read_bytes())
        assert get(port, "/a/seed-0/mesh.glb", method="HEAD") == (200, b"")


@pytest.mark.parametrize(
    "path",
    [
        *("/secret.txt", "/../secret.txt", "/a/seed-0/../../secret.txt", "/a/seed-0/..%2f..%2fsecret.txt"),
        *("/a/seed-0/%2e%2e/%2e%2e/secret.txt", "/a/seed-0/.hidden", "/a/seed-0/link.txt", "/a/", "//etc/passwd"),
        *("/a/seed-0/previews", "/a/seed-0/previews/step-000003.png", "/a/seed-0//etc/passwd", "/a/seed-0/%00"),
        *("/a/seed-0/mesh.glb/", "/a/seed-0", "/%ff%fe", "/a/seed-0/..\\..\\secret.txt"),
    ],
)
def test_nothing_else_is_given(runs: Path, path: str) -> None:
    assert respond([runs], path).status == 404
    with served([runs]) as port:
        status, body = get(port, path)
    assert status == 404
    assert b"secret" not in body.replace(b"secret.txt", b"")


def test_only_this_machine_is_answered_by_its_own_name(runs: Path) -> None:
    with served([runs]) as port:
        for host in (f"localhost:{port}", f"{HOST}:{port}"):
            assert get(port, "/", host)[0] == 200
        for host in (f"evil.example:{port}", "evil.example", f"{HOST}.evil.example:{port}"):
            assert get(port, "/", host)[0] == 403
        assert get(port, "/", method="POST")[0] == 501
        with pytest.raises(UserError, match=f"port {port} cannot be used"):
            serve([runs], port)
    with serve([runs]) as server:
        assert server.server_address[0] == "127.0.0.1"


def test_a_run_that_cannot_be_read_is_a_page_that_tries_again(runs: Path, tmp_path: Path) -> None:
    broken = under_way(tmp_path / "broken", runs / "a" / "seed-0")
    (broken / "config.json").write_text('{"image": "x')
    found = respond([broken], "/")
    assert found.status == 500
    assert b"config.json is not valid JSON" in found.body
    assert b"data-reload" in found.body


def test_looking_needs_no_torch() -> None:
    """It takes seconds to import, and a page none."""
    code = "import sys, distill.view.__main__; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_page_says_whether_the_input_image_is_a_cut_out(runs: Path, tmp_path: Path) -> None:
    run = under_way(tmp_path / "run", runs / "a" / "seed-0")
    assert "as the model sees it: the whole image, with its background." in run_page(read_run(run, "run"))
    cut_out = Image.new("RGBA", (16, 16))
    cut_out.paste((200, 30, 30, 255), (4, 4, 12, 12))
    cut_out.save(run / "input.png")
    assert "as the model sees it: the cut-out, on white." in run_page(read_run(run, "run"))
    (run / "input.png").write_bytes(b"x")
    with pytest.raises(UserError, match=r"input\.png"):
        run_page(read_run(run, "run"))
