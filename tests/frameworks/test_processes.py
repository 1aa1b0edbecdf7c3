"""Pools and processes of the standard library, as their page says: SIGTERM to the parent in the middle of an outage."""

import pytest

from frameworks.stage import application

pytestmark = pytest.mark.slow

# Both halves, of 100 each, in processes of their own; told by files when to go on.
AROUND = """
    import concurrent.futures, multiprocessing, pathlib, signal, sys, time

    def chunk(first):
        for n in range(first, first + 50):
            work(n)

    def until(name):
        while not pathlib.Path(name).exists():
            time.sleep(0.02)

    def by_process(context):
        def half(first):
            children = [context.Process(target=chunk, args=(n,)) for n in range(first, first + 100, 50)]
            for child in children: child.start()
            for child in children: child.join()
        halves(half)

    def by_pool(context):
        with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
            halves(lambda first: list(pool.map(chunk, range(first, first + 100, 50))))

    def halves(half):
        half(0)
        pathlib.Path("half").touch()
        until("go")
        half(100)
        pathlib.Path("done").touch()
        until("never")

    if __name__ == "__main__":
        # With a handler of the application's own the pool is ended in order, and its workers with it.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
        globals()[sys.argv[1]](multiprocessing.get_context(sys.argv[2]))
"""


@pytest.mark.parametrize(
    ("way", "method"),
    [("by_process", "fork"), ("by_process", "forkserver"), ("by_process", "spawn"), ("by_pool", "spawn")],
)
def test_processes_lose_nothing_to_a_sigterm_in_an_outage(stage, way, method):
    """Those that ended before, those that ended in the outage, and those that the parent's end ends."""
    stage.write("program.py", application("processes", AROUND))
    stage.start("program.py", way, method)
    stage.until((stage.folder / "half").exists)
    stage.collector.stop_listening()
    stage.write("go", "")
    stage.until((stage.folder / "done").exists)

    assert stage.terminate() == 3

    stage.collector.listen_again()
    stage.drain()
    stage.all_arrived(200)
