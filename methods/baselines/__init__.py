"""What every result is compared with: baselines of a few dozen lines each, on the same interface as the
methods.
"""
