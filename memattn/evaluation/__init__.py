"""How well detectors do: sampling prompts, ROC, calibrated verdicts, similarity to training data.

Each subject is imported by its own path, e.g. `from memattn.evaluation.roc import auroc`.
"""
