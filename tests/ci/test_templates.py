"""The templates for GitHub and GitLab and the scripts of CI: linted, and true to each other."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from pipelines.settings import read_settings
from tests.servers.loopback import Loopback, Reply, Request

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github" / "workflows" / "retrain.yml"
GITLAB = ROOT / ".ci" / "gitlab.yml"
SCRIPT = ROOT / ".ci" / "retrain"
DOCS = ROOT / "docs" / "ci.md"

GITHUB_SCHEMA = ("check-jsonschema", "--builtin-schema", "vendor.github-workflows")
GITLAB_SCHEMA = ("check-jsonschema", "--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci")
ACTIONLINT = ("actionlint", "-shellcheck=")
ZIZMOR = ("zizmor", "--offline", "--no-progress", "--pedantic")
SHELLCHECK = ("shellcheck",)


def lint(command: tuple[str, ...], *files: Path) -> subprocess.CompletedProcess[str]:
    """Runs a linter that is installed beside this Python."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    arguments = [*command, *map(str, files)]
    return subprocess.run(arguments, capture_output=True, text=True, env={**os.environ, "PATH": path}, timeout=60)


def commands(text: str) -> set[str]:
    """The commands of .ci/retrain that a template calls."""
    return {word for line in re.findall(r"\.ci/retrain ([a-z ]+)$", text, re.M) for word in line.split()}


def known_commands() -> set[str]:
    return set(re.findall(r"^([a-z]+)\(\) \{ ## ", SCRIPT.read_text(), re.M))


@pytest.mark.slow
@pytest.mark.parametrize("command", [GITHUB_SCHEMA, ACTIONLINT, ZIZMOR])
def test_the_workflow_of_github_is_clean(command: tuple[str, ...]) -> None:
    linted = lint(command, GITHUB)
    assert linted.returncode == 0, linted.stdout + linted.stderr


def test_the_template_of_gitlab_is_clean() -> None:
    linted = lint(GITLAB_SCHEMA, GITLAB)
    assert linted.returncode == 0, linted.stdout + linted.stderr


def test_the_scripts_of_ci_are_clean() -> None:
    scripts = [path for path in (ROOT / ".ci").iterdir() if path.is_file() and path.read_bytes().startswith(b"#!")]
    assert SCRIPT in scripts
    linted = lint(SHELLCHECK, *scripts)
    assert linted.returncode == 0, linted.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "source", "right", "wrong"),
    [
        (GITHUB_SCHEMA, GITHUB, "timeout-minutes: 120", "timeout-minuts: 120"),
        (ACTIONLINT, GITHUB, "needs: canary", "needs: canari"),
        (ACTIONLINT, GITHUB, "inputs.endpoint }}", "inputs.endpont }}"),
        (ZIZMOR, GITHUB, "@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1", "@v7"),
        (ZIZMOR, GITHUB, "run: .ci/retrain images", "run: .ci/retrain images ${{ github.head_ref }}"),
        (GITLAB_SCHEMA, GITLAB, "interruptible: true", "interruptible: [maybe]"),
        (SHELLCHECK, SCRIPT, 'cat "$0"', "cat $0"),
    ],
)
def test_the_linters_find_what_is_wrong(
    command: tuple[str, ...], source: Path, right: str, wrong: str, tmp_path: Path
) -> None:
    text = source.read_text() + "\ncat $0\n" if source == SCRIPT else source.read_text()
    broken = tmp_path / ".github" / "workflows" / source.name
    broken.parent.mkdir(parents=True)
    broken.write_text(text.replace(right, wrong))
    assert broken.read_text() != source.read_text()
    assert lint(command, broken).returncode != 0


@pytest.mark.parametrize("template", [GITHUB, GITLAB])
def test_a_template_calls_only_commands_that_the_script_has(template: Path) -> None:
    called = commands(template.read_text())
    assert called == known_commands()


