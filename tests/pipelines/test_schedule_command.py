"""`retrain schedule` as a user types it, against a loopback server."""

import json
import re
import signal
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipelines.cli.schedule import schedule
from pipelines.timetable import read_timetable
from tests.commands import RETRAIN, retrain
from tests.pipelines.timetables import install, schedule_names
from tests.servers.kfp import FakeKubeflow
from tests.servers.loopback import Fault

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs" / "schedules.md").read_text()

NIGHTLY = 'schedules: [{name: nightly, cron: "0 3 * * *", parameters: {epochs: 3}}, {name: gone, cron: "@daily"}]'
LATER = 'schedules: [{name: nightly, cron: "0 4 * * *", parameters: {epochs: 5}}, {name: friday, cron: "0 1 13 * 5"}]'


@pytest.fixture
def kubeflow_server(kubeflow_server: FakeKubeflow, monkeypatch: pytest.MonkeyPatch) -> FakeKubeflow:
    """With the pipeline, and named by the environment."""
    install(kubeflow_server)
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", kubeflow_server.url)
    return kubeflow_server


def write(folder: Path, text: str) -> None:
    (folder / "schedules.yaml").write_text(text)


@pytest.mark.slow
def test_plan_reads_like_a_difference(kubeflow_server: FakeKubeflow, tmp_path: Path) -> None:
    write(tmp_path, NIGHTLY)
    applied = retrain("schedule", "apply", folder=tmp_path)
    assert (applied.returncode, applied.stdout) == (0, "gone: created\nnightly: created\n")
    write(tmp_path, LATER)
    planned = retrain("schedule", "plan", folder=tmp_path)
    assert planned.returncode == 0
    assert planned.stdout == (
        "  + friday: create\n"
        "      cron: 0 1 13 * 5\n"
        "      pipeline_version: latest\n"
        "      concurrency: 1\n"
        "      catch_up: false\n"
        "      service_account: retrain-runner\n"
        "      condition: changed\n"
        "      (fires on '13' of the month and also on every '5' of the week: cron takes either)\n"
        "  - gone: retire\n"
        "      (disabled, then deleted when no run of it is in progress)\n"
        "  ~ nightly: replace\n"
        "      cron: 0 3 * * * -> 0 4 * * *\n"
        "      epochs: 3 -> 5\n"
        "1 to create, 1 to replace, 1 to retire\n"
    )
    found = json.loads(retrain("schedule", "plan", "--json", folder=tmp_path).stdout)["changes"]
    assert {change["name"]: change["action"] for change in found} == {
        "friday": "create",
        "gone": "retire",
        "nightly": "replace",
    }
    assert found[2]["differences"]["epochs"] == {"before": 3, "after": 5}
    assert found[2]["recurring_runs"]


@pytest.mark.slow
def test_apply_says_what_it_did_and_then_that_nothing_is_left(kubeflow_server: FakeKubeflow, tmp_path: Path) -> None:
    write(tmp_path, 'schedules: [{name: nightly, cron: "0 3 * * *"}]')
    done = json.loads(retrain("schedule", "apply", "--json", folder=tmp_path).stdout)["done"]
    (made,) = kubeflow_server.recurring_runs
    assert done == [{"name": "nightly", "done": "created", "recurring_run": made}]
    again = retrain("schedule", "apply", folder=tmp_path)
    assert (again.returncode, again.stdout) == (0, "nothing to do\n")
    assert retrain("schedule", "plan", folder=tmp_path).stdout == "1 unchanged\n"


@pytest.mark.slow
def test_pause_list_resume_and_trigger_by_hand(kubeflow_server: FakeKubeflow, tmp_path: Path) -> None:
    write(tmp_path, 'schedules: [{name: nightly, cron: "0 3 * * *", enabled: true}]')
    retrain("schedule", "apply", folder=tmp_path)
    paused = retrain("schedule", "pause", "nightly", folder=tmp_path)
    assert paused.stdout == ("nightly: paused\nschedules.yaml says `enabled: true`: the next apply enables it again\n")
    assert retrain("schedule", "pause", "nightly", folder=tmp_path).stdout.startswith("nightly: was paused already\n")
    listed = retrain("schedule", "list", folder=tmp_path).stdout
    assert re.fullmatch(
        r"NAME +STATE +CRON +VERSION +CONDITION +NEXT\nnightly  paused +0 3 \* \* \* +latest +changed\n", listed
    )
    assert retrain("schedule", "resume", "nightly", folder=tmp_path).stdout == "nightly: resumed\n"
    (tmp_path / "schedules.yaml").unlink()
    (row,) = json.loads(retrain("schedule", "list", "--json", folder=tmp_path).stdout)["schedules"]
    assert (row["name"], row["state"]) == ("nightly", "enabled")
    assert re.fullmatch(r"20..-..-.. 03:00 UTC", row["next"])
    triggered = retrain("schedule", "trigger", "nightly", folder=tmp_path)
    (run,) = kubeflow_server.runs
    assert triggered.stdout == f"nightly: started run {run}\n"


