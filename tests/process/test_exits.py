"""The ways in which a real process ends, and what arrives of what it had made."""

import time

import pytest

from process.programs import ended, heard, kill_all, own_sums, run, start, terminate, told, wait_until
from surgetank.testing import behaviour
from surgetank.testing.collector import Collector

pytestmark = pytest.mark.slow


@pytest.fixture
def collector():
    with Collector() as collector:
        yield collector
    kill_all()


def all_arrived(collector, count):
    report = collector.report()
    for signal in ("spans", "logs"):
        assert report[signal] == {"received": count, "unique": count, "duplicates": 0}, report
    assert own_sums(report) == {"work.done": count}, report


def test_a_script_that_simply_ends_loses_nothing(collector):
    """Neither shutdown nor flush is called; the exit hook does it."""
    code, _ = run("install(); work(0, 3000)", collector.endpoint)

    assert code == 0
    all_arrived(collector, 3000)


def test_a_script_that_dies_of_an_exception_loses_nothing(collector):
    """The telemetry of a crash is the most wanted."""
    process = start("install(); work(0, 100); sys.exit('boom')", collector.endpoint)

    code, _ = ended(process)

    assert code == 1
    all_arrived(collector, 100)


def test_sigterm_without_a_handler_loses_nothing_and_still_kills(collector):
    """Python would die at once, queue and all; the exit status stays -15."""
    process = start("install(); work(0, 3000); say(ready=1); idle()", collector.endpoint)
    heard(process)

    terminate(process)

    code, _ = ended(process)
    assert code == -15
    all_arrived(collector, 3000)


def test_sigterm_in_the_middle_of_the_work_never_deadlocks(collector):
    """The handler may interrupt an offer between any two of its steps."""
    process = start(
        """
        install()
        work(0, 10); say(ready=1)
        while True: work(0, 100)
        """,
        collector.endpoint,
    )
    heard(process)
    time.sleep(0.3)
    began = time.monotonic()

    terminate(process)

    code, _ = ended(process)
    assert code == -15
    assert time.monotonic() - began < 6.5


def test_a_sigterm_handler_of_the_applications_is_left_alone(collector):
    """It decides, and its exit runs our exit hook."""
    process = start(
        """
        signal.signal(signal.SIGTERM, lambda *_: (os.write(1, b'{"mine": 1}\\n'), sys.exit(7)))
        install(); work(0, 200); say(ready=1); idle()
        """,
        collector.endpoint,
    )
    heard(process)

    terminate(process)

    code, words = ended(process)
    assert code == 7
    assert words == [{"mine": 1}]
    all_arrived(collector, 200)


def test_the_handler_can_be_turned_off(collector):
    """Then SIGTERM is what it always was."""
    process = start("install(handle_sigterm=False); say(ready=1); idle()", collector.endpoint)
    heard(process)

    terminate(process)

    assert ended(process)[0] == -15


def test_sigterm_in_an_outage_keeps_the_deadline():
    """With nobody listening it takes the shutdown time and no more."""
    process = start(
        "install(); work(0, 2000); say(ready=1); idle()",
        "http://127.0.0.1:9",
        SURGETANK_SHUTDOWN_TIMEOUT="1.0",
    )
    heard(process)
    began = time.monotonic()

    terminate(process)

    assert ended(process)[0] == -15
    assert time.monotonic() - began < 2.0


def test_uvicorns_reraised_sigterm_loses_nothing(collector):
    """Uvicorn restores our handler after its graceful stop and raises the signal again."""
    pytest.importorskip("uvicorn")
    process = start(
        """
        import uvicorn
        install()
        async def app(scope, receive, send):
            if scope["type"] == "lifespan":
                while (await receive())["type"] != "lifespan.shutdown":
                    work(0, 500)
                    await send({"type": "lifespan.startup.complete"})
                    say(ready=1)
                work(500, 500)
                await send({"type": "lifespan.shutdown.complete"})
        uvicorn.run(app, host="127.0.0.1", port=0, log_level="critical")
        """,
        collector.endpoint,
    )
    heard(process)
    time.sleep(0.3)

    terminate(process)

    code, _ = ended(process)
    assert code in (-15, 0, 143)
    all_arrived(collector, 1000)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_children_lose_nothing(collector, method):
    """They leave by `os._exit`, which runs no exit hooks; ours runs all the same."""
    program = f"""
        import multiprocessing
        from process.children import child
        multiprocessing.set_start_method({method!r})
        if {method!r} == "fork":
            install()
        workers = [multiprocessing.Process(target=child, args=(n, {method!r})) for n in range(3)]
        for worker in workers: worker.start()
        for worker in workers: worker.join()
        say(codes=[worker.exitcode for worker in workers])
    """
    code, words = run(program, collector.endpoint)

    assert code == 0
    assert words == [{"codes": [0, 0, 0]}]
    all_arrived(collector, 300)


