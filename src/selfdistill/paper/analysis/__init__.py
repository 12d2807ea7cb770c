"""The paper's analysis: Lemma 1, Fig. 4, Assumptions 1 and 2 (Table 8), Lemma 2 and Proposition 1, measured or checked.

Of a trained network: `gradients` (Fig. 4), `lemma1`, and `components`, which `assumptions` (Table 8) and `proposition1`
read. Of no network, at high precision: `lemma2` and `exact`. Every measurement runs the network in evaluation mode,
under masks that depend on the seed and the image's position alone, and leaves it as it was found.
"""
