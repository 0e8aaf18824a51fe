import logging

import pytest
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from memattn.cli.pipelines import load_pipeline, quiet_libraries, torch_device
from memattn.errors import InputError


def test_a_checkpoint_is_loaded_without_bars_of_its_libraries(checkpoint, capfd):
    libraries = (diffusers_logging, transformers_logging)
    before = [library.is_progress_bar_enabled() for library in libraries]
    load_pipeline(str(checkpoint), device="cpu", dtype="float32")
    assert capfd.readouterr().err == ""
    assert [library.is_progress_bar_enabled() for library in libraries] == before


def test_bars_are_back_even_after_an_error():
    diffusers_logging.enable_progress_bar()
    seen = []

    def load():
        with quiet_libraries():
            seen.append(diffusers_logging.is_progress_bar_enabled())
            raise KeyError

    with pytest.raises(KeyError):
        load()
    assert seen == [False]
    assert diffusers_logging.is_progress_bar_enabled()


def test_warnings_are_kept_back_and_errors_come_through(caplog):
    with quiet_libraries():
        logging.getLogger("diffusers").warning("it could be faster")
        logging.getLogger("diffusers").error("it is damaged")
    assert [record.getMessage() for record in caplog.records] == ["it is damaged"]


def test_a_device_that_cannot_be_used_is_one_sentence():
    with pytest.raises(InputError, match=r"^cannot use the device cuda:99: .*[^.]\.$"):
        torch_device("cuda:99")
