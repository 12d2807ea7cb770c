"""The paper's analysis: Lemmas 1 and 2, Fig. 4, Assumptions 1 and 2 (Table 8) and Proposition 1, measured or checked.

Of a trained network: `directions` (Lemma 1 and Fig. 4), and `components`, which `proposition1` reads (Table 8 too). Of
no network: `high_precision`. Every measurement runs the network in evaluation mode, under masks that depend on the
seed and the image's position alone, and leaves the network, its gradients and the random state as it found them.
"""
