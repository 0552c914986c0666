"""Summarize which kinds the judge named, and write the results as JSON, Markdown, an HTML page and a contact sheet."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

from dataset.html.templates import data_url, render_page
from dataset.io.files import json_bytes, write_file_atomic
from distill.evaluate.photos.class_bank import FittedRules
from distill.evaluate.photos.config import PhotoEvaluationArgs
from distill.evaluate.photos.images import LabelledImage
from distill.evaluate.photos.rules import TITLES, RuleName
from distill.evaluate.photos.sheet import SheetRow, write_sheet
from train.evaluate.metrics import CONFIDENCE, wilson
from train.evaluate.report import without_nan
from train.evaluate.tables import ResultTable

Stage = Literal["input", "samples", "asset"]
INPUT: Final[Stage] = "input"
SAMPLES: Final[Stage] = "samples"
ASSET: Final[Stage] = "asset"
STAGE_TITLES: Final[Mapping[Stage, str]] = {
    "input": "input image (the judge's own limit)",
    "samples": "four sampled views",
    "asset": "asset, four sides",
}
SHEET: Final = "sheet.jpg"
COMMON_KIND: Final = 10  # smallest number of rendered objects of a kind that has its own table row
_SHEET_ROWS: Final = 600  # more do not fit the 65,500 rows of pixels of a JPEG
RESULTS: Final = "evaluation.json"


@dataclass(frozen=True)
class Naming:
    """The three likeliest kinds in the judge's opinion, and the rank of the right kind, from 1."""

    top3: tuple[str, ...]
    rank: int


@dataclass(frozen=True)
class ImageResult:
    """What the judge named in the views of one image. A stage is missing if it failed or was not asked for."""

    image: LabelledImage
    files: Mapping[Stage, Path]
    namings: Mapping[tuple[Stage, RuleName], Naming]
    failure: str = ""

    def rank(self, stage: Stage, rule: RuleName) -> float:
        """Return the rank of the right kind; infinity for a stage that failed, so that it counts as wrong."""
        naming = self.namings.get((stage, rule))
        return naming.rank if naming else float("inf")


def write_photo_report(
    args: PhotoEvaluationArgs,
    results: Sequence[ImageResult],
    rules: FittedRules,
    left_out: Sequence[LabelledImage],
    *,
    objects: Mapping[str, int],
    renders: int,
) -> str:
    """Write evaluation.json, evaluation.md, evaluation.html and the contact sheet, which shows the first 600 images.

    Args:
        args: The options of the command.
        results: The named images.
        rules: The rules of the judge.
        left_out: Images whose kind the judge does not know.
        objects: All kinds that the judge knows, and the number of rendered objects of each that it learned from.
        renders: Number of renders that the judge learned from.

    Returns:
        The first table and the paths of the files, as text for the command to print.
    """
    stages: list[Stage] = [INPUT, SAMPLES] if args.samples_only else [INPUT, SAMPLES, ASSET]
    all_tables = _tables(results, rules, stages, objects)
    notes = _notes(args, rules, results, left_out, kinds=len(objects), renders=renders)
    title = f"Right kind of object in images of {args.images}"
    lead = f"{_images(len(results))} of {len({each.image.label for each in results})} kinds, model {args.model}."
    summary = {
        "options": {name: _plain(value) for name, value in asdict(args).items()},
        "rule": rules.best,
        "held_out_accuracy": dict(rules.accuracies),
        "held_out_object_accuracy": dict(rules.object_accuracies),
        "kinds": dict(objects),
        "rates": {stage: {rule: _rate_json(results, stage, rule) for rule in TITLES} for stage in stages},
        "images": [_image_json(args.out, each, rules.best, stages) for each in results],
        "left_out": {each.name: each.label for each in left_out},
        "notes": notes,
    }
    write_file_atomic(args.out / RESULTS, json_bytes(without_nan(summary)))
    note_list = "\n".join(f"- {note}" for note in notes)
    body = "\n".join(table.markdown() for table in all_tables)
    text = f"# {title}\n\n{lead}\n\n{body}\n## How it was measured\n\n{note_list}\n"
    write_file_atomic(args.out / "evaluation.md", text.encode())
    write_sheet([sheet_row(each, rules.best, stages) for each in results[:_SHEET_ROWS]], args.out / SHEET)
    page = {
        "title": title,
        "lead": lead,
        "tables": all_tables,
        "notes": notes,
        "images": _page_rows(results, rules, stages),
    }
    write_file_atomic(args.out / "evaluation.html", render_page("distill/evaluate/photos/page.html", page).encode())
    return f"{all_tables[0].markdown()}\nwrote {args.out}/evaluation.json, evaluation.md, evaluation.html and {SHEET}"


