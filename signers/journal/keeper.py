"""The keeper of the high-water mark: a process of another user than the signer's, which only lets the mark rise.

Whoever has taken over the signer, or restores its directory from an old copy, does not reach the mark file: it belongs
to the keeper's user, and the keeper takes nothing but the next mark of the same journal. The signer starts the keeper
before it gives up its own privileges, and talks to it over a socket pair that nobody else has.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import msgspec

from chains.errors import StrongroomError
from signers.errors import BadConfiguration, JournalMismatch, SignerStopped
from signers.journal.mark import Mark, MarkFile
from signers.process.hardening import become, forbid_outgoing, harden_process, seal_system_calls

MESSAGE_BYTES: Final = 4096
ANSWER_SECONDS: Final = 20
"""Longer than any disk needs; a keeper that is silent for so long is taken as gone."""
TURN_SECONDS: Final = 5
"""How long a keeper waits for one before it that has not ended yet."""


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a keeper says when it is ready, and to every mark."""

    last: Mark | None = None
    """The mark that is on the disk now."""
    user: int = -1
    """Id of the user whom the keeper's process and its file belong to."""
    error: str = ""
    """Why nothing was written; empty if it was."""


class MarkClient:
    """A keeper as the signer sees it. Implements `mark.Marks`; one thread uses it.

    Raises:
        SignerStopped: the keeper did not start, or found no valid mark.
    """

    def __init__(self, connection: socket.socket, process: subprocess.Popen[bytes], path: Path) -> None:
        self.where = str(path)
        self._connection, self._process = connection, process
        try:
            ready = self._answer()
        except OSError as error:
            self.close()
            raise SignerStopped(f"the keeper of the mark {path} did not start: {error}") from None
        if ready.last is None:
            self.close()
            raise SignerStopped(ready.error)
        self.last: Mark = ready.last
        self.user: int = ready.user
        """Id of the user whom the mark belongs to; in production not the signer's."""

    @property
    def process_id(self) -> int:
        """Of the keeper."""
        return self._process.pid

    def write(self, mark: Mark) -> None:
        """Have the mark written; returns when it is on the disk.

        Raises:
            OSError: the keeper is gone or could not write.
            JournalMismatch: it is not the next mark of this journal.
        """
        try:
            self._connection.send(msgspec.json.encode(mark))
            answer = self._answer()
        except OSError as error:
            raise OSError(f"the keeper of the mark {self.where} is gone or stuck: {error}") from None
        if answer.error:
            raise JournalMismatch(answer.error)
        self.last = mark

    def close(self) -> None:
        """Let the keeper end, and wait for it."""
        self._connection.close()
        self._process.wait(ANSWER_SECONDS)

    def _answer(self) -> Answer:
        raw = self._connection.recv(MESSAGE_BYTES)
        if not raw:
            raise ConnectionResetError("it has ended")
        try:
            return msgspec.json.decode(raw, type=Answer)
        except msgspec.MsgspecError as error:
            raise ConnectionResetError(f"it answered nonsense: {error}") from None


def start_keeper(path: Path, user: str | None) -> MarkClient:
    """Start a keeper. To be called before this process gives up its privileges.

    Args:
        path: the mark file, in a directory that only `user` can change.
        user: whom the keeper becomes; only root can start it for another user. None: the same user as this process.

    Raises:
        SignerStopped: the keeper did not start, or found no valid mark.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(ANSWER_SECONDS)
    with theirs:
        command = [
            sys.executable,
            # Root starts it: its code comes from where the signer's does, never from whatever directory this is.
            "-P",
            "-m",
            "signers.journal.keeper",
            "--socket",
            str(theirs.fileno()),
            "--mark",
            str(path),
        ]
        process = subprocess.Popen(
            [*command, *(["--user", user] if user is not None else [])],
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
            pass_fds=[theirs.fileno()],
            # What a terminal sends to the signer is not for the keeper: it ends after the signer.
            start_new_session=True,
        )
    return MarkClient(ours, process, path)


def follows(last: Mark, mark: Mark) -> bool:
    """Whether a mark may stand after another one: the next batch of the same journal, or the very same again."""
    return mark == last or (mark.journal == last.journal and mark.batch == last.batch + 1)


def keep(file: MarkFile, connection: socket.socket) -> None:
    """Serve one signer until it closes the connection."""
    while raw := connection.recv(MESSAGE_BYTES):
        connection.send(msgspec.json.encode(_kept(file, raw)))


def _kept(file: MarkFile, raw: bytes) -> Answer:
    try:
        mark = msgspec.json.decode(raw, type=Mark)
        if not follows(file.last, mark):
            raise JournalMismatch(
                f"the mark {file.where} is at batch {file.last.batch} of journal {file.last.journal}: "
                f"batch {mark.batch} of {mark.journal} does not follow"
            )
        file.write(mark)
    except (OSError, msgspec.MsgspecError, JournalMismatch) as error:
        return Answer(last=file.last, user=os.geteuid(), error=str(error))
    return Answer(last=file.last, user=os.geteuid())


def _opened(path: Path) -> MarkFile:
    """The mark, once no other keeper has it."""
    for place in (path.parent, path):
        found = _status(place)
        if found.st_uid not in (os.geteuid(), 0) or found.st_mode & 0o022:
            raise BadConfiguration(
                f"{place} can be changed by others than user {os.geteuid()}, who keeps the mark: chown and chmod it"
            )
    lock = os.open(path, os.O_RDWR)
    end = time.monotonic() + TURN_SECONDS
    while True:
        try:
            # Held as long as this process lives.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return MarkFile.open(path)
        except BlockingIOError:
            if time.monotonic() > end:
                raise SignerStopped(
                    f"another keeper has the mark {path}; is another signer running?"
                ) from None
            time.sleep(0.01)  # float: seconds


def _status(path: Path) -> os.stat_result:
    try:
        return os.stat(path)
    except OSError as error:
        raise JournalMismatch(
            f"the high-water mark can't be opened ({path}: {error.strerror}): restore the directory it is in; "
            "never make a new mark for an old journal"
        ) from None


def main(arguments: list[str] | None = None) -> int:
    """The keeper's process; returns its exit code."""
    parser = argparse.ArgumentParser(prog="strongroom signer's keeper")
    parser.add_argument("--socket", type=int, required=True, help="inherited descriptor of a socket pair")
    parser.add_argument("--mark", type=Path, required=True)
    parser.add_argument("--user", help="whom to become")
    options = parser.parse_args(arguments)
    # It ends when the signer has: whoever stops a whole group of processes must not stop it in the middle of a commit.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=options.socket) as connection:
        try:
            if options.user is not None:
                become(options.user)
            harden_process()
            file = _opened(options.mark)
            forbid_outgoing()
            seal_system_calls("none")
        except (StrongroomError, OSError) as error:
            connection.send(msgspec.json.encode(Answer(error=str(error))))
            return 1
        connection.send(msgspec.json.encode(Answer(last=file.last, user=os.geteuid())))
        try:
            keep(file, connection)
        except ConnectionError:
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
