"""What OpenTelemetry keeps private is named in two modules and nowhere else (docs/decisions/0015)."""

from otel.names import FOREIGN, SHIMS, defined, imports_opentelemetry, modules, of_others, of_self, private_imports

TREES = modules()
OTHERS = {path: tree for path, tree in TREES.items() if path not in SHIMS}
OURS = set().union(*(defined(tree) for tree in OTHERS.values()))


def places(found, path):
    return [f"{path}:{line} {name}" for name, line in sorted(found)]


def test_only_the_shims_import_what_is_private():
    """The log signal's modules count, which OpenTelemetry calls private until they are stable."""
    found = [place for path, tree in OTHERS.items() for place in places(private_imports(tree), path)]

    assert found == []


def named(tree):
    """Return all private names that are looked up, on whatever."""
    return {(name.removeprefix("super()."), line) for name, line in of_others(tree) | of_self(tree)}


def of_the_rest(tree):
    """Return the names on others that a method of ours, called by `super()`, does not explain."""
    return {
        (name, line) for name, line in of_others(tree) if name.removeprefix("super().") == name or name[8:] not in OURS
    }


def test_a_module_that_knows_opentelemetry_looks_up_nothing_private_of_others():
    """Whatever it is called: an object that it holds may be OpenTelemetry's. What `super()` leads to must be ours."""
    found = [
        place
        for path, tree in OTHERS.items()
        if imports_opentelemetry(tree)
        for place in places(of_the_rest(tree), path)
    ]

    assert found == []


def test_every_other_private_name_is_known_to_be_somebody_elses_or_ours():
    """Objects of the SDK get everywhere: on them such a name would be looked up without any import."""
    found = [
        place
        for path, tree in OTHERS.items()
        for place in places({each for each in named(tree) if each[0] not in OURS | FOREIGN}, path)
    ]

    assert found == []


def test_the_walk_sees_what_there_is_to_see():
    """Or the tests above would say nothing."""
    shim, sdk = (TREES[path] for path in SHIMS)

    assert private_imports(shim)
    assert {"_reader_storages", "_client", "_preferred_temporality"} <= {name for name, _ in of_others(shim)}
    assert {"_kind", "_value_", "_attributes", "_dict", "_dq"} <= {name for name, _ in of_others(sdk)}
    assert not imports_opentelemetry(sdk)
