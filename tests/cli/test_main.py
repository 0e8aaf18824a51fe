import importlib.metadata
import re
import subprocess
import sys

import pytest

import memattn
from memattn.cli import main as module
from memattn.cli.main import COMMANDS, main
from memattn.detectors import DETECTORS


def test_every_command_explains_itself(capsys):
    for command in COMMANDS:
        with pytest.raises(SystemExit) as stop:
            main([command, "--help"])
        assert stop.value.code == 0
        assert f"usage: memattn {command}" in capsys.readouterr().out


def test_help_lists_all_commands_and_needs_no_diffusers():
    program = (
        "import sys\n"
        "for name in ('diffusers', 'transformers', 'jinja2', 'PIL'): sys.modules[name] = None\n"
        "from memattn.cli.main import main\n"
        "main(['--help'])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(re.search(rf"^    {command}\s", done.stdout, re.MULTILINE) for command in COMMANDS)


def test_the_version_is_the_packages(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"memattn {memattn.__version__}\n"


def test_a_keyboard_interrupt_ends_with_130(monkeypatch, capsys):
    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(module.methods, "run", interrupted)
    assert main(["methods"]) == 130
    assert capsys.readouterr().err == "memattn methods: interrupted.\n"


def test_methods_names_paper_formula_and_every_deviation(capsys):
    assert main(["methods"]) == 0
    out = capsys.readouterr().out
    joined = " ".join(out.split())
    for detector in DETECTORS:
        assert f"{detector.CITATION.authors}, {detector.CITATION.venue}" in out
        assert detector.CITATION.arxiv in out
        assert " ".join(detector.CITATION.equation.split()) in joined
        assert all(" ".join(text.split()) in joined for text in detector.CITATION.deviations)
    assert max(map(len, out.splitlines())) <= 100


def test_info_says_versions_backends_and_the_testbed(capsys):
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    assert importlib.metadata.version("diffusers") in out
    assert "reference  can run" in out
    assert "testbed: " in out
