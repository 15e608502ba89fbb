"""Scripts that run in the environments of vendors' toolchains: they import no module of this project but job_files.py.

A script must not have the name of a package, because Python would find the script first.
"""
