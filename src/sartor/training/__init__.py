"""Tasks, recipes and the loop that trains a network."""
