"""Write the page of the demo: all images that the demo made, and the 3D model."""

from collections.abc import Sequence
from pathlib import Path

from dataset.format.shards import read_index
from distill.view.page import Section, write_page

LEAD = (
    "All steps of the pipeline, run on this machine in minutes. The demo shows that the pipeline works. Larger models "
    "trained on more objects reach a higher quality."
)


def write_demo_page(out: Path, image: Path, steps: Sequence[tuple[str, Sequence[str], float]]) -> Path:
    """Write the page `out`/index.html and return its path.

    Args:
        out: Folder of the demo.
        image: The image that was distilled.
        steps: Title, arguments after `python -m`, and time in seconds of each step.

    Raises:
        UserError: An image or the 3D model is missing.
    """
    page = out / "index.html"
    write_page(page, "Isotropic3D: the demo", _sections(out, image, steps), lead=LEAD)
    return page


def _sections(out: Path, image: Path, steps: Sequence[tuple[str, Sequence[str], float]]) -> list[Section]:
    asset, index = out / "asset", read_index(str(out / "shards"))
    return [
        Section(
            "Result",
            "The mesh distilled from the embedding of one image. Drag to turn it.",
            images=[(asset / "input.png", "The input image, as the model sees it")],
            glb=(asset / "mesh.glb", "mesh.glb: the textured mesh"),
        ),
        Section(
            "Turntable",
            "The distilled field: colors, normals and shape (white under one light).",
            video=(asset / "turntable.mp4", "One turn"),
            images=[(asset / "views.png", "Eight views")],
        ),
        Section(
            "Views",
            "Objects rendered by Blender: 16 fixed and 16 random views each, lit by environment maps.",
            figures=[
                ("objects", str(index.objects)),
                ("views", str(index.views)),
                ("size of the shards", f"{index.bytes / 1e6:.1f} MB"),
            ],
            images=[(out / "preview.png", "Four fixed views (left) and four random views (right) of some objects")],
        ),
        *_training(out),
        Section(
            "Views of the input image",
            "This image was not seen in training." if image == Path("examples/cat.png") else "",
            images=[(out / "sample.png", "The input image, and four views sampled from its embedding only")],
        ),
        Section(
            "Distillation",
            images=[(path, f"Step {int(path.stem.split('-')[1])}") for path in _some(asset / "previews", 4)],
        ),
        Section(
            "Time",
            "Measured on this machine, in this run:",
            figures=[(title, f"{seconds:.0f} s") for title, _, seconds in steps]
            + [("total", f"{sum(seconds for *_, seconds in steps) / 60:.1f} minutes")],
        ),
        Section("Commands", "\n\n".join(f"python -m {' '.join(arguments)}" for _, arguments, _ in steps)),
    ]


def _training(out: Path) -> list[Section]:
    row = "Each row is one object: the reference image, the four true views, and four views sampled from the "
    second = Section(
        "Training: Explicit Multi-view Attention",
        row + "embedding of the reference only, at two guidance scales. In training, the clean reference image joins "
        "the noisy views; here it is absent.",
        images=[(_last(out / "model" / "samples"), "After training: reference | truth | samples")],
    )
    if not (out / "stage1").is_dir():  # fine-tuned
        return [second]
    first = Section(
        "Stage 1: condition the multi-view model on images",
        row + "embedding of the reference only.",
        images=[(_last(out / "stage1" / "samples"), "After stage 1: reference | truth | samples")],
    )
    return [first, second]


def _last(folder: Path) -> Path:
    """Return the newest numbered image, or the name of a missing image, which the page's error message then shows."""
    images = sorted(folder.glob("step-*.png"))
    return images[-1] if images else folder / "step-*.png"


def _some(folder: Path, count: int) -> list[Path]:
    """Return `count` images of a numbered series, evenly spread and including the last."""
    images = sorted(folder.glob("step-*.png"))
    if len(images) <= count:
        return images
    return [images[round(i * (len(images) - 1) / (count - 1))] for i in range(count)]
