"""What a child gives up before it runs code: the layers, each tried at start in a throw-away child and reported.

Everything goes through ctypes, so that no compiler is needed. The order matters: limits, then uid, then no_new_privs,
Landlock, and seccomp last, because each step needs a call that a later one takes away.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from typing import Any

from . import landlock, limits, native, seccomp

PARALLEL = os.cpu_count() or 1
"""A program's threads can burn this many CPU seconds a second, so its clock is looked at that much sooner."""

LINUX = sys.platform == "linux"
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS, PR_SET_CHILD_SUBREAPER = 1, 4, 38, 36
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWNET = 0x20000, 0x4000000, 0x8000000, 0x40000000
MS_RDONLY, MS_NOSUID_NODEV_NOEXEC, MS_REC_PRIVATE, MS_BIND_REC, MNT_DETACH = 1, 14, 0x44000, 0x5000, 2
MAX_OPEN_FILES = 64
MAX_THREADS = 256
SCRATCH_OPTIONS = "size=16m,nr_inodes=512,mode=700"
FIRST_UID = 61184
"""Numbers that systemd keeps for short-lived services; nobody owns a file under them."""
UIDS_EACH = 64
"""The client says which block of numbers is whose: `protocol.UID_BLOCKS` of them are there."""
SHM = "/dev/shm"

libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int) -> native.Call:
    return native.call("prctl", option, value, 0, 0, 0)


def prctl(option: int, value: int) -> bool:
    """True if the kernel agreed."""
    function, words = _prctl(option, value)
    return function(*words) == 0


def _read(path: str) -> str:
    try:
        with open(path) as stream:
            return stream.read().strip()
    except OSError:
        return ""


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None) -> bool:
    def raw(text: str | None) -> bytes | None:
        return None if text is None else text.encode()

    return libc.mount(raw(source), raw(target), raw(kind), ctypes.c_ulong(flags), raw(data)) == 0


