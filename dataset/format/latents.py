"""Define the format of a latent set: the arrays of each view, the member names, and `latents.json`.

A latent set is encoded from a shard set of images and has the same layout: tars with the same names, the same objects
in the same order, `NAME.json` and `index.json` (see `dataset.format.shards`). An object consists of a copy of its
metadata, `UID.meta.json`, and one member per view, `UID.fixed_00.npy` ... `UID.random_15.npy`. The member of a view is
a flat float16 array. It contains the mean of the VAE's posterior (channels * height * width values), then optionally
the log variance of the posterior (as many values), then the image embedding (optional for the fixed views).
`latents.json` says which of these values are stored.

The last file that is written for a shard is `NAME.table.npz`. Its arrays contain the values that every training step
needs: the positions of the members in the tar (from `NAME.json`) and the camera angles (from the metadata). Parsing
these values from JSON would take longer than reading the latents.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from dataset.errors import UserError
from dataset.format.schema import VIEW_SETS, VIEWS_PER_SET, Meta, ViewSet, member_name, meta_name
from dataset.format.shards import SET_NAME, ShardStats
from dataset.io.files import exists, url_to_fs

LATENTS_FILE: Final = "latents.json"
LATENTS_VERSION: Final = 1
Embedded = Literal["all", "random"]
FLOAT16: Final = np.dtype("<f2")
Float16 = NDArray[np.float16]


@dataclass(frozen=True)
class LatentFormat:
    """The contents of `latents.json`: the parts of a view's array, and the networks that computed them."""

    schema_version: int
    channels: int
    height: int
    width: int
    embedding: int  # size of an embedding
    logvar: bool
    embedded: Embedded  # views with an embedding; "random": those that can be a reference
    latent_scale: float  # of the model; stored values are not multiplied by it
    image_size: int  # pixels per side of the autoencoder's input
    precision: str  # of the encoding: float32, or bfloat16 autocast
    vae_sha256: str  # of the weights
    image_tower_sha256: str
    pictures: tuple[str, ...]  # sha256 of the tars of the shard set, in order

    @property
    def latent_numbers(self) -> int:
        """Number of values in the latent of one view: channels * height * width."""
        return self.channels * self.height * self.width

    def numbers(self, view_set: ViewSet) -> int:
        """Return how many float16 values the array of one view has. `view_set` is "fixed" or "random"."""
        latents = self.latent_numbers * (2 if self.logvar else 1)
        return latents + (self.embedding if self.has_embedding(view_set) else 0)

    def has_embedding(self, view_set: ViewSet) -> bool:
        return self.embedded in ("all", view_set)

    @cached_property
    def headers(self) -> dict[ViewSet, bytes]:
        """View set -> the bytes of the .npy header. Each member of the view set begins with this header."""
        return {view_set: _npy_header(self.numbers(view_set)) for view_set in VIEW_SETS}

    def member_bytes(self, view_set: ViewSet) -> int:
        return len(self.headers[view_set]) + FLOAT16.itemsize * self.numbers(view_set)


def _npy_header(numbers: int) -> bytes:
    buffer, data = io.BytesIO(), np.zeros(numbers, FLOAT16)
    np.save(buffer, data)
    return buffer.getvalue()[: -data.nbytes]


def latent_name(uid: str, view_set: ViewSet, index: int) -> str:
    return member_name(uid, view_set, index).removesuffix(".webp") + ".npy"


def latent_names(uid: str) -> list[str]:
    """Return the names of the 33 members of the object `uid`, in their order in a shard."""
    return [meta_name(uid)] + [latent_name(uid, s, i) for s in VIEW_SETS for i in range(VIEWS_PER_SET)]


def dump_view(form: LatentFormat, view_set: ViewSet, numbers: Float16) -> bytes:
    """Return the bytes of the .npy member of one view.

    Args:
        form: Format of the latent set.
        view_set: Whether the view is one of the "fixed" or of the "random" views.
        numbers: The values of the view: flat float16 array [n] with n = `form.numbers(view_set)`.

    Raises:
        ValueError: `numbers` has another shape or dtype.
    """
    if numbers.shape != (form.numbers(view_set),) or numbers.dtype != np.float16:
        raise ValueError(
            f"the array of a {view_set} view must have {form.numbers(view_set)} float16 values; got an array of "
            f"{numbers.dtype} with the shape {numbers.shape}"
        )
    return form.headers[view_set] + numbers.astype(FLOAT16).tobytes()


