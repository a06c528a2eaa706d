"""Calls in processes of their own, which can be killed.

`executor` is for the parent, `child` and `work` run in the process. Nothing is imported here: each
call imports this package anew.
"""
