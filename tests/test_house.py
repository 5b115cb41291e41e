"""The house keeps its own rules: floors, sizes, docstrings, the captioned tree of the README.

`python tests/test_house.py` rewrites the tree in the README from the files' own first lines.
"""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
FILES = sorted(p for d in ("pivot", "video_prep") for p in (ROOT / d).rglob("*.py"))
NAMES = [str(p.relative_to(ROOT)) for p in FILES]

# Longest match wins. A module imports only from lower floors or from its own folder.
FLOORS: dict[str, float] = {
    "video_prep": 0,
    "pivot.errors": 0,
    "pivot.settings": 0,
    "pivot.config": 1,
    "pivot.metrics": 1,
    "pivot.audio": 1,
    "pivot.encoders": 1.5,
    "pivot.runs": 2,
    "pivot.model": 2,
    "pivot.model_folder": 2,
    "pivot.data": 2,
    "pivot.world": 2,
    "pivot.embeddings": 3,
    "pivot.training": 4,
    "pivot.mining": 4,
    "pivot.writing": 4.2,
    "pivot.released": 3,
    "pivot.evaluation.retrieval": 3.5,
    "pivot.evaluation.zero_shot": 3.5,
    "pivot.evaluation": 5,
    "pivot.evaluation.report": 5.4,
    "pivot.evaluation.scaling": 5.2,
    "pivot.classification": 5,
    "pivot.reproduce": 6,
    "pivot.bench": 5,
    "pivot.world.demo": 6,
    "pivot.world.stages": 5,
    "pivot.world.jobs": 5,
    "pivot.world.collect": 6,
    "pivot.world.train_clip": 5,
    "pivot.world.trainings": 5,
    "pivot.world.train_writer": 5,
    "pivot.world.siblings": 5,
    "pivot.world.sibling_jobs": 5,
    "pivot.world.label_sets": 5,
    "pivot.world.sibling_results": 6,
    "pivot.cli": 7,
    "pivot.__main__": 7,
    "pivot": 7,
}


