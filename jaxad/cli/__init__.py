"""The command line, one file for each command of some length."""
