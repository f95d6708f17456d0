"""The compiled pipeline agrees with the steps' interfaces, is the same everywhere, and tells the UI what it shows."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import pipelines
from components import step
from pipelines.parameters import NAMES, STEPS, parameters
from pipelines.retrain import compile

PLACEHOLDER = re.compile(r"\{\{\$\.(inputs|outputs)\.(artifacts|parameters)\['(\w+)'\](?:\.path|\.output_file)?\}\}")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("compiled") / "retrain.yaml"
    compile(path)
    spec: dict[str, Any] = next(yaml.safe_load_all(path.read_text()))
    return spec


def container(compiled: dict[str, Any], interface: type) -> dict[str, Any]:
    name = interface.__name__.lower()
    found: dict[str, Any] = compiled["deploymentSpec"]["executors"][f"exec-{name}"]["container"]
    return found


@pytest.mark.parametrize("interface", STEPS)
def test_the_compiled_command_runs_the_steps_module(compiled: dict[str, Any], interface: type) -> None:
    name = interface.__name__.lower()
    assert container(compiled, interface)["command"] == ["python3", "-m", f"components.{name}"]


@pytest.mark.parametrize("interface", STEPS)
def test_every_compiled_flag_carries_the_field_of_its_name(compiled: dict[str, Any], interface: type) -> None:
    arguments = container(compiled, interface)["args"]
    assert arguments[:2] == ["--executor-input", "{{$}}"]
    carried = {}
    for flag, value in zip(arguments[2::2], arguments[3::2], strict=True):
        match = PLACEHOLDER.fullmatch(value)
        assert match, value
        carried[flag] = match.groups()
    expected = {
        field.flag: (
            "outputs" if isinstance(field.artifact, step.Out) else "inputs",
            "artifacts" if field.is_file else "parameters",
            field.name,
        )
        for field in step.fields(interface)
    }
    assert carried == expected


@pytest.mark.parametrize("interface", STEPS)
def test_the_command_line_takes_the_compiled_arguments(compiled: dict[str, Any], interface: type) -> None:
    expected = {field.name: field.type("7") if field.required else field.default for field in step.fields(interface)}
    arguments = [
        PLACEHOLDER.sub(lambda match: str(expected[match.group(3)]), argument).replace("{{$}}", "{}")
        for argument in container(compiled, interface)["args"]
    ]
    given = vars(step.parser(interface).parse_args(arguments))
    assert given.pop("executor_input") == {}
    assert given == expected


def test_every_parameter_has_a_description_and_a_default_that_the_ui_shows(compiled: dict[str, Any]) -> None:
    shown = compiled["root"]["inputDefinitions"]["parameters"]
    assert set(shown) == set(NAMES)
    for field in parameters():
        assert shown[field.name]["description"].startswith(field.help[:20])
        assert shown[field.name]["defaultValue"] == field.default


def test_a_parameters_choices_stand_in_its_description(compiled: dict[str, Any]) -> None:
    shown = compiled["root"]["inputDefinitions"]["parameters"]
    assert "One of tanh, sigmoid, relu, leaky_relu." in " ".join(shown["activation"]["description"].split())


def tasks(compiled: dict[str, Any]) -> dict[str, Any]:
    """Every task by name, those under the condition too."""
    dags = [compiled["root"], *compiled["components"].values()]
    return {name: task for spec in dags for name, task in spec.get("dag", {}).get("tasks", {}).items()}


def test_the_steps_follow_each_other(compiled: dict[str, Any]) -> None:
    after = {name: set(task.get("dependentTasks", [])) for name, task in tasks(compiled).items()}
    assert after == {
        "plan": set(),
        "for-loop-1": {"plan"},
        "shard": set(),
        "ingest": {"plan", "for-loop-1"},
        "condition-2": {"ingest"},
        "train": set(),
        "evaluate": {"train"},
        "export": {"train", "evaluate"},
    }


def test_export_is_told_the_id_of_the_run(compiled: dict[str, Any]) -> None:
    told = tasks(compiled)["export"]["inputs"]["parameters"]["run_id"]
    assert told == {"runtimeValue": {"constant": "{{$.pipeline_job_uuid}}"}}


def test_nothing_but_the_ingestion_runs_without_a_reason(compiled: dict[str, Any]) -> None:
    condition = tasks(compiled)["condition-2"]["triggerPolicy"]["condition"]
    assert condition == "inputs.parameter_values['pipelinechannel--ingest-decision'] == 'retrain'"
    assert set(compiled["root"]["dag"]["tasks"]) == {"plan", "for-loop-1", "ingest", "condition-2"}
    assert set(compiled["components"]["comp-for-loop-1"]["dag"]["tasks"]) == {"shard"}


def test_the_loop_over_the_workers_gets_whole_numbers_and_the_number_of_them(compiled: dict[str, Any]) -> None:
    assert compiled["components"]["comp-plan"]["outputDefinitions"]["parameters"] == {
        "plan": {"parameterType": "STRING"},
        "workers": {"parameterType": "LIST"},
    }
    iterator = tasks(compiled)["for-loop-1"]["parameterIterator"]
    workers, item = iterator["items"]["inputParameter"], iterator["itemInput"]
    source = tasks(compiled)["for-loop-1"]["inputs"]["parameters"][workers]
    assert source == {"taskOutputParameter": {"outputParameterKey": "workers", "producerTask": "plan"}}
    # Where the item is a STRING, the backend hands on "0" for 0, which a step that wants a number is refused.
    inputs = compiled["components"]["comp-for-loop-1"]["inputDefinitions"]["parameters"]
    assert inputs[item] == {"parameterType": "NUMBER_INTEGER"}
    shard = tasks(compiled)["shard"]["inputs"]["parameters"]
    assert shard["worker"] == {"componentInputParameter": item}
    assert shard["workers"] == {"componentInputParameter": "pipelinechannel--ingest_workers"}
    assert shard["plan"] == {"componentInputParameter": "pipelinechannel--plan-plan"}
    planned = tasks(compiled)["plan"]["inputs"]["parameters"]["ingest_workers"]
    assert planned == {"componentInputParameter": "ingest_workers"}


def test_metrics_confusion_report_and_summary_are_typed_for_the_ui(compiled: dict[str, Any]) -> None:
    outputs = {
        (component.removeprefix("comp-"), name): artifact["artifactType"]["schemaTitle"]
        for component, spec in compiled["components"].items()
        for name, artifact in spec.get("outputDefinitions", {}).get("artifacts", {}).items()
    }
    assert outputs[("evaluate", "metrics")] == "system.Metrics"
    assert outputs[("evaluate", "confusion")] == "system.ClassificationMetrics"
    assert outputs[("evaluate", "report")] == "system.HTML"
    assert outputs[("export", "summary")] == "system.Markdown"


def test_no_step_is_taken_from_kfps_cache(compiled: dict[str, Any]) -> None:
    options = {name: task.get("cachingOptions") for name, task in tasks(compiled).items()}
    groups = {"for-loop-1": None, "condition-2": None}
    assert options == groups | {interface.__name__.lower(): {} for interface in STEPS}  # {}: enableCache is false


@pytest.mark.slow
def test_compiling_gives_the_same_bytes_in_any_process(tmp_path: Path) -> None:
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "TZ": f"UTC+{seed}", "LANG": "C"}
        script = "import pathlib, sys; from pipelines.retrain import compile; compile(pathlib.Path(sys.argv[1]))"
        subprocess.run([sys.executable, "-c", script, str(tmp_path / f"{seed}.yaml")], env=environment, check=True)
    assert (tmp_path / "1.yaml").read_bytes() == (tmp_path / "2.yaml").read_bytes()


def test_the_committed_pipeline_is_current(tmp_path: Path) -> None:
    committed = Path(pipelines.__file__).with_name("retrain.yaml")
    compile(tmp_path / "retrain.yaml")
    assert committed.read_text() == (tmp_path / "retrain.yaml").read_text(), "call `make docs`"


@pytest.mark.slow
def test_compiling_needs_no_torch(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['torch'] = None; from pipelines.retrain import compile; from pathlib import Path; "
    )
    script += f"compile(Path({str(tmp_path / 'retrain.yaml')!r}))"
    subprocess.run([sys.executable, "-c", script], check=True)
