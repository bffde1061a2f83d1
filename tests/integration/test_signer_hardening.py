"""What a hardened process can't do any more. Each program runs in a process of its own, as there is no way back."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from signers.errors import BadConfiguration
from signers.process.owners import check_above, check_configuration, check_directory, check_private

ROOT = Path(__file__).parents[2]

only_root_can = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")

TRIES = """
import ctypes, os, socket, subprocess, sys
def tried(what):
    try:
        what()
    except PermissionError:
        return "refused"
    except Exception as error:
        return type(error).__name__
    return "done"
listener = socket.create_server(("127.0.0.1", 0))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
other = socket.socket()
"""


def run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", TRIES + program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


IN_PYTHON = """
print(tried(lambda: other.connect(listener.getsockname())))
print(tried(lambda: udp.sendto(b"x", listener.getsockname())))
print(tried(lambda: udp.sendmsg([b"x"], [], 0, listener.getsockname())))
print(tried(lambda: socket.create_connection(("localhost", 1))))
print(tried(lambda: socket.getaddrinfo("localhost", 1)))
print(tried(lambda: subprocess.run(["true"])))
print(tried(lambda: os.system("true")))
print(tried(lambda: os.posix_spawn("/bin/true", ["true"], {})))
"""


def test_python_code_reaches_no_network_and_starts_no_program() -> None:
    said = run("from signers.process.hardening import forbid_outgoing\nforbid_outgoing()\n" + IN_PYTHON)
    assert said.split() == ["refused"] * 8


def test_without_the_hook_the_same_tries_succeed() -> None:
    """So that the test before tests something: only the name, whose port is closed, fails by itself."""
    assert run(IN_PYTHON).split() == ["done"] * 3 + ["ConnectionRefusedError"] + ["done"] * 4


def test_unix_sockets_and_accepted_connections_go_on() -> None:
    said = run(
        "from signers.process.hardening import forbid_outgoing, seal_system_calls\n"
        "other.connect(listener.getsockname())\n"
        "forbid_outgoing(); assert seal_system_calls('none') == ''\n"
        "accepted, _ = listener.accept(); accepted.sendall(b'hello'); print(other.recv(5).decode())\n"
        "accepted.sendmsg([b'again']); print(other.recv(5).decode())\n"
        "ours, theirs = socket.socketpair(); ours.sendall(b'x'); print(theirs.recv(1).decode())\n"
    )
    assert said.split() == ["hello", "again", "x"]


IN_C = """
libc = ctypes.CDLL(None, use_errno=True)
def said(result):
    return "refused" if result == -1 and ctypes.get_errno() == 13 else f"{result} {ctypes.get_errno()}"
