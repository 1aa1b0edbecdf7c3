"""Our warnings reach somebody: the application's handlers if there are any, else standard error."""

import logging
import subprocess
import sys
import textwrap

import pytest

import surgetank.lines  # noqa: F401  # installs the handler

PREAMBLE = """
import logging, logging.config, sys
import surgetank
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from surgetank.lines import say
root, ours = logging.getLogger(), logging.getLogger("surgetank")
telemetry = LoggingHandler(logger_provider=LoggerProvider())
"""
WARN = 'say(logging.getLogger("surgetank.delivery"), logging.WARNING, "outage at %s", "x")\n'
LINE = "surgetank: outage at x"


def errors(setup, program=WARN):
    """Return what a program of its own process writes to standard error."""
    program = PREAMBLE + textwrap.dedent(setup) + "\n" + program
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True)
    return done.stderr.splitlines()


@pytest.mark.slow
@pytest.mark.parametrize(
    "setup",
    [
        "",
        "root.addHandler(telemetry)",
        "ours.addHandler(telemetry)",
        "class Derived(LoggingHandler): pass\nroot.addHandler(Derived(logger_provider=LoggerProvider()))",
        "root.addHandler(logging.NullHandler()); root.handlers.clear()",
        "ours.propagate = False; root.addHandler(logging.StreamHandler())",
    ],
)
def test_a_warning_that_no_handler_shows_goes_to_standard_error(setup):
    """Once, however many handlers make telemetry of it."""
    assert errors(setup) == [LINE]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setup", "expected"),
    [
        ("logging.basicConfig(format='app: %(message)s'); root.addHandler(telemetry)", ["app: outage at x"]),
        ("ours.addHandler(logging.NullHandler()); root.addHandler(telemetry)", []),
        ("ours.setLevel(logging.ERROR); root.addHandler(telemetry)", []),
        ("root.addHandler(telemetry); sys.stderr = None", []),
    ],
)
def test_a_handler_of_the_applications_has_the_say(setup, expected):
    """What it shows, or is there to swallow, is not written a second time."""
    assert errors(setup) == expected


@pytest.mark.slow
def test_an_outage_is_told_where_auto_instrumentation_alone_has_configured_logging():
    """Its handler is the only one on the root logger; the line must not go into the outage alone."""
    found = errors(
        "root.addHandler(telemetry)",
        """
tank = surgetank.Tank(endpoint="http://127.0.0.1:9", handle_sigterm=False)
with_span = __import__("opentelemetry.sdk.trace", fromlist=["TracerProvider"]).TracerProvider(shutdown_on_exit=False)
with_span.add_span_processor(tank.span_processor)
with_span.get_tracer("app").start_span("work").end()
tank.shutdown(1.0)
""",
    )

    assert any(line.startswith("surgetank: shut down: spans offered 1") for line in found)


def test_what_is_no_warning_is_not_written(capsys):
    """As Python does it where no logging is configured."""
    logger = logging.getLogger("surgetank.quiet")
    handlers, logging.getLogger().handlers = logging.getLogger().handlers, []
    try:
        logger.setLevel(logging.INFO)
        logger.info("shut down: all is well")
        logger.warning("something is not")
    finally:
        logging.getLogger().handlers = handlers
        logger.setLevel(logging.NOTSET)

    assert capsys.readouterr().err == "surgetank: something is not\n"
