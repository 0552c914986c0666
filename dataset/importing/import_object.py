"""Import one object: read its cameras and images, check them, and write a sample, in a worker process."""

import hashlib
import resource
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np

from dataset.camera import Float64Array, c2w_to_spherical
from dataset.errors import UserError
from dataset.format.manifest import escape_name
from dataset.format.outcomes import Failure, Flag
from dataset.format.schema import (
    EXTENDED_VERSION,
    Hdri,
    Meta,
    Normalization,
    Projection,
    RendererValue,
    View,
    ViewKey,
    ViewSet,
    dump_meta,
    member_name,
    meta_name,
)
from dataset.images.prepare import encode_webp
from dataset.importing.errors import CameraFileError, ViewImageError
from dataset.importing.images import Size, ViewImage, padding, read_view_image, stored_size
from dataset.importing.placement import Placement, choose_views, place_cameras
from dataset.importing.settings import ImportSettings
from dataset.importing.source import SOURCE_NAME, SourceObject, camera_files, file_sha256, read_views
from dataset.importing.source_view import SourceView
from dataset.quality_flags import alpha_coverage, image_flags, in_order

RIG: Final = "import v1"
_UNKNOWN_LIGHT: Final = Hdri("unknown", 0.0, 1.0)


class ImportTask(NamedTuple):
    """An object to import. `resolution` is the number of pixels per side of all images of the set."""

    item: SourceObject
    resolution: int
    settings: ImportSettings


@dataclass(frozen=True)
class ImportedObject:
    """The result of an import: the members of the sample (full name -> data), or the reason why there are none."""

    members: Mapping[str, bytes]
    failure: Failure | None
    flags: tuple[str, ...] = ()
    sha256: str = ""  # of the camera files and of the images that were used
    notes: tuple[str, ...] = ()  # sentences for the user
    left_out: int = 0  # views
    seconds: float = 0.0
    peak_rss_mb: float = 0.0  # of the worker process so far


def import_object(task: ImportTask) -> ImportedObject:
    """Import an object. An object that cannot be used gives a result with `failure`, without an exception."""
    start = time.monotonic()
    try:
        result = _import(task)
    except UserError as error:
        failure = Failure("import", type(error).__name__, escape_name(f"{task.item.uid}: {error}"))
        result = ImportedObject({}, failure)
    peak_rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return replace(result, seconds=time.monotonic() - start, peak_rss_mb=peak_rss_mb)


def _import(task: ImportTask) -> ImportedObject:
    item, settings = task.item, task.settings
    views = read_views(item.folder, settings)
    projection = _check_views(views)
    size = views[0].lens.size or stored_size(views[0].path, views[0].place)
    c2w, K = np.stack([view.c2w for view in views]), np.stack([_square_K(view, size) for view in views])
    try:
        placed = place_cameras(c2w, K, max(size), projection, settings)
    except CameraFileError as error:
        raise CameraFileError(f"{camera_files(item.folder, settings.layout)[0]}: {error}") from error
    chosen, left_out = choose_views(placed.c2w, settings.max_views)
    images = {key: _read(views[index], size, task) for key, index in chosen}
    flags = _flags(list(images.values()))
    if "empty" in flags:
        raise ViewImageError("the object is invisible in all images: their alpha is 0; render the images again")
    sha256 = _digest(task, [views[index] for _, index in chosen])
    stored: dict[ViewSet, tuple[View, ...]] = {"fixed": (), "random": ()}
    for key, index in chosen:
        stored[key[0]] += (_view(placed, index, images[key], task.resolution / max(size)),)
    meta = Meta(
        schema_version=EXTENDED_VERSION,
        uid=item.uid,
        source=SOURCE_NAME,
        license=settings.license,
        author=settings.creator,
        asset_sha256=sha256,
        resolution=task.resolution,
        seed=0,
        hdri=_UNKNOWN_LIGHT,
        normalization=Normalization("given", placed.scale, _triple(placed.offset)),
        renderer=_origin(settings, views, size, left_out),
        views=stored,
        rig=RIG,
        projection=projection,
    )
    names = {member_name(item.uid, *key): encode_webp(image.rgba) for key, image in images.items()}
    notes = tuple(_notes(placed, len(views), images))
    return ImportedObject({meta_name(item.uid): dump_meta(meta), **names}, None, flags, sha256, notes, left_out)


