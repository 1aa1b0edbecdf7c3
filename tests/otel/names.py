"""Which private names a module of ours names that are not its own: read from the source, without running it."""

import ast
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "surgetank"
# The two modules that may (docs/decisions/0015-…): what is done to the SDK, and how its objects are read.
SHIMS = ("otel/shim.py", "otlp/sdk.py")
# Not OpenTelemetry's: the standard library's that are documented or have no other name, and one of urllib3's connections'.
FOREIGN = {"_replace", "_make", "_fields", "_is_owned", "_getframe", "_get_running_loop", "_dns_host"}
_BY_NAME = ("getattr", "hasattr", "setattr", "delattr", "attrgetter", "methodcaller")


def modules():
    """Return the syntax trees of all our modules, by their paths below the package."""
    return {
        path.relative_to(SOURCE).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(SOURCE.rglob("*.py"))
    }


def is_private(name):
    """Whether a name has one underscore in front: two are Python's own."""
    return name.startswith("_") and not name.startswith("__")


def defined(tree):
    """Return the private names that a module makes itself."""
    found = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Store()):
                found.add(name)
            case ast.Name(id=name, ctx=ast.Store()):
                found.add(name)
    return {name for name in found if is_private(name)}


def imports_opentelemetry(tree):
    """Whether a module imports anything of OpenTelemetry."""
    return any(name.split(".")[0] == "opentelemetry" for name, _ in _imported(tree))


def private_imports(tree):
    """Return what a module imports of OpenTelemetry that is private, or below something private, with its lines."""
    return {
        (name, line)
        for name, line in _imported(tree)
        if name.startswith("opentelemetry.") and any(is_private(part) for part in name.split("."))
    }


def _imported(tree):
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from ((alias.name, node.lineno) for alias in names)
            case ast.ImportFrom(module=str(module), level=0, names=names):
                yield from ((f"{module}.{alias.name}", node.lineno) for alias in names)


def of_others(tree):
    """Return the private names that a module looks up on something else than `self`, or by a string, with their lines."""
    found = set()
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                pass
            case ast.Attribute(value=ast.Call(func=ast.Name(id="super")), attr=name):
                found.add((f"super().{name}", node.lineno))
            case ast.Attribute(attr=name):
                found.add((name, node.lineno))
            case ast.Call(func=ast.Name(id=called), args=arguments) if called in _BY_NAME or called == "_fields_of":
                texts = [each.value for each in arguments if isinstance(each, ast.Constant) and type(each.value) is str]
                found |= {(part, node.lineno) for text in texts for part in text.split(".")}
    return {(name, line) for name, line in found if is_private(name.removeprefix("super()."))}


def of_self(tree):
    """Return the private names that a module looks up on `self`, with their lines."""
    return {
        (node.attr, node.lineno)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in ("self", "cls")
        and is_private(node.attr)
    }
