"""Benchmarks: speed as ratios taken side by side in one run, because machines are noisy.

``python -m bench.database`` measures one process, ``python -m bench.sync`` two.  Nothing here is a test.
"""
