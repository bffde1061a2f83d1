"""Rules of the layout: who imports whom, what a process loads, where floats are, what no file may name."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("custody", "signers", "chains", "policies", "ops")

# Where amounts are handled. A float there is a time-out or says why: `# float: why`.
MONEY = (
    "chains",
    "policies",
    "signers",
    "custody/ledger",
    "custody/withdrawals",
    "custody/deposits",
    "custody/signing",
    "custody/reconcile",
)

SAYS_WHY = re.compile(r"# float: |timeout|seconds", re.IGNORECASE)

PATH_NAME = re.compile(r"path|director|folder|file", re.IGNORECASE)

# Written in pieces, for this file is searched too.
REGISTRY_HOSTS = (
    "pypi" + ".org",
    "python" + "hosted.org",
    "crates" + ".io",
    "registry.npm" + "js",
    "npm" + "js.org",
    "deb." + "debian.org",
    "security." + "debian.org",
    "proxy.go" + "lang",
    "repo.maven" + ".apache",
    "pkg" + ".dev",
)


@pytest.fixture(scope="module")
def imports() -> grimp.ImportGraph:
    return grimp.build_graph(*PACKAGES, cache_dir=None)


def run_python(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout


def tracked_files() -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]


def python_files(folders: tuple[str, ...]) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def test_the_import_contracts_hold() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([program, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_custody_knows_the_signer_only_by_its_client_and_its_ports(imports: grimp.ImportGraph) -> None:
    allowed = {"signers", "signers.client", "signers.ports", "signers.errors"}
    found = {
        f"{module} imports {imported}"
        for module in imports.modules
        if module.split(".")[0] == "custody"
        for imported in imports.find_modules_directly_imported_by(module)
        if imported.split(".")[0] == "signers" and imported not in allowed
    }
    assert found == set()


def test_policies_import_nothing_of_ours_but_types_errors_and_how_addresses_are_written(
    imports: grimp.ImportGraph,
) -> None:
    found = {
        imported
        for module in imports.modules
        if module.split(".")[0] == "policies"
        for imported in imports.find_modules_directly_imported_by(module)
        if imported.split(".")[0] in {"custody", "signers", "chains", "ops"}
    }
    assert found <= {"chains.types", "chains.errors", "chains.eth.address"}


UNWANTED = frozenset(
    {
        "custody",
        "ops",
        "fastapi",
        "z3",
        "starlette",
        "uvicorn",
        "sqlalchemy",
        "alembic",
        "psycopg",
        "httpx",
        "zmq",
        "web3",
    }
    | {"eth_account", "bitcoinrpc", "bitcoinlib", "celery", "redis", "yaml"}
)
"""What nothing that signs payments loads, be it through others."""


def test_nothing_that_signs_or_makes_keys_loads_custody_ops_the_verifier_or_a_web_or_database_library() -> (
    None
):
    modules = sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in python_files(("signers",))
        if "verifier" not in path.parts and path.name != "__main__.py"
    )
    assert {"signers.daemon", "signers.journal.keeper", "signers.cli.root", "signers.ceremony.session"} <= {
        *modules
    }
    program = f"import importlib, sys; [importlib.import_module(m) for m in {modules}]; print(*sys.modules)"
    loaded = run_python(program).split()
    assert {*modules} <= {*loaded}
    assert [name for name in loaded if name.split(".")[0] in UNWANTED or name.endswith(".node")] == []
    assert [name for name in loaded if name.startswith("signers.verifier")] == []


AIRGAP = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "signers/airgap").glob("*.py")
    if path.stem not in ("__init__", "__main__")
)
"""The offline signer's modules."""
NETWORKING = frozenset(
    {"socket", "_socket", "ssl", "_ssl", "http", "asyncio", "_asyncio", "ftplib", "smtplib"}
)


def test_the_offline_signer_reaches_pure_modules_only(imports: grimp.ImportGraph) -> None:
    reached = {
        imported
        for module in ("signers.airgap", *AIRGAP)
        for imported in imports.find_upstream_modules(module)
        if imported.split(".")[0] in PACKAGES
    }
    assert {*AIRGAP, "chains.btc.multisig", "policies.bundle.reading"} <= reached | {*AIRGAP}
    foreign = {
        name
        for name in reached
        if not name.startswith(("chains", "policies", "signers.airgap")) or ".node" in name
    }
    assert foreign - {"signers"} == set()


def test_the_offline_signer_loads_no_network_module_and_nothing_of_the_online_side() -> None:
    """In the order of its command: it gives the network up first. What its libraries load late is loaded here too."""
    late = [
        "policies.passkeys",
        "embit.bip39",
        "embit.descriptor",
        "eth_abi",
        "segno",
        "zxingcpp",
        "PIL.Image",
    ]
    late += ["shamir_mnemonic", "PIL.PngImagePlugin", "PIL.JpegImagePlugin"]
    program = (
        "import importlib, sys\n"
        "from signers.airgap.offline import seal\n"
        "seal()\n"
        f"for name in {AIRGAP + late}: importlib.import_module(name)\n"
        "print(*(name for name, module in sys.modules.items() if getattr(module, '__spec__', None)))"
    )
    loaded = run_python(program).split()
    assert {*AIRGAP, *late} <= {*loaded}
    assert [name for name in loaded if name.split(".")[0] in NETWORKING or name == "urllib.request"] == []
    assert [
        name for name in loaded if name.split(".")[0] in UNWANTED or name.startswith("chains.eth.node")
    ] == []
    assert "chains.btc.node" not in loaded
    ours = [name for name in loaded if name.startswith("signers.") and not name.startswith("signers.airgap")]
    assert ours == []


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_loads_no_slow_library_and_writes_nothing(package: str, tmp_path: Path) -> None:
    program = f"import os, sys; os.environ['HOME'] = {str(tmp_path)!r}; import {package}; print(*sys.modules)"
    assert "bitcoinlib" not in run_python(program).split()
    assert list(tmp_path.iterdir()) == []


