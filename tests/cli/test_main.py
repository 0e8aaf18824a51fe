import errno
import importlib.metadata
import os
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
    for command in (["evaluate", "--out=x"], ["calibrate", "--out=x", "--prompts=y"]):
        monkeypatch.setattr(COMMANDS[command[0]], "run", interrupted)
        assert main(command) == 130
        sentence = "interrupted; the same command goes on after the last finished batch."
        assert capsys.readouterr().err == f"memattn {command[0]}: {sentence}\n"


def test_a_reader_that_stops_reading_ends_with_141():
    reader, writer = os.pipe()
    os.close(reader)
    program = "import sys; from memattn.cli.main import main; sys.exit(main(['methods']))"
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=writer, stderr=subprocess.PIPE, text=True
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_an_error_of_the_file_system_is_one_sentence(monkeypatch, capsys):
    def full(arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "report/index.html")

    monkeypatch.setattr(module.methods, "run", full)
    assert main(["methods"]) == 2
    assert capsys.readouterr().err == (
        "memattn methods: No space left on device (report/index.html).\n"
    )


def test_info_without_a_testbed_says_so_kindly(tmp_path, monkeypatch, capsys):
    from memattn import testbed
    from memattn.testbed import load_manifest

    monkeypatch.setattr(testbed, "load_manifest", lambda: load_manifest(tmp_path / "nothing"))
    assert main(["info"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("testbed: its data are missing or damaged here; ")
    assert str(tmp_path) not in last
    assert "Errno" not in last


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