def module_of(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


def floor_of(module: str) -> float:
    while module not in FLOORS:
        module = module.rpartition(".")[0]
    return FLOORS[module]


def imports_of(path: Path) -> set[str]:
    """Modules of this project that a file imports anywhere, TYPE_CHECKING blocks aside."""
    tree = ast.parse(path.read_text())
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                place = ROOT / whole.replace(".", "/")
                inner = place.with_suffix(".py").exists() or place.is_dir()
                found.add(whole if inner else node.module)
    return {m for m in found if m.split(".")[0] in {"pivot", "video_prep"} and m != "pivot"}


def functions(tree: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_imports_point_down(path: Path) -> None:
    module = module_of(path)
    for other in imports_of(path):
        same_folder = module.rpartition(".")[0] == other.rpartition(".")[0] or other.startswith(
            f"{module}."
        )
        down = floor_of(other) < floor_of(module)
        own = same_folder and floor_of(other) == floor_of(module)
        ground = floor_of(other) == 0 and not module.startswith("video_prep")
        own |= module.startswith("video_prep.") and other.startswith("video_prep.")
        assert down or own or ground, f"{module} (floor {floor_of(module)}) imports {other}"


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_sizes(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 300
    for function in functions(ast.parse(text)):
        length = (function.end_lineno or 0) - function.lineno + 1
        assert length <= 60, f"{path.name}: {function.name} has {length} lines"


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_docstrings_and_annotations(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), f"{path} has no docstring"
    for function in functions(tree):
        if function.name.startswith("_"):
            continue
        assert function.returns, f"{path.name}: {function.name} has no return annotation"
        for argument in [*function.args.args, *function.args.kwonlyargs]:
            assert argument.annotation or argument.arg in {"self", "cls"}, (
                f"{path.name}: {function.name}({argument.arg}) is not annotated"
            )


def test_words() -> None:
    """One word for each thing: encoder, never tower; no folder of odds and ends."""
    for path in FILES:
        assert path.stem not in {"utils", "helpers", "common", "misc"}
        assert not re.search(r"\btowers?\b", path.read_text(), re.I), f"{path} says tower"


def test_public_names_load() -> None:
    import pivot

    assert pivot.__all__ == sorted(pivot.__all__)
    for name in pivot.__all__:
        assert getattr(pivot, name).__module__.startswith("pivot.")


def caption(path: Path) -> str:
    doc = ast.get_docstring(ast.parse(path.read_text())) or ""
    return doc.splitlines()[0].rstrip(".") if doc else ""


def tree() -> str:
    """The captioned tree: each folder and file of the package with its own first line."""
    lines = []
    for top in (ROOT / "video_prep", ROOT / "pivot"):
        for folder in (top, *sorted({path.parent for path in top.rglob("*.py")} - {top})):
            depth = len(folder.relative_to(top).parts)
            name = "  " * depth + folder.name + "/"
            lines.append(f"{name:<26}{caption(folder / '__init__.py')}".rstrip())
            for path in sorted(folder.glob("*.py")):
                if caption(path) and path.name != "__init__.py":
                    name = "  " * (depth + 1) + path.name
                    lines.append(f"{name:<26}{caption(path)}")
    return "\n".join(lines)


def test_readme_tree_is_true() -> None:
    assert tree() in README.read_text(), "run `python tests/test_house.py` to rewrite the tree"


def shell_lines() -> list[str]:
    blocks = re.findall(r"```(?:bash|sh|console)\n(.*?)```", README.read_text(), re.S)
    text = "\n".join(blocks).replace("\\\n", " ")
    return [line.strip() for line in text.splitlines() if line.strip()]


def test_readme_has_two_set_up_commands() -> None:
    assert sum("-m venv" in line for line in shell_lines()) == 2


def test_readme_commands_are_valid() -> None:
    """Every `pivot ...` line of the README parses with the command's own settings."""
    import shlex

    from pivot import cli, config

    commands = [line for line in shell_lines() if line.startswith("pivot ")]
    seen = set()
    for line in commands:
        name, argv = cli.command_of(shlex.split(line, comments=True)[1:])
        seen.add(name)
        argv = [str(ROOT / a) if a.startswith("configs/") else a for a in argv]
        config.load(cli._find(cli.COMMANDS[name].settings), argv, f"pivot {name}")
    assert seen == set(cli.COMMANDS)


def test_configs_are_valid() -> None:
    """Every file in configs opens with its command, or is the base of one, and is read by it."""
    import shlex

    from pivot import cli, config

    files = sorted((ROOT / "configs").rglob("*.yaml"))
    assert files
    bases = {
        (file.parent / name).resolve()
        for file in files
        for name in re.findall(r"^base: *(\S+)", file.read_text(), re.M)
    }
    for file in files:
        first = file.read_text().splitlines()[0].removeprefix("# ")
        relative = str(file.relative_to(ROOT))
        if file in bases and first.startswith("Base of "):
            continue  # a part of commands, read wherever it is named
        assert first.startswith("pivot ") and relative in first, f"{relative}: {first}"
        _, name, *argv = shlex.split(first)
        argv = [str(file) if a == relative else a for a in argv]
        config.load(cli._find(cli.COMMANDS[name].settings), argv, f"pivot {name}")


def test_nothing_of_this_machine_is_committed() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".yaml", ".json", ".txt", ""} and path.is_file():
            text = path.read_text(errors="replace")
            assert not re.search(r"/work/\w+|/root/", text) or path == Path(__file__), (
                f"{name} names a path of one machine"
            )


if __name__ == "__main__":
    old = README.read_text()
    README.write_text(
        re.sub(r"(```text\n)video_prep/.*?(\n```)", rf"\1{tree()}\2", old, flags=re.S)
    )