def sheet_row(result: ImageResult, rule: RuleName, stages: Sequence[Stage]) -> SheetRow:
    """Return the row of an image on the contact sheet: its strips, and what the judge named in them."""
    texts = [result.image.label]
    for stage in stages:
        naming = result.namings.get((stage, rule))
        texts.append(f"{stage}: failed" if naming is None else verdict(stage, naming.top3, naming.rank))
    return SheetRow(tuple(result.files.get(stage) for stage in stages), tuple(texts))


def verdict(stage: str, top3: Sequence[str], rank: int) -> str:
    """Return what the judge named in a stage as a short text, from its first names and the rank of the right kind."""
    return f"{stage}: {top3[0]}{' (right)' if rank == 1 else ''}"


def _tables(
    results: Sequence[ImageResult], rules: FittedRules, stages: Sequence[Stage], objects: Mapping[str, int]
) -> list[ResultTable]:
    note = (
        f"Percentage of images; in brackets the {CONFIDENCE:.0%} interval (Wilson). Right: the judge's first name. "
        "Among three: the right kind is among its first three names."
    )
    head = ("what the judge sees", "images", "right %", "among three %")
    rows = tuple(_rate_row(STAGE_TITLES[stage], results, stage, rules.best) for stage in stages)
    styles = sorted({each.image.style for each in results})
    by_style = tuple(
        _rate_row(f"{style}: {STAGE_TITLES[stage]}", [r for r in results if r.image.style == style], stage, rules.best)
        for style in styles
        for stage in stages
    )
    return [
        ResultTable("Right kind", note, head, rows),
        *_common_kinds_table(results, rules.best, stages, head, objects),
        *_nameable_table(results, rules.best, stages, head),
        ResultTable("By style", note, head, by_style),
        _kind_table(results, rules.best, stages),
        _rule_table(results, rules, stages),
        _image_table(results, rules.best, stages),
    ]


def _common_kinds_table(
    results: Sequence[ImageResult],
    rule: RuleName,
    stages: Sequence[Stage],
    head: tuple[str, ...],
    objects: Mapping[str, int],
) -> list[ResultTable]:
    """Return the table of the images of kinds with at least COMMON_KIND objects; no table if these are all or none."""
    common = [each for each in results if objects[each.image.label] >= COMMON_KIND]
    if len(common) in (0, len(results)):
        return []
    rare = {each.image.label: objects[each.image.label] for each in results if objects[each.image.label] < COMMON_KIND}
    names = ", ".join(f"{kind} ({count})" for kind, count in sorted(rare.items()))
    note = f"The same without the kinds that have fewer than {COMMON_KIND} objects in the shard sets: {names}."
    rows = tuple(_rate_row(STAGE_TITLES[stage], common, stage, rule) for stage in stages)
    return [ResultTable("Kinds with enough objects", note, head, rows)]


def _nameable_table(
    results: Sequence[ImageResult], rule: RuleName, stages: Sequence[Stage], head: tuple[str, ...]
) -> list[ResultTable]:
    """Return the table of the images whose input the judge names right; no table if there are none."""
    nameable = [each for each in results if each.rank(INPUT, rule) == 1]
    if not nameable:
        return []
    note = "The same for the images whose input the judge names right. It leaves out errors that are the judge's own."
    rows = tuple(_rate_row(STAGE_TITLES[stage], nameable, stage, rule) for stage in stages if stage != INPUT)
    return [ResultTable("Images that the judge names right", note, head, rows)]


def _rate_row(title: str, results: Sequence[ImageResult], stage: Stage, rule: RuleName) -> tuple[str, ...]:
    return title, str(len(results)), *(_rate_text(results, stage, rule, most) for most in (1, 3))


def _rate_text(results: Sequence[ImageResult], stage: Stage, rule: RuleName, most: int) -> str:
    right = sum(each.rank(stage, rule) <= most for each in results)
    low, high = wilson(right, len(results))
    return f"{right / len(results):.1%} [{low:.1%}, {high:.1%}]".replace("%", "")


def _rate_json(results: Sequence[ImageResult], stage: Stage, rule: RuleName) -> dict[str, Any]:
    counts = {
        name: sum(each.rank(stage, rule) <= most for each in results) for name, most in (("top1", 1), ("top3", 3))
    }
    intervals = {f"{name}_interval": wilson(count, len(results)) for name, count in counts.items()}
    return {"images": len(results), **counts, **intervals}


