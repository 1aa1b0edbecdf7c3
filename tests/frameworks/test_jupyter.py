"""A notebook's cell that is run again and again, in a process of its own, as its page says."""

import pytest

from frameworks.stage import WORK, lines

pytestmark = pytest.mark.slow

KERNEL = (
    WORK
    + """
import pathlib, sys, time

def run(cell):
    exec(compile(cell, "<cell>", "exec"), globals())

def until(name):
    while not pathlib.Path(name).exists():
        time.sleep(0.02)

CELL = pathlib.Path("cell.py").read_text()
"""
)


def notebook(stage, program):
    """Start a process that can `run` the page's cell."""
    stage.write("cell.py", lines("jupyter"))
    stage.write("kernel.py", KERNEL + program)
    stage.start("kernel.py")


def test_a_cell_that_is_run_again_doubles_nothing_and_a_sigterm_in_an_outage_loses_nothing(stage):
    """And says nothing, neither by itself nor by the SDK."""
    program = """
run(CELL)
first = tank
for n in range(100):
    run(CELL)
    work(n)
assert tank is first
until("go")
for n in range(100, 200):
    work(n)
pathlib.Path("done").touch()
until("never")
"""
    notebook(stage, program)
    stage.until(
        lambda: stage.collector.report()["logs"]["unique"] == stage.collector.report()["spans"]["unique"] == 100
    )
    stage.collector.stop_listening()
    stage.write("go", "")
    stage.until((stage.folder / "done").exists)

    assert stage.terminate() == -15
    assert "verrid" not in stage.said()

    stage.collector.listen_again()
    stage.drain()
    stage.all_arrived(200)


def test_a_second_install_with_other_settings_says_so_once_and_changes_nothing(stage):
    """Providers cannot be replaced, so that two tanks would both be fed."""
    notebook(
        stage,
        """
run(CELL)
first = tank
tank = surgetank.install(shutdown_timeout=1.0)
assert tank is first
""",
    )

    assert stage.ended() == 0
    assert stage.said().count("\n") == 1
    assert "the settings of the first" in stage.said()


def test_after_a_shutdown_an_install_begins_anew(stage):
    """With other settings, and everything that is made from then on."""
    notebook(
        stage,
        """
run(CELL)
work(0)
tank.shutdown()
first = tank
tank = surgetank.install(shutdown_timeout=4.0)
assert tank is not first
work(1)
""",
    )

    assert stage.ended() == 0
    stage.all_arrived(2)
