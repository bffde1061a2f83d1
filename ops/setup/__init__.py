"""Brings a checkout to where it can run: `python3 -m ops.setup` with nothing but Python, apt and dpkg.

Only the standard library is used, for this runs before there is a virtual environment. Everything lands
inside the checkout (`.venv/`, `.tools/`): nothing on the system is installed, started or changed, and so no
root is needed.
"""
