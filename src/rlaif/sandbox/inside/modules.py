"""What the zygote imports before it forks, so that no program pays for it (and so that none has to, once files are out of reach)."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from types import ModuleType
from typing import Any

_STANDARD = """abc array ast base64 binascii bisect cmath codecs collections collections.abc contextlib contextvars copy copyreg csv dataclasses
datetime decimal enum fractions functools gc hashlib heapq inspect io itertools json keyword linecache locale math numbers opcode operator os
queue random re reprlib select signal stat statistics string struct threading time token tokenize traceback types typing unicodedata
warnings weakref zlib encodings.latin_1 encodings.ascii _strptime"""
_NUMPY = "numpy numpy.linalg numpy.fft numpy.random numpy.polynomial numpy.ma numpy.testing numpy.lib.stride_tricks numpy.rec numpy.char"
_COMPILED = """_asyncio _bisect _blake2 _bz2 _contextvars _csv _datetime _decimal _elementtree _heapq _json _lsprof _lzma _md5 _opcode _pickle
_posixsubprocess _queue _random _sha1 _sha2 _sha256 _sha3 _sha512 _socket _statistics _struct _uuid _zoneinfo array binascii cmath fcntl grp math
mmap pyexpat resource select unicodedata zlib"""


def preload(numpy: bool) -> None:
    """Import everything that programs commonly use."""
    for name in _STANDARD.split() + (_NUMPY.split() if numpy else []):
        _import(name)


def _import(name: str) -> None:
    try:
        importlib.import_module(name)
    except Exception:  # not in this Python, or numpy is broken: the solution is told so when it imports it
        sys.modules.pop(name, None)


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


class DescriptorFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
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

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None and module.__spec__.origin is not None
        with os.fdopen(os.open(module.__spec__.origin, os.O_RDONLY, dir_fd=self.fd), "rb") as stream:
            source = importlib.util.decode_source(stream.read())
        exec(compile(source, module.__spec__.origin, "exec", dont_inherit=True), module.__dict__)


def preload_extensions() -> None:
    """Load the library's compiled modules that others are built on, since a descriptor cannot give them."""
    for name in _COMPILED.split():
        _import(name)
