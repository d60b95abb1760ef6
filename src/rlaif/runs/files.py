"""Writing so that a crash, a second process or a full disk loses nothing: atomic replacement, whole-line appends, tolerant reading."""

from __future__ import annotations

import errno
import json
import math
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rlaif.errors import RunFailed

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def explained_os_errors(path: Path, try_next: str = "") -> Iterator[None]:
    """Turns an OSError of a write into RunFailed with what to do about it."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            hint = try_next or "free some space (older runs and their checkpoints/ are the large ones), then go on with --resume"
            raise RunFailed(f"No space left to write {path}", "What was written before is intact.", hint) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise RunFailed(
                f"No permission to write {path}", error.strerror or "", "choose another --output_dir, or fix the folder's permissions"
            ) from error
        raise RunFailed(f"Cannot write {path}", error.strerror or str(error), try_next or "check the disk, then go on with --resume") from error


def dumps(value: Any, indent: int | None = None) -> str:
    """Strict JSON: NaN and infinities become null (a browser refuses them), paths and scalars of other libraries their plain value."""
    try:
        return json.dumps(value, allow_nan=False, indent=indent, default=_plain)
    except ValueError:
        return json.dumps(_finite(json.loads(json.dumps(value, default=_plain))), allow_nan=False, indent=indent)


def write_text_atomic(path: Path, text: str) -> None:
    """Readers see the old file or the new one, never a half, and after a crash too: written beside, synced, renamed."""
    with explained_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(beside, 0o666 & ~_umask())
            os.replace(beside, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(beside)
            raise
        _sync_folder(path.parent)


def write_json_atomic(path: Path, value: Any) -> None:
    write_text_atomic(path, dumps(value, indent=2) + "\n")


def append_lines(path: Path, rows: Iterable[Any]) -> None:
    """Append rows as JSON lines in one synced write. All of them or none: a write that fails is taken back."""
    data = "".join(dumps(row) + "\n" for row in rows).encode()
    if not data:
        return
    with explained_os_errors(path), open(path, "ab") as file:
        end = file.seek(0, os.SEEK_END)
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            with suppress(OSError):
                os.ftruncate(file.fileno(), end)
            raise


def read_lines(path: Path, offset: int = 0) -> Iterator[tuple[int, Any]]:
    """Yields (byte offset after the line, the row) from `offset` on. A line still being written, or torn by a crash, ends the reading.

    NaN and infinities, which `dumps` never writes but other hands may, are read as the null that it writes for them.
    Raises RunFailed for a damaged line that is not the last one.
    """
    if not path.exists():
        return
    with open(path, "rb") as file:
        file.seek(offset)
        number = 0
        for line in file:
            number += 1
            offset += len(line)
            if not line.endswith(b"\n"):
                return
            if not line.strip():
                continue
            try:
                row = json.loads(line, parse_constant=lambda name: None)
            except ValueError as error:
                if file.read(1):
                    raise RunFailed(f"{path}, line {number} is damaged", str(error), "delete that line, or rebuild the run") from None
                return
            yield offset, row


def keep_lines(path: Path, keep: Any) -> int:
    """Rewrite a JSONL file with the rows for which `keep(row)` holds, a torn last line dropped; returns how many lines went. Constant memory."""
    if not path.exists():
        return 0
    beside = path.with_name(f".{path.name}.tmp")
    gone = 0
    with explained_os_errors(path):
        with open(beside, "wb") as out:
            kept_bytes = 0
            for _, row in read_lines(path):
                if keep(row):
                    line = (dumps(row) + "\n").encode()
                    kept_bytes += len(line)
                    out.write(line)
                else:
                    gone += 1
            out.flush()
            os.fsync(out.fileno())
        if not gone and kept_bytes == path.stat().st_size:
            beside.unlink()
            return 0
        os.replace(beside, path)
        _sync_folder(path.parent)
    return gone


def _plain(value: Any) -> Any:
    """What `json` does not know: pydantic models, paths, sets, and scalars or arrays of numpy and torch (by their own methods)."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value


def _sync_folder(folder: Path) -> None:
    # Without it a rename can be lost by a power cut; some file systems and Windows cannot sync a folder, which is no reason to stop.
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
