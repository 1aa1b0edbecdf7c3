"""`python -m surgetank`: the command `surgetank`, where its script is not on the path.

Owns: no state. Threads: one. Invariants: none.
"""

from surgetank.cli import main

if __name__ == "__main__":
    main()
