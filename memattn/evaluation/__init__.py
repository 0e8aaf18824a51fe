"""How well detectors do: sampling prompts, scores, ROC, calibrated verdicts.

Each subject is imported by its own path, e.g. `from memattn.evaluation.roc import auroc`.
"""
