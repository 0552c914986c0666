"""The HTML toolkit: texts are escaped, missing values are errors, embedded files cannot end their element early."""

import ast
import re
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from dataset.html import templates
from dataset.html.formats import format_bytes, format_object_count
from dataset.html.parts import BarTable, Histogram, KeyNumber, make_bar_table, make_histogram, round_up
from dataset.html.templates import data_url, embed_file, render_page
from tests.support.paths import ROOT

BAD = "<script>'\"&"
ESCAPED = "&lt;script&gt;&#39;&#34;&amp;"


@pytest.fixture
def write_template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Write page.html beside copies of the toolkit's own files."""
    shared = tmp_path / "dataset" / "html"
    shared.mkdir(parents=True)
    for name in ("base.html", "parts.html", "style.css"):
        (shared / name).write_text((templates.ROOT / "dataset" / "html" / name).read_text())
    monkeypatch.setattr(templates, "ROOT", tmp_path)
    templates._environment.cache_clear()
    yield (tmp_path / "page.html").write_text
    templates._environment.cache_clear()


def test_every_text_is_escaped(write_template) -> None:
    write_template(
        """{% extends "dataset/html/base.html" %}{% import "dataset/html/parts.html" as parts %}
        {% block main %}{{ parts.key_numbers(numbers) }}{{ parts.table(rows) }}{{ parts.facts(rows) }}
        {{ parts.histogram(histogram) }}{{ parts.bar_table(bars) }}{% endblock %}"""
    )
    values = {
        "title": BAD,
        "lead": BAD,
        "numbers": [KeyNumber(BAD, BAD, BAD)],
        "rows": [(BAD, BAD)],
        "histogram": make_histogram(BAD, [1.0, 2.0], BAD),
        "bars": make_bar_table(BAD, {BAD: 3}, "flag"),
    }
    page = render_page("page.html", values)
    assert BAD not in page
    # title twice, lead, key number with its remark as title and text, rows, histogram, bars
    assert page.count(ESCAPED) > 3 + 4 + 4 + 4 + 3
    assert f'data-flag="{ESCAPED}"' in page


def test_a_missing_value_is_an_error(write_template) -> None:
    write_template("{{ absent }}")
    with pytest.raises(UndefinedError, match="absent"):
        render_page("page.html", {})


def test_embedded_files_stay_as_they_are_and_inside_their_element(tmp_path: Path, write_template) -> None:
    (tmp_path / "script.js").write_text('if (a < b && c) alert("x");')
    write_template("{{ embed_file('script.js') }}")
    assert render_page("page.html", {}) == 'if (a < b && c) alert("x");'
    (tmp_path / "script.js").write_text('x = "</SCRIPT>"')
    with pytest.raises(ValueError, match=r"script\.js contains '</script'"):
        embed_file("script.js")


def test_an_empty_lead_leaves_no_paragraph_and_an_empty_line_starts_one(write_template) -> None:
    write_template('{% extends "dataset/html/base.html" %}')
    counts = [render_page("page.html", {"title": "x", "lead": lead}).count("<p") for lead in ("", "a", "a\n\nb")]
    assert counts == [0, 1, 2]


def test_a_histogram_counts_every_value_and_collects_the_tail() -> None:
    made = make_histogram("Seconds", [1.0] * 98 + [2.0, 1000.0], "s")
    assert isinstance(made, Histogram)
    counts = [int(column.description.split(": ")[1].split()[0]) for column in made.columns]
    assert sum(counts) == 100
    assert max(column.height for column in made.columns) == 100
    assert made.axis_end == "1.5 s and more"
    assert made.columns[-1].description == "1.44 to 1.5 s and more: 2 objects"
    assert made.summary == "median 1 s, largest 1,000 s"
    assert make_histogram("Seconds", [], "s") is None


def test_bars_are_sorted_by_count_then_by_name() -> None:
    made = make_bar_table("Flags", {"b": 1, "c": 4, "a": 1})
    assert isinstance(made, BarTable)
    assert [(row.name, row.count, row.width) for row in made.rows] == [("c", 4, 100), ("a", 1, 25), ("b", 1, 25)]
    assert make_bar_table("Flags", {}) is None


def test_round_numbers_on_the_axes() -> None:
    values = {0: 0, 0.3: 0.3, 1: 1, 1.01: 1.5, 65.6: 80, 81: 100, 853: 1000}
    assert {value: round_up(value) for value in values} == pytest.approx(values)


def test_counts_sizes_and_urls_as_text() -> None:
    assert [format_object_count(count) for count in (0, 1, 1000)] == ["0 objects", "1 object", "1,000 objects"]
    sizes = {500: "0.5 kB", 12_300: "12.3 kB", 4_500_000: "4.5 MB", 1_200_000_000: "1.20 GB", 3 * 10**12: "3.00 TB"}
    assert {count: format_bytes(count) for count in sizes} == sizes
    assert data_url("image/png", b"abc") == "data:image/png;base64,YWJj"


MARKUP = re.compile(r"</?(article|b|body|dd|div|dl|dt|figure|h\d|html|i|img|li|p|section|span|svg|table|td|th|tr|ul)\b")


@pytest.mark.parametrize("package", ["dataset", "render", "train", "distill", "examples", "benchmarks"])
def test_markup_is_in_templates_only(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        texts = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
        found = [text for text in texts if isinstance(text, str) and MARKUP.search(text)]
        assert not found, f"{path.relative_to(ROOT)} writes HTML; move it to a template"


def test_every_page_extends_the_one_base_and_has_no_style_of_its_own() -> None:
    pages = [path for package in ("dataset", "train", "distill") for path in (ROOT / package).rglob("page.html")]
    assert len(pages) == 4
    evaluation = ROOT / "dataset/html/evaluation.html"
    assert evaluation.read_text().startswith('{% extends "dataset/html/base.html" %}')
    bases = tuple(f'{{% extends "dataset/html/{name}.html" %}}' for name in ("base", "evaluation"))
    for path in [*pages, evaluation]:
        text = path.read_text()
        assert text.startswith(bases)
        assert "<style" not in text
        assert "| safe" not in text
