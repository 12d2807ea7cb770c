"""The paper's analysis: Lemmas 1 and 2, Fig. 4, Assumptions 1 and 2 (Table 8) and Proposition 1, measured or checked.

Of a trained network: `directions` (Lemma 1 and Fig. 4), and `components`, which `proposition1` reads (Table 8 too). Of
no network: `high_precision`. Every measurement runs the network in evaluation mode, under masks that depend on the
seed and the image's position alone, and leaves the network, its gradients and the random state as it found them.

Example:
    >>> from torch import nn
    >>> from selfdistill.data import load_data
    >>> from selfdistill.evaluation.images import Images
    >>> from selfdistill.paper.analysis.components import measure_components
    >>> from selfdistill.paper.analysis.directions import check_lemma1, measure_gradients
    >>> from selfdistill.paper.analysis.proposition1 import measure_assumptions, measure_proposition1
    >>> data = load_data("digits", per_class=2, test_per_class=3)
    >>> images = Images(data.test, data, "cpu", batch_size=8)
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 16), nn.ReLU(), nn.Linear(16, 10))
    >>> check_lemma1(model, images).reverse_weights < 1e-12
    True
    >>> gradients = measure_gradients(model, images)
    >>> gradients.n, gradients.head.weights, gradients.whole.weights
    (24, 170, 49338)
    >>> components = measure_components(model, images)
    >>> assumptions, proposition = measure_assumptions(components), measure_proposition1(components)
    >>> assumptions.n, assumptions.both == proposition.assumed, proposition.positive_if_assumed
    (30, True, 1.0)
"""
