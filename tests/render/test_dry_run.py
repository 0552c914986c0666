"""--dry-run: what is counted, what is sampled, what is estimated."""

import itertools
from dataclasses import replace

from dataset.format.manifest import Asset
from render.cli import RenderCommand
from render.dry_run import Estimate, _estimate_lines, survey


def listing(count, excluded=()):
    return (
        Asset(f"u{i}", "test", "CC0-1.0" if i % 2 else "CC-BY-4.0", bytes=10, file=f"{i}.glb",
              excluded="too-large" if i in excluded else "")
        for i in range(count)
    )  # fmt: skip


def test_a_source_is_counted_and_sampled_evenly():
    found = survey(listing(1000, excluded=range(100, 200)), sample=4)
    assert (found.objects, found.excluded, found.bytes) == (1000, 100, 10_000)
    assert found.kinds == {".glb": 1000}
    assert found.licenses == {"CC0-1.0": 500, "CC-BY-4.0": 500}
    positions = [position for position, _ in found.sample]
    assert len(positions) == 4 or len(positions) == 3
    assert all(not asset.excluded for _, asset in found.sample)
    gaps = [b - a for a, b in itertools.pairwise(positions)]
    assert min(gaps) >= 200


def test_small_sources_and_no_sample():
    assert [position for position, _ in survey(listing(2), sample=4).sample] == [0, 1]
    assert survey(listing(10), sample=0).sample == []


def test_the_estimate_is_arithmetic():
    command = replace(RenderCommand("procedural:1"), price_per_hour=2.0)
    text = "\n".join(_estimate_lines(command, Estimate(4, 1, 9.0, 600_000.0), objects=800_000, workers=2))
    assert "9.0 s and 0.60 MB per object" in text
    assert "1000.0 hours with 2 workers" in text
    assert "800 objects/hour" in text
    assert "480.0 GB" in text
    assert "cost 2000.00 at 2 per hour" in text
