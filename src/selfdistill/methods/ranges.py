"""The ranges that the arguments of several methods share, and the one line that a wrong value gets."""

import math


def check_weight(method: str, **weights: float) -> None:
    """Refuse weights that are not finite or below 0.

    Raises:
        ValueError: names the method, the argument and the value.
    """
    for name, value in weights.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"{method}: {name} must be at least 0 and finite, not {value}")


def check_temperature(method: str, temperature: float) -> None:
    """Refuse a temperature that is not finite or not above 0.

    Raises:
        ValueError: names the method and the value.
    """
    if not 0 < temperature < math.inf:
        raise ValueError(f"{method}: temperature must be positive and finite, not {temperature}")


def check_drop_probability(method: str, p: float) -> None:
    """Refuse a p outside [0, 1).

    Raises:
        ValueError: names the method and the value.
    """
    if not 0 <= p < 1:
        raise ValueError(f"{method}: p is the probability to drop a feature, in [0, 1), not {p}")
