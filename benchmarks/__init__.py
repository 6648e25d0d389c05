"""Measurements of speed and size: ``python -m benchmarks NAME [--quick]``; see docs/benchmarks.md.

What can be stated as pass or fail is a test and stands in ``tests/``; nothing here passes or fails.
Servers and etcd run in processes of their own, which end with ours.
"""
