"""Tests of `src/clients`: requests and answers in the shapes of other workers."""
