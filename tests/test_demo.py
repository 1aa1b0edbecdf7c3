"""The demo's verdict on balanced and unbalanced books and on little memory, and one short performance of it."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from demo import __main__ as demo_main
from demo import squeeze
from demo.evidence import Evidence, Killed, as_data
from demo.figures import Arrived, Limits, Report, Status
from demo.notebook import Notebook, read_note
from demo.processes import StageError
from demo.stage import Plan
from demo.verdict import judge, sentence, table

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
    report = Report(arrived=dict.fromkeys(Signal, counted), counter_total=total)
    return Evidence(status=status_of(made, books, is_final=True), report=report)


def status_of(made, books, *, is_final):
    return Status(
        elapsed=1.0,
        made=dict.fromkeys(Signal, made),
        counter_total=100,
        rss_bytes=1,
        rss_peak_bytes=1,
        books=dict.fromkeys(Signal, books),
        limits=dict.fromkeys(Signal, Limits(max_size=100, max_bytes=1000)),
        is_final=is_final,
    )


def evidence_of_a_kill(*, recovered=65, dropped=0, reason="damaged", left=0, arrived=None, twice=0, total=180, died=7):
    """
    Return the evidence of two lives.

    The first delivered 30, had 60 on disk and 5 unsealed when it last spoke, and sealed 5 and made `died` more before
    it was killed; the second made 100. Balanced unless told otherwise.
    """
    first = SignalStats(offered=95, delivered=30, queued=45, stored=40, spooled=20)
    second = SignalStats(
        offered=100,
        recovered=recovered,
        delivered=100 + recovered - dropped - left,
        dropped={reason: dropped} if dropped else {},
        spooled=left,
    )
    killed = Killed(
        status=status_of(95, first, is_final=False),
        made=dict.fromkeys(Signal, 95 + died),
        counter_total=100,
        unsealed_max=10,
    )
    unique = 30 + second.delivered if arrived is None else arrived
    return Evidence(
        status=status_of(100, second, is_final=True),
        report=Report(arrived=dict.fromkeys(Signal, Arrived(unique=unique, duplicates=twice)), counter_total=total),
        killed=killed,
    )


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


def test_a_kill_costs_what_was_not_sealed_and_nothing_else():
    """What died is told from what was made, settled and found again."""
    it = evidence_of_a_kill()

    assert judge(it) == []
    assert [figure(Signal.SPANS) for figure in (it.made, it.sealed, it.recovered, it.died, it.lost)] == [
        202,
        60,
        65,
        7,
        7,
    ]
    assert it.lost_of_sealed(Signal.SPANS) == 0
    assert "+ 14 died unsealed" in sentence(it)
    assert "195 items recovered from disk" in sentence(it)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ({"recovered": 59}, "60 were on disk before the kill, but 59 recovered"),
        ({"recovered": 59}, "1 items were sealed, and are lost"),
        ({"dropped": 2, "reason": "damaged"}, "2 items were sealed, and are lost"),
        ({"dropped": 2, "reason": "spool_full"}, "2 items were sealed, and are lost"),
        ({"arrived": 194}, "1 items were sealed, and are lost"),
        ({"left": 3}, "3 still on disk at the end"),
        ({"died": 11}, "11 died unsealed"),
        ({"died": -1}, "-1 died unsealed"),
        ({"twice": 1025}, "1,025 came twice"),
        ({"total": 201}, "recorded 200, but the deltas that arrived add up to 201"),
        ({"total": 99}, "the second life alone recorded 100"),
    ],
    ids=str,
)
def test_what_a_kill_must_not_cost_is_found(what, words):
    """Sealed items above all."""
    assert any(words in fault for fault in judge(evidence_of_a_kill(**what)))


def test_a_kill_may_cost_the_counter_but_not_invent_anything():
    """Nobody knows what was not collected yet, so the check goes one way only; without a kill it goes both."""
    assert judge(evidence_of_a_kill(total=100)) == judge(evidence_of_a_kill(total=200)) == []
    assert "Checked one way only" in sentence(evidence_of_a_kill())


def test_each_kill_leaves_a_batch_in_doubt():
    """The collector's and the application's."""
    assert judge(evidence_of_a_kill(twice=1024)) == []
    assert judge(evidence(twice=513))


def test_the_table_says_what_became_of_what_was_sealed():
    """Of the stock SDK, which seals nothing, no more than what is lost."""
    stock = evidence_of_a_kill()
    stock = dataclasses.replace(
        stock,
        status=dataclasses.replace(stock.status, books={}),
        killed=dataclasses.replace(stock.killed, status=dataclasses.replace(stock.killed.status, books={})),
    )

    rows = {(row.section, row.figure): row.values for row in table({"ours": evidence_of_a_kill(), "stock": stock})}

    assert rows["spans", "lost of what was sealed"] == ("0", "-")
    assert rows["spans", "died unsealed with the process"] == ("7", "-")
    assert rows["spans", "lost"] == ("7", "7")
    assert rows["metrics", "died uncollected with the process"] == ("20", "-")
    assert json.dumps(as_data(stock))


def test_the_application_is_killed_in_the_middle_of_the_outage():
    """And comes back before the collector does."""
    plan = Plan(seconds=45, outage=20)
    acts = [plan.act(moment).name for moment in (0, 12, 20.1, 22, 31, 46)]

    assert acts == ["warm-up", "outage", "crash", "restart", "recovery", "drain"]
    assert "crash" not in {dataclasses.replace(plan, kills_app=False).act(moment / 4).name for moment in range(200)}


def test_a_note_can_be_read_by_others_at_once(tmp_path):
    """Nothing has to be closed or flushed, for which a kill leaves no time."""
    notebook = Notebook(tmp_path / "notes")
    notebook.note(7, 30)

    assert read_note(tmp_path / "notes") == (7, 30)


def squeezed(**changes):
    """Return what is said of an application that lived through an outage in little memory; all is well unless told."""
    return {
        "has_cgroup": True,
        "survived": True,
        "lived_seconds": 15.9,
        "rate_before": 1500.0,
        "rate_away": 1455.0,
        "peak_rss_mb": 150.0,
        "lowest_scale": 0.25,
        "made": 24_000,
        "balanced": True,
        "dropped": {"memory_limit": 15_000},
        **changes,
    }


def killed(**changes):
    """Return what is said of one that was killed, and had no last words."""
    result = squeezed(survived=False, lived_seconds=3.34, rate_away=0.0, lowest_scale=1.0, **changes)
    return {name: value for name, value in result.items() if name not in {"made", "balanced", "dropped"}}


def cells(results):
    """Return the table as figures and what they are in each column."""
    return {row.figure: row.values for row in squeeze.table(results)}


def test_who_lived_within_the_limit_with_balanced_books_has_no_faults():
    """Up to the last byte of it."""
    assert squeeze.judge(squeezed(peak_rss_mb=squeeze.LIMIT)) == []
    assert "24,000 spans made, all accounted for" in squeeze.sentence(squeezed())
    assert "-3 % in the outage" in squeeze.sentence(squeezed())


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (killed(), ["did not survive: killed after 3.3 s, before the outage"]),
        (killed(has_cgroup=False), ["did not survive: died after 3.3 s, before the outage"]),
        ({**killed(), "lived_seconds": 9.0}, ["did not survive: killed after 9.0 s, in the outage"]),
        ({**killed(), "lived_seconds": 0.0}, ["it ended before it said anything"]),
        (squeezed(peak_rss_mb=160.2), ["160.2 MiB were resident, 160 MiB are the limit"]),
        (squeezed(balanced=False), ["24,000 made, and the books do not account for them"]),
        (squeezed(balanced=False, peak_rss_mb=161), ["do not account", "161.0 MiB were resident"]),
        # Its last words are good, but the process ended badly all the same.
        (squeezed(survived=False), ["did not survive"]),
    ],
)
def test_what_must_not_happen_in_little_memory_is_found(result, words):
    """A death, too much memory, and books that do not balance."""
    faults = squeeze.judge(result)

    assert len(faults) == len(words)
    assert all(some in fault for some, fault in zip(words, faults, strict=True))


def test_the_table_of_little_memory_shows_who_was_killed():
    """Nothing is said of what only the dead could have told."""
    figures = cells({"ours": squeezed(), "stock": killed()})

    assert figures["limit"] == ("control group", "control group")
    assert figures["survived"] == ("yes", "no, killed after 3.3 s, before the outage")
    assert figures["resident at its peak"][0] == "150.0 of 160 MiB"
    assert figures["spans made"] == ("24,000", "not known")
    assert figures["books"] == ("balance", "none")
    assert figures["dropped, by reason"] == ("memory_limit 15,000", "not counted")
    assert figures["own work in the outage"] == ("1,455 units/s (-3 %)", "-")


def test_the_table_of_little_memory_says_where_there_is_no_control_group():
    """The stock SDK, which knows no limit, then has none and lives."""
    stock = squeezed(has_cgroup=False, balanced=False, dropped=None, peak_rss_mb=520)
    figures = cells({"ours": squeezed(has_cgroup=False, dropped={}), "stock": stock})

    assert figures["limit"] == ("configured", "none")
    assert figures["survived"] == ("yes", "yes")
    assert figures["books"] == ("balance", "none")
    assert figures["dropped, by reason"] == ("0", "not counted")


def test_the_books_of_ours_die_with_it():
    """They are not called balanced, nor unbalanced."""
    assert cells({"ours": killed()})["books"] == ("died with it",)
    assert cells({"ours": squeezed(balanced=False)})["books"] == ("do not balance",)


@pytest.fixture
def perform(monkeypatch, tmp_path):
    """Return a function that runs the demo with made-up results; it returns the exit code and the figures."""

    def performed(*arguments, played=None, **results):
        def run(modes, say):
            return {mode: results[mode] for mode in modes}

        monkeypatch.setattr("signal.signal", lambda *_: None)
        monkeypatch.setattr(demo_main, "_play", lambda plan, **_: dict.fromkeys(plan.modes, played or evidence()))
        monkeypatch.setattr(squeeze, "run", run)
        figures = tmp_path / "figures.json"
        code = demo_main.main(["--plain", "--json", str(figures), *arguments])
        return code, json.loads(figures.read_text())

    return performed


def test_the_exit_code_is_that_of_both_acts(perform):
    """Either can fail; the stock SDK cannot."""
    assert perform(ours=squeezed())[0] == 0
    assert perform(ours=killed())[0] == 1
    assert perform(ours=squeezed(), played=evidence(arrived=99))[0] == 1
    assert perform("--compare", ours=squeezed(), stock=killed())[0] == 0


def test_the_figures_include_those_of_little_memory(perform, capsys):
    """Those of everyone, and what was found."""
    _, data = perform("--compare", ours=squeezed(peak_rss_mb=161), stock=killed())

    assert data["balanced"]
    assert data["memory"]["ours"]["made"] == 24_000
    assert not data["memory"]["stock"]["survived"]
    assert data["memory"]["faults"]
    assert "Memory did not hold" in capsys.readouterr().out


def test_little_memory_can_be_left_out(perform, capsys):
    """Then it is neither run nor spoken of."""
    code, data = perform("--no-squeeze")

    assert code == 0
    assert "memory" not in data
    assert "Four threads" not in capsys.readouterr().out


def test_a_missing_control_group_is_said(perform, capsys):
    """The limit is then only configured."""
    perform(ours=squeezed(has_cgroup=False))

    assert "the limit is only configured" in capsys.readouterr().out


def test_little_memory_that_cannot_be_measured_is_no_verdict(monkeypatch, capsys):
    """The demo says so with a code of its own."""

    def run(modes, say):
        raise StageError("nobody measures")

    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr(demo_main, "_play", lambda *_, **__: {"ours": evidence()})
    monkeypatch.setattr(squeeze, "run", run)

    assert demo_main.main(["--plain"]) == 2
    assert "nobody measures" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("kill", [True, False], ids=["kill", "no kill"])
def test_a_short_performance_balances(tmp_path, kill):
    """Real processes, a real kill of the collector and of the application, and exit code 0."""
    figures = tmp_path / "figures.json"
    command = [
        sys.executable,
        "-m",
        "demo",
        "--seconds",
        "8",
        "--outage",
        "4",
        "--rate",
        "50",
        "--no-squeeze",
        "--plain",
        "--json",
        figures,
        *([] if kill else ["--no-kill"]),
    ]

    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1], timeout=60)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "The books balance" in done.stdout
    played = json.loads(figures.read_text())
    assert played["balanced"]
    for signal in ("spans", "logs"):
        fates = played["ours"][signal]
        assert fates["lost_of_sealed"] == 0
        assert fates["lost"] == fates["died_unsealed"]
        assert (fates["recovered"] > 0) is kill
        assert kill or fates["died_unsealed"] == 0
