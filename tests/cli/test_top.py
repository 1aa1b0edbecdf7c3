"""`surgetank top`: what it makes of status files, whoever wrote them, and what it shows of it."""

import json
import os
import re
import zlib
from pathlib import Path

import pytest
from rich.text import Text
from typer.testing import CliRunner

from surgetank.cli import top as command
from surgetank.cli.app import app
from surgetank.cli.top_columns import Page
from surgetank.cli.top_readings import printable, read
from surgetank.cli.top_view import Frame, draw
from surgetank.cli.top_watch import LINGER, Watcher, totals
from surgetank.episodes import LATELY
from surgetank.model import Signal, SignalStats
from surgetank.presence import Sighting, sightings
from surgetank.spool.filesystem import OsFilesystem
from surgetank.testing import ManualClock

MIB = 1024 * 1024
START = 1_000_000.0


def books(**counts):
    return {**SignalStats(max_size=2048, max_memory_bytes=50 * MIB).as_data(), **counts}


def document(pid=4711, *, spans=None, logs=None, state="delivering", written_at=START, **others):
    """What a tank writes."""
    said = {
        "host": "here",
        "pid": pid,
        "command": "gunicorn",
        "service": "shop",
        "started_at": START - 60,
        "written_at": written_at,
        "endpoints": dict.fromkeys(("spans", "metrics", "logs"), "http://collector:4318"),
        "signals": {"spans": spans or books(), "metrics": books(), "logs": logs or books()},
        "memory": {"used": 100 * MIB, "limit": 512 * MIB, "source": "cgroup2 memory.max"},
        "pressure": 0.2,
        "scale": 1.0,
        "spool": {"path": "/data/spool", "limit_bytes": 512 * MIB, "is_down": False},
        "health": {"state": state, "is_ready": True, "reasons": []},
    }
    return {**said, **others}


class Host:
    """Status files as they are sighted, changed by hand."""

    def __init__(self):
        self.clock = ManualClock(START)
        self.files = {}
        self.dead = set()
        self.watcher = Watcher(self.clock, self.sightings)

    def sightings(self):
        return [Sighting(path, path not in self.dead, said) for path, said in self.files.items()]

    def write(self, path="4711-0.status", **said):
        self.files[path] = document(**{"written_at": self.clock.now(), **said})

    def look(self, seconds=1.0):
        self.clock.advance(seconds)
        return self.watcher.tanks()


def text(tanks, *, width=100, height=None, is_unicode=True, host="here", now=START, is_filtered=False):
    frame = Frame(
        tanks=tanks, now=now, host=host, folders={"/run/there": "not there"}, is_filtered=is_filtered, note="every 1 s"
    )
    lines = draw(frame, Page(width=width, height=height, is_unicode=is_unicode))
    assert all(isinstance(line, Text) for line in lines)
    assert all(line.cell_len <= width for line in lines)
    assert height is None or len(lines) <= height
    return "\n".join(line.plain for line in lines)


def plant(folder, name, said, *, version=1):
    """Write a file as a tank does, or as somebody does who would like to be taken for one."""
    body = said if isinstance(said, bytes) else json.dumps(said).encode()
    head = b"surgetank-status %d %d %08x\n" % (version, len(body), zlib.crc32(body))
    (folder / name).write_bytes(head + body)


@pytest.fixture
def lock():
    """Locks a file as its tank does, until the test ends."""
    held = []

    def lock(path):
        held.append(OsFilesystem().open(str(path)))
        assert held[-1].try_lock()

    yield lock
    for file in held:
        file.close()


def run(*arguments):
    return CliRunner().invoke(app, ["top", *map(str, arguments)], catch_exceptions=False)


# Rates.


def test_a_rate_is_the_difference_of_two_writings():
    """Over the time between them, which is not the time between two looks."""
    host = Host()
    host.write(spans=books(offered=100, delivered=40))
    assert host.look()[0].rates == {}

    host.write(spans=books(offered=300, delivered=140, dropped={"queue_full": 20}))
    for _ in range(3):
        # The file is the same for some looks.
        [tank] = host.look(0.2)
        assert vars_of(tank.rates[Signal.SPANS]) == (200.0, 100.0, 20.0)
    host.clock.advance(1.4)

    host.write(spans=books(offered=300, delivered=142, dropped={"queue_full": 20}))
    [tank] = host.look()
    assert vars_of(tank.rates[Signal.SPANS]) == pytest.approx((0.0, 1.0, 0.0), abs=0.1)


