"""The plan of the house, enforced: which module may know which, and what the library never does."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

FLOORS: dict[str, int] = {
    **dict.fromkeys(("errors", "config", "extras", "labels", "geometry", "volume"), 0),
    **dict.fromkeys(("io", "networks", "losses", "metrics", "morphology", "pictures"), 1),
    **dict.fromkeys(("tracking", "reproducibility", "devices", "backends"), 1),
    **dict.fromkeys(("postprocessing", "data"), 2),
    **dict.fromkeys(("inference",), 3),
    **dict.fromkeys(("training", "evaluation", "archive", "reports"), 4),
    **dict.fromkeys(("experiment",), 5),
    **dict.fromkeys(("trained_model", "export", "planning"), 6),
}
# Arrows within a floor. The words of floor 0 build on one another; elsewhere parts of one floor are strangers.
NEIGHBOURS = {("losses", "morphology"), ("metrics", "morphology")}
NAMELESS = {"utils", "util", "helpers", "helper", "manager", "handler", "misc", "common"}
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal"}
LONGEST = 400  # lines of a module


@dataclass(frozen=True)
class Module:
    """One source file, its dotted name, and every module that it imports, lazily or not.

    `imports` counts what only annotations need (`if TYPE_CHECKING:`), which is knowledge too; `needs`, for cycles, does
    not: a config may build the module whose annotations name the config.
    """

    name: str
    path: Path
    tree: ast.Module
    lines: int
    imports: frozenset[str]
    needs: frozenset[str]

    @property
    def part(self) -> str:
        """The room: `networks` for medseg.networks.unets.unet, "" for medseg itself."""
        return self.name.split(".")[1] if "." in self.name else ""

    @property
    def program(self) -> str:
        return self.name.split(".")[0]


def read_modules(root: Path, *packages: str) -> dict[str, Module]:
    """Every module of the packages below `root`, by its dotted name."""
    paths = [path for package in packages for path in sorted((root / package).rglob("*.py"))]
    names = {_dotted(root, path): path for path in paths}
    modules = {}
    for name, path in names.items():
        source = path.read_text(encoding="utf-8")
        tree = ast.parse(source, filename=str(path))
        is_package = path.name == "__init__.py"
        imports = frozenset(_imports(ast.walk(tree), name, is_package, set(names))) - {name}
        needs = frozenset(_imports(_walk_at_run_time(tree), name, is_package, set(names))) - {name}
        modules[name] = Module(name, path, tree, len(source.splitlines()), imports, needs)
    return modules


def _dotted(root: Path, path: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _walk_at_run_time(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but those below `if TYPE_CHECKING:`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            yield from (below for other in node.orelse for below in (other, *_walk_at_run_time(other)))
        else:
            yield node
            yield from _walk_at_run_time(node)


def _imports(nodes: Iterable[ast.AST], name: str, is_package: bool, known: set[str]) -> Iterator[str]:
    """Absolute names of the imported modules; `from a import b` counts as a.b where that is a module."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = name.split(".")[: None if is_package and node.level == 1 else is_package - node.level]
                base = ".".join([*parents, base] if base else parents)
            yield from (f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base for alias in node.names)
        elif isinstance(node, ast.Call) and _called(node) in ("import_module", "importlib.import_module", "__import__"):
            yield from (str(arg.value) for arg in node.args[:1] if isinstance(arg, ast.Constant))


def _called(node: ast.Call) -> str:
    return ast.unparse(node.func)


def arrow_faults(modules: dict[str, Module]) -> list[str]:
    """Imports that run up or across, strangers to the floor table, and the library importing the programs."""
    faults = []
    for module in modules.values():
        if module.program != "medseg" or not module.part:
            continue
        if module.part not in FLOORS:
            faults.append(f"{module.name}: {module.part!r} has no floor; give it one here and in the architecture")
            continue
        for imported in sorted(module.imports):
            target = imported.split(".")
            if target[0] in ("pipelines", "tests"):
                faults.append(f"{module.name} imports {imported}: the library knows no programs")
            elif target[0] == "medseg" and len(target) > 1 and not _may(module.part, target[1]):
                faults.append(f"{module.name} (floor {FLOORS[module.part]}) imports {imported}: up, or a stranger")
    return faults


def _may(part: str, other: str) -> bool:
    if other == part or (part, other) in NEIGHBOURS or other.startswith("__"):
        return True
    if other not in FLOORS:
        return True  # a name of medseg/__init__.py, or a fault of its own
    return FLOORS[other] < FLOORS[part] or FLOORS[other] == FLOORS[part] == 0


