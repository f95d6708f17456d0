"""`retrain upload`: each content once, under a name that tells it."""

import json
import re
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from components.step import UserError
from pipelines.cli.upload import upload as command
from pipelines.kubeflow import Kubeflow
from pipelines.retrain import compile
from pipelines.settings import STOCK
from pipelines.transport import Connection, Unreachable
from pipelines.upload import upload, version_name, write_custom_resources
from tests.servers.kfp import FakeKubeflow

OTHER = replace(STOCK, region="eu-central-1")


@pytest.mark.slow
def test_a_version_is_named_after_the_code_and_the_content(tmp_path: Path) -> None:
    compile(tmp_path / "a.yaml", STOCK)
    compile(tmp_path / "b.yaml", STOCK)
    compile(tmp_path / "c.yaml", OTHER)
    names = [version_name(tmp_path / f"{name}.yaml") for name in "abc"]
    assert names[0] == names[1] != names[2]
    for name in names:
        assert re.fullmatch(r"v[0-9]+-[0-9]+-[0-9]+(-[a-z0-9-]+)?-[0-9a-f]{12}", name)
        assert len(f"retrain-{name}") <= 63  # a DNS-1123 label


@pytest.mark.slow
@pytest.mark.parametrize("store", ["database", "kubernetes"])
def test_the_first_upload_takes_four_requests_and_the_same_again_two(
    kubeflow: Kubeflow, kubeflow_server: FakeKubeflow, store: str
) -> None:
    kubeflow_server.pipeline_store = store
    first = upload(kubeflow, STOCK)
    assert (first.new, kubeflow.requests) == (True, 4)
    again = upload(kubeflow, STOCK)
    assert (again.new, kubeflow.requests) == (False, 6)
    assert (again.version_id, again.name) == (first.version_id, first.name)
    assert len(kubeflow_server.versions) == 1


@pytest.mark.slow
def test_another_content_is_another_version_of_the_same_pipeline(
    kubeflow: Kubeflow, kubeflow_server: FakeKubeflow
) -> None:
    first, second = upload(kubeflow, STOCK), upload(kubeflow, OTHER)
    assert second.new
    assert first.pipeline_id == second.pipeline_id
    assert {row["name"] for row in kubeflow_server.versions.values()} == {first.name, second.name}


@pytest.mark.slow
def test_the_same_content_from_an_earlier_version_of_the_code_is_not_uploaded_again(
    kubeflow: Kubeflow, kubeflow_server: FakeKubeflow
) -> None:
    first = upload(kubeflow, STOCK)
    old = f"v0-0-9-{first.name[-12:]}"
    kubeflow_server.versions[first.version_id]["name"] = old
    again = upload(kubeflow, STOCK)
    assert (again.new, again.name) == (False, old)


def put(url: str) -> str:
    connection = Connection(host=url)
    up = upload(Kubeflow(connection), STOCK)
    connection.close()
    return up.version_id


@pytest.mark.slow
def test_of_several_uploads_at_once_one_arrives(kubeflow_server: FakeKubeflow) -> None:
    for path in ("/names/", "/versions"):  # all have looked before the first writes
        kubeflow_server.gather(3, method="GET", path=path)
    with ProcessPoolExecutor(3, get_context("spawn")) as pool:
        assert len(set(pool.map(put, [kubeflow_server.url] * 3))) == 1
    assert (len(kubeflow_server.pipelines), len(kubeflow_server.versions)) == (1, 1)
    assert [request.status for request in kubeflow_server.log].count(409) == 4


@pytest.mark.slow
@pytest.mark.parametrize("request_number", range(4))
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_upload_that_was_cut_off_anywhere_can_be_done_again(
    kubeflow: Kubeflow, kubeflow_server: FakeKubeflow, request_number: int, when: str
) -> None:
    for _ in range(request_number):
        kubeflow_server.delay(0, times=1)
    kubeflow_server.drop(when)  # type: ignore[arg-type]
    try:
        upload(kubeflow, STOCK)
    except Unreachable:
        assert when == "before"
        upload(kubeflow, STOCK)
    assert (len(kubeflow_server.pipelines), len(kubeflow_server.versions)) == (1, 1)