def vars_of(rates):
    return rates.offered, rates.delivered, rates.lost


def test_a_process_that_was_started_again_has_rates_of_its_own():
    """Under the same name, with counts that begin anew; the old one is gone."""
    host = Host()
    host.write(spans=books(offered=1000))
    host.look()
    host.write(spans=books(offered=10), started_at=START + 1)

    tanks = host.look()

    assert [(tank.state, dict(tank.rates)) for tank in tanks] == [("delivering", {}), ("ended", {})]


def test_counts_and_clocks_that_go_back_make_no_rate():
    """Nobody's rate is negative, or infinite."""
    host = Host()
    host.write(spans=books(offered=1000), logs=books(offered=1000))
    host.look()
    host.write(spans=books(offered=10), logs=books(offered=1100))

    [tank] = host.look()
    assert set(tank.rates) == {Signal.METRICS, Signal.LOGS}

    host.write(logs=books(offered=1200), written_at=START - 3600)
    [tank] = host.look()
    assert tank.rates == {}


def test_what_was_lost_lately_is_told_from_what_was_lost_once():
    """For a minute, as the tank's own judgement has it."""
    host = Host()
    host.write(spans=books(dropped={"queue_full": 5}))
    assert host.look()[0].growing[Signal.SPANS] == frozenset()

    host.write(spans=books(dropped={"queue_full": 5, "expired": 1}), state="losing")
    assert host.look()[0].growing[Signal.SPANS] == {"expired"}

    host.write(spans=books(dropped={"queue_full": 5, "expired": 1}))
    assert host.look(LATELY)[0].growing[Signal.SPANS] == frozenset()


def test_at_first_sight_a_tank_is_believed_that_it_is_losing():
    """There is nothing to compare with yet."""
    host = Host()
    host.write(spans=books(rejected_by_cause={"400": 3}, dropped={"sampled": 9}), state="losing")

    [tank] = host.look()

    assert tank.growing[Signal.SPANS] == {"refused (400)"}
    assert tank.reading.signals[Signal.SPANS].lost_items == 3


# Who is there, and who is gone.


def test_who_ended_in_order_is_shown_for_some_seconds():
    """Its file went with it."""
    host = Host()
    host.write()
    host.look()
    host.files.clear()

    [tank] = host.look()
    assert (tank.state, tank.is_gone) == ("ended", True)
    assert "ended in order" in text([tank])
    assert host.look(LINGER - 1)
    assert host.look(1.0) == []
    assert host.look(1.0) == []


def test_who_died_is_shown_for_some_seconds_and_its_file_stays():
    """It is not shown a second time after that; and when it is swept, it still has died."""
    host = Host()
    host.write(spans=books(offered=10, spooled=3, stored=4))
    host.look()
    host.dead.add("4711-0.status")

    [tank] = host.look()
    assert tank.state == "died"
    assert "without a shutdown; it left 7 on disk" in text([tank])
    host.files.clear()
    assert [tank.state for tank in host.look()] == ["died"]
    host.write()
    assert host.look(LINGER) == []
    assert host.look() == []


def test_a_file_that_could_not_be_read_once_is_no_death():
    """The reader may have come in the middle of a writing each time that it looked."""
    host = Host()
    host.write()
    host.look()
    files, host.files = host.files, {}
    assert host.look()[0].state == "ended"
    host.files = files

    assert [tank.state for tank in host.look()] == ["delivering"]


def test_the_worst_come_first_then_by_number():
    """And the gone come last."""
    host = Host()
    for pid, state in [(9, "delivering"), (7, "holding"), (5, "losing"), (6, "holding"), (3, "ended")]:
        host.write(f"{pid}-0.status", pid=pid, state=state)
    host.write("2-0.status", pid=2, state="losing")
    host.dead.add("2-0.status")

    tanks = host.look()

    assert [tank.reading.pid for tank in tanks] == [5, 6, 7, 9, 3, 2]


