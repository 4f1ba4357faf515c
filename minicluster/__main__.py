"""``python -m minicluster``."""

from minicluster.cli import main

if __name__ == "__main__":
    main()
