"""Tanks in subinterpreters, and in threads that are not the main one: no signal handler, everything else."""

import signal
import sys

import pytest

from process.programs import ended, heard, kill_all, run, start, terminate
from surgetank.testing.collector import Collector

pytestmark = pytest.mark.slow

# Those that share the GIL exist in all versions. CPython 3.13 is the first in whose isolated ones the SDK can be imported.
KINDS = ["legacy", *(["isolated"] if sys.version_info >= (3, 13) else [])]

INSIDE = """
import faulthandler, sys, textwrap
faulthandler.enable()
def inside(kind, program):
    program = "import traceback\\ntry:\\n" + textwrap.indent(textwrap.dedent(program), "    ")
    program += "\\nexcept BaseException: traceback.print_exc()"
    if sys.version_info >= (3, 13):
        import _interpreters as interpreters
        own = interpreters.create(kind)
    else:
        import _xxsubinterpreters as interpreters
        own = interpreters.create(isolated=kind == "isolated")
    interpreters.run_string(own, program)
    interpreters.destroy(own)
"""

TANK = """
    import os, signal
    import surgetank
    from opentelemetry.sdk.trace import TracerProvider
    tank = surgetank.Tank()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(tank.span_processor)
    for n in range(300):
        provider.get_tracer("t").start_span("s", attributes={"n": n}).end()
"""


@pytest.fixture
def collector():
    with Collector() as collector:
        yield collector
    kill_all()


SHUT_DOWN = "assert tank.shutdown(timeout=5.0)"
# Before CPython 3.12 a subinterpreter refuses to end, and aborts at the end of the process, while anybody's threads run in it.
ENDS = {"shut down": SHUT_DOWN}
if sys.version_info >= (3, 12):
    ENDS |= {"flushed": "assert tank.force_flush(5.0)", "left alone": "pass"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
def test_a_tank_in_a_subinterpreter_delivers(collector, kind, end):
    """Whoever ends it: the application, or the interpreter's own end."""
    code, _ = run(f"{INSIDE}\ninside({kind!r}, '''{TANK}    {end}\n''')", collector.endpoint)

    assert code == 0
    assert collector.report()["spans"] == {"received": 300, "unique": 300, "duplicates": 0}


@pytest.mark.parametrize("kind", KINDS)
def test_sigterm_finds_the_main_interpreters_tank_beside_one_in_a_subinterpreter(collector, kind):
    """Python delivers signals to the main interpreter only, so the other one's tank leaves its disposition alone."""
    process = start(
        f"""{INSIDE}
inside({kind!r}, '''{TANK}
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    {SHUT_DOWN}
''')
install(); work(1000, 200); say(handler=signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL); idle()
""",
        collector.endpoint,
    )

    assert heard(process) == {"handler": True}
    terminate(process)
    assert ended(process)[0] == -signal.SIGTERM
    assert collector.report()["spans"] == {"received": 500, "unique": 500, "duplicates": 0}


def test_a_tank_made_in_another_thread_installs_no_handler_and_delivers(collector):
    """Python takes handlers from the main thread only; the exit hook ends the tank."""
    code, words = run(
        """
        def main():
            install(); work(0, 300)
            say(handler=signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL)
        thread = threading.Thread(target=main)
        thread.start(); thread.join()
        """,
        collector.endpoint,
    )

    assert (code, words) == (0, [{"handler": False}])
    assert collector.report()["spans"] == {"received": 300, "unique": 300, "duplicates": 0}
