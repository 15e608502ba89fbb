"""The page of reports shows every report, and `bench` writes what the page reads."""

import json
from pathlib import Path

from benchmarks.device_reports import HEAD, PAGE, REPORTS, page, table
from edge_runtime.__main__ import main


def test_the_page_shows_every_report() -> None:
    text, reports = PAGE.read_text(), [json.loads(path.read_text()) for path in REPORTS.glob("*.json")]
    assert page(text) == text, "make device-reports"
    assert reports
    assert all(report["processor"] in text for report in reports)


def test_a_report_of_today_has_a_row(bundle_folder: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    assert main(["bench", "--bundle", str(bundle_folder), "--repeats", "1", "--report", str(report)]) == 0
    told = json.loads(report.read_text())
    *_, line = table([told]).splitlines()
    assert line.count(" | ") == len(HEAD) - 1
    assert f"| {told['processor']} |" in line
