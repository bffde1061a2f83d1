"""A Redis without persistence: what Celery needs as a wake-up bell, and may lose at any time."""

from __future__ import annotations

from pathlib import Path

from ops.devnet.files import kept_password, write_private
from ops.devnet.part import Part
from ops.devnet.process import ManagedProcess, free_port, release_port
from ops.devnet.tools import redis_program


class RedisServer(Part):
    """redis-server on a loopback port, with a password of its own and nothing on disk."""

    def __init__(self, directory: Path) -> None:
        """Prepares a server in `directory`, which is made if missing. Nothing is started yet."""
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self._password = kept_password(directory / "password")
        self.process = ManagedProcess(
            "redis",
            [redis_program(), directory / "redis.conf"],
            log_path=directory / "redis.log",
            cwd=directory,
        )

    def __repr__(self) -> str:
        return f"RedisServer(port={self.port})"

    @property
    def url(self) -> str:
        """Address with the password in it, for clients and Celery. Secret."""
        return f"redis://:{self._password}@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Starts the server and waits until it answers.

        Raises:
            StartFailed: it did not start.
        """
        settings = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "requirepass": self._password,
            "dir": str(self.directory),
            "save": '""',
            "appendonly": "no",
            "daemonize": "no",
            # A broker that evicts loses wake-ups silently; one that refuses says so.
            "maxmemory-policy": "noeviction",
        }
        lines = (f"{name} {value}\n" for name, value in settings.items())
        write_private(self.directory / "redis.conf", "".join(lines))
        self.process.start()
        self.process.wait_ready(self._answers, timeout=20)

    def stop(self) -> None:
        """Stops the server in good order. Again changes nothing."""
        self.process.stop()

    def kill(self) -> None:
        """Kills the server; what it held is gone. Again changes nothing."""
        self.process.kill()

    def close(self) -> None:
        """Stops the server for good and gives up its port."""
        self.stop()
        release_port(self.port)

    def _answers(self) -> bool:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        once = Retry(NoBackoff(), 0)  # its own retries would only slow our polling down
        client = redis.Redis.from_url(self.url, socket_timeout=1, retry=once)
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False
        finally:
            client.close()
