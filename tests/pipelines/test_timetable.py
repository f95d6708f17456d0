"""schedules.yaml: what it may say, and what it is told where it says something else."""

import time
from pathlib import Path

import pytest

from components.step import UserError
from pipelines.timetable import Schedule, Timetable, read_timetable
from tests.pipelines.timetables import timetable


def test_what_is_left_out_has_the_defaults(tmp_path: Path) -> None:
    read = timetable(tmp_path, 'schedules: [{name: nightly, cron: "0 3 * * *"}]')
    assert read == Timetable(schedules=(Schedule(name="nightly", cron="0 3 * * *", kfp_cron="0 0 3 * * *"),))
    (nightly,) = read.schedules
    assert (nightly.condition, nightly.catch_up, nightly.concurrency, nightly.enabled) == ("changed", False, 1, None)
    assert nightly.arguments == {"condition": "changed"}


def test_a_file_of_nothing_has_no_schedules(tmp_path: Path) -> None:
    assert timetable(tmp_path, "") == Timetable()
    assert timetable(tmp_path, "schedules:") == Timetable()


NIGHTLY = "schedules:\n- name: nightly\n  cron: '0 3 * * *'\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("shedules: []", "unknown key 'shedules'; did you mean 'schedules'?"),
        ("[]", "must hold keys such as `schedules:`, not []"),
        ("schedules: {nightly: {}}", "schedules must be a list, each entry beginning with '- name: ...'"),
        ("schedules: false", "schedules must be a list, each entry beginning with '- name: ...', not False"),
        ("schedules: [nightly]", "schedule number 1: it must hold keys such as name and cron, not 'nightly'"),
        ("experiment: 3", "experiment must be a text (in quotes), not 3"),
        ("experiment: ''", "experiment must be a name, not ''"),
        ("server_timezone: Europe/Berln", "did you mean 'Europe/Berlin'?"),
        ("schedules: [{cron: '@daily'}]", "schedule number 1: name must be given"),
        ("schedules: [{name: 3, cron: '@daily'}]", "schedule number 1: name must be a text (in quotes), not 3"),
        ("schedules: [{name: Nightly, cron: '@daily'}]", "schedule 'Nightly': name must be lowercase letters"),
        ("schedules: [{name: nightly}]", "schedule 'nightly': cron must be given"),
        ("schedules: [{name: nightly, cron: 3}]", "schedule 'nightly': cron must be a text (in quotes), not 3"),
        ("schedules: [{name: a, cron: '0 25 * * *'}]", "schedule 'a': cron '0 25 * * *': hour '25' must lie within 0"),
        ("schedules: [{name: a, cron: '@daily', name: b}]", "'name' is given twice"),
        (
            NIGHTLY + "  parameters: {source: 2020-13-45}",
            "line 4: this is not YAML: '2020-13-45' is no timestamp (month",
        ),
        ("\0", "this is not YAML: unacceptable character #x0000"),
        ("schedules: [{name: a, cron: * * * * *}]", 'a cron needs quotes: cron: "0 3 * * *"'),
        (NIGHTLY + "- name: nightly\n  cron: '@daily'", "schedule 'nightly': name must be the only one of its kind"),
        (NIGHTLY + "  crom: 3", "schedule 'nightly': unknown key 'crom'; did you mean 'cron'?"),
        (NIGHTLY + "  kfp_cron: x", "schedule 'nightly': unknown key 'kfp_cron'"),
        (NIGHTLY + "  enabled: 1", "schedule 'nightly': enabled must be true or false, not 1"),
        (NIGHTLY + "  catch_up: 'no'", "schedule 'nightly': catch_up must be true or false, not 'no'"),
        (NIGHTLY + "  concurrency: 0", "schedule 'nightly': concurrency must lie between 1 and 10, not 0"),
        (NIGHTLY + "  concurrency: 11", "schedule 'nightly': concurrency must lie between 1 and 10, not 11"),
        (NIGHTLY + "  condition: change", "schedule 'nightly': unknown condition 'change'; did you mean 'changed'?"),
        (NIGHTLY + "  pipeline_version: 1", "schedule 'nightly': pipeline_version must be a text (in quotes), not 1"),
        (NIGHTLY + "  parameters: [epochs]", "schedule 'nightly': parameters must be names and values"),
        (NIGHTLY + "  parameters: {1: 2}", "schedule 'nightly': unknown parameter '1'"),
        (NIGHTLY + "  parameters: {epoch: 3}", "schedule 'nightly': unknown parameter 'epoch'; did you mean 'epochs'?"),
        (NIGHTLY + "  parameters: {epochs: '3'}", "schedule 'nightly': epochs must be a whole number, not '3'"),
        (NIGHTLY + "  parameters: {epochs: 0}", "schedule 'nightly': epochs must be at least 1, not 0"),
        (NIGHTLY + "  parameters: {gpus: 1}", "schedule 'nightly': gpus must be a text (in quotes), not 1"),
        (NIGHTLY + "  parameters: {condition: always}", "schedule 'nightly': parameters must not hold condition"),
        (NIGHTLY + "  timezone: Mars/Olympus", "schedule 'nightly': unknown timezone 'Mars/Olympus'"),
    ],
)
def test_a_mistake_is_told_in_one_sentence_with_file_and_schedule(text: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        timetable(tmp_path, text)
    assert str(refused.value).startswith(str(tmp_path / "schedules.yaml"))
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_schedule_may_take_over_what_another_one_says(tmp_path: Path) -> None:
    usual, other = "  parameters: &usual {epochs: 3, seed: 1}", "{<<: *usual, seed: 2}"
    text = f"{NIGHTLY}{usual}\n- name: b\n  cron: '@daily'\n  parameters: {other}"
    assert timetable(tmp_path, text).schedule("b").parameters == {"epochs": 3, "seed": 2}


@pytest.mark.slow
def test_500_schedules_of_another_time_zone_are_read_at_once(tmp_path: Path) -> None:
    entries = [f"- {{name: s-{n}, cron: '{n % 60} 3 * * *', timezone: Europe/Paris}}" for n in range(500)]
    start = time.process_time()
    timetable(tmp_path, "server_timezone: Europe/Berlin\nschedules:\n" + "\n".join(entries))
    assert time.process_time() - start < 10


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.yaml' cannot be read: No such file or directory"):
        read_timetable(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("server", "schedule", "cron", "kfp"),
    [
        ("UTC", "UTC", "0 3 * * *", "0 0 3 * * *"),
        ("UTC", "Asia/Tokyo", "0 3 * * *", "0 0 18 * * *"),
        ("UTC", "Asia/Kolkata", "0 3 * * mon", "0 30 21 * * 0"),
        ("Asia/Tokyo", "UTC", "0 20 * * 6", "0 0 5 * * 0"),
        ("Europe/Berlin", "Europe/Paris", "30 2 31 * *", "0 30 2 31 * *"),
        ("Europe/Berlin", "Europe/Berlin", "0 3 1 * *", "0 0 3 1 * *"),
    ],
)
def test_a_cron_of_another_time_zone_is_converted_where_that_is_exact(
    server: str, schedule: str, cron: str, kfp: str, tmp_path: Path
) -> None:
    read = timetable(
        tmp_path,
        f"server_timezone: {server}\nschedules: [{{name: a, cron: '{cron}', timezone: {schedule}}}]",
    )
    assert read.schedules[0].kfp_cron == kfp


@pytest.mark.parametrize(
    ("zone", "cron", "reason"),
    [
        ("Europe/Berlin", "0 3 * * *", "is not always as far from the server's 'UTC'"),
        ("Asia/Tokyo", "0 3 1 * *", "cannot be said in the server's 'UTC', where it falls on other days"),
    ],
)
def test_a_cron_of_another_time_zone_is_refused_where_it_is_not_exact(
    zone: str, cron: str, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=reason):
        timetable(tmp_path, f"schedules: [{{name: a, cron: '{cron}', timezone: {zone}}}]")
