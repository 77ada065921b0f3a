"""Data sets: reading, classes and folds, lists, episodes, and the data set that is drawn by code."""

from fewseg.alias import keep_one_module

keep_one_module(__name__)
