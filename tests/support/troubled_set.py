"""A shard set with failures and hostile texts, and the tags of its report page."""

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

from dataset.format.manifest import Asset, Manifest
from dataset.format.outcomes import Outcome, dump_outcomes, read_outcomes
from dataset.io.files import url_to_fs
from tests.support.make_shards import make_shard_set, write_set_request

BAD = '<script>document.title = "taken"</script>'


class Tags(HTMLParser):
    """Every start tag with its attributes; the text of each element by the tag around it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        self._last = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._last = tag
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.texts.append((self._last, data))

    def named(self, name: str) -> list[dict[str, str]]:
        return [attributes for tag, attributes in self.tags if tag == name]

    @property
    def tiles(self) -> list[dict[str, str]]:
        return [attributes for attributes in self.named("li") if attributes.get("class") == "tile"]


def troubled_set(folder: Path) -> Path:
    """Seven objects: four ok, two failed, one skipped; texts that look like markup."""
    make_shard_set(folder, 4, resolution=32, objects_per_shard=8)
    fs, root = url_to_fs(folder)
    rows, assets = read_outcomes(fs, root), list(Manifest(fs, root).assets())
    crash = Outcome(
        *("crash", 4, "shard-000000", "failed", "worker", "Crash", f"died {BAD}"),
        exit_signal=11,
        seconds=7.5,
        attempts=2,
        stderr_tail=f"line one\n{BAD} & more",
    )
    bad = Outcome("bad", 5, "shard-000000", "failed", "import", "ValueError", "no mesh", flags=("missing-texture",))
    left = Outcome("left", 6, "shard-000000", "skipped", "select", message="too big", flags=("too-large",))
    more = [Asset(uid, "elsewhere", "CC-BY-4.0", f"{BAD}'\"", title="A & B") for uid in ("crash", "bad", "left")]
    rows[1] = replace(rows[1], flags=("clipped",), seconds=3.0, peak_rss_mb=700.0)
    write_set_request(fs, root, [*assets, *more], objects_per_shard=8)
    (folder / "outcomes/shard-000000.parquet").write_bytes(dump_outcomes([*rows, crash, bad, left]))
    return folder
