"""The demo's page: every picture that the demo made, and the model to turn."""

from collections.abc import Sequence
from pathlib import Path

from dataset.format.shards import read_index
from distill.view.page import Section, write_page

LEAD = (
    "Every step of the pipeline, run on this machine in minutes: it shows that the pipeline works, not what it can "
    "reach with larger models and more objects."
)


def write_demo_page(out: Path, image: Path, steps: Sequence[tuple[str, Sequence[str], float]]) -> Path:
    """Write `out`/index.html. `steps`: title, arguments after `python -m`, seconds."""
    page = out / "index.html"
    write_page(page, "Isotropic3D: the demo", _sections(out, image, steps), lead=LEAD)
    return page


def _sections(out: Path, image: Path, steps: Sequence[tuple[str, Sequence[str], float]]) -> list[Section]:
    asset, index = out / "asset", read_index(str(out / "shards"))
    return [
        Section(
            "The result",
            "One picture's embedding, distilled. Drag to turn it.",
            images=[(asset / "input.png", "The picture, as the model sees it")],
            glb=(asset / "mesh.glb", "mesh.glb: the textured mesh"),
        ),
        Section(
            "All around",
            "The distilled field: its colours, its normals, and its shape alone under one lamp.",
            video=(asset / "turntable.mp4", "In one turn"),
            images=[(asset / "views.png", "From eight sides")],
        ),
        Section(
            "Views",
            "Objects rendered by Blender: 16 fixed and 16 random views each, lit by environment maps.",
            figures=[
                ("objects", str(index.objects)),
                ("views", str(index.views)),
                ("size of the shards", f"{index.bytes / 1e6:.1f} MB"),
            ],
            images=[(out / "preview.png", "Fixed views (left four) and random views (right four) of some objects")],
        ),
        *_training(out),
        Section(
            "Views of the picture",
            "The picture was never seen in training." if image == Path("examples/cat.png") else "",
            images=[(out / "sample.png", "The picture, and four views sampled from its embedding alone")],
        ),
        Section(
            "Distillation on its way",
            images=[(path, f"Step {int(path.stem.split('-')[1])}") for path in _some(asset / "previews", 4)],
        ),
        Section(
            "What it took",
            "On this machine, in this run:",
            figures=[(title, f"{seconds:.0f} s") for title, _, seconds in steps]
            + [("all", f"{sum(seconds for *_, seconds in steps) / 60:.1f} minutes")],
        ),
        Section("The commands", "\n\n".join(f"python -m {' '.join(arguments)}" for _, arguments, _ in steps)),
    ]


def _training(out: Path) -> list[Section]:
    row = "Each row is one object: the reference picture, the four true views, four views sampled from the "
    second = Section(
        "Training: Explicit Multi-view Attention",
        row + "reference's embedding alone, at two guidance scales. The clean reference joins the noisy views in "
        "training and is absent here.",
        images=[(_last(out / "model" / "samples"), "After training: reference | truth | samples")],
    )
    if not (out / "stage1").is_dir():  # fine-tuned
        return [second]
    first = Section(
        "Stage 1: a multi-view model learns to see",
        row + "reference's embedding alone.",
        images=[(_last(out / "stage1" / "samples"), "After stage 1: reference | truth | samples")],
    )
    return [first, second]


def _last(folder: Path) -> Path:
    """The newest numbered picture; the missing file's name when there is none, for the page's error."""
    pictures = sorted(folder.glob("step-*.png"))
    return pictures[-1] if pictures else folder / "step-*.png"


def _some(folder: Path, count: int) -> list[Path]:
    """`count` pictures of a numbered series, evenly spread, the last among them."""
    pictures = sorted(folder.glob("step-*.png"))
    if len(pictures) <= count:
        return pictures
    return [pictures[round(i * (len(pictures) - 1) / (count - 1))] for i in range(count)]