def test_the_jobs_of_gitlab_have_stages_and_ancestors() -> None:
    found: dict[str, Any] = yaml.safe_load(GITLAB.read_text())
    jobs = {name: job for name, job in found.items() if isinstance(job, dict) and ("script" in job or name[0] == ".")}
    assert {job["extends"] for job in jobs.values() if "extends" in job} <= jobs.keys()
    assert [job["stage"] for job in jobs.values() if "script" in job] == found["stages"]


def test_every_right_in_the_workflow_is_given_to_one_job_at_a_time() -> None:
    found: dict[str, Any] = yaml.safe_load(GITHUB.read_text())
    assert found["permissions"] == {}
    assert {name: job["permissions"] for name, job in found["jobs"].items()} == {
        "test": {"contents": "read"},
        "images": {"contents": "read", "packages": "write"},
        "canary": {"contents": "read", "id-token": "write"},
        "promote": {"contents": "read", "id-token": "write"},
    }
    assert all("timeout-minutes" in job for job in found["jobs"].values())


def test_a_pull_request_from_another_repository_gets_no_credentials_and_one_in_a_fork_gets_them() -> None:
    found: dict[str, Any] = yaml.safe_load(GITHUB.read_text())
    own = "(!github.event.pull_request || github.event.pull_request.head.repo.full_name == github.repository)"
    assert all(own in found["jobs"][name]["if"] for name in ("images", "canary"))
    assert "canary" in found["jobs"]["promote"]["needs"]


def test_whoever_waits_for_a_run_gets_the_signals_that_github_sends_to_the_shell_of_a_step() -> None:
    found: dict[str, Any] = yaml.safe_load(GITHUB.read_text())
    for name in ("canary", "promote"):
        assert found["jobs"][name]["steps"][-1]["run"].startswith("exec .ci/retrain ")


def test_gitlabs_canary_goes_to_its_own_namespace_whatever_the_projects_variables_say() -> None:
    """They go before the variables of a job, but not before those of its commands."""
    found: dict[str, Any] = yaml.safe_load(GITLAB.read_text())
    job = found["retrain-canary"]
    assert "RETRAIN_NAMESPACE" not in job["variables"]
    command = job["script"].replace(".ci/retrain client login canary", "sh -c 'echo $RETRAIN_NAMESPACE'")
    for given, chosen in {"": "real", "trial": "trial"}.items():
        variables = {"PATH": os.environ["PATH"], "RETRAIN_NAMESPACE": "real", "RETRAIN_CANARY_NAMESPACE": given}
        said = subprocess.run(["bash", "-c", command], env=variables, capture_output=True, text=True, check=True)
        assert said.stdout.strip() == chosen


@pytest.mark.parametrize("template", [GITHUB, GITLAB])
def test_promote_waits_for_a_run_as_long_as_its_job_may_last(template: Path) -> None:
    found: dict[str, Any] = yaml.safe_load(template.read_text())
    github = template == GITHUB
    job = found["jobs"]["promote"] if github else found["retrain-promote"]
    waits = (job["steps"][-1]["env"] if github else job["variables"])["RETRAIN_TIMEOUT"]
    lasts = 60 * job["timeout-minutes"] if github else 3600 * int(job["timeout"].removesuffix("h"))
    assert lasts - 1800 < waits < lasts - 600


def test_every_input_of_the_workflow_is_used() -> None:
    text = GITHUB.read_text()
    found: dict[Any, Any] = yaml.safe_load(text)
    call = found[True]["workflow_call"]  # YAML 1.1 takes `on` for true
    for name in call["inputs"]:
        assert f"inputs.{name}" in text
    for name in call["secrets"]:
        assert f"secrets.{name}" in text


FROM_ELSEWHERE = {
    *("RETRAIN_KEY", "RETRAIN_AUDIENCE", "RETRAIN_ID_TOKEN", "RETRAIN_AWS_ID_TOKEN"),
    *("RETRAIN_TIMEOUT", "RETRAIN_BIN", "RETRAIN_WORK"),
}
"""Variables that on GitHub nobody needs, or has no way to set: docs/ci.md."""


