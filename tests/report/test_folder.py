import pytest

from memattn.errors import InputError
from memattn.report.folder import PAGE, check_target, whole_folder


def write(target, text):
    with whole_folder(target) as folder:
        (folder / PAGE).write_text(text)


def test_a_folder_appears_only_once_it_is_whole(tmp_path):
    target = tmp_path / "deeper" / "report"
    with whole_folder(target) as folder:
        (folder / PAGE).write_text("new")
        assert not target.exists()
    assert (target / PAGE).read_text() == "new"
    assert [path.name for path in target.parent.iterdir()] == ["report"]


def test_an_earlier_report_is_replaced_as_a_whole(tmp_path):
    write(tmp_path / "report", "old")
    (tmp_path / "report" / "left over").touch()
    write(tmp_path / "report", "new")
    assert [path.name for path in (tmp_path / "report").iterdir()] == [PAGE]
    assert (tmp_path / "report" / PAGE).read_text() == "new"


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupted_report_leaves_nothing_behind(tmp_path, error):
    def fill():
        with whole_folder(tmp_path / "report") as folder:
            (folder / PAGE).write_text("half")
            raise error

    with pytest.raises(error):
        fill()
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_report_leaves_the_earlier_one(tmp_path):
    write(tmp_path / "report", "old")

    def fill():
        with whole_folder(tmp_path / "report") as folder:
            (folder / PAGE).write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill()
    assert [path.name for path in tmp_path.iterdir()] == ["report"]
    assert (tmp_path / "report" / PAGE).read_text() == "old"


def test_an_interruption_between_the_two_renames_keeps_the_earlier_report(tmp_path, monkeypatch):
    write(tmp_path / "report", "old")
    import memattn.report.folder as module

    rename = module.os.replace
    done = []

    def interrupted(source, target):
        done.append(target)
        if len(done) == 2:
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(module.os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "report", "new")
    assert (tmp_path / "report" / PAGE).read_text() == "old"


def test_an_empty_folder_may_be_filled(tmp_path):
    (tmp_path / "report").mkdir()
    write(tmp_path / "report", "new")
    assert (tmp_path / "report" / PAGE).read_text() == "new"


def test_a_folder_with_other_files_is_refused_and_kept(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(InputError, match="it holds other files"):
        write(tmp_path, "new")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_is_refused(tmp_path):
    (tmp_path / "report").touch()
    with pytest.raises(InputError, match="expected a folder, not a file"):
        check_target(tmp_path / "report")
