"""Consistent probability sampling: what tracestates say, and what is written into them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import TraceState

from surgetank.otlp.probability import (
    RANDOMNESS,
    THRESHOLD_MAX,
    sub_keys,
    thinned,
    threshold_of_one_in,
    threshold_text,
)

QUARTER = threshold_of_one_in(2)
HIGH, LOW = RANDOMNESS, 1
FULL = {f"vendor{number}": "x" for number in range(32)}


@pytest.mark.parametrize(
    ("threshold", "text"),
    [
        (0, "0"),
        (threshold_of_one_in(1), "8"),
        (threshold_of_one_in(2), "c"),
        (threshold_of_one_in(5), "f8"),
        (threshold_of_one_in(10), "ffc"),
        (0xFD70A400000000, "fd70a4"),
        (1, "00000000000001"),
    ],
)
def test_a_threshold_is_written_without_trailing_zeros(threshold, text):
    """And read back as it was."""
    assert threshold_text(threshold) == text
    assert int(text.ljust(14, "0"), 16) == threshold


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"ot": "th:c"}),
        ({"congo": "t61"}, {"ot": "th:c", "congo": "t61"}),
        ({"congo": "t61", "ot": "th:8", "rojo": "1"}, {"ot": "th:c", "congo": "t61", "rojo": "1"}),
        ({"ot": "th:0"}, {"ot": "th:c"}),
        ({"ot": "rv:ffffffffffffff"}, {"ot": "rv:ffffffffffffff;th:c"}),
        ({"ot": "th:8;rv:c0000000000000"}, {"ot": "th:c;rv:c0000000000000"}),
        ({"ot": "p:8;th:4;x1:a.b-c_D"}, {"ot": "p:8;th:c;x1:a.b-c_D"}),
        ({"ot": ""}, {"ot": "th:c"}),
        ({"ot": "nonsense"}, {"ot": "th:c"}),
        ({"ot": ";;th:;rv:12;K:1;k:1"}, {"ot": "k:1;th:c"}),
        ({"ot": "th:xyz;rv:gggggggggggggg"}, {"ot": "th:c"}),
        ({"ot": "th:123456789012345"}, {"ot": "th:c"}),
        ({"ot": "k:1;k:2"}, {"ot": "k:1;th:c"}),
        ({"ot": 7}, {"ot": "th:c"}),
        ({"ot": f"k:{'a' * 250};rv:fffffffffffffe"}, {"ot": "rv:fffffffffffffe;th:c"}),
        (FULL, {"ot": "th:c", **dict(list(FULL.items())[:31])}),
        ({**FULL, "ot": "th:8"}, {"ot": "th:c", **dict(list(FULL.items())[:31])}),
    ],
)
def test_a_threshold_is_merged_into_what_others_have_written(before, after):
    """Ours first, the others as they were; what is malformed goes."""
    kept = thinned(HIGH, before, QUARTER)

    assert kept == after
    assert list(kept) == list(after)


@pytest.mark.parametrize("value", ["th:c", "th:d", "th:ffc;rv:00000000000000", "k:1;th:C"])
def test_who_has_passed_as_much_before_passes_as_they_are(value):
    """A threshold can be raised, never lowered; nor is it asked twice."""
    before = {"congo": "1", "ot": value}

    assert thinned(LOW, before, QUARTER) is before


def test_explicit_randomness_wins_over_the_trace_id():
    """Whoever wrote it knows that the trace id is not random."""
    assert thinned(HIGH, {"ot": "rv:00000000000000"}, QUARTER) is None
    assert thinned(LOW, {"ot": "rv:ffffffffffffff"}, QUARTER) is not None


@given(trace_id=st.integers(0, 2**128 - 1), threshold=st.integers(1, THRESHOLD_MAX - 1))
def test_a_trace_is_kept_exactly_when_its_randomness_is_not_below_the_threshold(trace_id, threshold):
    """The specification's one rule; two samplers in a row are as the stricter one."""
    first = thinned(trace_id, {}, threshold)

    assert (first is not None) == (trace_id % 2**56 >= threshold)
    if first is not None:
        stricter = threshold + (THRESHOLD_MAX - threshold) // 2
        assert thinned(trace_id, first, stricter) == thinned(trace_id, {}, stricter)


@given(st.dictionaries(st.sampled_from(["ot", "a", "b@c"]), st.text(max_size=300) | st.none() | st.integers()))
def test_no_value_of_others_makes_ours_invalid(before):
    """The SDK's own reading of it finds the threshold."""
    after = thinned(HIGH, before, QUARTER)

    if after is not None and after is not before:
        assert len(after["ot"]) <= 256
        assert TraceState([("ot", after["ot"])]).get("ot") == after["ot"]
        assert sub_keys(after["ot"])["th"] == "c"
