"""Real threads beneath gevent's: found whatever was patched when, and joined without `threading`."""

import signal
import subprocess
import sys
import threading

import pytest

from surgetank.threads import Bell, Gate, are_greenlets, start


def test_a_gate_lets_everybody_pass_once_it_is_open():
    """Those who wait, one after the other, and those who come later."""
    gate, passed = Gate(), []
    waiting = [start(lambda: passed.append(gate.wait(30.0)), "waiting") for _ in range(3)]

    assert not gate.wait(0.0)
    gate.open()
    gate.open()

    for thread in waiting:
        thread.join(30.0)
    assert passed == [True, True, True]
    assert gate.wait(0.0)


def test_without_gevent_threads_are_pythons_own():
    """With the names by which profilers and debuggers know them."""
    names = []
    start(lambda: names.append(threading.current_thread().name), "surgetank-test").join(30.0)

    assert names == ["surgetank-test"]
    assert not are_greenlets()


@pytest.mark.slow
@pytest.mark.parametrize("patch", ["before", "after"])
def test_under_gevent_a_thread_of_ours_runs_while_the_hub_stands_still(patch):
    """Whether gevent patches before or after we are imported."""
    pytest.importorskip("gevent")
    patching = "from gevent import monkey; monkey.patch_all()"
    program = f"""
{patching if patch == "before" else "import gevent.monkey"}
from surgetank import threads
{patching if patch == "after" else ""}
assert threads.are_greenlets()
gate, done = threads.Gate(), threads.Gate()
def run():
    threads.sleep(0.01)
    gate.wait(30.0)
    done.open()
thread = threads.start(run, "one")
assert thread.is_alive()
gate.open()
# The only greenlet waits in the operating system, so that no other could run.
assert done.wait(30.0)
thread.join(30.0)
assert not thread.is_alive()
lock = threads.new_rlock()
with lock:
    assert lock._is_owned()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stderr


OUTLASTED = """
import signal, time
from surgetank.threads import Bell, Gate

signal.signal(signal.SIGALRM, lambda *_: time.sleep(0.3))
for thing in (Gate(), Bell()):
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    began = time.monotonic()
    assert not thing.wait(0.1)
    assert time.monotonic() - began < 2
print("both ended")
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there are no such signals here")
def test_a_signal_handler_that_outlasts_a_wait_does_not_make_it_last_for_ever():
    """A flush on the main thread keeps its deadline, but for what the application's handler takes."""
    done = subprocess.run([sys.executable, "-c", OUTLASTED], capture_output=True, text=True, timeout=20, check=False)
    assert done.stdout == "both ended\n", done.stderr


def test_rings_before_anybody_listens_are_one():
    bell = Bell()
    for _ in range(3):
        bell.ring()
    assert bell.wait(0)
    assert not bell.wait(0)
    bell.ring()
    assert bell.wait(0)
