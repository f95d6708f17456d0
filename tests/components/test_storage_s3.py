"""What an S3 store makes of a server that fails; a real one, behind a proxy that is told how."""

import contextlib
import io
import json
import os
import re
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.step import StepError, UserError
from components.storage import NO_KEY, Object, S3Store, Store, connection, open_store
from tests.servers.certificates import make_certificate
from tests.servers.s3 import Fault, FaultyS3, Reply, Request, error

MIB = 2**20


@pytest.fixture
def faulty(s3_server: str, s3_environment: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    """The way to the S3 server, whose faults are waited for a moment only."""
    monkeypatch.setattr(connection, "FIRST_PAUSE", 0.001)
    with FaultyS3(s3_server) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield proxy


@pytest.fixture
def store(faulty: FaultyS3) -> S3Store:
    """An empty bucket behind it, whose conditions were tried already."""
    store = S3Store(f"s3://{uuid4()}/prefix")
    store.client.make_bucket(store.bucket)
    assert store.honours_conditions()
    faulty.log.clear()
    return store


FAULTS: dict[str, Callable[[FaultyS3], None]] = {
    "InternalError": lambda proxy: proxy.fail(500, "InternalError", times=2),
    "SlowDown": lambda proxy: proxy.fail(503, "SlowDown", times=2),
    "TooManyRequests": lambda proxy: proxy.fail(429, "TooManyRequests", times=2),
    "a proxy's own 502": lambda proxy: proxy.answer(Reply(502, {"Content-Type": "text/html"}, b"<html>"), times=2),
    "a reset before": lambda proxy: proxy.drop("before", times=2),
    "a reset after": lambda proxy: proxy.drop("after", times=2),
    # The request that the client has given up has no effect when it comes: it would be upon the next one's object.
    "a stall": lambda proxy: proxy.faults.append(Fault(1, "", "", broken="before", seconds=0.6)),
}

USES: dict[str, tuple[Callable[[Store], Any], Any]] = {
    "read": (lambda store: store.read("there"), b"content"),
    "range": (lambda store: store.read("there", 2, 3), b"nte"),
    "open": (lambda store: store.open("there").read(), b"content"),
    "exists": (lambda store: store.exists("there"), True),
    "keys": (lambda store: list(store.keys("")), ["there"]),
    "write": (lambda store: store.write("new", b"new"), None),
    "create": (lambda store: store.create("new", b"new"), True),
    "create again": (lambda store: store.create("there", b"new"), False),
    "swap": (lambda store: store.swap("there", b"content", b"new"), True),
    "swap in vain": (lambda store: store.swap("there", b"other", b"new"), False),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_what_fails_in_passing_is_repeated(
    fault: str, faulty: FaultyS3, store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault == "a stall":
        monkeypatch.setattr(connection, "READ_SECONDS", 0.3)
        store = S3Store(store.uri)
        store.honours_conditions()
    for name, (use, result) in USES.items():
        store.write("there", b"content")
        store.client.remove_object(store.bucket, "prefix/new")
        FAULTS[fault](faulty)
        assert use(store) == result, name
        faulty.faults.clear()


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_in_parts_survives_what_fails_in_passing(
    fault: str, faulty: FaultyS3, store: S3Store, tmp_path: Path
) -> None:
    content = bytes(range(256)) * (11 * MIB // 256)
    (tmp_path / "file").write_bytes(content)
    FAULTS[fault](faulty)
    store.write("large", tmp_path / "file")
    assert store.read("large") == content
    assert sum(request.method == "PUT" and "partNumber" in request.path for request in faulty.log) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["error in a 200", "answer"])
@pytest.mark.parametrize("kind", ["file", "bytes"])
def test_parts_that_could_not_be_put_together_are_sent_again(
    kind: str, lost: str, faulty: FaultyS3, store: S3Store, tmp_path: Path
) -> None:
    content = b"x" * 6 * MIB
    (tmp_path / "file").write_bytes(content)
    if lost == "answer":
        faulty.drop("after", method="POST", path="uploadId")
        faulty.fail(404, "NoSuchUpload", method="POST", path="uploadId")  # which AWS says to the repetition
    else:
        faulty.answer(Reply(200, {}, error(500, "InternalError").content), method="POST", path="uploadId")
    store.write("large", tmp_path / "file" if kind == "file" else content)
    assert store.read("large") == content


@pytest.mark.slow
def test_parts_that_can_never_be_put_together_are_an_error(faulty: FaultyS3, store: S3Store) -> None:
    faulty.answer(Reply(200, {}, error(500, "InternalError").content), method="POST", path="uploadId", times=99)
    with pytest.raises(StepError, match="could not put the parts of large together"):
        store.write("large", b"x" * 6 * MIB)


@pytest.mark.parametrize("end", ["reset", "close"])
def test_a_download_goes_on_where_it_broke_off(end: Any, faulty: FaultyS3, store: S3Store, tmp_path: Path) -> None:
    content = bytes(range(256)) * (3 * MIB // 256)
    store.write("large", content)
    faulty.cut(MIB + 7, end, times=2)
    with faulty.counted() as requests:
        store.fetch("large", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == content
    assert "range" not in requests[0].headers
    assert all("if-match" in request.headers and "range" in request.headers for request in requests[1:])
    assert len(requests) == 3


def test_a_body_that_stalls_is_fetched_from_there(
    faulty: FaultyS3, store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "READ_SECONDS", 0.1)
    store.write("object", b"0123456789")
    faulty.stall(0.3, 4)
    assert S3Store(store.uri).read("object") == b"0123456789"


def test_a_download_of_an_object_that_changes_meanwhile_fails(
    faulty: FaultyS3, store: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write("object", b"a" * 2 * MIB)
    faulty.cut(MIB)

    def replace(failures: int) -> float:
        store.write("object", b"b" * 2 * MIB)
        return 0

    monkeypatch.setattr(connection, "pause", replace)
    with pytest.raises(StepError, match=r"object in s3://.* has changed while it was read"):
        store.fetch("object", tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []


def test_an_open_object_that_changes_fails(store: S3Store) -> None:
    store.write("object", b"a" * 3 * MIB)
    with store.open("object") as file:
        assert file.read(10) == b"a" * 10
        store.write("object", b"b" * 3 * MIB)
        assert file.read(10) == b"a" * 10  # was read ahead
        with pytest.raises(StepError, match="has changed while it was read"):
            file.seek(2 * MIB) and file.read(10)


def test_patience_ends_with_a_sentence(faulty: FaultyS3, store: S3Store, tmp_path: Path) -> None:
    store.write("object", b"content")
    endless: dict[str, tuple[Callable[[], None], str]] = {
        "SlowDown": (lambda: faulty.fail(503, "SlowDown", times=999), "failed on object: SlowDown"),
        "reset": (lambda: faulty.drop("before", times=999), "cannot be reached .*see AWS_ENDPOINT_URL"),
        "html": (lambda: faulty.answer(Reply(502, {"Content-Type": "text/html"}, b"<html>"), times=999), "code: 502"),
        "cut": (lambda: faulty.cut(1, times=999), "cannot be reached"),
    }
    for name, (fault, sentence) in endless.items():
        fault()
        with faulty.counted() as requests, pytest.raises(StepError, match=sentence) as caught:
            store.fetch("object", tmp_path / "copy")
        faulty.faults.clear()
        assert connection.ATTEMPTS <= len(requests) <= 2 * connection.ATTEMPTS, name
        assert not any(secret in str(caught.value) for secret in ("Signature", "Credential", "<html>", "\n"))


def test_a_server_that_asks_to_wait_for_hours_is_not_obeyed(
    faulty: FaultyS3, store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "LONGEST_PAUSE", 0.1)
    store.write("object", b"content")
    faulty.fail(503, "SlowDown", Retry_After="3600")
    assert S3Store(store.uri).read("object") == b"content"


def test_pauses_grow_and_are_never_alike() -> None:
    pauses = [[connection.pause(failures) for _ in range(50)] for failures in range(1, connection.ATTEMPTS)]
    assert all(len(set(at_once)) > 1 for at_once in pauses)
    assert all(max(before) <= 2.01 * max(after) for before, after in pairwise(pauses))
    assert sum(map(max, pauses)) < 60
    assert connection.pause(10_000) <= connection.LONGEST_PAUSE


@pytest.mark.parametrize("winner", ["the lost one", "another"])
def test_a_conditional_put_whose_answer_was_lost_knows_whether_it_won(
    winner: str, faulty: FaultyS3, store: S3Store
) -> None:
    if winner == "another":
        store.write("key", b"mine")  # the same bytes, and yet not by us
    faulty.drop("after", method="PUT")
    assert store.create("key", b"mine") == (winner == "the lost one")
    store.write("key", b"old")
    faulty.drop("after", method="PUT")
    assert store.swap("key", b"old", b"new")


def test_a_conflict_of_two_conditional_puts_is_tried_again(faulty: FaultyS3, store: S3Store) -> None:
    faulty.fail(409, "ConditionalRequestConflict", method="PUT")
    assert store.create("key", b"mine")


def test_ranges_are_exact_or_an_error(faulty: FaultyS3, store: S3Store) -> None:
    store.write("object", b"0123456789")
    for start, length in ((0, 10), (9, 1), (3, 0), (10, 1), (5, 6), (99, 1)):
        if start + length <= 10:
            assert store.read("object", start, length) == b"0123456789"[start : start + length]
        else:
            with pytest.raises(StepError, match=r"object in s3://.* is shorter"):
                store.read("object", start, length)
    faulty.ignored = ("range",)
    with pytest.raises(StepError, match="does not know the header Range"):
        store.read("object", 2, 3)


def test_a_tar_is_read_from_an_open_object_with_few_requests(faulty: FaultyS3, store: S3Store) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for number in range(30):
            info = tarfile.TarInfo(f"{number}.jpg")
            info.size = 100_000
            tar.addfile(info, io.BytesIO(bytes([number]) * info.size))
    store.write("shard.tar", archive.getvalue())
    with faulty.counted() as requests, store.open("shard.tar") as file, tarfile.open(fileobj=file) as tar:
        members = [tar.extractfile(member) for member in tar]
        assert [member.read()[0] for member in members if member] == list(range(30))
    assert len(requests) < 12


@pytest.mark.slow
def test_a_column_of_a_parquet_file_is_read_without_the_others(faulty: FaultyS3, store: S3Store) -> None:
    table = io.BytesIO()
    columns = {"label": ["cat"] * 8, "image": [bytes([number]) * MIB for number in range(8)]}
    pq.write_table(pa.table(columns), table, compression="none", use_dictionary=False, row_group_size=2)
    store.write("table.parquet", table.getvalue())
    with faulty.counted() as requests, store.open("table.parquet") as file:
        read = pq.ParquetFile(pa.PythonFile(file, mode="r")).read_row_group(3, columns=["label"])
    assert read.column("label").to_pylist() == ["cat"] * 2
    ranges = [
        request.headers["range"].removeprefix("bytes=").split("-")
        for request in requests
        if request.content == b"" and "range" in request.headers
    ]
    assert sum(int(last) - int(first) for first, last in ranges) < 4 * MIB
    store.write("table.parquet", table.getvalue()[:-1] + b"?")
    with store.open("table.parquet") as file:
        handle = pa.PythonFile(file, mode="r")
        store.write("table.parquet", table.getvalue())
        with pytest.raises(StepError, match="has changed while it was read"):
            pq.ParquetFile(handle)


@pytest.mark.slow
def test_a_listing_goes_on_when_credentials_expire_between_its_pages(
    faulty: FaultyS3, store: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1001):
        store.write(f"many/{number:04}", b"")
    credentials = tmp_path / "credentials"
    credentials.write_text("[default]\naws_access_key_id = first\naws_secret_access_key = secret\n")
    use_file(credentials, monkeypatch)
    listing = S3Store(store.uri).keys("many/")
    listed = [next(listing)]
    credentials.write_text("[default]\naws_access_key_id = second\naws_secret_access_key = secret\n")
    faulty.expired = {"first"}
    assert listed + list(listing) == [f"many/{number:04}" for number in range(1001)]


def test_objects_that_no_key_can_name_are_counted_and_not_listed(store: S3Store) -> None:
    for name in ("cat//2.png", ".dog/3.png", "dog/.4.png", "dog/5.png", "folder/", "other//"):
        store.client.put_object(store.bucket, f"prefix/images/{name}", io.BytesIO(), 0)
    passed_over: Counter[str] = Counter()
    assert [found.key for found in store.objects("images/", passed_over)] == ["images/dog/5.png"]
    assert passed_over == {NO_KEY: 3}


def test_who_may_not_write_is_told_before_any_work(faulty: FaultyS3, store: S3Store) -> None:
    store.require_writable()
    assert list(store.keys("")) == []
    faulty.fail(403, "AccessDenied", method="PUT", times=99)
    with pytest.raises(UserError, match=r"is not usable: AccessDenied: .*; allow it to the identity of AWS_ACCESS_KEY"):
        store.require_writable()


# Credentials.


def use_file(credentials: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the credentials from a file, as a mounted secret is one."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))


@pytest.mark.slow
@pytest.mark.parametrize("use", [name for name in USES if name != "keys"])
def test_expired_credentials_are_fetched_anew_once(
    use: str, faulty: FaultyS3, store: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials = tmp_path / "credentials"
    credentials.write_text("[default]\naws_access_key_id = first\naws_secret_access_key = secret\n")
    use_file(credentials, monkeypatch)
    renewed = S3Store(store.uri)
    renewed.write("there", b"content")
    assert renewed.honours_conditions()
    credentials.write_text("[default]\naws_access_key_id = second\naws_secret_access_key = secret\n")
    faulty.expired = {"first"}
    assert USES[use][0](renewed) == USES[use][1]


def test_credentials_that_stay_expired_are_named(
    faulty: FaultyS3, store: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty.expired = {"test"}
    sentence = r"is not usable: ExpiredToken: .* the credentials of {} have expired; put new ones there"
    with faulty.counted() as requests, pytest.raises(UserError, match=sentence.format("AWS_ACCESS_KEY_ID")):
        store.read("object")
    assert len(requests) == 1  # there are no others to try
    credentials = tmp_path / "credentials"
    credentials.write_text("[default]\naws_access_key_id = test\naws_secret_access_key = hidden-secret\n")
    use_file(credentials, monkeypatch)
    with pytest.raises(UserError, match=sentence.format("AWS_SHARED_CREDENTIALS_FILE")) as caught:
        S3Store(store.uri).write("object", b"")
    assert "hidden-secret" not in str(caught.value)


def test_a_session_token_goes_along(faulty: FaultyS3, store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "the-token")
    S3Store(store.uri).create("object", b"")
    assert {request.headers.get("x-amz-security-token") for request in faulty.log} == {"the-token"}


ASSUMED = """<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{key}</AccessKeyId><SecretAccessKey>s</SecretAccessKey>
<SessionToken>t</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>
</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"""


@dataclass
class Workload:
    """A pod with a web identity, and who exchanges its token."""

    token: Path
    sts: FaultyS3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "kind"),
    [("live.html", "text/html"), ("verdict.json", "application/json"), ("blob", "application/octet-stream")],
)
def test_a_browser_is_told_what_it_gets(store: S3Store, key: str, kind: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    for content in (b"content", tmp_path / "file"):
        store.write(key, content)
        assert store.client.stat_object(store.bucket, f"prefix/{key}").content_type == kind


@pytest.fixture
def workload(faulty: FaultyS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workload]:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    (tmp_path / "token").write_text("first-jwt")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/retrain")
    with FaultyS3(faulty.upstream) as sts:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", sts.url)
        for name in ("first", "second"):
            reply = Reply(200, {"Content-Type": "text/xml"}, ASSUMED.format(key=name).encode())
            sts.answer(reply, method="POST", path=f"WebIdentityToken={name}-jwt", times=9)
        yield Workload(tmp_path / "token", sts)


def test_a_web_identity_is_exchanged_for_credentials_and_again_when_they_expire(
    workload: Workload, faulty: FaultyS3, s3_server: str
) -> None:
    store = S3Store(f"s3://{uuid4()}")
    store.client.make_bucket(store.bucket)
    store.write("object", b"content")
    assert "RoleArn=arn" in workload.sts.log[0].path
    workload.token.write_text("second-jwt")
    faulty.expired = {"first"}
    assert store.read("object") == b"content"
    assert "Credential=second/" in faulty.log[-1].headers["authorization"]
    assert len(workload.sts.log) == 2


def test_a_store_that_is_not_aws_exchanges_a_web_identity_itself(
    workload: Workload, faulty: FaultyS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL_STS")
    assert connection.sts() == faulty.url
    for endpoint in ("https://s3.eu-central-1.amazonaws.com", "https://s3.cn-north-1.amazonaws.com.cn"):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        assert connection.sts() is None


REFUSALS: dict[str, Callable[[Workload], None]] = {
    "refused": lambda workload: workload.sts.answer(error(403, "AccessDenied")),
    "nonsense": lambda workload: workload.sts.answer(Reply(200, {}, b"<html>")),
    "unreachable": lambda workload: workload.sts.drop("before", times=99),
    "no token": lambda workload: workload.token.unlink(),
}


@pytest.mark.parametrize("trouble", REFUSALS)
def test_a_web_identity_that_is_refused_is_named_without_its_token(
    trouble: str, workload: Workload, caplog: pytest.LogCaptureFixture
) -> None:
    workload.sts.faults.clear()
    REFUSALS[trouble](workload)
    with pytest.raises(UserError, match=r"no credentials \(.*\); see AWS_WEB_IDENTITY_TOKEN_FILE") as caught:
        S3Store("s3://bucket").read("object")
    assert "jwt" not in str(caught.value) + caplog.text


def test_a_pod_identity_and_an_instance_profile_have_credentials(
    faulty: FaultyS3, store: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write("object", b"content")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("HOME", str(tmp_path))
    said = b'{"AccessKeyId": "%s", "SecretAccessKey": "s", "Token": "t", "Expiration": "2099-01-01T00:00:00Z"}'
    with FaultyS3(faulty.upstream) as metadata:
        metadata.answer(Reply(200, {}, b"session"), method="PUT", path="/latest/api/token")
        metadata.answer(Reply(200, {}, b"role"), path="/security-credentials/$")
        metadata.answer(Reply(200, {}, said % b"instance"), path="/security-credentials/role$")
        metadata.answer(Reply(200, {}, said % b"pod"), path="^/v1/credentials$")
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.url)
        assert S3Store(store.uri).read("object") == b"content"
        assert "Credential=instance/" in faulty.log[-1].headers["authorization"]
        (tmp_path / "token").write_text("pod-token")
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{metadata.url}/v1/credentials")
        monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(tmp_path / "token"))
        assert S3Store(store.uri).read("object") == b"content"
        assert "Credential=pod/" in faulty.log[-1].headers["authorization"]
        assert metadata.log[-1].headers["authorization"] == "pod-token"


def said(seconds: float) -> Reply:
    """What a metadata service says: credentials that expire after so long."""
    expiration = (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
    credentials = {"AccessKeyId": "pod", "SecretAccessKey": "s", "Token": "t", "Expiration": expiration}
    return Reply(200, {}, json.dumps(credentials).encode())


def test_a_metadata_service_that_fails_in_passing_is_asked_again(
    faulty: FaultyS3, store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write("object", b"content")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with FaultyS3(faulty.upstream) as metadata:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{metadata.url}/v1/credentials")
        pod = S3Store(store.uri)
        metadata.fail(503, "SlowDown", times=3)
        metadata.answer(said(0), times=99)  # they expire at once
        assert pod.read("object") == b"content"
        metadata.faults.clear()
        metadata.drop("before", times=3)
        metadata.answer(said(0), times=99)
        assert pod.read("object") == b"content"
        metadata.faults.clear()
        metadata.fail(503, "SlowDown", times=99)
        with pytest.raises(StepError, match=r"no new credentials \(.* 503\); see AWS_CONTAINER_CREDENTIALS_FULL_URI"):
            pod.read("object")
        with pytest.raises(UserError, match=r"no credentials \(.* 503\); see AWS_CONTAINER_CREDENTIALS_FULL_URI"):
            S3Store(store.uri).read("object")


@pytest.mark.parametrize("content", ["", "[default]\naws_access_key_id = only\n", "aws_secret_access_key = hidden\n"])
def test_a_file_without_credentials_is_named_without_its_lines(
    content: str, faulty: FaultyS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "credentials").write_text(content)
    use_file(tmp_path / "credentials", monkeypatch)
    with pytest.raises(UserError, match=r"no credentials \(.*\); see AWS_SHARED_CREDENTIALS_FILE") as caught:
        S3Store("s3://bucket").read("object")
    assert "hidden" not in str(caught.value)


# The connection.


@pytest.mark.slow
@pytest.mark.parametrize("variable", ["AWS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_a_certificate_authority_of_ones_own_is_trusted(
    variable: str, s3_server: str, s3_environment: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = make_certificate(tmp_path)
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    with FaultyS3(s3_server, tls=certificate.server()) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        monkeypatch.setenv(variable, str(certificate.path))
        store = S3Store(f"s3://{uuid4()}")
        store.client.make_bucket(store.bucket)
        assert store.create("key", b"content")
        assert store.read("key") == b"content"


def test_a_certificate_that_nobody_knows_is_told_at_once(
    s3_server: str, s3_environment: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultyS3(s3_server, tls=make_certificate(tmp_path).server()) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        with pytest.raises(StepError, match=r"cannot be reached .*CERTIFICATE_VERIFY_FAILED.*; see AWS_CA_BUNDLE"):
            S3Store("s3://bucket").read("key")


def test_a_bucket_can_be_named_by_the_host(
    s3_server: str, s3_environment: None, store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write("object", b"content")
    look_up = socket.getaddrinfo

    def resolved(host: str, *arguments: Any, **options: Any) -> Any:
        return look_up("127.0.0.1" if host.endswith("store.test") else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    with FaultyS3(s3_server, virtual_host="store.test") as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        with pytest.raises(StepError, match="only virtual-host style is known here"):
            S3Store(store.uri).read("object")
        monkeypatch.setenv("AWS_S3_ADDRESSING_STYLE", "virtual")
        named = S3Store(store.uri)
        assert named.read("object") == b"content"
        assert named.create("new", b"")
        assert list(named.keys("")) == ["new", "object"]


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("AWS_S3_ADDRESSING_STYLE", "virtuell", "did you mean 'virtual'"),
        ("AWS_CA_BUNDLE", "/no/such/file", "AWS_CA_BUNDLE must be a file of certificates, not '/no/such/file'"),
        ("AWS_ENDPOINT_URL", "http://host/path", "AWS_ENDPOINT_URL or AWS_REGION cannot be used: path"),
        ("AWS_ENDPOINT_URL", "http://me:hidden@host", "AWS_ENDPOINT_URL must be"),
        ("AWS_REGION", "no region", "AWS_REGION cannot be used: invalid region"),
    ],
)
@pytest.mark.usefixtures("s3_environment")
def test_an_impossible_variable_is_named(
    variable: str, value: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(UserError, match=sentence) as caught:
        open_store("s3://bucket")
    assert "hidden" not in str(caught.value)


# Conditions.


class HastyS3(FaultyS3):
    """Looks at a condition, takes its time, and then writes whatever happened meanwhile; as SeaweedFS before 4.17."""

    def forward(self, request: Request) -> Reply:
        conditions = {name: request.headers.pop(name, None) for name in ("if-match", "if-none-match")}
        if request.method != "PUT":
            request.headers |= {name: value for name, value in conditions.items() if value}
        elif any(conditions.values()):
            seen = super().forward(Request("HEAD", request.path, request.headers | {"content-length": "0"}, b""))
            etag = {name.lower(): value for name, value in seen.headers.items()}.get("etag")
            if conditions["if-match"] != etag if conditions["if-match"] else seen.status == 200:
                return error(412, "PreconditionFailed")
            time.sleep(0.01)
        return super().forward(request)


UNTRUSTED: dict[str, Callable[[str], FaultyS3]] = {
    "ignores all conditions": lambda url: FaultyS3(url, ignored=("if-match", "if-none-match")),
    "ignores If-Match": lambda url: FaultyS3(url, ignored=("if-match",)),
    "is hasty": HastyS3,
}


@pytest.fixture(params=UNTRUSTED)
def untrusted(
    request: pytest.FixtureRequest, store: S3Store, s3_server: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[S3Store]:
    """A bucket of a server that does not keep conditions."""
    with UNTRUSTED[request.param](s3_server) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        found_out = S3Store(store.uri.replace("prefix", "untrusted"))
        assert not found_out.honours_conditions()
        yield found_out


@pytest.mark.slow
def test_a_store_that_does_not_keep_conditions_is_found_out_once_for_all(untrusted: S3Store) -> None:
    assert not S3Store(untrusted.uri).honours_conditions()
    assert list(untrusted.keys("")) == []


def test_a_store_that_refuses_conditions_is_found_out(
    faulty: FaultyS3, store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty.fail(501, "NotImplemented", method="PUT", path=r"\.conditions/probe", times=999)
    other = S3Store(store.uri.replace("prefix", "other"))
    assert not other.honours_conditions()
    assert other.create("key", b"content")
    assert not other.create("key", b"other")


@pytest.mark.slow
def test_of_eight_writers_one_wins_without_conditions(untrusted: S3Store) -> None:
    together = threading.Barrier(8)

    def create(number: int) -> bool:
        store = S3Store(untrusted.uri)
        together.wait()
        return store.create("models/mnist/champion.json", b"%d" % number)

    with ThreadPoolExecutor(8) as writers:
        won = list(writers.map(create, range(8)))
    assert sum(won) == 1
    assert untrusted.read("models/mnist/champion.json") == b"%d" % won.index(True)
    assert list(untrusted.keys("")) == ["models/mnist/champion.json"]


@pytest.mark.slow
def test_no_swap_is_lost_without_conditions(untrusted: S3Store) -> None:
    assert untrusted.swap("counter", None, b"0")

    def add(times: int) -> None:
        added = 0
        while added < times:
            old = untrusted.read("counter")
            added += untrusted.swap("counter", old, b"%d" % (int(old) + 1))

    with ThreadPoolExecutor(3) as writers:
        list(writers.map(add, [2] * 3))
    assert untrusted.read("counter") == b"6"


@pytest.mark.slow
def test_what_was_swapped_without_conditions_stays_so_when_they_are_kept(
    untrusted: S3Store, faulty: FaultyS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert untrusted.create("key", b"1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", faulty.url)
    mended = S3Store(untrusted.uri)
    mended._honours = True
    assert mended.swap("key", b"1", b"2")
    assert untrusted.read("key") == mended.read("key") == b"2"


ADD_ONE = """
import sys
from components.storage import open_store
store = open_store(sys.argv[1])
while not store.swap("counter", old := store.read("counter"), b"%d" % (int(old) + 1)):
    pass
"""


@pytest.mark.slow
def test_no_swap_of_eight_processes_is_lost_without_conditions(untrusted: S3Store) -> None:
    assert untrusted.create("counter", b"0")
    processes = [subprocess.Popen([sys.executable, "-c", ADD_ONE, untrusted.uri]) for _ in range(8)]
    assert [process.wait() for process in processes] == [0] * 8
    assert untrusted.read("counter") == b"8"


# Memory.

MOVE = """
import sys
from itertools import pairwise
from pathlib import Path
from components.storage import open_store
from tests.memory import peak
store, folder = open_store(sys.argv[1]), Path(sys.argv[2])
store.write("small", folder / "small")
store.fetch("small", folder / "copy")
before = peak()
store.write("large", folder / "large")
store.fetch("large", folder / "copy")
print((peak() - before) // 1024)
"""


@pytest.mark.slow
def test_three_hundred_megabytes_are_moved_in_constant_memory(any_store: Store, tmp_path: Path) -> None:
    for name, size in {"small": 16, "large": 300}.items():
        with (tmp_path / name).open("wb") as file:
            for number in range(size):
                file.write(bytes([number % 256]) * MIB)
    child = subprocess.run(
        [sys.executable, "-c", MOVE, any_store.uri, str(tmp_path)], stdout=subprocess.PIPE, text=True, check=True
    )
    assert int(child.stdout) < 32
    assert (tmp_path / "copy").stat().st_size == 300 * MIB


def test_versions_of_a_listing_are_those_that_can_be_read(store: S3Store) -> None:
    store.write("object", b"content")
    (found,) = store.objects("")
    assert found == Object("object", 7, found.version)
    assert store.read("object", version=found.version) == b"content"
    store.write("object", b"changed")
    for use in (store.read, store.open):
        with pytest.raises(StepError, match="has changed"):
            use("object", version=found.version)


def test_every_variable_of_the_documentation_is_read(
    workload: Workload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[str] = set()

    class Watched(dict[str, str]):
        def get(self, name: str, default: Any = None) -> Any:
            seen.add(name)
            return super().get(name, default)

        def __getitem__(self, name: str) -> str:
            seen.add(name)
            return super().__getitem__(name)

    def read(*cleared: str, **variables: str) -> None:
        environment = Watched({**os.environ, **variables})
        for name in cleared:
            environment.pop(name, None)
        with monkeypatch.context() as patch, contextlib.suppress(UserError):
            patch.setattr(os, "environ", environment)
            S3Store("s3://bucket").identity.retrieve()

    token = "AWS_WEB_IDENTITY_TOKEN_FILE"
    monkeypatch.setenv("HOME", str(tmp_path))
    read()
    read(AWS_ACCESS_KEY_ID="key")
    read("AWS_CA_BUNDLE", token, AWS_SHARED_CREDENTIALS_FILE=str(tmp_path / "none"))
    read("AWS_REGION", token, AWS_CONTAINER_CREDENTIALS_FULL_URI="http://127.0.0.1:1")
    read(token, AWS_EC2_METADATA_SERVICE_ENDPOINT="http://127.0.0.1:1")
    documented = re.findall(r"`((?:AWS|SSL)_\w+)`", Path("docs/storage.md").read_text())
    assert set(documented) <= seen
    assert len(set(documented)) > 15
