"""Takes from the signer's process what it does not need, before it holds any secret (Linux).

No core dumps, no debugger, no privileges, no memory in the swap, no socket to anywhere, no other program. What the
kernel itself enforces is done with prctl and libseccomp; the audit hook says the same a layer above, where Python is.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import pwd
import resource
import socket
import sys
from collections.abc import Callable
from typing import Any, Final

from signers.config import Outgoing
from signers.errors import BadConfiguration, SignerStopped

_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAPBSET_DROP: Final = 24
_LAST_CAPABILITY: Final = 63
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
_LARGE_BYTES: Final = 256 * 1024
_ARENAS: Final = 2

_SECCOMP_ALLOW: Final = 0x7FFF0000
_SECCOMP_ERRNO: Final = 0x00050000
_SECCOMP_TSYNC: Final = 4
_COMPARE_NOT_EQUAL: Final = 1

FORBIDDEN_CALLS: Final = (
    "execve", "execveat", "ptrace", "process_vm_readv", "process_vm_writev", "listen", "io_uring_setup",
)  # fmt: skip
"""System calls that a running signer never makes. io_uring opens sockets without the calls that are looked at here."""
FORBIDDEN_EVENTS: Final = frozenset(
    {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn"}
)
"""Python's names for starting another program."""
CONNECTING_EVENTS: Final = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})
RESOLVING_EVENTS: Final = frozenset({"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"})


class _Compare(ctypes.Structure):
    """`struct scmp_arg_cmp` of libseccomp."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("value", ctypes.c_uint64),
        ("mask", ctypes.c_uint64),
    )


def harden_process() -> None:
    """No core dumps, no debugger of the same user, no new privileges; new files are private.

    Raises:
        SignerStopped: the kernel refused.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(_PR_SET_DUMPABLE, 0)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    os.umask(0o077)


def lock_memory() -> str:
    """Keep all of the process's memory out of the swap; returns why that was not possible, empty if it was.

    As root the limit is lifted first, and stays so for whoever the process becomes. A limit is otherwise left alone:
    with memory locked up to it, the next allocation would fail.
    """
    if os.geteuid() == 0:
        with contextlib.suppress(ValueError):  # a container's root may not
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if limit != resource.RLIM_INFINITY:
        return f"memory may be swapped out: its lock is limited to {limit} bytes (ulimit -l, LimitMEMLOCK=infinity)"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT) != 0:
        return f"memory may be swapped out: {os.strerror(ctypes.get_errno())}"
    return ""


def bound_memory() -> None:
    """Have what large requests took given back at once, and not kept for others of their size (glibc)."""
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
    libc.mallopt(_M_ARENA_MAX, _ARENAS)


def become(user: str) -> None:
    """From root to a user without privileges, for ever. Who is that user already, stays it.

    Raises:
        BadConfiguration: no such user, or this process is of yet another one.
        SignerStopped: there is a way back.
    """
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise BadConfiguration(
            f"there is no user {user!r} on this machine: make it, or write another"
        ) from None
    if entry.pw_uid == 0:
        raise BadConfiguration(f"user {user!r} is root: write a user without privileges")
    if os.geteuid() != 0:
        if os.geteuid() != entry.pw_uid:
            raise BadConfiguration(f"started as user {os.geteuid()}, which is neither root nor {user!r}")
        return
    for capability in range(_LAST_CAPABILITY + 1):
        # Not one that a file could give back; what the kernel does not know, it says so (EINVAL).
        ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    # The user's own groups, for a token's files or device may be shared with one.
    groups = os.getgrouplist(user, entry.pw_gid)
    if 0 in groups:
        raise BadConfiguration(f"user {user!r} is in group 0: write a user without privileges")
    try:
        os.setgroups(groups)
        os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
        os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)
    except PermissionError:
        raise SignerStopped(
            f"this root can't become {user!r}: give it CAP_SETUID and CAP_SETGID, which it gives up then"
        ) from None
    _check_no_way_back(entry.pw_uid, entry.pw_gid)


