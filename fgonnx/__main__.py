"""`python -m fgonnx`: the command line."""

from fgonnx.cli import main

if __name__ == "__main__":
    main()
