"""Rates and times as ratios: of the raw limit of SQLite, and of what users would pick instead.

`python -m benchmarks` runs them. Absolute figures drift with the machine; ratios taken in one run
hold, so every figure here stands beside the limit it is measured against.
"""
