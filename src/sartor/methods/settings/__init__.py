"""Hyper-parameters of the methods, a module a method; none imports torch, so that `--help` is quick."""
