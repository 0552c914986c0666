"""The report of a shard set as one HTML page that fetches nothing: `style.css` and `report.js` are put into it.

All that comes from files passes `report_charts.escape`. Pictures stand at the end, one base64 line a strip, so that the
text is there before they are read; a strip is decoded when its tile comes into sight.
"""

import base64
import signal
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from dataset.check.statistics import reason
from dataset.format.outcomes import OUTCOMES_FOLDER, Outcome
from dataset.format.schema import VIEWS_PER_SET
from dataset.io.files import write_file_atomic
from dataset.report.collect import MAX_SKIPPED, STRIP_QUALITY, VIEW_SIDE, Report, Tile, gather
from dataset.report.html import bars, escape, histogram, objects, size

_HERE: Final = Path(__file__).resolve().parent
_POLICY: Final = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
_DETAILED: Final = 200  # failures of one reason shown with their stderr; the rest with their message alone
_STATUSES: Final = ("ok", "failed", "skipped")


def write_report(url: str | Path, out: Path, *, max_objects: int = 1000, progress: bool = False) -> Report:
    """Write the page of the set at `url` (at once, or not at all); what it shows.

    Raises UserError when the set is not complete or does not agree with itself, and when `out` cannot be written.
    The progress bar shows on a terminal only.
    """
    report = gather(url, max_objects, progress=progress)
    write_file_atomic(out, page(report).encode())
    return report


