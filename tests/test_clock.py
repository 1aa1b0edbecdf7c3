"""The clocks: real, whatever a test of the application's does to Python's."""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import freezegun
import pytest
import time_machine

import surgetank
from surgetank.clock import SystemClock

SOURCES = Path(surgetank.__file__).parent
FREEZERS = {
    "freezegun": "import freezegun; freezegun.freeze_time('2020-01-01').start()",
    "time-machine": "import time_machine; time_machine.travel('2020-01-01', tick=False).start()",
}
# What is not read from a clock, but made of a time that is given.
WRITES_ONLY = {"gmtime", "localtime", "strftime", "struct_time"}
# They run in processes of their own, which nobody freezes; `clock` and `threads` are where the rest comes from.
APART = ("cli/", "measuring/", "testing/", "clock.py")


def names_of_time(source: str) -> set[str]:
    """Return what a module takes from `time`, and from `datetime` to read a clock."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "time":
            found.add(node.attr)
        if isinstance(node, ast.Attribute) and node.attr in {"utcnow", "today", "fromtimestamp"}:
            found.add(node.attr)
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            found |= {alias.name for alias in node.names}
    return found - WRITES_ONLY


@pytest.mark.parametrize("path", sorted(SOURCES.rglob("*.py")), ids=lambda path: path.relative_to(SOURCES).as_posix())
def test_no_other_module_reads_a_clock(path):
    """A function of `time` that is looked up when it is called may be a frozen one by then."""
    if path.relative_to(SOURCES).as_posix().startswith(APART):
        return
    assert names_of_time(path.read_text("utf-8")) == set()


def test_the_clocks_are_pythons_while_nobody_has_replaced_those():
    """Their values may be compared with those that others read."""
    assert SystemClock.monotonic() == pytest.approx(time.monotonic(), abs=5)
    assert SystemClock.now() == pytest.approx(time.time(), abs=5)


def test_the_clocks_go_on_while_pythons_stand_still():
    """Under both of the packages that freeze clocks; the second also replaces what was captured."""
    wall = SystemClock.now()
    with freezegun.freeze_time("2020-01-01"):
        before = SystemClock.monotonic()
        assert time.monotonic() == time.monotonic()
        assert before < SystemClock.monotonic()
        assert SystemClock.now() >= wall
    with time_machine.travel("2020-01-01", tick=False):
        assert before < SystemClock.monotonic()


@pytest.mark.slow
@pytest.mark.parametrize("freeze", FREEZERS.values(), ids=FREEZERS.keys())
@pytest.mark.parametrize("when", ["before surgetank is imported", "before a tank is made", "after a tank was made"])
@pytest.mark.parametrize("is_stored", [False, True], ids=["in memory", "with a spool"])
def test_deadlines_are_kept_under_a_frozen_clock(freeze, when, is_stored, tmp_path):
    """With items held, in memory or on disk, and an endpoint that never answers: flush and shutdown end in time."""
    steps = ["import surgetank", "tank = make()"]
    steps.insert(["before surgetank is imported", "before a tank is made", "after a tank was made"].index(when), freeze)
    program = textwrap.dedent(
        f"""
        import os, socket
        os.environ["SURGETANK_SPOOL_DIR"] = {str(tmp_path)!r}
        silent = socket.create_server(("127.0.0.1", 0))
        def make():
            return surgetank.Tank(endpoint=f"http://127.0.0.1:{{silent.getsockname()[1]}}", persistence_enabled={is_stored})
        """
    )
    program += "\n".join(steps)
    program += textwrap.dedent(
        """
        from opentelemetry.sdk.trace import TracerProvider
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(tank.span_processor)
        for _ in range(10):
            provider.get_tracer("t").start_span("s").end()
        provider.force_flush(500)
        tank.force_flush(0.5)
        tank.shutdown(timeout=1.0)
        counts = tank.stats().spans
        print(counts.spooled + sum(counts.dropped.values()))
        """
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "10"
    assert time.monotonic() - began < 30


@pytest.mark.slow
def test_deadlines_are_kept_under_a_frozen_clock_without_threads(tmp_path):
    """At the interpreter's end whoever shuts down does the work, and looks at the clock for how long."""
    program = """
        import os, socket, surgetank, freezegun
        freezegun.freeze_time("2020-01-01").start()
        from surgetank import threads
        def refuse(*_, **__):
            raise RuntimeError("can't create new thread at interpreter shutdown")
        threads.start = refuse
        tank = surgetank.Tank(endpoint="http://127.0.0.1:9", persistence_enabled=False)
        from opentelemetry.sdk.trace import TracerProvider
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(tank.span_processor)
        provider.get_tracer("t").start_span("s").end()
        tank.force_flush(1.5)
        tank.shutdown(timeout=1.5)
        print(tank.stats().spans.dropped["shutdown"])
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stdout.strip() == "1", done.stderr
