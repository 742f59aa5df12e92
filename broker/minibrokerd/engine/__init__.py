"""The engine joins core and log: it closes batches, holds back what is not safe yet, and keeps disk and
memory bounded.
"""
