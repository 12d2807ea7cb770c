"""How long a training takes: the profile of a step, and the epochs that a budget allows."""