def test_totals_are_of_the_living():
    """And two tanks of one process are one process."""
    host = Host()
    host.write("1-0.status", pid=1, spans=books(offered=1, queued=2, in_flight=1, spooled=5, stored=2))
    host.write("1-1.status", pid=1, logs=books(offered=1, dropped={"expired": 4}))
    host.write("2-0.status", pid=2, spans=books(queued=100))
    host.dead.add("2-0.status")

    all_of = totals(host.look())

    assert (all_of.processes, all_of.tanks, all_of.states) == (1, 2, {"delivering": 2, "died": 1})
    assert (all_of.held, all_of.on_disk, all_of.lost, all_of.rates) == (3, 7, 4, None)


# What anybody may have written.

HOSTILE = [
    None,
    True,
    -1,
    10**400,
    1e308,
    float("nan"),
    float("inf"),
    "[red]x[/]",
    "\x1b]0;owned\x07\x1b[2J\u202e\ud800\n" * 1000,
    [],
    [[[]]],
    {},
    {"\x1b[31m[bold]": 7, "a" * 10_000: 8, "b": "c"},
    dict.fromkeys(map(str, range(1000)), 1),
]


def places(said, path=()):
    for name, value in said.items():
        yield (*path, name)
        if isinstance(value, dict):
            yield from places(value, (*path, name))


def put(said, path, value):
    for name in path[:-1]:
        said = said[name]
    said[path[-1]] = value


@pytest.mark.parametrize("value", HOSTILE, ids=range(len(HOSTILE)))
def test_any_value_in_any_place_is_shown_without_harm(value):
    """No exception, no control character, nothing that takes a screen for itself; and JSON stays JSON."""
    for path in places(document()):
        said = json.loads(json.dumps(document(spans=books(offered=3, trouble="503"), state="losing")))
        put(said, path, value)
        host = Host()
        for _ in range(2):
            host.files = {"evil": said}
            [tank] = host.look()
        for width, is_unicode in ((80, True), (200, False)):
            shown = text([tank], width=width, is_unicode=is_unicode, now=START)
            assert not [each for each in shown if each != "\n" and not each.isprintable()]
            assert len(shown.splitlines()) < 20
            shown.encode("utf-8" if is_unicode else "ascii")
        written = json.dumps(tank.as_data(START), allow_nan=False)
        assert len(written) < 60_000


def test_markup_is_text():
    """What looks like a style is shown as it is."""
    host = Host()
    host.write(service="[bold red]mine[/]", spans=books(offered=1, trouble="[link=file:///x]503[/link]"))

    shown = text(host.look())

    assert "[bold red]mine[/]" in shown
    assert "[link=file:///x]503[/link]" in shown


def test_text_becomes_one_short_printable_line():
    """Without escapes, without what turns the reading direction, without what cannot be encoded."""
    assert printable("a\x1b[2Jb\n\tc\u202ed\ud800e") == "a[2Jb cde"
    assert len(printable("x" * 10**6, 200)) == 200


def test_a_file_of_another_version_is_shown_as_such():
    """Somebody is there, who cannot be understood."""
    host = Host()
    host.sightings = lambda: [Sighting("/run/x/77-0.status", True, {}, 2)]
    host.watcher = Watcher(host.clock, host.sightings)

    [tank] = host.look()

    assert tank.state == "unreadable"
    assert "77-0.status: written by another version of surgetank" in text([tank])


def test_a_document_without_anything_is_one_that_cannot_be_read():
    """And says so."""
    assert read(Sighting("x", True, {})).health == "unreadable"


# What is seen.


def many(count, state="delivering"):
    host = Host()
    for pid in range(1, count + 1):
        state = "losing" if pid == count else state
        host.write(f"{pid}-0.status", pid=pid, state=state, spans=books(offered=10), service=f"shop-{pid}")
    return host.look()


