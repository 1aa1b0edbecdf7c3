"""Programs without a server, as their pages say: an event loop, a function that is frozen, a scheduler's threads."""

import os
import re
import signal

import pytest

from frameworks.stage import application

pytestmark = pytest.mark.slow

UNTIL = """
    import pathlib, time

    def until(name):
        while not pathlib.Path(name).exists():
            time.sleep(0.02)
"""


def in_an_outage(stage):
    """Take the collector away when the first half is there, have the program go on, and end it by SIGTERM."""
    stage.until(lambda: stage.collector.report()["logs"]["unique"] == 100)
    stage.collector.stop_listening()
    stage.write("go", "")
    stage.until((stage.folder / "done").exists)
    code = stage.terminate()
    stage.collector.listen_again()
    stage.drain()
    return code


def test_an_event_loop_is_not_held_up_by_an_outage_and_loses_nothing_to_a_sigterm_in_it(stage):
    """The longest that the loop stood still, while spans were made and nobody answered, is told at the end."""
    around = """
        import pathlib, signal, time

        async def watch(stalls):
            while True:
                began = time.monotonic()
                await asyncio.sleep(0.001)
                stalls.append(time.monotonic() - began - 0.001)

        async def main():
            ended = asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
            for n in range(100):
                work(n)
            while not pathlib.Path("go").exists():
                await asyncio.sleep(0.02)
            # A stall is the machine's, now and then: the least of three tries is ours.
            worst = []
            for part in range(3):
                stalls = []
                watching = asyncio.create_task(watch(stalls))
                for n in range(100 + part * 700, 100 + (part + 1) * 700):
                    work(n)
                    await asyncio.sleep(0.001)
                watching.cancel()
                worst.append(max(stalls))
            print(f"stalls {min(worst):.4f}", flush=True)
            pathlib.Path("done").touch()
            await ended.wait()

        asyncio.run(main())
    """
    stage.write("script.py", application("asyncio", around))
    stage.start("script.py")

    assert in_an_outage(stage) == 0

    assert float(re.search(r"stalls ([\d.]+)", stage.said())[1]) < 0.05
    stage.all_arrived(2200)


def test_a_function_that_is_frozen_between_calls_loses_nothing(stage):
    """Frozen right after a call's end, in the middle of an outage too; the call after the thaw delivers."""
    around = (
        UNTIL
        + """
    def answer(event):
        for n in range(event, event + 50):
            work(n)

    for number in range(4):
        until(f"call-{number}")
        handler(number * 50, None)
        pathlib.Path(f"answered-{number}").touch()
    until("never")
    """
    )
    stage.write("function.py", application("lambda", around))
    stage.start("function.py")
    for number in range(4):
        # The second call falls into an outage that begins while nobody looks, and the fourth again.
        if number % 2:
            stage.collector.stop_listening()
        os.kill(stage.process.pid, signal.SIGCONT)
        stage.write(f"call-{number}", "")
        stage.until((stage.folder / f"answered-{number}").exists)
        os.kill(stage.process.pid, signal.SIGSTOP)
        if number % 2:
            stage.collector.listen_again()
        else:
            assert stage.collector.report()["logs"]["unique"] == 50 * (number + (number == 0) + (number == 2))
    # The sandbox is taken away without ever being thawed.
    os.kill(stage.process.pid, signal.SIGKILL)
    assert stage.process.wait(10) == -signal.SIGKILL

    stage.drain()
    stage.all_arrived(200)


def test_a_scheduler_loses_nothing_to_a_sigterm_in_an_outage(stage):
    """Its jobs run on threads of its own, at their times, while the main thread sleeps."""
    around = (
        UNTIL
        + """
    import itertools, threading

    numbers = itertools.count()

    def job():
        with tracer.start_as_current_span("job"):
            for n in itertools.islice(numbers, 10):
                work(n)

    def schedule(runs):
        for _ in range(runs):
            timer = threading.Timer(0.01, job)
            timer.start()
            timer.join()

    def run(runs):
        scheduler = threading.Thread(target=schedule, args=(runs,), daemon=True)
        scheduler.start()
        scheduler.join()

    run(10)
    until("go")
    run(10)
    pathlib.Path("done").touch()
    until("never")
    """
    )
    stage.write("jobs.py", application("scheduler", around))
    stage.start("jobs.py")

    assert in_an_outage(stage) == -15

    stage.all_arrived(200)
