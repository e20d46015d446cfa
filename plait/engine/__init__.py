"""Carrying out a plan: units of work on threads, from input bytes to a finished folder."""