@pytest.mark.parametrize("name", ["canary", "promote"])
def test_a_caller_of_the_workflow_can_set_all_that_a_run_depends_on(name: str) -> None:
    """The environment of a caller does not reach a reusable workflow."""
    found: dict[str, Any] = yaml.safe_load(GITHUB.read_text())
    job = found["jobs"][name]
    given = {**found["env"], **job["env"], **job["steps"][-1]["env"]}
    listed = set(re.findall(r"^\| `(RETRAIN_[A-Z_]+)`", DOCS.read_text(), re.M))
    of_images = {variable for variable in listed if variable.startswith("RETRAIN_REGISTRY_")}
    assert listed - of_images - FROM_ELSEWHERE - given.keys() == set()
    for variable, read in {"PARAMETERS": "parameters", "CANARY": "canary", "MODEL": "model"}.items():
        assert given[f"RETRAIN_{variable}"] == f"${{{{ inputs.{read} }}}}"


def test_the_docs_list_exactly_the_variables_that_the_script_reads() -> None:
    read = set(re.findall(r"RETRAIN_[A-Z_]+", SCRIPT.read_text()))
    listed = set(re.findall(r"^\| `(RETRAIN_[A-Z_]+)`", DOCS.read_text(), re.M))
    assert listed == read


def test_the_docs_name_only_commands_inputs_and_files_that_exist() -> None:
    text = DOCS.read_text()
    assert commands(text.replace("`", "\n")) <= known_commands()
    linked = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    assert linked
    assert [path for path in linked if not (ROOT / "docs" / path).exists()] == []
    inputs = yaml.safe_load(GITHUB.read_text())[True]["workflow_call"]["inputs"]
    given = example()
    assert given.keys() <= inputs.keys()
    assert {name for name, told in inputs.items() if told.get("required")} <= given.keys()


def test_the_example_of_the_docs_writes_to_a_store_of_its_own_and_may_read_it() -> None:
    given = example()
    settings = read_settings(ROOT / given["settings"], given["environment"])
    assert (settings.endpoint, settings.secret) == ("", "")  # AWS, by a role
    assert given["region"] == settings.region
    assert given["aws-role"]
    assert given["parameters"]


def example() -> dict[str, str]:
    """What the example of the docs gives to the workflow."""
    caller = yaml.safe_load(re.findall(r"```yaml\n(name: ci\n.*?)```", DOCS.read_text(), re.S)[0])
    (job,) = caller["jobs"].values()
    given: dict[str, str] = job["with"]
    return given


class Rules(Loopback):
    """A Kubernetes API that tells what the service account of CI may do, and knows no resource but that."""

    DISCOVERY: ClassVar[dict[str, Any]] = {
        "/api": {"kind": "APIVersions", "versions": []},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
    }

    def answer(self, request: Request) -> Reply:
        if request.path in self.DISCOVERY:
            return Reply(200, self.DISCOVERY[request.path])
        assert request.path == "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
        assert request.headers["Impersonate-User"] == "system:serviceaccount:retrain:retrain-ci"
        objects = yaml.safe_load_all((ROOT / "manifests" / "base" / "ci.yaml").read_text())
        (role,) = [found for found in objects if found["kind"] == "Role"]
        status = {"resourceRules": role["rules"], "nonResourceRules": [], "incomplete": False}
        return Reply(201, {"kind": "SelfSubjectRulesReview", "apiVersion": "authorization.k8s.io/v1", "status": status})


@pytest.mark.slow
def test_the_rights_of_ci_are_listed_as_the_docs_show_them(tmp_path: Path) -> None:
    command, listed = re.findall(r"```sh\nkubectl (auth [^\n]*)\n```.*?```\n(.*?)```", DOCS.read_text(), re.S)[0]
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    with Rules() as server:
        kubectl = [str(Path(sys.executable).parent / "kubectl"), "--server", server.url, *command.split()]
        said = subprocess.run(kubectl, env=environment, capture_output=True, text=True, timeout=60)
    assert said.returncode == 0, said.stderr
    assert sorted(said.stdout.splitlines()) == sorted(listed.splitlines())
