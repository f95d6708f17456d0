"""The settings file: what it overrides, and what it refuses."""

from pathlib import Path

import pytest

from components.step import UserError
from pipelines.settings import STOCK, read_settings


def test_without_a_file_the_defaults_hold() -> None:
    assert read_settings(None, "") == STOCK


def test_a_file_overrides_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text('region = "eu-central-1"\n[steps.export]\nretries = 5\n')
    settings = read_settings(path, "")
    assert (settings.region, settings.secret) == ("eu-central-1", STOCK.secret)
    assert (settings.steps["export"].retries, settings.steps["export"].cpu) == (5, "2")
    assert settings.steps["train"] == STOCK.steps["train"]


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
        ("[steps.train]\ntolerations = [{kye = 'a'}]", "unknown toleration key 'kye'; did you mean 'key'?"),
        ('[steps.train]\ncpu = "many"', "cpu must be a number of cores such as '2' or '500m', not 'many'"),
        ('[steps.train]\nmemory = "4 GB"', "memory must be a quantity such as '4Gi', not '4 GB'"),
        ("region =", "is not TOML"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(toml: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(toml)
    with pytest.raises(UserError) as refused:
        read_settings(path, "")
    assert sentence in str(refused.value)
    assert "settings.toml" in str(refused.value)


def test_an_unknown_environment_lists_those_there_are(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text('[environments.kind]\nregion = "x"\n[environments.production]\n')
    with pytest.raises(UserError, match="unknown environment 'prod'; choices: kind, production"):
        read_settings(path, "prod")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"settings '.*/none.toml' cannot be read: No such file"):
        read_settings(tmp_path / "none.toml", "")