def _kind_table(results: Sequence[ImageResult], rule: RuleName, stages: Sequence[Stage]) -> ResultTable:
    rows = []
    for kind in sorted({each.image.label for each in results}):
        group = [each for each in results if each.image.label == kind]
        right = (str(sum(each.rank(stage, rule) == 1 for each in group)) for stage in stages)
        rows.append((kind, str(len(group)), *right))
    return ResultTable("Kind by kind", "Number of images named right.", ("kind", "images", *stages), tuple(rows))


def _rule_table(results: Sequence[ImageResult], rules: FittedRules, stages: Sequence[Stage]) -> ResultTable:
    rows = tuple(
        (
            TITLES[rule] + (" (chosen)" if rule == rules.best else ""),
            *(f"{share[rule]:.1%}".replace("%", "") for share in (rules.accuracies, rules.object_accuracies)),
            *(_rate_text(results, stage, rule, 1) for stage in stages),
        )
        for rule in TITLES
    )
    note = f"Right kind in percent by each rule of the judge. The rule with the highest accuracy on {rules.held_out} "
    note += "held-out renders, each a single view, is used for all other tables. For held-out objects, the scores of "
    note += "their renders are averaged, as for samples and assets."
    return ResultTable("Rules of the judge", note, ("rule", "held-out renders %", "held-out objects %", *stages), rows)


def _image_table(results: Sequence[ImageResult], rule: RuleName, stages: Sequence[Stage]) -> ResultTable:
    rows = tuple((each.image.path.name, each.image.label, *(_names(each, s, rule) for s in stages)) for each in results)
    return ResultTable("Image by image", "The judge's first three names.", ("image", "kind", *stages), rows)


def _names(result: ImageResult, stage: Stage, rule: RuleName) -> str:
    naming = result.namings.get((stage, rule))
    return "failed" if naming is None else ", ".join(naming.top3)


def _notes(
    args: PhotoEvaluationArgs,
    rules: FittedRules,
    results: Sequence[ImageResult],
    left_out: Sequence[LabelledImage],
    *,
    kinds: int,
    renders: int,
) -> list[str]:
    notes = [
        f"Judge: EfficientNet-{args.judge.capitalize()} with ImageNet weights, pooled features, not trained by this "
        f"project. It learned {kinds} kinds from {renders} renders, at most {args.objects_per_kind} objects per "
        f"kind and {args.views_per_object} random views per object. Rule: {TITLES[rules.best]}.",
        "The judge receives pixels only, all at the model's image size. For several views of one object, its scores "
        "are averaged. By guessing, it would be right for "
        f"{100 / kinds:.1f} % of the images.",
        f"Views: four around the object, sampled from the embedding of the image alone with {args.ddim_steps} DDIM "
        "steps. Assets: the field without lighting, from four sides at an elevation of 15 degrees.",
    ]
    if left_out:
        names = ", ".join(f"{each.path.name} ({each.label})" for each in left_out)
        notes.append(f"Left out, since no rendered object is of their kind: {names}.")
    notes += [f"{each.image.path.name} counts as wrong: {each.failure}" for each in results if each.failure]
    return notes


def _image_json(out: Path, result: ImageResult, rule: RuleName, stages: Sequence[Stage]) -> dict[str, Any]:
    return {
        "file": result.image.path.name,
        "label": result.image.label,
        "style": result.image.style,
        "failure": result.failure,
        "strips": {stage: str(path.relative_to(out)) for stage, path in result.files.items()},
        "named": {
            stage: {"top3": naming.top3, "rank": naming.rank}
            for stage in stages
            if (naming := result.namings.get((stage, rule)))
        },
    }


def _page_rows(results: Sequence[ImageResult], rules: FittedRules, stages: Sequence[Stage]) -> list[dict[str, Any]]:
    embed: Callable[[Path], str] = lambda path: data_url("image/png", path.read_bytes())  # noqa: E731
    return [
        {
            "file": each.image.path.name,
            "label": each.image.label,
            "strips": [
                {"title": STAGE_TITLES[stage], "names": _names(each, stage, rules.best), "source": embed(path)}
                for stage in stages
                if (path := each.files.get(stage))
            ],
        }
        for each in results
    ]


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value


def _images(count: int) -> str:
    return f"{count} image{'' if count == 1 else 's'}"
