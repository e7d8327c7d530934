"""Readers of the benchmarks' own annotation files, one module a data set."""
