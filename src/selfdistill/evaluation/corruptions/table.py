"""The fifteen corruptions and their published constants, five severities each: facts, in one page.

Lengths are pixels, noise and brightness are in units of white = 1, angles are drawn; what each number is, is said by
the function of that name. Only the elastic constants are fractions of the image's side.

Source: ``make_cifar_c.py`` and ``make_imagenet_c.py`` of github.com/hendrycks/robustness, which made the published sets
of Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and Perturbations, ICLR 2019.
"""

from collections.abc import Mapping

from selfdistill.text import suggest

SEVERITIES = (1, 2, 3, 4, 5)

Constants = Mapping[str, tuple[tuple[float, ...], ...]]
"""By corruption: the constants of severity 1, 2 ... 5."""

CIFAR_C: Constants = {
    "gaussian_noise": ((0.04,), (0.06,), (0.08,), (0.09,), (0.10,)),
    "shot_noise": ((500,), (250,), (100,), (75,), (50,)),
    "impulse_noise": ((0.01,), (0.02,), (0.03,), (0.05,), (0.07,)),
    "defocus_blur": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    "glass_blur": ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    "motion_blur": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    "zoom_blur": ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
    "snow": (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ),
    "frost": ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
    "fog": ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
    "brightness": ((0.05,), (0.1,), (0.15,), (0.2,), (0.3,)),
    "contrast": ((0.75,), (0.5,), (0.4,), (0.3,), (0.15,)),
    "elastic_transform": ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
    "pixelate": ((0.95,), (0.9,), (0.85,), (0.75,), (0.65,)),
    "jpeg_compression": ((80,), (65,), (58,), (50,), (40,)),
}
"""What made CIFAR-10-C and CIFAR-100-C, 32 x 32."""

_ELASTIC = 244 / 224  # the script multiplies by 244 where its images have 224 pixels

IMAGENET_C: Constants = {
    "gaussian_noise": ((0.08,), (0.12,), (0.18,), (0.26,), (0.38,)),
    "shot_noise": ((60,), (25,), (12,), (5,), (3,)),
    "impulse_noise": ((0.03,), (0.06,), (0.09,), (0.17,), (0.27,)),
    "defocus_blur": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    "glass_blur": ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    "motion_blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    "zoom_blur": ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
    "snow": (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ),
    "frost": ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
    "fog": ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    "brightness": ((0.1,), (0.2,), (0.3,), (0.4,), (0.5,)),
    "contrast": ((0.4,), (0.3,), (0.2,), (0.1,), (0.05,)),
    "elastic_transform": (
        (2 * _ELASTIC, 0.7 * _ELASTIC, 0.1 * _ELASTIC),
        (2 * _ELASTIC, 0.08 * _ELASTIC, 0.2 * _ELASTIC),
        (0.05 * _ELASTIC, 0.01 * _ELASTIC, 0.02 * _ELASTIC),
        (0.07 * _ELASTIC, 0.01 * _ELASTIC, 0.02 * _ELASTIC),
        (0.12 * _ELASTIC, 0.01 * _ELASTIC, 0.02 * _ELASTIC),
    ),
    "pixelate": ((0.6,), (0.5,), (0.4,), (0.3,), (0.25,)),
    "jpeg_compression": ((25,), (18,), (15,), (10,), (7,)),
}
"""What made ImageNet-C, 224 x 224: harsher than CIFAR-C's."""

CORRUPTIONS = tuple(CIFAR_C)
"""The fifteen names in the order of Table 6; also the names of the published files."""

EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
"""The published sets hold these four besides. They are part of no mean here: Table 6's is over the fifteen."""


def constants_for(size: int) -> Constants:
    """Return the constants for images of `size` pixels: CIFAR-C's or ImageNet-C's, by the nearer size in ratio.

    The border is sqrt(32 * 224), between 84 and 85 pixels. Lengths stay as published, in pixels: at 32 and 224 the
    corruptions are the published ones, at another size a blur or a shift is relatively weaker or stronger.

    Example:
        >>> constants_for(32) is constants_for(84) is CIFAR_C, constants_for(85) is constants_for(224) is IMAGENET_C
        (True, True)
    """
    return CIFAR_C if size * size < 32 * 224 else IMAGENET_C


def check(name: str, severity: int) -> None:
    """Refuse what is not a corruption of Table 6, or no severity.

    Raises:
        ValueError: with the nearest name.

    Example:
        >>> check("fogg", 1)
        Traceback (most recent call last):
        ...
        ValueError: name: 'fogg' is not one of the 15 corruptions; did you mean 'fog'?
    """
    if name not in CIFAR_C:
        of = " of Table 6, though it is published with them" if name in EXTRA else ""
        remedy = suggest(str(name), CORRUPTIONS)
        raise ValueError(f"name: {name!r} is not one of the {len(CORRUPTIONS)} corruptions{of}; {remedy}")
    if isinstance(severity, bool) or not isinstance(severity, int) or severity not in SEVERITIES:
        raise ValueError(f"severity: {severity!r}, expected 1, 2, 3, 4 or 5")