def page(report: Report) -> str:
    """The whole page."""
    title = f"Shard set {escape(report.about.url)}"
    strips = "\n".join(base64.b64encode(tile.strip).decode() for tile in report.tiles if tile.strip)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
{_asset("style.css")}</style>
</head>
<body>
<header>
<p class="kind">Shard set</p>
<h1>{escape(report.about.url)}</h1>
</header>
<main>
{_totals(report)}
{_troubles(report)}
{_distributions(report)}
{_grid(report)}
</main>
<script type="text/plain" id="strips">{strips}</script>
<script>
{_asset("report.js")}</script>
</body>
</html>
"""


def _totals(report: Report) -> str:
    about, outcomes = report.about, report.about.outcomes
    seconds, memory = outcomes.seconds, outcomes.peak_rss_mb
    statuses = outcomes.statuses
    cards = [
        ("objects in shards", f"{about.index.objects:,}", f"of {about.asked:,} asked for"),
        ("views", f"{about.index.views:,}", f"{2 * VIEWS_PER_SET} an object"),
        ("size", size(about.index.bytes), f"in {len(about.index.shards):,} shards"),
        ("failed", f"{statuses['failed']:,}", f"skipped {statuses['skipped']:,}"),
        ("seconds an object", f"{seconds.percentile(50):.1f}", f"95% within {seconds.percentile(95):.1f}"),
        ("slowest object", f"{seconds.largest:.1f} s", seconds.largest_uid),
        ("objects an hour", f"{outcomes.objects_an_hour:,.0f}", "a worker"),
        ("peak memory", f"{memory.largest:,.0f} MB", memory.largest_uid),
    ]
    tiles = "".join(
        f"<div{bad}><dt>{escape(name)}</dt><dd><strong>{escape(value)}</strong>"
        f'<small title="{escape(more)}">{escape(more)}</small></dd></div>\n'
        for name, value, more in cards
        for bad in (' class="bad"' if name == "failed" and statuses["failed"] else "",)
    )
    asked = "".join(
        f'<tr><th scope="row">{escape(key)}</th><td>{escape(value)}</td></tr>\n' for key, value in _flat(report.asked)
    )
    return (
        f'<section><h2 class="unseen">Totals</h2>\n<dl class="cards">\n{tiles}</dl>\n'
        f"<details><summary>What was asked for</summary><table>\n{asked}</table></details></section>"
    )


def _troubles(report: Report) -> str:
    """Failures and skips grouped by reason, the most frequent first."""
    outcomes = report.about.outcomes
    tried_again = sum(count for attempts, count in outcomes.attempts.items() if attempts > 1)
    failed = _groups("failed", report.failed, outcomes.failures, _failed_items)
    skipped = _groups("skipped", report.skipped, outcomes.skips, _skipped_items)
    lead = f'<p class="lead">{objects(tried_again)} took more than one attempt.</p>' if tried_again else ""
    none = '<p class="lead">No object failed.</p>' if not failed else ""
    left_out = f"<h2>Left out on purpose</h2>\n{skipped}" if skipped else ""
    return f"<section>\n<h2>Failures</h2>\n{none}{lead}{failed}{left_out}</section>"


def _groups(
    status: str, rows: list[Outcome], counts: Mapping[str, int], items: Callable[[list[Outcome], int], str]
) -> str:
    if not rows:
        return ""
    grouped = {key: list(group) for key, group in groupby(sorted(rows, key=reason), reason)}
    ordered = sorted(grouped, key=lambda key: (-counts[key], key))
    listed = "".join(
        f"<details><summary><b>{counts[key]:,}</b> {escape(key)}</summary>\n"
        f"<ul>\n{items(grouped[key], counts[key])}</ul></details>\n"
        for key in ordered
    )
    return f'<div class="groups {status}">\n{listed}</div>\n'


def _failed_items(rows: list[Outcome], _: int) -> str:
    rest = rows[_DETAILED:]
    told = (
        f'<li class="more">The {len(rest):,} below come without details, which are in {OUTCOMES_FOLDER}/.</li>\n'
        if rest
        else ""
    )
    return "".join(map(_failed_item, rows[:_DETAILED])) + told + "".join(map(_plain_item, rest))


def _failed_item(row: Outcome) -> str:
    facts = {
        "attempts": f"{row.attempts}",
        "exit signal": _signal(row.exit_signal),
        "seconds": f"{row.seconds:.1f}",
        "peak memory": f"{row.peak_rss_mb:,.0f} MB",
        "flags": ", ".join(row.flags) or "none",
        "place": f"{row.position} in the manifest, {row.shard}",
    }
    listed = "".join(f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in facts.items())
    stderr = f"<pre>{escape(row.stderr_tail)}</pre>" if row.stderr_tail else '<p class="soft">Nothing on stderr.</p>'
    return (
        f"<li><details><summary><code>{escape(row.uid)}</code> {escape(row.message)}</summary>"
        f'<dl class="facts">{listed}</dl>{stderr}</details></li>\n'
    )


def _plain_item(row: Outcome) -> str:
    return f"<li><code>{escape(row.uid)}</code> {escape(row.message)}</li>\n"


def _skipped_items(rows: list[Outcome], count: int) -> str:
    more = f'<li class="more">and {count - len(rows):,} more, in {OUTCOMES_FOLDER}/</li>\n' if count > len(rows) else ""
    assert len(rows) <= MAX_SKIPPED
    return "".join(map(_plain_item, rows)) + more


def _distributions(report: Report) -> str:
    about, outcomes = report.about, report.about.outcomes
    part = _part(report)
    coverages = [tile.coverage for tile in report.tiles if tile.coverage is not None]
    lights = Counter(tile.light for tile in report.tiles if tile.light)
    figures = [
        histogram(f"Coverage{part}", [100 * coverage for coverage in coverages], "%"),
        histogram("Seconds an object", outcomes.seconds.values, "s"),
        histogram("Peak memory an object", outcomes.peak_rss_mb.values, "MB"),
        bars("Licences", about.licenses, "licence"),
        bars("Flags", outcomes.flags, "flag"),
        bars("Sources", about.sources, "source"),
        bars(f"Environment lights{part}", lights),
    ]
    return f'<section>\n<h2>Distributions</h2>\n<div class="figures">\n{"".join(figures)}</div></section>'


def _part(report: Report) -> str:
    """What a count of the shown objects alone must say when not all are shown."""
    return "" if len(report.tiles) == report.about.asked else f", of the {len(report.tiles):,} objects shown"


def _grid(report: Report) -> str:
    strips = iter(range(len(report.tiles)))
    tiles = "".join(_tile(tile, next(strips) if tile.strip else None) for tile in report.tiles)
    shown, asked = len(report.tiles), report.about.asked
    part = (
        f" {shown:,} of {asked:,} objects are here, spread evenly over the set; every failed one is listed above."
        if shown < asked
        else ""
    )
    return f"""<section id="objects">
