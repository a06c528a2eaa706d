"""`carstore prove`: every promise, tried until it breaks or enough was tried.

`proof` says what a proof is; each further module holds one or a few. `disk` holds those that make
the disk fail. `broken` breaks promises on purpose, so that one can see that the proofs can fail.
"""