def cycles(modules: dict[str, Module]) -> list[str]:
    """Each group of modules that import one another, as one line (Tarjan's strongly connected components)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[str] = []

    def visit(name: str) -> None:
        order[name] = low[name] = len(order)
        stack.append(name)
        for imported in sorted(modules[name].needs & modules.keys()):
            if imported not in order:
                visit(imported)
                low[name] = min(low[name], low[imported])
            elif imported in stack:
                low[name] = min(low[name], order[imported])
        if low[name] == order[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(" <-> ".join(sorted(group)))

    for name in modules:
        if name not in order:
            visit(name)
    return found


def habit_faults(modules: dict[str, Module]) -> list[str]:
    """What the library never does: environment, printing, exiting, broad excepts, eval, pickle; and what it is."""
    faults = []
    for module in modules.values():
        faults += [f"{module.name}: {fault}" for fault in _form_faults(module)]
        for node in ast.walk(module.tree):
            for fault in [*_unsafe(node), *(_library_only(node) if module.program == "medseg" else ())]:
                faults.append(f"{module.name}:{getattr(node, 'lineno', 0)}: {fault}")
    return faults


def _form_faults(module: Module) -> Iterator[str]:
    if not ast.get_docstring(module.tree):
        yield "has no docstring that says why it exists"
    if module.lines > LONGEST:
        yield f"has {module.lines} lines, more than {LONGEST}"
    if NAMELESS & set(module.name.split(".")):
        yield "has a name that says nothing"


def _unsafe(node: ast.AST) -> Iterator[str]:
    """Faults anywhere in the project."""
    if isinstance(node, ast.ExceptHandler):
        broad = node.type is None or {"Exception", "BaseException"} & {
            name.id for name in ast.walk(node.type) if isinstance(name, ast.Name)
        }
        if broad and not (node.body and isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None):
            yield "broad except that does not raise again"
    if isinstance(node, ast.Import | ast.ImportFrom):
        named = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        if ast.unparse(node) == "from pickle import UnpicklingError":
            return  # what torch.load raises for a file that is not plain weights
        yield from (f"imports {name}" for name in named if name.split(".")[0] in UNSAFE_MODULES)
    if isinstance(node, ast.Call):
        called = _called(node)
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        if called in ("eval", "exec"):
            yield f"calls {called}"
        if called == "torch.load" and not _is(keywords.get("weights_only"), True):
            yield "torch.load without weights_only=True"
        if _is(keywords.get("allow_pickle"), True):
            yield "allow_pickle=True"
        if _is(keywords.get("shell"), True):
            yield "shell=True"


def _library_only(node: ast.AST) -> Iterator[str]:
    """Faults in the library, where programs may do so."""
    if isinstance(node, ast.Attribute) and ast.unparse(node) in ("os.environ", "os.getenv", "os.putenv", "os.environb"):
        yield f"touches {ast.unparse(node)}"
    if (
        isinstance(node, ast.ImportFrom)
        and node.module == "os"
        and {a.name for a in node.names} & {"environ", "getenv"}
    ):
        yield "imports the environment"
    if isinstance(node, ast.Call) and _called(node) in ("print", "sys.exit", "exit", "quit", "os._exit"):
        yield f"calls {_called(node)}"
    if isinstance(node, ast.Raise) and node.exc is not None and "SystemExit" in ast.unparse(node.exc):
        yield "raises SystemExit"
    if isinstance(node, ast.ExceptHandler) and node.type is not None and ast.unparse(node.type) == "Exception":
        yield "broad except"


def _is(node: ast.expr | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


@pytest.fixture(scope="module")
def modules() -> dict[str, Module]:
    return read_modules(REPOSITORY, "medseg", "pipelines")


def test_no_module_imports_a_higher_floor_or_a_stranger(modules: dict[str, Module]) -> None:
    assert arrow_faults(modules) == []


def test_no_modules_import_one_another(modules: dict[str, Module]) -> None:
    assert cycles(modules) == []


def test_the_library_keeps_its_habits(modules: dict[str, Module]) -> None:
    assert habit_faults(modules) == []


SETTINGS_MODULES = [f"medseg.{part}" for part in ("config", "labels", "networks", "networks.attention", "losses")]
SETTINGS_MODULES += [
    f"medseg.{part}" for part in ("postprocessing", "tracking", "data.augmentation", "data.dataset", "experiment")
]


@pytest.mark.parametrize("name", SETTINGS_MODULES)
def test_reading_settings_imports_neither_torch_nor_monai(name: str) -> None:
    script = f"import sys, {name}; print(*sorted({{'torch', 'monai', 'mlflow', 'SimpleITK'}} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120, cwd=REPOSITORY
    )
    assert done.stdout.split() == []


TREE = {
    "medseg/__init__.py": '"""All."""\n__version__ = "1"\n',
    "medseg/errors.py": '"""Words."""\n',
    "medseg/config.py": '"""Words."""\nfrom medseg.errors import X\n',
    "medseg/morphology.py": '"""Shapes."""\nfrom medseg import __version__\n',
    "medseg/losses/__init__.py": '"""Losses."""\nfrom medseg.losses.dice import Dice\n',
    "medseg/losses/dice.py": '"""Dice."""\nfrom medseg.config import Y\nfrom medseg import morphology\n',
    "pipelines/__init__.py": '"""Programs."""\n',
    "pipelines/train.py": '"""Train."""\nimport os\nfrom medseg.losses import Dice\nprint(os.environ)\n',
}


def _tree(folder: Path, changes: dict[str, str]) -> dict[str, Module]:
    for name, text in {**TREE, **changes}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return read_modules(folder, "medseg", "pipelines")


def test_a_sound_tree_has_no_faults(tmp_path: Path) -> None:
    modules = _tree(tmp_path, {})
    assert [*arrow_faults(modules), *cycles(modules), *habit_faults(modules)] == []


@pytest.mark.parametrize(
    ("file", "line", "fault"),
    [
        ("medseg/config.py", "from medseg.losses import Dice", "up, or a stranger"),
        ("medseg/config.py", "def f():\n    import medseg.training", "up, or a stranger"),
        ("medseg/config.py", "from .losses import dice", "up, or a stranger"),
        ("medseg/morphology.py", "from medseg.losses.dice import Dice", "up, or a stranger"),
        ("medseg/losses/dice.py", "from ..metrics import score", "up, or a stranger"),
        ("medseg/losses/dice.py", "if TYPE_CHECKING:\n    from medseg.evaluation import S", "up, or a stranger"),
        ("medseg/losses/dice.py", "import importlib\nimportlib.import_module('medseg.data')", "up, or a stranger"),
        ("medseg/losses/dice.py", "import pipelines.train", "knows no programs"),
        ("medseg/attic.py", "x = 1", "has no floor"),
        ("medseg/errors.py", "def f():\n    from medseg.config import Y", "medseg.config <-> medseg.errors"),
        ("medseg/losses/dice.py", "from medseg.losses import Dice", "medseg.losses <-> medseg.losses.dice"),
        ("medseg/losses/dice.py", "from . import Dice", "medseg.losses <-> medseg.losses.dice"),
        ("medseg/config.py", "import os\nx = os.environ['A']", "touches os.environ"),
        ("medseg/config.py", "from os import getenv", "imports the environment"),
        ("medseg/config.py", "print(1)", "calls print"),
        ("medseg/config.py", "import sys\nsys.exit(1)", "calls sys.exit"),
        ("medseg/config.py", "raise SystemExit(2)", "raises SystemExit"),
        ("medseg/config.py", "try:\n    pass\nexcept Exception:\n    raise", "broad except"),
        ("pipelines/train.py", "try:\n    pass\nexcept:\n    pass", "broad except"),
        ("pipelines/train.py", "try:\n    pass\nexcept (OSError, Exception) as e:\n    x = e", "broad except"),
        ("medseg/config.py", "eval('1')", "calls eval"),
        ("medseg/config.py", "import pickle", "imports pickle"),
        ("pipelines/train.py", "import torch\ntorch.load('x')", "weights_only"),
        ("medseg/config.py", "\n" * 400, "lines, more than"),
        ("medseg/losses/utils.py", "x = 1", "says nothing"),
    ],
)
def test_each_fault_is_found(tmp_path: Path, file: str, line: str, fault: str) -> None:
    modules = _tree(tmp_path, {file: TREE.get(file, '"""New."""\n') + line + "\n"})
    found = [*arrow_faults(modules), *cycles(modules), *habit_faults(modules)]
    assert any(fault in one for one in found), found


def test_a_config_may_build_a_module_whose_annotations_name_it(tmp_path: Path) -> None:
    lazy = '"""D."""\ndef build():\n    from medseg.losses.module import M\n'
    named = '"""M."""\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from medseg.losses.dice import Dice\n'
    assert cycles(_tree(tmp_path, {"medseg/losses/dice.py": lazy, "medseg/losses/module.py": named})) == []


def test_a_module_without_a_docstring_is_found(tmp_path: Path) -> None:
    assert any("no docstring" in one for one in habit_faults(_tree(tmp_path, {"medseg/config.py": "x = 1\n"})))
