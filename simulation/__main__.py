"""``python -m simulation``: see ``runner``."""

from simulation.runner import main

if __name__ == "__main__":
    main()
