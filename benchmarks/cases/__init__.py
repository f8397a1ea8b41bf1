"""The cases of the benchmark, one file for each group."""
