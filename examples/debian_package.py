"""Read files out of a Debian package (.deb) without installing it, or out of a folder of its installed files."""

import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Final

from dataset.errors import UserError, one_line

MAX_FILE_BYTES: Final = 512 << 20
_AR_MAGIC: Final = b"!<arch>\n"
_AR_HEADER_BYTES: Final = 60


def package_files(source: Path, suffix: str) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Yield (path, content) of every file in a .deb or folder whose name ends with `suffix`, ignoring case.

    Paths in a package are relative to the root of the file system; paths in a folder are relative to the folder. The
    files of a folder are sorted by path; the files of a package are in the order of its archive.

    Args:
        source: The .deb file, or the folder.
        suffix: End of the file names in lower case, such as ".png".

    Raises:
        UserError: The source is missing, is neither a folder nor a Debian package, is corrupt, or has no such file.
    """
    found = False
    for path, content in _folder_files(source, suffix) if source.is_dir() else _deb_files(source, suffix):
        found = True
        yield path, content
    if not found:
        raise UserError(
            f"{source} contains no {suffix} file; give the package's .deb file, or the folder of its installed files"
        )


def _folder_files(folder: Path, suffix: str) -> Iterator[tuple[PurePosixPath, bytes]]:
    for path in sorted(folder.rglob("*")):
        if path.name.lower().endswith(suffix) and path.is_file():
            _check_bytes(path, path.stat().st_size)
            try:
                yield PurePosixPath(path.relative_to(folder).as_posix()), path.read_bytes()
            except OSError as error:
                raise UserError(f"{path} cannot be read ({error.strerror}); check its permissions") from error


def _deb_files(deb: Path, suffix: str) -> Iterator[tuple[PurePosixPath, bytes]]:
    try:
        with deb.open("rb") as file:
            _seek_data(file, deb)
            with tarfile.open(fileobj=file, mode="r|*") as tar:
                for member in tar:
                    if member.isfile() and member.name.lower().endswith(suffix):
                        _check_bytes(Path(member.name), member.size)
                        content = tar.extractfile(member)
                        if content is not None:
                            yield PurePosixPath(member.name), content.read()
    except OSError as error:
        raise UserError(f"{deb} cannot be read ({one_line(error)}); check the path and its permissions") from error
    except (tarfile.TarError, EOFError) as error:
        raise UserError(
            f"the package {deb} is damaged or compressed in an unknown way ({one_line(error)}); download the package "
            "again, or unpack the package with `dpkg-deb -x` and give the folder"
        ) from error


def _seek_data(file: IO[bytes], deb: Path) -> None:
    """Move to the first byte of the member data.tar.* of a .deb, which is an `ar` archive."""
    if file.read(len(_AR_MAGIC)) != _AR_MAGIC:
        raise UserError(
            f"{deb} is not a Debian package; give a .deb file, or the folder of the package's installed files"
        )
    while len(header := file.read(_AR_HEADER_BYTES)) == _AR_HEADER_BYTES:
        if header.startswith(b"data.tar"):
            return
        size = header[48:58].strip()
        if not size.isdigit():
            break
        file.seek(int(size) + int(size) % 2, 1)
    raise UserError(f"the package {deb} is damaged, because it has no member data.tar; download the package again")


def _check_bytes(path: Path, size: int) -> None:
    if size > MAX_FILE_BYTES:
        raise UserError(
            f"the file {path} has {size:,} bytes, more than the limit of {MAX_FILE_BYTES:,}; give an unmodified package"
        )
