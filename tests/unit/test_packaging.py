"""The files around the code agree with it: the locks with pyproject.toml, the containers with the settings."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from batchord.settings import Settings

REPOSITORY = Path(__file__).parents[2]
SERVER_LOCK, DEV_LOCK = REPOSITORY / "requirements.lock", REPOSITORY / "requirements-dev.lock"
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
SERVER = PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["server"]
GROUPS = PROJECT["dependency-groups"]

PIN = re.compile(r"[a-z0-9-]+==[\w.]+( ; [^\\]+)? \\")
HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")
COMMENT = re.compile(r" *# *[\w ,()\[\]:.=-]*")  # without a slash: no address and no folder


def pins(lock: Path) -> set[tuple[str, str]]:
    """The (name, version) pairs; a name has several where platforms or Pythons need different versions."""
    return set(re.findall(r"^([a-z0-9-]+)==([\w.]+)", lock.read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize("lock", [SERVER_LOCK, DEV_LOCK], ids=lambda path: path.name)
def test_a_lock_names_pins_and_hashes_but_no_place_to_fetch_them_from(lock: Path) -> None:
    lines = lock.read_text(encoding="utf-8").splitlines()
    odd = [line for line in lines if not any(form.fullmatch(line) for form in (PIN, HASH, COMMENT))]
    assert odd == []


def test_the_tests_run_with_the_versions_that_the_server_runs_with() -> None:
    assert pins(SERVER_LOCK) <= pins(DEV_LOCK)


@pytest.mark.parametrize(
    ("lock", "wanted"),
    [(SERVER_LOCK, [*SERVER, *GROUPS["build"]]), (DEV_LOCK, [*SERVER, *GROUPS["build"], *GROUPS["dev"]])],
    ids=["server", "dev"],
)
def test_every_dependency_is_pinned_to_a_version_that_the_project_allows(lock: Path, wanted: list[object]) -> None:
    pinned = pins(lock)
    for requirement in (Requirement(text) for text in wanted if isinstance(text, str)):
        versions = {version for name, version in pinned if name == canonicalize_name(requirement.name)}
        assert versions, f"{requirement} is not pinned: run `make lock`"
        assert all(version in requirement.specifier for version in versions), f"{requirement}: run `make lock`"


def test_every_variable_that_the_containers_set_is_a_setting() -> None:
    compose = (REPOSITORY / "docker-compose.yml").read_text(encoding="utf-8")
    image = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
    names = re.findall(r"^ +BATCHORD_(\w+): ", compose, re.MULTILINE) + re.findall(r"\bBATCHORD_(\w+)=", image)
    assert "REDIS_URL" in names
    assert {name.lower() for name in names} <= Settings.model_fields.keys()


def test_the_containers_are_reached_from_this_machine_alone() -> None:
    compose = (REPOSITORY / "docker-compose.yml").read_text(encoding="utf-8")
    published = re.findall(r'^ +- "?([\d.:]*\d+:\d+)"?$', compose, re.MULTILINE)
    assert {port.rpartition(":")[2] for port in published} == {"8080", "5555"}
    assert all(port.startswith("127.0.0.1:") for port in published)


@pytest.mark.parametrize(("given", "taken"), [("user:password", "user:password"), ("", r"nobody:\S{32}")])
def test_flower_never_runs_with_an_empty_password(tmp_path: Path, given: str, taken: str) -> None:
    flower = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text(encoding="utf-8"))["services"]["flower"]
    celery = tmp_path / "celery"
    celery.write_text('#!/bin/sh\necho "$FLOWER_BASIC_AUTH"\n', encoding="utf-8")
    celery.chmod(0o755)
    command = [part.replace("$$", "$") for part in [*flower["entrypoint"], *flower["command"]]]
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "FLOWER_BASIC_AUTH": given}
    shown = subprocess.run(command, env=env, capture_output=True, check=True, timeout=30, text=True).stdout
    assert re.fullmatch(taken, shown.strip())
