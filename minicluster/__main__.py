"""``python -m minicluster``."""

from minicluster.cli import main

if __name__ == "__main__":
    try:
        main()
    finally:
        # An interrupt that arrives while a string is run as code, which is how dataclasses are made, counts as caught by
        # nobody to CPython, which then ends by the signal and not with our status; unless another string is run later.
        exec("")
