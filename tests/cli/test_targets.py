from pathlib import Path

import pytest

from memattn.cli.targets import check_output
from memattn.errors import InputError


@pytest.mark.parametrize("folder", [True, False])
@pytest.mark.parametrize("path", ["new", "deep/er/new"])
def test_a_new_path_is_accepted_and_nothing_is_left(tmp_path, path, folder):
    check_output(tmp_path / path, folder=folder)
    assert list(tmp_path.iterdir()) == []


def test_a_file_may_be_replaced_and_a_folder_filled(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    check_output(tmp_path / "file", folder=False)
    check_output(tmp_path / "folder", folder=True)


def test_files_and_folders_do_not_stand_in_for_each_other(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"got the folder .*, expected a file"):
        check_output(tmp_path, folder=False)
    with pytest.raises(InputError, match=r"got the file .*, expected a folder"):
        check_output(tmp_path / "file", folder=True)


def test_a_path_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file is a file, expected a folder"):
        check_output(tmp_path / "file" / "deep" / "report", folder=True)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a file system of the kernel's")
def test_a_place_where_nothing_can_be_made_is_refused():
    with pytest.raises(InputError, match="nothing can be made in /proc"):
        check_output(Path("/proc/report"), folder=True)
