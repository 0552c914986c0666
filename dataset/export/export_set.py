"""Write the objects of a shard set in the file layout of another program. Repeating the command resumes an export.

The folders of an object are written under temporary names and renamed when they are complete, and the files of the
whole set are written last, so an export that is killed loses at most the objects it was writing.
"""

import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple

from fsspec.implementations.local import LocalFileSystem

from dataset.errors import UserError
from dataset.export.colmap import COLMAP
from dataset.export.layout import Files, Layout
from dataset.export.nerf import NERF
from dataset.export.syncdreamer import SYNCDREAMER
from dataset.export.zero123 import ZERO123
from dataset.io.files import TEMPORARY_SUFFIX, read_json, write_file_atomic, write_json_atomic
from dataset.io.lock import locked_file
from dataset.io.progress import ProgressBar
from dataset.io.read_ahead import map_ahead
from dataset.io.resume import differences, settings_differ
from dataset.reading.filters import Filters, check_not_empty, select
from dataset.reading.rendered_object import Place, read_object
from dataset.reading.shard_set import ShardSet

LAYOUTS: Final[Mapping[str, Layout]] = {layout.name: layout for layout in (NERF, SYNCDREAMER, ZERO123, COLMAP)}
REQUEST_NAME: Final = "export.json"
_AHEAD: Final = 2  # objects per thread that are read ahead
_ALL: Final = Filters()


class Exported(NamedTuple):
    """Result of an export: number of objects in the output folder, and how many of them were written by this call."""

    objects: int
    written: int


def export_set(
    url: str,
    out: Path,
    layout: Layout,
    *,
    filters: Filters = _ALL,
    workers: int | None = None,
    progress: bool = False,
) -> Exported:
    """Write the objects of a shard set into the folder `out`, in the file layout of another program.

    A repeated call resumes an export that was interrupted.

    Args:
        url: Folder or fsspec URL of the set.
        out: Output folder: new, empty, or that of the same export.
        layout: The file layout.
        filters: Conditions that objects must meet to be exported.
        workers: Number of threads that decode and encode images. None: one per CPU.
        progress: Show a progress bar.

    Raises:
        UserError: The set is unusable, no object passes the filters, a member is damaged, a file cannot be written, or
            `out` contains anything other than results of this export.
    """
    workers = (os.cpu_count() or 1) if workers is None else workers
    if workers < 1:
        raise UserError(f"the option --workers is {workers}; give an integer of at least 1")
    selection = select(url, filters)
    check_not_empty([selection], filters)
    shards = ShardSet(url, kept=selection.kept)
    with locked_file(out, "export"):
        for folder in list(_temporary_folders(out)):
            shutil.rmtree(folder)
        _claim(out, {"layout": layout.name, "set": shards.fingerprint})
        places = [(shard, sample) for shard, count in enumerate(shards.samples_per_shard) for sample in range(count)]
        uids = [shards.uid(*place) for place in places]
        missing = [place for place, uid in zip(places, uids, strict=True) if not _is_finished(out, layout, uid)]
        with (
            ProgressBar(
                total=len(places),
                initial=len(places) - len(missing),
                unit="object",
                desc="export",
                disable=not progress,
            ) as bar,
            ThreadPoolExecutor(workers, thread_name_prefix="export") as pool,
        ):
            for _ in map_ahead(
                pool, lambda place: _export_object(shards, place, out, layout), missing, _AHEAD * workers
            ):
                bar.update()
        for path, data in layout.set_files(uids).items():
            write_file_atomic(out / path, data)
    return Exported(len(places), len(missing))


def _claim(out: Path, request: Mapping[str, Any]) -> None:
    """Store the request of an export in its output folder, or compare it with the stored request.

    Raises:
        UserError: The folder contains another export, or other files.
    """
    fs, path = LocalFileSystem(), str((out / REQUEST_NAME).absolute())
    remedy = f"give another folder, or delete {out} to export again"
    if (out / REQUEST_NAME).exists():
        if lines := differences(read_json(fs, path, remedy), request):
            raise UserError(settings_differ(f"the export in {out}", lines.values(), remedy))
        return
    if out.exists() and (foreign := sorted(entry.name for entry in out.iterdir())):
        raise UserError(f"{out} is not empty (it contains {foreign[0]}) and is no export; give a new or empty folder")
    write_json_atomic(fs, path, dict(request))


def _is_finished(out: Path, layout: Layout, uid: str) -> bool:
    return all((out / folder).is_dir() for folder in layout.folders_of(uid))


def _export_object(shards: ShardSet, place: Place, out: Path, layout: Layout) -> None:
    """Write the folders of one object."""
    meta = shards.meta(*place)
    if meta.projection != "perspective":
        raise UserError(
            f"{shards.url}: the object {meta.uid} has {meta.projection} cameras (rig {meta.rig}), which the layout "
            f"{layout.name} cannot describe; export a set with perspective cameras"
        )
    item = read_object(shards, place, layout.views)
    files = layout.object_files(item)
    for folder in layout.folders_of(item.uid):
        inside = {
            path.removeprefix(f"{folder}/"): data for path, data in files.items() if path.startswith(f"{folder}/")
        }
        _write_folder(out / folder, inside)


def _write_folder(folder: Path, files: Files) -> None:
    """Write a folder with `files`, whose paths are relative to it, under a temporary name. Then rename it.

    Raises:
        UserError: The folder cannot be written.
    """
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}{TEMPORARY_SUFFIX}")
    try:
        for parent in sorted({str((temporary / path).parent) for path in files}):
            Path(parent).mkdir(parents=True, exist_ok=True)
        for path, data in files.items():
            (temporary / path).write_bytes(data)
        if folder.exists():  # left by a call that was interrupted between two folders of this object
            shutil.rmtree(folder)
        temporary.rename(folder)
    except OSError as error:
        raise UserError(
            f"cannot write {folder}: {error.strerror or error}; check the free disk space and the permissions, then "
            "repeat the command"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _temporary_folders(out: Path) -> Iterator[Path]:
    """Yield the temporary folders that killed exports left in the folder `out` or in one of its subfolders."""
    for pattern in (f".*{TEMPORARY_SUFFIX}", f"*/.*{TEMPORARY_SUFFIX}"):
        yield from (path for path in out.glob(pattern) if path.is_dir())