def _check_views(views: list[SourceView]) -> Projection:
    """Return the projection of all views. Raises CameraFileError if views contradict each other."""
    seen: dict[str, str] = {}
    for view in views:
        if (earlier := seen.setdefault(str(view.path), view.place)) != view.place:
            raise CameraFileError(f"{view.place}: the image {view.path.name} is also in {earlier}; list it once")
    projections = {view.lens.projection for view in views}
    if len(projections) > 1:
        raise CameraFileError(
            f"{views[0].place}: the object has perspective and orthographic cameras; put them into two folders"
        )
    return projections.pop()


def _square_K(view: SourceView, size: Size) -> Float64Array:
    """Return the intrinsic matrix [3, 3] of the padded image. Raises CameraFileError if it is implausible."""
    if view.lens.size not in (None, size):
        raise CameraFileError(
            f"{view.place}: w and h are {view.lens.size}, but those of the first image are {size}; all images of an "
            "object must have the same size"
        )
    if min(size) < 1:
        raise CameraFileError(f"{view.place}: w and h are {size}; they must be positive")
    K = view.lens.K(*size, view.place)
    K[:2, 2] += padding(size)
    return K


def _read(view: SourceView, size: Size, task: ImportTask) -> ViewImage:
    return read_view_image(view.path, view.place, size, task.resolution, opaque=task.settings.opaque)


def _view(placed: Placement, index: int, image: ViewImage, factor: float) -> View:
    """Return the camera of a stored image, whose pixel coordinates are `factor` times those of the padded original."""
    elevation_deg, azimuth_deg, distance = c2w_to_spherical(placed.c2w[index])
    K = placed.K[index].copy()
    K[:2] *= factor
    return View(
        elevation_deg=float(elevation_deg),
        azimuth_deg=float(azimuth_deg),
        distance=float(distance),
        c2w=tuple(map(tuple, placed.c2w[index].tolist())),
        K=tuple(map(tuple, K.tolist())),
        alpha_coverage=alpha_coverage(image.rgba),
        clipped=image.clipped,
    )


def _flags(images: list[ViewImage]) -> tuple[Flag, ...]:
    """Return the quality flags of an object. A white background without transparency is not part of the object."""
    flags = {*image_flags([image.rgba for image in images])} - {"clipped"}
    if not all(image.has_alpha for image in images):
        flags -= {"near-white", "white-parts"}
    return in_order([*flags, *(("clipped",) if any(image.clipped for image in images) else ())])


def _origin(settings: ImportSettings, views: list[SourceView], size: Size, left_out: int) -> dict[str, RendererValue]:
    """Return what the metadata say instead of the settings of a renderer."""
    return {
        "name": "unknown (imported)",
        "layout": settings.layout,
        "source_views": len(views),
        "views_left_out": left_out,
        "source_width": size[0],
        "source_height": size[1],
        "opaque": settings.opaque,
    }


def _notes(placed: Placement, total: int, images: Mapping[ViewKey, ViewImage]) -> list[str]:
    notes = []
    if placed.unseen:
        notes.append(
            f"{placed.unseen} of {total} cameras do not show the origin, where the object should be; --center moves "
            "the point that the cameras look at there"
        )
    if dark := sum(not image.white_border for image in images.values()):
        notes.append(f"{dark} images have a background that is not white; training composites on white")
    return notes


def _digest(task: ImportTask, views: list[SourceView]) -> str:
    """Return one sha256 of the camera files and of the images of an object."""
    paths = [*camera_files(task.item.folder, task.settings.layout), *(view.path for view in views)]
    return hashlib.sha256("\n".join(map(file_sha256, paths)).encode()).hexdigest()


def _triple(offset: Float64Array) -> tuple[float, float, float]:
    x, y, z = map(float, offset)
    return x, y, z
