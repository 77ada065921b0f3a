"""Preparing data sets: from archives or local copies to the layout that training and testing read."""
