"""What `record` refuses before it touches anything."""

import pytest

from memattn.errors import RecordingError
from memattn.recording import record
from tests import pipelines


@pytest.fixture
def pipe(tmp_path):
    return pipelines.stable_diffusion(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"fields": ("token_mas",)}, ValueError, "expected some of"),
        (
            {"fields": "token_mass"},
            ValueError,
            r"a string, expected a collection such as \('token_mass',",
        ),
        ({"map_layers": []}, ValueError, r"map_layers=\[\], expected layers"),
        (
            {"map_layers": [0], "fields": ("token_mass",)},
            ValueError,
            "map_layers= and fields without",
        ),
        ({"token": 1, "fields": ("token_mass",)}, ValueError, "token= and fields without"),
        ({"fields": ()}, ValueError, "no fields"),
        ({"map_layers": ["attn9"]}, RecordingError, "map layer 'attn9'"),
        ({"map_layers": [4]}, RecordingError, "index below 4"),
        ({"layout": "conditional"}, RecordingError, "says its layout itself"),
        ({"token": 0.5}, ValueError, "one integer per sample"),
    ],
)
def test_wrong_arguments_are_answered_in_one_sentence(pipe, arguments, error, sentence):
    with pytest.raises(error, match=sentence):
        record(pipe, **arguments)


def test_what_cannot_be_recorded_is_refused(pipe):
    with pytest.raises(RecordingError, match="layout=None"):
        record(pipe.unet)
    with pytest.raises(TypeError, match="got a str"):
        record("pipe")
    with pytest.raises(RecordingError, match="expected a UNet with cross-attention"):
        record(pipe.vae, layout="conditional")
