"""Evaluation: pure functions of arrays (`accuracy`, `calibration`) and the suite that runs a model (`suite`).

The modules are imported by name, as in `from selfdistill.evaluate.suite import evaluate`, so that the pure
functions need numpy alone. Every rate is a fraction in [0, 1]; nothing is rounded before it is printed.
"""
