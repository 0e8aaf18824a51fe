import pytest

from memattn.cli.prompts import gather_prompts, read_prompts
from memattn.errors import InputError


def test_one_prompt_per_line_without_blank_lines(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufeffa fox\r\n\n   \n  ein Füchslein \n".encode())
    assert read_prompts(path) == ("a fox", "ein Füchslein")


def test_a_prompt_keeps_unusual_separators_inside(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("a fox\u2028on a hill\n", encoding="utf-8")
    assert read_prompts(path) == ("a fox\u2028on a hill",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "which does not exist"),
        (b"", "without a prompt"),
        (b" \n\n", "without a prompt"),
        (b"a fox\n\xff\xfe", "not UTF-8 at position 6"),
    ],
)
def test_a_file_without_prompts_is_refused(tmp_path, content, message):
    path = tmp_path / "prompts.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_prompts(path)


def test_a_folder_is_no_prompt_file(tmp_path):
    with pytest.raises(InputError, match="cannot read the prompt file"):
        read_prompts(tmp_path)


def test_prompts_of_the_command_line_come_first(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("second\n")
    assert gather_prompts(["first"], path) == ("first", "second")


@pytest.mark.parametrize(("given", "message"), [([], "got no prompt"), ([" "], "a blank --prompt")])
def test_no_prompt_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        gather_prompts(given, None)
