"""The manifests agree with the code and with the Compose file: names, times, commands, queues."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from click.testing import CliRunner

import app.__main__ as api_process
import workers.__main__ as worker_process
from app import health
from batchord.broker import provider_queue
from batchord.cli import commands
from batchord.providers_file import load_routes
from batchord.settings import Settings, read_settings
from batchord.state import keys

REPOSITORY: Final = Path(__file__).parents[2]
FOLDER: Final = REPOSITORY / "kubernetes"
COMPOSE: Final = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text(encoding="utf-8"))
FILES: Final = sorted(path.relative_to(FOLDER) for path in FOLDER.rglob("*.yaml"))
APPLIED_BY_HAND: Final = {"secret.example.yaml", "kustomization.yaml"}


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / path).read_text(encoding="utf-8")))


OBJECTS: Final = [found for path in FILES if path.name != "kustomization.yaml" for found in documents(path)]
WORKLOADS: Final = {
    found["metadata"]["name"]: found for found in OBJECTS if found["kind"] in {"Deployment", "StatefulSet"}
}
OURS: Final = ["batchord-api", "batchord-worker"]


def one(kind: str, name: str) -> dict[str, Any]:
    (found,) = [each for each in OBJECTS if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


def pod(name: str) -> dict[str, Any]:
    return dict(WORKLOADS[name]["spec"]["template"]["spec"])


def container(name: str) -> dict[str, Any]:
    (found,) = pod(name)["containers"]
    return dict(found)


def variables(name: str) -> dict[str, str]:
    """All that a container is told by its own list, the map and the secret."""
    own = {each["name"]: each["value"] for each in container(name)["env"]}
    for source in container(name)["envFrom"]:
        ((kind, reference),) = source.items()
        found = one("ConfigMap" if kind == "configMapRef" else "Secret", reference["name"])
        told = found["data" if "data" in found else "stringData"]
        own |= {each: value for each, value in told.items() if each.isupper()}
    return own


def probes(name: str) -> dict[str, dict[str, Any]]:
    return {each: probe for each, probe in container(name).items() if each.endswith("Probe")}


def seconds(probe: dict[str, Any]) -> int:
    """How long it takes until a pod is given up that never answers."""
    return int(probe["periodSeconds"] * probe.get("failureThreshold", 3))


def test_every_file_is_applied_but_the_secret_s_example() -> None:
    for folder in (Path(), Path("keda")):
        (listed,) = documents(folder / "kustomization.yaml")
        here = {path.name for path in FILES if path.parent == folder} - APPLIED_BY_HAND
        assert set(listed["resources"]) == here


def test_keda_is_a_component_since_kustomize_takes_no_folder_that_the_one_it_is_in_contains() -> None:
    (listed,) = documents(Path("keda/kustomization.yaml"))
    assert listed["kind"] == "Component"
    offered = (
        (FOLDER / "kustomization.yaml").read_text(encoding="utf-8").replace("# components:\n#   -", "components:\n  -")
    )
    assert yaml.safe_load(offered)["components"] == ["keda"]


def test_nothing_names_a_namespace() -> None:
    assert [each["metadata"]["name"] for each in OBJECTS if "namespace" in each["metadata"]] == []


@pytest.mark.parametrize("name", OURS)
def test_every_variable_is_a_setting_and_has_a_value_that_it_allows(name: str) -> None:
    ours = {
        each.removeprefix("BATCHORD_").lower(): value for each, value in variables(name).items() if "BATCHORD" in each
    }
    assert {"redis_url", "storage_url", "providers"} <= ours.keys() <= Settings.model_fields.keys()
    read_settings(**ours)


@pytest.mark.parametrize("name", OURS)
def test_the_providers_are_found_where_they_are_mounted_with_their_keys(name: str, tmp_path: Path) -> None:
    (mounted,) = [each for each in pod(name)["volumes"] if "configMap" in each]
    (item,) = mounted["configMap"]["items"]
    (mount,) = [each for each in container(name)["volumeMounts"] if each["name"] == mounted["name"]]
    assert variables(name)["BATCHORD_PROVIDERS"] == f"{mount['mountPath']}/{item['path']}"
    file = tmp_path / "providers.toml"
    file.write_text(one("ConfigMap", mounted["configMap"]["name"])["data"][item["key"]], encoding="utf-8")
    load_routes(Settings(providers=file), variables(name), needs_keys=True)


@pytest.mark.parametrize("name", WORKLOADS)
def test_kubernetes_variables_of_services_are_not_taken_for_settings(name: str) -> None:
    assert pod(name)["enableServiceLinks"] is False


@pytest.mark.parametrize("name", OURS)
def test_each_container_runs_a_command_as_its_help_has_it(name: str) -> None:
    command, *arguments = container(name)["args"]
    assert commands.commands[command].make_context(command, list(arguments)).params


def test_the_images_are_those_of_compose() -> None:
    expected = {"batchord-api": "api", "batchord-worker": "worker", "batchord-valkey": "valkey"}
    found = {name: container(name)["image"] for name in WORKLOADS}
    assert found == {name: COMPOSE["services"][service]["image"] for name, service in expected.items()}
    (kustomization,) = documents(Path("kustomization.yaml"))
    names = [f"{image['newName']}:{image['newTag']}" for image in kustomization["images"]]
    assert names == [container("batchord-api")["image"]]


def test_the_valkey_runs_as_in_compose_with_a_limit_that_its_container_has_room_for_twice() -> None:
    arguments = container("batchord-valkey")["args"]
    expected = COMPOSE["services"]["valkey"]["command"]
    assert arguments == [*expected, "--maxmemory", "1gb"]
    assert container("batchord-valkey")["resources"]["limits"]["memory"] == "2Gi"


def test_a_worker_has_the_time_to_drain_and_to_close() -> None:
    drain_s = float(variables("batchord-worker")["BATCHORD_DRAIN_TIMEOUT_S"])
    assert pod("batchord-worker")["terminationGracePeriodSeconds"] >= drain_s + worker_process._CLOSE_S


def test_the_api_has_the_time_to_finish_its_requests_and_to_close() -> None:
    *_, pause_s = container("batchord-api")["lifecycle"]["preStop"]["exec"]["command"]
    needed_s = int(pause_s) + api_process._FINISH_S + api_process._CLOSE_S
    assert pod("batchord-api")["terminationGracePeriodSeconds"] >= needed_s


def test_the_api_is_asked_on_its_routes_and_its_port() -> None:
    paths = {each: probe["httpGet"]["path"] for each, probe in probes("batchord-api").items()}
    assert paths == {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}
    assert set(paths.values()) == {getattr(route, "path", None) for route in health.router.routes}
    (port,) = container("batchord-api")["ports"]
    assert str(port["containerPort"]) == variables("batchord-api")["BATCHORD_PORT"]
    assert container("batchord-api")["readinessProbe"]["timeoutSeconds"] > health._PATIENCE_S
    (service,) = one("Service", "batchord-api")["spec"]["ports"]
    assert service["targetPort"] == port["name"]


def test_a_worker_s_probes_are_commands_and_only_what_a_restart_mends_restarts_it() -> None:
    for name, probe in probes("batchord-worker").items():
        program, command, *options = probe["exec"]["command"]
        assert program == "batchord"
        params = commands.commands[command].make_context(command, list(options)).params
        assert params == {"wants_worker": True, "liveness": name == "livenessProbe"}


@pytest.mark.parametrize(("options", "code"), [(["--worker", "--liveness"], 0), (["--worker"], 1)])
def test_a_worker_whose_redis_is_away_is_not_ready_and_yet_not_restarted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], code: int
) -> None:
    monkeypatch.setenv("BATCHORD_REDIS_URL", f"unix://{tmp_path}/none.sock")
    assert CliRunner().invoke(commands, ["health", *options]).exit_code == code


def test_no_worker_is_restarted_before_a_dead_one_would_be_missed() -> None:
    claim_s = Settings.model_fields["claim_s"].default
    assert seconds(container("batchord-worker")["livenessProbe"]) > 2 * claim_s


@pytest.mark.parametrize("name", WORKLOADS)
def test_no_container_may_more_than_it_needs(name: str) -> None:
    security = container(name)["securityContext"]
    assert (security["allowPrivilegeEscalation"], security["readOnlyRootFilesystem"]) == (False, True)
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert (pod(name)["securityContext"]["runAsNonRoot"], pod(name)["automountServiceAccountToken"]) == (True, False)


@pytest.mark.parametrize("name", OURS)
def test_our_containers_run_as_the_image_s_user_and_write_to_tmp_alone(name: str) -> None:
    user = f"USER {pod(name)['securityContext']['runAsUser']}:{pod(name)['securityContext']['runAsGroup']}"
    assert user in (REPOSITORY / "Dockerfile").read_text(encoding="utf-8").splitlines()
    writable = [each["mountPath"] for each in container(name)["volumeMounts"] if not each.get("readOnly")]
    assert writable == [str(path) for path in COMPOSE["services"]["api"]["tmpfs"]]


@pytest.mark.parametrize("kind", ["Service", "PodDisruptionBudget", "NetworkPolicy"])
def test_what_selects_pods_finds_some(kind: str) -> None:
    labels = [WORKLOADS[name]["spec"]["template"]["metadata"]["labels"].items() for name in WORKLOADS]
    for found in (each["spec"] for each in OBJECTS if each["kind"] == kind):
        selector = found.get("selector", found.get("podSelector"))
        wanted = selector.get("matchLabels", selector)
        assert any(wanted.items() <= each for each in labels)


def test_keda_counts_the_batches_and_the_queue_of_every_provider(tmp_path: Path) -> None:
    file = tmp_path / "providers.toml"
    file.write_text(one("ConfigMap", "batchord")["data"]["providers.toml"], encoding="utf-8")
    providers = load_routes(Settings(providers=file), {}).providers
    scaled = one("ScaledObject", "batchord-worker")["spec"]
    counted = [trigger["metadata"]["listName"] for trigger in scaled["triggers"]]
    assert counted == [keys.ACTIVE, *map(provider_queue, providers)]
    host = variables("batchord-worker")["BATCHORD_REDIS_URL"].removeprefix("redis://").removesuffix("/0")
    assert {trigger["metadata"]["address"] for trigger in scaled["triggers"]} == {host}
    name, _, port = host.partition(":")
    (service,) = one("Service", name)["spec"]["ports"]
    assert str(service["port"]) == port
    assert scaled["scaleTargetRef"]["name"] in WORKLOADS


def test_the_autoscaler_scales_a_workload_that_names_no_number_of_its_own() -> None:
    target = one("HorizontalPodAutoscaler", "batchord-worker")["spec"]["scaleTargetRef"]["name"]
    assert "replicas" not in WORKLOADS[target]["spec"]
