"""The end of a process in which no thread can be started any more, as at every interpreter's end since CPython 3.12."""

import os
import shutil
import signal
import subprocess
import sys

import pytest
from opentelemetry.sdk.trace import TracerProvider

from fakes.requests import span
from fakes.tanks import stepped_tank
from process.programs import kill_all, run
from surgetank import lifecycle, threads
from surgetank.model import Signal
from surgetank.otlp.spans import snapshot
from surgetank.testing.collector import Collector


@pytest.fixture
def no_more_threads(monkeypatch):
    """As CPython puts it."""

    def start(*_, **__):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threads, "start", start)


@pytest.fixture
def killed(monkeypatch):
    """What the process was sent, in place of its being sent."""
    sent = []
    monkeypatch.setattr(os, "kill", lambda _, number: sent.append(number))
    return sent


@pytest.fixture
def entered():
    """A tank whose change the calling thread is in the middle of, as a signal handler or a destructor finds it."""
    tank, received = stepped_tank()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(tank.span_processor)
    provider.get_tracer("app").start_span("x").end()
    lock = tank._pipelines[Signal.SPANS]._buffer._lock
    lock.acquire()
    yield tank, received, lock.release
    if lock._is_owned():
        lock.release()
    tank.shutdown()


def test_a_sigterm_that_cannot_be_sent_again_by_a_thread_comes_after_the_shutdown(no_more_threads, killed, entered):
    """Nothing is raised into what it interrupted, and the exit hook, which is due, ends the tank first."""
    tank, received, leave = entered
    lifecycle._living.clear()
    lifecycle._living.add(tank)

    lifecycle._on_sigterm(signal.SIGTERM, None)
    assert killed == []
    leave()
    lifecycle._end_all()

    assert killed == [signal.SIGTERM]
    assert len(received.spans()) == 1


@pytest.mark.parametrize("ask", [lambda tank: tank.shutdown(), lambda tank: tank.span_processor.shutdown()])
def test_a_shutdown_that_cannot_have_a_thread_is_left_to_the_exit_hook(ask, no_more_threads, entered):
    """Nothing is raised into the application's handler or destructor; nothing is lost."""
    tank, received, leave = entered

    assert not ask(tank)
    leave()
    lifecycle._end_all()

    assert tank.is_shut_down
    assert len(received.spans()) == 1


@pytest.mark.slow
def test_a_sigterm_in_the_middle_of_a_change_at_the_interpreters_end_loses_nothing():
    """In a real process, whose application still works in an exit hook of its own."""
    with Collector() as collector:
        try:
            code, _ = run(
                """
                import atexit
                tank = install()
                def late():
                    work(0, 100)
                    with tank._pipelines[surgetank.Signal.SPANS]._buffer._lock:
                        os.kill(os.getpid(), signal.SIGTERM)
                        time.sleep(0.1)
                    work(100, 100)
                atexit.register(late)
                """,
                collector.endpoint,
            )
        finally:
            kill_all()

        assert code == -15
        for each in ("spans", "logs"):
            # The signal comes again somewhere in the second hundred, where threads can still be started, and after it elsewhere.
            assert 100 <= collector.report()[each]["unique"] <= 200


def test_the_first_process_of_a_container_lives_on_after_a_sigterm_and_so_does_its_tank(killed, monkeypatch):
    """The kernel does not end it by a signal that it has no handler of its own for; what it held is delivered."""
    tank, received = stepped_tank()
    monkeypatch.setattr(lifecycle, "_living", [tank])
    monkeypatch.setattr(os, "getpid", lambda: 1)
    tank._pipelines[Signal.SPANS].offer(snapshot(span(0)))

    lifecycle._on_sigterm(signal.SIGTERM, None)

    assert len(received.spans()) == 1
    assert not tank.is_shut_down
    assert killed == []


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("unshare") is None,
    reason="only root makes a name space of process ids",
)
def test_a_real_first_process_delivers_on_sigterm_and_goes_on(tmp_path):
    """As in a container without an init."""
    (tmp_path / "app.py").write_text(FIRST_PROCESS)
    with Collector() as collector:
        done = subprocess.run(
            [
                "unshare",
                "--pid",
                "--fork",
                "--kill-child",
                sys.executable,
                str(tmp_path / "app.py"),
                collector.endpoint,
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if "unshare" in done.stderr:
            pytest.skip(f"no name spaces here: {done.stderr.strip()}")
        assert done.stdout.split() == ["1", "lives", "2"], done.stderr
        assert collector.report()["spans"]["unique"] == 2


FIRST_PROCESS = """
import os, signal, sys
import surgetank
from opentelemetry.sdk.trace import TracerProvider

tank = surgetank.Tank(endpoint=sys.argv[1], persistence_enabled=False)
provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(tank.span_processor)
tracer = provider.get_tracer("app")
tracer.start_span("x").end()
os.kill(os.getpid(), signal.SIGTERM)
print(tank.stats().spans.delivered, "lives")
tracer.start_span("y").end()
tank.shutdown()
print(tank.stats().spans.delivered)
"""
