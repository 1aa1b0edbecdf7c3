"""The demo's verdict on balanced and unbalanced books, and one short performance of it."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from demo.figures import Arrived, Limits, Report, Status
from demo.verdict import Evidence, judge, sentence, table

from surgetank.model import Signal, SignalStats


def evidence(*, made=100, delivered=100, dropped=0, arrived=None, twice=0, unaccounted=0, peak=10, total=100):
    """Return the evidence of a run in which every signal fared alike; balanced unless told otherwise."""
    books = SignalStats(
        offered=made + unaccounted,
        delivered=delivered,
        dropped={"queue_full": dropped} if dropped else {},
        memory_peak_bytes=peak,
    )
    counted = Arrived(unique=delivered if arrived is None else arrived, duplicates=twice)
    status = Status(
        elapsed=1.0,
        made=dict.fromkeys(Signal, made),
        counter_total=100,
        rss_bytes=1,
        rss_peak_bytes=1,
        books=dict.fromkeys(Signal, books),
        limits=dict.fromkeys(Signal, Limits(max_size=100, max_bytes=1000)),
        is_final=True,
    )
    return Evidence(status=status, report=Report(arrived=dict.fromkeys(Signal, counted), counter_total=total))


def test_balanced_books_have_no_faults():
    """Everything arrived, or was dropped and counted."""
    assert judge(evidence()) == []
    assert judge(evidence(delivered=90, dropped=10)) == []
    assert "books balance" in sentence(evidence())


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ({"arrived": 99}, "but 99 arrived"),
        ({"delivered": 90}, "100 offered, but 90 delivered"),
        ({"unaccounted": 1}, "unaccounted"),
        ({"twice": 10_000}, "came twice"),
        ({"peak": 2000}, "2,000 bytes were held"),
        ({"total": 99}, "add up to 99"),
    ],
    ids=str,
)
def test_each_kind_of_imbalance_is_found(what, words):
    """And said in words."""
    assert any(words in fault for fault in judge(evidence(**what)))


def test_an_imbalance_in_the_middle_of_the_run_is_found():
    """The law holds at every moment, not only at the end."""
    assert judge(dataclasses.replace(evidence(), worst_unaccounted=3))


def test_the_table_has_a_column_for_each_application():
    """Ours, and the stock SDK's where it ran beside."""
    rows = table({"ours": evidence(), "stock": evidence()})

    assert all(len(row.values) == 2 for row in rows)


@pytest.mark.slow
def test_a_short_performance_balances(tmp_path):
    """Real processes, a real kill of the collector, and exit code 0."""
    figures = tmp_path / "figures.json"
    command = [
        sys.executable,
        "-m",
        "demo",
        "--seconds",
        "6",
        "--outage",
        "2",
        "--rate",
        "50",
        "--plain",
        "--json",
        figures,
    ]

    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1], timeout=60)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "The books balance" in done.stdout
    played = json.loads(figures.read_text())
    assert played["balanced"]
    assert played["ours"]["spans"]["lost"] == played["ours"]["logs"]["lost"] == 0
