"""The settings file: what it overrides, and what it refuses."""

from pathlib import Path

import pytest

from components.step import UserError
from pipelines.settings import STOCK, TRAIN_IMAGE, read_settings


def test_without_a_file_the_defaults_hold() -> None:
    assert read_settings(None, "") == STOCK


def test_a_file_overrides_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text('region = "eu-central-1"\n[steps.export]\nretries = 5\n')
    settings = read_settings(path, "")
    assert (settings.region, settings.secret) == ("eu-central-1", STOCK.secret)
    assert (settings.steps["export"].retries, settings.steps["export"].cpu) == (5, "2")
    assert settings.steps["train"] == STOCK.steps["train"]


TOLERATION = "[steps.train]\ntolerations = [{"


@pytest.mark.parametrize(
    ("toml", "sentence"),
    [
        ('regoin = "x"', "unknown setting 'regoin'; did you mean 'region'?"),
        ('[steps.trian]\ncpu = "1"', "unknown step 'trian'; did you mean 'train'?"),
        ('[steps.train]\nmemmory = "1Gi"', "steps.train: unknown setting 'memmory'; did you mean 'memory'?"),
        ("region = 1", "region must be a string, not 1"),
        ("autoscaled_gpu = true", "unknown setting 'autoscaled_gpu'; did you mean 'autoscaled_gpus'?"),
        ("autoscaled_gpus = 1", "autoscaled_gpus must be true or false, not 1"),
        ("steps = 3", "steps must be a table, not 3"),
        ("[steps.train]\nretries = -1", "steps.train: retries must be at least 0, not -1"),
        ("[steps.train]\nretries = true", "steps.train: retries must be a whole number, not True"),
        ("[steps.train]\nimage = ''", f"steps.train: image must be a name such as '{TRAIN_IMAGE}', not ''"),
        ('[steps.train]\ncpu = "many"', "cpu must be a number of cores such as '2' or '500m', not 'many'"),
        ('[steps.train]\ncpu = "0"', "cpu must be a number of cores such as '2' or '500m', not '0'"),
        ('[steps.train]\ncpu = "0m"', "cpu must be a number of cores such as '2' or '500m', not '0m'"),
        ('[steps.train]\nmemory = "4 GB"', "memory must be a quantity such as '4Gi', not '4 GB'"),
        ('[steps.train]\nmemory = "0"', "memory must be a quantity such as '4Gi', not '0'"),
        ('[steps.train]\nmemory = "0.0Gi"', "memory must be a quantity such as '4Gi', not '0.0Gi'"),
        (
            '[steps.train]\nshm = "1 GB"',
            "shm must be a quantity such as '1Gi', or '' for the 64 MB of every pod, not '1 GB'",
        ),
        ("[steps.train]\nnode_selector = 'gpu'", "steps.train: node_selector must be a table, not 'gpu'"),
        ("[steps.train]\nnode_selector = {pool = 1}", "steps.train: node_selector: pool must be a string, not 1"),
        ("[steps.train]\ntolerations = {}", "steps.train: tolerations must be a list, not {}"),
        ("[steps.train]\ntolerations = ['a']", "tolerations, number 1 must be a table, not 'a'"),
        (f"{TOLERATION}kye = 'a'}}]", "tolerations, number 1: unknown key 'kye'; did you mean 'key'?"),
        (f"{TOLERATION}value = true}}]", "tolerations, number 1: value must be a string, not True"),
        (f"{TOLERATION}operator = 'Foo'}}]", "number 1: operator must be 'Equal' or 'Exists', not 'Foo'"),
        (f"{TOLERATION}operator = 3}}]", "number 1: operator must be 'Equal' or 'Exists', not 3"),
        (f"{TOLERATION}effect = 'NoRun'}}]", "'NoSchedule' or 'PreferNoSchedule' or 'NoExecute', not 'NoRun'"),
        (f"{TOLERATION}toleration_seconds = 'x'}}]", "toleration_seconds must be a whole number, not 'x'"),
        ("environments = 3", "settings.toml: environments must be a table, not 3"),
        ("[environments]\nprod = 'x'", "settings.toml: environments.prod must be a table, not 'x'"),
        ("region =", "is not TOML"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(toml: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(toml)
    with pytest.raises(UserError) as refused:
        read_settings(path, "prod" if "environments" in toml else "")
    assert sentence in str(refused.value)
    assert "settings.toml" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_unknown_environment_lists_those_there_are(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text('[environments.kind]\nregion = "x"\n[environments.production]\n')
    with pytest.raises(UserError, match="unknown environment 'prod'; choices: kind, production"):
        read_settings(path, "prod")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"settings '.*/none.toml' cannot be read: No such file"):
        read_settings(tmp_path / "none.toml", "")
