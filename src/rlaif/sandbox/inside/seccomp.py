"""The system calls that a program may make, as a classic BPF allow-list assembled here (x86_64 and aarch64; no compiler needed).

Everything else fails with EPERM, `clone3` with ENOSYS (so that glibc falls back to `clone`, whose flags can be read), and a
call made for another architecture kills. Threads may be made, processes may not; sockets only as a connected stream pair;
signals only to oneself; limits only one's own.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

from . import native

ARCHES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_NAMES = """read write close fstat lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask rt_sigreturn pread64 pwrite64 readv writev preadv
pwritev sched_yield mremap msync mincore madvise dup dup3 nanosleep clock_nanosleep getitimer setitimer getpid gettid getppid getuid geteuid
getgid getegid getresuid getresgid getgroups getpgid getsid exit exit_group wait4 waitid uname flock fsync fdatasync ftruncate getdents64 getcwd
chdir fchdir gettimeofday getrlimit setrlimit getrusage sysinfo times clock_gettime clock_getres sched_getaffinity sched_getparam
sched_getscheduler futex get_robust_list set_robust_list set_tid_address rseq restart_syscall getrandom membarrier getcpu sigaltstack
rt_sigpending rt_sigtimedwait rt_sigsuspend epoll_create1 epoll_ctl epoll_pwait eventfd2 openat newfstatat statx faccessat faccessat2 readlinkat
mkdirat unlinkat renameat renameat2 pipe2 pselect6 ppoll recvfrom sendto recvmsg sendmsg shutdown getsockopt getsockname getpeername close_range
stat lstat access pipe select poll dup2 alarm pause getpgrp getdents rename mkdir rmdir unlink readlink time epoll_create epoll_wait
eventfd open creat"""
_X86 = """read 0 write 1 open 2 close 3 stat 4 fstat 5 lstat 6 poll 7 lseek 8 mmap 9 mprotect 10 munmap 11 brk 12 rt_sigaction 13
rt_sigprocmask 14 rt_sigreturn 15 ioctl 16 pread64 17 pwrite64 18 readv 19 writev 20 access 21 pipe 22 select 23 sched_yield 24 mremap 25
msync 26 mincore 27 madvise 28 dup 32 dup2 33 pause 34 nanosleep 35 getitimer 36 alarm 37 setitimer 38 getpid 39 sendto 44 recvfrom 45
sendmsg 46 recvmsg 47 shutdown 48 getsockname 51 getpeername 52 socketpair 53 getsockopt 55 clone 56 exit 60 wait4 61 kill 62 uname 63
fcntl 72 flock 73 fsync 74 fdatasync 75 ftruncate 77 getdents 78 getcwd 79 chdir 80 fchdir 81 rename 82 mkdir 83 rmdir 84 creat 85 unlink 87
readlink 89 gettimeofday 96 getrlimit 97 getrusage 98 sysinfo 99 times 100 getuid 102 getgid 104 geteuid 107 getegid 108 getppid 110 getpgrp 111
getgroups 115 getresuid 118 getresgid 120 getpgid 121 getsid 124 rt_sigpending 127 rt_sigtimedwait 128 rt_sigsuspend 130 sigaltstack 131
sched_getparam 143 sched_getscheduler 145 setrlimit 160 gettid 186 time 201 futex 202 sched_getaffinity 204 epoll_create 213 getdents64 217
set_tid_address 218 restart_syscall 219 clock_gettime 228 clock_getres 229 clock_nanosleep 230 exit_group 231 epoll_wait 232 epoll_ctl 233
tgkill 234 waitid 247 openat 257 mkdirat 258 newfstatat 262 unlinkat 263 renameat 264 readlinkat 267 faccessat 269 pselect6 270 ppoll 271
set_robust_list 273 get_robust_list 274 epoll_pwait 281 eventfd 284 eventfd2 290 epoll_create1 291 dup3 292 pipe2 293 preadv 295 pwritev 296
prlimit64 302 getcpu 309 renameat2 316 getrandom 318 membarrier 324 statx 332 rseq 334 clone3 435 close_range 436 faccessat2 439"""
_ARM = """getcwd 17 eventfd2 19 epoll_create1 20 epoll_ctl 21 epoll_pwait 22 dup 23 dup3 24 fcntl 25 ioctl 29 flock 32 mkdirat 34 unlinkat 35
renameat 38 ftruncate 46 faccessat 48 chdir 49 fchdir 50 openat 56 close 57 pipe2 59 getdents64 61 lseek 62 read 63 write 64 readv 65
writev 66 pread64 67 pwrite64 68 preadv 69 pwritev 70 pselect6 72 ppoll 73 readlinkat 78 newfstatat 79 fstat 80 fsync 82 fdatasync 83 exit 93
exit_group 94 waitid 95 set_tid_address 96 futex 98 set_robust_list 99 get_robust_list 100 nanosleep 101 getitimer 102 setitimer 103
clock_gettime 113 clock_getres 114 clock_nanosleep 115 sched_getscheduler 120 sched_getparam 121 sched_getaffinity 123 sched_yield 124
restart_syscall 128 kill 129 tgkill 131 sigaltstack 132 rt_sigsuspend 133 rt_sigaction 134 rt_sigprocmask 135 rt_sigpending 136
rt_sigtimedwait 137 rt_sigreturn 139 getresuid 148 getresgid 150 times 153 getpgid 155 getsid 156 getgroups 158 uname 160 getrlimit 163
setrlimit 164 getrusage 165 getcpu 168 gettimeofday 169 getpid 172 getppid 173 getuid 174 geteuid 175 getgid 176 getegid 177 gettid 178
sysinfo 179 socketpair 199 getsockname 204 getpeername 205 sendto 206 recvfrom 207 getsockopt 209 shutdown 210 sendmsg 211 recvmsg 212 brk 214
munmap 215 mremap 216 clone 220 mmap 222 mprotect 226 msync 227 mincore 232 madvise 233 wait4 260 prlimit64 261 renameat2 276 getrandom 278
membarrier 283 statx 291 rseq 293 clone3 435 close_range 436 faccessat2 439"""

CLONE_THREAD, CLONE_NEW_ANYTHING = 0x10000, 0x7E020000 | 0x80
IOCTLS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # TCGETS TIOCGWINSZ FIONREAD FIONBIO FIONCLEX FIOCLEX
FCNTLS = (0, 1, 2, 3, 4, 5, 6, 7, 1030, 1032)  # DUPFD GETFD SETFD GETFL SETFL GETLK SETLK SETLKW DUPFD_CLOEXEC GETPIPE_SZ
AF_UNIX, SOCK_STREAM = 1, 1
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2

_LD, _JEQ, _JGE, _JA, _AND, _RET = 0x20, 0x15, 0x35, 0x05, 0x54, 0x06
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
DENY = ERRNO | errno.EPERM
NR, ARCH = 0, 4

Instruction = tuple[int, int, int, int]


def _arg(index: int) -> int:
    return 16 + 8 * index  # the low half; both supported machines are little-endian


def numbers(machine: str) -> dict[str, int]:
    """System call numbers by name."""
    words = (_X86 if machine == "x86_64" else _ARM).split()
    return dict(zip(words[::2], map(int, words[1::2]), strict=True))


def _one_of(offset: int, values: tuple[int, ...]) -> list[Instruction]:
    checks: list[Instruction] = [(_LD, 0, 0, offset)]
    checks += [(_JEQ, len(values) - index, 0, value) for index, value in enumerate(values)]
    return [*checks, (_RET, 0, 0, DENY), (_RET, 0, 0, ALLOW)]


def program(machine: str, pid: int) -> list[Instruction]:
    """The filter for one process: a binary search for the number of the call.

    A list of ranges tried one after the other is as right, but the kernel runs a filter once for each number there is when it installs it.
    """
    table = numbers(machine)
    own = [(_LD, 0, 0, _arg(0)), (_JEQ, 0, 1, pid), (_RET, 0, 0, ALLOW), (_RET, 0, 0, DENY)]
    thread = [(_LD, 0, 0, _arg(0)), (_AND, 0, 0, CLONE_THREAD | CLONE_NEW_ANYTHING), (_JEQ, 0, 1, CLONE_THREAD)]
    # A datagram socket could send to any address it names, a connected stream cannot.
    pair = [(_LD, 0, 0, _arg(0)), (_JEQ, 0, 4, AF_UNIX), (_LD, 0, 0, _arg(1)), (_AND, 0, 0, 0xF), (_JEQ, 0, 1, SOCK_STREAM)]
    bodies: dict[int, list[Instruction]] = {table[name]: [(_RET, 0, 0, ALLOW)] for name in _NAMES.split() if name in table}
    bodies |= {
        table["clone3"]: [(_RET, 0, 0, ERRNO | errno.ENOSYS)],
        table["clone"]: [*thread, (_RET, 0, 0, ALLOW), (_RET, 0, 0, DENY)],
        table["kill"]: own,
        table["tgkill"]: own,
        table["prlimit64"]: [(_LD, 0, 0, _arg(0)), (_JEQ, 1, 0, 0), (_JEQ, 0, 1, pid), (_RET, 0, 0, ALLOW), (_RET, 0, 0, DENY)],
        table["ioctl"]: _one_of(_arg(1), IOCTLS),
        table["fcntl"]: _one_of(_arg(1), FCNTLS),
        table["socketpair"]: [*pair, (_RET, 0, 0, ALLOW), (_RET, 0, 0, DENY)],
    }
    head = [(_LD, 0, 0, ARCH), (_JEQ, 1, 0, ARCHES[machine]), (_RET, 0, 0, KILL), (_LD, 0, 0, NR)]
    return head + _search(_segments(bodies))


def _segments(bodies: dict[int, list[Instruction]]) -> list[tuple[int, list[Instruction]]]:
    """(first number, what to do from there on), adjacent ones that do the same made one. Numbers without a body, the x32 entry points
    among them, are denied."""
    deny: list[Instruction] = [(_RET, 0, 0, DENY)]
    out = [(0, deny)]
    for number in sorted({*bodies, *(number + 1 for number in bodies)}):
        body = bodies.get(number, deny)
        if body != out[-1][1]:
            out.append((number, body))
    return out


def _search(segments: list[tuple[int, list[Instruction]]]) -> list[Instruction]:
    if len(segments) == 1:
        return segments[0][1]
    middle = len(segments) // 2
    below, above = _search(segments[:middle]), _search(segments[middle:])
    if len(below) < 256:
        return [(_JGE, len(below), 0, segments[middle][0]), *below, *above]
    return [(_JGE, 0, 1, segments[middle][0]), (_JA, 0, 0, len(below)), *below, *above]


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


class Filter:
    """The assembled filter. In the child, `aim` puts its own number in, then the call that `installation` gives loads it. Irreversible."""

    MARK = 0x7ABCDEF1

    def __init__(self) -> None:
        machine = platform.machine()
        if machine not in ARCHES or struct.calcsize("P") != 8:
            raise OSError(errno.ENOSYS, f"no filter for {machine}")
        instructions = program(machine, self.MARK)
        self.code = bytearray(b"".join(struct.pack("<HBBI", *instruction) for instruction in instructions))
        self.places = [8 * index + 4 for index, instruction in enumerate(instructions) if instruction[3] == self.MARK]
        self.put = struct.Struct("<I").pack_into
        self.buffer = (ctypes.c_char * len(self.code)).from_buffer(self.code)
        self.program = _Program(len(instructions), ctypes.addressof(self.buffer))

    def aim(self) -> None:
        """At the process that calls it."""
        pid, code, put = os.getpid(), self.code, self.put
        for place in self.places:
            put(code, place, pid)

    def installation(self) -> native.Call:
        """What loads it."""
        return native.call("prctl", PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(self.program), 0, 0)
