"""The pods that the compiled pipeline makes obey the policy, but for what KFP cannot express."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from pipelines.settings import STOCK, Settings, read_settings
from tests.manifests.launched import compiled, step_pods
from tests.manifests.policy import violations
from tests.manifests.rendered import MANIFESTS, of_kind, overlay

SETTINGS = MANIFESTS / "settings.toml"
ENVIRONMENTS = {
    "stock": STOCK,
    "kind": read_settings(SETTINGS, "kind"),
    "minio": read_settings(SETTINGS, "minio"),
    "production": read_settings(SETTINGS, "production"),
}
OVERLAY = {"stock": "kubeflow", "kind": "kind", "minio": "kind", "production": "production"}

INEXPRESSIBLE = ["it has a service account's token", "main: its root can be written"]
"""KFP's launcher, in the step's own container, calls Kubernetes; the admin adds components/read-only-root."""

STEPS = {"plan", "shard", "ingest", "train", "evaluate", "export"}

UNITS: dict[str, int | Decimal] = {"": 1, "m": Decimal("0.001"), "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


@pytest.mark.slow
@pytest.mark.parametrize("settings", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_every_step_obeys_the_policy_as_far_as_kfp_can_say(settings: Settings, tmp_path: Path) -> None:
    broken = {name: violations(pod) for name, pod in step_pods(settings, tmp_path).items()}
    assert broken == dict.fromkeys(STEPS, INEXPRESSIBLE)


@pytest.mark.slow
@pytest.mark.parametrize("settings", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_every_step_has_a_directory_that_it_can_write_where_its_root_is_read_only(
    settings: Settings, tmp_path: Path
) -> None:
    for name, pod in step_pods(settings, tmp_path).items():
        assert "/tmp" in [mount["mountPath"] for mount in pod["spec"]["containers"][0]["volumeMounts"]], name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "secret"), [("stock", "mlpipeline-minio-artifact"), ("minio", "retrain-store"), ("production", None)]
)
def test_credentials_come_from_a_secret_or_from_the_pods_identity(
    name: str, secret: str | None, tmp_path: Path
) -> None:
    for pod in step_pods(ENVIRONMENTS[name], tmp_path).values():
        variables = {each["name"]: each for each in pod["spec"]["containers"][0]["env"]}
        for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            reference = variables.get(variable, {}).get("valueFrom", {}).get("secretKeyRef", {})
            assert reference.get("name") == secret


@pytest.mark.slow
@pytest.mark.parametrize(("name", "settings"), ENVIRONMENTS.items(), ids=ENVIRONMENTS)
def test_every_step_fits_the_quota(name: str, settings: Settings, tmp_path: Path) -> None:
    hard = of_kind(overlay(OVERLAY[name]), "ResourceQuota")["retrain"]["spec"]["hard"]
    for step, pod in step_pods(settings, tmp_path).items():
        for key, value in flat(pod["spec"]["containers"][0]["resources"]).items():
            assert key not in hard or quantity(value) <= quantity(hard[key]) * Decimal("0.9"), f"{step}: {key}"


def flat(resources: dict[str, dict[str, str]]) -> dict[str, str]:
    """As a quota counts them: `requests.cpu` and so on."""
    return {f"{bound}.{name}": value for bound, values in resources.items() for name, value in values.items()}


def quantity(text: str) -> Decimal:
    """A quantity of Kubernetes as a number."""
    digits = text.rstrip("mKMGTi")
    return Decimal(digits) * UNITS[text[len(digits) :]]


@pytest.mark.slow
@pytest.mark.parametrize("settings", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_every_pod_of_a_run_has_a_deadline_by_which_the_quota_of_kind_knows_it(
    settings: Settings, tmp_path: Path
) -> None:
    config: dict[str, Any] = compiled(settings, tmp_path)[1]["pipelineConfig"]
    assert int(config["activeDeadlineSeconds"]) > 0
    assert of_kind(overlay("kind"), "ResourceQuota")["retrain"]["spec"]["scopes"] == ["Terminating"]


@pytest.mark.parametrize("name", ["kubeflow", "production"])
def test_a_container_that_says_nothing_of_resources_gets_what_the_quota_asks_for(name: str) -> None:
    hard = of_kind(overlay(name), "ResourceQuota")["retrain"]["spec"]["hard"]
    [limit] = of_kind(overlay(name), "LimitRange")["retrain"]["spec"]["limits"]
    given = {f"requests.{key}" for key in limit["defaultRequest"]} | {f"limits.{key}" for key in limit["default"]}
    assert {key for key in hard if key.endswith(("cpu", "memory"))} == given


@pytest.mark.slow
def test_a_pod_without_its_security_context_would_be_noticed(tmp_path: Path) -> None:
    pod = step_pods(STOCK, tmp_path)["train"]
    for key in ("runAsUser", "runAsNonRoot"):
        del pod["spec"]["containers"][0]["securityContext"][key]
    assert {"main: it may run as root", "main: its user is no number above 0"} <= set(violations(pod))
