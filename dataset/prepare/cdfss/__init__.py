"""The data sets that CD-FSS tests on: "Cross-Domain Few-Shot Semantic Segmentation", ECCV 2022."""