def _check_no_way_back(uid: int, gid: int) -> None:
    with open("/proc/self/status") as status:
        powers = [line.split()[1] for line in status if line.startswith(("CapPrm:", "CapEff:", "CapInh:"))]
    if any(int(power, 16) for power in powers):
        raise SignerStopped(f"user {uid} kept capabilities: {powers}")
    if os.getresuid() != (uid,) * 3 or os.getresgid() != (gid,) * 3 or 0 in os.getgroups():
        raise SignerStopped(f"the process is not wholly of user {uid} and group {gid}")
    ways_back: tuple[Callable[[], None], ...] = (
        lambda: os.setresuid(0, 0, 0),
        lambda: os.setresgid(0, 0, 0),
        lambda: os.setgroups([0]),
    )
    for way_back in ways_back:
        try:
            way_back()
        except PermissionError:
            continue
        raise SignerStopped("root's privileges could be taken back")


def forbid_outgoing() -> None:
    """From now on Python code of this process reaches no network and starts no program.

    An audit hook: it can't be taken off again. Unix sockets stay, for a token's library may use one.
    """

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in CONNECTING_EVENTS:
            # Without an address it answers on a connection that is there.
            refused = arguments[0].family != socket.AF_UNIX and arguments[1] is not None
        else:
            refused = event in RESOLVING_EVENTS or event in FORBIDDEN_EVENTS
        if refused:
            raise PermissionError(errno.EACCES, f"a signer does not do this: {event}")

    sys.addaudithook(hook)


def seal_system_calls(outgoing: Outgoing) -> str:
    """Have the kernel refuse what a signer never does; returns why that was not possible, empty if it was.

    For all threads and for ever: no other program, no further listener, no look into other processes; and, unless the
    token's library needs the network, no socket but Unix sockets, and no connection at all. Such calls fail with
    EACCES. Connections that others make to the signer are not concerned.

    Raises:
        SignerStopped: libseccomp is there, but does not know what it is told.
    """
    try:
        library = _seccomp()
    except OSError:
        return "the kernel does not bar outgoing connections: install libseccomp (Debian: libseccomp2)"
    rules = library.seccomp_init(_SECCOMP_ALLOW)
    if not rules:
        raise SignerStopped("libseccomp could not start")

    def forbid(name: str, *compared: Any) -> int:
        number = library.seccomp_syscall_resolve_name(name.encode())
        compares = (_Compare * len(compared))(*compared)
        added: int = library.seccomp_rule_add_array(
            rules, _SECCOMP_ERRNO | errno.EACCES, number, len(compared), compares
        )
        return added

    # Threads that run already are bound too.
    steps = [library.seccomp_attr_set(rules, _SECCOMP_TSYNC, 1)]
    steps += [forbid(name) for name in FORBIDDEN_CALLS]
    if outgoing == "none":
        steps += [forbid("connect"), forbid("socket", (0, _COMPARE_NOT_EQUAL, socket.AF_UNIX, 0))]
    if any(steps):
        raise SignerStopped(f"the filter of system calls could not be made ({steps})")
    failed = library.seccomp_load(rules)
    library.seccomp_release(rules)
    return f"the kernel does not bar outgoing connections: {os.strerror(-failed)}" if failed else ""


def _seccomp() -> ctypes.CDLL:
    """libseccomp 2. Raises OSError where it is not installed."""
    library = ctypes.CDLL("libseccomp.so.2")
    pointer = ctypes.c_void_p
    library.seccomp_init.restype = pointer
    library.seccomp_rule_add_array.argtypes = [
        pointer, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(_Compare),
    ]  # fmt: skip
    library.seccomp_attr_set.argtypes = [pointer, ctypes.c_int, ctypes.c_uint32]
    library.seccomp_load.argtypes = [pointer]
    library.seccomp_release.argtypes = [pointer]
    return library


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise SignerStopped(f"prctl({option}) failed: {os.strerror(ctypes.get_errno())}")
