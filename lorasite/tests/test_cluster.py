"""k8s/: every overlay, rendered by kubectl, matches the published schemas, the restricted profile and the code."""

import os
import re
import shutil
import subprocess
from functools import cache
from typing import Any

import pytest
import yaml
from django.db import connection

from lorasite.env import BASE_DIR as ROOT
from lorasite.env import Env
from testing.belongings import belongings
from training.models import Status, Task
from work.worker import GRACE

OVERLAYS = sorted(path.name for path in (ROOT / "k8s" / "overlays").iterdir())
overlays = pytest.mark.parametrize("overlay", OVERLAYS)

if not shutil.which("kubectl") and not os.environ.get("CI"):
    pytest.skip("kubectl is not here; deploy/get-kubectl brings it", allow_module_level=True)


@cache
def rendered(overlay: str) -> list[dict[str, Any]]:
    line = ["kubectl", "kustomize", str(ROOT / "k8s" / "overlays" / overlay)]
    build = subprocess.run(line, capture_output=True, text=True)
    assert (build.returncode, build.stderr) == (0, "")
    return list(yaml.safe_load_all(build.stdout))


@cache
def custom_kinds() -> dict[str, Any]:
    """Return the models of custom objects by their names."""
    # The two packages take four seconds to import, which every pytest process would pay when it collects.
    from cloudcoil.models.keda.v1alpha1 import ScaledObject, TriggerAuthentication
    from cloudcoil.models.prometheus_operator.v1 import PrometheusRule, ServiceMonitor

    return {kind.__name__: kind for kind in (ScaledObject, TriggerAuthentication, PrometheusRule, ServiceMonitor)}


def of_kind(overlay: str, *kinds: str) -> list[dict[str, Any]]:
    return [thing for thing in rendered(overlay) if thing["kind"] in kinds]


def pods(overlay: str) -> list[tuple[str, dict[str, Any]]]:
    """Return name and pod spec of every workload."""
    workloads = of_kind(overlay, "Deployment", "StatefulSet", "Job")
    return [(thing["metadata"]["name"], thing["spec"]["template"]["spec"]) for thing in workloads]


@pytest.mark.slow
@overlays
def test_every_object_matches_its_schema_and_has_no_other_field(overlay: str) -> None:
    import kubernetes_validate  # takes three seconds

    for thing in rendered(overlay):
        if custom := custom_kinds().get(thing["kind"]):
            custom.model_validate(thing, extra="forbid")
        else:
            kubernetes_validate.validate(thing, "1.37", strict=True)


@pytest.mark.slow
def test_a_misspelt_field_of_a_custom_object_is_refused() -> None:
    wrong = of_kind("production", "ScaledObject")[0] | {"spec": {"scaleTargetRef": {"nome": "worker"}, "triggers": []}}
    with pytest.raises(ValueError, match="nome"):
        custom_kinds()["ScaledObject"].model_validate(wrong, extra="forbid")


@pytest.mark.slow
@overlays
def test_every_pod_meets_the_restricted_profile_and_writes_only_to_volumes(overlay: str) -> None:
    for name, pod in pods(overlay):
        context = pod["securityContext"]
        assert context["runAsNonRoot"] and context["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is False, name
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
            }, name  # fmt: skip
            assert container["resources"]["requests"].keys() >= {"cpu", "memory"} and container["resources"]["limits"]


@pytest.mark.medium
@overlays
def test_every_server_is_probed_and_every_worker_has_its_grace(overlay: str) -> None:
    for name, pod in pods(overlay):
        (container,) = pod["containers"]
        assert name == "migrate" or "livenessProbe" in container, name
        assert not container.get("ports") or "readinessProbe" in container, name
        if name.startswith("worker"):
            assert pod["terminationGracePeriodSeconds"] > GRACE.total_seconds() + 10


@overlays
def test_what_is_named_is_there(overlay: str) -> None:
    """Pods of services, budgets and policies; targets of autoscalers; configuration."""
    labels = [
        thing["spec"]["template"]["metadata"]["labels"] for thing in of_kind(overlay, "Deployment", "StatefulSet")
    ]
    selectors = [thing["spec"]["selector"] for thing in of_kind(overlay, "Service")]
    chosen = [
        thing["spec"].get("selector") or thing["spec"]["podSelector"]
        for thing in of_kind(overlay, "PodDisruptionBudget", "NetworkPolicy")
    ]
    for wanted in [*selectors, *(selector.get("matchLabels", {}) for selector in chosen)]:
        assert any(wanted.items() <= there.items() for there in labels), wanted
    running = {(thing["kind"], thing["metadata"]["name"]) for thing in rendered(overlay)}
    for scaled in of_kind(overlay, "HorizontalPodAutoscaler", "ScaledObject"):
        assert ("Deployment", scaled["spec"]["scaleTargetRef"]["name"]) in running
    configuration = {thing["metadata"]["name"] for thing in of_kind(overlay, "ConfigMap")}
    used = {
        source["configMapRef"]["name"]
        for _n, pod in pods(overlay)
        for c in pod["containers"]
        for source in c.get("envFrom", [])
    }
    assert used == configuration


@overlays
def test_every_variable_of_the_configuration_is_read(overlay: str) -> None:
    (configuration,) = of_kind(overlay, "ConfigMap")
    assert {name.lower() for name in configuration["data"]} <= set(Env.model_fields)


@overlays
def test_a_proxy_is_trusted_only_behind_tls(overlay: str) -> None:
    (configuration,) = of_kind(overlay, "ConfigMap")
    tls = any(ingress["spec"].get("tls") for ingress in of_kind(overlay, "Ingress"))
    proxy = (configuration["data"].get("BEHIND_HTTPS", "false"), configuration["data"].get("TRUSTED_PROXIES", "0"))
    assert proxy == (("true", "1") if tls else ("false", "0"))


@pytest.mark.slow
@pytest.mark.django_db
def test_workers_scale_by_what_waits_and_runs_in_their_queue(member: Any) -> None:
    for number, (kind, status) in enumerate(
        [("cpu", Status.PENDING), ("cpu", Status.SUCCESS), ("cuda", Status.STARTED)]
    ):
        Task.objects.filter(pk=belongings(member, f"run-{number}").task.pk).update(device_kind=kind, status=status)
    for scaled in of_kind("production", "ScaledObject"):
        (trigger,) = scaled["spec"]["triggers"]
        with connection.cursor() as cursor:
            cursor.execute(trigger["metadata"]["query"])
            assert cursor.fetchone() == (1,)


def test_rules_of_the_operator_are_those_of_prometheus() -> None:
    (rules,) = of_kind("production", "PrometheusRule")
    assert rules["spec"] == yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text())


def test_images_are_those_of_the_dockerfile() -> None:
    targets = set(re.findall(r"^FROM base AS (\w+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    for overlay in OVERLAYS:
        images = {
            c["image"].rpartition("/")[2].partition(":")[0] for _n, pod in pods(overlay) for c in pod["containers"]
        }
        ours = {
            image.removeprefix("lorasite-").removesuffix("-gpu") for image in images if image.startswith("lorasite-")
        }
        assert ours == targets
