"""`strongroom trading`: one trading core, until SIGTERM or SIGINT, or until its journal cannot be written."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from chains.errors import StrongroomError
from custody.errors import InvalidConfiguration
from custody.logs import log_to_stderr
from custody.ports import system_clock
from custody.trading.app import create_app
from custody.trading.client import RestCustody
from custody.trading.config import Terms, TradingSettings, load, terms
from custody.trading.core import Micros, calm_collector, system_micros
from custody.trading.failures import CustodyRefused, CustodyUnavailable, JournalError
from custody.trading.ports import Custody
from custody.trading.service import Trading
from custody.trading.starting import Places, core_id, known_cursor, start
from custody.web.client import RestCaller
from custody.web.server import make_server
from policies.bundle import Bundle, TrustRoot, read_bundle
from policies.democlock import DemoClock, check_test_networks
from policies.keys import SigningKey

_USAGE: Final = "usage: strongroom trading (no arguments: the settings are in STRONGROOM_CONFIG)"
_MICROS: Final = 1_000_000


class BundleFile:
    """The bundle of a file, read anew when the file has changed."""

    def __init__(self, path: Path, root: TrustRoot, clock: Callable[[], int]) -> None:
        self._path, self._root, self._clock = path, root, clock
        self._seen: tuple[int, int] | None = None
        self._bundle: Bundle | None = None

    def __call__(self) -> Bundle:
        """The bundle in force now. Raises UntrustedBundle, InvalidValue."""
        status = self._path.stat()
        seen = (status.st_mtime_ns, status.st_size)
        if self._bundle is None or seen != self._seen or self._clock() >= self._bundle.expires_at:
            self._bundle = read_bundle(self._path.read_bytes(), self._root, now=self._clock())
            self._seen = seen
        return self._bundle


def main(argv: Sequence[str] | None = None) -> int:
    """Serve.

    Returns:
        The exit code: 0 after a signal, 1 if the journal is damaged or could not be written, 2 for unusable
        settings, 3 if the address is taken.
    """
    if argv is None:
        argv = sys.argv[1:]
    if argv:
        asked = list(argv) in (["-h"], ["--help"])
        print(_USAGE, file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    log_to_stderr()
    try:
        settings = load()
        clock, micros = _clocks(settings)
        root = msgspec.json.decode(Path(settings.trust_root_path).read_bytes(), type=TrustRoot)
        bundle = BundleFile(Path(settings.bundle_path), root, clock)
        if settings.demo_clock_path is not None:
            check_test_networks(bundle())
        found = terms(settings, [entry.asset() for entry in bundle().assets])
        custody = _custody(settings, clock)
    except (StrongroomError, OSError, msgspec.DecodeError) as error:
        print(error, file=sys.stderr)
        return 2
    try:
        return _serve(settings, found, custody, bundle, clock, micros)
    except JournalError as error:
        print(error, file=sys.stderr)
        return 1
    except StrongroomError as error:
        print(error, file=sys.stderr)
        return 2


def _serve(
    settings: TradingSettings,
    found: Terms,
    custody: Custody,
    bundle: Callable[[], Bundle],
    clock: Callable[[], int],
    micros: Micros,
) -> int:
    places = Places(Path(settings.directory))
    id = core_id(places)
    cursor = known_cursor(places)
    try:
        cursor = custody.cursor(id)
    except (CustodyUnavailable, CustodyRefused) as error:
        print(
            f"custody does not say how far it is settled, going on from what it said last: {error}",
            file=sys.stderr,
        )
    started = start(places, id, cursor, segment_bytes=settings.segment_kilobytes * 1024)
    calm_collector()
    trading = Trading(started, settings, found, custody, micros)
    failed: list[BaseException] = []

    def ended(error: BaseException | None) -> None:
        if error is not None:
            failed.append(error)
        server.should_exit = True

    app = create_app(trading, bundle, clock, ended=ended)
    server = make_server(app, host=settings.host, port=settings.port, websockets="on")
    try:
        server.run()
    except SystemExit:  # uvicorn's way to say that it could not listen; it has logged why
        return 3
    if failed:
        print(failed[0], file=sys.stderr)
        return 2 if isinstance(failed[0], InvalidConfiguration) else 1
    return 0


def _custody(settings: TradingSettings, clock: Callable[[], int]) -> RestCustody:
    key = SigningKey.load(Path(settings.custody.key_path))
    return RestCustody(
        RestCaller(
            settings.custody.url,
            settings.custody.audience,
            settings.custody.caller,
            key,
            retries=0,
            clock=clock,
        )
    )


def _clocks(settings: TradingSettings) -> tuple[Callable[[], int], Micros]:
    """Whole seconds for tokens, microseconds for commands."""
    if settings.demo_clock_path is None:
        return system_clock, system_micros
    demo = DemoClock(Path(settings.demo_clock_path))
    return lambda: int(demo()), lambda: system_micros() + demo.ahead() * _MICROS


if __name__ == "__main__":
    sys.exit(main())
