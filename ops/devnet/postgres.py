"""The embedded PostgreSQL 18: its own cluster in a directory, on a loopback port and a Unix socket."""

from __future__ import annotations

import enum
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ops.devnet.errors import DevnetError, StartFailed
from ops.devnet.files import kept_password, let_pass, write_private
from ops.devnet.part import Part
from ops.devnet.process import ManagedProcess, free_port, release_port
from ops.devnet.tools import postgres_programs

if TYPE_CHECKING:
    import psycopg

SUPERUSER = "postgres"
_MAX_SOCKET_PATH = 100  # sun_path holds 108 bytes, a NUL and ".s.PGSQL.NNNNN" among them
_CONNECT_TIMEOUT_SECONDS = 5


class Durability(enum.Enum):
    """What survives a crash of the machine. A crash of PostgreSQL alone loses nothing either way."""

    FULL = "full"
    """Every commit is on disk."""
    FAST = "fast"
    """Nothing waits for the disk: for throw-away clusters of tests."""


class EmbeddedPostgres(Part):
    """A PostgreSQL cluster made by `initdb` on the first start and kept in `directory`.

    PostgreSQL refuses to run as root. As root it runs as the user `postgres`, or `nobody` where there is
    none, in a directory that this user owns. Where that user cannot get to `directory` (it lies below a
    private home), the cluster lies in `/var/tmp` and `directory/elsewhere` points there; `remove` takes it
    away.
    """

    def __init__(self, directory: Path, *, durability: Durability = Durability.FULL) -> None:
        """Prepares a cluster in `directory`, which is made if missing. Nothing is started yet."""
        self.directory = directory.absolute()
        self.durability = durability
        self.port = free_port()
        self._run_as = _unprivileged_user() if os.geteuid() == 0 else None
        self.directory.mkdir(parents=True, exist_ok=True)
        self._password = kept_password(self.directory / "superuser.password")
        self._home = self._reachable_home()
        self._programs = self._reachable_programs()
        self.process = ManagedProcess(
            "postgres",
            self._server_argv(),
            log_path=self.directory / "postgres.log",
            cwd=self._home,
            user=self._run_as,
            stop_signal=signal.SIGINT,  # "fast": ends sessions; SIGTERM would wait for them
        )

    def __repr__(self) -> str:
        return f"EmbeddedPostgres(port={self.port}, data={str(self.data_directory)!r})"

    @property
    def data_directory(self) -> Path:
        """The cluster's PGDATA."""
        return self._home / "data"

    @property
    def socket_directory(self) -> Path:
        """Where the Unix socket is; libpq takes it as `host`."""
        return self._home / "run"

    def dsn(self, user: str, password: str, dbname: str) -> str:
        """Returns a connection address over loopback TCP. It holds the password: secret."""
        return f"postgresql://{quote(user)}:{quote(password)}@127.0.0.1:{self.port}/{quote(dbname)}"

    def superuser_dsn(self, dbname: str = "postgres") -> str:
        """Returns the superuser's connection address, for migrations and tests. Secret."""
        return self.dsn(SUPERUSER, self._password, dbname)

    def start(self) -> None:
        """Makes the cluster if there is none, starts it and waits until it answers.

        Raises:
            StartFailed: initdb failed, or the server did not start.
        """
        if not (self.data_directory / "PG_VERSION").exists():
            self._initdb()
        self.process.start()
        self.process.wait_ready(self._answers, timeout=60)

    def stop(self) -> None:
        """Stops the server in good order; sessions are ended. Again changes nothing."""
        self.process.stop()

    def kill(self) -> None:
        """Kills the server and its backends at once, as a power cut would. Again changes nothing."""
        self.process.kill()

    def close(self) -> None:
        """Stops the server for good and gives up its port. The data stay."""
        self.stop()
        release_port(self.port)

    def remove(self) -> None:
        """Stops the server and deletes the cluster, wherever it lies."""
        self.close()
        shutil.rmtree(self._home, ignore_errors=True)
        shutil.rmtree(self.directory, ignore_errors=True)

    def create_database(self, name: str, template: str | None = None) -> None:
        """Creates a database, as a copy of `template` if one is named (nobody may be connected to it).

        Raises:
            DevnetError: PostgreSQL refused.
        """
        from psycopg import sql

        command = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
        if template is not None:
            command += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
        self._execute(command)

    def drop_database(self, name: str) -> None:
        """Drops a database and ends the sessions in it; one that is not there is no error.

        Raises:
            DevnetError: PostgreSQL refused.
        """
        from psycopg import sql

        self._execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def _server_argv(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.socket_directory),
            "port": str(self.port),
            "timezone": "UTC",
            "log_timezone": "UTC",
            "shared_buffers": "64MB",
            "max_connections": "200",
        }
        if self.durability is Durability.FAST:
            settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [str(self._programs / "postgres"), "-D", str(self.data_directory), *options]

    def _initdb(self) -> None:
        password_file = self._home / "initdb.password"
        write_private(password_file, self._password + "\n")
        self._give(password_file)
        # The built-in locale needs none of the system's, so every machine sorts alike.
        argv = [
            str(self._programs / "initdb"),
            *("-D", str(self.data_directory), "--username", SUPERUSER, "--pwfile", str(password_file)),
            *("--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-instructions"),
            *("--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"),
            *(("--no-sync",) if self.durability is Durability.FAST else ()),
        ]
        for folder in (self.data_directory, self.socket_directory):
            folder.mkdir(mode=0o700, exist_ok=True)
            self._give(folder)
        done = subprocess.run(
            [*_as_user(self._run_as), *argv],
            cwd=self._home,
            capture_output=True,
            text=True,
            check=False,
        )
        password_file.unlink()
        if done.returncode != 0:
            shutil.rmtree(self.data_directory, ignore_errors=True)
            raise StartFailed("initdb", f"it ended with {done.returncode}", done.stdout + done.stderr)

    def _answers(self) -> bool:
        import psycopg

        try:
            with self._connect() as connection:
                return connection.execute("SELECT 1").fetchone() == (1,)
        except psycopg.OperationalError:
            return False

    def _connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        import psycopg

        return psycopg.connect(
            self.superuser_dsn(), autocommit=True, connect_timeout=_CONNECT_TIMEOUT_SECONDS
        )

    def _execute(self, command: psycopg.sql.Composed) -> None:
        import psycopg

        try:
            with self._connect() as connection:
                connection.execute(command)
        except psycopg.Error as error:
            raise DevnetError(f"PostgreSQL refused {command.as_string(None)}: {error}") from error

    def _give(self, path: Path) -> None:
        """Hands a file or directory to the user that PostgreSQL runs as."""
        if self._run_as is not None:
            user = pwd.getpwnam(self._run_as)
            os.chown(path, user.pw_uid, user.pw_gid)

    def _reachable_home(self) -> Path:
        """The directory for data and socket: ours if PostgreSQL's user can enter it, else one in /var/tmp."""
        pointer = self.directory / "elsewhere"
        if pointer.is_symlink() and pointer.is_dir():
            return pointer.resolve()
        if self._run_as is not None:
            let_pass(self.directory)
        short = len(str(self.directory / "run")) + len("/.s.PGSQL.65535") <= _MAX_SOCKET_PATH
        if short and _can_enter(self._run_as, self.directory):
            return self.directory
        home = Path(tempfile.mkdtemp(prefix="strongroom-postgres-", dir="/var/tmp"))
        home.chmod(0o711)
        pointer.unlink(missing_ok=True)
        pointer.symlink_to(home)
        return home

    def _reachable_programs(self) -> Path:
        """The directory of the programs: the wheel's if PostgreSQL's user can enter it, else a copy."""
        programs = postgres_programs()
        if _can_enter(self._run_as, programs):
            return programs
        package = programs.parents[1]
        copy = self._home / "postgresql"
        if not copy.exists():
            building = self._home / "postgresql.new"
            shutil.rmtree(building, ignore_errors=True)
            # The programs look for the wheel's libraries in the directory beside the package.
            for folder in (programs.parent, package.with_name(f"{package.name}.libs")):
                shutil.copytree(folder, building / folder.relative_to(package.parent), symlinks=True)
            building.rename(copy)
        return copy / programs.relative_to(package.parent)


def _unprivileged_user() -> str:
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _as_user(user: str | None) -> list[str]:
    if user is None:
        return []
    return ["setpriv", "--reuid", user, "--regid", str(pwd.getpwnam(user).pw_gid), "--clear-groups", "--"]


def _can_enter(user: str | None, folder: Path) -> bool:
    done = subprocess.run([*_as_user(user), "test", "-x", str(folder)], capture_output=True, check=False)
    return done.returncode == 0
