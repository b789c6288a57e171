"""Print how the source reads: function length, private helpers that are called once, comments, `Any`, late imports, cycles.

    python bench/code_metrics.py            # this tree
    python bench/code_metrics.py FOLDER     # another tree, such as a checkout of an older commit

Migrations, tests, bench/ and deploy/ are left out. A function's length counts the lines from `def` to its last statement.
"""

import ast
import statistics
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

LEFT_OUT = {"migrations", "tests", "testing", "bench", "deploy", "build", "conftest.py"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def source_files(root: Path) -> list[Path]:
    """Return the Python files of the product, without hidden folders such as a virtual environment."""
    files = (path.relative_to(root) for path in root.rglob("*.py"))
    return [
        root / f for f in sorted(files) if not LEFT_OUT & set(f.parts) and not any(p.startswith(".") for p in f.parts)
    ]


def functions_of(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def once_called(tree: ast.AST, functions: list[Function]) -> int:
    """Count private functions (one leading underscore) that their own module names exactly once."""
    names = Counter(
        node.attr if isinstance(node, ast.Attribute) else node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute | ast.Name)
    )
    private = [f.name for f in functions if f.name.startswith("_") and not f.name.startswith("__")]
    return sum(names[name] == 1 for name in private)


def comment_lines(path: Path) -> int:
    with tokenize.open(path) as file:
        return sum(token.type == tokenize.COMMENT for token in tokenize.generate_tokens(file.readline))


def any_parameters(functions: list[Function]) -> tuple[int, int]:
    """Return how many parameters are annotated `Any`, and how many there are. `*args` and `**kwargs` do not count."""
    arguments = [a for f in functions for a in [*f.args.posonlyargs, *f.args.args, *f.args.kwonlyargs]]
    arguments = [a for a in arguments if a.arg not in ("self", "cls")]
    return sum(isinstance(a.annotation, ast.Name) and a.annotation.id == "Any" for a in arguments), len(arguments)


def late_imports(functions: list[Function]) -> int:
    return len({n for f in functions for n in ast.walk(f) if isinstance(n, ast.Import | ast.ImportFrom)})


def import_cycles(root: Path, trees: dict[Path, ast.Module]) -> list[list[str]]:
    """Return the groups of modules that import each other, by Tarjan's strongly connected components."""
    modules = {".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path for path in trees}
    edges = {name: set(_imported(trees[path], name, path, modules)) - {name} for name, path in modules.items()}
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups = []

    def visit(name: str) -> None:
        order[name] = low[name] = len(order)
        stack.append(name)
        for other in edges[name]:
            if other not in order:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], order[other])
        if low[name] == order[name]:
            group = [stack.pop()]
            while group[-1] != name:
                group.append(stack.pop())
            groups.append(group)

    for name in edges:
        if name not in order:
            visit(name)
    return [group for group in groups if len(group) > 1]


def _imported(tree: ast.AST, name: str, path: Path, modules: dict[str, Path]) -> Iterator[str]:
    """Yield the project's modules that a module imports, also under TYPE_CHECKING and inside functions."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            for alias in node.names:
                target = f"{base}.{alias.name}"
                # the package that a module lies in is loaded anyway, so naming it as the door is no cycle of its own
                yield from (m for m in [target if target in modules else base] if m in modules and m != package)


def main(root: Path) -> None:
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in source_files(root)}
    functions = {path: list(functions_of(tree)) for path, tree in trees.items()}
    lengths = sorted((f.end_lineno or f.lineno) - f.lineno + 1 for fs in functions.values() for f in fs)
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in trees)
    single = sum(once_called(tree, functions[path]) for path, tree in trees.items())
    loose, parameters = map(sum, zip(*(any_parameters(fs) for fs in functions.values()), strict=True))
    figures = {
        "files": len(trees),
        "lines": lines,
        "functions": len(lengths),
        "function length, median": statistics.median(lengths),
        "function length, 90th percentile": lengths[int(len(lengths) * 0.9)],
        "function length, longest": lengths[-1],
        "private functions called once": f"{single} ({100 * single / len(lengths):.1f} % of all)",
        "comments": f"{100 * sum(map(comment_lines, trees)) / lines:.1f} % of lines",
        "parameters typed Any": f"{loose} ({100 * loose / parameters:.1f} %)",
        "imports inside functions": sum(map(late_imports, functions.values())),
        "groups of modules in an import cycle": len(import_cycles(root, trees)),
    }
    for name, value in figures.items():
        print(f"{name:40} {value}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if sys.argv[1:] else Path(__file__).parent.parent).resolve())