@pytest.mark.slow
def test_a_pipeline_goes_into_the_namespace_or_where_all_see_it() -> None:
    with FakeKubeflow(multi_user=True) as server:
        server.tokens = {"t": "ci"}
        server.grant("ci", "team", "pipelines", "get", "list", "create")
        connection = Connection(host=server.url, token=lambda: "t", namespace="team")
        client = Kubeflow(connection)
        assert upload(client, STOCK).new
        with pytest.raises(UserError, match="may not create pipelines"):
            upload(client, STOCK, shared=True)
        server.grant("ci", "", "pipelines", "create")
        assert upload(client, STOCK, shared=True).new
        connection.close()
        assert sorted(row["namespace"] for row in server.pipelines.values()) == ["", "team"]


@pytest.mark.slow
def test_the_command_prints_the_name_the_ids_and_where_to_look(kubeflow_server: FakeKubeflow) -> None:
    result = CliRunner().invoke(command, ["--host", kubeflow_server.url])
    assert result.exit_code == 0, result.output
    (version,) = kubeflow_server.versions.values()
    assert f"{version['name']} is uploaded" in result.output
    assert f"pipeline {version['pipeline_id']}" in result.output
    place = f"#/pipelines/details/{version['pipeline_id']}/version/{version['pipeline_version_id']}"
    assert f"{kubeflow_server.url}/{place}" in result.output
    again = CliRunner().invoke(command, ["--host", kubeflow_server.url])
    assert "was there already; nothing was sent" in again.output


def test_the_page_of_a_version_is_behind_the_dashboard_where_there_is_one(kubeflow: Kubeflow) -> None:
    kubeflow.connection.ui = "https://kf.example.com/pipeline"
    up = upload(kubeflow, STOCK)
    page = f"#/pipelines/details/{up.pipeline_id}/version/{up.version_id}"
    assert up.url == f"https://kf.example.com/_/pipeline/?ns={page}"


@pytest.mark.slow
def test_the_command_prints_json(kubeflow_server: FakeKubeflow) -> None:
    result = CliRunner().invoke(command, ["--host", kubeflow_server.url, "--json"])
    printed = json.loads(result.output)
    assert printed.keys() == {"pipeline_id", "version_id", "name", "new", "url"}
    assert printed["version_id"] in kubeflow_server.versions


@pytest.mark.slow
def test_custom_resources_have_the_same_name_and_specification_as_an_upload(
    kubeflow: Kubeflow, kubeflow_server: FakeKubeflow, tmp_path: Path
) -> None:
    up = upload(kubeflow, STOCK)
    paths = write_custom_resources(tmp_path / "gitops", STOCK, "team")
    assert [path.name for path in paths] == ["pipeline.yaml", f"{up.name}.yaml"]
    pipeline, version = (yaml.safe_load(path.read_text()) for path in paths)
    assert (pipeline["kind"], version["kind"]) == ("Pipeline", "PipelineVersion")
    assert pipeline["metadata"] == {"name": "retrain", "namespace": "team"}
    assert version["metadata"] == {"name": f"retrain-{up.name}", "namespace": "team"}
    assert version["spec"]["versionName"] == up.name
    assert version["spec"]["pipelineName"] == "retrain"
    uploaded = kubeflow_server.versions[up.version_id]["pipeline_spec"]
    assert version["spec"]["pipelineSpec"] == uploaded["pipeline_spec"]
    assert version["spec"]["platformSpec"] == uploaded["platform_spec"]


@pytest.mark.slow
def test_older_custom_resources_stay_beside_the_new(tmp_path: Path) -> None:
    write_custom_resources(tmp_path, STOCK, "")
    write_custom_resources(tmp_path, OTHER, "")
    assert len(list(tmp_path.iterdir())) == 3
    assert sorted(tmp_path.iterdir())[0].name == "pipeline.yaml"  # applied first: the versions belong to it


@pytest.mark.slow
def test_custom_resources_need_no_server(tmp_path: Path) -> None:
    result = CliRunner().invoke(command, ["--custom-resources", str(tmp_path / "gitops"), "--namespace", "team"])
    assert result.exit_code == 0, result.output
    assert [Path(line).parent for line in result.output.split()] == [tmp_path / "gitops"] * 2


@pytest.mark.slow
def test_custom_resources_that_cannot_be_written_are_a_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder, why in (("file", "File exists"), ("file/below", "Not a directory")):
        with pytest.raises(
            UserError, match=rf"--custom-resources '.*{folder}' cannot be written \({why}\); name another"
        ):
            write_custom_resources(tmp_path / folder, STOCK, "")