def dump_table(stats: ShardStats, metas: Sequence[Meta]) -> bytes:
    """Return the contents of `NAME.table.npz`, the index table of a finished latent shard.

    The file contains five arrays: `uids` [objects]; `places`, int64 [objects, 33, 3], with the offset, size and crc32
    of the metadata and then of each view in schema order; `elevation_deg` and `azimuth_deg`, each float64 [objects, 2
    view sets, 16 views]; and `sha256`, the hash of the tar.

    Args:
        stats: Statistics of the shard.
        metas: Metadata of the shard's objects, in the order of `stats.samples`.
    """
    suffixes = [name.removeprefix("x.") for name in latent_names("x")]
    places = [[sample.members[suffix] for suffix in suffixes] for sample in stats.samples]
    views = [[meta.views[view_set] for view_set in VIEW_SETS] for meta in metas]
    shape = (len(views), len(VIEW_SETS), VIEWS_PER_SET)
    angles = {
        name: np.array([[[getattr(view, name) for view in of_set] for of_set in sets] for sets in views]).reshape(shape)
        for name in ("elevation_deg", "azimuth_deg")
    }
    buffer = io.BytesIO()
    np.savez(  # a zip with fixed dates and checksums
        buffer,
        uids=np.array([sample.uid for sample in stats.samples], np.str_),
        places=np.array(places, np.int64).reshape(len(places), len(suffixes), 3),
        sha256=np.array(stats.sha256),
        **angles,
    )
    return buffer.getvalue()


def table_file(shard: str) -> str:
    return f"{shard}.table.npz"


def encode_on(url: str) -> str:
    """Return the end of an error message about an incomplete latent set at `url`: what to do."""
    return f"repeat the `python -m train.encode ... {url}` command"


def encode_again(url: str, shard: str) -> str:
    """Return what to do about a damaged shard of the latent set at `url`, as the end of an error message.

    The encoder rewrites a shard whose statistics file `NAME.json` is missing.
    """
    return f"delete {url}/{shard}.json and {encode_on(url)}"


def read_format(url: str) -> LatentFormat:
    """Read `latents.json` of the latent set at `url`, which may be incomplete.

    Raises:
        UserError: There is no latent set at `url`, or its `latents.json` is invalid.
    """
    fs, root = url_to_fs(url)
    path = f"{root}/{LATENTS_FILE}"
    if not exists(fs, path):
        what = "a set of images, not of latents" if exists(fs, f"{root}/{SET_NAME}") else "not a latent set"
        raise UserError(f"{url} is {what}; write a latent set with `python -m train.encode SHARDS OUT --model MODEL`")
    try:
        return parse_format(json.loads(fs.cat_file(path)))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} is invalid ({error}); {encode_on(url)} into an empty folder") from error


def parse_format(raw: dict[str, Any]) -> LatentFormat:
    """Convert the parsed contents of `latents.json`, as returned by `format_json`, to a `LatentFormat`.

    Raises:
        ValueError: A field has an invalid value.
        TypeError: A field is missing or unknown.
        KeyError: The schema version or the list of tars is missing.
    """
    if raw["schema_version"] != LATENTS_VERSION:
        raise ValueError(
            f"schema_version is {raw['schema_version']}, but this program reads version {LATENTS_VERSION} only"
        )
    form = LatentFormat(**{**raw, "pictures": tuple(raw["pictures"])})
    sizes = (form.channels, form.height, form.width, form.embedding)
    if not all(isinstance(size, int) and size > 0 for size in sizes):
        raise ValueError(f"channels, height, width and embedding are {sizes}; each must be a positive integer")
    if form.embedded not in get_args(Embedded) or not isinstance(form.logvar, bool):
        raise ValueError(
            f"embedded is {form.embedded!r} and logvar is {form.logvar!r}; embedded must be one of "
            f"{get_args(Embedded)}, and logvar true or false"
        )
    return form


def format_json(form: LatentFormat) -> dict[str, Any]:
    normalized: dict[str, Any] = json.loads(json.dumps(asdict(form)))
    return normalized
