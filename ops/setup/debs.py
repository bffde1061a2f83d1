"""Debian packages without installing them: a private apt state, verified downloads, `dpkg-deb -x` into the
checkout.

apt itself resolves, downloads and checks signatures, with the machine's own sources, proxies and options.
Only its state and cache are ours, so nothing on the system changes, no lock of the system is taken, and no
root is needed.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ops.setup.console import SetupError, run, say, with_retries

SYSTEM_STATUS = Path("/var/lib/dpkg/status")
SYSTEM_KEYRINGS = (
    Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
    Path("/usr/share/keyrings/debian-archive-keyring.pgp"),
)
_ADVICE = (
    "apt could not do it. Check that `apt-get update` works on this machine (network, proxy, sources), "
    "then run the same command again."
)


class KeyringTooOld(SetupError):
    """Package lists are signed by a key that the keyring does not hold."""

    worth_retrying = False


@dataclass(frozen=True, slots=True)
class AptState:
    """A private apt: its own lists, cache and (optionally) its own idea of sources and installed packages."""

    home: Path
    """Holds everything of it; readable by the user `_apt`, as which apt downloads when root."""
    options: tuple[str, ...]
    """`-o` settings, each as `Name=value`."""

    def apt_get(self, *words: str) -> str:
        """Runs apt-get quietly in this state and returns its standard output.

        Raises:
            SetupError: apt-get failed.
        """
        argv = ["apt-get", "-qq", "-y"]
        for option in self.options:
            argv += ["-o", option]
        return run(
            [*argv, *words],
            advice=_ADVICE,
            env={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
        )

    def update(self) -> None:
        """Fetches the package lists and checks their signatures.

        Raises:
            KeyringTooOld: a list is signed by a key we do not know.
            SetupError: a list could not be fetched or verified.
        """
        with_retries(self._update_once, what="apt-get update")

    def _update_once(self) -> None:
        try:
            # Error-Mode=any: by default apt only warns about a list that it could not fetch or verify.
            self.apt_get("-o", "APT::Update::Error-Mode=any", "update")
        except SetupError as error:
            # gpgv (Debian 12) and sqv (Debian 13) say it in words of their own.
            if "NO_PUBKEY" in str(error) or "Missing key" in str(error):
                raise KeyringTooOld(str(error)) from error
            raise

    def download(self, packages: Sequence[str]) -> list[Path]:
        """Downloads these packages and whatever they need that `Dir::State::status` does not list as
        installed.

        Raises:
            SetupError: a package is unknown or could not be fetched or verified.
        """
        words = ("install", "--reinstall", "--download-only", "--no-install-recommends", *packages)
        with_retries(lambda: self.apt_get(*words), what=f"download of {' '.join(packages)}")
        debs = sorted((self.home / "cache/archives").glob("*.deb"))
        if not debs:
            raise SetupError(f"apt downloaded nothing for {' '.join(packages)}\n{_ADVICE}")
        return debs


@contextmanager
def private_apt(*, status: Path, sources: str | None = None) -> Iterator[AptState]:
    """Opens a throw-away apt state.

    Args:
        status: the dpkg status file that says what counts as installed; an empty one asks for the whole
            closure.
        sources: the text of a deb822 sources file to use in place of the machine's own.
    """
    with tempfile.TemporaryDirectory(prefix="strongroom-apt-") as name:
        home = Path(name)
        home.chmod(0o755)
        for folder in ("state/lists/partial", "cache/archives/partial", "empty.d"):
            (home / folder).mkdir(parents=True)
        shutil.copyfile(status, home / "status")
        options = [
            f"Dir::State={home}/state",
            f"Dir::State::status={home}/status",
            f"Dir::Cache={home}/cache",
            "Acquire::Retries=3",
            "Acquire::Languages=none",
            # Debian's container images delete each archive after use through a hook of APT::Update and DPkg.
            "APT::Keep-Downloaded-Packages=true",
            "Debug::NoLocking=true",
        ]
        if sources is not None:
            (home / "sources.d").mkdir()
            (home / "sources.d/private.sources").write_text(sources)
            options += [f"Dir::Etc::sourcelist={home}/none", f"Dir::Etc::sourceparts={home}/sources.d"]
        yield AptState(home=home, options=tuple(options))


def extract(debs: Sequence[Path], target: Path) -> None:
    """Unpacks packages into `target`, which replaces what was there in one step.

    Raises:
        SetupError: an archive is damaged.
    """
    building = target.with_name(target.name + ".new")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    for deb in debs:
        run(["dpkg-deb", "-x", deb, building], advice="Remove .tools/ and run the same command again.")
    shutil.rmtree(target, ignore_errors=True)
    building.rename(target)


def host_codename() -> str:
    """Returns the codename of this Debian, such as `bookworm`.

    Raises:
        SetupError: this is not a Debian that says so.
    """
    match = re.search(r'^VERSION_CODENAME="?([a-z]+)"?$', Path("/etc/os-release").read_text(), re.MULTILINE)
    if match is None:
        raise SetupError("/etc/os-release names no VERSION_CODENAME: this needs Debian 12 or 13")
    return match.group(1)


def main_archive() -> str:
    """Returns the address from which this machine gets its own release, as its apt configuration says it.

    Raises:
        SetupError: no source of the machine serves the plain release.
    """
    codename = host_codename()
    listing = run(
        [
            "apt-get",
            "indextargets",
            "--format",
            "$(RELEASE) $(COMPONENT) $(REPO_URI)",
            "Created-By: Packages",
        ],
        advice=_ADVICE,
        env={**os.environ, "LC_ALL": "C"},
    )
    for line in listing.splitlines():
        release, component, address = line.split(maxsplit=2)
        if release in (codename, "stable") and component == "main":
            return address
    raise SetupError(f"no apt source of this machine serves {codename} main; add Debian's own and try again")


def download_from(suites: Sequence[str], packages: Sequence[str], target: Path) -> None:
    """Unpacks packages of another release of Debian with all they need, down to libc, into `target`.

    The mirror is the machine's own; the suites are verified with Debian's archive keyring, a newer one than
    the machine's if that does not know the release yet.

    Raises:
        SetupError: they could not be fetched or verified.
    """
    try:
        _download_from(suites, packages, target, keyring=_system_keyring())
    except KeyringTooOld:
        say("the archive keyring of this machine is too old for this release, fetching its update")
        # Not below the checkout: apt verifies as the user `_apt`, who may not be let in there.
        with tempfile.TemporaryDirectory(prefix="strongroom-keyring-") as name:
            Path(name).chmod(0o755)
            with private_apt(status=SYSTEM_STATUS) as apt:
                apt.update()
                extract(apt.download(["debian-archive-keyring"]), Path(name) / "package")
            newer = Path(name) / "package" / SYSTEM_KEYRINGS[0].relative_to("/")
            _download_from(suites, packages, target, keyring=newer)


def _download_from(suites: Sequence[str], packages: Sequence[str], target: Path, *, keyring: Path) -> None:
    where = f"URIs: {main_archive()}\nSuites: {' '.join(suites)}\nComponents: main"
    sources = f"Types: deb\n{where}\nSigned-By: {keyring}\n"
    with (
        tempfile.NamedTemporaryFile(prefix="strongroom-status-") as empty,
        private_apt(status=Path(empty.name), sources=sources) as apt,
    ):
        apt.update()
        extract(apt.download(packages), target)


def _system_keyring() -> Path:
    for keyring in SYSTEM_KEYRINGS:
        if keyring.exists():
            return keyring
    raise SetupError("Debian's archive keyring is missing: apt-get install debian-archive-keyring")