def test_all_that_matters_of_a_tank_is_on_a_small_screen():
    """At 80 by 24, as it has been for a long time."""
    host = Host()
    counts = {"queued": 900, "in_flight": 124, "memory_bytes": 5 * MIB, "stored": 24, "spooled": 100}
    counts |= {"oldest_age": 12.3, "spool_bytes": 3 * MIB, "breaker": "open", "trouble": "503: busy"}
    host.write(spans=books(offered=2000, **counts), state="losing")
    host.look()
    spans = books(offered=2400, delivered=200, dropped={"queue_full": 7, "sampled": 2}, **counts)
    host.write(spans=spans, state="losing")

    shown = text(host.look(), width=80, height=24)

    assert "1 process  ✖ 1 losing" in shown
    assert "✖ LOSING     4711    shop (gunicorn)  up 1.0 min  → http://collector:4318" in shown
    assert "memory 20% of 512.0 MiB · spool 3.0 MiB of 512.0 MiB (1%)" in shown
    assert re.search(r" spans +400 +200 ███··· +50% ▋····· +10% +12 s +124 +7 open", shown)
    assert "spans: 503: busy" in shown
    assert "spans lost: queue_full 7 (growing); given up as asked: sampled 2" in shown
    assert "metrics" not in shown.split("spans", 1)[1].split("lost")[0]


def test_on_a_wide_screen_troubles_stand_in_their_row():
    """And there are figures beside the bars."""
    host = Host()
    host.write(spans=books(offered=10, queued=1024, breaker="half_open", trouble="503: busy"))

    shown = text(host.look(), width=200)

    [row] = [line for line in shown.splitlines() if line.startswith(" spans")]
    assert re.search(r"1,024 █+·+ +50% .* half-open +503: busy$", row)


@pytest.mark.parametrize("width", [10, 30, 60, 79, 80, 81, 100, 120, 159, 200, 400])
@pytest.mark.parametrize("height", [1, 2, 3, 5, 10, 24, 60])
@pytest.mark.parametrize("count", [0, 1, 5, 50])
def test_nothing_is_wider_or_higher_than_the_screen(width, height, count):
    """`text` asserts it."""
    text(many(count), width=width, height=height)


def test_many_processes_are_a_line_each_and_the_rest_a_number():
    """The worst one is seen in full."""
    shown = text(many(50), width=80, height=24).splitlines()

    assert shown[3].startswith("✖ LOSING     50")
    assert len(shown) == 24
    seen = sum(line.startswith(("✖", "✔")) for line in shown)
    assert shown[-1].startswith(f"… and {50 - seen} more ({50 - seen} delivering)")


def test_where_there_is_room_for_a_line_each_as_many_as_fit_are_full():
    """Those that fare worst."""
    shown = text(many(20), width=80, height=30).splitlines()

    assert sum(line.startswith(("✖", "✔")) for line in shown) == 20
    assert sum(line.startswith(" spans") for line in shown) == 3


def test_without_unicode_there_is_ascii():
    """Signs, bars and what the files say."""
    host = Host()
    host.write(service="商店", spans=books(offered=10, queued=1024), state="holding")

    shown = text(host.look(), width=80, is_unicode=False)

    assert shown.isascii()
    assert "~ holding" in shown
    assert "###..." in shown


def test_nobody_there_says_what_to_do():
    """Where was looked, and the usual reasons."""
    shown = text([])
    for words in ("/run/there  (not there)", "SURGETANK_STATUS_ENABLED", "SURGETANK_STATUS_DIR", "container"):
        assert words in shown
    assert "asked for" in text([], is_filtered=True)


def test_conditions_that_somebody_should_know_of_are_said():
    """Memory, disk, and a process that does not write any more."""
    host = Host()
    spool = {"path": "/x", "limit_bytes": 10, "is_down": True}
    host.write(scale=0.25, pressure=0.93, spool=spool)
    shown = text(host.look(), now=START + 120, width=150)
    for words in ("memory 93%", "buffers shrunk to 25%", "THE SPOOL CANNOT BE WRITTEN", "silent for 2.0 min"):
        assert words in shown

    host.write(spool=None, host="pod-7", endpoints={"spans": "http://a:1", "logs": "http://b:2"})
    shown = text(host.look())
    assert "no spool" in shown
    assert "on pod-7" in shown