def test_an_outage_in_the_middle_loses_and_repeats_nothing(collector):
    """The collector goes away, comes back, and gets everything once."""
    process = start(
        """
        tank = install()
        for n in range(30):
            work(n * 100, 100); time.sleep(0.1)
            if n == 5:
                # What is in flight when the collector goes may arrive twice, and is not what this is about.
                tank.force_flush(10.0); say(now="down"); sys.stdin.readline()
            if n == 15: say(now="up")
        tank.shutdown(timeout=20.0)
        say(**books(tank))
        """,
        collector.endpoint,
        stdin=True,
    )
    assert heard(process) == {"now": "down"}
    collector.stop_listening()
    told(process)
    assert heard(process) == {"now": "up"}
    collector.listen_again()

    code, (books,) = ended(process)

    assert code == 0
    all_arrived(collector, 3000)
    for signal in books.values():
        assert signal["unaccounted"] == signal["queued"] == 0
        assert signal["dropped"] == {}


def test_503_with_retry_after_is_waited_out_and_everything_arrives(collector):
    """A receiver that asks for four seconds is not asked again before."""
    collector.behave(behaviour.status(503, retry_after="4"))
    process = start(
        "tank = install(); work(0, 100); sys.stdin.readline(); tank.shutdown(timeout=15.0)",
        collector.endpoint,
        stdin=True,
    )
    # Spans and logs, once each.
    assert wait_until(lambda: collector.requests_made >= 2, 10)
    time.sleep(1.0)
    assert collector.requests_made == 2
    collector.behave(behaviour.OK)
    told(process)

    assert ended(process)[0] == 0
    all_arrived(collector, 100)


def test_a_second_sigterm_does_not_cut_the_first_ones_shutdown_short(collector):
    """Supervisors signal a process and its group; what the first one began has a deadline of its own."""
    collector.behave(behaviour.slow(0.7))
    process = start("install(); work(0, 300); say(ready=1); idle()", collector.endpoint)
    heard(process)

    terminate(process)
    time.sleep(0.2)
    terminate(process)

    code, _ = ended(process)
    assert code == -15
    all_arrived(collector, 300)


def test_sigterm_in_the_middle_of_an_orderly_end_waits_for_it(collector):
    """The exit hook is under way, and then the process dies of the signal."""
    collector.behave(behaviour.slow(0.7))
    process = start(
        "import atexit; install(); work(0, 300); atexit.register(lambda: say(ending=1))", collector.endpoint
    )
    heard(process)
    time.sleep(0.2)

    terminate(process)

    code, _ = ended(process)
    assert code == -15
    all_arrived(collector, 300)


def test_a_shutdown_that_ctrl_c_interrupts_still_stores_what_it_can(collector, tmp_path):
    """Nobody waits for the endpoint any more, and what is in memory goes to disk at once."""
    collector.behave(behaviour.slow(30.0))
    code, (words,) = run(
        f"""
        spool = surgetank.SpoolConfig(dir={str(tmp_path / "spool")!r}, durability="memory")
        tank = surgetank.install(spool=spool, timing=surgetank.Timing(backoff_initial=0.1))
        work(0, 100)
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        began = time.monotonic()
        try:
            tank.shutdown(30.0)
        except KeyboardInterrupt:
            say(seconds=time.monotonic() - began, threads=[t.name for t in threading.enumerate()], **books(tank))
        """,
        collector.endpoint,
        SURGETANK_PERSISTENCE_ENABLED="true",
    )

    assert code == 0
    assert words["seconds"] < 3
    assert words["threads"] == ["MainThread"]
    for signal in ("spans", "logs"):
        assert words[signal]["spooled"] == words[signal]["offered"] == 100
        assert words[signal]["unaccounted"] == 0
