import pytest

from memattn.errors import InputError
from memattn.report import write_report
from memattn.report.folder import PAGE, check_target, whole_folder
from tests.report.test_html import page, sample

SIGNATURE = '<meta name="generator" content="memattn 0.1.0">'


def write(target, text):
    with whole_folder(target) as folder:
        (folder / PAGE).write_text(f"{SIGNATURE}{text}")


def text_of(target):
    return (target / PAGE).read_text().removeprefix(SIGNATURE)


def test_a_folder_appears_only_once_it_is_whole(tmp_path):
    target = tmp_path / "deeper" / "report"
    with whole_folder(target) as folder:
        (folder / PAGE).write_text("new")
        assert not target.exists()
    assert text_of(target) == "new"
    assert [path.name for path in target.parent.iterdir()] == ["report"]


def test_an_earlier_report_is_replaced_as_a_whole(tmp_path):
    write(tmp_path / "report", "old")
    (tmp_path / "report" / "images").mkdir()
    (tmp_path / "report" / "images" / "000.png").touch()
    (tmp_path / "report" / "calibration.json").touch()
    write(tmp_path / "report", "new")
    assert [path.name for path in (tmp_path / "report").iterdir()] == [PAGE]
    assert text_of(tmp_path / "report") == "new"


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
    assert text_of(tmp_path / "report") == "old"


def test_an_interruption_between_the_two_renames_keeps_the_earlier_report(tmp_path, monkeypatch):
    write(tmp_path / "report", "old")
    import memattn.whole as module

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
    assert text_of(tmp_path / "report") == "old"


def test_an_empty_folder_may_be_filled(tmp_path):
    (tmp_path / "report").mkdir()
    write(tmp_path / "report", "new")
    assert text_of(tmp_path / "report") == "new"


def test_a_folder_with_other_files_is_refused_and_kept(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(InputError, match="it holds other files"):
        write(tmp_path, "new")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_page_of_somebody_else_is_refused_and_kept(tmp_path):
    (tmp_path / PAGE).write_text("<title>My home page, made with memattn</title>")
    with pytest.raises(InputError, match="it holds other files"):
        write(tmp_path, "new")
    assert (tmp_path / PAGE).exists()


def test_a_report_with_another_file_beside_it_is_refused_and_kept(tmp_path):
    write(tmp_path / "report", "old")
    (tmp_path / "report" / "thesis.tex").touch()
    with pytest.raises(InputError, match="it holds other files"):
        write(tmp_path / "report", "new")
    assert (tmp_path / "report" / "thesis.tex").exists()


def test_a_real_report_may_be_replaced(tmp_path):
    for _ in range(2):
        with whole_folder(tmp_path / "report") as folder:
            write_report(page(sample()), folder)
    check_target(tmp_path / "report")


def test_a_file_is_refused(tmp_path):
    (tmp_path / "report").touch()
    with pytest.raises(InputError, match="expected a folder, not a file"):
        check_target(tmp_path / "report")
