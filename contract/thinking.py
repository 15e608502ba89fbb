"""The marks around what a model thinks before it answers: those of the checkpoints that think, as plain text."""

START, END = "<think>", "</think>"
