"""What the values of masks mean in every data set, and how many folds its classes are cut into."""

BACKGROUND = 0
VOID = 255
"""The label of pixels that belong to no class: unsure borders and padding."""

FOLDS = 4
"""Folds of a data set that does not say how many it has."""
