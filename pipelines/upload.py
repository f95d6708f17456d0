"""Puts the compiled pipeline on a server, or into custom resources for GitOps, under a name that tells its content."""

import hashlib
import re
from dataclasses import dataclass
from importlib.metadata import version as installed
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from kfp import compiler
from kfp.compiler.compiler_utils import KubernetesManifestOptions
from kfp_server_api import V2beta1Pipeline, V2beta1PipelineVersion

from components.step import UserError
from components.storage import aside
from pipelines.kubeflow import Kubeflow, Predicate
from pipelines.parameters import PIPELINE
from pipelines.retrain import compile, pipeline
from pipelines.settings import Settings


@dataclass(frozen=True)
class Upload:
    """A version on the server."""

    pipeline_id: str
    version_id: str
    name: str
    new: bool
    """False where the server had this content already."""
    url: str
    """Where people see it; '' if that is not known."""


def digest(package: Path) -> str:
    """12 hexadecimal digits of the SHA-256 of a compiled pipeline."""
    return hashlib.sha256(package.read_bytes()).hexdigest()[:12]


def version_name(package: Path) -> str:
    """Such as `v0-1-0-0123456789ab`: the code's version and the content's digest.

    A DNS-1123 label, which a version's name must be where pipelines are custom resources.
    """
    code = re.sub(r"[^a-z0-9]+", "-", installed("retrain").lower()).strip("-")
    return f"v{code[:40]}-{digest(package)}"


def upload(kubeflow: Kubeflow, settings: Settings, *, shared: bool = False) -> Upload:
    """The pipeline's version for these settings on the server, uploaded unless its content is there already.

    Safe when two do it at once, and when it was interrupted before. `shared` puts it where all namespaces see it.
    """
    with TemporaryDirectory() as folder:
        package = Path(folder) / "retrain.yaml"
        compile(package, settings)
        home = _home(kubeflow, "" if shared else kubeflow.namespace, settings)
        found = _same_content(kubeflow, home.pipeline_id, package)
        name = version_name(package)
        told = f"SHA-256 {digest(package)} of retrain {installed('retrain')}, compiled by kfp {installed('kfp')}"
        up = found or kubeflow.upload_version(home.pipeline_id, name, package, told)
    version_id = up.pipeline_version_id
    url = kubeflow.connection.page(f"pipelines/details/{home.pipeline_id}/version/{version_id}")
    return Upload(home.pipeline_id, version_id, up.name or up.display_name, found is None, url)


def _home(kubeflow: Kubeflow, namespace: str, settings: Settings) -> V2beta1Pipeline:
    """The pipeline that the version belongs to."""
    found = kubeflow.pipeline(PIPELINE, namespace)
    return found or kubeflow.create_pipeline(PIPELINE, namespace, pipeline(settings).description)


def _same_content(kubeflow: Kubeflow, pipeline_id: str, package: Path) -> V2beta1PipelineVersion | None:
    """The version that has this content, whatever version of the code it came from."""
    wanted = digest(package)
    listed = kubeflow.versions(pipeline_id, [Predicate("name", "IS_SUBSTRING", wanted)])
    return next((version for version in listed if (version.name or version.display_name).endswith(wanted)), None)


def write_custom_resources(folder: Path, settings: Settings, namespace: str) -> list[Path]:
    """Writes a Pipeline and a PipelineVersion, for servers that keep pipelines as custom resources.

    One file each, so that older versions stay beside the new one; `kubectl apply -f` takes the pipeline's first, as
    the server's webhook needs it.
    """
    with TemporaryDirectory() as room:
        package = Path(room) / "retrain.yaml"
        compile(package, settings)
        name = version_name(package)
        documents = _manifests(Path(room) / "manifests.yaml", settings, name, namespace)
    # The server names a version that it is sent so too, and looks for it by `versionName`
    # (backend/src/crd/kubernetes/v2beta1/pipelineversion_types.go).
    documents[1]["spec"]["versionName"] = name
    paths = [folder / "pipeline.yaml", folder / f"{name}.yaml"]
    try:
        for path, document in zip(paths, documents, strict=True):
            with aside(path) as copy:
                copy.write_text(yaml.safe_dump(document, sort_keys=True))
    except OSError as error:
        raise UserError(
            f"--custom-resources {str(folder)!r} cannot be written ({error.strerror}); name another directory"
        ) from None
    return paths


def _manifests(path: Path, settings: Settings, name: str, namespace: str) -> list[dict[str, Any]]:
    """The two custom resources as kfp writes them."""
    options = KubernetesManifestOptions(
        pipeline_name=PIPELINE,
        pipeline_version_name=f"{PIPELINE}-{name}",
        pipeline_version_display_name=name,
        namespace=namespace or None,
        include_pipeline_manifest=True,
    )
    compiler.Compiler().compile(
        pipeline(settings), str(path), kubernetes_manifest_options=options, kubernetes_manifest_format=True
    )
    return list(yaml.safe_load_all(path.read_text()))
