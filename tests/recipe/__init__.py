"""Tests of reading, composing and checking recipes."""
