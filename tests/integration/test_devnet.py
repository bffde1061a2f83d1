"""The launchers, on the real programs: they start, answer, survive kill -9 and leave nothing behind."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from ops.devnet.anvil import Anvil, AnvilRefused, Automine
from ops.devnet.bitcoind import Bitcoind, Peers
from ops.devnet.errors import DeadlineExceeded, DevnetError, StartFailed
from ops.devnet.files import part_directory
from ops.devnet.postgres import Durability, EmbeddedPostgres
from ops.devnet.process import ManagedProcess, is_alive, wait_until
from ops.devnet.redis import RedisServer
from ops.devnet.softhsm import SoftHsmToken


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory that PostgreSQL's user can enter; pytest's own is closed to it."""
    directory = part_directory("strongroom-devnet-")
    yield directory
    subprocess.run(["rm", "-rf", str(directory)], check=True)


def is_private(path: Path) -> bool:
    return stat.S_IMODE(path.stat().st_mode) == 0o600


# --- processes ---


def test_a_child_dies_with_its_parent_even_when_that_is_killed(place: Path) -> None:
    program = (
        "import sys, pathlib, time\n"
        "from ops.devnet.process import ManagedProcess\n"
        "child = ManagedProcess('sleeper', ['sleep', '1000'], log_path=pathlib.Path(sys.argv[1]) / 'log')\n"
        "child.start()\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(1000)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(place)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        wait_until(lambda: child.name() == "sleep", timeout=10, what="the child to have become sleep")
        parent.kill()
    wait_until(lambda: not is_alive(child), timeout=10, what="the orphan to be killed")


def test_a_child_outlives_the_thread_that_started_it(place: Path) -> None:
    child = ManagedProcess("sleeper", ["sleep", "1000"], log_path=place / "log")
    thread = threading.Thread(target=child.start)
    thread.start()
    thread.join()
    with pytest.raises(DeadlineExceeded):
        child.wait(timeout=0.3)
    assert child.running
    child.kill()
    assert child.exit_code == -signal.SIGKILL


def test_killing_a_child_takes_its_own_children_along_even_those_that_left_its_group(place: Path) -> None:
    with ManagedProcess(
        "family", ["sh", "-c", "setsid sleep 1000 & sleep 1001"], log_path=place / "log"
    ) as child:
        parent = psutil.Process(child.pid)
        wait_until(
            lambda: sorted(c.name() for c in parent.children(recursive=True)) == ["sleep", "sleep"],
            timeout=10,
            what="two grandchildren",
        )
        grandchildren = parent.children(recursive=True)
        child.kill()
    wait_until(lambda: not any(map(is_alive, grandchildren)), timeout=10, what="no grandchildren")


def test_a_program_that_ends_at_once_is_reported_with_the_end_of_its_log(place: Path) -> None:
    child = ManagedProcess("liar", ["sh", "-c", "echo my last words; exit 3"], log_path=place / "log")
    child.start()
    with pytest.raises(StartFailed, match="ended with 3") as caught:
        child.wait_ready(lambda: False, timeout=20)
    assert "my last words" in caught.value.log_tail


def test_a_program_is_not_left_running_when_the_question_whether_it_is_ready_fails(place: Path) -> None:
    child = ManagedProcess("sleeper", ["sleep", "1000"], log_path=place / "log")
    child.start()
    with pytest.raises(ZeroDivisionError):
        child.wait_ready(lambda: bool(1 // 0))
    assert not child.running


def test_a_program_that_is_not_there_is_a_failed_start(place: Path) -> None:
    child = ManagedProcess("ghost", ["/nonexistent/program"], log_path=place / "log")
    child.start()
    with pytest.raises(StartFailed, match="/nonexistent/program"):
        child.wait_ready(lambda: False, timeout=20)


def test_a_child_that_ignores_the_request_to_stop_is_killed(place: Path) -> None:
    stubborn = ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done"]
    with ManagedProcess("stubborn", stubborn, log_path=place / "log") as child:
        wait_until(lambda: "ready" in child.log_tail(), timeout=10, what="the trap")
        assert child.stop(timeout=0.2) == -signal.SIGKILL
    assert child.stop() == -signal.SIGKILL, "stopping again changes nothing"


def test_starting_what_runs_is_refused(place: Path) -> None:
    with (
        ManagedProcess("sleeper", ["sleep", "1000"], log_path=place / "log") as child,
        pytest.raises(DevnetError, match="running already"),
    ):
        child.start()


# --- PostgreSQL ---


@contextmanager
def removed_in_the_end(server: EmbeddedPostgres) -> Iterator[None]:
    yield
    server.remove()


def test_postgres_keeps_what_was_committed_when_it_is_killed_with_a_session_at_work(place: Path) -> None:
    with EmbeddedPostgres(place / "postgres") as server, removed_in_the_end(server):
        with psycopg.connect(server.superuser_dsn()) as session:
            session.execute("CREATE TABLE kept (n int)")
            session.execute("INSERT INTO kept VALUES (1)")
            session.commit()
            session.execute("INSERT INTO kept VALUES (2)")
            server.kill()
            with pytest.raises(psycopg.OperationalError):
                session.execute("SELECT 1")
        server.start()
        with psycopg.connect(server.superuser_dsn()) as session:
            assert session.execute("SELECT n FROM kept").fetchall() == [(1,)]


def test_postgres_does_not_let_anyone_in_without_the_password(postgres: EmbeddedPostgres) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(postgres.dsn("postgres", "guess", "postgres"))
    socket_dsn = f"host={postgres.socket_directory} port={postgres.port} user=postgres password=guess"
    with pytest.raises(psycopg.OperationalError, match=r"password authentication failed|Permission denied"):
        psycopg.connect(socket_dsn)
    assert is_private(postgres.directory / "superuser.password")
    assert postgres.superuser_dsn().split(":")[2].split("@")[0] not in repr(postgres)


def test_a_database_copied_from_a_template_has_its_tables(postgres: EmbeddedPostgres) -> None:
    postgres.create_database("origin")
    with psycopg.connect(postgres.superuser_dsn("origin")) as session:
        session.execute("CREATE TABLE inherited ()")
    postgres.create_database("copy", template="origin")
    with psycopg.connect(postgres.superuser_dsn("copy")) as session:
        assert session.execute("SELECT count(*) FROM inherited").fetchone() == (0,)
    with pytest.raises(DevnetError, match="already exists"):
        postgres.create_database("copy")
    for name in ("copy", "copy", "origin"):
        postgres.drop_database(name)


def test_postgres_finds_its_data_again_below_a_directory_that_its_user_cannot_enter(place: Path) -> None:
    closed = place / "closed"
    closed.mkdir(mode=0o700)
    with EmbeddedPostgres(closed / "postgres", durability=Durability.FAST) as server:
        server.create_database("remembered")
        data = server.data_directory
    again = EmbeddedPostgres(closed / "postgres", durability=Durability.FAST)
    with again:
        assert again.data_directory == data
        psycopg.connect(again.superuser_dsn("remembered")).close()
    again.remove()
    assert not data.exists()


# --- Redis ---


def test_redis_wants_its_password_and_forgets_everything_when_killed(place: Path) -> None:
    with RedisServer(place / "redis") as server:
        with redis.Redis.from_url(server.url) as client:
            client.set("bell", "rung")
        server.kill()
        server.start()
        with redis.Redis.from_url(server.url) as client:
            assert client.get("bell") is None
        once = Retry(NoBackoff(), 0)
        with redis.Redis(port=server.port, retry=once) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
        assert is_private(place / "redis/redis.conf")
        assert is_private(place / "redis/password")


# --- bitcoind ---


def test_bitcoind_pays_mines_and_is_found_at_the_same_address_after_kill_and_restart(place: Path) -> None:
    with Bitcoind(place / "bitcoind") as node:
        payer, payee = node.wallet("payer"), node.wallet("payee")
        payer.fund()
        url = node.rpc_url
        txid = payer.send(payee.address("bech32m"), 15_000)
        [block] = payer.mine(1)
        assert txid in node.rpc("getblock", block)["tx"]
        node.restart()
        assert payee.balance_sats() == 15_000
        node.kill()
        node.start()
        assert node.rpc_url == url
        assert sorted(node.rpc("listwallets")) == ["payee", "payer"]
        assert {entry["type"] for entry in node.rpc("getzmqnotifications")} == {
            "pubhashblock",
            "pubrawtx",
            "pubsequence",
        }


def test_each_thread_calls_the_node_through_a_connection_of_its_own(bitcoind: Bitcoind) -> None:
    wrong: list[object] = []

    def ask() -> None:
        for _ in range(50):
            if bitcoind.rpc("getblockhash", 0) != genesis:
                wrong.append("other answer")

    genesis = bitcoind.rpc("getblockhash", 0)
    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_two_nodes_follow_one_chain_once_they_are_joined(place: Path) -> None:
    with (
        Bitcoind(place / "one", peers=Peers.LISTEN) as one,
        Bitcoind(place / "two", peers=Peers.LISTEN) as two,
    ):
        one.wallet("miner").mine(3)
        assert two.rpc("getblockcount") == 0
        two.connect(one)
        wait_until(lambda: two.rpc("getblockcount") == 3, timeout=20, what="the second node to follow")


def test_a_node_with_a_bad_argument_reports_what_it_said(place: Path) -> None:
    node = Bitcoind(place / "bitcoind", extra_args=["-nonsense=1"])
    with pytest.raises(StartFailed, match="nonsense"):
        node.start()
    assert not node.process.running


# --- anvil ---


def test_anvil_mines_when_told_and_finalizes_twice_an_epoch_behind_the_tip(anvil: Anvil) -> None:
    payer, payee, *_ = anvil.accounts()
    before = anvil.balance_wei(payee)
    txid = anvil.send_eth(payer, payee, 5)
    assert anvil.receipt(txid) is None
    [block] = anvil.mine()
    assert anvil.receipt(txid) is not None
    assert anvil.balance_wei(payee) == before + 5
    mined_at = anvil.height()
    anvil.mine(2 * anvil.slots_in_an_epoch - 1)
    assert int(anvil.rpc("eth_getBlockByNumber", "finalized", False)["number"], 16) == mined_at - 1
    anvil.finalize()
    assert int(anvil.rpc("eth_getBlockByNumber", "finalized", False)["number"], 16) >= mined_at
    assert anvil.block_hash(mined_at) == block
    with pytest.raises(LookupError):
        anvil.block_hash(10**9)


def test_anvil_serves_what_we_ask_by_block_hash_and_no_unknown_block(anvil: Anvil) -> None:
    payer, payee, *_ = anvil.accounts()
    before = anvil.balance_wei(payee)
    txid = anvil.send_eth(payer, payee, 7)
    [block] = anvil.mine()
    height = hex(anvil.height())
    anvil.send_eth(payer, payee, 9)
    anvil.mine()
    [trace] = anvil.rpc("trace_block", height)
    assert (trace["transactionHash"], trace["traceAddress"], trace["action"]["value"]) == (txid, [], "0x7")
    [call] = anvil.rpc("debug_traceBlockByHash", block, {"tracer": "callTracer"})
    assert (call["txHash"], call["result"]["value"]) == (txid, "0x7")
    assert [entry["transactionHash"] for entry in anvil.rpc("eth_getBlockReceipts", block)] == [txid]
    assert int(anvil.rpc("eth_getBalance", payee, {"blockHash": block}), 16) == before + 7
    assert anvil.rpc("eth_getLogs", {"blockHash": block}) == []
    unknown = "0x" + "11" * 32
    with pytest.raises(AnvilRefused, match="-32001"):
        anvil.rpc("eth_getBalance", payee, {"blockHash": unknown})
    with pytest.raises(AnvilRefused, match="unknown block"):
        anvil.rpc("eth_getLogs", {"blockHash": unknown})


def test_a_reorg_of_anvil_forgets_transactions_until_they_are_sent_again(anvil: Anvil) -> None:
    payer, payee, *_ = anvil.accounts()
    kept, lost = anvil.send_eth(payer, payee, 11), anvil.send_eth(payer, payee, 12)
    old = anvil.mine(2)
    tip = anvil.height()
    first, second = anvil.reorg(2)
    assert anvil.height() == tip
    assert anvil.block_hash(tip) != old[-1]
    assert anvil.receipt(kept) is None
    assert anvil.rpc("eth_getTransactionByHash", lost) is None
    assert (anvil.send_raw(first), anvil.send_raw(second)) == (kept, lost)
    anvil.mine(2)
    anvil.reorg(2, instead=[(first, 1)])
    receipt = anvil.receipt(kept)
    assert receipt is not None
    assert int(receipt["blockNumber"], 16) == anvil.height()
    assert anvil.receipt(lost) is None


def test_anvil_prices_a_block_drops_a_transaction_and_mines_by_itself_when_told(anvil: Anvil) -> None:
    payer, payee, *_ = anvil.accounts()
    stranger = "0x" + "57" * 20
    anvil.fund(stranger, 10**18)
    dropped = anvil.send_eth(stranger, payee, 1)
    assert dropped in str(anvil.rpc("txpool_content"))
    anvil.drop(dropped)
    assert dropped not in str(anvil.rpc("txpool_content"))
    anvil.set_next_base_fee(7 * 10**9)
    anvil.mine()
    assert anvil.rpc("eth_getBlockByNumber", "latest", False)["baseFeePerGas"] == hex(7 * 10**9)
    assert anvil.receipt(dropped) is None
    anvil.set_automine(Automine.ON)
    mined = anvil.send_eth(payer, payee, 1)
    wait_until(lambda: anvil.receipt(mined) is not None, timeout=10, what="a block without being asked")
    anvil.set_automine(Automine.OFF)
    waiting = anvil.send_eth(payer, payee, 1)
    assert anvil.receipt(waiting) is None
    anvil.mine()


def test_anvil_begins_with_the_same_block_after_every_start_and_a_kill_costs_only_what_was_not_saved(
    fresh_anvil: Callable[..., Anvil],
) -> None:
    node = fresh_anvil(save_every_seconds=1)
    node.mine(3)
    blocks = [node.block_hash(height) for height in range(4)]
    for _ in range(3):
        node.await_saved()
        node.kill()
        node.start()
        node.restart()
        assert [node.block_hash(height) for height in range(node.height() + 1)] == blocks
    node.mine()
    mined_at = int(node.rpc("eth_getBlockByNumber", "latest", False)["timestamp"], 16)
    assert abs(mined_at - time.time()) < 60


def test_anvil_keeps_chain_and_accounts_over_a_stop_but_loses_them_when_killed(
    fresh_anvil: Callable[..., Anvil],
) -> None:
    node = fresh_anvil(chain_id=31338)
    payer, payee, *_ = accounts = node.accounts()
    txid = node.send_eth(payer, payee, 5)
    [block] = node.mine()
    node.mine(3)
    url = node.rpc_url
    node.restart()
    assert (node.rpc_url, node.accounts(), node.height()) == (url, accounts, 4)
    assert int(node.rpc("eth_chainId"), 16) == 31338
    assert node.block_hash(1) == block
    assert node.rpc("trace_block", "0x1")[0]["transactionHash"] == txid
    assert node.rpc("debug_traceBlockByHash", block, {"tracer": "callTracer"})[0]["result"]["value"] == "0x5"
    initially_wei = 10_000 * 10**18
    assert int(node.rpc("eth_getBalance", payee, {"blockHash": block}), 16) == initially_wei + 5
    node.mine(2)
    node.kill()
    node.start()
    assert (node.height(), node.accounts()) == (4, accounts), "what came after the last stop is gone"


# --- SoftHSM ---


def test_a_token_opens_with_its_pin_only_and_is_made_once(place: Path) -> None:
    token = SoftHsmToken(place / "hsm", "hot")
    token.create()
    store = sorted(p.name for p in (place / "hsm/tokens").rglob("*"))
    token.create()
    assert sorted(p.name for p in (place / "hsm/tokens").rglob("*")) == store, "again changes nothing"
    program = (
        "import sys, PyKCS11\n"
        "library = PyKCS11.PyKCS11Lib()\n"
        "library.load(sys.argv[1])\n"
        "session = library.openSession(library.getSlotList(tokenPresent=True)[0])\n"
        "try:\n    session.login('0000')\n"
        "except PyKCS11.PyKCS11Error as error:\n    print(error)\n"
        "session.login(sys.stdin.read())\n"
        "print(library.getTokenInfo(library.getSlotList(tokenPresent=True)[0]).label.rstrip('\\0 '))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(token.module_path)],
        input=token.user_pin(),
        env={**os.environ, **token.env},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["CKR_PIN_INCORRECT (0x000000A0)", "hot"]
    assert is_private(token.pin_path)
    assert token.user_pin() not in repr(token)


def test_a_label_that_pkcs11_cannot_hold_is_refused(place: Path) -> None:
    with pytest.raises(ValueError, match="1 to 32 bytes"):
        SoftHsmToken(place / "hsm", "x" * 33)