def drop_capabilities() -> None:
    """For a root that cannot change its uid: keep the number, lose the powers."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    if libc.capset(header, (ctypes.c_uint32 * 6)()) != 0:
        raise OSError(ctypes.get_errno(), "capset")


class Jail:
    """The layers of this machine. Lives in Z, and so does all of it but the calls that it prepares for a child."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.zygote = os.getpid()
        self.off = set(options["without"])
        self.root = os.geteuid() == 0
        self.first_uid = FIRST_UID + options["block"] * UIDS_EACH
        self.layers: dict[str, bool] = {"rlimits": True, "session": True}
        self.own_uid = LINUX and self.root and "own_uid" not in self.off and self._can_change_uid()
        self.mounts = LINUX and self.root and "mounts" not in self.off and self._private_mounts()
        self.covered = self._cover_packages()
        self.filter: seccomp.Filter | None = None
        self.landlock = LINUX and "landlock" not in self.off and landlock.abi() > 0
        self.base: str | None = None
        self.scratch: dict[int, str | None] = {}
        self.rules: dict[int, int] = {}
        self.prepared: dict[int, tuple[tuple[Any, ...], list[native.Call]]] = {}
        self.threads_fd = -1
        self.extra = [path for name in ("numpy", "numpy.libs") if options.get("site") and os.path.isdir(path := os.path.join(options["site"], name))]
        self.extra += options.get("libraries", ())
        limits.lower("CORE", 0)
        self.most_cpu, self.most_memory = limits.ceiling("CPU"), limits.ceiling("AS")
        self.dumpable_after_setuid = _read("/proc/sys/fs/suid_dumpable") != "0"
        if self.own_uid:  # what children share is done once, here
            os.setgroups([])
            os.setresgid(FIRST_UID, FIRST_UID, FIRST_UID)
            limits.lower("NPROC", MAX_THREADS)
        self.layers |= {"own_uid": self.own_uid, "private_mounts": self.mounts, "bubblewrap": bool(options.get("bubblewrap"))}
        self.layers["sandbox_exec"] = bool(options.get("sandbox_exec"))
        if LINUX:
            self.layers["subreaper"] = prctl(PR_SET_CHILD_SUBREAPER, 1)
            self.layers["non_dumpable"] = prctl(PR_SET_DUMPABLE, 0)
            self.layers["no_new_privs"] = "no_new_privs" not in self.off and prctl(PR_SET_NO_NEW_PRIVS, 1)
            for name in ("MEMLOCK", "MSGQUEUE", "RTPRIO"):
                limits.lower(name, 0)
            if not self.own_uid:
                with contextlib.suppress(OSError):
                    self.threads_fd = os.open("/proc/loadavg", os.O_RDONLY)
            if "seccomp" not in self.off and self.layers["no_new_privs"]:
                with contextlib.suppress(OSError):
                    self.filter = seccomp.Filter()
        self.landlock = self.landlock and self.layers.get("no_new_privs", False)
        self.layers |= {"seccomp": self.filter is not None, "landlock": self.landlock}
        self.caged = self.landlock and self.filter is not None

    @staticmethod
    def _can_change_uid() -> bool:
        pid = os.fork()
        if pid == 0:
            try:
                os.setgroups([])
                os.setresgid(FIRST_UID, FIRST_UID, FIRST_UID)
                os.setresuid(FIRST_UID, FIRST_UID, FIRST_UID)
                os._exit(0)
            except OSError:
                os._exit(1)
        return os.waitpid(pid, 0)[1] == 0

    @staticmethod
    def _private_mounts() -> bool:
        """A mount table of our own, so that every program can have a small private tmpfs; no network, while we are at it."""
        if not os.path.isdir(SHM) or libc.unshare(CLONE_NEWNS) != 0:
            return False
        libc.unshare(CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS)
        return _mount(None, "/", None, MS_REC_PRIVATE, None) and _mount("scratch", SHM, "tmpfs", MS_NOSUID_NODEV_NOEXEC, "size=1m,mode=711")

    def _cover_packages(self) -> bool:
        """Put an empty file system over installed packages, for us and our children only. False if one must be seen or cannot be covered."""
        folders = [f"{folder}/{name}" for folder in landlock.library_folders() for name in landlock.PACKAGES]
        site = self.options.get("site")
        if not self.mounts or any(site and os.path.realpath(site) == folder for folder in folders):
            return False
        flags = MS_RDONLY | MS_NOSUID_NODEV_NOEXEC
        return all(_mount("nothing", folder, "tmpfs", flags, "size=4k,nr_inodes=2,mode=755") for folder in folders if os.path.isdir(folder))

    def bind(self, folder: str) -> str | None:
        """Make a folder that children's uids cannot reach visible to them, in our own mount table only; the new path."""
        target = f"{SHM}/library"
        if not self.mounts:
            return None
        os.mkdir(target, 0o755)
        return target if _mount(folder, target, None, MS_BIND_REC, None) else None

    # -- scratch folders: one a slot, emptied after each program ----------------------------------------------------------
    def _scratch(self, slot: int) -> str | None:
        if self.mounts:
            path = f"{SHM}/{slot}"
            os.mkdir(path)
            return path if self._fresh(slot, path) else None
        if self.caged and not self.options["bubblewrap"]:
            return None  # Landlock grants nothing: a folder on a real disk could be filled (bubblewrap's /tmp is small)
        if self.base is None:
            import tempfile  # rarely needed, and what is imported here is copied for every child

            self.base = tempfile.mkdtemp(prefix="rlaif-sandbox-")
            os.chmod(self.base, 0o711)
        path = f"{self.base}/{slot}"
        os.mkdir(path, 0o700)
        if self.own_uid:
            os.chown(path, self.first_uid + slot % UIDS_EACH, FIRST_UID)
        return path

    def _fresh(self, slot: int, path: str) -> bool:
        owner = self.first_uid + slot % UIDS_EACH if self.own_uid else 0
        return _mount("scratch", path, "tmpfs", MS_NOSUID_NODEV_NOEXEC, f"{SCRATCH_OPTIONS},uid={owner},gid={FIRST_UID if self.own_uid else 0}")

    def before(self, slot: int) -> None:
        """In Z, before the fork: the slot's scratch folder and rules exist. Raises OSError."""
        if slot in self.scratch:
            return
        scratch = self._scratch(slot)
        if self.landlock:
            self.rules[slot] = landlock.ruleset(self.extra, scratch, self.covered)
        self.scratch[slot] = scratch

    def after(self, slot: int) -> None:
        """In Z, after the child was reaped: nothing of it may remain."""
        path = self.scratch[slot]
        if self.filter is None:
            self._kill_orphans()
        if path is None:
            return
        if self.mounts:
            if os.listdir(path):
                libc.umount2(path.encode(), MNT_DETACH)
                self._fresh(slot, path)
                if self.landlock:  # the rules name the old file system
                    os.close(self.rules.pop(slot))
                    self.rules[slot] = landlock.ruleset(self.extra, path, self.covered)
                    self.prepared.pop(slot, None)
            return
        import shutil

        with contextlib.suppress(OSError):
            os.chmod(path, 0o700)
            for entry in os.scandir(path):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    os.unlink(entry.path)

    def _kill_orphans(self) -> None:
        """Without seccomp a program can leave its group; then its children become ours (subreaper) and die here."""
        live = self.options["live"]
        for _ in range(20):
            try:
                with open(f"/proc/self/task/{os.getpid()}/children") as stream:
                    strays = [pid for pid in map(int, stream.read().split()) if pid not in live]
            except (OSError, ValueError):
                return
            if not strays:
                return
            for pid in strays:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
                with contextlib.suppress(OSError):
                    os.waitpid(pid, 0)

    def close(self) -> None:
        """Before Z ends."""
        if self.base is not None:
            import shutil

            shutil.rmtree(self.base, ignore_errors=True)

    # -- the child -------------------------------------------------------------------------------------------------------
    def calls(self, slot: int, keep: int, cpu_s: float, memory: int, fsize: int) -> list[native.Call]:
        """In Z: what the child is to call before it runs anything, in this order; descriptors below `keep` stay open.

        Prepared here, because each name that a child looks up is a page or two that is copied for it. A call that gives -1 or raises was
        refused: then nothing runs.
        """
        key = (keep, cpu_s, memory, fsize)
        if self.prepared.get(slot, ((), []))[0] != key:
            self.prepared[slot] = key, self._calls(slot, *key)
        return self.prepared[slot][1]

    def _calls(self, slot: int, keep: int, cpu_s: float, memory: int, fsize: int) -> list[native.Call]:
        seconds = int(cpu_s) + 2  # Z's clock is the limit; this is for a Z that is late
        calls: list[native.Call] = [(os.chdir, (self.scratch[slot] or "/",))]
        calls += [limits.call("CPU", min(seconds, self.most_cpu), min(seconds + 1, self.most_cpu))]
        if LINUX:
            calls += [limits.call("AS", *[min(memory, self.most_memory)] * 2)]
        calls += [limits.call("FSIZE", fsize, fsize), limits.call("NOFILE", MAX_OPEN_FILES, MAX_OPEN_FILES)]
        if self.own_uid:
            calls += [(os.setresuid, (self.first_uid + slot % UIDS_EACH,) * 3)]
        elif not self.root:
            calls += [(self._limit_threads, ())]
        elif self.caged:
            calls += [(drop_capabilities, ())]
        if LINUX:
            calls += [_prctl(PR_SET_PDEATHSIG, signal.SIGKILL), (_stay_with, (self.zygote,))]
            if self.dumpable_after_setuid:
                calls += [_prctl(PR_SET_DUMPABLE, 0)]
        if self.landlock:
            calls += [landlock.restriction(self.rules[slot])]
        calls += [(os.closerange, (keep, 65536 if LINUX else 4096))]
        if self.filter is not None:
            calls += [(self.filter.aim, ()), self.filter.installation()]
        return calls

    def _limit_threads(self) -> None:
        """RLIMIT_NPROC counts all of the user's threads, so it has to start from how many there are on the machine."""
        if self.threads_fd >= 0:
            total = int(os.pread(self.threads_fd, 100, 0).split()[3].split(b"/")[1])
            limits.lower("NPROC", total + MAX_THREADS)
        elif self.filter is None:
            limits.lower("NPROC", 512)


def _stay_with(zygote: int) -> None:
    """A parent that died before the death signal was asked for sends none."""
    if os.getppid() != zygote:
        os._exit(95)
