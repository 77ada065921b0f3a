"""Preparation of data sets from archives or local copies, in the layout that training and testing read."""
