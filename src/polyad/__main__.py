"""`python -m polyad`, which `torchrun -m polyad` and `accelerate launch -m polyad` call."""

from polyad.cli import main

if __name__ == "__main__":
    main()
