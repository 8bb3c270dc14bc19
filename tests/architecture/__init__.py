"""Tests of the shape of the code: layers, banned imports and words, packaging."""
