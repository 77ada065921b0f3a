"""Configs, results, files and logs: what all packages use and what knows none of them."""

from fewseg.alias import keep_one_module

keep_one_module(__name__)
