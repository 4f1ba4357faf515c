"""``python -m minicluster``."""

from minicluster.cli import main

if __name__ == "__main__":
    try:
        main()
    finally:
        # CPython treats an interrupt during the execution of code in a string, which dataclasses use, as uncaught: the
        # process then ends by the signal and not with our status, unless code in a string is executed later.
        exec("")
