"""The label values that all data sets share, and the default number of folds."""

BACKGROUND = 0
VOID = 255
"""The label of pixels that belong to no class: uncertain borders and padding."""

FOLDS = 4
"""Number of folds of a data set that does not define its own."""
