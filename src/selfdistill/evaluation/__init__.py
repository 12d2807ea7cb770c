"""Evaluation: pure functions of arrays, functions that run a model, and the suite that measures everything (`suite`).

Of arrays: `accuracy`, `calibration`, `temperature`, `selective`, `ood.metrics`, `ood.mahalanobis`. Of a model:
`adversarial` and `robustness`, `corruptions`, `ood`, `agreement`. The result is an `Evaluation` of `records`.

The modules are imported by name, as in `from selfdistill.evaluation.suite import evaluate`, so that the pure
functions need no torch. Every rate is a fraction in [0, 1]; nothing is rounded before it is printed.
"""
