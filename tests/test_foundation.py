"""The environment: its pins, its commands, and what setup says when something is missing."""

import ast
import dataclasses
import importlib
import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
DISTRIBUTION = metadata.distribution("tfkfac")
SHELL = shutil.which("sh") or "/bin/sh"


def pins(file: str = "constraints.txt") -> dict[str, str]:
    lines = (ROOT / file).read_text().splitlines()
    pairs = (line.split("==") for line in lines if not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def requirements(distribution: metadata.Distribution, extra: str = "") -> Iterator[Requirement]:
    for text in distribution.requires or []:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            yield requirement


def declared(*extras: str) -> dict[str, Requirement]:
    """What setup.py asks for, by canonical name."""
    found = [r for extra in ("", *extras) for r in requirements(DISTRIBUTION, extra)]
    return {canonicalize_name(r.name): r for r in found}


# ------------------------------------------------------------------------------ the distribution


def test_commands_lead_to_functions() -> None:
    commands = DISTRIBUTION.entry_points.select(group="console_scripts")
    assert {command.name for command in commands} == {
        *("tfkfac-plan", "models-train", "models-plot", "hpcai500"),
        *("nmt-data", "nmt-train", "nmt-translate", "nmt-score", "nmt-evaluate", "nmt-average"),
        *("nmt-export", "nmt-serve"),
    }
    for command in commands:
        assert callable(command.load()), command


def test_constraints_satisfy_what_setup_py_asks_for() -> None:
    for name, requirement in declared("nmt", "horovod", "test").items():
        assert name in pins(), f"constraints.txt lacks {name}"
        assert requirement.specifier.contains(pins()[name]), requirement


def test_addons_constraints_satisfy_what_setup_py_asks_for() -> None:
    addons = pins("constraints-addons.txt")
    for name, requirement in declared("addons", "horovod").items():
        assert name in addons, f"constraints-addons.txt lacks {name}"
        assert requirement.specifier.contains(addons[name]), requirement
    assert {addons[name] for name in ("tensorflow", "keras")} == {"2.15.1", "2.15.0"}


def test_constraints_pin_everything_that_is_needed_indirectly() -> None:
    waiting = list(declared("nmt", "test").values()) + [Requirement("horovod")]
    seen: set[str] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in seen:
            continue
        seen.add(name)
        assert name in pins(), f"constraints.txt lacks {name}"
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            assert name == "horovod", f"{name} is not installed"
            continue
        assert distribution.version == pins()[name], f"{name} {distribution.version} is installed"
        for extra in ("", *requirement.extras):
            waiting += requirements(distribution, extra)
    assert len(seen) > 50  # TensorFlow alone brings about thirty


@pytest.mark.parametrize(
    ("package", "extras"),
    [
        ("tfkfac", ["horovod"]),
        ("models", ["horovod", "addons"]),
        ("nmt", ["nmt", "ctranslate2", "horovod"]),
    ],
)
def test_packages_import_only_what_setup_py_declares(package: str, extras: list[str]) -> None:
    providers = metadata.packages_distributions()
    own = {"tfkfac", "models", "nmt"}
    allowed = declared(*extras)
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                modules = [node.module or ""]
            else:
                continue
            for module in {name.split(".")[0] for name in modules} - own:
                if module in sys.stdlib_module_names:
                    continue
                names = {canonicalize_name(name) for name in providers.get(module, [module])}
                assert names & allowed.keys(), f"{file}:{node.lineno} imports {module}"


def test_there_is_one_version() -> None:
    tree = ast.parse((ROOT / "setup.py").read_text())
    versions = [
        keyword.value.value
        for keyword in ast.walk(tree)
        if isinstance(keyword, ast.keyword)
        and keyword.arg == "version"
        and isinstance(keyword.value, ast.Constant)
    ]
    assert versions == [DISTRIBUTION.version]
    for package in ("tfkfac", "models", "nmt"):
        for file in (ROOT / package).rglob("*.py"):
            assert not re.search(r"^__version__\s*=\s*[\"']", file.read_text(), re.M), file


def test_the_forwarding_header_leads_into_the_installed_tensorflow() -> None:
    header = "tensorflow/compiler/xla/client/xla_builder.h"
    text = (ROOT / "scripts" / "horovod_include" / header).read_text()
    target = re.search(r'^#include "(.+)"$', text, re.M)
    tensorflow = importlib.util.find_spec("tensorflow")
    assert target and tensorflow and tensorflow.origin
    include = Path(tensorflow.origin).parent / "include"
    assert (include / target[1]).is_file()
    assert not (include / header).exists(), "TensorFlow has this header again: forward no longer"


# ------------------------------------------------------------------- scripts/setup.sh: the Python


def set_up(path: Path, *arguments: str, **variables: str) -> tuple[int, str]:
    """Run setup.sh with nothing but `path` on PATH; its status, and what it said on stderr."""
    answer = subprocess.run(
        [SHELL, ROOT / "scripts" / "setup.sh", *arguments],
        env={"PATH": str(path), **variables},
        capture_output=True,
        text=True,
    )
    assert answer.stdout == ""
    return answer.returncode, answer.stderr


def place(program: Path, body: str) -> None:
    program.write_text(f"#!{SHELL}\n{body}\n")
    program.chmod(0o755)


def python_that_claims(version: tuple[int, int]) -> str:
    """A program that runs `-c CODE` as a Python of that version would."""
    prelude = f"import sys; sys.version_info = ({version[0]}, {version[1]}, 0); exec(sys.argv[1])"
    return f'exec "{sys.executable}" -c "{prelude}" "$2"'


def test_setup_without_any_python(tmp_path: Path) -> None:
    status, message = set_up(tmp_path)
    assert status == 1
    assert "Python 3.11, 3.12 or 3.13" in message
    assert "no such program on PATH" in message
    assert "sudo apt install python3 python3-venv" in message
    assert "sudo dnf install python3.13" in message


@pytest.mark.parametrize(
    ("version", "expected"),
    [((3, 10), "python3: 3.10, too old"), ((3, 14), "python3: 3.14, too new")],
)
def test_setup_with_the_wrong_python(
    tmp_path: Path, version: tuple[int, int], expected: str
) -> None:
    place(tmp_path / "python3", python_that_claims(version))
    status, message = set_up(tmp_path)
    assert status == 1
    assert expected in message
    assert "make PYTHON=" in message


def test_setup_of_the_addons_wants_an_older_python(tmp_path: Path) -> None:
    place(tmp_path / "python3", python_that_claims((3, 12)))
    status, message = set_up(tmp_path, "--addons")
    assert status == 1
    assert "python3: 3.12, too new (TensorFlow 2.15 has no wheel for it)" in message
    assert "Needed: Python 3.10 or 3.11, with" in message


def test_setup_passes_over_a_python_that_does_not_run(tmp_path: Path) -> None:
    place(tmp_path / "python3.12", "exit 127")
    place(tmp_path / "python3", python_that_claims((3, 10)))
    status, message = set_up(tmp_path)
    assert status == 1
    assert "python3.12: does not run" in message
    assert "python3: 3.10, too old" in message


def test_setup_with_a_python_that_lacks_venv(tmp_path: Path) -> None:
    place(tmp_path / "python3", f'exec "{sys.executable}" "$@"')
    (tmp_path / "ensurepip.py").write_text("raise ImportError\n")
    status, message = set_up(tmp_path, PYTHONPATH=str(tmp_path))
    version = "{}.{}".format(*sys.version_info)
    assert status == 1
    assert f"{version}, without venv or ensurepip" in message
    assert f"sudo apt install python{version}-venv" in message


def test_setup_with_an_unusable_choice_of_python(tmp_path: Path) -> None:
    place(tmp_path / "python3", f'exec "{sys.executable}" "$@"')  # would do, but is not asked for
    status, message = set_up(tmp_path, PYTHON="/nowhere/python3.12")
    assert status == 1
    assert "PYTHON=/nowhere/python3.12 cannot be used" in message


def test_setup_hands_over_from_any_folder_under_any_settings(tmp_path: Path) -> None:
    place(tmp_path / "python3", f'exec "{sys.executable}" "$@"')
    answer = subprocess.run(
        [SHELL, ROOT / "scripts" / "setup.sh", "--help"],
        cwd=tmp_path,
        env={"PATH": str(tmp_path), "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
    )
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.startswith("usage: scripts/setup.sh [-h] [--addons]")


# --------------------------------------------------------------------------- scripts/*.py: the rest

SCRIPTS = ("checkout", "commands", "virtual_environment", "horovod_build", "environment")


def test_each_script_needs_only_the_standard_library_and_those_below_it() -> None:
    assert {file.stem for file in (ROOT / "scripts").glob("*.py")} == set(SCRIPTS)
    for position, script in enumerate(SCRIPTS):
        allowed = sys.stdlib_module_names | set(SCRIPTS[:position])
        for node in ast.walk(ast.parse((ROOT / "scripts" / f"{script}.py").read_text())):
            if isinstance(node, ast.Import):
                assert {alias.name.split(".")[0] for alias in node.names} <= allowed, script
            elif isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] in allowed, script
    assert not sys.stdlib_module_names & set(SCRIPTS)


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The scripts as modules, working on an empty folder, with the compilers of this machine."""
    monkeypatch.syspath_prepend(ROOT / "scripts")
    assert not sys.modules.keys() & set(SCRIPTS)
    modules = {name: importlib.import_module(name) for name in SCRIPTS}
    paths = {"ROOT": "", "CACHE": ".cache", "HOROVOD_OPTIONS": ".cache/horovod.json"}
    for module in modules.values():
        for name in paths.keys() & vars(module).keys():
            monkeypatch.setattr(module, name, tmp_path / paths[name])
    for name in ("MAIN", "ADDONS"):
        target = getattr(modules["environment"], name)
        moved = {"venv": tmp_path / ".venv", "logs": tmp_path / ".cache" / "logs"}
        monkeypatch.setattr(modules["environment"], name, dataclasses.replace(target, **moved))
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".cache").mkdir()
    monkeypatch.delenv("CXX", raising=False)
    yield SimpleNamespace(**modules)
    for name in SCRIPTS:
        del sys.modules[name]


def test_without_a_compiler_setup_goes_on_and_says_what_to_install(
    scripts: SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    state = scripts.horovod_build.provide_horovod(
        scripts.environment.MAIN, {"python": "3.11"}, retry=False
    )
    message = capsys.readouterr().err
    assert "Horovod is not installed: no C++ compiler" in message
    assert "apt install build-essential" in message
    assert "dnf install gcc-c++" in message
    assert "make horovod" in message
    assert "horovod" not in state


def test_a_failed_build_is_tried_again_only_when_asked(
    scripts: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    builds: list[str] = []

    def build(target: Any, identity: str) -> None:
        builds.append(identity)
        if len(builds) == 1:
            raise scripts.commands.CommandError("compiler's last words\nsetup: building failed")

    monkeypatch.setattr(scripts.horovod_build, "install_horovod", build)
    monkeypatch.setattr(scripts.horovod_build, "horovod_obstacle", lambda: None)
    provide, main = scripts.horovod_build.provide_horovod, scripts.environment.MAIN
    failed = provide(main, {"python": "3.11"}, retry=False)
    assert "compiler's last words" in capsys.readouterr().err
    assert provide(main, failed, retry=False) == failed
    assert "Horovod is not installed: building failed" in capsys.readouterr().err
    assert len(builds) == 1

    built = provide(main, failed, retry=True)
    assert len(builds) == 2
    assert built == {"python": "3.11", "horovod": builds[1]}
    assert provide(main, built, retry=False) == built
    assert len(builds) == 2


def test_horovod_options_given_once_are_kept(
    scripts: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    horovod, main = scripts.horovod_build, scripts.environment.MAIN
    plain = horovod.horovod_identity(main, "3.11")
    monkeypatch.setenv("HOROVOD_WITH_MPI", "1")
    monkeypatch.setenv("HOROVOD_LOG_LEVEL", "debug")  # no option of the build
    horovod.choose_horovod_options()
    monkeypatch.delenv("HOROVOD_WITH_MPI")
    options = horovod.horovod_options()
    assert options["HOROVOD_WITH_MPI"] == "1"
    assert options["HOROVOD_WITH_GLOO"] == "1"
    assert not {"HOROVOD_WITHOUT_MPI", "HOROVOD_LOG_LEVEL"} & options.keys()
    assert horovod.horovod_identity(main, "3.11") != plain


def test_environments_share_no_horovod_build(scripts: SimpleNamespace) -> None:
    identities = [
        scripts.horovod_build.horovod_identity(target, "3.11")
        for target in (scripts.environment.MAIN, scripts.environment.ADDONS)
    ]
    assert "tensorflow2.15.1" in identities[1] and identities[0] != identities[1]


def test_a_folder_that_is_no_environment_is_left_alone(scripts: SimpleNamespace) -> None:
    (scripts.environment.MAIN.venv / "thesis.tex").touch()
    with pytest.raises(scripts.commands.SetupError, match="not a virtual environment"):
        scripts.virtual_environment.provide_venv(scripts.environment.MAIN)
    assert (scripts.environment.MAIN.venv / "thesis.tex").exists()


def test_a_failing_command_shows_its_end_and_names_its_log(scripts: SimpleNamespace) -> None:
    log = scripts.environment.MAIN.logs / "step.log"
    command = [sys.executable, "-c", "print('first'); print('last words'); raise SystemExit(3)"]
    with pytest.raises(scripts.commands.CommandError) as failure:
        scripts.commands.run("Doing it", command, log, lambda line: None)
    assert "last words" in str(failure.value)
    assert str(failure.value).endswith(f"setup: Doing it failed. Full output: {log}")
    assert log.read_text().startswith("first\n")


def test_packages_that_were_half_changed_are_marked(scripts: SimpleNamespace) -> None:
    changing, main = scripts.virtual_environment.changing_packages, scripts.environment.MAIN
    with pytest.raises(KeyboardInterrupt), changing(main):
        raise KeyboardInterrupt
    assert main.partial.exists()
    with changing(main):
        pass
    assert not main.partial.exists()


def test_downloads_are_shown_in_percent(scripts: SimpleNamespace) -> None:
    describe = scripts.virtual_environment.PipOutput().describe
    assert describe("Collecting keras>=3.12\n") == "collecting keras>=3.12"
    expected = "downloading keras-3.15.1-py3-none-any.whl (1.5 MB)"
    assert describe("  Downloading keras-3.15.1-py3-none-any.whl (1.5 MB)\n") == expected
    assert describe("Progress 250000 of 1000000\n") == f"{expected} 25 %"
    assert describe("Requirement already satisfied: six\n") is None
