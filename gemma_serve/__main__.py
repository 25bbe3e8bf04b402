"""`python -m gemma_serve` is `gemma-serve`."""

from gemma_serve.cli import main

if __name__ == "__main__":
    main()
