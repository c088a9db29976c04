"""What is not there, not whole, not understood or not allowed: a page that says so, and never another file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from simulator.experiment import SCHEMA_VERSION
from simulator.report.summary import SCHEMA_VERSION as SUMMARY_VERSION
from tests.deploy.airflow_ui.conftest import DAG, OTHER, Site
from tests.small_lake import day_at

Text = Callable[[Any], str]
DAY = day_at(1)
SECRET = "root:x:0:0"  # what a stolen file would show


@pytest.fixture
def one(site: Site, tmp_path: Path) -> Site:
    """A site with one report, and a file beside the lake that nobody may read through it."""
    site.report(site.context(), DAY, 1.0)
    (tmp_path / "home" / "passwords").write_text(SECRET)
    return site


def folder(site: Site, dataset: str = "report") -> Path:
    return Path(site.context().runs.path(dataset, f"ds={DAY}"))


def settings(site: Site) -> str:
    return site.context().pipeline.config_hash


PAGES = (
    "/",
    "/gates",
    f"/dags/{DAG}/days/{DAY}",
    f"/dags/{DAG}/days/{DAY}/gates",
    f"/dags/{DAG}/days/{DAY}/experiment.json",
    f"/dags/{DAG}/runs/a run",
    f"/files/{DAG}/0123456789ab/report/ds={DAY}/report.html",
    "/compare?day=a&day=b",
)


@pytest.mark.parametrize("path", PAGES)
def test_nobody_sees_a_page_without_signing_in(one: Site, text_of: Text, path: str) -> None:
    answer = one.get(path, user=None)
    assert answer.status_code == 401
    assert "Sign in to see the reports" in text_of(answer)
    assert 'href="/auth/login?next=/airflow/mfh' in answer.text
    assert str(DAY) not in answer.text.replace("/auth/login?next=" + f"/airflow/mfh{path}".partition("?")[0], "")


def test_a_report_is_open_to_readers_of_its_dag_alone(one: Site, text_of: Text) -> None:
    one.report(one.context("secret"), DAY, 77.0)
    hash_of_secret = one.context("secret").pipeline.config_hash
    paths = (
        f"/dags/{OTHER}/days/{DAY}",
        f"/dags/{OTHER}/days/{DAY}/experiment.json",
        f"/dags/{OTHER}/days/{DAY}/gates",
        f"/files/{OTHER}/{hash_of_secret}/report/ds={DAY}/report.html",
        f"/compare?day={DAG}~{DAY}~{settings(one)}&day={OTHER}~{DAY}~{hash_of_secret}",
        f"/gates?dag={OTHER}",
    )
    for path in paths:
        assert one.get(path, user="ann").status_code in (200, 404), path
        answer = one.get(path, user="bob")
        assert answer.status_code == 403, path
        assert "No permission" in text_of(answer)
        assert "77" not in answer.text
    for path in ("/", f"/?dag={OTHER}", "/?q=secret", "/gates"):
        assert "77.0" not in one.get(path, user="bob").text
        assert ">secret<" not in one.get(path, user="bob").text
    assert "+77.0" in text_of(one.get("/", user="ann"))


ESCAPES = (
    "../../../../passwords",
    "..%2f..%2f..%2f..%2fpasswords",
    "%2e%2e/%2e%2e/%2e%2e/%2e%2e/passwords",
    "..%252f..%252fpasswords",
    "....//....//passwords",
    "%2fetc%2fpasswd",
    "/etc/passwd",
    "..%5c..%5cpasswords",
    "report.html%00.png",
    "file:///etc/passwd",
)


@pytest.mark.parametrize("escape", ESCAPES)
def test_no_address_leads_out_of_the_reports(one: Site, escape: str) -> None:
    hash_now = settings(one)
    for path in (
        f"/files/{DAG}/{hash_now}/report/ds={DAY}/{escape}",
        f"/files/{DAG}/{hash_now}/report/{escape}/report.html",
        f"/files/{DAG}/{hash_now}/{escape}/ds={DAY}/report.html",
        f"/files/{DAG}/{escape}/report/ds={DAY}/report.html",
        f"/files/{escape}/{hash_now}/report/ds={DAY}/report.html",
        f"/dags/{DAG}/days/{escape}",
        f"/dags/{escape}/days/{DAY}",
        f"/dags/mfh_daily_{escape}/days/{DAY}",
        f"/dags/{DAG}/days/{DAY}?settings={escape}",
        f"/dags/{DAG}/runs/{escape}",
        f"/static/{escape}",
        f"/gates?dag={escape}",
        f"/compare?day={DAG}~{DAY}~{escape}&day={DAG}~{escape}~{hash_now}",
    ):
        answer = one.get(path)
        assert answer.status_code in (403, 404, 422), path
        assert SECRET not in answer.text
        assert "root:" not in answer.text
        assert "Traceback" not in answer.text


@pytest.mark.parametrize("name", ["report.html", "summary.json", "experiment.json"])
def test_a_link_that_leads_out_of_the_lake_is_not_followed(one: Site, text_of: Text, tmp_path: Path, name: str) -> None:
    file = folder(one) / name
    outside = tmp_path / "home" / name
    file.rename(outside)
    file.symlink_to(outside)
    answer = one.get(f"/files/{DAG}/{settings(one)}/report/ds={DAY}/report.html")
    assert answer.status_code == 422
    assert "leads out of the lake; remove the link" in text_of(answer)
    assert "the report of" not in answer.text


def test_a_lake_that_is_itself_a_link_is_a_lake(one: Site, tmp_path: Path) -> None:
    lake = tmp_path / "home" / "lake"
    lake.rename(tmp_path / "elsewhere")
    lake.symlink_to(tmp_path / "elsewhere")
    assert one.get(f"/files/{DAG}/{settings(one)}/report/ds={DAY}/report.html").status_code == 200


def test_a_day_without_a_report_names_the_newest_one_that_has(one: Site, text_of: Text) -> None:
    answer = one.get(f"/dags/{DAG}/days/{day_at(9)}")
    assert answer.status_code == 404
    assert f"No report of small for {day_at(9)}" in text_of(answer)
    assert f"The newest day with a report is {DAY}." in text_of(answer)


@pytest.mark.parametrize("day", ["2024-02-30", "20240305", "2024-W10-2", "today", "٢٠٢٤-٠٣-٠٥", "2024-03-05T00:00"])
def test_what_is_no_day_is_none(one: Site, text_of: Text, day: str) -> None:
    answer = one.get(f"/dags/{DAG}/days/{day}")
    assert answer.status_code == 404
    assert "There is no such day" in text_of(answer)


def test_other_settings_than_there_are(one: Site, text_of: Text) -> None:
    answer = one.get(f"/dags/{DAG}/days/{DAY}?settings=0123456789ab")
    assert answer.status_code == 404
    assert "No report for 2024-03-05 under these settings" in text_of(answer)


def test_a_half_written_partition(one: Site, text_of: Text) -> None:
    (folder(one) / "manifest.json").unlink()
    assert "half-written" in text_of(one.get("/"))
    answer = one.get(f"/dags/{DAG}/days/{DAY}")
    assert answer.status_code == 422
    assert "it has no manifest.json; wait for its run to end" in text_of(answer)


def test_a_day_that_was_analysed_and_not_reported(one: Site, text_of: Text) -> None:
    import shutil

    shutil.rmtree(folder(one))
    assert "No report yet" in text_of(one.get("/"))
    answer = one.get(f"/dags/{DAG}/days/{DAY}")
    assert answer.status_code == 404
    assert "analysed but has no report yet" in text_of(answer)


@pytest.mark.parametrize(("name", "version"), [("summary.json", SUMMARY_VERSION), ("experiment.json", SCHEMA_VERSION)])
def test_records_of_a_newer_version(one: Site, text_of: Text, name: str, version: int) -> None:
    file = folder(one) / name
    file.write_text(json.dumps(json.loads(file.read_text()) | {"schema_version": version + 1, "new": {}}))
    path = f"/dags/{DAG}/days/{DAY}" if name == "summary.json" else f"/dags/{DAG}/days/{DAY}/experiment.json"
    answer = one.get(path)
    assert answer.status_code == 422
    assert f"has schema version {version + 1}, this version reads up to {version}" in text_of(answer)
    assert one.get("/").status_code == 200


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff\xfe", b'{"schema_version": 1, "day": 7}', b"null"])
def test_damaged_summaries_are_rows_that_say_so(one: Site, text_of: Text, content: bytes) -> None:
    (folder(one) / "summary.json").write_bytes(content)
    text = text_of(one.get("/"))
    assert "1 day" in text
    assert "Unreadable" in text.partition("1 day")[2]
    assert one.get(f"/dags/{DAG}/days/{DAY}").status_code == 422


def test_a_page_that_is_gone(one: Site, text_of: Text) -> None:
    (folder(one) / "report.html").unlink()
    answer = one.get(f"/files/{DAG}/{settings(one)}/report/ds={DAY}/report.html")
    assert answer.status_code == 422
    assert "has no report.html" in text_of(answer)


def test_a_file_without_the_right_to_read_it(one: Site, text_of: Text, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: str) -> bytes:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(one.catalogue.lake.fs, "cat_file", refused)
    answer = one.get("/")
    assert answer.status_code == 200
    assert "check permissions" in text_of(answer)


def test_a_damaged_gate_is_a_cell_that_says_so(one: Site, text_of: Text) -> None:
    context = one.context()
    one.gate(context, DAY, "validation_log")
    manifest = Path(context.runs.path("validation_log", f"ds={DAY}", "manifest.json"))
    manifest.write_text("{")
    assert "unreadable" in text_of(one.get("/gates"))
    assert "can not be read" in text_of(one.get(f"/dags/{DAG}/days/{DAY}/gates"))


def test_a_pipeline_file_that_is_broken_leaves_its_reports_readable(one: Site) -> None:
    (one.settings.pipelines_dir / "small.yaml").write_text("name: [")
    assert one.get(f"/dags/{DAG}/days/{DAY}").status_code == 200
    assert str(DAY) in one.get("/").text


def test_strangers_in_the_lake_are_no_reports(one: Site, tmp_path: Path) -> None:
    root = Path(one.context().runs.root)
    for name in ("ds=20240306", "ds=latest", "ds=../x", "_staging"):
        (root / "report" / name.replace("/", "_")).mkdir()
    (root.parent / "not_a_hash").mkdir()
    (root / "report" / "ds=2024-03-09").write_text("a file")
    assert "1 day" in one.get("/").text


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_pages_are_only_read(one: Site, method: str) -> None:
    answer = one.client.request(method, "/airflow/mfh/", headers={"x-user": "ann"})
    assert answer.status_code == 405


def test_what_nobody_foresaw_is_a_number_and_not_a_trace(
    one: Site, text_of: Text, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(dag_ids: object) -> None:
        raise ZeroDivisionError("a secret detail")

    monkeypatch.setattr(one.catalogue, "rows", broken)
    answer = one.get("/")
    assert answer.status_code == 500
    assert "secret detail" not in answer.text
    number = text_of(answer).partition("under ")[2].partition(";")[0]
    assert number in caplog.text
    assert "a secret detail" in caplog.text
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