<h2>Objects</h2>
<p class="lead">Move over an object to turn it. With the keyboard, left and right turn it, up and down go on to the
next. The pictures are the {VIEWS_PER_SET} fixed views at {VIEW_SIDE} pixels, WebP of quality {STRIP_QUALITY}: look at
the shards themselves to judge a render.{part}</p>
{_filters(report)}
<p class="soft" id="nothing" hidden>No object here is like that.</p>
<ul class="grid">
{tiles}</ul>
</section>"""


def _filters(report: Report) -> str:
    rows = report.tiles
    statuses = Counter(tile.row.status for tile in rows)
    buttons = "".join(
        f'<label><input type="radio" name="status" value="{value}"{" checked" if not value else ""}>'
        f"<span>{value or 'all'} <b>{count:,}</b></span></label>"
        for value, count in [("", len(rows)), *((s, statuses[s]) for s in _STATUSES if statuses[s])]
    )
    orders = {
        "position": "set's order",
        "uid": "uid",
        "coverage": "least coverage first",
        "-coverage": "most coverage first",
        "-seconds": "slowest first",
        "seconds": "fastest first",
    }
    sorts = "".join(f'<option value="{value}">{name}</option>' for value, name in orders.items())
    return f"""<form class="filters" autocomplete="off">
<input type="search" name="text" placeholder="uid" aria-label="uid contains" spellcheck="false">
<fieldset class="segments"><legend class="unseen">Status</legend>{buttons}</fieldset>
{_select("flag", "any flags", Counter(flag for tile in rows for flag in tile.row.flags))}
{_select("licence", "any licence", Counter(tile.asset.license for tile in rows))}
{_select("source", "any source", Counter(tile.asset.source for tile in rows))}
<select name="order" aria-label="Order">{sorts}</select>
<div class="end"><output aria-live="polite"></output> <button type="reset">Reset</button></div>
</form>"""


def _select(name: str, everything: str, counts: Mapping[str, int]) -> str:
    options = "".join(
        f'<option value="{escape(value)}">{escape(value)} ({count:,})</option>'
        for value, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    )
    return f'<select name="{name}" aria-label="{name}"><option value="">{everything}</option>{options}</select>'


def _tile(tile: Tile, strip: int | None) -> str:
    asset, row = tile.asset, tile.row
    data = {
        "uid": row.uid,
        "position": row.position,
        "status": row.status,
        "flags": " ".join(row.flags),
        "licence": asset.license,
        "source": asset.source,
        "seconds": f"{row.seconds:.3f}",
        "coverage": "" if tile.coverage is None else f"{tile.coverage:.5f}",
    }
    attributes = "".join(f' data-{name}="{escape(str(value))}"' for name, value in data.items())
    flags = "".join(f"<b>{escape(flag)}</b>" for flag in row.flags)
    title = f"{asset.title} " if asset.title else ""
    measured = "" if tile.coverage is None else f"{tile.coverage:.1%}, {row.seconds:.1f} s"
    return (
        f'<li class="tile"{attributes}>{_picture(tile, strip)}'
        f'<p class="uid" title="{escape(row.uid)}">{escape(row.uid)}</p>'
        f'<p class="soft" title="{escape(f"{title}by {asset.author}")}">{escape(title)}by {escape(asset.author)}</p>'
        f'<p class="soft">{escape(asset.license)}</p>'
        f'<p class="soft" title="coverage, seconds">{measured}</p><p>{flags}</p></li>\n'
    )


def _picture(tile: Tile, strip: int | None) -> str:
    if strip is None:
        return f'<div class="picture none"><span><b>{tile.row.status}</b> {escape(reason(tile.row))}</span></div>'
    return (
        f'<div class="picture" data-strip="{strip}" role="slider" tabindex="-1" '
        f'aria-label="{escape(tile.row.uid)}, view" '
        f'aria-valuemin="1" aria-valuemax="{VIEWS_PER_SET}" aria-valuenow="1"></div>'
    )


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, inner in value.items():
        if isinstance(inner, dict):
            yield from _flat(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(inner)


def _signal(number: int | None) -> str:
    if number is None:
        return "none"
    known = {int(entry): entry.name for entry in signal.Signals}
    return f"{number} ({known[number]})" if number in known else str(number)


def _asset(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