def floats_in(path: Path) -> Iterator[str]:
    """Yields each line of a file that makes a float and does not say why."""
    source = path.read_text()
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        literal = isinstance(node, ast.Constant) and isinstance(node.value, float)
        call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "float"
        division = isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div)
        if isinstance(node, ast.expr | ast.stmt) and (literal or call or division):
            line = lines[node.lineno - 1]
            if not SAYS_WHY.search(line) and not (division and is_path(node)):
                yield f"{path.relative_to(ROOT)}:{node.lineno}: {line.strip()}"


def is_path(node: ast.AST) -> bool:
    """Whether a `/` joins a path: one end is a string, or is named as paths are, or is such a join."""
    match node:
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return is_path(left) or is_path(right)
        case ast.JoinedStr() | ast.Constant(value=str()):
            return True
        case ast.Name(id=name) | ast.Attribute(attr=name) | ast.Call(func=ast.Name(id=name)):
            return PATH_NAME.search(name) is not None
    return False


@pytest.mark.parametrize("folder", MONEY)
def test_no_float_is_made_where_amounts_are_handled(folder: str) -> None:
    files = python_files((folder,))
    assert files, f"{folder} holds no code: correct the list above"
    assert [line for path in files for line in floats_in(path)] == []


def test_the_search_for_floats_finds_each_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    sample = tmp_path / "sample.py"
    sample.write_text(
        "a = 0.5\nb = float('1')\nc = 1 / 2\nd = 0.5  # float: why\ne = p / 'name' / q\nf = 1 // 2\n"
    )
    assert [line.split(":")[1] for line in floats_in(sample)] == ["1", "2", "3"]


def test_no_tracked_file_names_a_package_registry() -> None:
    """But Cargo's lock, which has one form only: it names the index of crates whatever mirror a machine uses."""
    found = []
    for path in tracked_files():
        if path.name == "Cargo.lock":
            continue
        text = path.read_bytes().decode(errors="replace")
        found += [f"{path.relative_to(ROOT)}: {host}" for host in REGISTRY_HOSTS if host in text]
    assert found == []


def test_no_tracked_file_is_a_lock_that_names_where_packages_come_from() -> None:
    assert [path for path in tracked_files() if path.name == "uv.lock"] == []
    locks = [path for path in tracked_files() if path.suffix == ".lock" and path.name != "Cargo.lock"]
    assert {str(lock.relative_to(ROOT)) for lock in locks} == {
        "requirements.lock",
        "requirements-dev.lock",
        "requirements-setup.lock",
        "signers/requirements.lock",
        "signers/airgap/requirements.lock",
    }
    for lock in locks:
        text = lock.read_text()
        assert "://" not in text
        assert "--index-url" not in text
        assert "--find-links" not in text
        packages = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
        assert packages
        assert all("==" in line and line.endswith("\\") for line in packages), (
            "each package has a version and hashes"
        )


def declared_packages(project: dict[str, Any], *groups: str) -> set[str]:
    wanted = project["dependencies"] + [
        e for group in groups for e in project["optional-dependencies"][group]
    ]
    return {normal(re.split(r"[\[<>=!~; ]", entry)[0]) for entry in wanted}


def locked_packages(lock: str) -> set[str]:
    return {normal(line.split("==")[0]) for line in (ROOT / lock).read_text().splitlines() if "==" in line}


def test_the_locks_hold_every_declared_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert declared_packages(project) - locked_packages("requirements.lock") == set(), "run `make lock`"
    assert declared_packages(project, "dev") - locked_packages("requirements-dev.lock") == set(), (
        "run `make lock`"
    )


@pytest.mark.parametrize("folder", ["signers", "signers/airgap"])
def test_a_lock_of_its_own_holds_what_its_list_names_in_the_versions_of_everybody_else(folder: str) -> None:
    lines = (ROOT / folder / "requirements.in").read_text().splitlines()
    listed = {normal(line) for line in lines if line and not line.startswith("#")}
    lock = f"{folder}/requirements.lock"
    assert listed - locked_packages(lock) == set(), "run `make lock`"
    pins = {line for line in (ROOT / "requirements.lock").read_text().splitlines() if "==" in line}
    mine = {line for line in (ROOT / lock).read_text().splitlines() if "==" in line}
    assert {pin.split(" ;")[0].split(" \\")[0] for pin in mine} <= {
        pin.split(" ;")[0].split(" \\")[0] for pin in pins
    }, "run `make lock`"


def test_every_package_imported_is_declared_in_the_project_file() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = declared_packages(project, "dev")
    providers = packages_distributions()
    external = set()
    for path in python_files((*PACKAGES, "tests")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                external |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                external.add(node.module.split(".")[0])
    external -= {*sys.stdlib_module_names, *PACKAGES, "tests"}
    missing = {name for name in external if not {normal(d) for d in providers.get(name, [])} & declared}
    assert missing == set()


def normal(distribution: str) -> str:
    return distribution.strip().lower().replace("_", "-").replace(".", "-")
