"""batch/v1: jobs and cron jobs."""

from __future__ import annotations

from typing import Any

import pytest

from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import Object
from clusterling.packs.batch.jobspec import read_indexes
from clusterling.packs.batch.schedule import check_schedule, zone_problems
from tests.packs.conftest import Cluster, causes

JOBS = "batch/jobs"


def template(**pod: Any) -> Object:
    return {"spec": {"containers": [{"name": "c", "image": "x"}], "restartPolicy": "Never", **pod}}


async def test_a_job_selects_its_pods_by_its_uid(cluster: Cluster) -> None:
    made = await cluster.create(JOBS, "j", spec={"template": template()})
    uid = made["metadata"]["uid"]
    assert made["spec"]["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
    assert made["spec"]["template"]["metadata"]["labels"] == {
        "batch.kubernetes.io/controller-uid": uid,
        "batch.kubernetes.io/job-name": "j",
        "controller-uid": uid,
        "job-name": "j",
    }
    assert {key: made["spec"][key] for key in ("completions", "parallelism", "backoffLimit")} == {
        "completions": 1,
        "parallelism": 1,
        "backoffLimit": 6,
    }
    assert cluster.row(JOBS, made)[:4] == ["j", "Running", "0/1", ""]


async def test_a_job_ends(cluster: Cluster) -> None:
    error = await cluster.refused(JOBS, "j", spec={"template": template(restartPolicy="Always")})
    assert causes(error) == [
        ("spec.template.spec.restartPolicy", 'Required value: valid values: "OnFailure", "Never"')
    ]


async def test_the_template_of_a_job_is_open_while_it_waits(cluster: Cluster) -> None:
    made = await cluster.create(JOBS, "j", spec={"template": template(), "suspend": True})
    made["spec"]["template"]["spec"]["nodeSelector"] = {"a": "b"}
    moved = await cluster.update(JOBS, "j", spec=made["spec"])
    assert moved["spec"]["template"]["spec"]["nodeSelector"] == {"a": "b"}
    moved["spec"]["suspend"] = False
    started = await cluster.update(JOBS, "j", spec=moved["spec"])
    started["spec"]["template"]["spec"]["nodeSelector"] = {"a": "c"}
    with pytest.raises(ApiError) as caught:
        await cluster.update(JOBS, "j", spec=started["spec"])
    assert [field for field, _ in causes(caught.value)] == ["spec.template"]


async def test_a_finished_job_stays_finished(cluster: Cluster) -> None:
    made = await cluster.create(JOBS, "j", spec={"template": template()})
    done = [{"type": kind, "status": "True"} for kind in ("SuccessCriteriaMet", "Complete")]
    times = {"startTime": "2024-01-01T00:00:00Z", "completionTime": "2024-01-01T00:01:00Z"}
    status = {**times, "succeeded": 1, "conditions": done}
    told = await cluster.update(JOBS, "j", "status", spec=made["spec"], status=status)
    assert cluster.row(JOBS, told)[:4] == ["j", "Complete", "1/1", "60s"]
    with pytest.raises(ApiError) as caught:
        await cluster.update(JOBS, "j", "status", spec=made["spec"], status={**times, "conditions": []})
    why = [text for _, text in causes(caught.value)]
    assert "Invalid value: cannot disable the terminal Complete=True condition" in why
    assert "Invalid value: 0: cannot decrease the succeeded counter" in why


async def test_a_job_is_not_complete_before_its_criteria_are_met(cluster: Cluster) -> None:
    made = await cluster.create(JOBS, "j", spec={"template": template()})
    status = {"conditions": [{"type": "Complete", "status": "True"}], "startTime": "2024-01-01T00:00:00Z"}
    with pytest.raises(ApiError) as caught:
        await cluster.update(JOBS, "j", "status", spec=made["spec"], status=status)
    assert causes(caught.value) == [
        ("status.completionTime", "Required value: completionTime is required for Complete jobs"),
        (
            "status.conditions",
            "Invalid value: cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
        ),
    ]


async def test_jobs_go_and_leave_their_pods_unless_told_otherwise(cluster: Cluster) -> None:
    await cluster.create(JOBS, "j", spec={"template": template()})
    left, gone = await cluster.delete(JOBS, "j")
    assert not gone
    assert left["metadata"]["finalizers"] == ["orphan"]


@pytest.mark.parametrize(
    "text", ["* * * * *", "*/5 0-23 ? JAN-dec sun", "1,2,3 5/2 1-31/3 * 0", "@hourly", "@every 1h30m"]
)
def test_schedules_that_cron_reads(text: str) -> None:
    check_schedule(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("* * *", "expected exactly 5 fields, found 3: [* * *]"),
        ("60 * * * *", "end of range (60) above maximum (59): 60"),
        ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
        ("5-3 * * * *", "beginning of range (5) beyond end of range (3): 5-3"),
        ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
        ("*/0 * * * *", "step of range should be a positive number: */0"),
        ("x * * * *", 'failed to parse int from x: strconv.Atoi: parsing "x": invalid syntax'),
        ("@never", "unrecognized descriptor: @never"),
        ("@every 5", 'failed to parse duration @every 5: time: missing unit in duration "5"'),
    ],
)
def test_schedules_that_cron_does_not_read(text: str, why: str) -> None:
    with pytest.raises(ValueError) as caught:
        check_schedule(text)
    assert str(caught.value) == why


def test_time_zones_are_those_of_the_data_base() -> None:
    assert zone_problems("Etc/UTC") == []
    assert zone_problems("Nowhere/At") == ["unknown time zone Nowhere/At"]
    assert zone_problems("../etc/passwd") == ["unknown time zone ../etc/passwd"]
    assert zone_problems("") == ["timeZone must be nil or non-empty string"]


def test_indexes_rise_and_end_before_the_completions() -> None:
    assert read_indexes("0,2-4", 5) == [(0, 0), (2, 4)]
    for text, why in (
        ("5", 'too large index: "5"'),
        ("2,1", "non-increasing order, previous: 2, current: 1"),
        ("3-3", "non-increasing order, previous: 3, current: 3"),
        ("x", 'cannot convert string to integer for index: "x"'),
    ):
        with pytest.raises(ValueError) as caught:
            read_indexes(text, 5)
        assert str(caught.value) == why


async def test_a_cron_job_has_a_schedule_and_a_short_name(cluster: Cluster) -> None:
    jobs = {"spec": {"template": template()}}
    made = await cluster.create("batch/cronjobs", "c", spec={"schedule": "@daily", "jobTemplate": jobs})
    assert made["spec"]["concurrencyPolicy"] == "Allow"
    assert cluster.row("batch/cronjobs", made)[:6] == ["c", "@daily", "<none>", "False", 0, "<none>"]
    error = await cluster.refused("batch/cronjobs", "c" * 53, spec={"jobTemplate": jobs})
    assert [field for field, _ in causes(error)] == ["spec.schedule", "metadata.name"]


async def test_whoever_deletes_a_job_is_told_that_its_pods_stay(cluster: Cluster) -> None:
    await cluster.create(JOBS, "j", spec={"template": template()})
    await cluster.delete(JOBS, "j")
    assert [text.partition(";")[0] for text in cluster.warnings] == [
        "child pods are preserved by default when jobs are deleted"
    ]
