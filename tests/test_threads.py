"""Real threads beneath gevent's: found whatever was patched when, and joined without `threading`."""

import subprocess
import sys
import threading

import pytest

from surgetank.threads import Gate, are_greenlets, start


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
