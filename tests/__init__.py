"""Tests, in the tree of what they test. A package, so that no installed package of that name hides it."""
