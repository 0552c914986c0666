"""Read the labelled images of a folder, and choose those to evaluate."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from dataset.errors import UserError
from dataset.reading.labels import PHOTO_COLUMNS, read_image_table
from distill.evaluate.photos.class_bank import stable_hash


@dataclass(frozen=True)
class LabelledImage:
    """An image file, the kind of the object that it shows, and its style, such as photo or drawing."""

    path: Path
    label: str
    style: str

    @property
    def name(self) -> str:
        """The name of the file without its extension, which names its results."""
        return self.path.stem


def read_images(folder: Path) -> list[LabelledImage]:
    """Return the images of known kinds that labels.csv in a folder lists.

    Raises:
        UserError: labels.csv or an image is missing, a row is incomplete or invalid, or two images have the same name.
    """
    remedy = (
        "make the folder with python -m examples.photos, or write a CSV file with the columns "
        f"{', '.join(PHOTO_COLUMNS)}"
    )
    images: dict[str, LabelledImage] = {}
    for row in read_image_table(folder, PHOTO_COLUMNS, remedy):
        if row.cells["known"] != "yes":
            continue
        image = LabelledImage(row.path, row.cells["label"], row.cells["style"])
        if not image.path.is_file():
            raise UserError(f"{row.place}: {image.path} does not exist; restore the image or remove the row")
        if image.name in images:
            raise UserError(f"{row.place}: a second image is called {image.name}; rename one of them")
        images[image.name] = image
    return list(images.values())


def select_images(images: Sequence[LabelledImage], patterns: Sequence[str]) -> list[LabelledImage]:
    """Return the images whose file names match a pattern, in the order of `by_kind_in_turn`.

    Args:
        images: The images.
        patterns: Patterns of file names, as in the shell. Empty: all images.

    Raises:
        UserError: no image matches.
    """
    matching = [each for each in images if not patterns or any(fnmatch(each.path.name, p) for p in patterns)]
    if not matching:
        raise UserError(
            f"none of the {len(images)} images of known kinds matches {' or '.join(patterns) or 'the selection'}; give "
            "other --files, or another folder with --images"
        )
    return by_kind_in_turn(matching)


def by_kind_in_turn(images: Sequence[LabelledImage]) -> list[LabelledImage]:
    """Order images: the first of each kind, then the second of each kind, and so on.

    Kinds are ordered by a hash of their names, and the images of a kind by a hash of the names of their files. So the
    first images are a fixed choice that does not depend on results.
    """
    ranks: dict[str, int] = defaultdict(int)
    keyed = []
    for image in sorted(images, key=lambda each: stable_hash(each.name)):
        keyed.append((ranks[image.label], stable_hash(image.label), image))
        ranks[image.label] += 1
    return [image for *_, image in sorted(keyed, key=lambda key: key[:2])]
