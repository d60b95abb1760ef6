"""What runs inside the zygote's processes: standard library only, and nothing here ever holds a secret.

The trusted client imports `protocol` from here; everything else is loaded by `boot.py` in a separate interpreter.
"""