def test_signals_that_go_to_different_places_are_told_apart():
    """Those that are used."""
    host = Host()
    endpoints = {"spans": "http://a:1", "logs": "http://b:2", "metrics": "http://c:3"}
    host.write(spans=books(offered=1), logs=books(offered=1), endpoints=endpoints)

    assert "spans: http://a:1, logs: http://b:2" in text(host.look())


# The command.

SCHEMA = {
    "schema": int,
    "time": float,
    "host": str,
    "interval": float,
    "folders": [{"path": str, "trouble": str}],
    "is_losing": bool,
    "totals": {
        "processes": int,
        "tanks": int,
        "states": dict,
        "in_per_second": (float, type(None)),
        "out_per_second": (float, type(None)),
        "lost_per_second": (float, type(None)),
        "held": int,
        "held_bytes": int,
        "on_disk": int,
        "spool_bytes": int,
        "lost": int,
    },
    "tanks": [
        {
            "state": str,
            "uptime": float,
            "age": float,
            "pid": int,
            "host": str,
            "command": str,
            "service": str,
            "file": str,
            "version": int,
            "started_at": float,
            "written_at": float,
            "endpoints": {"spans": str, "metrics": str, "logs": str},
            "health": {"state": str, "reasons": list},
            "memory": {"used": int, "limit": int, "source": str, "pressure": float, "scale": float},
            "spool": {"path": str, "bytes": int, "limit_bytes": int, "is_down": bool},
            "signals": {
                each: {
                    "offered": int,
                    "delivered": int,
                    "held": int,
                    "max_size": int,
                    "held_bytes": int,
                    "max_bytes": int,
                    "spooled": int,
                    "stored": int,
                    "on_disk": int,
                    "spool_bytes": int,
                    "oldest_age": float,
                    "lost": dict,
                    "intended": dict,
                    "growing": list,
                    "breaker": str,
                    "trouble": str,
                    "is_used": bool,
                    "in_per_second": (float, type(None)),
                    "out_per_second": (float, type(None)),
                    "lost_per_second": (float, type(None)),
                }
                for each in ("spans", "metrics", "logs")
            },
        }
    ],
}


def check(data, schema, path="$"):
    if isinstance(schema, dict):
        assert list(data) == list(schema) or set(data) == set(schema), (path, set(data) ^ set(schema))
        for name, part in schema.items():
            check(data[name], part, f"{path}.{name}")
    elif isinstance(schema, list):
        for each in data:
            check(each, schema[0], f"{path}[]")
    else:
        assert isinstance(data, schema), (path, data)


def test_once_as_json_is_one_object_with_everything(tmp_path, lock):
    """In the schema that docs/top.md has; the exit code says whether anybody loses."""
    plant(tmp_path, "1-0.status", document(1, spans=books(offered=3), service="a"))
    lock(tmp_path / "1-0.status")

    found = run("--dir", tmp_path, "--once", "--json")

    assert found.exit_code == 0
    [line] = found.stdout.splitlines()
    data = json.loads(line)
    check(data, SCHEMA)
    assert data["tanks"][0]["signals"]["spans"]["offered"] == 3
    assert data["tanks"][0]["signals"]["spans"]["in_per_second"] is None

    plant(tmp_path, "2-0.status", document(2, state="losing"))
    lock(tmp_path / "2-0.status")
    found = run("--dir", tmp_path, "--once", "--json")
    assert (found.exit_code, json.loads(found.stdout)["is_losing"]) == (1, True)
    assert run("--dir", tmp_path, "--once").exit_code == 1
    assert run("--dir", tmp_path, "--once", "--pid", 1).exit_code == 0


def test_the_documented_schema_is_the_one_that_is_printed():
    """Each name stands in docs/top.md."""
    page = (Path(__file__).parents[2] / "docs/top.md").read_text()

    def names(schema):
        for name, part in schema.items():
            yield name
            part = part[0] if isinstance(part, list) else part
            if isinstance(part, dict):
                yield from names(part)

    assert [name for name in names(SCHEMA) if f'"{name}"' not in page] == []


