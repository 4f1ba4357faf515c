"""``python -m minicluster``."""

from minicluster.cli import main

if __name__ == "__main__":
    try:
        main()
    finally:
        # CPython holds an interrupt that comes while a string is run as code, as dataclasses do it, for one that nobody
        # caught, and ends by the signal and not with our status; unless another string is run later.
        exec("")
