"""Out-of-distribution (OOD) detection, Table 7: scores, their metrics, and the measurement of a model (`measure`)."""
