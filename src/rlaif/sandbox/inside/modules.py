"""What the zygote imports before it forks, so that no program pays for it (and so that none has to, once files are out of reach)."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import os
import sys
from types import ModuleType
from typing import Any

_STANDARD = """abc ast codecs collections collections.abc contextlib copy copyreg dataclasses enum functools gc inspect io itertools json
keyword linecache locale math numbers opcode operator os re reprlib select signal stat string struct threading time token tokenize traceback types
typing warnings weakref encodings.latin_1 encodings.ascii"""
"""What one program in twenty or so imports. Not more: a compiled module is five mappings for each fork to copy and each exit to undo, used or not,
some 60 microseconds, where a program that wants it can load it in a millisecond. So hashlib's six are not here, nor random, decimal and datetime; and
nothing may import `importlib.abc`, which brings half of the library along."""
_NUMPY = "numpy numpy.linalg numpy.fft numpy.random numpy.polynomial numpy.ma numpy.testing numpy.lib.stride_tricks numpy.rec numpy.char"
_COMPILED = """_asyncio _bisect _blake2 _bz2 _contextvars _csv _datetime _decimal _elementtree _heapq _json _lsprof _lzma _md5 _opcode _pickle
_posixsubprocess _queue _random _sha1 _sha2 _sha256 _sha3 _sha512 _socket _statistics _struct _uuid _zoneinfo array binascii cmath fcntl grp math
mmap pyexpat resource select unicodedata zlib"""


_LINKED = "zlib _bz2 _lzma _decimal pyexpat _uuid"
"""Compiled modules that may need a shared library from outside of Python's own folders."""


def preload(numpy: bool) -> None:
    """Import everything that programs commonly use."""
    for name in _STANDARD.split() + (_NUMPY.split() if numpy else []):
        _import(name)


def _import(name: str) -> None:
    try:
        importlib.import_module(name)
    except Exception:  # not in this Python, or numpy is broken: the solution is told so when it imports it
        sys.modules.pop(name, None)


def linked() -> list[str]:
    """The shared libraries that those modules need, so that a program may open them: what a process that has loaded them has mapped more."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        before = _mapped()
        for name in _LINKED.split():
            _import(name)
        os.write(writer, "\n".join(_mapped() - before).encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as stream:
        found = stream.read().splitlines()
    os.waitpid(pid, 0)
    return sorted(found)


def _mapped() -> set[str]:
    try:
        with open("/proc/self/maps") as stream:
            return {line.split(maxsplit=5)[5].rstrip("\n") for line in stream if ".so" in line and "/" in line}
    except OSError:
        return set()  # macOS, which has no such rules either


def reachable(folder: str) -> bool:
    """True if any uid can read the library by its path."""
    path = os.path.join(folder, "os.py")
    try:
        if not os.stat(path).st_mode & 0o004:
            return False
        while (path := os.path.dirname(path)) != "/":
            if not os.stat(path).st_mode & 0o001:
                return False
    except OSError:
        return False
    return True


def rebase(old: str, new: str) -> None:
    """Let imports find under `new` what Python knows under `old`, without ever listing the folder (Landlock will forbid it)."""

    def moved(path: str) -> str:
        return new + path[len(old) :] if path == old or path.startswith(old + "/") else path

    sys.path[:] = [moved(path) for path in sys.path]
    for module in list(sys.modules.values()):
        if isinstance(getattr(module, "__path__", None), list):
            module.__path__ = [moved(path) for path in module.__path__]
    sys.path_importer_cache.clear()
    importlib.util.find_spec("no_such_module")  # fills the finders' caches of names


class DescriptorFinder:
    """Imports pure Python modules of the standard library through an open folder descriptor.

    For an interpreter that lives where the children's own uid may not go (in root's home, say). Landlock still decides
    which files can be opened.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def find_spec(self, fullname: str, path: Any = None, target: ModuleType | None = None) -> Any:
        stem = fullname.replace(".", "/")
        for name, package in ((f"{stem}/__init__.py", True), (f"{stem}.py", False)):
            try:
                os.close(os.open(name, os.O_RDONLY, dir_fd=self.fd))
            except OSError:
                continue
            return importlib.machinery.ModuleSpec(fullname, self, origin=name, is_package=package)
        return None

    def create_module(self, spec: Any) -> None:
        """As usual."""

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None and module.__spec__.origin is not None
        with os.fdopen(os.open(module.__spec__.origin, os.O_RDONLY, dir_fd=self.fd), "rb") as stream:
            source = importlib.util.decode_source(stream.read())
        exec(compile(source, module.__spec__.origin, "exec", dont_inherit=True), module.__dict__)


def preload_extensions() -> None:
    """Load the library's compiled modules that others are built on, since a descriptor cannot give them."""
    for name in _COMPILED.split():
        _import(name)
