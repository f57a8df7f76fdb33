"""Hostile input, made by the thousand: `targets` say what holds whatever comes in, `attacks` what somebody might think of.

`make test` runs each target for a second on what hypothesis makes of it, `make fuzz` for as long as you like on what
atheris finds by watching which lines run. What either found is told in `test_found`.
"""
