"""Fuzzing of everything that reads a file from an unknown source: `python -m benchmarks.fuzz --help`.

`targets.py` lists what is fuzzed, `*_seeds.py` make sound files, `*_mutations.py` change them, and `engine.py`
runs them in a separate process. No file of a corpus is kept in the repository: all of them are made by code.
"""
