"""The marker of a checkpoint: written last, it lists the files that belong to it and seals their contents.

Files are sealed by size and SHA-256. In ``config.json`` and ``tokenizer_config.json``, which hold other programs'
settings too, only our own fields are sealed, so a ``pad_token_id`` or a ``torch_dtype`` may be changed on a hub. Model
cards and code are synced and not sealed. Hashes are cached for as long as a file's inode, size and times stay the same.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from spectral_core.plain_data import from_json
from spectral_models.errors import CheckpointError

MARKER = "complete.json"
_OURS: Mapping[str, tuple[str, ...]] = {
    "config.json": ("schema_version", "spectral", "components", "quantization"),
    "tokenizer_config.json": ("eos_token",),
}
"""The sealed fields of files that hold fields of other programs too."""
_UNSEALED = (".md", ".py")
"""Endings of files that may be edited: a model card, the code that lets Hugging Face load the checkpoint."""
_LARGEST_JSON = 16 << 20
_RECENT_NS = 2_000_000_000
"""On coarse file systems, a younger file may be written again without a change of its times."""
_ATTEMPTS = 10
_hashes: dict[tuple[int, ...], str] = {}

T = TypeVar("T")


def write_marker(directory: Path, name: str, files: Iterable[str]) -> None:
    """Sync files, then write the marker that lists and seals them."""
    entries: dict[str, dict[str, Any]] = {}
    for file in files:
        path = directory / file
        sync(path)
        if path.suffix in _UNSEALED:
            continue
        if file in _OURS:
            entries[file] = {"fields_sha256": _fields_digest(path)}
        else:
            entries[file] = {"bytes": path.stat().st_size, "sha256": _digest(path)}
    marker = directory / name
    marker.write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")
    sync(marker)
    sync(directory)


def verify(directory: Path, marker: str = MARKER, files: Collection[str] = (), *, only: bool = False) -> None:
    """Raise CheckpointError unless every file matches the marker, and the marker names all of ``files``.

    only: check ``files`` alone. Reads each file that was not hashed before once, at about 1 GiB/s.
    """
    entries = sealed(directory, marker)
    for file in dict.fromkeys([*files, *([] if only else entries)]):
        if file not in entries:
            raise CheckpointError(f"{directory / marker} is damaged: it does not name {file}. Use another checkpoint.")
        _check(directory / file, entries[file])


def sealed(directory: Path, marker: str = MARKER) -> dict[str, Mapping[str, Any]]:
    """The marker's entry of each file. Raises CheckpointError if the marker is missing or damaged."""
    entries = read_json(directory / marker)
    if not all(isinstance(entry, Mapping) and Path(file).name == file for file, entry in entries.items()):
        raise CheckpointError(f"{directory / marker} is damaged. Use another checkpoint.")
    return entries


def _check(path: Path, entry: Mapping[str, Any]) -> None:
    if "fields_sha256" in entry:
        same, what = entry["fields_sha256"] == _fields_digest(path), "the SHA-256 of its model's fields differs"
    else:  # of a file that is all ours, or of any in releases that sealed every file whole
        size = _size(path)
        if size != entry.get("bytes"):
            raise CheckpointError(
                f"{path} is truncated or changed: {size} bytes, not {entry.get('bytes')}. {_remedy(path)}"
            )
        same, what = entry.get("sha256") == _digest(path), "its SHA-256 differs"
    if not same:
        raise CheckpointError(f"{path} was changed after it was saved ({what}). {_remedy(path)}")


def _remedy(path: Path) -> str:
    if path.name not in _OURS:
        return "Use another checkpoint, or copy this one again."
    return (
        "Copy it again, or undo the change; in checkpoints that this release saves, fields of other programs may be "
        "changed."
    )


def read_json(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file of a checkpoint. Raises CheckpointError for anything else."""
    try:
        with _opened(path) as file:
            content = file.read(_LARGEST_JSON + 1)
        if len(content) > _LARGEST_JSON:
            raise CheckpointError(f"{path} has more than {_LARGEST_JSON:,} bytes. Use another checkpoint.")
        found = from_json(content.decode("utf-8"), limited=False)
    except CheckpointError:
        raise
    except ValueError:
        raise CheckpointError(f"{path} is damaged. Use another checkpoint.") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} is damaged: it holds no mapping. Use another checkpoint.")
    return found


def read_stably(path: Path, find: Callable[[Path], Path], read: Callable[[Path], T]) -> T:
    """``read(find(path))``, repeated at most 10 times while other processes replace the checkpoint.

    A failed read is repeated only if the directory or its marker was replaced; damage is an error at once.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        before = _generation(path, find)
        try:
            found = read(find(path))
        except CheckpointError:
            time.sleep(0.002 * attempt)
            if _generation(path, find) == before:
                raise
        else:
            if _generation(path, find) == before:
                return found
    raise CheckpointError(f"{path} was replaced {_ATTEMPTS} times while it was read. Try again, or read a copy.")


def _generation(path: Path, find: Callable[[Path], Path]) -> tuple[int, ...] | None:
    """Identifies one save of a checkpoint; None if there is none."""
    try:
        directory = find(path)
        return tuple(
            number
            for found in (directory.stat(), (directory / MARKER).stat())
            for number in (found.st_dev, found.st_ino, found.st_mtime_ns)
        )
    except (CheckpointError, OSError, ValueError):
        return None


def _opened(path: Path) -> BinaryIO:
    """Opens a regular file. Raises CheckpointError for pipes and devices, which could block or never end."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return os.fdopen(descriptor, "rb")
        os.close(descriptor)
        reason = "is no file"
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL
        missing = isinstance(error, OSError) and error.errno in (errno.ENOENT, errno.ENOTDIR)
        reason = "is missing" if missing else f"is unreadable ({getattr(error, 'strerror', None) or error})"
    raise CheckpointError(
        f"{path.parent} is not a complete checkpoint: {path.name} {reason}. Saving was interrupted, or the path is "
        "wrong."
    )


def _size(path: Path) -> int:
    with _opened(path) as file:
        return os.fstat(file.fileno()).st_size


def _digest(path: Path) -> str:
    """SHA-256 of a file, cached by its inode, size and times."""
    with _opened(path) as file:
        found = os.fstat(file.fileno())
        key = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        if key not in _hashes:
            digest = hashlib.sha256()
            while chunk := file.read(1 << 20):
                digest.update(chunk)
            if time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) < _RECENT_NS:
                return digest.hexdigest()
            _hashes[key] = digest.hexdigest()
        return _hashes[key]


def _fields_digest(path: Path) -> str:
    """SHA-256 of our own fields of a JSON file, independent of their order and of spellings such as 1.0 for 1."""
    content = read_json(path)
    ours = {name: content[name] for name in _OURS[path.name] if name in content}
    plain = json.loads(json.dumps(ours), parse_float=_shortest)
    return hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _shortest(number: str) -> int | float:
    value = float(number)
    return int(value) if value.is_integer() else value


def sync(path: Path) -> None:
    """Flush a file, or the names in a directory, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