port = listener.getsockname()[1].to_bytes(2, "big")
address = socket.AF_INET.to_bytes(2, sys.byteorder) + port + bytes([127, 0, 0, 1])
print(said(libc.socket(socket.AF_INET, socket.SOCK_STREAM, 0)))
print(said(libc.socket(socket.AF_INET6, socket.SOCK_DGRAM, 0)))
print(said(libc.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)))
print(said(libc.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)))
print(said(libc.connect(other.fileno(), address.ljust(16, b"\\0"), 16)))
print(said(libc.listen(listener.fileno(), 5)))
print(said(libc.execv(b"/bin/true", (ctypes.c_char_p * 2)(b"true", None))))
print(said(libc.ptrace(16, os.getppid(), 0, 0)))
print(said(libc.syscall(425, 8, 0)))
"""


def test_neither_does_native_code() -> None:
    said = run(
        "from signers.process.hardening import seal_system_calls\nprint(seal_system_calls('none'))\n" + IN_C
    )
    assert said.split() == ["refused"] * 9


def test_a_tokens_library_may_be_let_onto_the_network_but_start_nothing() -> None:
    said = run(
        "from signers.process.hardening import forbid_outgoing, seal_system_calls\n"
        "forbid_outgoing(); seal_system_calls('token')\n" + IN_C
    ).splitlines()
    assert said[0].startswith(("3", "4", "5", "6", "7", "8", "9"))
    assert said[4].startswith("0")
    assert said[5:] == ["refused"] * 4


def test_threads_that_run_already_are_bound_too() -> None:
    said = run(
        "import threading\n"
        "from signers.process.hardening import seal_system_calls\n"
        "sealed, found = threading.Event(), []\n"
        "def later():\n"
        "    sealed.wait(30)\n"
        "    found.append(tried(lambda: socket.socket(socket.AF_INET)))\n"
        "thread = threading.Thread(target=later); thread.start()\n"
        "seal_system_calls('none'); sealed.set(); thread.join(); print(*found)\n"
    )
    assert said == "refused"


@only_root_can
def test_root_becomes_the_user_and_never_root_again() -> None:
    said = run(
        "from signers.process.hardening import become\n"
        "become('nobody')\n"
        "print(tried(lambda: os.setuid(0)), tried(lambda: os.setgid(0)), tried(lambda: os.seteuid(0)))\n"
        "print({*os.getresuid()} == {os.getuid()} != {0}, {*os.getresgid()} == {os.getgid()} != {0})\n"
        "print(0 in os.getgroups())\n"
        "print(*{l.split()[1] for l in open('/proc/self/status') if l.startswith('Cap')})\n"
    ).splitlines()
    assert said == ["refused refused refused", "True True", "False", "0" * 16]


def test_who_is_no_root_can_not_become_another_user() -> None:
    said = run(
        "from signers.process.hardening import become\n"
        "if os.geteuid() == 0: os.setuid(65533)\n"
        "try:\n    become('nobody')\nexcept Exception as error:\n    print(error)\n"
    )
    assert "neither root nor 'nobody'" in said


def test_root_is_no_user_without_privileges_and_a_missing_user_is_said() -> None:
    said = run(
        "from signers.process.hardening import become\n"
        "for user in ('root', 'no-such-user'):\n"
        "    try:\n        become(user)\n    except Exception as error:\n        print(error)\n"
    )
    assert "user 'root' is root" in said
    assert "there is no user 'no-such-user'" in said


@only_root_can
def test_a_root_that_may_not_change_its_user_says_what_it_needs() -> None:
    program = (
        "from signers.process.hardening import become\n"
        "try:\n    become('nobody')\nexcept Exception as e:\n    print(e)"
    )
    words = ["setpriv", "--bounding-set=-setgid,-setuid", sys.executable, "-c", program]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "give it CAP_SETUID and CAP_SETGID" in done.stdout


def test_memory_is_locked_also_after_the_drop_or_it_is_said_why_not() -> None:
    said, locked = run(
        "from signers.process.hardening import become, lock_memory\n"
        "print(lock_memory() or 'locked')\n"
        "if os.geteuid() == 0: become('nobody')\n"
        "kept = bytearray(1 << 22)\n"
        "print(*[l.split()[1] for l in open('/proc/self/status') if l.startswith('VmLck')])\n"
    ).splitlines()
    if said == "locked":
        assert int(locked) > 4096
    else:
        assert "its lock is limited to" in said
        assert locked == "0"


def test_a_limit_on_locked_memory_is_said_and_left_alone() -> None:
    said = run(
        # What it needs is loaded before: another user may not be able to read this checkout, or Python itself.
        "import resource\nfrom signers.process.hardening import lock_memory\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))\n"
        "print(lock_memory())\n"
    )
    assert "limited to 65536 bytes" in said


def test_files_that_others_can_read_or_write_are_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0o600)
    check_private(secret)
    secret.chmod(0o640)
    with pytest.raises(BadConfiguration, match="chmod 600"):
        check_private(secret)
    secret.chmod(0o600)
    (tmp_path / "link").symlink_to(secret)
    with pytest.raises(BadConfiguration, match="no plain file"):
        check_private(tmp_path / "link")
    with pytest.raises(BadConfiguration, match="No such file"):
        check_private(tmp_path / "missing")
    check_configuration(secret)
    secret.chmod(0o620)
    with pytest.raises(BadConfiguration, match="chmod go-w"):
        check_configuration(secret)


def test_a_directory_that_others_can_enter_or_replace_is_refused(tmp_path: Path) -> None:
    above = tmp_path / "above"
    inner = above / "inner"
    inner.mkdir(parents=True)
    above.chmod(0o755)
    inner.chmod(0o700)
    check_directory(inner)
    inner.chmod(0o750)
    with pytest.raises(BadConfiguration, match="chmod 700"):
        check_directory(inner)
    with pytest.raises(BadConfiguration, match="No such file"):
        check_directory(tmp_path / "missing")
    check_above(inner)
    above.chmod(0o777)
    with pytest.raises(BadConfiguration, match="can be written by other users"):
        check_above(inner)
    above.chmod(0o1777)
    check_above(inner)


@only_root_can
def test_files_of_another_user_are_refused(tmp_path: Path) -> None:
    secret, inner = tmp_path / "secret", tmp_path / "inner"
    secret.write_text("x")
    inner.mkdir(mode=0o700)
    secret.chmod(0o600)
    for path in (secret, inner):
        os.chown(path, 65534, 65534)
    with pytest.raises(BadConfiguration, match="belongs to user 65534"):
        check_private(secret)
    with pytest.raises(BadConfiguration, match="belongs to user 65534"):
        check_directory(inner)
    with pytest.raises(BadConfiguration, match="belongs to user 65534, who could replace"):
        check_above(inner / "more")
