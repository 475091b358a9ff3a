"""The repository keeps its own rules: equal pins, floors, thin scripts, light imports, portable files."""

from __future__ import annotations

import ast
import importlib
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

from methods import METHODS, method_class

ROOT = Path(__file__).resolve().parents[1]
FLOORS = ("common", "geometry", "dataloader", "engine", "methods")
SCRIPTS = ("train.py", "test.py", "video_script.py")
HEAVY = ("open3d", "diffusers", "transformers", "lpips", "pycolmap", "trimesh", "cv2", "matplotlib")
OPTIONAL = ("nvdiffrast", "tinycudann", "pytorch3d", "gsplat", "triton")  # setup_env.sh --cuda, or with torch
LARGEST_FILE = 500_000  # bytes
LARGEST_ASSET = 15_000_000  # of small trained weights

# Written in pieces, so that this file does not accuse itself.
FORBIDDEN = {
    "a path of one machine": r"(?<![\w.~$}-])/(?:ro" + r"ot|wo" + r"rk|ho" + r"me/\w+|Us" + r"ers/\w+)/",
    "a temporary folder of one machine": "/tm" + "p/bo" + "ot",
    "a package index": "|".join(
        [
            r"pypi\." + "org",
            "python" + r"hosted\.",
            r"download\.py" + "torch",
            r"anaconda\." + r"(?:org|com)",
            "index" + "[-_]url",
            "find" + "[-_]links",
            r"--ind" + "ex\\b",
        ]
    ),
}


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    """The files git tracks, or would once added."""
    # the folder may belong to another user, e.g. in a container
    command = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "--cached", "--others"]
    listed = subprocess.run(
        [*command, "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    files = [ROOT / name for name in listed.split("\0") if name]
    return [file for file in files if file.is_file()]


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def floor_files() -> list[Path]:
    return sorted(file for floor in FLOORS for file in (ROOT / floor).rglob("*.py"))


def pins(lines: list[str]) -> dict[str, str]:
    """Name -> version of the lines; every requirement must be pinned."""
    found = {}
    for line in lines:
        name, separator, version = line.partition("==")
        assert re.fullmatch(r"==[\w.]+", separator + version), f"{line!r} is not pinned"
        assert name not in found, f"{name} is listed twice"
        found[name] = version
    return found


def required_pins() -> dict[str, str]:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    return pins([line for line in lines if line and not line.startswith("#")])


def normalised(distribution: str) -> str:
    """A distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def imports_of(nodes: Iterable[ast.AST]) -> set[str]:
    """Top-level packages named by the absolute import statements among the nodes."""
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def test_pins_of_requirements_and_environment_are_equal() -> None:
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    from_pip = next(entry["pip"] for entry in dependencies if isinstance(entry, dict))
    assert pins(from_pip) == required_pins()


def test_every_imported_library_is_pinned(tracked: list[Path]) -> None:
    imported = set()
    for file in tracked:
        if file.suffix == ".py":
            imported |= imports_of(ast.walk(ast.parse(file.read_text())))
    own = {name.removesuffix(".py") for file in tracked for name in file.relative_to(ROOT).parts}
    foreign = imported - own - set(sys.stdlib_module_names) - set(OPTIONAL)
    providers = packages_distributions()
    pinned = {normalised(name.partition("[")[0]) for name in required_pins()}
    unpinned = {
        name
        for name in foreign
        if not any(normalised(provider) in pinned for provider in providers.get(name, ()))
    }
    assert not unpinned, f"add to requirements.txt and environment.yml: {sorted(unpinned)}"


def test_python_version_is_the_same_everywhere(project: dict) -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    lowest = project["project"]["requires-python"].removeprefix(">=")
    assert f"python={lowest}" in environment["dependencies"]
    assert project["tool"]["mypy"]["python_version"] == lowest
    assert project["tool"]["ruff"]["target-version"] == "py" + lowest.replace(".", "")
    assert f"readonly MINIMUM={lowest}\n" in (ROOT / "setup_env.sh").read_text()


def test_conda_channel_is_named() -> None:
    assert yaml.safe_load((ROOT / "environment.yml").read_text())["channels"] == ["conda-forge"]


def test_every_package_is_installed(project: dict) -> None:
    packages = {".".join(file.parent.relative_to(ROOT).parts) for file in floor_files()}
    listed = project["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(packages)
    assert all((ROOT / Path(*package.split("."))).joinpath("__init__.py").is_file() for package in packages)


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_thin(name: str) -> None:
    assert len((ROOT / name).read_text().splitlines()) < 200


def test_the_ground_floor_is_small() -> None:
    assert sum(len(file.read_text().splitlines()) for file in (ROOT / "common").rglob("*.py")) < 200


def test_import_contracts_hold() -> None:
    lint_imports = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    assert lint_imports, "import-linter is not installed beside this Python: run ./setup_env.sh"
    result = subprocess.run([lint_imports], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def loaded_nodes(tree: ast.Module) -> Iterator[ast.AST]:
    """The nodes that run when a module is loaded: not in functions, not for type checkers only."""
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        yield node
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            todo.extend(node.orelse)
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            todo.extend(ast.iter_child_nodes(node))


def test_loaded_nodes_are_those_that_run() -> None:
    code = """
        import os, torch.nn
        from typing import TYPE_CHECKING
        if TYPE_CHECKING:
            import typed
        class A:
            import inside
            def method(self):
                import late
        try:
            from optional.part import thing
        except ImportError:
            pass
    """
    tree = ast.parse("if True:\n" + code)
    assert imports_of(loaded_nodes(tree)) == {"os", "torch", "typing", "inside", "optional"}


def test_heavy_libraries_are_imported_where_they_are_used() -> None:
    found = []
    for file in floor_files():
        loaded = imports_of(loaded_nodes(ast.parse(file.read_text())))
        found += [f"{file.relative_to(ROOT)} imports {name}" for name in sorted(loaded & set(HEAVY))]
    assert not found, f"import these in the functions that need them: {found}"


def test_importing_the_registry_is_light() -> None:
    code = "import sys, methods; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()
    heavy = {name for name in loaded if name in {*HEAVY, "torch"} or name.startswith("methods.")}
    assert not heavy, f"import methods also imports {sorted(heavy)}"


@pytest.mark.parametrize("name", METHODS)
def test_registered_methods_import(name: str) -> None:
    assert issubclass(method_class(name), importlib.import_module("engine.method").Method)


def test_no_large_files(tracked: list[Path]) -> None:
    sizes = {str(file.relative_to(ROOT)): file.stat().st_size for file in tracked}
    large = {
        name: size
        for name, size in sizes.items()
        if size > (LARGEST_ASSET if name.startswith("assets/") else LARGEST_FILE)
    }
    assert not large, f"keep these outside the repository: {large}"


@pytest.mark.parametrize("what", FORBIDDEN)
def test_nothing_ties_the_repository_to_a_machine(what: str, tracked: list[Path]) -> None:
    found = []
    for file in tracked:
        text = file.read_bytes().decode("utf-8", errors="ignore")
        if "\0" not in text:  # not an image
            for match in re.finditer(FORBIDDEN[what], text):
                line = text.count("\n", 0, match.start()) + 1
                found.append(f"{file.relative_to(ROOT)}:{line}: {match[0]}")
    assert not found, f"names {what}: {found}"


def test_hooks_are_local() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert [repo["repo"] for repo in config["repos"]] == ["local"]
    assert all(hook["language"] == "system" for hook in config["repos"][0]["hooks"])
