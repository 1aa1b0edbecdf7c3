"""The tank that all doors of a process share."""

import logging
import threading

import pytest

from surgetank import Signal, process
from surgetank.otel.mapping import tank_settings
from surgetank.tank import Tank


@pytest.fixture(autouse=True)
def _no_tank_yet(monkeypatch):
    monkeypatch.setattr(process, "_first", None)
    monkeypatch.setattr(process, "_by_mapping", {})
    monkeypatch.setattr(process, "Tank", lambda **settings: Tank(**settings, is_threaded=False))


def tank_for(**mapping):
    return process.shared_for(mapping, tank_settings(mapping)).tank


def test_whoever_asks_gets_the_same():
    """From any thread."""
    found = []
    threads = [threading.Thread(target=lambda: found.append(process.shared({}))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(found)) == 1


def test_settings_that_come_too_late_are_named(caplog):
    """The tank that there is keeps its own."""
    first = process.shared({"timeout": 3.0})

    with caplog.at_level(logging.WARNING, "surgetank"):
        assert process.shared({"endpoint": "http://secret:4318"}) is first

    assert "without effect: endpoint" in caplog.text
    assert "secret" not in caplog.text


def test_a_tank_that_was_shut_down_is_not_given_out_again():
    """A program may end telemetry, and begin anew."""
    first = process.shared({})
    first.tank.shutdown()

    second = process.shared({})

    assert second is not first
    assert second.claim(Signal.SPANS)


def test_a_signal_is_wired_by_the_first_who_asks():
    """The second would send everything twice."""
    shared = process.shared({})

    assert [shared.claim(Signal.SPANS), shared.claim(Signal.SPANS), shared.claim(Signal.LOGS)] == [True, False, True]


def test_equal_mappings_share_a_tank_and_others_do_not():
    """Whatever the order of their keys; that is how a file's exporters come to one."""
    first = tank_for(max_size=7, endpoint="http://a:1")

    assert tank_for(endpoint="http://a:1", max_size=7) is first
    assert tank_for(endpoint="http://b:1", max_size=7) is not first


def test_an_empty_mapping_and_install_share_the_first():
    """So that the settings need be written once only, and the books can be had."""
    first = tank_for(max_size=7)

    assert tank_for() is first
    assert process.shared({}).tank is first
