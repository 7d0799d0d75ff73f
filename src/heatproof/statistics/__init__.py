"""Intervals, paired tests, agreement and the verdict: numbers and data frames only, never torch.

Nothing is imported here: processes that only measure need neither pandas nor scipy.stats.
"""
