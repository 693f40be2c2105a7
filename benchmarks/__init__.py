"""Benchmarks that compare variants side by side, and judge by nothing but ratios of one interleaved run.

Machines differ and share their cores, so no time here is a promise: a figure counts only against the figure
beside it, which was taken within the same seconds. ``sealed_vs_plain`` is the one to start. Linux only: CPU
time, memory and the choice of cores come from ``/proc`` and the scheduler.
"""
