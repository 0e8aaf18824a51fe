"""Runs that are stopped before they are done."""

from memattn.evaluation import runs


def stop_in_the_third_batch(monkeypatch):
    """Interrupt the sampling of the third batch from now on; the list grows by one a batch."""
    made, sample = [], runs.sample

    def stopping(*arguments, **options):
        made.append(1)
        if len(made) == 3:
            raise KeyboardInterrupt
        return sample(*arguments, **options)

    monkeypatch.setattr(runs, "sample", stopping)
    return made
