"""Training, evaluation, prediction and reports, written once for every method."""

from fewseg.alias import keep_one_module

keep_one_module(__name__)