@pytest.mark.slow
def test_next_tells_the_times_without_a_server(tmp_path: Path) -> None:
    write(tmp_path, 'schedules: [{name: leap, cron: "0 0 29 2 *"}, {name: off-duty, cron: "@daily", enabled: false}]')
    shown = retrain("schedule", "next", folder=tmp_path)
    assert shown.returncode == 0
    now = datetime.now(UTC)
    leaps = [datetime(year, 2, 29, tzinfo=UTC) for year in range(2028, 2096, 4)]
    assert shown.stdout.splitlines() == [
        *(f"{'leap':<24} {leap:%Y-%m-%d %H:%M} UTC" for leap in [leap for leap in leaps if leap > now][:3]),
        f"{'off-duty':<24} disabled",
    ]
    one = json.loads(retrain("schedule", "next", "leap", "--count", 1, "--json", folder=tmp_path).stdout)
    assert list(one) == ["leap"]
    wrong = retrain("schedule", "next", "leep", folder=tmp_path)
    assert (wrong.returncode, wrong.stderr) == (
        2,
        "error: unknown schedule 'leep'; did you mean 'leap'? (choices: leap, off-duty)\n",
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "code", "sentence"),
    [
        (
            'schedules: [{name: a, cron: "61 * * * *"}]',
            2,
            "error: schedules.yaml: schedule 'a': cron '61 * * * *': minute",
        ),
        ('schedules: [{name: a, cron: "@daily", pipeline_version: v9}]', 2, "does not have version 'v9'"),
    ],
)
def test_a_mistake_in_the_file_is_one_sentence(
    text: str, code: int, sentence: str, kubeflow_server: FakeKubeflow, tmp_path: Path
) -> None:
    write(tmp_path, text)
    for command in ("plan", "apply"):
        ended = retrain("schedule", command, folder=tmp_path)
        assert (ended.returncode, ended.stdout) == (code, "")
        assert sentence in ended.stderr
        assert len(ended.stderr.splitlines()) == 1
    assert kubeflow_server.recurring_runs == {}


@pytest.mark.slow
def test_a_server_that_is_not_there_is_exit_code_5(tmp_path: Path) -> None:
    write(tmp_path, NIGHTLY)
    ended = retrain("schedule", "plan", "--host", "http://127.0.0.1:9", folder=tmp_path)
    assert ended.returncode == 5
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.slow
def test_two_processes_at_once_end_with_one_of_each(kubeflow_server: FakeKubeflow, tmp_path: Path) -> None:
    # On one day of the year: where a tick is about to come, `apply` waits for it.
    entries = "\n".join(f'- {{name: s-{n}, cron: "{n} 3 1 1 *"}}' for n in range(30))
    for number, text in enumerate(("schedules:\n" + entries, "schedules:\n" + entries.replace(" 3 1", " 4 1"))):
        write(tmp_path, text)
        running = [
            subprocess.Popen(
                [RETRAIN, "schedule", "apply"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            for _ in range(2)
        ]
        for process in running:
            _, error = process.communicate(timeout=120)
            assert process.returncode == 0, error
        names = sorted(f"s-{n}" for n in range(30))
        assert schedule_names(kubeflow_server, status="ENABLED") == names
        assert schedule_names(kubeflow_server) == names
        assert retrain("schedule", "plan", folder=tmp_path).stdout == "30 unchanged\n", number


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_apply_that_is_ended_by_a_signal_is_finished_by_the_next(
    number: signal.Signals, kubeflow_server: FakeKubeflow, tmp_path: Path
) -> None:
    write(tmp_path, NIGHTLY)
    retrain("schedule", "apply", folder=tmp_path)
    write(tmp_path, LATER)
    kubeflow_server.faults.append(Fault(1, "POST", "/recurringruns$", seconds=1.0))
    asked = len(kubeflow_server.log)
    with subprocess.Popen([RETRAIN, "schedule", "apply"], cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        while not any(
            request.path.endswith("/recurringruns") and request.method == "POST"
            for request in kubeflow_server.log[asked:]
        ):
            time.sleep(0.01)
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
    if number == signal.SIGKILL:
        assert process.returncode == -number
    else:
        assert process.returncode == 128 + number
        assert error == "error: interrupted; call it again to finish what is left\n"
    while any(request.method == "POST" and not request.status for request in kubeflow_server.log):
        time.sleep(0.01)  # the server creates what it was asked for
    again = retrain("schedule", "apply", folder=tmp_path)
    assert again.returncode == 0, again.stderr
    assert retrain("schedule", "plan", folder=tmp_path).stdout.endswith("2 unchanged\n")
    assert schedule_names(kubeflow_server) == ["friday", "nightly"]


def test_the_file_in_the_documentation_is_a_whole_one(tmp_path: Path) -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", DOCS, re.DOTALL)
    write(tmp_path, example)
    timetable = read_timetable(tmp_path / "schedules.yaml")
    nightly, weekly = timetable.schedules
    assert (timetable.experiment, nightly.kfp_cron, weekly.kfp_cron) == ("digits", "0 0 3 * * *", "0 30 16 * * 6")
    for key in ("experiment", "service_account", "server_timezone"):
        assert re.search(rf"^{key}:", example, re.MULTILINE)
    for key in (
        "cron",
        "timezone",
        "parameters",
        "pipeline_version",
        "enabled",
        "concurrency",
        "catch_up",
        "condition",
    ):
        assert re.search(rf"^ +{key}:", example, re.MULTILINE), "the example shows every key"


def test_the_documentation_names_every_command() -> None:
    for name in schedule.commands:
        assert re.search(rf"`(retrain schedule )?{name}\b", DOCS), name
