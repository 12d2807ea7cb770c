"""What is done with trainings: a grid of runs, a comparison on a user's images, predictions."""