def test_json_has_a_line_a_frame_and_rates_from_the_second_on(tmp_path, lock, monkeypatch):
    """Until somebody interrupts it, which is no failure."""
    plant(tmp_path, "1-0.status", document(1, spans=books(offered=100)))
    lock(tmp_path / "1-0.status")
    pauses = []

    def pause(seconds):
        pauses.append(seconds)
        if len(pauses) == 2:
            raise KeyboardInterrupt
        (tmp_path / "1-0.status").open("rb").close()
        plant(tmp_path, "1-0.status", document(1, spans=books(offered=150), written_at=START + 2))

    monkeypatch.setattr(command.time, "sleep", pause)
    found = run("--dir", tmp_path, "--json", "--interval", 0.5)

    assert (found.exit_code, pauses) == (0, [0.5, 0.5])
    first, second = map(json.loads, found.stdout.splitlines())
    check(second, SCHEMA)
    assert first["totals"]["in_per_second"] is None
    assert second["totals"]["in_per_second"] == 25.0
    assert second["tanks"][0]["signals"]["spans"]["in_per_second"] == 25.0


def test_filters(tmp_path, lock):
    """By number, and by the service's whole name."""
    for pid, service in [(1, "shop"), (2, "shop-eu"), (3, "shop")]:
        plant(tmp_path, f"{pid}-0.status", document(pid, service=service))
        lock(tmp_path / f"{pid}-0.status")

    def pids(*arguments):
        found = json.loads(run("--dir", tmp_path, "--once", "--json", *arguments).stdout)
        return [tank["pid"] for tank in found["tanks"]]

    assert pids("--service", "shop") == [1, 3]
    assert pids("--service", "shop", "--pid", 3) == [3]
    assert pids("--pid", 4) == []


@pytest.mark.parametrize("seconds", ["0.1", "61", "nan", "x"])
def test_an_interval_that_makes_no_sense_is_refused(seconds):
    """With the code of what could not be run."""
    assert run("--once", "--interval", seconds).exit_code == 2


def test_a_folder_that_is_not_there_is_said(tmp_path):
    """It may come with the first process, so it is no error."""
    found = run("--dir", tmp_path / ("long" * 30) / "none", "--once")

    assert found.exit_code == 0
    assert re.sub(r"\s", "", f"{tmp_path}/{'long' * 30}/none(notthere)") in re.sub(r"\s", "", found.stdout)


@pytest.mark.parametrize("setting", ["perhaps", "false"])
def test_whether_a_tank_here_would_be_seen_does_not_matter_for_looking(tmp_path, monkeypatch, setting):
    """And a mistake in the setting is the tanks' to refuse."""
    monkeypatch.setenv("SURGETANK_STATUS_ENABLED", setting)
    monkeypatch.setenv("SURGETANK_STATUS_DIR", str(tmp_path))
    plant(tmp_path, "1-0.status", document(1))

    assert len(json.loads(run("--once", "--json").stdout)["tanks"]) == 1


def test_hostile_files_do_no_harm_from_the_disk_to_the_screen(tmp_path, lock):
    """The good one among them is seen."""
    (tmp_path / "0-0.status").write_bytes(os.urandom(100_000))
    (tmp_path / "1-1.status").mkdir()
    os.mkfifo(tmp_path / "1-2.status")
    (tmp_path / "1-3.status").symlink_to("/etc/passwd")
    plant(tmp_path, "1-4.status", b"[" * 100_000)
    plant(tmp_path, "1-5.status", b'{"pid": NaN, "service": "\\ud800"}')
    plant(tmp_path, "1-6.status", b'{"pid": 1' + b"0" * 5000 + b"}")
    plant(tmp_path, "2-0.status", document(2))
    lock(tmp_path / "2-0.status")

    found = run("--dir", tmp_path, "--once")

    assert found.exit_code == 0
    assert "✔ delivering 2 " in found.stdout
    assert [each.said.get("pid") for each in sightings([str(tmp_path)])].count(2) == 1
