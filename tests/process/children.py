"""What the children of `test_exits.test_multiprocessing_children_lose_nothing` run; importable, for spawn."""


def child(number, method):
    """Make a hundred spans, logs and counts, and return without a word."""
    scope = {}
    from process.programs import PREAMBLE

    exec(PREAMBLE, scope)
    if method != "fork":
        scope["install"]()
    scope["work"](number * 100, 100)
