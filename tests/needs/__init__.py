"""Tests of `src/needs`."""
