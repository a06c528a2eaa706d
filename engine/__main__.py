"""`python -m engine` is `carstore`."""

from engine.cli import main

if __name__ == "__main__":
    main()
