"""The errors memattn raises on purpose. Each message says what was got and what was expected."""


class MemattnError(Exception):
    """Base of every error memattn raises on purpose; the CLI prints it and exits with code 2."""


class UnsupportedBackendError(MemattnError):
    """A backend was asked for by name and cannot run this call; the message says why."""


class RecordingError(MemattnError):
    """A run could not be recorded, or was not recorded whole."""


class RecordError(MemattnError):
    """A record lacks what a detector needs, or a record file cannot be read."""


class CalibrationError(MemattnError):
    """A calibration cannot be made, read, or does not belong to this model and these settings."""


class TestbedError(MemattnError):
    """The testbed's files are missing or damaged, or its truth does not hold."""

    __test__ = False  # pytest collects classes whose name begins with Test


class InputError(MemattnError):
    """What a user handed to a command (a file, a folder, an option) cannot be used."""
